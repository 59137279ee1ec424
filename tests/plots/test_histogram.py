"""The ridges of the distributions, read back from their Artists."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf

import tapekit
from tapekit.plots import histogram


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def a_log(*steps, names=None, **options):
    """A log of these gradients, `steps[step][variable]`, all with histograms."""
    log = tapekit.GradientLog(**({"histograms": 1} | options))
    names = names or [f"net/layer{v}/kernel" for v in range(len(steps[0]))]
    variables = [
        tf.Variable(tf.zeros([0 if g is None else len(g)]), name=n) for g, n in zip(steps[0], names, strict=True)
    ]
    for gradients in steps:
        log.record([None if g is None else tf.constant(g, tf.float32) for g in gradients], variables)
    return log


def ridges(ax):
    """Of each ridge, from the top down, its outline: ``(log10 of the magnitudes, heights)``."""
    found = []
    for place, ridge in enumerate(c for c in ax.collections if c.get_label().startswith("_")):
        x, y = ridge.get_paths()[0].vertices.T
        x = np.log10(x)
        upper = y <= place
        order = np.argsort(x[upper], kind="stable")
        found.append((x[upper][order], place - y[upper][order]))
    return found


def columns(ax):
    """The axes of the bars beside the ridges, by their word."""
    return {column.get_xlabel(): column for column in ax.child_axes}


def shares(ax, word):
    return [round(bar.get_width(), 6) for bar in columns(ax)[word].patches]


def test_a_ridge_stands_where_the_mass_is():
    ax = tapekit.plot_gradient_histogram(a_log([[1e-6] * 50, [0.9, -0.9], [1e-6, 1e3]]))
    tops = [x[heights > 0.5 * heights.max()] for x, heights in ridges(ax)]
    np.testing.assert_allclose([top.mean() for top in tops[:2]], [-6, np.log10(0.9)], atol=0.15)
    assert tops[2].min() == pytest.approx(-6, abs=0.2)
    assert tops[2].max() == pytest.approx(3, abs=0.2)
    np.testing.assert_allclose([heights.max() for _, heights in ridges(ax)], histogram.HEIGHT)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the input on top


def test_the_spread_of_a_ridge_is_that_of_the_elements():
    elements = 10.0 ** np.random.default_rng(0).normal(-3, 0.5, 100_000)
    ((x, heights),) = ridges(tapekit.plot_gradient_histogram(a_log([elements])))
    mean = np.sum(x * heights) / heights.sum()
    assert mean == pytest.approx(-3, abs=0.03)
    assert np.sqrt(np.sum((x - mean) ** 2 * heights) / heights.sum()) == pytest.approx(0.5, abs=0.04)


def test_the_shares_of_zeros_and_of_what_is_not_finite_are_bars_with_a_number():
    ax = tapekit.plot_gradient_histogram(a_log([[0, 0, 0, 1], [np.nan, np.inf, 0, 1, 2], [1.0], [0.0] * 3]))
    assert shares(ax, "zeros") == [0.75, 0.2, 0, 1]
    assert shares(ax, "not finite") == [0, 0.4, 0, 0]
    assert [text.get_text() for text in columns(ax)["zeros"].texts] == ["75%", "20%", "", "100%"]
    assert [text.get_text() for text in columns(ax)["not finite"].texts] == ["", "40%", "", ""]
    assert ridges(ax)[3][1].max() == 0  # no magnitude is drawn for zeros
    calm = tapekit.plot_gradient_histogram(a_log([[0.0, 1.0]]))
    assert list(columns(calm)) == ["zeros"]
    rare = tapekit.plot_gradient_histogram(a_log([[0.0] + [1.0] * 999]))
    assert [text.get_text() for text in columns(rare)["zeros"].texts] == ["0.1%"]


def test_a_gradient_that_is_none_has_the_mark_of_none():
    ax = tapekit.plot_gradient_histogram(a_log([[1.0], None, [2.0], None]))
    (marks,) = (c for c in ax.collections if c.get_label() == "None")
    np.testing.assert_allclose(marks.get_offsets()[:, 1], [0.7, 2.7])
    assert "None" in [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("gradients", [[None, None], [[0.0, 0.0]], [[np.nan]], [[1.7]], [[3e38, 1e-38]]], ids=str)
def test_whatever_there_is_can_be_drawn(gradients):
    ax = tapekit.plot_gradient_histogram(a_log(gradients))
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    assert any(low <= tick <= high for tick in ax.get_xticks())
    assert len(ridges(ax)) == len(gradients)


def test_variables_have_short_names():
    names = ["net/one/kernel", "net/one/bias", "net/two/kernel", "net/two/bias"]
    ax = tapekit.plot_gradient_histogram(a_log([[1.0]] * 4, names=names))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["one/kernel", "one/bias", "two/kernel", "two/bias"]
    assert ax.get_legend() is None


def test_the_step_is_chosen_and_named():
    log = a_log(*[[[10.0 ** (3 * step / 5 - 3)]] for step in range(11)], every=5)
    for step, size in ((-1, 3), (0, -3), (5, 0), (-2, 0)):
        ax = tapekit.plot_gradient_histogram(log, step=step)
        assert f"at step {log.histogram_steps[step] if step < 0 else step}," in ax.get_title()
        ((x, heights),) = ridges(ax)
        assert x[heights.argmax()] == pytest.approx(size, abs=0.2)
    for step in (3, -4):
        with pytest.raises(ValueError, match=rf"step {step} has no histograms. log.histogram_steps has 0, 5, 10"):
            tapekit.plot_gradient_histogram(log, step=step)


def test_one_variable_is_drawn_over_the_steps():
    log = a_log(*[[[10.0**-step], [1.0]] for step in range(6)])
    ax = tapekit.plot_gradient_histogram(log, variable="layer0/kernel")
    np.testing.assert_allclose([x[h.argmax()] for x, h in ridges(ax)], -np.arange(6.0), atol=0.2)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [f"step {step}" for step in range(6)]
    assert ax.get_title() == "Magnitudes of the gradient of layer0/kernel over the steps"
    shades = [np.mean(c.get_facecolor()[0][:3]) for c in ax.collections if c.get_label().startswith("_")]
    assert (np.diff(shades) < 0).all()  # darker and darker
    by_variable = tapekit.plot_gradient_histogram(log, variable=log.variables[0])
    assert by_variable.get_title() == ax.get_title()
    with pytest.raises(KeyError, match="nothing is called 'layer9'"):
        tapekit.plot_gradient_histogram(log, variable="layer9")


def test_of_many_steps_some_are_drawn_from_the_first_to_the_last():
    log = a_log(*[[[1.0]]] * 100)
    ax = tapekit.plot_gradient_histogram(log, variable="kernel")
    assert len(ridges(ax)) == histogram.STEPS
    assert ax.get_yticklabels()[0].get_text() == "step 0"


def test_two_hundred_variables_have_labels_that_can_be_read():
    ax = tapekit.plot_gradient_histogram(a_log([[1.0, 0.0]] * 200))
    ax.figure.canvas.draw()
    boxes = [tick.get_window_extent() for tick in ax.get_yticklabels()]
    assert 20 <= len(boxes) <= 30
    assert all(below.y1 <= above.y0 + 1 for above, below in itertools.pairwise(boxes))
    assert not columns(ax)["zeros"].texts  # the bars say it
    assert len(shares(ax, "zeros")) == 200


def test_it_draws_on_the_axes_it_is_given_and_changes_no_setting():
    before, (_, (left, right)) = dict(plt.rcParams), plt.subplots(1, 2)
    assert tapekit.plot_gradient_histogram(a_log([[1.0]]), ax=right) is right
    assert not left.has_data()
    assert dict(plt.rcParams) == before


def test_what_has_no_distribution_is_told_what_to_give():
    with pytest.raises(TypeError, match=r"plot_gradient_histogram: the log is of type float. A GradientLog is needed"):
        tapekit.plot_gradient_histogram(3.0)
    with pytest.raises(TypeError, match=r"the log is the class GradientLog. A GradientLog is needed"):
        tapekit.plot_gradient_histogram(tapekit.GradientLog)
    for log in (tapekit.GradientLog(), tapekit.GradientLog(histograms=1), a_log([[1.0]], histograms=None)):
        with pytest.raises(ValueError, match=r"the log has no histograms. Make it with GradientLog\(histograms=100\)"):
            tapekit.plot_gradient_histogram(log)
