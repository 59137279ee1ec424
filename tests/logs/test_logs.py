"""The log against NumPy on the same gradients, in every kind of loop."""

import contextlib
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import tapekit
from tapekit.logs import GradientLog
from tapekit.logs.fit import FitCallback

X = np.random.default_rng(0).normal(size=(32, 5)).astype("float32")
Y = np.random.default_rng(1).normal(size=(32, 3)).astype("float32")


def by_hand(gradient, size=None):
    """The statistics as the documentation words them, in float64."""
    flat = np.asarray(gradient, np.float64).ravel()
    finite = flat[np.isfinite(flat)]
    return {
        "norm": np.sqrt(np.sum(finite**2)),
        "mean": finite.mean(),
        "std": finite.std(),
        "max_abs": np.abs(finite).max(),
        "zero_fraction": np.mean(finite == 0),
        "nonfinite": flat.size - finite.size,
    }


def assert_rows_are(log, gradients):
    """`gradients[step][variable]` are what the log's rows were made of."""
    assert len(log) == len(gradients)
    for row, step in enumerate(gradients):
        for column, gradient in enumerate(step):
            for name, value in by_hand(gradient).items():
                found = getattr(log, name)[row, column]
                np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-7, err_msg=f"{name} of {log.names[column]}")
        norms = [by_hand(g)["norm"] for g in step]
        np.testing.assert_allclose(log.global_norm[row], np.linalg.norm(norms), rtol=1e-5)


def small_model(seed=0, **options):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(4, activation="relu", name="hidden"), keras.layers.Dense(3, name="head")]
    model = keras.Sequential([keras.Input([5]), *layers])
    model.compile(**{"optimizer": keras.optimizers.SGD(0.1), "loss": "mse"} | options)
    return model


def true_run(steps=4, batch=8, seed=0, rate=0.1):
    """Gradients, losses and weights of plain SGD with a tape, batch after batch as `fit(shuffle=False)` has them."""
    model = small_model(seed)
    gradients, losses, weights = [], [], []
    for step in range(steps):
        x, y = (a[step * batch % 32 : step * batch % 32 + batch] for a in (X, Y))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        gradients.append([g.numpy() for g in tape.gradient(loss, model.trainable_variables)])
        losses.append(float(loss))
        weights.append(model.get_weights())
        for v, g in zip(model.trainable_variables, gradients[-1], strict=True):
            v.assign_sub(rate * g)
    return gradients, losses, [*weights, model.get_weights()]


def fit(model, *logs, epochs=1, **options):
    return model.fit(X, Y, batch_size=8, shuffle=False, verbose=0, epochs=epochs, callbacks=list(logs), **options)


# ---- record ----------------------------------------------------------------------------------------------------------

MODES = {
    "eager": lambda step: step,
    "graph": lambda step: tf.function(step, autograph=False),
    "jit": lambda step: tf.function(step, autograph=False, jit_compile=True),
}


@pytest.fixture(params=MODES)
def mode(request):
    return MODES[request.param]


def train(mode, log, steps=5):
    """A loop of one's own; returns the gradients and the weights before each step and after the last."""
    w = tf.Variable(np.linspace(-1, 1, 6).reshape(2, 3), dtype=tf.float32, name="w")
    b = tf.Variable([0.5, 0.0, 0.1], name="b")
    x = tf.constant(X[:, :2])

    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.relu(x @ w + b) ** 2)
        gradients = tape.gradient(loss, [w, b])
        log.record(gradients, [w, b], loss=loss)
        w.assign_sub(0.3 * gradients[0])
        b.assign_sub(0.3 * gradients[1])
        return loss, gradients

    run, results, weights = mode(step), [], [(w.numpy(), b.numpy())]
    for _ in range(steps):
        results.append(run())
        weights.append((w.numpy(), b.numpy()))
    return [float(loss) for loss, _ in results], [[g.numpy() for g in gs] for _, gs in results], weights


def test_a_loop_logs_the_statistics_of_its_gradients(mode):
    log = GradientLog()
    losses, gradients, _ = train(mode, log)
    assert log.names == ("w", "b")
    assert log.steps.tolist() == [0, 1, 2, 3, 4]
    assert_rows_are(log, gradients)
    np.testing.assert_allclose(log.loss, losses, rtol=1e-6)


def test_every_third_step_is_recorded_and_all_are_counted(mode):
    log = GradientLog(every=3)
    losses, gradients, _ = train(mode, log, steps=8)
    assert log.steps.tolist() == [0, 3, 6]
    assert_rows_are(log, gradients[::3])
    np.testing.assert_allclose(log.loss, losses[::3], rtol=1e-6)


@pytest.mark.parametrize("every", [1, 2])
def test_the_update_ratio_is_that_of_the_real_weights(mode, every):
    log = GradientLog(updates=True, every=every)
    _, _, weights = train(mode, log)
    for row, step in enumerate(range(0, 5, every)):
        for column in (0, 1):
            old, new = weights[step][column], weights[step + 1][column]
            expected = np.linalg.norm(new - old) / np.linalg.norm(old)
            np.testing.assert_allclose(log.update_ratio[row, column], expected, rtol=1e-4)


def test_the_update_ratio_of_a_log_read_before_the_update_is_not_yet_known():
    w, log = tf.Variable([1.0], name="w"), GradientLog(updates=True)
    log.record([tf.constant([1.0])], [w])
    assert np.isnan(log.update_ratio).all()
    assert log.norm.tolist() == [[1.0]]


def test_the_update_ratio_follows_a_model_that_was_made_again():
    log = GradientLog(updates=True)
    for _ in range(2):
        w = tf.Variable([1.0], name="w")
        for _ in range(2):
            log.record([tf.constant([1.0])], [w])
            w.assign_sub([0.5])
    assert log["w"].update_ratio.tolist() == [0.5, 1.0, 0.5, 1.0]
    assert log.steps.tolist() == [0, 1, 2, 3]


def test_without_updates_there_is_no_ratio_and_no_copy_of_the_weights():
    log = GradientLog()
    train(MODES["eager"], log)
    assert np.isnan(log.update_ratio).all()
    assert log.update_ratio.shape == (5, 2)
    assert not log._ring.before


def record(*steps, names="abcdefgh", **options):
    """A log of these gradients, each of a variable of its shape."""
    log = GradientLog(**options)
    variables = [
        tf.Variable(np.zeros(np.shape(g) if g is not None else [2], "float32"), name=n)
        for g, n in zip(steps[0], names[: len(steps[0])], strict=True)
    ]
    for step in steps:
        log.record([None if g is None else tf.constant(g, tf.float32) for g in step], variables)
    return log


def test_not_finite_elements_are_counted_and_left_out_of_the_rest():
    gradients = [[np.float32([1, np.nan, 0, -3]), np.float32([np.inf, -np.inf]), np.float32([2, 0])]]
    log = record(*gradients)
    assert log.nonfinite.tolist() == [[1, 2, 0]]
    assert not log.missing.any()
    assert log["a"].norm[0] == pytest.approx(np.sqrt(10))
    assert log["a"].mean[0] == pytest.approx(-2 / 3)
    assert log["a"].std[0] == pytest.approx(np.std([1, 0, -3]))
    assert log["a"].max_abs[0] == 3
    assert log["a"].zero_fraction[0] == pytest.approx(1 / 3)
    for name in ("norm", "mean", "std", "max_abs", "zero_fraction"):
        assert np.isnan(getattr(log["b"], name)[0])
    assert log.global_norm[0] == pytest.approx(np.sqrt(14))


@pytest.mark.parametrize("spoil", [np.nan, np.inf, 1e25, 1e-18, 1e-21, 1e-25, 0.0, 100.0], ids=str)
def test_large_gradients_are_summed_with_care_when_float32_cannot_hold_the_sums(spoil):
    g = np.random.default_rng(0).normal(size=70_000).astype("float32")
    if np.isfinite(spoil):
        g = (g * 0.01 + 100 if spoil == 100 else g * spoil).astype("float32")
    else:
        g[123] = spoil
    log = record([g, g[:7]])
    for name, value in by_hand(g).items():
        np.testing.assert_allclose(getattr(log, name)[0, 0], value, rtol=1e-5, err_msg=name)


def test_a_missing_gradient_is_none_and_not_zero(mode):
    a, b = tf.Variable([1.0], name="a"), tf.Variable([1.0], name="b")
    log = GradientLog()
    step = mode(lambda: log.record([None, 2.0 * b], [a, b]))
    step(), step()
    assert log.missing.tolist() == [[True, False]] * 2
    assert np.isnan(log["a"].norm).all()
    assert log["a"].nonfinite.tolist() == [0, 0]
    assert log["b"].norm.tolist() == log.global_norm.tolist() == [2.0, 2.0]


def test_a_gradient_may_come_and_go():
    log = record([np.ones(2), np.ones(2)], [None, np.ones(2)], [None, None])
    assert log.missing.tolist() == [[False, False], [True, False], [True, True]]
    np.testing.assert_allclose(log.global_norm, [2, np.sqrt(2), np.nan], rtol=1e-6)


def test_repeated_rows_of_indexed_slices_are_added_first(mode):
    table = tf.Variable(tf.ones([4, 2]), name="table")
    log, dense = GradientLog(), []

    def step(ids):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(table, ids) ** 2)
        gradient = tape.gradient(loss, table)
        assert isinstance(gradient, tf.IndexedSlices)
        log.record([gradient], [table])

    run = mode(step)
    for ids in ([1, 1, 1], [0, 3, 3]):
        run(tf.constant(ids))
        truth = np.zeros([4, 2])
        np.add.at(truth, ids, 2.0)
        dense.append([truth])
    assert_rows_are(log, dense)


def test_gradients_of_sizes_known_only_when_it_runs_are_logged():
    log, gradients = GradientLog(), [np.float32([[3.0, 4.0]]), np.ones([2, 2]), np.ones([5])]
    variables = [tf.Variable(tf.zeros(g.shape), name="v", shape=[None] * g.ndim) for g in gradients]
    step = tf.function(lambda *given: log.record(list(given), variables), autograph=False)
    specs = [tf.TensorSpec(v.shape) for v in variables]
    for _ in range(2):
        step.get_concrete_function(*specs)(*(tf.constant(g, tf.float32) for g in gradients))
    assert_rows_are(log, [gradients] * 2)


def test_other_dtypes_are_logged_in_float32():
    variables = [tf.Variable(np.zeros(2), dtype=d, name=d) for d in ("float16", "bfloat16", "float64", "complex64")]
    log = GradientLog()
    log.record([tf.constant([3e2, 4e2], v.dtype) for v in variables], variables, loss=tf.constant(1.0, tf.float64))
    np.testing.assert_allclose(log.norm[0], 500, rtol=1e-3)
    assert log["complex64"].zero_fraction[0] == 0.5  # the imaginary parts


def test_tensors_and_numbers_of_losses_are_fine():
    log, w = GradientLog(), tf.Variable([1.0])
    for loss in (None, 2, 2.5, tf.constant([1.0, 2.0])):
        log.record([tf.constant([1.0])], [w], loss=loss)
    np.testing.assert_array_equal(log.loss, [np.nan, 2, 2.5, 3])


def test_value_and_gradient_records_by_itself(mode):
    w, log = tf.Variable([3.0, 4.0], name="w"), GradientLog()
    step = mode(lambda: tapekit.value_and_gradient(lambda: tf.reduce_sum(w**2), [w], log=log))
    step(), step()
    assert log["w"].norm.tolist() == [10.0, 10.0]
    assert log.loss.tolist() == [25.0, 25.0]


def test_the_ring_is_fetched_in_time_in_an_eager_loop():
    log = record(*([np.full(2, i)] for i in range(1, 24)), capacity=4)
    assert log.steps.tolist() == list(range(23))
    assert log["a"].max_abs.tolist() == list(range(1, 24))
    assert log.lost == 0


def test_rows_that_a_graph_loop_overran_are_counted_aloud():
    w, log = tf.Variable([0.0], name="w"), GradientLog(capacity=4)

    @tf.function
    def loop(n):
        for _ in tf.range(n):
            w.assign_add([1.0])
            log.record([w + 0.0], [w])

    loop(3)
    assert log.steps.tolist() == [0, 1, 2]
    loop(7)
    with pytest.warns(UserWarning, match="3 rows lost, the ring holds 4"):
        log.drain()
    assert log.steps.tolist() == [0, 1, 2, 6, 7, 8, 9]
    assert log["w"].norm.tolist() == [1, 2, 3, 7, 8, 9, 10]
    assert log.lost == 3
    assert "3 rows lost" in str(log)
    assert "3 rows" in log.findings()[0]


def test_functions_run_eagerly_for_debugging_record_too():
    log = GradientLog(every=2)
    tf.config.run_functions_eagerly(True)
    try:
        _, gradients, _ = train(MODES["graph"], log, steps=3)
    finally:
        tf.config.run_functions_eagerly(False)
    assert_rows_are(log, gradients[::2])


# ---- fit -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"jit_compile": True}, {"jit_compile": False}, {"run_eagerly": True}, {"steps_per_execution": 8}],
    ids=str,
)
def test_fit_logs_the_true_gradients_of_every_step(options):
    log, model = GradientLog(updates=True), small_model(**options)
    fit(model, log, epochs=2)
    gradients, losses, weights = true_run(steps=8)
    assert log.names == tuple(v.path for v in model.trainable_variables)
    assert log.steps.tolist() == list(range(8))
    assert_rows_are(log, gradients)
    np.testing.assert_allclose(log.loss, losses, rtol=1e-5)
    for step in range(8):
        for column in range(0, 4, 2):
            old, new = weights[step][column], weights[step + 1][column]
            expected = np.linalg.norm(new - old) / np.linalg.norm(old)
            np.testing.assert_allclose(log.update_ratio[step, column], expected, rtol=1e-3)


@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 3}, {"run_eagerly": True}], ids=str)
def test_a_second_fit_continues_the_log_and_a_fit_without_it_adds_nothing(options):
    log, other, model = GradientLog(), GradientLog(), small_model(**options)
    gradients, _, _ = true_run(steps=20)
    fit(model, log)
    fit(model)
    assert len(log) == 4
    fit(model, log)
    fit(model, other)
    fit(model, log)
    assert log.steps.tolist() == list(range(12))
    assert_rows_are(log, gradients[:4] + gradients[8:12] + gradients[16:])
    assert_rows_are(other, gradients[12:16])


def test_fit_leaves_the_model_and_the_optimizer_as_they_were():
    model = small_model()
    fit(model)
    before = {"model": dict(vars(model)), "optimizer": dict(vars(model.optimizer))}
    fit(model, GradientLog())
    assert vars(model).keys() == before["model"].keys()
    assert vars(model.optimizer).keys() == before["optimizer"].keys()
    assert model.train_function is before["model"]["train_function"]


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C in the middle of training, in the hook of that name."""

    def __init__(self, hook, at=1):
        super().__init__()
        setattr(self, hook, lambda batch, logs=None: self.interrupt(batch, at))

    def interrupt(self, batch, at):
        if batch == at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("log_first", [True, False])
@pytest.mark.parametrize("hook", ["on_train_batch_begin", "on_train_batch_end"])
def test_an_interrupted_fit_leaves_nothing_behind(hook, log_first):
    log, model = GradientLog(), small_model()
    callbacks = [Interrupt(hook), log]
    with pytest.raises(KeyboardInterrupt):
        fit(model, *(reversed(callbacks) if log_first else callbacks))
    rows = len(log)
    fit(model)
    assert len(log) == rows
    assert "apply" not in vars(model.optimizer)
    assert "compute_loss" not in vars(model)
    fit(model, log)
    assert len(log) == rows + 4


class Explosion(Exception):
    pass


@pytest.mark.parametrize("eagerly", [True, False])
def test_a_batch_that_raises_leaves_nothing_behind(eagerly):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.fuse = keras.layers.Dense(3), True

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            result = super().train_step(data)
            if self.fuse:
                raise Explosion
            return result

    model, log = Model(), GradientLog()
    model.compile("sgd", "mse", run_eagerly=eagerly)
    with pytest.raises(Explosion):
        fit(model, log)
    rows = len(log)
    model.fuse = False
    assert "apply" not in vars(model.optimizer)
    assert "compute_loss" not in vars(model)
    fit(model)
    assert len(log) == rows
    fit(model, log)
    assert len(log) == rows + 4


def test_a_first_batch_that_raises_half_traced_is_traced_again():
    class Model(keras.Sequential):
        def train_step(self, data):
            if self.fuse:
                raise Explosion
            return super().train_step(data)

    model, log = Model([keras.Input([5]), keras.layers.Dense(3)]), GradientLog()
    for fuse in (False, True):
        model.fuse = fuse
        model.compile("adam", "mse")  # whose variables are made in the first trace
        with pytest.raises(Explosion) if fuse else contextlib.nullcontext():
            fit(model, log)
    model.fuse = False
    fit(model, log)
    assert len(log) == 8


def test_a_generator_that_raises_between_compiled_steps_leaves_nothing_behind():
    def batches():
        for start in range(0, 24, 8):
            yield X[start : start + 8], Y[start : start + 8]
        raise Explosion

    log, model = GradientLog(), small_model()
    with pytest.raises(Exception, match="Explosion"):
        model.fit(batches(), callbacks=[log], verbose=0, shuffle=False)
    assert len(log) == 3
    fit(model)
    assert len(log) == 3


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_data_set_of_unknown_length_is_logged_in_every_epoch():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).filter(lambda x, y: True).batch(8)
    log = GradientLog()
    small_model().fit(data, callbacks=[log], verbose=0, epochs=3, shuffle=False)
    assert log.steps.tolist() == list(range(12))


def test_gradients_are_those_before_clipping():
    log = GradientLog()
    fit(small_model(optimizer=keras.optimizers.SGD(0.1, clipnorm=1e-3)), log)
    gradients, _, _ = true_run(steps=1)
    assert log.norm[0, 0] == pytest.approx(by_hand(gradients[0][0])["norm"], rel=1e-5)
    assert (log.norm[0] > 1e-3).all()


def test_gradient_accumulation_has_a_row_for_each_backward_pass():
    log = GradientLog(updates=True)
    fit(small_model(optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)), log)
    assert log.steps.tolist() == [0, 1, 2, 3]
    moved = log["head/kernel"].update_ratio
    assert moved[0] == moved[2] == 0
    assert moved[1] > 0


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}], ids=str)
def test_a_loss_scale_is_taken_out_again(options):
    log, scaled = GradientLog(), GradientLog()
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=1024.0)
    fit(small_model(optimizer=optimizer, **options), log)
    fit(small_model(optimizer=keras.optimizers.SGD(0.1, loss_scale_factor=64.0)), scaled)
    gradients, losses, _ = true_run()
    assert_rows_are(log, gradients)
    assert_rows_are(scaled, gradients)
    np.testing.assert_allclose(log.loss, losses, rtol=1e-5)


def test_frozen_layers_are_not_in_the_log():
    model, log = small_model(), GradientLog()
    model.layers[0].trainable = False
    model.compile("sgd", "mse")
    fit(model, log)
    assert log.names == tuple(v.path for v in model.layers[1].trainable_variables)


def test_embeddings_with_repeated_ids_are_counted_right():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Embedding(7, 3), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(1)]
    model, log = keras.Sequential([keras.Input([6], dtype="int32"), *layers]), GradientLog()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    ids, y = np.random.default_rng(0).integers(0, 4, [16, 6]).astype("int32"), np.ones([16, 1], "float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(ids) - y) ** 2)
    truth = [tf.convert_to_tensor(g).numpy() for g in tape.gradient(loss, model.trainable_variables)]
    model.fit(ids, y, batch_size=16, verbose=0, callbacks=[log])
    assert_rows_are(log, [truth])
    assert log[log.names[0]].zero_fraction[0] == pytest.approx(3 / 7)


def test_a_train_step_of_ones_own_is_logged():
    class Model(keras.Sequential):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = 3.0 * self.compute_loss(y=y, y_pred=self(x, training=True))
            self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
            return {"loss": loss}

    keras.utils.set_random_seed(0)
    model, log = Model([keras.Input([5]), keras.layers.Dense(3)]), GradientLog()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    with tf.GradientTape() as tape:
        loss = 3.0 * tf.reduce_mean((model(X) - Y) ** 2)
    truth = tape.gradient(loss, model.trainable_variables)
    model.fit(X, Y, batch_size=32, verbose=0, callbacks=[log])
    assert_rows_are(log, [truth])


def test_several_inputs_and_outputs_and_a_model_that_is_not_built():
    class TwoByTwo(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = keras.layers.Dense(2, name="a"), keras.layers.Dense(1, name="b")

        def call(self, inputs):
            return {"one": self.a(inputs["x"]), "two": self.b(inputs["z"])}

    model, log = TwoByTwo(), GradientLog()
    model.compile("adam", {"one": "mse", "two": "mae"})
    model.fit({"x": X, "z": Y}, {"one": Y[:, :2], "two": Y[:, :1]}, batch_size=8, verbose=0, callbacks=[log])
    assert len(log) == 4
    assert len(log.names) == 4
    assert (log.norm[:, :3] > 0).all()  # the last, of an absolute error, may be 0
    assert np.isfinite(log.loss).all()


def test_validation_and_fits_with_a_short_last_batch_are_fine():
    log = GradientLog()
    small_model(steps_per_execution=8).fit(
        X[:27], Y[:27], batch_size=8, verbose=0, validation_split=0.2, callbacks=[log]
    )
    assert log.steps.tolist() == [0, 1, 2]


def test_fit_drains_the_ring_in_time():
    log = GradientLog(capacity=6)
    fit(small_model(), log, epochs=6)
    assert log.steps.tolist() == list(range(24))
    assert log.lost == 0


def test_models_that_the_log_cannot_follow_say_so():
    class Silent(keras.Sequential):
        def train_step(self, data):
            return {"loss": 0.0}

    model = Silent([keras.Input([5]), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    with pytest.raises(RuntimeError, match=r"did not call model\.optimizer\.apply"):
        fit(model, GradientLog())
    model_of_two = small_model()
    with pytest.raises(RuntimeError, match=r"model\.train_function is not what it was.* Use one log in a fit"):
        fit(model_of_two, GradientLog(), GradientLog())
    assert getattr(model_of_two.train_function, "__func__", None) is not FitCallback._train
    model.compile(optimizer=None, loss="mse")
    with pytest.raises(ValueError, match="the model has no optimizer"):
        fit(model, GradientLog())


# ---- what record refuses ---------------------------------------------------------------------------------------------


def test_what_is_not_a_gradient_is_refused_in_a_sentence():
    w, log = tf.Variable([1.0, 2.0], name="w"), GradientLog()
    for gradient, error, words in (
        (w, TypeError, "the gradient of 'w' is a float32 variable of shape"),
        (3.0, TypeError, "is the Python float 3.0. A float tensor of TensorFlow or None is needed"),
        (tf.constant([1, 2]), TypeError, "is an int32 tensor"),
        (tf.zeros([3]), ValueError, r"is a float32 tensor of shape \(3,\); the variable has shape \(2,\)"),
    ):
        with pytest.raises(error, match=words):
            log.record([gradient], [w])
    with pytest.raises(ValueError, match=r"2 gradients for 1 variables.*tape.gradient\(loss, variables\)"):
        log.record([w + 0, w + 0], [w])
    assert len(log) == 0


def test_variables_that_change_are_refused_in_a_sentence():
    a, b, log = tf.Variable([1.0], name="a"), tf.Variable([1.0], name="b"), GradientLog()
    log.record([a + 0.0], [a])
    with pytest.raises(ValueError, match=r"the variables are b, and were a\. One log holds the same variables"):
        log.record([b + 0.0], [b])
    assert len(log) == 1
    with pytest.raises(TypeError, match="updates=True follows the weights"):
        GradientLog(updates=True).record([a + 0.0], [tf.constant([1.0])])


@pytest.mark.parametrize("name", ["every", "capacity"])
def test_the_settings_are_positive_integers(name):
    with pytest.raises(ValueError, match=f"GradientLog: {name} is 0. A positive integer is needed"):
        GradientLog(**{name: 0})


def test_the_settings_may_be_integers_of_numpy():
    assert len(record([[1.0]], [[2.0]], every=np.int64(2), capacity=np.int32(8))) == 1


def test_lists_that_do_not_fit_are_described():
    w = tf.Variable([1.0], name="w")
    for gradients, what in ((None, "gradients is None"), (tf.GradientTape(), "gradients is a GradientTape")):
        with pytest.raises(ValueError, match=f"1 gradients for 2 variables: {what}, variables is a list of 2"):
            GradientLog().record(gradients, [w, w])


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_a_variable_is_read_by_its_name_or_the_end_of_it():
    variables = [tf.Variable([1.0], name=name) for name in ("a/kernel", "b/kernel")]
    log = GradientLog()
    log.record([tf.constant([1.0]), tf.constant([2.0])], variables)
    assert log["b/kernel"].norm.tolist() == [2]
    assert log["b/kernel"].steps.tolist() == [0]
    with pytest.raises(KeyError, match=r"nothing is called 'w'\. The names are not known yet\."):
        GradientLog()["w"]
    with pytest.raises(KeyError, match=r"2 are called 'kernel'\. The names are a/kernel, b/kernel"):
        log["kernel"]
    fit(model := small_model(), log := GradientLog())
    np.testing.assert_array_equal(log["head/kernel"].norm, log.norm[:, 2])
    assert log.names[2] == model.layers[1].kernel.path


def test_to_dict_has_a_column_of_rows_for_each_statistic():
    columns = record([[1.0, 0.0]], [[0.0, 2.0]]).to_dict()
    assert list(columns)[:4] == ["step", "loss", "global_norm", "a.norm"]
    assert {len(column) for column in columns.values()} == {2}
    assert columns["a.norm"].tolist() == [1, 2]
    assert columns["a.missing"].tolist() == [False, False]
    assert "a.update_ratio" not in columns
    assert "a.update_ratio" in record([[1.0]], updates=True).to_dict()


def test_an_empty_log_reads_as_empty():
    log = GradientLog()
    assert len(log) == 0
    assert log
    assert log.steps.shape == log.loss.shape == (0,)
    assert log.norm.shape == log.missing.shape == (0, 0)
    assert log.to_dict().keys() == {"step", "loss", "global_norm"}
    assert str(log) == "GradientLog: no rows yet"
    assert log.findings() == ()


def test_the_printed_table_has_a_line_for_each_variable():
    lines = str(record([[3.0, -4.0, 0.0], None])).splitlines()
    assert lines[0] == "step 0 (row 1), loss not recorded, global norm 5"
    assert lines[2].split() == ["a", "5", "-0.333", "2.87", "4", "33%", "0"]
    assert lines[3].split() == ["b", "None"]


# ---- on disk ---------------------------------------------------------------------------------------------------------


def assert_equal_logs(a, b):
    assert a.names == b.names
    assert a.every == b.every
    for name, column in a.to_dict().items():
        np.testing.assert_array_equal(column, b.to_dict()[name], err_msg=name)


@pytest.mark.parametrize("updates", [False, True])
@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_a_log_on_disk_reads_back_the_same(tmp_path, kind, updates):
    path = tmp_path / f"run.{kind}"
    gradients = [[np.float32([1 / 3, np.nan, 1e-30]), None if i == 2 else np.ones(2)] for i in range(5)]
    names = ["a, with a comma", "b"]
    log = record(*gradients, names=names, capacity=2, updates=updates, path=path if kind == "csv" else None)
    if kind == "npz":
        log.save(path)
    log.drain()
    assert_equal_logs(GradientLog.load(path), log)


def test_training_goes_on_where_the_file_ends(tmp_path):
    path = tmp_path / "run.csv"
    fit(small_model(), GradientLog(path=path, every=2), epochs=2)
    assert GradientLog.load(path).steps.tolist() == [0, 2, 4, 6]
    log = GradientLog.load(path)
    fit(small_model(), log)
    assert log.steps.tolist() == [0, 2, 4, 6, 8, 10]
    assert_equal_logs(GradientLog.load(path), log)


def test_a_torn_last_line_is_left_out_and_overwritten(tmp_path):
    path = tmp_path / "run.csv"
    record(*[[np.full(2, i)] for i in range(5)], path=path).drain()
    whole = path.read_bytes()
    for cut in range(1, 30):
        path.write_bytes(whole[:-cut])
        log = GradientLog.load(path)
        assert log.steps.tolist() == list(range(len(whole[:-cut].splitlines()) - 1 - (whole[-cut - 1 : -cut] != b"\n")))
    before = len(log)
    log.record([tf.ones([2])], [tf.Variable(tf.zeros([2]), name="a")])
    assert log.steps.tolist() == GradientLog.load(path).steps.tolist() == list(range(before + 1))
    path.write_bytes(whole + b"5," + b"9" * 500)  # longer than what is written over it
    log = GradientLog.load(path)
    log.record([tf.ones([2])], [tf.Variable(tf.zeros([2]), name="a")])
    assert log.steps.tolist() == GradientLog.load(path).steps.tolist() == list(range(6))
    assert b"999" not in path.read_bytes()
    path.write_bytes(whole[:7])  # killed in the header
    assert len(GradientLog.load(path)) == 0


def test_kill_9_loses_at_most_the_rows_that_were_not_drained(tmp_path):
    path = tmp_path / "run.csv"
    program = """
        import sys
        import tensorflow as tf
        from tapekit.logs import GradientLog
        w, log = tf.Variable([1.0], name="w"), GradientLog(path=sys.argv[1], capacity=8)
        for step in range(100_000):
            log.record([w * float(step)], [w])
            print(step, flush=True)
        """
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        for line in child.stdout:
            if int(line) == 101:
                child.send_signal(signal.SIGKILL)
                break
        child.stdout.read()
    assert child.returncode == -signal.SIGKILL
    log = GradientLog.load(path)
    assert len(log) >= 102 - 5  # half the ring waits at most
    assert log.steps.tolist() == list(range(len(log)))
    assert log["w"].norm.tolist() == list(range(len(log)))


@pytest.mark.parametrize("path", ["/dev/full", "no/such/directory/run.csv"])
def test_a_disk_that_refuses_warns_once_and_loses_no_row(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log, variables = GradientLog(path=path), [tf.Variable([0.0, 0.0])]
    with pytest.warns(UserWarning, match=f"cannot write {path}: .*Training goes on, and all rows are kept in memory"):
        log.record([tf.ones([2])], variables)
    assert len(log) == 1
    log.record([tf.ones([2])], variables)
    log.save("elsewhere.npz")
    assert len(GradientLog.load("elsewhere.npz")) == 2


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("precious")
    with pytest.raises(ValueError, match=r"run.csv exists. Continue it with GradientLog.load\(path\)"):
        record([np.ones(2)], path=path)
    assert path.read_text() == "precious"
    with pytest.raises(ValueError, match=f"path is '{tmp_path}'. Rows are written as csv"):
        record([np.ones(2)], path=tmp_path)
    path.write_text("step,a,b\n1,2,3\n")
    with pytest.raises(ValueError, match="begins with 'step,a,b'"):
        GradientLog.load(path)
    path.write_text("precious\n")
    with pytest.raises(ValueError, match=r"not a file of GradientLog \(it begins with 'precious'\)"):
        GradientLog.load(path)


def test_a_log_is_not_read_inside_a_function_that_is_traced():
    log, w = GradientLog(), tf.Variable([1.0])
    log.record([tf.ones([1])], [w])
    with pytest.raises(RuntimeError, match=r"GradientLog: read inside a tf.function"):
        tf.function(lambda: tf.constant(len(log)))()


@pytest.mark.parametrize(
    ("gradients", "variables", "words"),
    [([], [], "nothing.*build a Keras model before"), (None, None, "None. Give a tf.Variable, a Keras variable")],
)
def test_what_has_no_gradient_is_no_variable(gradients, variables, words):
    with pytest.raises(TypeError, match=f"GradientLog.record: variables holds {words}"):
        GradientLog().record(gradients, variables)


def test_numbers_and_arrays_are_recorded_as_any_source():
    log = GradientLog()
    for step in (1.0, 2.0):
        log.record([tf.constant(3.0 * step), tf.constant([0.0, step])], [step, np.array([step, 1.0])])
    assert log.norm.tolist() == [[3.0, 1.0], [6.0, 2.0]]
    with pytest.raises(ValueError, match=r"is a float32 tensor of shape \(2,\); the variable has shape \(\)"):
        log.record([tf.zeros([2]), tf.zeros([2])], [1.0, np.zeros(2)])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own, when it saves
def test_a_sequential_that_keras_has_loaded_goes_on_in_its_log(tmp_path):
    x, y = np.ones([8, 4], "float32"), np.ones([8, 1], "float32")
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, y, verbose=0, callbacks=[GradientLog(path=tmp_path / "run.csv")])
    model.save(tmp_path / "model.keras")
    log = GradientLog.load(tmp_path / "run.csv")
    keras.models.load_model(tmp_path / "model.keras").fit(x, y, verbose=0, callbacks=[log])
    assert log.steps.tolist() == [0, 1]


def test_another_model_of_the_same_names_goes_on_in_a_log_of_updates():
    log = GradientLog(updates=True)
    for _ in range(2):
        keras.backend.clear_session()
        model = keras.Sequential([keras.Input([4]), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(np.ones([8, 4]), np.ones([8, 1]), verbose=0, callbacks=[log])
    assert log.steps.tolist() == [0, 1]
