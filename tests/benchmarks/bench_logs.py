"""What a `GradientLog` adds to a training step: the loop with the log against the same loop without it."""

import itertools
import statistics
import time
import tracemalloc

import keras
import numpy as np
import tensorflow as tf

from tapekit.logs import GradientLog
from tests.benchmarks import Row, ratio


def network(widths, batch):
    """A ReLU network's variables, and a function that returns their gradients and the loss on one batch."""
    generator = tf.random.Generator.from_seed(0)
    x = generator.normal([batch, widths[0]])
    pairs = list(itertools.pairwise(widths))
    kernels = [tf.Variable(generator.normal([m, n], stddev=(2 / m) ** 0.5), name="kernel") for m, n in pairs]
    biases = [tf.Variable(tf.zeros([n]), name="bias") for _, n in pairs]
    variables = [v for layer in zip(kernels, biases, strict=True) for v in layer]

    def gradients():
        with tf.GradientTape() as tape:
            h = x
            for w, b in zip(kernels, biases, strict=True):
                h = tf.nn.relu(h @ w + b)
            loss = tf.reduce_mean(h**2)
        return tape.gradient(loss, variables), loss

    return variables, gradients


def training_step(widths, batch, log=None, *, compiled=True):
    """One step of plain gradient descent."""
    variables, gradients = network(widths, batch)

    def step():
        found, loss = gradients()
        if log is not None:
            log.record(found, variables, loss=loss)
        for v, g in zip(variables, found, strict=True):
            v.assign_sub(1e-3 * g)
        return loss

    return tf.function(step, autograph=False) if compiled else step


class Clock(keras.callbacks.Callback):
    """Seconds of each batch of a fit, callbacks in the list before it included."""

    def on_train_begin(self, logs=None):
        self.seconds, self.last = [], time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self.last)
        self.last = time.perf_counter()


def fit_ratio():
    """Median batch of `fit` with the log over the one without, fits in turn."""
    x = np.random.default_rng(0).normal(size=(256 * 12, 1024)).astype("float32")

    def model():
        layers = [keras.layers.Dense(1024, activation="relu") for _ in range(6)]
        made = keras.Sequential([keras.Input([1024]), *layers])
        made.compile(keras.optimizers.SGD(1e-3), "mse")
        return made

    clock, log, models, batches = Clock(), GradientLog(), (model(), model()), ([], [])
    for _ in range(4):
        for with_log in (0, 1):
            callbacks = [log, clock] if with_log else [clock]
            models[with_log].fit(x, x, batch_size=256, verbose=0, callbacks=callbacks)
            batches[with_log].extend(clock.seconds[2:])  # the first traces
    return statistics.median(batches[1]) / statistics.median(batches[0])


def bytes_of_a_statistic(count=4000):
    """What stays in memory when rows have left the ring, for each statistic; a step has a number too."""
    variables, gradients = network([48] * 7, 32)
    found, loss = gradients()
    log = GradientLog()
    log.record(found, variables, loss=loss)
    log.drain()
    tracemalloc.start()
    for _ in range(count):
        log.record(found, variables, loss=loss)
    log.drain()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / (count * (3 + 6 * len(variables)))


def rows():
    large, small = ([1024] * 7, 256), ([48] * 7, 32)
    for what, shape, options, repeats, number, reach in (
        ("6x1024 MLP, tf.function, every step", large, {}, 25, 1, 1.12),
        ("6x1024 MLP, tf.function, every=10", large, {"every": 10}, 7, 10, 1.02),
        ("small MLP, tf.function, every step", small, {}, 25, 100, 1.5),
    ):
        logged, plain = training_step(*shape, GradientLog(**options)), training_step(*shape)
        yield Row(
            f"GradientLog, {what}", "the step without it", ratio(logged, plain, repeats=repeats, number=number), reach
        )
    for histograms, repeats, number, reach in ((100, 5, 100, 1.03), (1, 25, 1, 1.5)):
        counted, logged = (training_step(*large, log) for log in (GradientLog(histograms=histograms), GradientLog()))
        figure = ratio(counted, logged, repeats=repeats, number=number)
        yield Row(f"GradientLog, 6x1024 MLP, histograms={histograms}", "the log without them", figure, reach)
    yield Row("GradientLog, 6x1024 MLP, fit, every step", "the batch without it", fit_ratio(), 1.12)
    logged, plain = (training_step(*small, log, compiled=False) for log in (GradientLog(), None))
    yield Row("GradientLog, small MLP, eager", "the step without it", ratio(logged, plain, number=20), 1.15)
    yield Row("GradientLog, memory of a statistic in a row", "a float32", bytes_of_a_statistic(), 4.1, "B")
