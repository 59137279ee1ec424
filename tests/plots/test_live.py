"""A plot that is redrawn while a log fills: when, where, and for how much of the time."""

import types

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf

import tapekit
from tapekit.plots import live as module


@pytest.fixture
def rich(monkeypatch):
    """All of the time may be spent on drawing."""
    monkeypatch.setattr(module, "SHARE", 1e9)


def a_log(rows=5):
    log, w = tapekit.GradientLog(), tf.Variable([3.0, 4.0], name="w")
    for _ in range(rows):
        log.record([w + 0.0], [w])
    return log


def test_live_plot_rewrites_its_file_every_few_steps(tmp_path, rich):
    path, drawn, log = tmp_path / "live.png", [], tapekit.GradientLog()

    def plot(log, ax):
        drawn.append(len(log))
        return tapekit.plot_gradient_history(log, ax=ax)

    live = tapekit.LivePlot(log, plot, every=3, path=path)
    variable = tf.Variable([1.0], name="w")
    live.update()
    for _ in range(8):
        log.record([tf.constant([1.0])], [variable])
        live.update()
    assert drawn == [2, 5, 8]
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert plt.get_fignums() == []


def test_live_plot_redraws_in_place_in_a_notebook(monkeypatch, rich):
    import IPython
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: types.SimpleNamespace(kernel=True))
    monkeypatch.setattr(IPython.display, "display", lambda image, **where: shown.append((image, where)))
    lives = [tapekit.LivePlot(a_log(), every=1) for _ in range(2)]
    for live in lives:
        live.update(), live.update(), live.update()
    assert [where["update"] for _, where in shown] == 2 * [False, True, True]
    assert len({where["display_id"] for _, where in shown}) == 2
    assert {image.data[:4] for image, _ in shown} == {b"\x89PNG"}


@pytest.mark.parametrize("every", [1, 7])
def test_after_the_first_picture_drawing_takes_at_most_a_twentieth_of_the_time(tmp_path, monkeypatch, every):
    clock, drawn = [100.0], []
    monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))

    def plot(log, ax):
        drawn.append(clock[0])
        clock[0] += 1  # second

    live = tapekit.LivePlot(a_log(), plot, every=every, path=tmp_path / "live.png")
    for _ in range(2000):
        live.update()
        clock[0] += 0.1
    assert drawn[0] == pytest.approx(100 + 0.1 * (every - 1))
    assert drawn[1] == pytest.approx(140, abs=0.2 * every)  # two drawings of a second each are 5 % of 40 seconds
    assert live.spent == len(drawn)
    assert live.spent <= 0.05 * (clock[0] - 100) + 0.05
    assert len(drawn) >= 0.045 * (clock[0] - 100)


def test_live_plot_needs_a_place_outside_a_notebook():
    with pytest.raises(ValueError, match="path is None, and this is not a notebook"):
        tapekit.LivePlot(tapekit.GradientLog())


@pytest.mark.parametrize("path", [3, ".", "no/such/folder/live.png", ["live.png"], "a.xyz", "log.csv", "a.png.txt"])
def test_the_file_of_a_live_plot_is_an_image_in_a_folder_that_exists(path):
    needed = r"LivePlot: path is .*\. A file in an existing folder is needed, of a kind that matplotlib writes: path='a"
    with pytest.raises(ValueError, match=needed):
        tapekit.LivePlot(a_log(), path=path)


@pytest.mark.parametrize("path", ["a.png", "a.PNG", "a.pdf", "a"])
@pytest.mark.parametrize("every", [2, np.int64(2), np.uint8(2)])
def test_what_a_live_plot_accepts_it_draws(tmp_path, rich, path, every):
    live = tapekit.LivePlot(a_log(), every=every, path=tmp_path / path)
    live.update()
    assert not list(tmp_path.iterdir())
    live.update()
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size > 1000


@pytest.mark.parametrize(
    "wrong", [{"every": 0}, {"every": True}, {"every": 2.0}, {"every": np.int64(0)}, {"plot": 10}, {"plot": "live.png"}]
)
def test_a_live_plot_refuses_at_once_what_it_could_not_draw_later(wrong):
    needed = "LivePlot: (plot is .* A function is needed|every is .* A positive integer is needed)"
    with pytest.raises((TypeError, ValueError), match=needed):
        tapekit.LivePlot(a_log(), path="never.png", **wrong)


def test_a_live_plot_needs_a_log():
    for wrong, what in (
        (tapekit.GradientLog, "the class GradientLog"),
        ([1.0], "of type list"),
        (None, "of type NoneT"),
    ):
        with pytest.raises(TypeError, match=rf"LivePlot: the log is {what}.*Write log = tapekit.GradientLog\(\)"):
            tapekit.LivePlot(wrong, path="never.png")
