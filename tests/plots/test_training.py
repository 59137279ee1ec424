"""The pictures of a log, read back from their Artists."""

import itertools
import types

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf

import tapekit
from tapekit.plots import training

NAMES = ("net/one/kernel", "net/one/bias", "net/two/kernel", "net/two/bias")


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def a_log(rows=5, updates=True):
    """Of four variables: norms 2**row * (1, 10, 100, 1000); the loss falls by one a step."""
    log = tapekit.GradientLog(updates=updates)
    variables = [tf.Variable([3.0, 4.0], name=name) for name in NAMES]
    for row in range(rows):
        gradients = [tf.constant([0.6, 0.8]) * 2.0**row * 10.0**v for v in range(4)]
        log.record(gradients, variables, loss=10.0 - row)
        for place, v in enumerate(variables):
            v.assign(v * (1 + 10.0 ** -(place + 1)))
    return log


def a_sick_log():
    """First variable None, second zero, third not finite at step 1, fourth fine."""
    log = tapekit.GradientLog()
    variables = [tf.Variable([0.0, 0.0], name=name) for name in NAMES]
    for row in range(3):
        spoilt = tf.constant([np.nan if row == 1 else 1.0, 1.0])
        log.record([None, tf.zeros([2]), spoilt, tf.ones([2])], variables)
    return log


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


def marks(ax):
    return {c.get_label(): c.get_offsets() for c in ax.collections}


def test_the_flow_shows_kernels_and_biases_layer_by_layer():
    ax = tapekit.plot_gradient_flow(a_log(), step=1)
    assert ax.get_title() == "Gradients at step 1, from input to loss"
    assert ax.get_yscale() == "log"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["one", "two"]
    kernels, biases = (lines(ax)[f"norm, {kind}"] for kind in ("kernels", "biases"))
    np.testing.assert_allclose(kernels.get_xydata(), [[0, 2], [1, 200]], rtol=1e-6)
    np.testing.assert_allclose(biases.get_xydata(), [[0, 20], [1, 2000]], rtol=1e-6)
    np.testing.assert_allclose(marks(ax)["largest, kernels"], [[0, 1.6], [1, 160]], rtol=1e-6)
    assert kernels.get_marker() != biases.get_marker()


def test_the_flow_gives_none_zero_and_not_finite_marks_of_their_own():
    ax = tapekit.plot_gradient_flow(a_sick_log(), step=1)
    assert marks(ax)["None"][:, 0].tolist() == [0]
    assert marks(ax)["all zero"][:, 0].tolist() == [0]
    assert marks(ax)["not finite"][:, 0].tolist() == [1]
    assert {"None", "all zero", "not finite"} <= {t.get_text() for t in ax.get_legend().get_texts()}
    assert lines(ax)["norm, biases"].get_xdata().tolist() == [1]


def test_the_flow_takes_gradients_with_their_variables():
    variables = [tf.Variable([3.0, 4.0], name="a/kernel"), tf.Variable([1.0], name="b/kernel")]
    ax = tapekit.plot_gradient_flow([tf.constant([3.0, 4.0]), None], variables)
    assert lines(ax)["norm, kernels"].get_xydata().tolist() == [[0, 5]]
    assert marks(ax)["None"][:, 0].tolist() == [1]
    with pytest.raises(TypeError, match=r"the log is of type list.* or plot_gradient_flow\(gradients, variables\)"):
        tapekit.plot_gradient_flow([tf.constant([3.0])])


def test_the_step_of_the_flow_is_a_step_or_a_row_from_the_end():
    log = tapekit.GradientLog(every=10)
    variable = tf.Variable([1.0], name="w")
    for step in range(21):
        log.record([tf.constant([float(step)])], [variable])
    assert "step 10," in tapekit.plot_gradient_flow(log, step=10).get_title()
    assert "step 10," in tapekit.plot_gradient_flow(log, step=-2).get_title()
    assert "step 20," in tapekit.plot_gradient_flow(log).get_title()
    for step in (11, 30, -4, 0.5, "last", None):
        with pytest.raises(ValueError, match=f"the log has no row of step {step!r}. Its steps go from 0 to 20"):
            tapekit.plot_gradient_flow(log, step=step)


def test_the_history_has_a_line_for_each_variable_the_whole_and_the_loss():
    log = a_log()
    ax = tapekit.plot_gradient_history(log)
    assert ax.get_yscale() == "log"
    for v, name in enumerate(("one/kernel", "one/bias", "two/kernel", "two/bias")):
        np.testing.assert_allclose(lines(ax)[name].get_ydata(), 2.0 ** np.arange(5) * 10.0**v, rtol=1e-6)
    np.testing.assert_allclose(lines(ax)["all together"].get_ydata(), log.global_norm)
    (twin,) = (other for other in ax.figure.axes if other is not ax)
    assert twin.lines[0].get_ydata().tolist() == [10, 9, 8, 7, 6]
    assert twin.get_ylabel() == "loss"
    assert "loss (right)" in {t.get_text() for t in ax.get_legend().get_texts()}


def test_the_history_marks_the_steps_that_were_not_finite():
    ax = tapekit.plot_gradient_history(a_sick_log())
    assert marks(ax)["not finite: two/kernel"][:, 0].tolist() == [1]
    assert marks(ax)["all zero: one/bias"][:, 0].tolist() == [0, 1, 2]
    assert marks(ax)["None: one/kernel"][:, 0].tolist() == [0, 1, 2]
    assert len(ax.figure.axes) == 1  # no loss was given


def test_of_many_variables_the_extremes_have_names_and_the_rest_is_faint():
    log = a_large_log(rows=50)
    ax = tapekit.plot_gradient_history(log)
    named = set(lines(ax)) - {"all together"}
    assert named == {f"layer{v}/kernel" for v in (0, 1, 2, 197, 198, 199)}
    (faint,) = (c for c in ax.collections if c.get_label() == "194 between")
    assert len(faint.get_segments()) == 194


def test_no_two_named_lines_look_alike():
    ax = tapekit.plot_gradient_history(a_large_log(rows=50))
    looks = [(line.get_color(), line.get_linestyle()) for line in ax.lines]
    assert len({colour for colour, _ in looks}) == len(looks)


def test_the_heatmap_is_log10_of_the_norms_kernels_then_biases():
    ax = tapekit.plot_gradient_heatmap(a_log())
    expected = np.array([0, 2, 1, 3])[:, None] + np.log10(2) * np.arange(5)
    np.testing.assert_allclose(ax.images[0].get_array(), expected, atol=1e-6)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["one/kernel", "two/kernel", "one/bias", "two/bias"]
    assert ax.get_ylim() == (3.5, -0.5)
    assert [line.get_ydata() for line in ax.lines] == [[1.5, 1.5]]
    assert "log10" in ax.figure.axes[1].get_ylabel()


def hatched(ax):
    """The outlines of the hatched cells of a heatmap, by their word in the legend."""
    handles, names = ax.get_legend_handles_labels()
    words = {handle.get_hatch(): name for handle, name in zip(handles, names, strict=True)}
    found = {word: [] for word in words.values()}
    for row in ax.collections:
        found[words[row.get_hatch()]] += row.get_paths()
    return found


def cells(ax):
    """The centres of the hatched cells of a heatmap, row and column, by their word."""
    rows, steps = (range(*np.ceil(sorted(limits)).astype(int)) for limits in (ax.get_ylim(), ax.get_xlim()))
    centres = [(row, step) for row in rows for step in steps]
    return {
        word: [at for at in centres if any(path.contains_point(at[::-1]) for path in paths)]
        for word, paths in hatched(ax).items()
    }


def test_the_heatmap_hatches_none_zero_and_not_finite():
    ax = tapekit.plot_gradient_heatmap(a_sick_log())
    found = cells(ax)
    assert found["None"] == [(0, 0), (0, 1), (0, 2)]
    assert found["all zero"] == [(2, 0), (2, 1), (2, 2)]
    assert found["not finite"] == [(1, 1)]
    assert len({row.get_hatch() for row in ax.collections}) == 3
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(found)
    assert np.isnan(np.ma.filled(ax.images[0].get_array(), np.nan)[[0, 2]]).all()


@pytest.mark.parametrize("steps", [[0, 10, 20], [3, 4, 5, 90, 91], [7]])
def test_each_cell_of_the_heatmap_stands_at_its_step(steps):
    log = a_large_log(len(steps), variables=2)
    log.steps = np.array(steps)
    log.nonfinite[-1, 0] = 1
    ax = tapekit.plot_gradient_heatmap(log)
    for row, step in enumerate(steps):
        x, y = ax.transData.transform((step, 1))
        shown = ax.images[0].get_cursor_data(types.SimpleNamespace(x=x, y=y, xdata=step, ydata=1))
        assert shown == pytest.approx(np.log10(log.norm[row, 1]), abs=1e-6)
    (path,) = hatched(ax)["not finite"]
    assert path.contains_point((steps[-1], 0))
    assert not any(path.contains_point((step, 0)) for step in steps[:-1])


def test_the_update_ratio_is_drawn_as_log10_with_the_line_at_minus_three():
    ax = tapekit.plot_update_ratio(a_log())
    for v, name in enumerate(("one/kernel", "one/bias", "two/kernel", "two/bias")):
        np.testing.assert_allclose(lines(ax)[name].get_ydata(), -(v + 1), atol=1e-3)
    assert any(set(line.get_ydata()) == {-3} for line in ax.lines)
    with pytest.raises(ValueError, match=r"no update ratios. They need GradientLog\(updates=True\), and an update"):
        tapekit.plot_update_ratio(a_log(updates=False))


@pytest.mark.parametrize("plot", [tapekit.plot_gradient_history, tapekit.plot_update_ratio])
def test_the_legend_stands_below_the_axes_where_it_covers_nothing(plot):
    ax = plot(a_log())
    ax.figure.canvas.draw()
    legend, below = ax.get_legend().get_window_extent(), ax.xaxis.get_tightbbox()
    assert legend.y1 <= below.y0
    assert legend.y0 >= 0


def test_the_legend_names_the_lines_from_the_top_down():
    ax = tapekit.plot_gradient_history(a_log())
    assert [text.get_text() for text in ax.get_legend().get_texts()][:4] == [
        "two/bias",
        "two/kernel",
        "one/bias",
        "one/kernel",
    ]


PLOTS = [
    tapekit.plot_gradient_flow,
    tapekit.plot_gradient_history,
    tapekit.plot_gradient_heatmap,
    tapekit.plot_update_ratio,
]


@pytest.mark.parametrize("plot", PLOTS)
def test_a_plot_draws_on_the_axes_it_is_given_and_changes_no_setting(plot):
    before = dict(plt.rcParams)
    _, (left, right) = plt.subplots(1, 2)
    assert plot(a_log(), ax=right) is right
    assert not left.has_data()
    assert dict(plt.rcParams) == before
    with pytest.raises(ValueError, match=f"{plot.__name__}: the log has no rows yet"):
        plot(tapekit.GradientLog())


def a_large_log(rows, variables=200):
    scale = np.exp(-np.arange(variables) / 30)
    norm = np.random.default_rng(0).uniform(1, 1.01, size=(rows, variables)).astype("float32") * scale
    zeros = np.zeros([rows, variables], np.float32)
    log = types.SimpleNamespace(
        names=tuple(f"layer{v}/kernel" for v in range(variables)),
        steps=np.arange(rows),
        loss=np.ones(rows),
        global_norm=np.ones(rows),
        norm=norm,
        max_abs=norm,
        update_ratio=norm,
        zero_fraction=zeros,
        nonfinite=zeros.astype(int),
        missing=zeros.astype(bool),
    )
    log.read = lambda: log
    return log


def test_a_long_log_shows_medians_in_a_band_from_least_to_greatest():
    log = a_large_log(20_000)
    log.norm[12_345, 0] = 777
    log.norm[5_000:5_100, 1] = np.nan
    ax = tapekit.plot_gradient_history(log)
    line = lines(ax)["layer0/kernel"]
    starts = [*range(0, 20_000, 34), 20_000]
    assert line.get_xdata().tolist() == starts[:-1]
    assert len(starts) <= training.COLUMNS
    inside = [np.sort(log.norm[a:b, 0]) for a, b in itertools.pairwise(starts)]
    np.testing.assert_array_equal(line.get_ydata(), [each[(len(each) - 1) // 2] for each in inside])
    (band,) = (
        c for c in ax.collections if np.ndim(c.get_alpha()) == 0 and c.get_paths()[0].vertices[:, 1].max() == 777
    )
    vertices = band.get_paths()[0].vertices
    for start, each in zip(starts, inside, strict=False):
        drawn = vertices[vertices[:, 0] == start, 1]
        assert (drawn.min(), drawn.max()) == (each[0], each[-1])


def test_a_short_log_has_no_band():
    assert not tapekit.plot_gradient_history(a_log()).collections


def test_of_one_variable_all_together_is_not_drawn_over_it():
    log, w = tapekit.GradientLog(), tf.Variable([0.0, 0.0], name="w")
    for _ in range(3):
        log.record([tf.ones([2])], [w])
    assert set(lines(tapekit.plot_gradient_history(log))) == {"w"}


def test_the_marks_of_the_history_name_their_variables():
    log = a_large_log(20_000)
    log.nonfinite[15_000, 7] = 2
    ax = tapekit.plot_gradient_history(log)
    assert marks(ax)["not finite: layer7/kernel"][:, 0].tolist() == [15_000]
    log.nonfinite[15_000, 3:9] = 2
    ax = tapekit.plot_gradient_history(log)
    assert "not finite: layer3/kernel and 5 more" in marks(ax)


def test_every_cell_that_is_not_finite_is_hatched_and_wide_enough_to_see():
    log = a_large_log(20_000)
    bad = [(3, 7), (9_999, 7), (15_000, 7), (19_999, 7), (15_000, 150)]
    for step, v in bad:
        log.nonfinite[step, v] = 1
        log.norm[step, v] = np.nan
    ax = tapekit.plot_gradient_heatmap(log)
    assert ax.images[0].get_array().shape == (200, 589)
    assert {row.get_hatch() for row in ax.collections} == {"////"}
    ((word, paths),) = hatched(ax).items()
    assert (word, len(paths)) == ("not finite", len(bad))
    for step, v in bad:
        assert any(path.contains_point((min(max(step, 20), 19_980), v)) for path in paths)
    assert min(np.ptp(path.vertices[:, 0]) for path in paths) >= 99  # of 20,000 steps
    assert len(ax.get_yticks()) <= 30
    assert len(tapekit.plot_gradient_flow(log).get_xticks()) <= 30


@pytest.mark.parametrize(
    "plot", [tapekit.plot_gradient_history, tapekit.plot_gradient_heatmap, tapekit.plot_update_ratio]
)
@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_steps_are_whole_numbers_on_the_axis(plot, rows):
    ax = plot(a_log(rows=max(rows, 2)))
    ax.figure.canvas.draw()
    assert all(tick == int(tick) for tick in ax.get_xticks())


@pytest.mark.parametrize("rows", [1, 3, 20_000])
@pytest.mark.parametrize("plot", [tapekit.plot_gradient_history, tapekit.plot_update_ratio])
def test_every_mark_is_inside_the_axes_also_where_no_line_leads_to_it(plot, rows):
    log = a_large_log(rows, variables=2)
    log.norm[1:] = log.update_ratio[1:] = 0  # only the first step has a number
    log.zero_fraction[1:] = 1
    ax = plot(log)
    low, high = ax.get_xlim()
    assert low < 0
    assert high > rows - 1
    for offsets in marks(ax).values():
        assert all(low < x < high for x in offsets[:, 0])


def test_the_colour_bar_of_a_small_heatmap_has_room_for_its_label():
    ax = tapekit.plot_gradient_heatmap(a_large_log(3, variables=1))
    ax.figure.canvas.draw()
    bar = ax.figure.axes[1]
    label, frame = bar.yaxis.label.get_window_extent(), bar.get_window_extent()
    assert frame.y0 <= label.y0 < label.y1 <= frame.y1


def test_the_usual_update_ratio_is_named_outside_of_the_lines():
    ax = tapekit.plot_update_ratio(a_log())
    (text,) = ax.texts
    assert text.get_text() == "-3, usual"
    ax.figure.canvas.draw()
    assert text.get_window_extent().x0 >= ax.get_window_extent().x1
    assert text.get_window_extent().x1 <= ax.figure.bbox.x1


def bert(layers=2):
    """A log with the variables of a BERT, in their order."""
    parts = [f"attention/self/{each}" for each in ("query", "key", "value")]
    parts += ["attention/output/dense", "attention/output/LayerNorm", "intermediate/dense", "output/dense"]
    model = "tf_bert_for_sequence_classification/bert"
    owners = [f"{model}/encoder/layer_._{layer}/{part}" for layer in range(layers) for part in parts]
    owners = [f"{model}/embeddings/word_embeddings", *owners, f"{model}/pooler/dense"]
    log = tapekit.GradientLog()
    names = [f"{owner}/{kind}" for owner in owners for kind in ("kernel", "bias")]
    log.record(
        [tf.ones([2]) * 0.9**v for v in range(len(names))], [tf.Variable([1.0, 1.0], name=name) for name in names]
    )
    return log, owners


def test_layers_whose_names_end_alike_have_places_of_their_own():
    log, owners = bert()
    ax = tapekit.plot_gradient_flow(log)
    ticks = [tick.get_text() for tick in ax.get_xticklabels()]
    assert len(set(ticks)) == len(ticks) == len(owners)
    for line in ax.lines:
        assert (np.diff(line.get_xdata()) > 0).all()
    assert {"layer_._0/…/query", "layer_._1/…/query", "word_embeddings"} < set(ticks)


def test_the_line_of_the_flow_runs_forward_where_the_variables_of_a_layer_are_apart():
    log = tapekit.GradientLog()
    names = ["a/kernel", "b/kernel", "a/scale"]
    log.record([tf.ones([2])] * 3, [tf.Variable([1.0, 1.0], name=name) for name in names])
    assert lines(tapekit.plot_gradient_flow(log))["norm, kernels"].get_xdata().tolist() == [0, 0, 1]


def test_what_is_no_log_is_told_what_to_give():
    with pytest.raises(TypeError, match=r"plot_gradient_flow: the log is of type float. A GradientLog is needed"):
        tapekit.plot_gradient_flow(3.0)


def test_a_step_with_nothing_beside_it_is_a_point():
    log, w = tapekit.GradientLog(), tf.Variable([0.0, 0.0], name="w")
    for gradient in (None, [3.0, 4.0], None, [0.0, 0.0], [6.0, 8.0], [6.0, 8.0]):
        log.record([None if gradient is None else tf.constant(gradient)], [w])
    ax = tapekit.plot_gradient_history(log)
    np.testing.assert_array_equal(lines(ax)["w"].get_ydata(), [np.nan, 5, np.nan, np.nan, 10, 10])
    assert lines(ax)["w"].get_markevery() == [1]


def test_a_log_without_a_number_to_draw_has_marks_and_no_log_axis():
    log, w = tapekit.GradientLog(), tf.Variable([0.0, 0.0], name="w")
    log.record([tf.zeros([2])], [w])
    ax = tapekit.plot_gradient_history(log)
    ax.figure.canvas.draw()
    assert marks(ax)["all zero: w"][:, 0].tolist() == [0]


def test_a_step_without_a_number_to_draw_has_marks_and_no_ticks():
    log, w = tapekit.GradientLog(), tf.Variable([0.0, 0.0], name="w")
    log.record([None], [w])
    for plot in (tapekit.plot_gradient_flow, tapekit.plot_gradient_history):
        ax = plot(log)
        ax.figure.canvas.draw()
        assert list(ax.get_yticks()) == []


@pytest.mark.parametrize("plot", [tapekit.plot_gradient_flow, tapekit.plot_gradient_history])
def test_marks_stand_on_no_number(plot):
    ax = plot(a_sick_log())
    ax.figure.canvas.draw()
    height = ax.transAxes.inverted()
    drawn = [y for line in ax.lines for y in height.transform(ax.transData.transform(line.get_xydata()))[:, 1]]
    assert np.nanmin(drawn) > 0.1
    assert np.nanmax(drawn) < 0.95


def test_a_cell_of_a_long_log_is_zero_where_half_of_its_steps_are():
    log = a_large_log(12_000, variables=2)  # twenty steps a cell
    log.zero_fraction[0:9, 0] = 1
    log.zero_fraction[6_000:6_010, 1] = 1
    ((word, paths),) = hatched(tapekit.plot_gradient_heatmap(log)).items()
    assert word == "all zero"
    assert not any(path.contains_point((10, 0)) for path in paths)
    assert any(path.contains_point((6_010, 1)) for path in paths)


@pytest.mark.parametrize("plot", PLOTS[:3])
@pytest.mark.parametrize("rows", [1, 700])
@pytest.mark.parametrize(
    ("gradient", "word"),
    [
        (None, "None"),
        ([0.0, 0.0], "all zero"),
        ([np.nan, np.nan], "not finite"),
        ([np.inf, 1.0], "not finite"),
        ([1e-38, 0.0], ""),
        ([3e38, 3e38], "not finite"),
    ],
)
def test_whatever_was_recorded_is_drawn(plot, rows, gradient, word):
    log = tapekit.GradientLog(capacity=1000)
    variables = [tf.Variable([1.0, 2.0], name=name) for name in ("a/kernel", "a/bias", "b/kernel")]
    for _ in range(rows):
        log.record([None if gradient is None else tf.constant(gradient)] * 3, variables)
    ax = plot(log)
    ax.figure.canvas.draw()
    word = (
        "None" if gradient is None else {0.0: "all zero", 1e-38: "", 3e38: "not finite"}.get(gradient[0], "not finite")
    )
    drawn = [*marks(ax), *(hatched(ax) if plot is tapekit.plot_gradient_heatmap else ())]
    assert not word or any(label.startswith(word) for label in drawn)


def test_names_of_many_rows_begin_anew_with_the_biases_and_keep_their_distance():
    names = [f"layer{v}/{kind}" for v in range(31) for kind in ("kernel", "bias")]
    log = tapekit.GradientLog()
    log.record([tf.ones([1]) for _ in names], [tf.Variable([1.0], name=name) for name in names])
    ax = tapekit.plot_gradient_heatmap(log)
    ticks = [tick.get_text() for tick in ax.get_yticklabels()]
    assert ticks[0] == "layer0/kernel"
    assert "layer0/bias" in ticks
    assert np.diff(ax.get_yticks()).min() == 3


@pytest.mark.parametrize("step", [99, "last", None, [1, 2], 1.5])
def test_a_step_that_is_not_in_the_log_is_refused(step):
    with pytest.raises(ValueError, match=r"plot_gradient_flow: the log has no row of step .*Its steps go from 0 to"):
        tapekit.plot_gradient_flow(a_log(), step=step)


def test_a_heatmap_of_one_step_or_without_numbers_shows_no_part_of_a_step_and_no_empty_bar():
    w = [tf.Variable([1.0, 2.0], name=f"v{place}") for place in range(3)]
    single, nothing = tapekit.GradientLog(), tapekit.GradientLog()
    single.record([each * 2.0 for each in w], w)
    nothing.record([None] * 3, w)
    ax = tapekit.plot_gradient_heatmap(single)
    low, high = ax.get_xlim()
    assert [tick for tick in ax.get_xticks() if low <= tick <= high] == [0.0]
    assert len(ax.figure.axes) == 2
    assert len(tapekit.plot_gradient_heatmap(nothing).figure.axes) == 1
