"""Large, cancelling and masked functions: rounding is no mistake, and hides none."""

import io
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from tapekit.checking import check_gradient
from tests.checking.test_checking import in_float32, only, planted

FLOATS = ["float16", "bfloat16", "float32", "float64"]


def normal(*shape, seed=0, dtype="float32"):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


# --- blocks have a second opinion in float64 --------------------------------------------------------------------------


@pytest.mark.parametrize("width", [45, 46, 100])
@pytest.mark.parametrize("as_variable", [False, True])
def test_the_sum_of_a_softmax_has_slope_0_however_many_weights_there_are(width, as_variable):
    z, w = normal(8, width), normal(width, width, seed=1)
    if as_variable:
        w = tf.Variable(w)
        check = check_gradient(lambda: tf.reduce_sum(tf.nn.softmax(z @ w)), w)
    else:
        check = check_gradient(lambda w: tf.reduce_sum(tf.nn.softmax(z @ w)), w)
    assert only(check).cause == "the slope is 0 up to rounding"
    assert check


@pytest.mark.parametrize("width", [30, 60])
def test_dense_dense_normalization_passes_below_and_above_2048_parameters(width):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(width, "relu"), keras.layers.Dense(width, "gelu"), keras.layers.LayerNormalization()]
    model = keras.Sequential([keras.Input([12]), *layers])
    x = normal(16, 12)
    check_gradient(lambda: tf.reduce_mean(model(x) ** 2), model.trainable_variables).raise_if_failed()


def test_attention_passes_in_every_source():
    keras.utils.set_random_seed(0)
    inputs = keras.Input([6, 24])
    attended = keras.layers.MultiHeadAttention(3, 8)(inputs, inputs)
    normalized = keras.layers.LayerNormalization()(inputs + attended)
    model = keras.Model(inputs, keras.layers.Dense(24, "gelu")(normalized))
    x, y = normal(2, 6, 24), normal(2, 6, 24, seed=1)
    check_gradient(lambda: tf.reduce_mean((model(x) - y) ** 2), model.trainable_variables).raise_if_failed()


def test_a_network_whose_gradient_cannot_go_to_float64_passes_in_blocks():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(64, 3, groups=32, activation="gelu"), keras.layers.Conv2D(40, 1)]
    model = keras.Sequential([keras.Input([5, 5, 64]), *layers])
    x = normal(2, 5, 5, 64)
    check_gradient(lambda: tf.reduce_mean(model(x) ** 2), model.trainable_variables).raise_if_failed()


@pytest.mark.parametrize("size", [1, 45 * 45, 46 * 46, 10_000])
@pytest.mark.parametrize("mistake", ["factor", "element", "sign"])
def test_a_planted_mistake_fails_at_every_size(size, mistake):
    factor = np.ones(size, "float32")
    factor[size // 3] = 1.3
    factor = {"factor": np.float32(1.01), "element": factor, "sign": np.float32(-1.0)}[mistake]
    w = tf.Variable(normal(size) + 2.0)
    wrong = planted(tf.sin, lambda dy, x: dy * tf.cos(x) * factor)
    check = check_gradient(lambda: tf.reduce_sum(wrong(w + 0.0) * tf.nn.sigmoid(w)) / size, w)
    assert check.verdict == "fail", str(check)
    if mistake == "element":
        assert only(check).index == (size // 3,)


# --- functions that cancel to a constant ------------------------------------------------------------------------------


def normalized_mean(x):
    mean, variance = tf.nn.moments(x, [0])
    return tf.reduce_mean((x - mean) * tf.math.rsqrt(variance + tf.cast(1e-3, x.dtype)))


CONSTANT = {
    "log of the sum of a softmax": lambda x: tf.math.log(tf.reduce_sum(tf.nn.softmax(x))),
    "mean of a batch normalization": normalized_mean,
    "sine and cosine": lambda x: tf.reduce_sum(tf.sin(x) ** 2 + tf.cos(x) ** 2),
    "norm of a unit vector": lambda x: tf.norm(x / tf.norm(x)),
    "log of a softmax": lambda x: tf.reduce_logsumexp(tf.nn.log_softmax(x)),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CONSTANT)
def test_a_function_that_cancels_to_a_constant_has_slope_0_up_to_rounding(name, dtype):
    for seed in range(3):
        check = check_gradient(CONSTANT[name], normal(5, seed=seed, dtype=dtype))
        assert check, str(check)
        assert only(check).cause in ("", "the slope is 0 up to rounding")


def centred(x, axis):
    return (x - tf.reduce_mean(x, axis, keepdims=True)) / tf.math.reduce_std(x, axis, keepdims=True)


MANY = {  # the function and the shape of its input, of many elements whose roundings add up
    "mean of a batch normalization": (lambda x: tf.reduce_mean(centred(x, 0)), (20, 60)),
    "sum of a layer normalization": (lambda x: tf.reduce_sum(centred(x, -1)), (40, 60)),
    "sum of rows less their mean": (lambda x: tf.reduce_sum(x - tf.reduce_mean(x, -1, keepdims=True)), (12, 20)),
}
NOISY = {  # their rounding can be larger than what is known of it
    "sum of numbers less their mean": (lambda x: tf.reduce_sum(x - tf.reduce_mean(x)), (3000,)),
    "sum of both sigmoids": (lambda x: tf.reduce_sum(tf.sigmoid(x) + tf.sigmoid(-x)), (40,)),
    "sine and cosine": (lambda x: tf.reduce_sum(tf.sin(x) ** 2 + tf.cos(x) ** 2), (1000,)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MANY)
def test_many_elements_that_cancel_to_a_constant_have_slope_0_up_to_rounding(name, dtype):
    fn, shape = MANY[name]
    for seed in (100, 101):
        check = check_gradient(fn, normal(*shape, seed=seed, dtype=dtype))
        assert only(check).cause == "the slope is 0 up to rounding", str(check)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NOISY)
def test_rounding_that_cannot_be_told_from_a_slope_is_no_mistake_and_no_kink(name, dtype):
    fn, shape = NOISY[name]
    for seed in (100, 101, 102):
        check = check_gradient(fn, normal(*shape, seed=seed, dtype=dtype))
        assert check.verdict in ("pass", "inconclusive"), str(check)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_part_that_is_stopped_in_a_function_that_cancels_to_a_constant_fails(dtype):
    check = check_gradient(
        lambda x: tf.reduce_mean(x - tf.stop_gradient(tf.reduce_mean(x))), normal(50, 60, dtype=dtype)
    )
    assert (only(check).verdict, only(check).cause[:15]) == ("fail", "the gradient is")


def test_a_wrong_gradient_that_is_tiny_is_not_taken_for_0():
    wrong = planted(lambda x: 1e-20 * x**2, lambda dy, x: dy * 4e-20 * x)
    assert only(check_gradient(lambda x: tf.reduce_sum(wrong(x)), normal(30, dtype="float64"))).verdict == "fail"


@pytest.mark.parametrize("name", CONSTANT)
def test_a_wrong_gradient_of_a_constant_fails(name):
    for dtype in ("float32", "float64"):
        wrong = planted(CONSTANT[name], lambda dy, x: dy * 0.01 * x)
        assert check_gradient(wrong, normal(5, dtype=dtype)).verdict == "fail"


def test_lost_to_rounding_in_the_dtype_of_the_source_is_not_said_of_float64():
    for gap in (20.0, 30.0, 40.0):
        check = check_gradient(saturated, tf.constant([[gap, 0.0, 0.5]], tf.float64))
        assert "right in float64" not in str(check)


def test_numbers_on_the_way_that_swallow_the_source_are_no_mistake():
    for large in (1e8, 1e12, 1e20):
        check = check_gradient(lambda x, large=large: (x + large) - large, tf.constant([1.0, 2.0], tf.float64))
        assert check.verdict in ("pass", "inconclusive"), str(check)


@pytest.mark.parametrize("size", [1e-12, 1e-5, 1e5])
def test_a_small_function_without_cancelling_hides_no_mistake(size):
    wrong = planted(lambda x: size * x * x, lambda dy, x: dy * 2.002 * size * x)
    assert check_gradient(wrong, normal(3)).verdict == "fail"
    assert check_gradient(wrong, normal(3, dtype="float64")).verdict == "fail"


# --- jumps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [1e-3, -1e-3, 1e-5, -1e-6])
def test_a_jump_near_the_point_is_none_at_the_point(distance):
    def fn(x):
        return tf.where(x > 1 + distance, tf.constant(5.0, x.dtype), x * 0 + 2)

    x = tf.constant(1.0, tf.float64)
    check_gradient(fn, x).raise_if_failed()
    assert check_gradient(planted(fn, lambda dy, x: 7.0 * dy), x).verdict == "fail"
    both = lambda x: tf.reduce_sum(fn(x) + x**2)  # noqa: E731
    check_gradient(both, x).raise_if_failed()
    assert check_gradient(planted(both, lambda dy, x: 2.2 * dy * x), x).verdict == "fail"


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: tf.where(tf.equal(x[1], 0.0), 1.0, 0.5) + 0.0 * tf.reduce_sum(x),
        lambda x: tf.where(x[1] > 0.0, 1.0, 0.5) + 0.0 * tf.reduce_sum(x),
        lambda x: tf.reduce_sum(tf.cast(tf.equal(x, 0.0), tf.float32)) + tf.reduce_sum(x),
    ],
)
def test_a_jump_of_one_among_several_is_a_kink(fn):
    assert check_gradient(fn, tf.zeros(3)).verdict == "kink"
    assert check_gradient(lambda a, b: fn(tf.stack([a, b, a])), [tf.constant(0.0), tf.constant(0.0)]).verdict == "kink"


# --- outputs that do not move -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [-1e9, -1e20, -1e30, -3.4e38, -np.inf])
def test_an_output_that_does_not_move_hides_nothing(mask):
    def fn(x):
        return tf.concat([x**2, tf.fill([2], tf.constant(mask, x.dtype))], 0)

    x = tf.constant([1.0, 2.0])
    check_gradient(fn, x).raise_if_failed()
    check = check_gradient(planted(fn, lambda dy, x: dy[:-2] * (2 * x + 1.5)), x)
    assert check.verdict == "fail", str(check)
    where = lambda x: tf.where([True, False, True], x**2, tf.constant(mask, x.dtype))  # noqa: E731
    keep = tf.constant([1.0, 0.0, 1.0])
    check_gradient(where, tf.constant([1.0, 2.0, 3.0])).raise_if_failed()
    check = check_gradient(planted(where, lambda dy, x: dy * keep * (2 * x + 1.5)), tf.constant([1.0, 2.0, 3.0]))
    assert check.verdict == "fail", str(check)


def test_an_output_in_which_a_mask_swallows_the_source_is_no_mistake():
    mask = tf.constant([0.0, -1e30, 0.0])
    check = check_gradient(lambda x: x**2 + mask, tf.constant([1.0, 2.0, 3.0]))
    assert check.verdict in ("pass", "inconclusive"), str(check)
    check = check_gradient(lambda b: tf.ones([3]) * b + mask, tf.constant(0.5))
    assert check.verdict in ("pass", "inconclusive"), str(check)
    check_gradient(lambda x: tf.nn.softmax(x + mask), tf.constant([1.0, 2.0, 3.0])).raise_if_failed()
    check = check_gradient(lambda x: tf.nn.softmax(x - 1e9), tf.constant([1.0, 2.0, 3.0]))
    assert check.verdict in ("pass", "inconclusive"), str(check)


@pytest.mark.parametrize("mask", [-1e20, -1e30, tf.float32.min])
def test_a_mask_excuses_no_gradient_that_flows_through_it(mask):
    keep = tf.constant([True, True, False])
    where = lambda x: tf.where(keep, x**2, tf.constant(mask, x.dtype))  # noqa: E731
    for dtype in ("float32", "float64"):
        wrong = planted(where, lambda dy, x: tf.where(keep, 2 * dy * x, 0 * x) + tf.reduce_sum(dy))
        assert check_gradient(wrong, tf.constant([1.0, 2.0, 3.0], dtype)).verdict == "fail"


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_wrong_gradient_beside_an_empty_segment_fails(dtype):
    flipped = planted(
        lambda x: tf.math.unsorted_segment_max(x, [0, 2, 0], 4), lambda dy, x: -tf.stack([0 * dy[0], dy[2], dy[0]])
    )
    assert only(check_gradient(flipped, tf.constant([1.0, 2.5, 3.0], dtype))).cause == "sign flipped"


@pytest.mark.parametrize("dtype", FLOATS)
def test_empty_segments_pass(dtype):
    x = tf.constant([1.0, 2.5, 3.0], dtype)
    for fn in (tf.math.unsorted_segment_max, tf.math.unsorted_segment_min, tf.math.unsorted_segment_prod):
        check_gradient(lambda x, fn=fn: fn(x, [0, 2, 0], 4), x).raise_if_failed()


# --- the second order of a scalar -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "x", "second"),
    [
        (tf.exp, 0.7, np.exp(0.7)),
        (tf.sin, 0.3, -np.sin(0.3)),
        (lambda x: tf.reduce_sum(x**3), [0.5], 3.0),
    ],
)
def test_the_second_order_of_a_scalar_is_the_number_of_the_textbook(fn, x, second):
    check = check_gradient(fn, tf.constant(x, tf.float64), order=2)
    assert only(check).numeric == pytest.approx(second, rel=1e-9)
    assert only(check).analytic == pytest.approx(second, rel=1e-9)
    assert "random weights" not in str(check)


def test_what_is_weighted_says_so():
    words = "several numbers: the slopes are those of their sum with random weights"
    vector, scalar = tf.constant([0.3, 0.4]), tf.constant(0.3)
    assert f"(the gradient has {words}.)" in str(check_gradient(lambda x: tf.reduce_sum(x**3), vector, order=2))
    assert f"(the result of fn and the gradient have {words}.)" in str(check_gradient(tf.sin, vector, order=2))
    assert f"(the result of fn has {words}.)" in str(check_gradient(lambda x: x * vector * x, scalar, order=2))


# --- chance -----------------------------------------------------------------------------------------------------------


def small_slope(x):
    return 1e4 + 1e-2 * tf.sin(x)


def test_a_draw_that_feeds_nothing_does_not_count():
    def seeds(x):
        tf.random.stateless_uniform([1], seed=(1, 2))
        return small_slope(x)

    def loop(x):
        def body(row):
            tf.random.stateless_uniform([1], seed=(1, 2), maxval=9, dtype=tf.int32)
            return small_slope(row)

        return tf.map_fn(body, x)

    def split(x):
        tf.random.experimental.stateless_split((1, 2), 3)
        tf.py_function(lambda: 1.0, [], tf.float32)
        return small_slope(x)

    for fn in (seeds, loop, split):
        check = check_gradient(fn, tf.constant([0.3, 0.4]))
        assert check, str(check)
        assert only(check).uncertainty < 1e-7


def test_a_draw_that_does_not_depend_on_the_source_is_drawn_as_it_was():
    def dropout(x):
        return tf.reduce_sum(tf.sin(x) * tf.random.stateless_uniform([2], seed=(1, 2)))

    x = tf.constant([0.3, 0.4])
    check_gradient(dropout, x).raise_if_failed()
    wrong = planted(dropout, lambda dy, x: 3 * dy * tf.cos(x))
    assert check_gradient(wrong, x).verdict == "fail"


@pytest.mark.parametrize(
    "fn",
    [
        lambda a: tf.random.stateless_gamma([4], seed=(1, 2), alpha=a),
        lambda a: tf.random.stateless_gamma([4], seed=(1, 2), alpha=a, beta=2.0) ** 2,
        lambda a: beta(a, tf.constant(3.0)),
    ],
)
def test_a_sampler_whose_gradient_is_that_of_the_expected_value_is_inconclusive(fn):
    source = only(check_gradient(fn, tf.constant(2.0)))
    assert source.verdict == "inconclusive"
    assert source.cause.startswith("a sampler: its gradient is that of the expected value")
    check = check_gradient(lambda a, w: w * tf.stop_gradient(w) * fn(a), [tf.constant(2.0), tf.constant(3.0)])
    assert [source.verdict for source in check] == ["inconclusive", "fail"]


@pytest.mark.parametrize(
    "fn",
    [
        lambda a: tf.cond(a > 0, lambda: gamma(a), lambda: a),
        lambda a: tf.map_fn(gamma, tf.stack([a, a + 1])),
        lambda a: tf.while_loop(lambda i, x: i < 2, lambda i, x: (i + 1, x + gamma(x)), [0, a])[1],
        tf.function(lambda a: gamma(a)),
    ],
)
def test_a_sampler_inside_of_a_function_is_found(fn):
    source = only(check_gradient(fn, tf.constant(0.7)))
    assert source.verdict == "inconclusive"
    assert source.cause.startswith("a sampler")


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: gamma(tf.abs(x) + 1.0),
        lambda x: tf.random.stateless_poisson([], (1, 2), tf.abs(x), tf.float32),
        lambda x: tf.random.stateless_categorical([[x, -x]], 1, (1, 2)),
    ],
)
def test_a_draw_without_a_gradient_excuses_no_mistake(draw):
    wrong = planted(tf.sin, lambda dy, x: 1.3 * dy * tf.cos(x))

    def fn(x):
        draw(x)
        return wrong(x)

    assert only(check_gradient(fn, tf.constant(0.5))).cause == "off by a factor of 1.300"


def test_a_draw_that_feeds_the_result_is_the_same_in_float64():
    def relaxed(x):
        return tf.nn.softmax(x - tf.math.log(-tf.math.log(tf.random.stateless_uniform([3], (1, 2)))))

    x = tf.constant([0.1, 0.2, 0.3])
    check = check_gradient(relaxed, x)
    assert check
    assert only(check).uncertainty < 1e-9
    wrong = planted(relaxed, lambda dy, x: 1.01 * tape_of(lambda x: tf.reduce_sum(dy * relaxed(x)), x))
    assert check_gradient(wrong, x).verdict == "fail"


def gamma(a):
    return tf.random.stateless_gamma([], (1, 2), a)


def beta(a, b):
    x = tf.random.stateless_gamma([4], seed=(1, 2), alpha=a)
    return x / (x + tf.random.stateless_gamma([4], seed=(3, 4), alpha=b))


# --- saturated losses -------------------------------------------------------------------------------------------------


def saturated(z):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(tf.constant([0]), z))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_saturated_cross_entropy_is_never_called_wrong(dtype):
    losses = {
        "sparse": saturated,
        "dense": lambda z: tf.nn.softmax_cross_entropy_with_logits(tf.constant([[1.0, 0.0, 0.0]], z.dtype), z),
        "sigmoid": lambda z: tf.nn.sigmoid_cross_entropy_with_logits(tf.constant([[1.0, 0.0, 0.0]], z.dtype), z - 9),
        "log softmax": lambda z: -tf.nn.log_softmax(z)[0, 0],
    }
    for name, loss in losses.items():
        for gap in (12.0, 24.0, 26.0, 30.0, 36.0, 40.0, 60.0, 100.0):
            check = check_gradient(loss, tf.constant([[gap, 0.0, 0.5]], dtype))
            assert check.verdict in ("pass", "inconclusive"), f"{name} {gap}: {check}"


@pytest.mark.parametrize("gap", [26.0, 30.0, 40.0, 60.0])
def test_a_cross_entropy_saturated_beyond_25_is_inconclusive_with_the_reason(gap):
    for loss in (saturated, lambda z: -tf.nn.log_softmax(z)[0, 0]):
        source = only(check_gradient(loss, tf.constant([[gap, 0.0, 0.5]])))
        assert source.verdict == "inconclusive"
        assert "lost to rounding in float32" in source.cause or "too noisy to tell in float64" in source.cause


def test_a_rounded_gradient_that_cannot_be_computed_in_float64_is_never_called_wrong():
    def backward(dy, z):
        in_python = tf.numpy_function(lambda p: p, [tf.nn.softmax(z) - tf.constant([[1.0, 0.0, 0.0]])], tf.float32)
        return dy * tf.ensure_shape(in_python, z.shape)

    for gap in (10.0, 15.0, 17.0, 20.0, 30.0):
        check = check_gradient(planted(saturated, backward), tf.constant([[gap, 0.0, 0.5]]))
        assert check.verdict in ("pass", "inconclusive"), f"{gap}: {check}"
    doubled = planted(saturated, lambda dy, z: 2 * backward(dy, z))
    assert check_gradient(doubled, tf.constant([[1.0, 0.0, 0.5]])).verdict == "fail"


# --- what the values can show ---------------------------------------------------------------------------------------


def test_a_function_that_varies_below_every_step_is_inconclusive():
    for rate in (1e12, 1e14):
        source = only(check_gradient(lambda x, rate=rate: tf.sin(rate * x), tf.constant(0.7, tf.float64)))
        assert source.verdict == "inconclusive"
        assert "too noisy to tell in float64" in source.cause


def test_a_kink_that_rounding_makes_uncertain_is_never_called_wrong():
    v = tf.Variable([0.0])
    for large in (200.0, 500.0, 1500.0, 1e4):
        check = check_gradient(lambda large=large: large + tf.reduce_sum(tf.nn.relu(in_float32(v))), v)
        assert check.verdict in ("kink", "inconclusive"), str(check)


@pytest.mark.parametrize("rate", [889.0, 1155.0])
def test_slopes_of_a_fast_wave_that_agree_by_chance_are_no_proof(rate):
    v = tf.Variable(np.random.default_rng(1).uniform(0.2, 0.9, 64).astype("float32"))
    check = check_gradient(lambda: tf.reduce_sum(tf.sin(rate * in_float32(v) ** 2)), v)
    assert check.verdict == "inconclusive", str(check)


def test_a_small_gradient_beside_a_large_one_of_its_source_need_not_be_known_as_well():
    for small in (1e-6, 1e-7):
        fn = lambda x, small=small: tf.reduce_sum(tf.constant([1.0, small]) * tf.sin(in_float32(x)))  # noqa: E731
        check_gradient(fn, tf.constant([0.5, 0.6])).raise_if_failed()


@pytest.mark.parametrize(("large", "slope"), [(1e9, 1e-4), (1e10, 1e-3), (-1e9, 1e-4)])
def test_an_output_that_only_a_large_step_moves_is_no_mistake(large, slope):
    x = tf.constant(0.7, tf.float64)
    check = check_gradient(lambda x: tf.stack([tf.sin(x), large + slope * x]), x)
    assert check.verdict == "pass" or (large == 1e10 and check.verdict == "inconclusive"), str(check)


@pytest.mark.parametrize("fn", [lambda x: x**1.5, lambda x: x**2.5 * tf.sqrt(x), lambda x: tf.sqrt(x) ** 5])
def test_at_the_edge_of_a_domain_one_side_is_enough(fn):
    check_gradient(fn, tf.constant([0.0, 1.0], tf.float64)).raise_if_failed()


# --- the small things -------------------------------------------------------------------------------------------------


def test_a_check_is_found_by_its_place_too():
    check = check_gradient(lambda a, b: a * b, [2.0, 3.0])
    assert check[0] is check["a"] is check.sources[0]
    assert check[-1] is check["b"]
    for place in (2, 9, -3):
        with pytest.raises(IndexError, match=rf"GradientCheck: there is no source {place}; there are 2"):
            check[place]


def test_the_factor_is_that_of_the_row_it_stands_under():
    factors = tf.constant([1.5, 1.501, 1.502])
    source = only(check_gradient(planted(tf.sin, lambda dy, x: dy * factors * tf.cos(x)), tf.constant([0.3, 0.5, 0.7])))
    assert source.cause == f"off by a factor of {source.analytic / source.numeric:.3f}"
    assert source.cause == f"off by a factor of {factors[source.index[0]]:.3f}"


def test_one_variable_is_checked_from_two_threads_at_once():
    v, verdicts = tf.Variable([0.3, 0.5]), []

    def check():
        verdicts.append(check_gradient(lambda: tf.reduce_sum(tf.sin(in_float32(v))), v).verdict)

    threads = [threading.Thread(target=check) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == ["pass"] * 3
    np.testing.assert_array_equal(v.numpy(), np.array([0.3, 0.5], "float32"))


@pytest.mark.parametrize(
    ("interactive", "progress", "seconds", "shown"),
    [(True, None, 4.0, True), (True, None, 1.0, False), (False, None, 4.0, False), (True, False, 4.0, False)],
)
def test_progress_shows_itself_after_some_seconds_in_a_terminal_only(
    monkeypatch, interactive, progress, seconds, shown
):
    screen = io.StringIO()
    screen.isatty = lambda: interactive
    monkeypatch.setattr(sys, "stderr", screen)
    now = iter([0.0] + [seconds] * 9999)
    monkeypatch.setattr("tapekit.checking.slopes.time.monotonic", lambda: next(now))
    assert check_gradient(small_slope, 0.3, progress=progress)
    assert ("6/6 values" in screen.getvalue()) == shown


# --- the rounding of the numbers on the way --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "x", "dtype"),
    [
        (lambda x: tf.math.log(1.0 - tf.sigmoid(x) + 1e-7), 16.0, tf.float32),
        (lambda x: tf.math.log(1.0 - tf.sigmoid(x) + 1e-7), 30.0, tf.float64),
        (lambda x: tf.math.log(1.0 - tf.sigmoid(x) + 1e-12), 28.0, tf.float64),
        (lambda x: tf.math.log(1.0 - tf.tanh(x) + 1e-7), 15.0, tf.float64),
        (lambda x: 1.0 / (1.0 - tf.cos(x) + 1e-6), 4e-4, tf.float32),
        (lambda x: 1.0 / (1.0 - tf.cos(x) + 1e-14), 1.5e-8, tf.float64),
    ],
)
def test_a_cancellation_that_is_amplified_is_no_slope_of_0(fn, x, dtype):
    source = only(check_gradient(fn, tf.constant(x, dtype)))
    assert source.verdict in ("pass", "inconclusive")
    assert source.cause != "the slope is 0 up to rounding"


FINE_BESIDE_COARSE = {  # a part that every step changes, and a part that changes by its rounding
    "entropy": lambda z: -tf.reduce_sum(tf.nn.softmax(z) * tf.nn.log_softmax(z)),
    "entropy by log": lambda z: -tf.reduce_sum(tf.nn.softmax(z) * tf.math.log(tf.nn.softmax(z) + 1e-12)),
    "squared error": lambda z: tf.reduce_sum((tf.nn.softmax(z) - tf.constant([1.0, 0.0, 0.0], z.dtype)) ** 2),
}


@pytest.mark.parametrize("name", FINE_BESIDE_COARSE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fine_part_does_not_hide_the_rounding_of_a_coarse_one(name, dtype):
    for gap in (12.0, 24.0, 28.0, 40.0, 60.0):
        check = check_gradient(FINE_BESIDE_COARSE[name], tf.constant([gap, 0.0, 0.5], dtype))
        assert check.verdict in ("pass", "inconclusive"), f"{gap}: {check}"
    doubled = planted(FINE_BESIDE_COARSE[name], lambda dy, z: 2 * dy * tape_of(FINE_BESIDE_COARSE[name], z))
    assert check_gradient(doubled, tf.constant([2.0, 0.0, 0.5], dtype)).verdict == "fail"


def tape_of(fn, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = fn(x)
    return tape.gradient(y, x)


@pytest.mark.parametrize("seed", range(4))
def test_changes_by_rounding_are_no_kink(seed):
    a = normal(4, 4, seed=seed, dtype="float64") + 2.0 * tf.eye(4, dtype=tf.float64)
    check = check_gradient(lambda a: tf.linalg.slogdet(a @ tf.linalg.inv(a))[1], a)
    assert only(check).cause == "the slope is 0 up to rounding"


def test_a_narrow_peak_is_not_overlooked_by_large_steps():
    source = only(check_gradient(lambda x: 1.0 / (x * x + 1e-14), tf.constant(1.5e-8, tf.float64)))
    assert source.verdict == "pass"
    assert source.numeric == pytest.approx(-3e-8 / (2.25e-16 + 1e-14) ** 2, rel=1e-6)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_operation_that_computes_in_float32_whatever_it_gets_is_held_to_float32(method, dtype):
    def resize(x):
        return tf.image.resize(x, [5, 7], method)

    for seed in range(3):
        check_gradient(resize, normal(1, 3, 4, 1, seed=seed, dtype=dtype)).raise_if_failed()
    near_0 = tf.reshape(tf.constant([1.3, 1e-5], dtype), [1, 1, 2, 1])
    assert check_gradient(resize, near_0).verdict in ("pass", "inconclusive")
    wrong = planted(resize, lambda dy, x: 1.3 * tape_of(lambda x: tf.reduce_sum(dy * resize(x)), x))
    assert check_gradient(wrong, normal(1, 3, 4, 1, dtype=dtype)).verdict == "fail"


@pytest.mark.parametrize("layers", [3, 5])
def test_blocks_of_a_network_with_many_kinks_pass(layers):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input([64]), *(keras.layers.Dense(256, "relu") for _ in range(layers))])
    x = normal(256, 64)
    check_gradient(lambda: tf.reduce_mean(model(x) ** 2), model.trainable_variables).raise_if_failed()


@pytest.mark.parametrize(
    ("fn", "x", "dtype"),
    [
        (lambda w: tf.reduce_mean(w**2) * 2.0**15, [0.5, 1.5], "float16"),
        (lambda w: w * 1e-7, [0.5, 1.5], "float16"),
        (lambda w: w * 2.5e38, [0.5, 1.2], "float32"),
        (lambda w: tf.exp(-w * w / 2), [13.2, 13.3], "float32"),
        (tf.exp, [88.0, 88.2], "float32"),
        (tf.exp, 709.5, "float64"),
    ],
)
def test_a_cotangent_that_overflows_or_underflows_if_doubled_is_no_mistake(fn, x, dtype):
    check = check_gradient(fn, tf.constant(x, dtype))
    assert check.verdict in ("pass", "inconclusive"), str(check)


def test_a_gradient_of_an_output_that_is_infinite_is_inconclusive():
    check = check_gradient(lambda x: tf.math.atanh(tf.tanh(x)), tf.constant(10.0))
    assert (check.verdict, only(check).cause[:19]) == ("inconclusive", "the gradient is nan")
