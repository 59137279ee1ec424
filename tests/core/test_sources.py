"""The one calling rule, and what may be a source."""

import contextlib
import functools
import re
from collections import namedtuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import tapekit
from tapekit._sources import bind, describe, names

Point = namedtuple("Point", "x y")


def product(a, b):
    return a * b


class Line:
    slope = 2.0

    def at(self, x):
        return self.slope * x

    def __call__(self, x):
        return self.slope * x


def decorated(fn):
    return lambda *args, **kwargs: fn(*args, **kwargs)


CALLS = [
    (lambda: tf.constant(7.0), [tf.Variable(1.0)], 7.0),
    (lambda x=3.0, y=2.0: tf.constant(x * y), [tf.Variable(1.0)], 6.0),
    (lambda x: x + 1.0, 2.0, 3.0),
    (lambda x, scale=10.0: x * scale, 2.0, 20.0),
    (product, [2.0, 3.0], 6.0),
    (product, (2.0, 3.0), 6.0),
    (product, Point(2.0, 3.0), 6.0),
    (product, {"b": 3.0, "a": 2.0}, 6.0),
    (product, {"b": 3.0, "a": 2.0}.values(), 6.0),
    (lambda **named: named["a"] - named["b"], {"a": 2.0, "b": 3.0}, -1.0),
    (lambda p, q: p["u"] * q[0], [{"u": 2.0}, [4.0]], 8.0),
    (Line().at, 2.0, 4.0),
    (Line(), 2.0, 4.0),
    (functools.partial(product, b=5.0), 2.0, 10.0),
    (functools.partial(product, 5.0), 2.0, 10.0),
    (functools.partial(product, tf.constant(5.0), tf.constant(2.0)), tf.Variable(1.0), 10.0),
    (tf.function(product), [2.0, 3.0], 6.0),
    (tf.function(lambda: tf.constant(4.0)), tf.Variable(1.0), 4.0),
    (decorated(product), [2.0, 3.0], 6.0),
    (decorated(product), {"a": 2.0, "b": 3.0}, 6.0),
    (tf.square, 3.0, 9.0),
    (tf.raw_ops.Square, {"x": 3.0}, 9.0),
    (keras.layers.Rescaling(0.5), np.float32([4.0]), 2.0),
    (keras.Sequential([keras.layers.Rescaling(0.5)]), [tf.constant([4.0])], 2.0),
]


@pytest.mark.parametrize(("fn", "vars", "expected"), CALLS)
def test_fn_is_called_by_the_one_rule(fn, vars, expected):
    assert np.squeeze(bind("gradient", fn, vars)()) == expected


@pytest.mark.parametrize(
    ("fn", "vars", "words"),
    [
        (product, 2.0, r"fn\(a, b\) cannot be called as fn with 1 argument\(s\): missing a required argument: 'b'"),
        (product, [2.0, 3.0, 4.0], r"vars is a list of 3. Let fn take one parameter for each"),
        (product, {"a": 2.0, "c": 3.0}, r"as fn\(\*\*vars\) with the keys \['a', 'c'\]"),
        (lambda x, *, keen: x, 2.0, "missing a required.* argument: 'keen'"),
        (lambda *args: args, {"a": 2.0}, "got an unexpected keyword argument 'a'"),
    ],
)
def test_a_fn_that_fits_neither_way_is_an_error_with_its_signature(fn, vars, words):
    with pytest.raises(TypeError, match=words):
        bind("gradient", fn, vars)


def test_a_class_is_not_a_function():
    for wrong in (tf.keras.layers.Dense, tapekit.GradientLog):
        with pytest.raises(TypeError, match=f"gradient: fn is the class {wrong.__name__}, not a function"):
            tapekit.gradient(wrong, tf.Variable(1.0))


def test_a_result_in_the_place_of_fn_is_an_error_that_shows_what_to_write():
    with pytest.raises(TypeError, match=r"fn is a float32 tensor of shape \(\), not a function.*lambda: loss"):
        bind("gradient", tf.constant(1.0), tf.Variable(1.0))


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (3, "float32"),
        (3.5, "float32"),
        (2j, "complex128"),
        (np.float64(2.0), "float64"),
        (np.float16([1.0]), "float16"),
        (np.complex64([1j]), "complex64"),
        (tf.constant(1.0, tf.bfloat16), "bfloat16"),
    ],
)
def test_numbers_become_float32_and_arrays_keep_their_dtype(value, dtype):
    (source,) = bind("gradient", lambda x: x, value).sources
    assert isinstance(source, tf.Tensor)
    assert source.dtype == dtype


def test_variables_are_sources_as_they_are_and_keras_variables_by_the_variable_behind_them():
    frozen, wrapped = tf.Variable(1.0, trainable=False), keras.Variable(2.0)
    call = bind("gradient", lambda: frozen, [frozen, wrapped])
    assert call.sources[0] is frozen
    assert call.sources[1] is wrapped.value
    assert call.leaves[1] is wrapped


@pytest.mark.parametrize("vars", [[], (), {}, [[], {}]])
def test_an_empty_structure_is_an_error(vars):
    with pytest.raises(ValueError, match=r"hessian: vars is empty .*call it on a batch first"):
        bind("hessian", lambda: 0, vars)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (tf.Variable(3, name="steps"), "source 'steps' is int32. Only floating-point sources have gradients; use 3.0"),
        (tf.constant([True]), "source 'vars' is bool"),
        (tf.constant("a"), "source 'vars' is string"),
        ("a", "source 'vars' is string"),
        (True, "source 'vars' is bool"),
        (np.arange(3), "source 'vars' is int64"),
        (np.array(["2026-01-01"], "datetime64[D]"), r"is a NumPy datetime64\[D\] array .*Give a tf.Variable"),
        (np.array([None]), r"is a NumPy object array of shape \(1,\). Give a tf.Variable"),
        (None, "source 'vars' is None. Give a tf.Variable"),
        ({1.0, 2.0}, "is a set. A structure is a list, tuple or dict: write list"),
        ((x for x in [1.0]), "is a generator. A structure is a list"),
        (tf.sparse.from_dense([1.0]), "is a SparseTensor. Give its .values"),
        (keras.Sequential([], name="scale"), "is a Sequential. Give its variables: value.trainable_variables"),
    ],
)
def test_what_no_tape_can_watch_is_named_with_its_kind(value, words):
    with pytest.raises(TypeError, match=words):
        bind("gradient", lambda: 0, value)


def test_the_parameter_names_a_source_that_has_no_name():
    with pytest.raises(TypeError, match="source 'steps' is int64"):
        bind("gradient", lambda x, steps: x, [1.0, np.arange(2)])


@pytest.mark.parametrize("value", [3.0, np.ones(2)])
def test_a_number_cannot_be_meant_by_a_fn_that_takes_nothing(value):
    with pytest.raises(
        ValueError, match=r"but fn is called without it. Let fn take it, without a default, vjp\(lambda x"
    ):
        bind("vjp", lambda: 0, [tf.Variable(1.0), value])


def test_names_are_keras_paths_then_variable_names_then_parameters_then_places():
    layer = keras.layers.Dense(1, name="head")
    layer.build((None, 2))
    assert names(layer.trainable_variables) == ["head/kernel", "head/bias"]
    assert names([tf.Variable(1.0, name="w"), tf.Variable(1.0), tf.constant(1.0)]) == ["w", "vars[1]", "vars[2]"]
    assert names([tf.constant(1.0), [tf.constant(2.0)]], lambda x, y: 0) == ["x", "y[0]"]
    assert names({"b": 1.0, "a": {"k": [2.0, 3.0]}}) == ["a['k'][0]", "a['k'][1]", "b"]
    assert names(Point(1.0, 2.0)) == ["x", "y"]
    assert names({"rate": tf.Variable(1.0, name="w"), "head": {"k": layer.kernel}}) == ["head['k']", "rate"]
    assert names(1.0) == ["vars"]


def test_equal_names_are_told_apart():
    w = tf.Variable(1.0, name="w")
    assert names([w, w, w]) == ["w", "w_1", "w_2"]
    assert names([w, w, tf.Variable(1.0, name="w_1")]) == ["w", "w_1", "w_1_1"]


def test_a_model_and_its_own_variables_are_no_loss():
    model = keras.Sequential([keras.layers.Dense(1)])
    model(tf.ones([1, 2]))
    with pytest.raises(TypeError, match=r"fn is a Sequential and vars are its own variables.*lambda: loss\(y, model"):
        bind("gradient", model, model.trainable_variables)


def test_the_structure_that_comes_in_goes_out():
    call = bind("gradient", lambda p, q: 0, [Point(1.0, [2.0]), {"b": 3.0, "a": 4.0}])
    assert call.pack("wxyz") == [Point("w", ["x"]), {"b": "z", "a": "y"}]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3, "the Python int 3"),
        (np.float32(3.0), "a NumPy float32 array of shape ()"),
        (tf.Variable([1.0]), "a float32 variable of shape (1,)"),
        (keras.Variable([1.0]), "a float32 variable of shape (1,)"),
        (object(), "an object"),
    ],
)
def test_describe_gives_kind_dtype_and_shape(value, words):
    assert re.escape(describe(value)) == re.escape(words)


@pytest.mark.parametrize(
    "ask",
    [
        lambda fn, x: tapekit.per_example_gradient(lambda row: fn(tf.Variable(x)), tf.Variable(x), x),
        tapekit.trace,
        tapekit.explain,
        tapekit.check_gradient,
    ],
    ids=["per_example_gradient", "trace", "explain", "check_gradient"],
)
def test_a_loop_that_raises_in_a_graph_does_not_keep_a_strategy_from_opening(ask):
    def fn(x):
        return tf.reduce_sum(tf.map_fn(lambda row: row * float(row.numpy()), x))

    with contextlib.suppress(Exception):
        ask(fn, tf.constant([1.0, 2.0]))
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        assert tf.compat.v1.get_variable_scope().caching_device is None


def test_a_text_that_explain_gets_is_told_to_be_no_part_of_the_closure():
    with pytest.raises(ValueError, match="source 'vars' is the Python str 'w', but fn is called without it"):
        tapekit.explain(lambda: tf.constant(1.0), "w")
