"""What a log says is wrong: of each finding its variables, its first step, and runs of which it says nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tapekit.logs import GradientLog
from tapekit.logs.records import Records
from tapekit.logs.ring import Rows
from tests.logs.test_logs import X, Y, fit, record, small_model


def test_a_healthy_run_has_nothing_to_say():
    log = GradientLog(updates=True)
    fit(small_model(optimizer=keras.optimizers.SGD(3e-3)), log, epochs=8)
    assert log.findings() == ()


def test_findings_name_what_is_not_finite_missing_and_dead():
    good, bad = np.ones(2), np.float32([np.nan, 1])
    log = record([good, None, good * 0], [bad, None, good * 0], [good, None, good * 0])
    found = log.findings()
    assert len(found) == 3
    assert found[0].startswith(
        "Not finite: a had NaN or infinite elements in 1 of 3 rows, first at step 1 (1 elements of a)"
    )
    assert found[1].startswith("None: b had no gradient in 3 of 3 rows, first at step 0.")
    assert found[2] == "All zero: c had a gradient of zeros in 3 of 3 rows, first at step 0."


@pytest.mark.parametrize(("factor", "word"), [(0.1, "Vanishing"), (10.0, "Exploding"), (0.5, None)])
def test_findings_see_the_signal_vanish_or_explode_along_the_biases(factor, word):
    names = [f"{layer}/{kind}" for layer in "abcd" for kind in ("kernel", "bias")]
    biases = [factor ** (3 - layer) * np.ones(2) for layer in range(4)]
    log = GradientLog()
    variables = [tf.Variable([0.0, 0.0], name=name) for name in names]
    for _ in range(3):
        log.record([tf.constant(g, tf.float32) for b in biases for g in (np.ones(2), b)], variables)  # flat kernels
    found = log.findings()
    assert len(found) == (word is not None)
    if word:
        assert found[0].startswith(
            f"{word} towards the input: the gradient (root mean square) of a/bias is {factor**3:.2g} "
        )
        assert f"or {factor:g} times per layer, first at step 0 (threshold: 100)" in found[0]


def layers(*sizes, kinds=("bias",)):
    """A log of layers whose gradients have these sizes."""
    names = [f"layer_{layer}/{kind}" for layer in range(len(sizes)) for kind in kinds]
    return record(*[[np.full(2, size) for size in sizes for _ in kinds]] * 3, names=names)


@pytest.mark.parametrize("kinds", [("bias",), ("kernel",), ("kernel", "bias")])
def test_a_signal_that_only_the_head_or_the_first_layer_changes_does_not_vanish_or_explode(kinds):
    assert layers(*[1.0] * 29, 1000.0, kinds=kinds).findings() == ()
    assert layers(*[1.0] * 29, 1e-3, kinds=kinds).findings() == ()
    assert layers(1e-3, *[1.0] * 29, kinds=kinds).findings() == ()
    assert layers(*[1.0] * 20, *[1000.0] * 5, kinds=kinds).findings() == ()


@pytest.mark.parametrize("head", [1.0, 1000.0, 1e-3])
def test_a_geometric_fall_is_found_whatever_the_head_is(head):
    (found,) = layers(*[0.5 ** (30 - layer) for layer in range(30)], head).findings()
    assert found.startswith("Vanishing towards the input: the gradient (root mean square) of layer_0/bias is ")
    (found,) = layers(*[2.0 ** (30 - layer) for layer in range(30)], head).findings()
    assert found.startswith("Exploding towards the input: the gradient (root mean square) of layer_0/bias is ")


def test_a_layer_without_a_signal_does_not_hide_the_fall():
    zero, fall = layers(*[0.0 if layer == 7 else 0.5 ** (30 - layer) for layer in range(30)]).findings()
    assert zero.startswith("All zero: layer_7/bias")
    assert fall.startswith("Vanishing towards the input: ")


def test_findings_see_spikes_against_the_rows_before():
    steps = [[np.full(2, 1.0 + 0.1 * (i % 3))] for i in range(40)]
    steps[30] = [np.full(2, 50.0)]
    (found,) = record(*steps).findings()
    assert found.startswith(
        "Spikes: the global norm is more than 10 times the median of the 20 rows before it in 1 rows, "
    )
    assert "first at step 30 (45.5 times)" in found


@pytest.mark.parametrize(("rate", "words"), [(1e-6, "Updates too small"), (1e-1, "Updates too large"), (1e-3, None)])
def test_findings_compare_the_update_ratio_with_a_thousandth(rate, words):
    w, b = tf.Variable([1.0, 1.0], name="w"), tf.Variable([0.0], name="bias")
    log = GradientLog(updates=True)
    for _ in range(6):
        log.record([w + 0.0, b + 1.0], [w, b])
        w.assign_sub(rate * w)
        b.assign_sub([1.0])
    found = log.findings()
    assert len(found) == (words is not None)
    if words:
        assert found[0].startswith(f"{words}: a step changes w by {rate:.1e} of its norm")


def norms(*values, losses=None, **options):
    """A log of one variable with these norms."""
    log, w = GradientLog(**options), tf.Variable([0.0, 0.0], name="w")
    for row, value in enumerate(values):
        loss = None if losses is None else losses[row]
        log.record([tf.constant([0.6 * value, 0.8 * value], tf.float32)], [w], loss=loss)
    return log


def test_each_variable_has_the_counts_of_its_own():
    log = record(*[[None, None, None if i == 4 else np.ones(2), np.ones(2)] for i in range(10)])
    assert log.findings() == (
        "None: a, b had no gradient in 10 of 10 rows, first at step 0; c had no gradient in 1 of 10 rows, first at "
        "step 4. Call tapekit.explain(fn, vars) to see where the gradient is lost.",
    )
    bad = np.float32([np.nan, 1])
    log = record(*[[bad if i > 2 else np.ones(2), bad if i == 7 else np.ones(2)] for i in range(10)])
    (found,) = log.findings()
    assert found.startswith("Not finite: a had NaN or infinite elements in 7 of 10 rows, first at step 3; ")
    assert "b had NaN or infinite elements in 1 of 10 rows, first at step 7" in found
    log = record(*[[0 * np.ones(2), (i == 0) * np.ones(2)] for i in range(20)])
    assert "a had a gradient of zeros in 20 of 20 rows, first at step 0; b had a gradient of zeros in 19" in str(
        log.findings()
    )


def test_of_many_variables_a_sentence_names_a_few_and_counts_the_rest():
    names = [f"v{v}" for v in range(30)]
    log = record(*[[None if i <= v else np.ones(2) for v in range(30)] for i in range(30)], names=names)
    (found,) = log.findings()
    assert found.count("had no gradient in") == 4
    assert "; and 26 more variables. Call tapekit.explain" in found


def test_an_explosion_before_nan_is_one_story_with_its_first_step():
    (found,) = norms(1.4, 1.4e6, 1.4e18, np.nan).findings()
    assert found == (
        "Explosion: the global norm rose from 1.4 at step 0 to 1.4e+18 at step 2, beginning at step 1; then w had NaN "
        "or infinite elements in 1 of 4 rows, first at step 3 (2 elements of w)."
    )


@pytest.mark.parametrize(
    ("before", "begin", "factor"),
    [([1.0] * 40, 40, 30.0), ([2.0, 1.0, 3.0], 3, 1e5), ([1.0 + 0.3 * (i % 4) for i in range(25)], 25, 1e3)],
)
def test_an_explosion_is_told_from_its_first_step(before, begin, factor):
    rise = [before[-1] * factor**power for power in (1, 2, 3)]
    (found,) = norms(*before, *rise, np.inf, np.nan).findings()
    assert found.startswith("Explosion: the global norm rose from ")
    assert f" to {rise[-1]:.3g} at step {begin + 2}, beginning at step {begin}; then w had" in found
    assert f"in 2 of {begin + 5} rows, first at step {begin + 3}" in found


def test_a_slow_explosion_is_told_too():
    (found,) = norms(*[1.5**i for i in range(80)], np.nan).findings()
    assert found.startswith("Explosion: the global norm rose from ")
    assert f"to {1.5**79:.3g} at step 79, beginning at step " in found


def test_nan_without_a_rise_is_no_explosion():
    (found,) = norms(*[1.0 + 0.1 * (i % 3) for i in range(30)], np.nan).findings()
    assert found.startswith("Not finite: w had")
    (found,) = norms(np.nan, 1.0).findings()
    assert found.startswith("Not finite: w had")
    found = norms(*[1.0] * 25, 50.0, *[1.0] * 5, np.nan).findings()
    assert [sentence.split(":")[0] for sentence in found] == ["Not finite", "Spikes"]


def fading(rows=400, end=1e-10, loss=lambda i: 2.3):
    return norms(*[end ** (i / (rows - 1)) for i in range(rows)], losses=[loss(i) for i in range(rows)])


def test_a_gradient_that_fades_in_time_is_told():
    (found,) = fading().findings()
    assert found.startswith("Fading: the global norm fell from 0.32")
    assert "(medians of the first and last 40 rows)" in found
    assert found.endswith("The loss went from 2.3 to 2.3.")
    first = next(i for i in range(400) if 1e-10 ** (i / 399) < 1e-4 * 1e-10 ** (19.5 / 399))
    assert f"first below 0.0001 times the former at step {first}." in found
    assert len(fading(loss=lambda i: -5.0).findings()) == 1
    assert len(fading(loss=lambda i: np.nan if i > 300 else 1.0).findings()) == 1
    assert fading(loss=lambda i: None).findings()[0].endswith("The loss is not recorded.")


@pytest.mark.parametrize(
    "healthy",
    [
        lambda: fading(loss=lambda i: 2.3 * 0.99**i),  # it has converged
        lambda: fading(loss=lambda i: -5.0 - i),
        lambda: fading(end=1e-3),
        lambda: norms(*[1 / (1 + i) for i in range(15)], losses=[1.0] * 15),
    ],
)
def test_what_has_converged_or_is_short_does_not_fade(healthy):
    assert healthy().findings() == ()


@pytest.mark.parametrize("options", [{"clipnorm": 0.05}, {"global_clipnorm": 0.05}, {"clipvalue": 0.05}], ids=str)
@pytest.mark.parametrize("scaled", [False, True])
def test_clipping_is_told_with_the_rows_in_which_it_acted(options, scaled):
    optimizer = keras.optimizers.SGD(0.1, **options)
    log = GradientLog()
    fit(small_model(optimizer=keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer), log, epochs=3)
    sizes = {"clipnorm": log.norm.max(1), "global_clipnorm": log.global_norm, "clipvalue": log.max_abs.max(1)}
    (argument,) = options
    acted = sizes[argument] > 0.05
    assert acted.any()
    assert log.findings() == (
        f"Clipping: {argument}=0.05 made gradients smaller in {acted.sum()} of 12 rows, first at step "
        f"{acted.argmax()}. The log holds the gradients before clipping.",
    )


def test_clipping_that_did_not_act_or_is_not_seen_is_not_told(tmp_path):
    log = GradientLog()
    fit(small_model(optimizer=keras.optimizers.SGD(0.1, clipnorm=1e9)), log)
    assert log.findings() == ()
    log, model = GradientLog(), small_model()
    fit(model, log)
    model.compile(optimizer=keras.optimizers.SGD(0.1, clipnorm=1e-9), loss="mse")
    fit(model, log)
    assert "clipnorm=1e-09 made gradients smaller in 4 of 4 rows, first at step 4" in log.findings()[0]
    log.save(tmp_path / "run.npz")
    assert GradientLog.load(tmp_path / "run.npz").findings() == log.findings()
    log = GradientLog()  # the sum of two records is clipped, which the log does not see
    fit(small_model(optimizer=keras.optimizers.SGD(0.1, clipnorm=1e-9, gradient_accumulation_steps=2)), log)
    assert log.findings() == ()


def test_steps_of_gradient_accumulation_that_do_not_update_are_not_too_small():
    log = GradientLog(updates=True)
    optimizer = keras.optimizers.SGD(3e-3, gradient_accumulation_steps=4)
    model = small_model(optimizer=optimizer)
    model.fit(X, Y, batch_size=4, epochs=3, verbose=0, callbacks=[log])
    assert (log.update_ratio == 0).any(1).sum() >= 18
    assert log.findings() == ()


def test_weights_that_never_move_are_too_small_updates():
    log = GradientLog(updates=True)
    fit(small_model(optimizer=keras.optimizers.SGD(0.0)), log, epochs=2)
    (found,) = log.findings()
    assert found.startswith("Updates too small: a step changes ")
    assert " by 0.0e+00 of its norm (the median from step 4 on). Updates of " in found


def test_updates_too_large_name_the_worst_first():
    v, w, log = tf.Variable([1.0], name="v"), tf.Variable([1.0], name="w"), GradientLog(updates=True)
    for _ in range(4):
        log.record([v + 0.0, w + 0.0], [v, w])
        v.assign(1.1 * v)
        w.assign(2.0 * w)
    (found,) = log.findings()
    assert found == (
        "Updates too large: a step changes w by 1.0e+00 of its norm (the median from step 2 on). Updates of v are too "
        "large as well. About 1e-3 is usual (thresholds 0.0001 and 0.01)."
    )
    assert "worst median" not in found


def test_a_loss_that_was_not_given_is_not_recorded_and_one_that_is_nan_is_nan():
    assert "loss not recorded" in str(norms(1.0))
    assert "loss nan" in str(norms(1.0, losses=[np.nan]))
    assert "loss nan" in str(norms(1.0, 2.0, losses=[1.0, np.nan]))


def test_a_long_log_is_read_in_no_time():
    rows = norms(1.0, losses=[1.0]).rows
    many = rows._replace(**{field: np.repeat(getattr(rows, field), 100_000, 0) for field in rows._fields})
    assert Records(("w",), many._replace(steps=np.arange(100_000)), has_loss=True).findings() == ()


@pytest.mark.parametrize("seed", range(40))
def test_numbers_of_any_size_are_read_without_a_warning(seed):
    random = np.random.default_rng(seed)
    rows, variables = (int(n) for n in (random.choice([1, 2, 5, 19, 21, 45]), random.integers(1, 7)))
    values = np.float32([0, 1e-45, 1e-20, 1, 1e10, 3e38, np.inf, np.nan])
    table = random.choice(values if seed % 2 else values[random.integers(8, size=2)], [rows, 2 + 7 * variables])
    table[:, 2 + 5 * variables : 2 + 6 * variables] = random.choice([0, 1, np.nan], [rows, variables])  # not finite
    names = tuple(f"layer_{v}/{random.choice(['kernel', 'bias'])}" for v in range(variables))
    rows = Rows(np.arange(rows), table[:, 0], table[:, 1], table[:, 2:].reshape(rows, 7, variables))
    clipping = [None, ("clipnorm", 1.0, 0), ("clipvalue", 1e-3, 1)][seed % 3]
    log = Records(names, rows, has_loss=True, clipping=clipping)
    assert all(len(sentence.splitlines()) == 1 for sentence in log.findings())
    assert str(log).splitlines()[2:]
    assert log._repr_html_().startswith("<div>")
    assert log[names[0]]._repr_html_().startswith("<div>")
