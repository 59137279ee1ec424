"""`fit` of tf_keras, which is Keras 2, in processes of its own: it must not be imported where it is not used."""

import os
import subprocess
import sys
import textwrap

PROGRAM = textwrap.dedent(
    """
    import json, sys
    import numpy as np
    import tensorflow as tf
    import tapekit
    assert "tf_keras" not in sys.modules
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    log = tapekit.GradientLog(updates=True, histograms=2)
    import tf_keras

    x = np.random.default_rng(0).normal(size=(32, 5)).astype("float32")
    y = np.random.default_rng(1).normal(size=(32, 3)).astype("float32")

    class OwnStep(tf_keras.Sequential):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
            return {"loss": loss}

    class Minimizes(tf_keras.Sequential):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compiled_loss(y, self(x, training=True))
            self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
            return {"loss": loss}

    def small_model(kind=tf_keras.Sequential):
        tf_keras.utils.set_random_seed(0)
        layers = [tf_keras.layers.Dense(4, activation="relu", name="hidden"), tf_keras.layers.Dense(3, name="head")]
        return kind([tf_keras.Input([5]), *layers])

    def true_run(model, steps):
        gradients, losses = [], []
        for step in range(steps):
            batch = slice(step * 8 % 32, step * 8 % 32 + 8)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x[batch]) - y[batch]) ** 2)
            gradients.append([g.numpy() for g in tape.gradient(loss, model.trainable_variables)])
            losses.append(float(loss))
            for v, g in zip(model.trainable_variables, gradients[-1]):
                v.assign_sub(0.1 * g)
        return gradients, losses

    def fit(model, *logs, epochs=1):
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0, epochs=epochs, callbacks=list(logs))
    """
)
SAME = """
    gradients, losses = true_run(small_model(), 8)
    assert log.steps.tolist() == list(range(8))
    assert log.names == ("hidden/kernel", "hidden/bias", "head/kernel", "head/bias")
    norms = [[np.linalg.norm(g) for g in step] for step in gradients]
    np.testing.assert_allclose(log.norm, norms, rtol=1e-5)
    np.testing.assert_allclose(log.global_norm, np.linalg.norm(norms, axis=1), rtol=1e-5)
    np.testing.assert_allclose(log.max_abs, [[np.abs(g).max() for g in step] for step in gradients], rtol=1e-5)
    np.testing.assert_allclose(log.loss, losses, rtol=1e-5)
    assert log.histogram_steps.tolist() == [0, 2, 4, 6]
    assert log.histogram("head/bias").counts.sum() == 3
    """


def run(*programs):
    program = PROGRAM + "\n".join(textwrap.dedent(each) for each in programs)
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-W", "ignore", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_fit_logs_the_true_gradients_of_every_step():
    run(
        """
        def scaled():
            return tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.SGD(0.1), initial_scale=64.0)

        for kind, options in (
            (tf_keras.Sequential, {}),
            (OwnStep, {}),
            (Minimizes, {}),
            (tf_keras.Sequential, {"run_eagerly": True}),
            (OwnStep, {"run_eagerly": True}),
            (Minimizes, {"run_eagerly": True}),
            (tf_keras.Sequential, {"jit_compile": True}),
            (OwnStep, {"jit_compile": True}),
            (tf_keras.Sequential, {"steps_per_execution": 4}),
            (tf_keras.Sequential, {"optimizer": tf_keras.optimizers.legacy.SGD(0.1)}),
            (OwnStep, {"optimizer": tf_keras.optimizers.legacy.SGD(0.1)}),
            (Minimizes, {"optimizer": tf_keras.optimizers.legacy.SGD(0.1)}),
            (tf_keras.Sequential, {"optimizer": scaled()}),
            (tf_keras.Sequential, {"optimizer": scaled(), "run_eagerly": True}),
        ):
            log, model = tapekit.GradientLog(updates=True, histograms=2), small_model(kind)
            model.compile(**({"optimizer": tf_keras.optimizers.SGD(0.1), "loss": "mse"} | options))
            fit(model, log, epochs=2)
        """
        + textwrap.indent(SAME, " " * 8)
    )


def test_a_log_made_before_tf_keras_is_imported_records_and_leaves_the_model_as_it_was():
    run(
        """
        model = small_model()
        model.compile(tf_keras.optimizers.SGD(0.1), "mse")
        fit(model)
        before = {"model": set(vars(model)), "optimizer": set(vars(model.optimizer))}, model.train_function
        model.set_weights(small_model().get_weights())
        fit(model, log)
        fit(model, log)
        assert ({"model": set(vars(model)), "optimizer": set(vars(model.optimizer))}, model.train_function) == before
        fit(model)
        assert len(log) == 8
        """,
        SAME,
    )


def test_gradients_are_those_before_clipping_and_findings_count_the_clipped_rows():
    run(
        """
        for options in ({"clipnorm": 1e-3}, {"global_clipnorm": 1e-3}, {"clipvalue": 1e-3}):
            log, model = tapekit.GradientLog(), small_model()
            model.compile(tf_keras.optimizers.SGD(0.1, **options), "mse")
            fit(model, log)
            gradients, _ = true_run(small_model(), 1)
            np.testing.assert_allclose(log.norm[0], [np.linalg.norm(g) for g in gradients[0]], rtol=1e-5)
            (name,) = options
            assert any(f"{name}=0.001" in sentence and "4 of 4 rows" in sentence for sentence in log.findings())
        """
    )


def test_mixed_precision_is_logged_without_its_loss_scale():
    run(
        """
        norms = {}
        for policy in ("float32", "mixed_float16"):
            tf_keras.mixed_precision.set_global_policy(policy)
            log, model = tapekit.GradientLog(), small_model()
            model.compile("sgd", "mse")
            fit(model, log)
            norms[policy] = log.norm
        np.testing.assert_allclose(norms["mixed_float16"], norms["float32"], rtol=0.05)
        """
    )


def test_an_interrupted_fit_leaves_nothing_behind():
    run(
        """
        class Interrupt(tf_keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                if batch == 1:
                    raise KeyboardInterrupt

        model = small_model()
        model.compile(tf_keras.optimizers.SGD(0.1), "mse")
        try:
            fit(model, log, Interrupt())
        except KeyboardInterrupt:
            pass
        assert len(log) == 1
        fit(model)
        assert len(log) == 1
        fit(model, log)
        assert len(log) == 5
        """
    )


def test_plots_and_traces_serve_its_models(tmp_path):
    run(
        f"""
        log, model = tapekit.GradientLog(updates=True, histograms=2, logdir={str(tmp_path)!r}), small_model()
        model.compile("sgd", "mse")
        fit(model, log)
        for plot in (tapekit.plot_gradient_flow, tapekit.plot_gradient_history, tapekit.plot_gradient_histogram):
            assert "hidden" in "".join(t.get_text() for t in plot(log).findobj(lambda a: hasattr(a, "get_text")))
        trace = tapekit.trace(lambda: tf.reduce_mean((model(x) - y) ** 2), model.trainable_variables)
        assert "hidden/kernel" in str(trace)
        assert tf.io.gfile.listdir({str(tmp_path)!r})
        """
    )


def test_two_mirrored_replicas_log_the_gradients_of_one_device():
    run(
        """
        def scaled():
            return tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.SGD(0.1), initial_scale=64.0)

        def legacy():
            return tf_keras.optimizers.legacy.SGD(0.1)

        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        for kind, options in (
            (tf_keras.Sequential, {"steps_per_execution": 4}),
            (tf_keras.Sequential, {"run_eagerly": True}),
            (tf_keras.Sequential, {"optimizer": scaled}),
            (OwnStep, {"optimizer": legacy}),
            (Minimizes, {}),
        ):
            log = tapekit.GradientLog(updates=True, histograms=2)
            with strategy.scope():
                model = small_model(kind)
                optimizer = options.pop("optimizer", lambda: tf_keras.optimizers.SGD(0.1))()
                model.compile(optimizer, "mse", **options)
            model.fit(data, shuffle=False, verbose=0, epochs=2, callbacks=[log])
            model.fit(data, verbose=0)
        """
        + textwrap.indent(SAME, " " * 8)
    )
