"""What `tapekit.trace` costs beside the first call of a plain ``tf.function`` gradient of the same loss."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import keras
import tensorflow as tf

import tapekit
from tests.benchmarks import Row

# Peak memory is a property of a process: each way runs in one of its own.
ALONE = """
import json, pathlib, sys
from tests.benchmarks import bench_tracing
seconds = bench_tracing.once(sys.argv[1])
status = pathlib.Path("/proc/self/status").read_text()  # getrusage would count the peak of the parent process as well
print(json.dumps([seconds, int(status.split("VmHWM:")[1].split()[0])]))
"""


def once(way: str) -> float:
    """Seconds of the first gradient of ResNet50 on one image, `way` "plain" or "trace"."""
    model = keras.applications.ResNet50(weights=None)
    image = tf.random.stateless_uniform([1, 224, 224, 3], [1, 2])
    variables = model.trainable_variables

    def loss() -> tf.Tensor:
        return tf.reduce_mean(model(image, training=True) ** 2)

    @tf.function
    def plain() -> list:
        with tf.GradientTape() as tape:
            target = loss()
        return tape.gradient(target, variables)

    start = time.perf_counter()
    if way == "plain":
        plain()
    else:
        tapekit.trace(loss, variables, depth=1)
    return time.perf_counter() - start


def mlp_seconds() -> float:
    """Seconds of the first trace of a new model."""
    layers = [keras.layers.Dense(64, "relu") for _ in range(3)]
    model = keras.Sequential([keras.Input([32]), *layers, keras.layers.Dense(10)])
    data = tf.random.stateless_normal([32, 32], [1, 2])
    start = time.perf_counter()
    tapekit.trace(lambda: tf.reduce_mean(model(data) ** 2), model.trainable_variables)
    return time.perf_counter() - start


def rows() -> Iterator[Row]:
    seconds = statistics.median(mlp_seconds() for _ in range(5))
    yield Row("trace of an MLP, every operation", "a new model each time", seconds, 0.5, "s")

    measured: dict[str, list] = {"plain": [], "trace": []}
    for _ in range(3):
        for way, found in measured.items():
            command = [sys.executable, "-c", ALONE, way]
            found.append(json.loads(subprocess.check_output(command, env=os.environ, stderr=subprocess.DEVNULL)))
    seconds, memory = (
        statistics.median(trace[part] for trace in measured["trace"])
        / statistics.median(plain[part] for plain in measured["plain"])
        for part in (0, 1)
    )
    yield Row("trace of ResNet50, depth=1", "first call of a tf.function gradient", seconds, 2.5)
    yield Row("peak memory of that", "the same", memory, 2.0)
