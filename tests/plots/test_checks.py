"""The pictures are tested by reading the Artists back."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf

import tapekit
from tapekit import check_gradient, plot_check


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def check():
    @tf.custom_gradient
    def wrong(x):
        return tf.exp(x), lambda dy: dy * tf.exp(x) * 1.01

    return check_gradient(
        lambda x, y: tf.reduce_sum(wrong(x) * tf.sin(y)), [tf.constant([0.5, 1.0]), tf.constant([1.0, 0.3])]
    )


def slope(x, y):
    return np.polyfit(np.log(x), np.log(y), 1)[0]


def test_the_curve_has_the_slopes_of_truncation_and_rounding():
    axes = plot_check(check_gradient(lambda x: tf.exp(tf.sin(3 * x)), tf.constant(0.4, tf.float64)))
    steps, error = axes.lines[0].get_data()
    large, small = steps > 1e-4, steps < 1e-6
    assert slope(steps[large], error[large]) == pytest.approx(2, abs=0.15)
    assert slope(steps[small], error[small]) == pytest.approx(-1, abs=0.6)
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_each_source_has_its_curve_its_step_and_its_words():
    result = check()
    axes = plot_check(result)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0].startswith("x: fail, tape off by 0.0")
    assert labels[1] == "y: pass"
    assert labels[2:] == ["the step used, at its uncertainty", "how far the tape is off"]
    rings = [line for line in axes.lines if line.get_markerfacecolor() == "none" and len(line.get_xdata())]
    assert [(*ring.get_xdata(), *ring.get_ydata()) for ring in rings] == [
        (result[name].step, result[name].uncertainty) for name in "xy"
    ]
    dashed = [line for line in axes.lines if line.get_linestyle() == "--" and len(line.get_xdata())]
    assert [line.get_ydata()[0] for line in dashed] == [pytest.approx(result["x"].abs_error)]
    assert axes.get_title() == "Error against step: fail"
    assert "step" in axes.get_xlabel()
    assert "error" in axes.get_ylabel()


def test_it_draws_on_the_axes_it_is_given_and_opens_no_figure():
    figure, axes = plt.subplots()
    assert plot_check(check(), ax=axes) is axes
    assert plt.get_fignums() == [figure.number]


def test_a_gradient_that_is_not_finite_is_said():
    @tf.custom_gradient
    def spoilt(x):
        return tf.exp(x), lambda dy: dy * np.nan

    axes = plot_check(check_gradient(lambda x: tf.reduce_sum(spoilt(x)), tf.constant([0.5, 1.0])))
    assert axes.get_legend().get_texts()[0].get_text() == "x: fail, tape off by nan"


def test_nothing_measured_is_said_and_the_worst_six_are_chosen():
    random = check_gradient(lambda x: tf.nn.dropout(x, 0.5), tf.ones([50]))
    assert "x: nondeterministic, nothing measured" in plot_check(random).get_legend().get_texts()[0].get_text()
    variables = [tf.Variable(float(i + 1), name=f"w{i}") for i in range(8)]
    many = check_gradient(lambda: tf.reduce_prod(tf.stack([tf.sin(v) for v in variables])) ** 2, variables)
    axes = plot_check(many)
    assert len(axes.get_legend().get_texts()) == 6 + 1
    assert "the worst 6 of 8 sources" in axes.get_title()


def test_tapekit_imports_where_matplotlib_cannot_be_imported():
    code = "import sys; sys.modules['matplotlib'] = None; import tapekit"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("wrong", [None, tapekit.GradientCheck, tapekit.trace(tf.sin, 1.0)])
def test_what_is_no_check_is_refused_with_its_kind(wrong):
    with pytest.raises(TypeError, match=r"plot_check: check is (of type|the class) \w+\. A GradientCheck is needed"):
        tapekit.plot_check(wrong)
