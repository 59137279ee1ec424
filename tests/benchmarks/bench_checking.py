"""What `check_gradient` costs: beside TensorFlow's own checker, beside gradient calls, and as the point grows."""

import statistics
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from tapekit import check_gradient
from tests.benchmarks import Row


def rows() -> Iterator[Row]:
    check_gradient(tf.sin, 1.0)  # what TensorFlow does once in a process
    loss, x = mlp(1, 10_000)
    theirs = seconds(lambda: tf.test.compute_gradient(loss, [x]), 1)
    ours = seconds(lambda: check_gradient(loss, x), 3)
    yield Row("check_gradient, MLP of 10,000 inputs", "tf.test.compute_gradient", theirs / ours, 25, "x", True)

    one_thousand = seconds(lambda: check_gradient(*mlp(10)), 3)
    for batch, reach in ((100, 10), (1000, 100)):
        more = seconds(lambda batch=batch: check_gradient(*mlp(batch)), 3) / one_thousand
        yield Row(f"check_gradient, {100 * batch:,} inputs", "the same of 1,000 inputs", more, reach)

    for name, millions, reach in (("ResNet50", 25, 30), ("EfficientNetB0", 5, 60), ("ConvNeXtTiny", 28, 60)):
        what = f"check_gradient, {name}, {millions} million parameters"
        yield Row(what, "one gradient by the tape", of_a_model(getattr(keras.applications, name)), reach)


def of_a_model(make: Callable) -> float:
    """The time of a check of all variables of an image model, in gradients by the tape."""
    model = make(weights=None)
    image, label = tf.random.stateless_normal([1, 224, 224, 3], [0, 0]), tf.constant([3])

    def loss() -> tf.Tensor:
        return tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(label, model(image, training=False)))

    def gradient() -> list:
        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, model.trainable_variables)

    gradient()
    return seconds(lambda: check_gradient(loss, model.trainable_variables), 1) / seconds(gradient, 3)


def mlp(batch: int, features: int = 100) -> tuple[Callable, tf.Tensor]:
    """The loss of an MLP, and its inputs, `[batch, features]`."""
    rng = np.random.default_rng(0)
    x, hidden, out = (
        tf.constant(rng.normal(size=s) / 10, tf.float32) for s in ([batch, features], [features, 32], [32, 1])
    )

    def loss(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean((tf.tanh(x @ tf.cast(hidden, x.dtype)) @ tf.cast(out, x.dtype)) ** 2)

    return loss, x


def seconds(call: Callable, repeats: int) -> float:
    """Median of `repeats` timings; one call each, tracing counted."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
