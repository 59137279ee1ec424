"""The walk over what `fn` holds: it finds tensors behind names, and nothing that it meets can stop it."""

import functools

import keras
import pytest
import tensorflow as tf

import tapekit
from tapekit.explaining.ready_made import reachable


class Raises:
    """An object whose attributes, class, keys and comparisons raise."""

    __hash__ = None

    def __init__(self, found):
        self.found = found

    @property
    def variables(self):
        raise ValueError("not built")

    @property
    def losses(self):
        raise KeyError("losses")

    value = layers = name = variables

    def __eq__(self, other):
        raise RuntimeError("not comparable")

    __repr__ = __bool__ = __len__ = __iter__ = __eq__


class Slots:
    __slots__ = ("found",)


class NoClass:
    @property
    def __class__(self):
        raise RuntimeError("no class")


class Everything:
    def __getattr__(self, name):
        return Everything()


def hostile():
    """Objects that raise or never end, and the tensor that stands behind the first of them."""
    tensor = tf.constant([1.0, 2.0])
    cycle = [tensor]
    cycle.append(cycle)
    empty = Slots()
    loop = functools.partial(tf.add, y=1.0)
    loop.keywords["self"] = loop
    found = [Raises(tensor), NoClass(), Slots, empty, Everything(), cycle, loop, {Slots: 1, ("a",): cycle}, len]
    return tensor, [*found, [].append, "".join, type, int.__add__, tf.nn.relu, tf.square, keras, iter([])]


def test_the_walk_finds_what_stands_behind_objects_that_raise():
    tensor, objects = hostile()

    def fn():
        return objects

    assert any(each.value is tensor for each in reachable(fn))


@pytest.mark.parametrize("index", range(len(hostile()[1])))
def test_the_walk_never_raises_whatever_fn_holds(index):
    _, objects = hostile()
    w = tf.Variable([1.0, 2.0], name="w")
    other = tf.constant([3.0, 4.0])

    def fn(each=objects[index]):
        assert each is not None
        return tf.reduce_sum(other)

    assert tapekit.explain(fn, w)[0].cause in ("outside_tape", "not_used")


def test_a_function_of_tensorflow_is_explained_wherever_fn_holds_it():
    w = tf.Variable([-1.0, -2.0], name="w")
    relu, table = tf.nn.relu, {"relu": tf.nn.relu, "square": tf.square}
    dense = keras.layers.Dense(2, activation=tf.nn.elu)
    dense.activity = tf.maximum
    called = {
        "default": lambda act=tf.nn.relu: act(w),
        "closure": lambda: relu(w),
        "table": lambda: table["relu"](w),
        "attribute": lambda: dense.activity(w, 0.0),
        "nested": lambda: tf.tanh(relu(table["square"](w) - 9.0)),
    }
    assert {key: tapekit.explain(fn, w)[0].op for key, fn in called.items()} == {
        "default": "Relu",
        "closure": "Relu",
        "table": "Relu",
        "attribute": "Maximum",
        "nested": "Relu",
    }
    assert tapekit.explain(lambda: tf.reduce_sum(dense(w[None])), [w])


def test_the_variables_that_fn_reads_instead_are_named_in_one_finding():
    gen, disc, z = keras.Sequential([keras.layers.Dense(3)]), keras.layers.Dense(1, name="d"), tf.ones([4, 2])
    images = gen(z)
    disc(images)
    w = tf.Variable(tf.ones([3, 1]), name="w")
    for fn in (lambda: tf.reduce_sum(disc(images)), lambda: tf.reduce_sum(disc(images * 2.0) ** 2)):
        explanation = tapekit.explain(fn, gen.trainable_variables)
        assert {(each.cause, each.line) for each in explanation} == {("wrong_tensor", explanation[0].line)}
        assert "fn reads none of the sources, but d/kernel, d/bias" in explanation[0].why
        assert explanation[0].advice.startswith("Ask for the gradient with respect to the variables that fn reads")
    finding = tapekit.explain(lambda: tf.reduce_sum(images @ w), gen.trainable_variables)[1]
    assert "fn reads none of the sources, but w. It reads tensors that were made before" in finding.why
    assert "images (4, 3) (made on line" in finding.why


def test_a_model_under_stop_gradient_is_not_said_to_be_missing_in_vars():
    online, target = keras.Sequential([keras.layers.Dense(2)]), keras.Sequential([keras.layers.Dense(2)])
    x = tf.ones([3, 4])
    online(x), target(x)

    def losses():
        yield lambda: tf.reduce_mean((online(x) - tf.stop_gradient(target(x))) ** 2)
        yield lambda: tf.reduce_mean((online(x) - target.predict(x, verbose=0)) ** 2)
        yield lambda: tf.reduce_mean((online(x) - tf.one_hot(tf.argmax(target(x), -1), 2)) ** 2)

    assert [tapekit.explain(fn, online.trainable_variables).notes for fn in losses()] == [(), (), ()]
    assert tapekit.explain(lambda: tf.reduce_mean((online(x) - target(x)) ** 2), online.trainable_variables).notes
