"""The checker is tested by planting mistakes, and by right gradients that are hard to measure."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tapekit.checking import GradientCheck, SourceCheck, check_gradient

X = np.array([0.7, -1.3, 2.1], "float32")


def planted(forward, backward):
    """A function with a gradient of our choice: backward(dy, *xs)."""

    @tf.custom_gradient
    def fn(*xs):
        return forward(*xs), lambda dy: backward(dy, *xs)

    return fn


def in_float32(x):
    """`x`, times a number that Python gives, which makes no float64 of it."""
    return x * tf.numpy_function(lambda: np.float32(1.0), [], tf.float32)


def only(check):
    (source,) = check
    return source


# --- planted mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backward", "cause"),
    [
        (lambda dy, x: dy * 4 * x, "off by a factor of 2.000"),
        (lambda dy, x: dy * 2.002 * x, "off by a factor of 1.001"),
        (lambda dy, x: -dy * 2 * x, "sign flipped"),
        (lambda dy, x: tf.zeros_like(x), "missing: the gradient is 0 where the slope is"),
        (lambda dy, x: None, "missing: the gradient is None, the slope is"),
        (lambda dy, x: dy * 2 * x * np.nan, "the gradient is nan"),
        (lambda dy, x: 2 * x, "the upstream gradient is ignored"),
        (lambda dy, x: dy * dy * 2 * x, "the upstream gradient is applied twice"),
        (lambda dy, x: tf.clip_by_norm(dy, 0.5) * 2 * x, "not linear in the upstream gradient"),
        (lambda dy, x: tf.reduce_mean(dy) * 2 * x, "off by"),
        (lambda dy, x: dy[:2], "wrong shape: the gradient is (2,), the source (3,)"),
        (lambda dy, x: dy * tf.constant([2.0, 2.0, 2.6]) * x, "off by a factor of 1.300"),
        (lambda dy, x: dy * (2 * x + tf.constant([0.1, 0.0, -0.3])), "off by"),
    ],
)
def test_a_planted_mistake_is_a_failure_with_its_cause(backward, cause):
    check = check_gradient(planted(tf.square, backward), X)
    assert check.verdict == "fail"
    assert not check
    assert cause in only(check).cause
    assert cause in str(check)


def test_the_numbers_at_the_worst_element_are_those_of_the_element():
    wrong = planted(lambda x: tf.reduce_sum(x**2), lambda dy, x: dy * tf.constant([2.0, 2.0, 2.6]) * x)
    source = only(check_gradient(wrong, X))
    assert source.index == (2,)
    assert source.numeric == pytest.approx(4.2, rel=1e-6)
    assert source.analytic == pytest.approx(5.46, rel=1e-6)
    assert source.uncertainty < 1e-8
    assert source.abs_error == pytest.approx(1.26, rel=1e-5)
    assert source.rel_error == pytest.approx(1.26 / 5.46, rel=1e-5)
    assert source.checked == "3 of 3 elements"


def test_a_gradient_that_raises_fails_with_what_it_raised():
    def backward(dy, x):
        raise RuntimeError("no kernel for this")

    source = only(check_gradient(planted(tf.square, backward), X))
    assert source.verdict == "fail"
    assert source.cause == "the gradient raises RuntimeError: no kernel for this"


def test_a_transposed_gradient_fails_for_the_matrix_only():
    def backward(dy, a, b):
        return tf.matmul(dy, b, transpose_b=True), tf.transpose(tf.matmul(a, dy, transpose_a=True))

    rng = np.random.default_rng(0)
    check = check_gradient(planted(tf.matmul, backward), [rng.normal(size=(3, 3)), rng.normal(size=(3, 3))])
    assert [source.verdict for source in check] == ["pass", "fail"]


def test_a_missing_reduction_over_the_batch_fails():
    biased = planted(lambda x, b: x + b, lambda dy, x, b: (dy, dy[0]))
    check = check_gradient(biased, [np.ones((4, 3), "float32"), np.zeros(3, "float32")])
    assert [source.verdict for source in check] == ["pass", "fail"]


def test_one_variable_of_five_is_named():
    variables = [tf.Variable(np.full(3, 0.3 + i, "float32"), name=f"w{i}") for i in range(5)]
    wrong = planted(tf.sin, lambda dy, x: dy * tf.cos(x) * 1.01)

    def loss():
        return tf.add_n([tf.reduce_sum((wrong if i == 3 else tf.sin)(v + 0.0)) for i, v in enumerate(variables)])

    check = check_gradient(loss, variables)
    assert [source.name for source in check if source.verdict != "pass"] == ["w3"]
    assert check["w3"].cause == "off by a factor of 1.010"


@pytest.mark.parametrize("size", [3_000, 40_000])
def test_one_wrong_element_among_many_is_found_and_located(size):
    bad = size * 7 // 11
    rng = np.random.default_rng(0)
    x = rng.normal(size=size).astype("float32")
    x[bad] = 0.4
    factor = np.ones(size, "float32")
    factor[bad] = 1.01
    check = check_gradient(
        planted(lambda x: tf.reduce_sum(tf.sin(x)), lambda dy, x: dy * tf.cos(x) * tf.constant(factor)), x
    )
    source = only(check)
    assert (source.verdict, source.index) == ("fail", (bad,))
    assert source.cause == "off by a factor of 1.010"
    assert source.numeric == pytest.approx(np.cos(0.4), rel=1e-6)
    assert "blocks" in source.checked


def test_a_mistake_in_the_second_order_only_is_found_by_order_2():
    slope = planted(tf.cos, lambda dy, x: dy * tf.sin(x))  # the derivative of cos is -sin
    fn = planted(tf.sin, lambda dy, x: dy * slope(x))
    assert check_gradient(fn, X)
    check = check_gradient(fn, X, order=2)
    assert (check.verdict, check.order) == ("fail", 2)
    assert "x, second order: sign flipped" in str(check).replace("vars,", "x,")
    assert check_gradient(tf.sin, X, order=2)


def test_order_2_with_variables_and_a_dict():
    w = tf.Variable([0.5, -0.25], dtype=tf.float64)
    assert check_gradient(lambda: tf.reduce_sum(tf.exp(w) ** 2), w, order=2)
    point = {"a": tf.constant([1.0, 2.0]), "b": {"c": tf.constant(0.5)}}
    check = check_gradient(lambda a, b: tf.sin(a) * b["c"], point, order=2)
    assert check
    assert [source.name for source in check] == ["a", "b['c']"]


def test_an_error_of_a_thousandth_in_float32_and_of_a_hundred_thousandth_in_float64_is_found():
    wrong = planted(tf.exp, lambda dy, x: dy * tf.exp(x) * tf.cast(1.001, x.dtype))
    assert check_gradient(wrong, X).verdict == "fail"
    finer = planted(tf.exp, lambda dy, x: dy * tf.exp(x) * tf.cast(1.00001, x.dtype))
    assert check_gradient(finer, X.astype("float64")).verdict == "fail"
    assert check_gradient(finer, X.astype("float64"), rtol=1e-4).verdict == "pass"
    assert check_gradient(finer, X.astype("float64"), atol=1e-3).verdict == "pass"


@pytest.mark.parametrize("size", [1e-5, 1.0, 1e5])
def test_the_size_of_the_function_hides_nothing(size):
    wrong = planted(lambda x: size * x * x, lambda dy, x: dy * 4 * size * x)
    assert check_gradient(wrong, X).verdict == "fail"
    assert check_gradient(lambda x: size * x * x, X).verdict == "pass"


# --- right gradients that are hard to measure -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_every_float_dtype_passes_and_a_halved_gradient_fails(dtype):
    x = tf.cast(X, dtype)
    assert check_gradient(lambda x: tf.sin(x) * x, x)
    halved = planted(tf.sin, lambda dy, x: dy * tf.cos(x) / 2)
    assert check_gradient(halved, x).verdict == "fail"


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_gradients_are_held_to_real_and_imaginary_parts(dtype):
    z = tf.cast(tf.complex(X, X[::-1]), dtype)
    assert check_gradient(lambda z: z * tf.exp(z), z)
    assert check_gradient(lambda z: tf.abs(z) ** 2, z)
    unconjugated = planted(tf.square, lambda dy, z: dy * 2 * z)
    assert check_gradient(unconjugated, z).verdict == "fail"
    flipped = planted(tf.square, lambda dy, z: -dy * 2 * tf.math.conj(z))
    assert only(check_gradient(flipped, z)).cause == "sign flipped"
    assert check_gradient(lambda a, b: tf.abs(tf.complex(a, b)), [X, X])


@pytest.mark.parametrize(
    ("fn", "x"),
    [
        (tf.math.log, [1e-6, 1.0, 1e6]),
        (tf.sqrt, [1e-6, 4e-6]),
        (tf.square, [1e6, -3e6]),
        (tf.square, [1e-6, -2e-6]),
        (lambda x: tf.sin(100 * x), [0.3, 0.71]),
        (lambda x: tf.tanh(1e4 * (x - 0.5)), [0.50003, 0.49995]),
        (tf.math.reduce_variance, [1000.3, 1001.1, 998.7, 1000.2]),
        (tf.math.acos, [0.999, -0.9999]),
    ],
)
def test_every_scale_and_every_edge_of_a_domain_passes(fn, x):
    check_gradient(fn, np.array(x, "float32")).raise_if_failed()


def test_a_function_that_raises_beyond_its_domain_passes_inside():
    def root(x):
        tf.debugging.assert_greater(x, tf.zeros_like(x))
        return tf.sqrt(x)

    assert check_gradient(root, np.array([1e-3, 1.0], "float32"))


def smooth(seed):
    """A random composition of smooth functions, with a random matrix between them."""
    rng = np.random.default_rng(seed)
    pieces = [tf.sin, tf.tanh, tf.exp, tf.nn.softplus, tf.math.asinh, tf.square, tf.nn.softmax, tf.math.erf]
    chosen = rng.choice(len(pieces), 3)
    matrices = [rng.normal(size=(4, 4)) / 2 for _ in chosen]
    x = rng.normal(size=(2, 4)) * 10.0 ** rng.integers(-2, 1)

    def fn(x):
        for number, matrix in zip(chosen, matrices, strict=True):
            x = pieces[number](0.5 * x @ tf.constant(matrix, x.dtype))
        return x

    return fn, x


@pytest.mark.parametrize("seed", range(12))
def test_random_smooth_functions_never_fail(seed):
    fn, x = smooth(seed)
    for dtype in ("float32", "float64"):
        check = check_gradient(fn, tf.constant(x, dtype), seed=seed)
        assert check.verdict == "pass", str(check)
    variable = tf.Variable(x, dtype=tf.float32)
    assert check_gradient(lambda: tf.reduce_sum(fn(variable)), variable, seed=seed)
    check = check_gradient(lambda: tf.reduce_sum(fn(in_float32(variable))), variable, seed=seed)
    assert check.verdict in ("pass", "inconclusive"), str(check)


def test_a_small_slope_under_a_large_loss_is_inconclusive_where_float64_is_not_possible():
    x, w = tf.Variable([1.0, 2.0]), tf.Variable([0.3])
    wrong = planted(tf.sin, lambda dy, x: dy * 3 * tf.cos(x))

    def loss():
        return 1e4 * tf.reduce_sum(x * x) + 1e-2 * tf.reduce_sum(wrong(in_float32(w)))

    check = check_gradient(loss, [x, w])
    assert check["vars[1]"].verdict == "inconclusive"
    assert "too noisy to tell in float32" in check["vars[1]"].cause
    large = lambda x, w: 1e4 * tf.reduce_sum(x * x) + 1e-2 * tf.reduce_sum(wrong(w))  # noqa: E731
    assert check_gradient(large, [tf.constant([1.0, 2.0]), tf.constant([0.3])])["w"].verdict == "fail"


def test_an_error_of_a_few_uncertainties_is_inconclusive_and_of_a_hundred_a_failure():
    w = tf.Variable([0.3])  # in float32, under a loss of 10,000

    def check(error):
        off = planted(tf.sin, lambda dy, x: dy * (tf.cos(x) + error))
        return only(check_gradient(lambda: 1e4 + tf.reduce_sum(off(in_float32(w))), w))

    uncertainty = check(1.0).uncertainty
    assert check(10 * uncertainty).verdict == "inconclusive"
    assert check(100 * uncertainty).verdict == "fail"


def test_a_source_given_twice_moves_in_both_places_and_has_two_lines():
    x, v = tf.constant(X), tf.Variable(X)
    for fn, given in ((lambda a, b: a * b, [x, x]), (lambda a, b: a * b, [v, v]), (lambda: x * v, [x, v, x])):
        check = check_gradient(fn, given)
        assert check, str(check)
        assert len(check) == len(given)


def test_the_extrapolated_slope_is_better_than_every_difference_and_inside_its_uncertainty():
    source = only(check_gradient(lambda x: tf.exp(tf.sin(3 * x)), tf.constant(0.4, tf.float64)))
    exact = 3 * np.cos(1.2) * np.exp(np.sin(1.2))
    nearest = np.argmin(np.abs(np.log(source.steps) - np.log(source.step)))
    assert abs(source.numeric - exact) < source.uncertainty
    assert abs(source.numeric - exact) < 0.01 * abs(source.differences[nearest] - exact)


def test_a_coarse_dtype_inside_is_no_mistake():
    a, b = np.array([[0.3, -1.2, 0.8]], "float32"), np.array([[1.1], [-0.4], [0.5]], "float32")
    coarse = lambda a, b: tf.cast(tf.matmul(tf.cast(a, tf.bfloat16), tf.cast(b, tf.bfloat16)), a.dtype)  # noqa: E731
    assert check_gradient(coarse, [a, b]).verdict in ("pass", "inconclusive")
    weights = [tf.Variable(a), tf.Variable(b)]
    assert check_gradient(lambda: coarse(*[w + 0.0 for w in weights]), weights).verdict in ("pass", "inconclusive")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e-20, 1e18])
def test_extreme_values_bring_no_exception_and_no_false_alarm(value):
    check = check_gradient(tf.square, np.array([1.0, value], "float32"))
    assert check.verdict == ("pass" if np.isfinite(value) else "inconclusive")


def test_a_gradient_that_is_zero_but_for_rounding_passes():
    # a shift of all logits changes nothing, as the key bias of attention does
    logits, shift = tf.Variable([[1.0, 2.0, 0.3]]), tf.Variable([0.1, 0.2])
    weights = tf.constant([[3.0, -1.0, 2.0]])
    loss = lambda: tf.reduce_sum(weights * tf.nn.softmax(logits + tf.reduce_sum(shift)))  # noqa: E731
    check_gradient(loss, [logits, shift]).raise_if_failed()


def test_the_rounding_of_the_callers_dtype_is_no_mistake():
    x = np.array([0.5, 3.0, 4.0], "float32")  # 1 - tanh(2x)^2 loses most of float32's digits
    check_gradient(lambda x: tf.tanh(2 * x), x, order=2).raise_if_failed()


def test_a_none_that_is_right_and_an_unused_variable_pass():
    used, unused = tf.Variable(2.0), tf.Variable([1.0, 2.0])
    assert check_gradient(lambda: used**2, [used, unused])
    assert check_gradient(lambda x: tf.floor(x) * 2.0, np.array([0.3, -1.6, 2.45], "float32"))


def test_indexed_slices_ragged_and_empty_tensors_pass():
    assert check_gradient(lambda e: tf.gather(e, [[0, 2], [2, 2]]), tf.ones([4, 2]))
    assert check_gradient(lambda r: tf.reduce_sum(r**2, axis=1), tf.ragged.constant([[1.0, 2.0], [], [3.0]]))
    check = check_gradient(lambda e, y: tf.reduce_sum(e) + y, [tf.zeros([0, 3]), 1.5])
    assert check
    assert check["e"].checked == "0 of 0 elements"
    assert check_gradient(lambda x: x[:0], X)


def test_numbers_keras_variables_and_structured_outputs_pass():
    weight = keras.Variable([0.5, 0.25])
    assert check_gradient(lambda: tf.reduce_sum(tf.sin(weight.value)), weight)
    assert check_gradient(lambda x: {"square": x * x, "count": tf.size(x)}, 3.0)
    layer = keras.layers.Dense(3, activation="tanh")
    layer.build([None, 2])
    check = check_gradient(lambda: layer(tf.constant([[0.3, -0.4]])), layer.trainable_variables)
    assert check
    assert [source.name for source in check] == ["dense/kernel", "dense/bias"] or all("/" in s.name for s in check)


def test_a_function_that_only_runs_eagerly_gets_its_verdict():
    assert check_gradient(lambda x: x * x if float(x[0]) > 0 else x, X)
    check = check_gradient(lambda x, w: x * float(np.sum(w.numpy())), [X, X + 1])
    assert [source.verdict for source in check] == ["pass", "fail"]
    assert check["w"].cause.startswith("missing: the gradient is None, the slope is")


def test_a_variable_argument_that_fn_does_not_use_is_moved_itself():
    v = tf.Variable([0.5, 1.0])
    assert check_gradient(lambda *ignored: tf.reduce_sum(tf.sin(v)), [v])
    assert check_gradient(lambda w: tf.reduce_sum(tf.sin(w)), v)


@pytest.mark.parametrize("size", [3, 3000])
def test_a_tensor_that_fn_closes_over_is_moved_too(size):
    x, v = tf.constant(np.linspace(0.5, 2.0, size), tf.float32), tf.Variable(0.3)
    inside = tf.function(lambda: tf.tanh(x) * v)
    assert check_gradient(lambda: inside() + x, [x, v], order=2)
    halved = planted(tf.sin, lambda dy, x: dy * tf.cos(x) / 2)
    check = check_gradient(lambda: tf.reduce_sum(halved(x)) * v, [x, v])
    assert [source.verdict for source in check] == ["fail", "pass"]
    ragged = tf.ragged.constant([[1.0], [2.0, 3.0]])
    assert check_gradient(lambda: ragged * ragged, ragged)


def test_inside_jit_and_py_function():
    assert check_gradient(tf.function(lambda x: tf.reduce_sum(tf.tanh(x) ** 2), jit_compile=True), X)
    assert check_gradient(lambda x: tf.py_function(lambda q: tf.sin(q) * q, [x], x.dtype), X)


# --- kinks and chance -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_kink_is_named_with_its_slopes(seed):
    source = only(check_gradient(lambda x: tf.reduce_sum(tf.nn.relu(x)), np.array([0.0, 1.0], "float32"), seed=seed))
    assert (source.verdict, source.index) == ("kink", (0,))
    assert source.cause == "kink: the slope is 0 on the left and 1 on the right"


@pytest.mark.parametrize(
    ("fn", "x"),
    [
        (tf.reduce_max, [1.0, 1.0, 0.3]),
        (tf.nn.relu6, [6.0, 1.0]),
        (lambda x: tf.nn.relu(1 - x), [1.0, 0.3]),
        (tf.sign, [0.0, 1.0]),
        (lambda x: tf.reduce_sum(tf.sqrt(tf.abs(x))), [0.0, 1.0]),
    ],
)
def test_kinks_ties_and_jumps_are_kinks(fn, x):
    assert check_gradient(fn, np.array(x, "float32")).verdict == "kink"


@pytest.mark.parametrize("distance", [1e-3, -1e-3, 1e-5])
def test_a_right_gradient_near_a_kink_passes(distance):
    assert check_gradient(tf.nn.relu, np.array([distance, 1.0], "float32"))
    assert check_gradient(lambda x: tf.abs(x - 1), np.array([1 + distance], "float64"))


def test_a_function_with_two_formulas_and_one_slope_passes():
    assert check_gradient(lambda x: tf.where(x > 0, x**2, x**3), np.array([0.0, 1.0], "float32"))
    assert check_gradient(lambda x: x * tf.abs(x), np.array([0.0, 1.0], "float32"))


def test_a_kink_excuses_no_mistake_elsewhere_and_none_of_its_own():
    weights = tf.constant([1.0, 1.0, 1.3])
    wrong = planted(tf.nn.relu, lambda dy, x: dy * tf.cast(x > 0, dy.dtype) * weights)
    source = only(check_gradient(wrong, np.array([0.0, 1.0, 2.0], "float32")))
    assert (source.verdict, source.index) == ("fail", (2,))
    outside = planted(tf.abs, lambda dy, x: dy * tf.where(x == 0, 5.0, tf.sign(x)))
    source = only(check_gradient(outside, np.array([0.0, 1.0], "float32")))
    assert source.verdict == "fail"
    assert "the gradient is not between them" in source.cause


def test_a_straight_through_estimator_is_no_derivative():
    fake = planted(lambda x: tf.round(x * 100) / 100, lambda dy, x: dy)
    assert check_gradient(fake, X).verdict == "fail"


def test_random_functions_and_random_gradients_are_nondeterministic():
    check = check_gradient(lambda x: tf.nn.dropout(x, 0.5), np.ones(50, "float32"))
    assert check.verdict == "nondeterministic"
    assert "random" in only(check).cause
    noisy = planted(tf.square, lambda dy, x: dy * 2 * x * (1 + 0.01 * tf.random.normal([3])))
    assert check_gradient(noisy, X).verdict == "nondeterministic"
    assert check_gradient(lambda x: x + tf.random.normal([3]), X).verdict == "nondeterministic"
    calls = []
    assert check_gradient(lambda x: x * (1 + 0.001 * len(calls)) + 0 * float(calls.append(1) is None), X).verdict == (
        "nondeterministic"
    )


# --- what it leaves behind, what it says ------------------------------------------------------------------------------


def bits(*variables):
    return [variable.numpy().tobytes() for variable in variables]


def test_variables_are_put_back_bit_for_bit_also_after_an_exception():
    v, counter = tf.Variable([0.1, 1e-40, -0.0]), tf.Variable(3)
    before = bits(v, counter)

    def loss():
        counter.assign_add(1)
        return tf.reduce_sum(v[:1] ** 2)

    assert check_gradient(loss, v)
    assert bits(v, counter) == before

    calls = []

    def interrupted():
        counter.assign_add(1)
        v.assign_add([1.0, 1.0, 1.0])
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return tf.reduce_sum(v**2)

    with pytest.raises(KeyboardInterrupt):
        check_gradient(interrupted, v)
    assert bits(v, counter) == before


def test_a_counter_behind_a_line_that_only_runs_eagerly_is_put_back():
    counter = tf.Variable(7)

    def fn(x):
        if float(x[0]) > 0:
            counter.assign_add(1)
        return tf.square(x)

    assert check_gradient(fn, X)
    assert int(counter) == 7


def test_batch_normalization_keeps_its_moving_averages():
    layer = keras.layers.BatchNormalization()
    layer.build([None, 3])
    before = [v.numpy().copy() for v in layer.variables]
    x = tf.constant(np.random.default_rng(0).normal(size=(5, 3)).astype("float32"))
    assert check_gradient(lambda: layer(x, training=True), layer.trainable_variables)
    for old, variable in zip(before, layer.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


def test_it_gives_the_same_numbers_every_time_and_other_cotangents_by_seed():
    first, again, other = (check_gradient(tf.sin, X, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert only(first).numeric != only(other).numeric


def test_raise_if_failed_shows_the_table():
    check = check_gradient(planted(tf.square, lambda dy, x: dy * x), X)
    with pytest.raises(AssertionError, match=r"off by a factor of 0\.500"):
        check.raise_if_failed()
    check_gradient(tf.square, X).raise_if_failed()


def test_a_cause_that_several_sources_share_is_said_once_with_their_names():
    def causes(count):
        sources = {name: tf.constant(0.5 + i) for i, name in enumerate("abcdef"[:count])}
        check = check_gradient(lambda **given: tf.add_n([*given.values()]) * tf.random.normal([]), sources)
        return str(check).splitlines()[1 + count :]

    random = "random: fn returns another value or gradient at every call; fix its seed, or freeze its state"
    assert causes(1) == [f"a: {random}"]
    assert causes(4) == [f"a, b, c, d: {random}"]
    assert causes(6) == [f"a, b, c, d and 2 more: {random}"]


def test_causes_that_differ_are_said_one_by_one_in_order():
    wrong = planted(lambda a, b, c: a + b + c, lambda dy, a, b, c: (dy * 2, -dy, dy * 2))
    check = check_gradient(lambda a, b, c: tf.reduce_sum(wrong(a, b, c)), [X, X, X])
    assert str(check).splitlines()[4:] == ["a, c: off by a factor of 2.000", "b: sign flipped"]


def test_what_was_not_measured_has_dashes_and_a_gradient_that_is_nan_is_shown():
    random = check_gradient(lambda x, e: x * tf.random.normal([]), {"x": 1.0, "e": tf.zeros([0])})
    assert [line.split()[2:7] for line in str(random).splitlines()[1:3]] == [["-", "-", "-", "-", "nothing"]] * 2
    empty = check_gradient(lambda e, y: tf.reduce_sum(e) + y, [tf.zeros([0, 3]), 1.5])
    assert str(empty).splitlines()[1].split() == ["e", "pass", "-", "-", "-", "-", "0", "of", "0", "elements"]
    assert "nan" not in str(empty)
    nan = check_gradient(planted(tf.square, lambda dy, x: dy * np.nan), 1.0)
    assert str(nan).splitlines()[1].split()[2:4] == ["nan", "2"]


def test_the_verdict_of_several_sources_is_the_gravest():
    def check(*verdicts):
        return GradientCheck(tuple(SourceCheck(f"s{i}", verdict, "") for i, verdict in enumerate(verdicts)))

    assert check("pass", "kink", "fail").verdict == "fail"
    assert check("pass", "inconclusive", "kink").verdict == "kink"
    assert not check("pass", "inconclusive")
    assert check("pass", "pass")
    assert len(check("pass", "pass")) == 2


def test_progress_is_shown_if_asked_for(capsys):
    check_gradient(tf.sin, X, progress=True)
    assert "18/18" in capsys.readouterr().err
    check_gradient(tf.sin, X)
    assert not capsys.readouterr().err


def test_what_cannot_be_checked_is_said_in_a_sentence():
    with pytest.raises(TypeError, match=r"check_gradient: fn returned an int32 tensor of shape \(3,\)"):
        check_gradient(lambda x: tf.cast(x, tf.int32), X)
    with pytest.raises(TypeError, match="check_gradient: fn returned None"):
        check_gradient(lambda x: None, X)
    with pytest.raises(ValueError, match="order is 3"):
        check_gradient(tf.sin, X, order=3)
    x = tf.constant(X)
    with pytest.raises(
        ValueError, match=r"a float32 tensor of shape \(3,\) that fn closes over, and fn cannot be traced"
    ):
        check_gradient(lambda: x * tf.reduce_sum(x).numpy(), x)
    with pytest.raises(TypeError, match="source 'x' is int32"):
        check_gradient(lambda x: x, tf.constant([1]))
    with pytest.raises(RuntimeError, match=r"called inside a tf\.function"):
        tf.function(lambda: float(check_gradient(tf.sin, 1.0)))()
    check = check_gradient(tf.math.log, np.array([-1.0], "float32"))
    assert check.verdict == "inconclusive"
    assert "nothing to compare with" in only(check).cause


def test_a_variable_that_is_assigned_and_never_read_is_put_back():
    class Holder:
        last = tf.Variable(1.0)

    def fn(x):
        Holder.last.assign(tf.reduce_sum(x), read_value=False)
        return x**2

    assert check_gradient(fn, tf.constant([1.0, 5.0])).verdict == "pass"
    assert Holder.last.numpy() == 1.0


# --- float32 networks, moved in float64 -------------------------------------------------------------------------------

LAYERS = {
    "relu": lambda: [keras.layers.Dense(8, "relu"), keras.layers.Dense(1)],
    "leaky_relu": lambda: [keras.layers.Dense(8, "leaky_relu"), keras.layers.Dense(1)],
    "convolution": lambda: [
        keras.layers.Reshape([4, 2]),
        keras.layers.Conv1D(4, 2, activation="relu"),
        keras.layers.MaxPool1D(),
        keras.layers.Flatten(),
        keras.layers.Dense(1),
    ],
    "normalized": lambda: [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(1)],
    "recurrent": lambda: [keras.layers.Reshape([4, 2]), keras.layers.LSTM(3), keras.layers.Dense(1)],
}


def network(layers, seed=0):
    """A model of 8 features, and its loss on random data."""
    keras.utils.set_random_seed(seed)
    x, y = (np.random.normal(size=[64, width]).astype("float32") for width in (8, 1))
    model = keras.Sequential([keras.Input([8]), *layers])
    return model, lambda: tf.reduce_mean((model(x, training=True) - y) ** 2)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_float32_network_passes_however_many_kinks_are_near(kind):
    for seed in range(3):
        model, loss = network(LAYERS[kind](), seed)
        before = [v.numpy() for v in model.variables]
        check = check_gradient(loss, model.trainable_variables)
        assert check, str(check)
        assert all(source.uncertainty < 1e-6 for source in check)
        np.testing.assert_equal([v.numpy() for v in model.variables], before)


def test_a_mistake_in_a_float32_network_is_named():
    wrong = planted(tf.nn.relu, lambda dy, x: dy * tf.cast(x > 0, x.dtype) * 1.01)
    model, loss = network([keras.layers.Dense(8), keras.layers.Activation(wrong), keras.layers.Dense(1)])
    for given in (loss, tf.function(loss)):
        kernel, bias, *out = check_gradient(given, model.trainable_variables)
        assert kernel.cause == bias.cause == "off by a factor of 1.010"
        assert [each.verdict for each in out] == ["pass", "pass"]


def test_a_float32_network_that_cannot_go_to_float64_is_never_called_wrong():
    for seed in range(8):
        model, loss = network([keras.layers.Dense(16, "relu"), keras.layers.Dense(1)], seed)
        check = check_gradient(lambda loss=loss: in_float32(loss()), model.trainable_variables)
        assert check.verdict != "fail", str(check)
        assert max(source.uncertainty for source in check) > 1e-7


def test_variables_read_in_loops_branches_and_by_the_row_are_moved_in_float64():
    v = tf.Variable(np.random.default_rng(0).normal(size=[5, 3]).astype("float32"))
    functions = {
        "loop": lambda: tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a * tf.sin(v)), [0, tf.ones([5, 3])])[1],
        "branch": lambda: tf.cond(tf.reduce_sum(v) > 99, lambda: v, lambda: tf.exp(v)),
        "map": lambda: tf.map_fn(lambda row: tf.reduce_sum(row * tf.sin(v)), tf.constant([1.0, 2.0])),
        "rows": lambda: tf.gather(v, [0, 2, 2]) ** 3,
        "complex": lambda: tf.abs(tf.complex(v, v**2)),
    }
    for name, fn in functions.items():
        check = check_gradient(fn, v)
        assert check, f"{name}: {check}"
        assert only(check).uncertainty < 1e-7


def test_a_variable_that_fn_assigns_and_reads_again_is_followed_through_the_assignment():
    w, memory = tf.Variable([0.5, 1.5]), tf.Variable([0.0, 0.0])

    def loss():
        memory.assign(3.0 * w)
        return tf.reduce_sum(w * memory)  # the tape overlooks half of it

    source = only(check_gradient(loss, w))
    assert source.cause == "off by a factor of 0.500"
    assert memory.numpy().tolist() == [0.0, 0.0]


def test_a_check_is_found_by_its_name_or_the_end_of_it_and_shows_itself_as_the_table():
    model, loss = network([keras.layers.Dense(1, name="head")])
    check = check_gradient(loss, model.trainable_variables)
    assert check["head/kernel"] is check["kernel"] is check.sources[0]
    assert repr(check) == str(check)
    with pytest.raises(KeyError, match=r"GradientCheck: nothing is called 'bia'\. The names are .*head/bias"):
        check["bia"]


# --- too small, too large, too wild -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "at", "dtype"),
    [
        (lambda x: x * x, 1e-30, "float32"),
        (lambda x: x * x, 1e-5, "float16"),
        (tf.nn.softmax, [300.0, 1.0], "float32"),
        (lambda x: 1.0 / x, 1e-3, "float32"),
        (lambda x: 1.0 / x, 1e-6, "float64"),
        (lambda x: tf.sin(300.0 * x), 0.7, "float32"),
        (lambda x: tf.sin(x), 1e5, "float64"),
        (tf.norm, [1e-6, 2e-6, -1e-6], "float32"),
    ],
)
def test_underflow_poles_and_fast_waves_are_no_mistakes(fn, at, dtype):
    x, v = tf.constant(at, dtype), tf.Variable(at, dtype=dtype)
    for check in (check_gradient(fn, x), check_gradient(lambda: fn(v), v)):
        assert check, str(check)


def test_what_overflows_or_drowns_is_inconclusive():
    overflow = only(check_gradient(lambda x: x * 6e4, tf.constant(1e-3, tf.float16)))
    assert (overflow.verdict, overflow.cause) == ("inconclusive", "the gradient is inf, the slope is 60000")
    drowned = check_gradient(tf.nn.softmax, tf.constant([60.0, 0.0, -40.0], tf.float64))
    assert drowned.verdict == "inconclusive"


@pytest.mark.parametrize("seed", [None, -1, 1.5, "a", True, np.array([1, 2])])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match=r"check_gradient: seed is .*Write seed=0"):
        check_gradient(tf.sin, 1.0, seed=seed)


@pytest.mark.parametrize("seed", [np.int64(2), np.uint8(2)])
def test_a_whole_number_of_numpy_is_a_seed(seed):
    assert check_gradient(tf.sin, X, seed=seed) == check_gradient(tf.sin, X, seed=2)


@pytest.mark.parametrize("options", [{"order": True}, {"order": 3}, {"progress": "yes"}, {"rtol": True}])
def test_an_option_of_another_kind_is_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"check_gradient: {name} is .*Write {name}="):
        check_gradient(tf.sin, 1.0, **options)


def test_the_random_state_is_left_as_it_was():
    w, draws = tf.Variable(1.0), []
    for check in (False, True):
        tf.random.set_seed(5)
        np.random.seed(5)
        tf.random.normal([])
        if check:
            check_gradient(lambda: w * tf.random.normal([]) * np.random.rand(), w)
        draws.append((float(tf.random.normal([])), np.random.rand()))
    assert draws[0] == draws[1]


def test_a_table_of_weighted_slopes_says_so():
    words = "several numbers: the slopes are those of their sum with random weights"
    assert f"(the result of fn has {words}.)" in str(check_gradient(tf.sin, X))
    assert f"(the gradient has {words}.)" in str(check_gradient(lambda x: tf.reduce_sum(x**3), X, order=2))
    assert words not in str(check_gradient(lambda x: tf.reduce_sum(x**3), X))


# --- where float64 would be another function --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_half_precision_inside_is_held_to_its_own_rounding(dtype):
    def through(factor):
        wrong = planted(tf.square, lambda dy, x: dy * factor * x)
        return lambda x: tf.reduce_sum(tf.cast(wrong(tf.cast(x, dtype)), tf.float32))

    assert check_gradient(through(2.0), X)
    assert check_gradient(through(2.6), X).verdict == "fail"


def test_a_random_draw_is_not_drawn_again_in_float64():
    w = tf.Variable(tf.zeros([4]))
    assert check_gradient(lambda: tf.reduce_sum(w * tf.random.stateless_normal([4], [1, 2])), w)


@pytest.mark.parametrize("before", [4.0, 1.0])
def test_a_value_written_in_a_branch_or_by_the_row_is_followed(before):
    v, u = tf.Variable(before), tf.Variable([before, 1.0])

    def branch(x):
        tf.cond(x > 0, lambda: v.assign(x * x), lambda: v.assign(0.0))
        return 3.0 * v

    def row(x):
        u.scatter_update(tf.IndexedSlices(tf.reshape(x * x, [1]), [0]))
        return 3.0 * u[0]

    for fn in (branch, row):
        assert "missing: the gradient is None, the slope is 12" in only(check_gradient(fn, 2.0)).cause
    assert (v.numpy(), u.numpy()[0]) == (before, before)


def test_a_counter_of_an_object_is_put_back_where_no_graph_can_follow():
    class Model:
        def __init__(self):
            self.calls, self.w = tf.Variable(0.0), tf.Variable([1.0, 2.0])

        def loss(self, x):
            float(tf.reduce_sum(x).numpy())
            self.calls.assign_add(1.0)
            return tf.reduce_sum(x**2 * self.w)

    model = Model()
    assert check_gradient(model.loss, tf.constant([1.0, 2.0]))
    assert model.calls.numpy() == 0.0


def test_a_confident_softmax_is_right_in_float64():
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits
    for gap in (10.0, 15.0, 20.0):
        logits = tf.constant([[gap, 0.0, 0.5]])
        check = check_gradient(lambda z: tf.reduce_mean(loss(tf.constant([0]), z)), logits)
        assert check.verdict == ("pass" if gap == 10.0 else "inconclusive"), str(check)
    assert "right in float64, lost to rounding" in only(check).cause


def test_a_keras_variable_and_its_value_are_one_source():
    kv = keras.Variable([1.0, 2.0])
    assert check_gradient(lambda: tf.reduce_sum(kv**2), [kv, kv.value])


def test_a_source_of_several_replicas_is_refused_in_the_scope():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        v = tf.Variable([1.0, 2.0], name="v")
        with pytest.raises(RuntimeError, match="check_gradient: source 'v' has a value on each replica"):
            check_gradient(lambda: tf.reduce_sum(v**2), v)
    assert check_gradient(lambda: tf.reduce_sum(v**2), v)


@pytest.mark.parametrize("name", ["rtol", "atol"])
def test_a_tolerance_is_a_number_from_0_on(name):
    for value in (-1.0, np.nan, "1e-3", [1e-3], 1j):
        with pytest.raises(ValueError, match=rf"check_gradient: {name} is .*A number from 0 on is needed"):
            check_gradient(tf.sin, 1.0, **{name: value})
