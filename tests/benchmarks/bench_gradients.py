"""The derivatives against the hand-written tape."""

import subprocess
import sys
from collections.abc import Iterator

import keras
import tensorflow as tf

import tapekit
from tests.benchmarks import Row, interleaved, ratio


def rows() -> Iterator[Row]:
    yield from _one_variable()
    yield from _model()
    yield from _second_order()
    yield from _per_example()
    yield from _import()


def _one_variable() -> Iterator[Row]:
    w = tf.Variable(5.0)

    def by_hand():
        with tf.GradientTape() as tape:
            target = tf.square(w)
        return tape.gradient(target, w)

    cost = ratio(lambda: tapekit.gradient(lambda: tf.square(w), w), by_hand, repeats=51, number=100)
    yield Row("gradient of w**2, eager", "the hand-written tape", cost, 1.25)


def _model() -> Iterator[Row]:
    model = keras.Sequential([keras.layers.Dense(64, "tanh"), keras.layers.Dense(64, "tanh"), keras.layers.Dense(1)])
    x, y = tf.random.normal([32, 16]), tf.random.normal([32, 1])
    model(x)

    def loss():
        return tf.reduce_mean((model(x) - y) ** 2)

    def by_hand():
        with tf.GradientTape() as tape:
            target = loss()
        return tape.gradient(target, model.trainable_variables)

    def ours():
        return tapekit.gradient(loss, model.trainable_variables)

    yield Row(
        "gradient, 3-layer MLP, eager", "the hand-written tape", ratio(ours, by_hand, repeats=101, number=3), 1.03
    )
    graphs = [tf.function(f, autograph=False) for f in (ours, by_hand)]
    cost = ratio(*graphs, repeats=101, number=30)
    yield Row("gradient, 3-layer MLP, tf.function", "the hand-written tape", cost, 1.05)
    counts = [len(g.get_concrete_function().graph.get_operations()) for g in graphs]
    yield Row("ops in that graph", "the hand-written tape", counts[0] / counts[1], 1.0)


def _second_order() -> Iterator[Row]:
    x = tf.random.normal([50])

    def vector(x):
        return tf.sin(x) * tf.reduce_sum(x**2)

    def scalar(x):
        return tf.reduce_sum(vector(x))

    def jacobian_by_hand():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = vector(x)
        return tape.jacobian(y, x)

    def hessian_by_hand():
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = scalar(x)
            grad = inner.gradient(y, x)
        return outer.jacobian(grad, x)

    cost = ratio(lambda: tapekit.jacobian(vector, x), jacobian_by_hand, repeats=31)
    yield Row("jacobian, [50, 50], eager", "tape.jacobian", cost, 1.05)
    cost = ratio(lambda: tapekit.hessian(scalar, x), hessian_by_hand, repeats=31)
    yield Row("hessian, [50, 50], eager", "hand-nested tapes", cost, 1.1)

    weights = [tf.Variable(tf.random.normal(s) * 0.05) for s in ([300, 300], [300, 33])]  # 99,900 parameters
    vectors = [tf.random.normal(w.shape) for w in weights]
    data = tf.random.normal([64, 300])

    def loss():
        return tf.reduce_mean(tf.tanh(tf.tanh(data @ weights[0]) @ weights[1]) ** 2)

    single = tf.function(lambda: tapekit.gradient(loss, weights), autograph=False)
    product = tf.function(lambda: tapekit.hvp(loss, weights, vectors), autograph=False)
    yield Row(
        "hvp, 100,000 parameters, tf.function", "two gradient calls", ratio(product, lambda: (single(), single())), 2.0
    )
    cost = ratio(
        lambda: tapekit.hvp(loss, weights, vectors),
        lambda: (tapekit.gradient(loss, weights), tapekit.gradient(loss, weights)),
    )
    yield Row("hvp, 100,000 parameters, eager", "two gradient calls", cost, 2.0)


def _per_example() -> Iterator[Row]:
    model = keras.Sequential([keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)])
    x, y = tf.random.normal([256, 8]), tf.random.normal([256, 1])
    model(x)

    def loss(example):
        features, label = example
        return tf.reduce_mean((model(features[None])[0] - label) ** 2)

    stacked = tf.function(
        lambda: tapekit.per_example_gradient(loss, model.trainable_variables, (x, y)), autograph=False
    )

    def one_by_one():
        return [tapekit.gradient(lambda i=i: loss((x[i], y[i])), model.trainable_variables) for i in range(256)]

    fast, slow = interleaved(stacked, one_by_one, repeats=7)
    yield Row("per_example_gradient, 256 examples", "a loop of gradients", slow / fast, 20.0, "x faster", at_least=True)


def _import() -> Iterator[Row]:
    def run(module):
        return lambda: subprocess.run([sys.executable, "-c", f"import {module}"], check=True, capture_output=True)

    yield Row("import tapekit", "import tensorflow", ratio(run("tapekit"), run("tensorflow"), repeats=11), 1.02)
