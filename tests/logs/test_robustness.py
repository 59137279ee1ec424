"""What must not be lost, in copies, threads and on disks that refuse; and sentences for mistakes."""

import copy
import os
import pickle
import threading

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf

import tapekit
from tapekit.logs import GradientLog
from tests.logs.test_logs import MODES, X, assert_equal_logs, assert_rows_are, fit, record, small_model, train, true_run


@pytest.mark.parametrize("duplicate", [lambda log: pickle.loads(pickle.dumps(log)), copy.deepcopy, copy.copy])
def test_a_copy_holds_the_same_and_goes_on_by_itself(duplicate, tmp_path):
    log = GradientLog(updates=True, histograms=2, path=tmp_path / "run.csv", logdir=tmp_path / "board")
    fit(small_model(), log)
    twin = duplicate(log)
    assert_equal_logs(twin, log)
    assert twin.histogram_steps.tolist() == log.histogram_steps.tolist()
    assert str(twin) == str(log)
    assert twin.findings() == log.findings()
    lines = (tmp_path / "run.csv").read_text()
    keras.backend.clear_session()
    fit(small_model(), twin)
    assert (len(twin), len(log)) == (8, 4)
    assert twin.steps.tolist() == list(range(8))
    assert (tmp_path / "run.csv").read_text() == lines  # two logs do not write one file


def test_an_empty_log_and_one_in_use_can_be_pickled():
    assert len(pickle.loads(pickle.dumps(GradientLog()))) == 0
    log = GradientLog()
    train(MODES["jit"], log)
    assert_equal_logs(pickle.loads(pickle.dumps(log)), log)


def test_reading_while_another_thread_records_gives_one_moment():
    w, log = tf.Variable([1.0, 2.0], name="w"), GradientLog(histograms=1, updates=True)
    done, errors = threading.Event(), []

    def train_on():
        try:
            for step in range(1, 1500):
                log.record([tf.fill([2], float(step))], [w], loss=float(step))
        except Exception as error:
            errors.append(error)
        done.set()

    thread = threading.Thread(target=train_on)
    thread.start()
    while not done.is_set():
        one, columns, records = log["w"] if len(log) else None, log.to_dict(), log.read()
        assert len({len(column) for column in columns.values()}) == 1
        if one is not None:
            np.testing.assert_array_equal(one.max_abs, one.steps + 1)
        np.testing.assert_array_equal(records.loss, records.steps + 1)
        assert records.histogram_steps.tolist() == records.steps.tolist()
        log.findings(), str(log)
        for plot in (tapekit.plot_gradient_history, tapekit.plot_gradient_heatmap) if len(log) else ():
            plot(log)
        plt.close("all")
    thread.join()
    assert not errors
    assert log.loss.tolist() == list(range(1, 1500))
    assert log.lost == 0


def test_reading_while_a_compiled_function_records_reads_no_row_before_it_is_written():
    w, log = tf.Variable([1.0], name="w"), GradientLog(capacity=4096)

    @tf.function
    def loop():
        for _ in tf.range(2000):
            w.assign_add([1.0])
            log.record([w + 0.0], [w])

    thread = threading.Thread(target=loop)
    thread.start()
    while thread.is_alive():
        records = log.read()
        np.testing.assert_array_equal(records.norm.ravel(), records.steps + 2)
    thread.join()
    assert log.norm.ravel().tolist() == list(range(2, 2002))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}, {"jit_compile": True}], ids=str)
def test_a_train_step_that_records_and_a_callback_record_each_step_once(options, after):
    log = GradientLog()

    class Model(keras.Sequential):
        def train_step(self, data):
            x, y = data
            variables = self.trainable_variables
            loss, gradients = tapekit.value_and_gradient(
                lambda: self.compute_loss(x, y, self(x, training=True)), variables, log=None if after else log
            )
            self.optimizer.apply(gradients, variables)
            if after:
                log.record(gradients, variables, loss)
            return {"loss": loss}

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, activation="relu", name="hidden"), keras.layers.Dense(3, name="head")]
    model = Model([keras.Input([5]), *layers])
    model.compile(keras.optimizers.SGD(0.1), "mse", **options)
    fit(model, log, epochs=2)
    gradients, losses, _ = true_run(steps=8)
    assert_rows_are(log, gradients)
    np.testing.assert_allclose(log.loss, losses, rtol=1e-5)
    w = tf.Variable([1.0])
    other = GradientLog()
    other.record([w + 0.0], [w])
    assert len(other) == 1
    fit(model)  # without the callback it records too
    assert len(log) == 12


def test_a_variable_is_read_by_itself():
    model, log = small_model(), GradientLog(histograms=1)
    fit(model, log)
    kernel = model.layers[1].kernel
    np.testing.assert_array_equal(log[kernel].norm, log["head/kernel"].norm)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(log))[kernel].norm, log[kernel].norm)
    assert log.histogram(kernel).counts.sum() == 12
    a, b = tf.Variable([1.0], name="w"), tf.Variable([1.0], name="w")
    log = GradientLog()
    log.record([a * 1.0, b * 2.0], [a, b])
    assert (log[a].norm[0], log[b].norm[0]) == (1, 2)
    with pytest.raises(KeyError, match="nothing is called 3"):
        log[3]
    with pytest.raises(KeyError, match="nothing is called 'v'"):
        log[tf.Variable([1.0], name="v")]
    for read in (lambda log: log[tf.Variable([1.0, 2.0])], lambda log: log.histogram(tf.Variable([1.0, 2.0]))):
        with pytest.raises(
            KeyError, match=r"a float32 variable of shape \(2,\) was not recorded\. The names are w, w_1\."
        ):
            read(log)
    with pytest.raises(KeyError, match=r"a float32 variable of shape \(\) was not recorded\. The names are not known"):
        GradientLog()[tf.Variable(1.0)]


def test_a_disk_that_fills_up_warns_once_and_training_goes_on(tmp_path, monkeypatch):
    log, w = GradientLog(path=tmp_path / "run.csv"), tf.Variable([1.0], name="w")
    log.record([w + 0.0], [w])
    log.drain()
    (tmp_path / "run.csv").unlink()
    os.symlink("/dev/full", tmp_path / "run.csv")  # from now on the disk is full
    log.record([w + 0.0], [w])
    with pytest.warns(UserWarning, match=r"cannot write .*run\.csv: .*Training goes on") as caught:
        assert len(log) == 2
    assert len(caught) == 1
    for _ in range(3):
        log.record([w + 0.0], [w])
    assert len(log) == 5


def test_a_csv_that_is_deleted_while_it_trains_is_reported_and_not_made_again(tmp_path):
    w, path = tf.Variable([3.0, 4.0], name="w"), tmp_path / "run.csv"
    log = GradientLog(path=path)
    log.record([w * 2.0], [w])
    log.drain()
    path.unlink()
    log.record([w * 2.0], [w])
    with pytest.warns(UserWarning, match="cannot write .*run.csv"):
        log.drain()
    assert not path.exists()
    assert log.norm[:, 0].tolist() == [10.0, 10.0]


def test_what_save_wrote_load_reads_under_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = record([np.ones(2)], [np.zeros(2)])
    for name in ("run.npz", "run", "run.log", "a.b.c"):
        log.save(name)
        assert_equal_logs(GradientLog.load(name), log)
    assert sorted(os.listdir()) == ["a.b.c", "run", "run.log", "run.npz"]
    for path in ("run.csv", tmp_path, str(tmp_path)):
        with pytest.raises(ValueError, match=r"GradientLog.save: path is .* or log.save\('run.npz'\)"):
            log.save(path)
    with pytest.raises(ValueError, match=r"GradientLog: path is 'x.npz'. Rows are written as csv"):
        GradientLog(path="x.npz")


NAMES = [
    "two\nlines",
    "a\r\nb",
    "tab\tbed",
    "\x1b[31mred\x00",
    "\u2028",
    "\u202ereversed",
    'quoted "name"',
    "comma, space",
    "ünïcode",
    "层/核",
    "🙂",
    "=1+1",
    "x" * 5000,
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_of_any_kind_is_one_line_everywhere_and_comes_back_from_disk(tmp_path, name):
    options = {"path": tmp_path / "run.csv", "logdir": tmp_path / "board"}
    log = record([np.ones(2), None], [np.zeros(2), np.ones(2)], names=[name, "b"], **options)
    assert log.names[0].isprintable()
    assert len(log.names[0]) == len(name)
    assert len(str(log).splitlines()) == 4
    assert all(len(sentence.splitlines()) == 1 for sentence in log.findings())
    assert log[name].norm.tolist() == log[log.names[0]].norm.tolist()
    log.save(tmp_path / "run.npz")
    for file in ("run.csv", "run.npz"):
        loaded = GradientLog.load(tmp_path / file)
        assert loaded.names == log.names
        np.testing.assert_array_equal(loaded.norm, log.norm)
        assert log[log.variables[0]].norm.tolist() == loaded[log.variables[0]].norm.tolist()


def test_a_key_that_no_file_can_hold_does_not_end_the_training(tmp_path):
    w, log = tf.Variable([3.0, 4.0]), GradientLog(path=tmp_path / "run.csv", logdir=tmp_path / "board")
    log.record({"a\udcff": w + 0.0}, {"a\udcff": w})
    log.drain()
    assert GradientLog.load(tmp_path / "run.csv").norm.tolist() == log.norm.tolist() == [[5.0]]


def test_a_foreign_file_is_refused_in_a_sentence(tmp_path):
    np.savez(tmp_path / "foreign.npz", weights=np.ones(3))
    plt.figure().savefig(tmp_path / "picture.png")
    plt.close("all")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04" + b"x" * 100)
    (tmp_path / "other.csv").write_text("step,loss,global_norm,a.norm\n0,1,x,y\n")
    (tmp_path / "columns.csv").write_text("step,loss,global_norm,a.norm,a.mean\n0,1,2,2,1\n")
    (tmp_path / "one_line.txt").write_bytes(b"\x89no line ends here")
    for name in ("foreign.npz", "picture.png", "torn.npz", "other.csv", "columns.csv", "one_line.txt"):
        with pytest.raises(
            ValueError, match=rf"GradientLog.load: .*{name} is not a file of GradientLog \(.*Give a file"
        ):
            GradientLog.load(tmp_path / name)
    with pytest.raises(TypeError, match=r"GradientLog.load: path is the Python int 3"):
        GradientLog.load(3)
    with pytest.raises(FileNotFoundError):
        GradientLog.load(tmp_path / "nowhere.npz")


def test_mistakes_are_told_in_sentences():
    w, log = tf.Variable([1.0], name="w"), GradientLog()
    with pytest.raises(TypeError, match=r"GradientLog: path is the Python int 3. A name is needed"):
        GradientLog(path=3)
    for loss in ("x", {"loss": 1.0}, object(), True):
        with pytest.raises(TypeError, match=r"GradientLog.record: loss is .*A number or a tensor is needed"):
            log.record([w + 0.0], [w], loss=loss)
    with pytest.raises(AttributeError, match="GradientLog has no attribute 'norms'"):
        log.norms  # noqa: B018
    assert len(log) == 0


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_of_keras_is_named(backend, monkeypatch):
    model, log = small_model(), GradientLog()
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    with pytest.raises(
        RuntimeError, match=rf"Keras runs on {backend} here; tapekit reads TensorFlow's tape. Set KERAS_B"
    ):
        log.set_model(model), log.on_train_begin()
    gradient = type("Array", (), {"shape": (2,), "dtype": "float32"})()
    with pytest.raises(TypeError, match=r"is an Array. A float tensor of TensorFlow or None is needed"):
        log.record([gradient], [tf.Variable(X[0, :2])])


def test_a_keras_variable_of_another_backend_is_no_source_and_is_not_recorded():
    array = type("ArrayImpl", (), {"__module__": "jaxlib._jax"})()
    variable = type("Variable", (), {"path": "dense/kernel", "value": array, "dtype": "float32", "shape": ()})()
    with pytest.raises(TypeError, match="Keras runs on jax here; tapekit reads TensorFlow's tape"):
        tapekit.gradient(lambda: tf.constant(1.0), variable)
    with pytest.raises(TypeError, match=r"record: variables holds .*Keras runs on jax here; tapekit reads"):
        GradientLog().record([array], [variable])


@pytest.mark.parametrize("loss", [1e300, -1e300, 10**30, float("inf"), float("nan"), 2**53, 0])
def test_a_python_loss_of_any_size_is_recorded(loss):
    w, log = tf.Variable([1.0]), GradientLog()
    log.record([w + 0.0], [w], loss=loss)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(log.loss, [np.float32(loss)])


@pytest.mark.parametrize("loop", MODES)
def test_indexed_slices_without_a_shape_have_that_of_the_variable(loop):
    w, log = tf.Variable(tf.zeros([4, 2]), name="w"), GradientLog(histograms=1)
    rows = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    MODES[loop](lambda: log.record([tf.IndexedSlices(rows, tf.constant([1, 1]))], [w]))()
    truth = np.zeros([4, 2])
    truth[1] = [4, 6]
    assert_rows_are(log, [[truth]])
    assert log.histogram("w").counts.sum() == 8


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_the_update_ratio_of_complex_weights_counts_their_imaginary_parts(dtype):
    w, log = tf.Variable([3 + 4j, 0j], dtype=dtype), GradientLog(updates=True)
    for _ in range(2):
        log.record([tf.constant([1 + 0j, 1j], dtype)], [w])
        w.assign([3 + 4j, 2j])
    assert log.update_ratio[0, 0] == pytest.approx(2 / 5)


def test_a_train_step_that_gives_the_log_a_loss_of_its_own_keeps_it_as_a_callback():
    log = GradientLog()

    class Model(keras.Sequential):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
            gradients = tape.gradient(loss, self.trainable_variables)
            log.record(gradients, self.trainable_variables, loss=loss)
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"loss": loss}

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, activation="relu", name="hidden"), keras.layers.Dense(3, name="head")]
    model = Model([keras.Input([5]), *layers])
    model.compile(keras.optimizers.SGD(0.1))
    fit(model, log)
    gradients, losses, _ = true_run()
    assert_rows_are(log, gradients)
    np.testing.assert_allclose(log.loss, losses, rtol=1e-5)
