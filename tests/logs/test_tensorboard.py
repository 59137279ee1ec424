"""The event files of a log, read back by TensorBoard's own reader."""

import subprocess
import sys
import textwrap
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tapekit.logs import GradientLog
from tapekit.logs import log as log_module
from tests.logs.test_logs import MODES, fit, small_model, train


def events(folder):
    """``(plugins, series)``: of each tag its plugin, and its ``{step: value}``."""
    reader = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    reader.Reload()
    tags = reader.Tags()["tensors"]
    plugins = {tag: reader.SummaryMetadata(tag).plugin_data.plugin_name for tag in tags}
    series = {tag: {e.step: tf.make_ndarray(e.tensor_proto) for e in reader.Tensors(tag)} for tag in tags}
    return plugins, series


def assert_holds(folder, log):
    plugins, series = events(folder)
    fields = ["norm", "max_abs", "nonfinite", "missing"] + ["update_ratio"] * log.updates
    expected = {"global_norm": log.global_norm} | ({"loss": log.loss} if log.has_loss else {})
    expected |= {f"{field}/{name}": getattr(log[name], field) for field in fields for name in log.names}
    histograms = {f"gradient/{name}" for name in log.names if len(log.histogram_steps)}
    assert series.keys() == expected.keys() | histograms
    for tag, values in expected.items():
        assert plugins[tag] == "scalars"
        assert list(series[tag]) == (log.steps + 1).tolist()
        np.testing.assert_array_equal(list(series[tag].values()), values, err_msg=tag)
    for name in log.names if histograms else ():
        assert plugins[f"gradient/{name}"] == "histograms"
        assert list(series[f"gradient/{name}"]) == (log.histogram_steps + 1).tolist()
        for step in log.histogram_steps:
            assert_same_distribution(series[f"gradient/{name}"][step + 1], log.histogram(name, step))


def assert_same_distribution(buckets, histogram):
    left, right, counts = buckets.T
    np.testing.assert_array_equal(left[1:], right[:-1])  # each bucket begins where the one before it ends
    assert (right > left).all()
    filled = histogram.counts > 0
    np.testing.assert_array_equal(left[counts > 0], histogram.edges[:-1][filled])
    np.testing.assert_array_equal(right[counts > 0], histogram.edges[1:][filled])
    np.testing.assert_array_equal(counts[counts > 0], histogram.counts[filled])


@pytest.mark.parametrize("loop", MODES)
@pytest.mark.parametrize("options", [{}, {"updates": True, "histograms": 2}], ids=["scalars", "everything"])
def test_a_loop_writes_what_the_log_holds(tmp_path, loop, options):
    log = GradientLog(logdir=tmp_path / "run", **options)
    train(MODES[loop], log)
    log.drain()
    assert_holds(tmp_path / "run", log)


def test_to_tensorboard_writes_the_same_afterwards(tmp_path):
    log = GradientLog(updates=True, histograms=3, logdir=tmp_path / "while")
    train(MODES["eager"], log, steps=8)
    log.to_tensorboard(tmp_path / "afterwards")
    log.save(tmp_path / "run.npz")
    GradientLog.load(tmp_path / "run.npz").to_tensorboard(str(tmp_path / "loaded"))
    for folder in ("while", "afterwards", "loaded"):
        assert_holds(tmp_path / folder, log)


class Watch(keras.callbacks.Callback):
    """The steps that are in the folder at each end of an epoch."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.seen = folder, []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(list(events(self.folder)[1]["global_norm"]))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # the callback of Keras itself
def test_fit_writes_after_each_epoch_on_the_steps_of_the_tensorboard_of_keras(tmp_path):
    log, watch = GradientLog(logdir=tmp_path / "log", histograms=2), Watch(tmp_path / "log")
    board = keras.callbacks.TensorBoard(tmp_path / "keras", update_freq=1, write_graph=False)
    fit(small_model(), log, watch, board, epochs=2)
    assert_holds(tmp_path / "log", log)
    assert watch.seen == [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7, 8]]
    assert list(events(tmp_path / "keras" / "train")[1]["batch_loss"]) == watch.seen[-1]


def test_a_loop_writes_every_few_seconds(tmp_path, monkeypatch):
    clock, written = [0.0], []
    monkeypatch.setattr(log_module, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    log, w = GradientLog(logdir=tmp_path), tf.Variable([1.0], name="w")
    for _ in range(50):
        log.record([w + 0.0], [w])
        written.append(len(events(tmp_path)[1].get("global_norm", ())))
        clock[0] += 0.25  # second
    assert written == [0] * 21 + [21] * 21 + [42] * 8  # the 22nd step begins 5.25 seconds after the first


def test_a_run_whose_gradient_is_nan_or_missing_does_not_look_calm(tmp_path):
    a, b = tf.Variable([1.0, 2.0], name="a"), tf.Variable([1.0], name="b")
    log = GradientLog(logdir=tmp_path, histograms=1)
    log.record([tf.constant([np.nan, np.inf]), None], [a, b], loss=np.nan)
    log.drain()
    assert_holds(tmp_path, log)
    _, series = events(tmp_path)
    assert np.isnan([series[tag][1] for tag in ("loss", "global_norm", "norm/a", "max_abs/a", "norm/b")]).all()
    assert series["nonfinite/a"] == {1: 2}
    assert series["missing/b"] == {1: 1}
    assert series["gradient/a"][1].shape == series["gradient/b"][1].shape == (0, 3)


def test_tensorboard_is_not_needed_to_write(tmp_path):
    program = """
        import sys
        sys.modules["tensorboard"] = None  # as if it were not installed
        import tensorflow as tf
        import tapekit
        log, w = tapekit.GradientLog(logdir=sys.argv[1], histograms=1), tf.Variable([1.0], name="w")
        with tf.summary.record_if(False):
            log.record([w + 0.0], [w], loss=2.0)
            log.drain()
        """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    assert events(tmp_path)[1]["loss"] == {1: 2}


def test_a_folder_that_cannot_be_made_warns_once_and_loses_no_row(tmp_path):
    (tmp_path / "file").write_text("precious")
    log, w = GradientLog(logdir=tmp_path / "file" / "run"), tf.Variable([1.0], name="w")
    with pytest.warns(UserWarning, match=r"cannot write .*file/run: .*Training goes on"):
        log.record([w + 0.0], [w])
    log.record([w + 0.0], [w])
    assert len(log) == 2


def test_a_folder_is_a_name():
    with pytest.raises(TypeError, match=r"GradientLog: logdir is the Python int 3. A name is needed"):
        GradientLog(logdir=3)
    with pytest.raises(TypeError, match=r"GradientLog.to_tensorboard: logdir is None"):
        GradientLog().to_tensorboard(None)
