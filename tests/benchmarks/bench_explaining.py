"""What `tapekit.explain` costs beside `tapekit.trace` of the same loss."""

import time
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

import tapekit
from tests.benchmarks import Row


def seconds(call: Callable) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def rows() -> Iterator[Row]:
    model = keras.applications.ResNet50(weights=None)
    image = tf.random.stateless_uniform([1, 224, 224, 3], [1, 2])
    variables = model.trainable_variables

    def fine() -> tf.Tensor:
        return tf.reduce_mean(model(image) ** 2)

    def cut() -> tf.Tensor:
        return tf.reduce_mean(tf.round(model(image)))

    def dead() -> tf.Tensor:
        return tf.reduce_mean(tf.nn.relu(-1.0 - model(image)))

    trace = [seconds(lambda: tapekit.trace(fine, variables)) for _ in range(2)][1]  # the first warms TensorFlow up
    yield Row("explain ResNet50, all fine", "its trace", seconds(lambda: tapekit.explain(fine, variables)) / trace, 3)
    yield Row("explain ResNet50, all None", "its trace", seconds(lambda: tapekit.explain(cut, variables)) / trace, 3)

    trace_dead = seconds(lambda: tapekit.trace(dead, variables))
    yield Row(
        "explain ResNet50, all zero", "its trace", seconds(lambda: tapekit.explain(dead, variables)) / trace_dead, 3
    )

    runs: list[int] = []
    many = [tf.Variable(1.0) for _ in range(200)]

    def count() -> tf.Tensor:
        runs.append(1)
        return tf.round(tf.add_n(many))

    tapekit.explain(count, many)
    yield Row("explain 200 variables: runs of fn", "one to find out, one for the trace", len(runs), 2, "runs")
