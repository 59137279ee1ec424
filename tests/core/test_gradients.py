"""Every derivative against the raw tape, closed forms and published numbers, and the relations between them."""

import re
import warnings
from collections import namedtuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import tapekit

Point = namedtuple("Point", "x y")


def same(a, b):
    """Bit for bit: kind, dtype, shape and bytes, through any structure."""
    tf.nest.assert_same_structure(a, b, expand_composites=True)
    for x, y in zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True):
        assert type(x) is type(y)
        for p, q in zip(*(tf.nest.flatten(z, expand_composites=True) for z in (x, y)), strict=True):
            if p is not None:
                assert p.dtype == q.dtype
                assert np.asarray(p).tobytes() == np.asarray(q).tobytes()


def raw_tape(fn, sources, **options):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for source in tf.nest.flatten(sources):
            tape.watch(source.flat_values if isinstance(source, tf.RaggedTensor) else source)
        target = fn(*sources)
    return tape.gradient(target, sources, **options)


def draw(*shapes, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    if dtype.startswith("complex"):
        return [tf.constant(rng.normal(size=s) + 1j * rng.normal(size=s), dtype) for s in shapes]
    return [tf.cast(tf.constant(rng.uniform(0.5, 2.0, size=s)), dtype) for s in shapes]


def mlp(x, w, b, v):
    return tf.reduce_mean((tf.tanh(x @ w + b) @ v) ** 2)


def loop(x):
    for _ in tf.range(3):  # autograph makes a tf.while_loop of it
        tf.autograph.experimental.set_loop_options(maximum_iterations=3)  # XLA wants a bound
        x = tf.sin(x) * x
    return x


FUNCTIONS = {
    "square": (tf.square, [()]),
    "vector target": (lambda x, y: tf.sin(x) * y, [(3,), (3,)]),
    "broadcast": (lambda x, b: x + b, [(4, 3), (3,)]),
    "mlp": (mlp, [(5, 3), (3, 4), (4,), (4, 2)]),
    "used twice": (lambda x: x * x + x, [(2, 2)]),
    "unused": (lambda x, y: tf.reduce_sum(x), [(2,), (3,)]),
    "slices": (lambda x: tf.reduce_sum(tf.gather(x, [0, 2, 2]) ** 2), [(4, 2)]),
    "control flow": (tf.function(loop), [(3,)]),
    "tf.while_loop": (
        lambda x: tf.while_loop(lambda i, _: i < 3, lambda i, a: [i + 1, a * x], [0, x], maximum_iterations=3)[1],
        [(2,)],
    ),
    "tf.cond": (lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x**2, lambda: x), [(2,)]),
    "structure": (lambda x, y: {"loss": x * y, "penalty": [x**2]}, [(2,), (2,)]),
    "matrix": (lambda a: tf.linalg.logdet(tf.matmul(a, a, transpose_b=True) + tf.eye(3)), [(3, 3)]),
}


@pytest.mark.parametrize("mode", ["eager", "graph", "jit"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient_is_the_raw_tapes_bit_for_bit(name, mode):
    fn, shapes = FUNCTIONS[name]
    sources = draw(*shapes)

    def ours():
        return tapekit.gradient(fn, sources, unconnected="none")

    def theirs():
        return raw_tape(fn, sources)

    if mode != "eager":
        ours, theirs = (tf.function(f, jit_compile=mode == "jit", autograph=False) for f in (ours, theirs))
    same(ours(), theirs())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64"])
@pytest.mark.parametrize("fn", [lambda x, y: x * y + x, lambda x, y: tf.exp(x / y), lambda x, y: x**3 - y])
def test_gradient_keeps_the_dtype_of_every_source(fn, dtype):
    sources = draw((3,), (3,), dtype=dtype)
    grads = tapekit.gradient(fn, sources)
    assert [g.dtype for g in grads] == [dtype, dtype]
    same(grads, raw_tape(fn, sources))


@pytest.mark.parametrize("kind", [tf.Variable, keras.Variable, tf.constant])
def test_a_closure_over_any_kind_of_source_gives_the_same_numbers(kind):
    x = kind(3.0)
    assert float(tapekit.gradient(lambda: tf.convert_to_tensor(x) ** 2, x)) == 6.0
    assert float(tapekit.gradient(lambda x: tf.convert_to_tensor(x) ** 2, x)) == 6.0


def test_an_untrainable_variable_has_a_gradient_when_it_is_asked_for():
    w = tf.Variable(3.0, trainable=False)
    assert float(tapekit.gradient(lambda: w**2, w)) == 6.0


def test_the_seed_of_tapekit():
    w = tf.Variable(5.0)
    assert float(tapekit.gradient(lambda: tf.square(w), w)) == 10.0


def test_the_circuit_of_cs231n():
    # f = (x + y) z at (-2, 5, -4): https://cs231n.github.io/optimization-2/
    grads = tapekit.gradient(lambda x, y, z: (x + y) * z, [-2, 5, -4])
    assert [float(g) for g in grads] == [-4.0, -4.0, 3.0]


def test_a_vector_target_gives_the_gradient_of_its_sum():
    x = tf.constant([1.0, 2.0])
    same(tapekit.gradient(lambda x: x**2, x), tapekit.gradient(lambda x: tf.reduce_sum(x**2), x))


@pytest.mark.parametrize(
    "vars",
    [
        2.0,
        [2.0],
        (2.0, 3.0),
        Point(2.0, 3.0),
        {"x": 2.0, "y": [3.0]},
        [{"a": (2.0,)}, 3.0],
    ],
)
def test_the_gradient_has_the_structure_of_vars(vars):
    def total(*args, **named):
        return sum(x**2 for x in tf.nest.flatten([args, named]))

    grads = tapekit.gradient(total, vars)
    tf.nest.assert_same_structure(grads, vars)
    for x, g in zip(tf.nest.flatten(vars), tf.nest.flatten(grads), strict=True):
        assert float(g) == 2 * x


def test_the_trainable_variables_of_a_model_get_the_raw_tapes_gradients():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(4, "tanh"), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    x, y = draw((6, 3), (6, 1))
    model(x)

    def loss():
        return tf.reduce_mean((model(x) - y) ** 2)

    with tf.GradientTape() as tape:
        target = loss()
    same(tapekit.gradient(loss, model.trainable_variables), tape.gradient(target, model.trainable_variables))


def test_the_gradient_at_a_models_input():
    model = keras.Sequential([keras.layers.Dense(1, use_bias=False)])
    x = np.ones((2, 3), "float32")
    model(x)
    assert np.array_equal(tapekit.gradient(model, x), np.repeat(model.layers[0].kernel.numpy().T, 2, 0))


def test_an_embedding_gives_indexed_slices():
    layer = keras.layers.Embedding(5, 2)
    ids = tf.constant([1, 1, 3])
    layer(ids)
    grad = tapekit.gradient(lambda: tf.reduce_sum(layer(ids)), layer.trainable_variables[0])
    assert isinstance(grad, tf.IndexedSlices)
    assert tf.convert_to_tensor(grad).numpy().tolist() == [[0, 0], [2, 2], [0, 0], [1, 1], [0, 0]]


def test_a_ragged_source_gets_a_ragged_gradient():
    rows = tf.ragged.constant([[1.0, 2.0], [], [3.0]])
    grad = tapekit.gradient(lambda r: tf.reduce_sum(r**2), rows)
    assert grad.to_list() == [[2.0, 4.0], [], [6.0]]


def test_ragged_data_inside_fn_reaches_the_dense_source():
    w = tf.Variable(2.0)
    rows = tf.ragged.constant([[1.0, 2.0], [3.0]])
    assert float(tapekit.gradient(lambda: tf.reduce_sum(rows * w), w)) == 6.0


def test_the_same_variable_may_be_given_twice():
    w = tf.Variable(3.0)
    assert [float(g) for g in tapekit.gradient(lambda: w**2, [w, w])] == [6.0, 6.0]
    assert float(tapekit.hvp(lambda: w**3, [w, w], [1.0, 1.0])[0]) == 36.0
    assert float(tapekit.jvp(lambda: w**2, [w, w], [1.0, 10.0]).tangent) == 66.0


def test_only_vars_are_differentiated():
    seen, other = tf.Variable(2.0), tf.Variable(3.0)
    assert tapekit.gradient(lambda: seen * other, other).numpy() == 2.0
    assert [v.name for v in (seen, other)]


def test_value_and_gradient_gives_both_from_one_run():
    runs = []

    def fn(x):
        runs.append(1)
        return x**3

    result = tapekit.value_and_gradient(fn, 2.0)
    assert (float(result.value), float(result.gradient), len(runs)) == (8.0, 12.0, 1)


def test_aux_is_handed_back_and_not_differentiated():
    (value, aux), grad = tapekit.value_and_gradient(lambda x: (x**2, {"twice": 2 * x}), 3.0, has_aux=True)
    assert (float(value), float(aux["twice"]), float(grad)) == (9.0, 6.0, 6.0)


def test_output_gradients_weigh_the_target():
    x = tf.constant([1.0, 2.0])
    weighed = tapekit.gradient(lambda x: x**2, x, output_gradients=[10.0, 1.0])
    same(weighed, raw_tape(lambda x: x**2, [x], output_gradients=tf.constant([10.0, 1.0]))[0])


class Records:
    def __init__(self):
        self.calls = []

    def record(self, gradients, variables, loss=None):
        self.calls.append((gradients, variables, loss))


def test_each_example_may_take_another_branch():
    a, b = tf.Variable(1.0), tf.Variable(1.0)
    batch = tf.constant([1.0, -1.0, 2.0])

    def loss(x):
        return tf.cond(x > 0, lambda: a * x, lambda: 10.0 * b * x)

    for run in (tapekit.per_example_gradient, tf.function(tapekit.per_example_gradient)):
        rows = run(loss, [a, b], batch)
        assert [row.numpy().tolist() for row in rows] == [[1.0, 0.0, 2.0], [0.0, -10.0, 0.0]]


def test_a_batch_of_no_examples_gives_no_gradients():
    w = tf.Variable([1.0, 2.0])
    assert tapekit.per_example_gradient(lambda x: tf.reduce_sum(w * x), w, tf.zeros([0, 2])).shape == (0, 2)


def test_a_log_receives_the_gradients_the_variables_and_the_loss():
    log, w = Records(), tf.Variable([1.0, 2.0])
    tapekit.gradient(lambda: w**2, w, log=log)
    tapekit.value_and_gradient(lambda: tf.reduce_sum(w**2), [w], log=log)
    for gradients, variables, loss in log.calls:
        assert tf.nest.flatten(gradients)[0].numpy().tolist() == [2.0, 4.0]
        assert tf.nest.flatten(variables)[0] is w
        assert float(tf.reduce_sum(loss)) == 5.0
    log = tapekit.GradientLog()
    tapekit.gradient(lambda p, q: p * q, {"p": 2.0, "q": 3.0}, log=log)
    assert log.names == ("p", "q")


@pytest.mark.parametrize("log", [True, "run.csv", tapekit.GradientLog])
def test_what_is_no_log_is_refused(log):
    with pytest.raises(TypeError, match=r"gradient: log is .*Give a GradientLog that was made before the loop"):
        tapekit.gradient(tf.square, 1.0, log=log)


class TestUnconnected:
    """What becomes of a source that the target does not depend on."""

    used, unused, keras_unused = (
        tf.Variable(2.0, name="used"),
        tf.Variable([1.0, 1.0], name="b"),
        keras.Variable([[3.0]]),
    )

    def call(self, **options):
        return tapekit.gradient(lambda: self.used**2, [self.used, self.unused, self.keras_unused], **options)

    def test_warn_names_the_sources_at_the_callers_line(self):
        with pytest.warns(
            tapekit.MissingGradientWarning, match=r"no gradient reaches 'b', 'variable.*'.*explain"
        ) as seen:
            grads = self.call()
        assert seen[0].filename == __file__
        assert grads[1:] == [None, None]

    @pytest.mark.parametrize("mode", ["none", tf.UnconnectedGradients.NONE])
    def test_none_is_silent(self, mode):
        assert self.call(unconnected=mode)[1:] == [None, None]

    @pytest.mark.parametrize("mode", ["zero", tf.UnconnectedGradients.ZERO])
    def test_zero_gives_dense_zeros_for_keras_variables_too(self, mode):
        grads = self.call(unconnected=mode)
        assert [g.numpy().tolist() for g in grads] == [4.0, [0.0, 0.0], [[0.0]]]
        assert all(isinstance(g, tf.Tensor) and g.dtype == tf.float32 for g in grads)

    def test_raise_names_the_sources(self):
        with pytest.raises(ValueError, match="gradient: no gradient reaches 'b'"):
            self.call(unconnected="raise")

    def test_another_word_is_an_error(self):
        with pytest.raises(
            ValueError, match=r"gradient: unconnected is 'ignore'. Write 'warn', 'none', 'zero' or 'raise'"
        ):
            self.call(unconnected="ignore")

    def test_zeros_have_the_shape_that_the_result_would_have(self):
        w, unused = tf.Variable([1.0, 2.0]), tf.Variable([1.0, 1.0, 1.0])
        zeros = tapekit.jacobian(lambda: w**2, [w, unused], unconnected="zero")[1]
        assert zeros.shape == (2, 3)
        zeros = tapekit.per_example_gradient(lambda x: x * w, [w, unused], tf.ones([4]), unconnected="zero")[1]
        assert zeros.shape == (4, 3)

    def test_the_other_derivatives_take_it_too(self):
        for fn in (tapekit.jacobian, lambda f, v, **o: tapekit.vjp(f, v, 1.0, **o).cotangents):
            assert float(fn(lambda x, y: x**2, [2.0, 3.0], unconnected="zero")[1]) == 0.0
            with pytest.warns(tapekit.MissingGradientWarning, match="'y'"):
                fn(lambda x, y: x**2, [2.0, 3.0])


def rosenbrock(x):
    return tf.reduce_sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def rosenbrock_gradient(x):
    grad = np.zeros_like(x)
    grad[:-1] = -400.0 * x[:-1] * (x[1:] - x[:-1] ** 2) - 2.0 * (1.0 - x[:-1])
    grad[1:] += 200.0 * (x[1:] - x[:-1] ** 2)
    return grad


def rosenbrock_hessian(x):
    diagonal = np.zeros_like(x)
    diagonal[:-1] = 1200.0 * x[:-1] ** 2 - 400.0 * x[1:] + 2.0
    diagonal[1:] += 200.0
    off = -400.0 * x[:-1]
    return np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function, lambda f: tf.function(f, jit_compile=True)])
def test_rosenbrocks_derivatives_are_the_closed_forms(wrap):
    x, v = np.array([1.3, 0.7, 0.8, 1.9, 1.2]), np.array([0.1, -0.2, 0.3, 0.4, -0.5])
    hessian = rosenbrock_hessian(x)
    np.testing.assert_allclose(wrap(lambda x: tapekit.gradient(rosenbrock, x))(x), rosenbrock_gradient(x), rtol=1e-12)
    np.testing.assert_allclose(wrap(lambda x: tapekit.hessian(rosenbrock, x))(x), hessian, rtol=1e-12)
    np.testing.assert_allclose(wrap(lambda x: tapekit.hvp(rosenbrock, x, v))(x), hessian @ v, rtol=1e-12)


PAIRS = {
    "mlp": (lambda w, b: tf.tanh(tf.constant([[1.0, -2.0, 0.5]], "float64") @ w + b), [(3, 2), (2,)]),
    "products": (lambda x, y: tf.stack([x[0] * y[1], tf.exp(x[1]) * y[0], x[0] ** 3]), [(2,), (2,)]),
    "slices": (lambda x, y: tf.gather(x, [0, 0, 1]) * y, [(2,), (3,)]),
    "while": (lambda x, y: tf.while_loop(lambda i, _: i < 3, lambda i, a: (i + 1, a * x), [0, y])[1], [(2,), (2,)]),
    "map_fn": (lambda x, y: tf.map_fn(lambda a: tf.sin(a) * a, x * y), [(3,), (3,)]),
}


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: tf.function(f, autograph=False)], ids=["eager", "graph"])
@pytest.mark.parametrize("name", PAIRS)
def test_the_derivatives_agree_with_one_another(name, wrap):
    fn, shapes = PAIRS[name]
    sources = draw(*shapes, dtype="float64")
    directions = draw(*shapes, dtype="float64", seed=1)
    jacobians = wrap(lambda: tapekit.jacobian(fn, sources))()
    value, tangent = wrap(lambda: tapekit.jvp(fn, sources, directions))()
    np.testing.assert_allclose(value, fn(*sources), rtol=1e-12)
    cotangent = draw(value.shape, dtype="float64", seed=2)[0]
    vjp = wrap(lambda: tapekit.vjp(fn, sources, cotangent))()
    for jacobian, source in zip(jacobians, sources, strict=True):
        assert jacobian.shape == value.shape + source.shape
    product = sum(np.tensordot(j, v, np.ndim(v)) for j, v in zip(jacobians, directions, strict=True))
    np.testing.assert_allclose(tangent, product, rtol=1e-10)
    # <u, J v> = <J'u, v>
    back = sum(np.sum(c * v) for c, v in zip(vjp.cotangents, directions, strict=True))
    np.testing.assert_allclose(back, np.sum(cotangent * tangent), rtol=1e-10)


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: tf.function(f, autograph=False)], ids=["eager", "graph"])
@pytest.mark.parametrize("name", PAIRS)
def test_hvp_is_the_hessian_times_the_vector(name, wrap):
    fn, shapes = PAIRS[name]

    def loss(*sources):
        return tf.reduce_sum(fn(*sources) ** 2)

    sources, vectors = draw(*shapes, dtype="float64"), draw(*shapes, dtype="float64", seed=1)
    blocks = wrap(lambda: tapekit.hessian(loss, sources))()
    products = wrap(lambda: tapekit.hvp(loss, sources, vectors))()
    for i, product in enumerate(products):
        expected = sum(np.tensordot(b, v, np.ndim(v)) for b, v in zip(blocks[i], vectors, strict=True))
        np.testing.assert_allclose(product, expected, rtol=1e-9, atol=1e-12)
        for j, block in enumerate(blocks[i]):
            assert block.shape == sources[i].shape + sources[j].shape
            rank = len(shapes[i])
            transposed = np.transpose(blocks[j][i], [*range(len(shapes[j]), block.shape.rank), *range(len(shapes[j]))])
            np.testing.assert_allclose(block, transposed, rtol=1e-9, atol=1e-12, err_msg=f"{rank}")


def test_jacobian_is_the_raw_tapes():
    x = draw((3,), dtype="float64")[0]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.sin(x)[:, None] * x
    same(tapekit.jacobian(lambda x: tf.sin(x)[:, None] * x, x), tape.jacobian(y, x))


def test_a_jacobian_that_cannot_fit_in_memory_is_refused_with_its_size():
    x = tf.zeros([200_000])
    size = "200,000 outputs by 200,000 inputs in float32 take 149 GiB"
    with pytest.raises(ValueError, match=f"jacobian: {size}. The array must fit .* Write tapekit.vjp"):
        tapekit.jacobian(lambda x: x**2, x)
    with pytest.raises(ValueError, match=f"hessian: {size}"):
        tapekit.hessian(lambda x: tf.reduce_sum(x**2), x)
    with pytest.raises(ValueError, match="jacobian: 200,000 outputs by 400,000 inputs in float32 take 298 GiB"):
        tapekit.jacobian(lambda x, y: x * y, [x, x])
    assert tapekit.jacobian(lambda x: x[:2] ** 2, x).shape == [2, 200_000]


def test_jacobian_falls_back_where_tensorflow_cannot_vectorize():
    @tf.custom_gradient
    def square(x):
        return x**2, lambda dy: dy * 2.0 * x if tf.reduce_any(dy != 0.0) else tf.zeros_like(x)

    x = tf.constant([1.0, 2.0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = square(x)
    with pytest.raises(TypeError, match="bool"):
        tape.jacobian(y, x)
    assert tapekit.jacobian(square, x).numpy().tolist() == [[2.0, 0.0], [0.0, 4.0]]


def test_the_hessian_of_a_dict_has_a_dict_of_blocks():
    blocks = tapekit.hessian(lambda a, b: a**2 * b, {"a": 2.0, "b": 3.0})
    assert {i: {j: float(block) for j, block in row.items()} for i, row in blocks.items()} == {
        "a": {"a": 6.0, "b": 4.0},
        "b": {"a": 4.0, "b": 0.0},
    }


def test_blocks_and_products_without_dependence_are_zeros():
    with pytest.warns(
        tapekit.MissingGradientWarning, match="hessian: no gradient reaches 'z'.*the result has zeros there"
    ):
        blocks = tapekit.hessian(lambda x, y, z: x**2 + 3.0 * y, [1.0, 2.0, tf.zeros([2])])
    assert [[b.numpy().tolist() for b in row] for row in blocks] == [
        [2.0, 0.0, [0.0, 0.0]],
        [0.0, 0.0, [0.0, 0.0]],
        [[0.0, 0.0], [0.0, 0.0], [[0.0, 0.0], [0.0, 0.0]]],
    ]
    with pytest.warns(tapekit.MissingGradientWarning, match="hvp: no gradient reaches 'y'") as warned:
        products = tapekit.hvp(lambda x, y: 3.0 * x, [1.0, tf.zeros([2])], [1.0, [1.0, 1.0]])
    assert [p.numpy().tolist() for p in products] == [0.0, [0.0, 0.0]]
    with pytest.warns(tapekit.MissingGradientWarning, match="jvp: no gradient reaches 'x'") as also_warned:
        assert float(tapekit.jvp(lambda x: tf.constant(2.0), 1.0, 1.0).tangent) == 0.0
    assert {each.filename for each in (*warned, *also_warned)} == {__file__}


def test_hvp_through_an_embedding_is_dense():
    table = tf.Variable([[1.0], [2.0]])
    product = tapekit.hvp(lambda: tf.reduce_sum(tf.gather(table, [0, 0, 1]) ** 2), table, tf.ones([2, 1]))
    assert product.numpy().tolist() == [[4.0], [2.0]]


@pytest.mark.parametrize("kind", [tf.Variable, keras.Variable])
def test_forward_mode_takes_variables(kind):
    w = kind([1.0, 2.0])
    result = tapekit.jvp(lambda: tf.convert_to_tensor(w) ** 2, w, [1.0, 10.0])
    assert result.value.numpy().tolist() == [1.0, 4.0]
    assert result.tangent.numpy().tolist() == [2.0, 40.0]


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_jvp_follows_a_custom_gradient_as_the_gradient_does(wrap):
    @tf.custom_gradient
    def straight_through(x):
        return tf.round(x), lambda dy: dy

    x = tf.constant([0.3, 1.7])
    assert wrap(lambda: tapekit.jvp(straight_through, x, [1.0, 5.0]).tangent)().numpy().tolist() == [1.0, 5.0]


def test_fn_runs_once_whatever_is_asked_of_it():
    runs = tf.Variable(0)

    def fn(x):
        runs.assign_add(1)
        return tf.while_loop(lambda i, _: i < 2, lambda i, a: [i + 1, a * x], [0, x])[1]

    for count, derivative in enumerate([tapekit.jvp, tapekit.hvp, tapekit.vjp], 1):
        derivative(fn, 2.0, 1.0)
        assert int(runs) == count


def test_a_vector_can_be_a_tensor_of_the_graph():
    @tf.function
    def step(v):
        for _ in tf.range(2):
            v = tapekit.hvp(lambda x: tf.reduce_sum(x**3), tf.constant([1.0, 2.0]), v)
        return v

    assert step(tf.constant([1.0, 1.0])).numpy().tolist() == [36.0, 144.0]


def test_jvp_of_two_outputs_has_their_structure():
    result = tapekit.jvp(lambda x: {"a": x**2, "b": [3.0 * x]}, 2.0, 1.0)
    assert float(result.tangent["a"]) == 4.0
    assert float(result.tangent["b"][0]) == 3.0


class TestPerExample:
    """One gradient for each example."""

    x, y = draw((6, 3), (6, 1))

    def model(self):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
        model(self.x)
        return model

    def one_by_one(self, fn, vars):
        rows = [tapekit.gradient(lambda i=i: fn((self.x[i], self.y[i])), vars) for i in range(6)]
        return [np.stack([np.asarray(tf.convert_to_tensor(r[k])) for r in rows]) for k in range(len(vars))]

    @pytest.mark.parametrize("wrap", [lambda f: f, lambda f: tf.function(f, autograph=False)], ids=["eager", "graph"])
    def test_it_is_a_loop_of_gradients(self, wrap):
        model = self.model()

        def loss(example):
            x, y = example
            return tf.reduce_mean((model(x[None])[0] - y) ** 2)

        grads = wrap(lambda: tapekit.per_example_gradient(loss, model.trainable_variables, (self.x, self.y)))()
        for ours, theirs in zip(grads, self.one_by_one(loss, model.trainable_variables), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)

    def test_their_sum_is_the_ordinary_gradient(self):
        w = tf.Variable(tf.ones([3]))
        rows = tapekit.per_example_gradient(lambda x: tf.reduce_sum(w * x) ** 2, w, self.x)
        whole = tapekit.gradient(lambda: tf.reduce_sum(tf.linalg.matvec(self.x, w) ** 2), w)
        np.testing.assert_allclose(tf.reduce_sum(rows, 0), whole, rtol=1e-5)

    @pytest.mark.parametrize(
        "fn",
        [
            lambda w, x: tf.reduce_sum(tf.py_function(lambda a, b: a * b, [w, x], tf.float32)),
            lambda w, x: tf.cond(tf.reduce_sum(x) > 3.5, lambda: tf.reduce_sum(w * x), lambda: tf.reduce_sum(w**2)),
            lambda w, x: tf.reduce_sum(w * x) if x[0] > 1.0 else tf.reduce_sum(w**2),
            lambda w, x: w[0] * float(x[0].numpy()),
            lambda w, x: tf.reduce_sum(tf.boolean_mask(w * x, x > 1.0) ** 2),
        ],
        ids=["py_function", "tf.cond", "python if", "numpy", "boolean_mask"],
    )
    def test_it_falls_back_where_tensorflow_cannot_vectorize(self, fn, caplog):
        w = tf.Variable([1.0, 2.0, 3.0])
        rows = tapekit.per_example_gradient(lambda x: fn(w, x), w, self.x)
        expected = [tf.convert_to_tensor(tapekit.gradient(lambda i=i: fn(w, self.x[i]), w)) for i in range(6)]
        np.testing.assert_allclose(rows, tf.stack(expected), rtol=1e-6)
        assert "pfor" not in caplog.text

    def test_embeddings_come_back_dense_and_the_unused_as_none(self):
        table, unused = tf.Variable([[1.0], [2.0]]), tf.Variable(1.0, name="unused")
        with pytest.warns(tapekit.MissingGradientWarning, match="per_example_gradient: no gradient reaches 'unused'"):
            rows = tapekit.per_example_gradient(
                lambda i: tf.reduce_sum(tf.gather(table, i) ** 2), [unused, table], tf.constant([0, 1])
            )
        assert rows[0] is None
        assert rows[1].numpy().tolist() == [[[2.0], [0.0]], [[0.0], [4.0]]]

    def test_axes_of_unknown_size_are_taken(self):
        w = tf.Variable(2.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
        def step(x):
            return tapekit.per_example_gradient(lambda e: (w * e[0]) ** 2 + e[1], w, (x, tf.ones([2])))

        assert step(tf.constant([1.0, 10.0])).numpy().tolist() == [4.0, 400.0]

    def test_a_fn_that_takes_the_members_of_an_example_is_told_how(self):
        with pytest.raises(TypeError, match=r"fn\(x, y\) cannot be called as fn\(example\).*x, y = example"):
            tapekit.per_example_gradient(lambda x, y: x, tf.Variable(1.0), (self.x, self.y))

    def test_a_number_cannot_be_closed_over(self):
        with pytest.raises(
            ValueError, match=r"the Python float 2.0, but fn is called without it .* used it. close over|Close"
        ):
            tapekit.per_example_gradient(lambda x: x, 2.0, self.x)

    def test_batches_without_a_common_first_axis_are_an_error(self):
        with pytest.raises(ValueError, match=r"arrays of shapes \(6, 3\), \(5,\). They need a common first axis"):
            tapekit.per_example_gradient(lambda e: 0, tf.Variable(1.0), (self.x, np.zeros(5)))
        with pytest.raises(
            ValueError, match=r"shapes \(\). They need a common first axis, \[batch, ...\]. Give x\[None\]"
        ):
            tapekit.per_example_gradient(lambda e: 0, tf.Variable(1.0), 3.0)


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (
            lambda x: None,
            "fn returned None. It must return a tensor; perhaps a return statement is missing",
        ),
        (lambda x: tf.argmax(x), r"fn returned an int64 tensor of shape \(\). Only a float or complex target"),
        (lambda x: x > 1.0, r"fn returned a bool tensor of shape \(2,\). Only"),
        (lambda x: x.numpy().sum(), r"a NumPy float32 array of shape \(\).* The calculation left TensorFlow"),
        (lambda x: 3.0, "fn returned the Python float 3.0. .*left TensorFlow"),
        (lambda x: "loss", "fn returned the Python str 'loss'. It must return a tensor"),
        (lambda x: object(), "fn returned an object. It must return a tensor"),
        (lambda x: [], r"fn returned \[\]. It must return the tensor"),
        (lambda x: (tf.reduce_sum(x), tf.argmax(x)), "int64 tensor.*has_aux=True"),
    ],
)
@pytest.mark.parametrize("name", ["gradient", "value_and_gradient", "hvp", "jvp"])
def test_what_fn_returns_must_be_a_float_tensor(name, fn, words):
    extra = [[1.0, 1.0]] if name in ("hvp", "jvp") else []
    with pytest.raises(TypeError, match=f"^{name}: .*{words}"):
        getattr(tapekit, name)(fn, tf.constant([1.0, 2.0]), *extra)


@pytest.mark.parametrize("name", ["jacobian", "hessian"])
def test_one_tensor_is_wanted_where_shapes_multiply(name):
    with pytest.raises(TypeError, match=f"{name}: fn returned a list of 2. It must return one tensor: use tf.stack"):
        getattr(tapekit, name)(lambda x: [x, x], 1.0)


def test_a_vector_target_has_no_hessian():
    with pytest.raises(ValueError, match=r"hessian: fn returned a float32 tensor of shape \(2,\). .*tf.reduce_sum"):
        tapekit.hessian(lambda x: x**2, tf.constant([1.0, 2.0]))


def test_has_aux_wants_a_pair():
    with pytest.raises(
        TypeError, match=r"fn returned a float32 tensor of shape \(\). has_aux=True needs .target, aux."
    ):
        tapekit.value_and_gradient(lambda x: x**2, 1.0, has_aux=True)


X = tf.constant([1.0, 2.0])
BAD_VECTORS = [
    (
        lambda: tapekit.gradient(lambda x: x**2, X, output_gradients=tf.ones([3])),
        r"output_gradients holds .*\(3,\).*\(2,\)",
    ),
    (lambda: tapekit.vjp(lambda x: x**2, X, 1.0), r"vjp: cotangents holds a float32 tensor of shape \(\)"),
    (lambda: tapekit.vjp(lambda x: x**2, X, None), "vjp: cotangents holds None. It must be float32"),
    (
        lambda: tapekit.jvp(lambda x: x**2, X, [[1.0], [2.0, 3.0]]),
        "jvp: tangents holds a list of 2. It must be float32",
    ),
    (lambda: tapekit.jvp(lambda x: x**2, X, tf.ones([2], "float64")), r"tangents holds a float64 .*must be float32"),
    (lambda: tapekit.hvp(lambda x: x[0], X, [1.0]), r"hvp: vector holds a float32 tensor of shape \(1,\)"),
    (
        lambda: tapekit.hvp(lambda x, y: x, [1.0, 2.0], [1.0]),
        "hvp: the structure of vector is not that of .*each of 2 tensor",
    ),
    (lambda: tapekit.jvp(lambda a: a, {"a": 1.0}, {"b": 1.0}), "jvp: the structure of tangents is not that"),
    (lambda: tapekit.hvp(lambda x: x[0], X, {"a": 1.0}), "hvp: vector holds a dict of 1. It must be float32 of shape"),
    (lambda: tapekit.jvp(lambda x: x, X, None), "jvp: tangents holds None. It must be float32"),
    (lambda: tapekit.jvp(lambda x: x, X, np.array([1j, 1j])), "tangents holds a NumPy complex128 array"),
    (lambda: tapekit.vjp(lambda x: [x, x], 1.0, 1.0), "vjp: the structure of cotangents is not that"),
]


@pytest.mark.parametrize(("call", "words"), BAD_VECTORS)
def test_a_vector_that_does_not_match_is_an_error_with_both_shapes(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_errors_of_fn_pass_through_as_they_are():
    for derivative in (tapekit.gradient, tapekit.hessian, lambda f, v: tapekit.hvp(f, v, 1.0)):
        with pytest.raises(ZeroDivisionError):
            derivative(lambda x: x * (1 // 0), 1.0)


def ops(fn):
    graph = tf.function(fn, autograph=False).get_concrete_function().graph
    return sorted(re.sub(r"_\d+$", "", op.name) for op in graph.get_operations())


def test_no_op_is_added_to_the_graph_of_the_hand_written_tape():
    model = keras.Sequential([keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    x = draw((5, 3))[0]
    model(x)

    def loss():
        return tf.reduce_mean(model(x) ** 2)

    def by_hand():
        with tf.GradientTape() as tape:
            target = loss()
        return tape.gradient(target, model.trainable_variables)

    assert ops(lambda: tapekit.gradient(loss, model.trainable_variables)) == ops(by_hand)


def test_python_control_flow_in_fn_is_converted_inside_a_tf_function():
    @tf.function
    def step(x):
        def fn(x):
            if tf.reduce_sum(x) > 0.0:
                x = x**2
            else:
                x = tf.sin(0.0) - x
            return x

        return tapekit.gradient(fn, x)

    assert float(step(tf.constant(3.0))) == 6.0
    assert float(step(tf.constant(-3.0))) == -1.0


def test_autograph_reads_the_package_without_a_complaint(capfd, caplog):
    w, c = keras.Variable([1.0, 2.0]), tf.constant(3.0)

    @tf.function
    def step(x):
        with tapekit.GradientTape() as tape:
            y = tape.watch({"x": x})["x"] ** 2 * tf.reduce_sum(tf.convert_to_tensor(w))
        return (
            tape.gradient(y, [x, w]),
            tapekit.value_and_gradient(lambda: tf.convert_to_tensor(w) ** 2, {"w": w}),
            tapekit.hessian(lambda a, b: a * b * c, [x, c]),
            tapekit.jvp(lambda x: x**2, x, 1.0),
            tapekit.per_example_gradient(lambda e: e * tf.convert_to_tensor(w), w, tf.ones([2])),
        )

    step(tf.constant(2.0))
    assert "AutoGraph" not in caplog.text + capfd.readouterr().err


def test_a_target_of_unknown_rank_can_be_scalar():
    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32)])
    def step(x):
        return tapekit.hessian(lambda x: x[0] ** 2 * x[1], x)

    assert step(tf.constant([1.0, 2.0])).numpy().tolist() == [[4.0, 2.0], [2.0, 0.0]]


def test_a_source_of_unknown_shape_works_in_a_graph():
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def step(x):
        return tapekit.gradient(lambda x, y: x**2, [x, x + 1.0], unconnected="zero")

    used, unused = step(tf.constant([1.0, 2.0]))
    assert used.numpy().tolist() == [2.0, 4.0]
    assert unused.numpy().tolist() == [0.0, 0.0]


def test_calls_nest():
    def slope(x):
        return tapekit.gradient(lambda x: x**3, x)

    assert float(tapekit.gradient(slope, 2.0)) == 12.0


def test_nothing_is_printed_or_warned_when_all_is_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tapekit.gradient(tf.square, 3.0)
        tapekit.hessian(tf.square, 3.0)


def test_an_argument_keeps_its_name_where_there_is_aux():
    with pytest.warns(tapekit.MissingGradientWarning, match="no gradient reaches 'speed'"):
        tapekit.value_and_gradient(lambda speed: (tf.floor(speed), 1), tf.constant(1.5), has_aux=True)


def test_unconnected_raise_names_the_sources_and_points_to_explain():
    w, b = tf.Variable(0.3, name="w"), tf.Variable(2.0, name="b")
    said = r"no gradient reaches 'w': TensorFlow returned None. Call tapekit.explain\(fn, vars\)"
    with pytest.raises(ValueError, match="gradient: " + said):
        tapekit.gradient(lambda: b * tf.round(w), [w, b], unconnected="raise")
    with pytest.raises(ValueError, match="value_and_gradient: " + said):
        tapekit.value_and_gradient(lambda: (tf.floor(w), w * 2.0), w, has_aux=True, unconnected="raise")

    @tf.function
    def step():
        return tapekit.gradient(lambda: tf.floor(w), w, unconnected="raise")

    with pytest.raises(ValueError, match="gradient: " + said):
        step()
