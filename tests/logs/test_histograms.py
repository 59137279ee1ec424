"""The distributions of a log against NumPy on the same gradients, in every kind of loop."""

import numpy as np
import pytest
import tensorflow as tf

import tapekit
from tapekit.logs import GradientLog
from tapekit.logs.records import EDGES
from tests.logs.test_logs import MODES, X, fit, small_model, train, true_run

TINY = float(np.finfo(np.float32).tiny)


def counts_by_hand(gradient):
    """`np.histogram` on the same edges, in which a value on an edge belongs to the bin farther from 0."""
    flat = np.asarray(gradient, np.float64).ravel()
    flat = flat[np.isfinite(flat)]
    zeros = np.sum(np.abs(flat) < TINY)
    positive, _ = np.histogram(flat[flat >= TINY], EDGES[EDGES > 0])
    negative, _ = np.histogram(-flat[flat <= -TINY], EDGES[EDGES > 0])
    return np.concatenate([negative[::-1], [zeros], positive])


def assert_histograms_are(log, gradients, steps):
    assert log.histogram_steps.tolist() == list(steps)
    for step in steps:
        for name, gradient in zip(log.names, gradients[step], strict=True):
            edges, counts = log.histogram(name, step)
            np.testing.assert_array_equal(edges, EDGES)
            np.testing.assert_array_equal(counts, counts_by_hand(gradient), err_msg=f"{name} at step {step}")


def test_there_are_two_bins_an_octave_from_the_smallest_normal_number_up():
    positive = EDGES[EDGES > 0]
    assert positive[0] == TINY
    assert positive[-1] == 2.0 * 2.0**127
    np.testing.assert_array_equal(positive[2::2], 2 * positive[:-2:2])
    np.testing.assert_array_equal(positive[1::2], 1.5 * positive[:-1:2])
    np.testing.assert_array_equal(EDGES, -EDGES[::-1])
    assert (np.diff(EDGES) > 0).all()


@pytest.mark.parametrize("loop", MODES)
@pytest.mark.parametrize(("every", "histograms"), [(1, 1), (1, 3), (2, 2)])
def test_every_nth_row_keeps_the_distribution(loop, every, histograms):
    log = GradientLog(every=every, histograms=histograms)
    _, gradients, _ = train(MODES[loop], log, steps=8)
    assert_histograms_are(log, gradients, range(0, 8, every * histograms))


@pytest.mark.parametrize(
    "options", [{}, {"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 4}], ids=str
)
def test_fit_keeps_the_distributions_of_its_gradients(options):
    log = GradientLog(histograms=2)
    fit(small_model(**options), log, epochs=2)
    gradients, _, _ = true_run(steps=8)
    assert log.histogram_steps.tolist() == [0, 2, 4, 6]
    for step in log.histogram_steps:
        for name, gradient in zip(log.names, gradients[step], strict=True):
            counts = log.histogram(name, step).counts
            assert counts.sum() == gradient.size
            assert np.abs(counts - counts_by_hand(gradient)).sum() <= 2  # one element may round over an edge


SPECIAL = np.float32([0, -0.0, np.nan, np.inf, -np.inf, 1, 1.5, -1, 1e-38, -1e-39, TINY, 3.4e38, -3.4e38, 0.75, -1e-10])


@pytest.mark.parametrize("loop", MODES)
def test_zeros_stand_in_the_middle_and_what_is_not_finite_in_no_bin(loop):
    log, w = GradientLog(histograms=1), tf.Variable(SPECIAL, name="w")
    MODES[loop](lambda: log.record([tf.constant(SPECIAL)], [w]))()
    histogram = log.histogram("w")
    np.testing.assert_array_equal(histogram.counts, counts_by_hand(SPECIAL))
    assert histogram.counts[len(EDGES) // 2 - 1] == 4  # two of them smaller than any normal number
    assert histogram.counts.sum() + log["w"].nonfinite[0] == len(SPECIAL)
    edges = histogram.edges[:-1][histogram.counts > 0]
    assert {-TINY, TINY, 0.75, 1.0, 1.5} <= set(edges)


def test_other_dtypes_sparse_and_missing_gradients_are_counted():
    table = tf.Variable(tf.zeros([4, 2]), name="table")
    half, double, two = (tf.Variable(np.ones(3), dtype=d, name=d) for d in ("bfloat16", "float64", "complex64"))
    rows = tf.IndexedSlices(tf.constant([[1.0, 2.0], [3.0, 4.0]]), tf.constant([1, 1]), tf.constant([4, 2]))
    log = GradientLog(histograms=1)
    given = [rows, tf.constant([0.25, 1, -3], tf.bfloat16), None, tf.constant([1 + 2j, 0, 4j], tf.complex64)]
    log.record(given, [table, half, double, two])
    np.testing.assert_array_equal(log.histogram("table").counts, counts_by_hand([0, 0, 4, 6, 0, 0, 0, 0]))
    np.testing.assert_array_equal(log.histogram("bfloat16").counts, counts_by_hand([0.25, 1, -3]))
    np.testing.assert_array_equal(log.histogram("complex64").counts, counts_by_hand([1, 2, 0, 0, 0, 4]))
    assert log.histogram("float64").counts.sum() == 0


def test_a_large_gradient_is_counted_to_the_last_element():
    gradient = np.random.default_rng(0).standard_cauchy(300_000).astype("float32")
    log, w = GradientLog(histograms=1), tf.Variable(gradient, name="w")
    log.record([tf.constant(gradient)], [w])
    np.testing.assert_array_equal(log.histogram("w").counts, counts_by_hand(gradient))


def test_gradients_of_sizes_known_only_when_it_runs_are_counted():
    log, w = GradientLog(histograms=1), tf.Variable(tf.zeros([3]), name="w", shape=[None])
    step = tf.function(lambda g: log.record([g], [w]), autograph=False)
    step.get_concrete_function(tf.TensorSpec([None]))(tf.constant([1.0, 2.0, 2.5]))
    np.testing.assert_array_equal(log.histogram("w").counts, counts_by_hand([1, 2, 2.5]))


def test_a_loss_scale_is_taken_out_of_the_distribution_too():
    import keras

    log, optimizer = GradientLog(histograms=1), keras.optimizers.SGD(0.1, loss_scale_factor=1024.0)
    fit(small_model(optimizer=optimizer), log)
    gradients, _, _ = true_run(steps=1)
    assert np.abs(log.histogram(log.names[0], 0).counts - counts_by_hand(gradients[0][0])).sum() <= 2


def a_log(steps=4, **options):
    log, w = GradientLog(**({"histograms": 2} | options)), tf.Variable(tf.zeros([2]), name="net/w")
    for step in range(steps):
        log.record([tf.constant([1.0, 2.0**step])], [w])
    return log, w


def test_a_histogram_is_found_by_step_and_by_variable():
    log, w = a_log(5)
    assert log.histogram_steps.tolist() == [0, 2, 4]
    largest = {step: log.histogram("w", step).edges[:-1][log.histogram(w, step).counts > 0][-1] for step in (0, 2, 4)}
    assert largest == {0: 1, 2: 4, 4: 16}
    for step, same in ((-1, 4), (-3, 0)):
        np.testing.assert_array_equal(log.histogram("net/w", step).counts, log.histogram(w, same).counts)
    for step in (1, 5, -4, 1.5, "last", None):
        with pytest.raises(ValueError, match=f"step {step!r} has no histograms. log.histogram_steps has 0, 2, 4"):
            log.histogram("w", step)
    with pytest.raises(ValueError, match=r"The log has none\. .*GradientLog\(histograms=100\)"):
        a_log(histograms=None)[0].histogram("w")
    with pytest.raises(KeyError, match="nothing is called 'v'"):
        log.histogram("v")
    with pytest.raises(ValueError, match="GradientLog: histograms is 0"):
        GradientLog(histograms=0)


def test_save_and_load_keep_the_histograms(tmp_path):
    log, _ = a_log(6)
    log.save(tmp_path / "run")
    loaded = GradientLog.load(tmp_path / "run")
    assert loaded.histogram_steps.tolist() == [0, 2, 4]
    for step in (0, 2, 4):
        np.testing.assert_array_equal(loaded.histogram("w", step).counts, log.histogram("w", step).counts)


def test_an_eager_loop_loses_no_histogram_of_a_small_ring():
    log, _ = a_log(100, histograms=1, capacity=8)
    assert log.histogram_steps.tolist() == log.steps.tolist() == list(range(100))
    assert log.lost == 0


def test_the_ring_is_smaller_where_each_row_has_a_histogram():
    sizes = {histograms: GradientLog(histograms=histograms).capacity for histograms in (None, 1, 10, 16, 100)}
    assert sizes == {None: 1024, 1: 64, 10: 640, 16: 1024, 100: 1024}
    assert GradientLog(histograms=1, capacity=1000).capacity == 1000


def test_histograms_that_a_graph_loop_overran_are_counted_aloud():
    w, log = tf.Variable([0.0], name="w"), GradientLog(histograms=3, capacity=4)

    @tf.function
    def loop(n):
        for _ in tf.range(n):
            w.assign_add([1.0])
            log.record([w + 0.0], [w])

    loop(11)
    with pytest.warns(UserWarning, match="7 rows lost, the ring holds 4"):
        log.drain()
    assert log.steps.tolist() == [7, 8, 9, 10]
    assert log.histogram_steps.tolist() == [9]
    np.testing.assert_array_equal(log.histogram("w", 9).counts, counts_by_hand([10]))


def test_a_ring_of_many_rows_between_histograms_overruns_nothing():
    w, log = tf.Variable([0.0], name="w"), GradientLog(histograms=5, every=2, capacity=100)

    @tf.function
    def loop(n):
        for _ in tf.range(n):
            w.assign_add([1.0])
            log.record([w + 0.0], [w])

    for _ in range(5):
        loop(38)
        log.drain()
    assert log.histogram_steps.tolist() == list(range(0, 190, 10))
    for step in log.histogram_steps:
        np.testing.assert_array_equal(log.histogram("w", step).counts, counts_by_hand([step + 1]))


def test_value_and_gradient_records_the_distribution():
    w, log = tf.Variable(X[0], name="w"), GradientLog(histograms=1)
    tapekit.value_and_gradient(lambda: tf.reduce_sum(w**2), w, log=log)
    np.testing.assert_array_equal(log.histogram(w).counts, counts_by_hand(2 * X[0]))
