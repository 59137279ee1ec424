"""What `tapekit.explain` costs beside the first call of the compiled gradient, and beside a trace, of the same loss."""

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


def encoder(blocks: int = 4, width: int = 128, heads: int = 4, length: int = 64) -> keras.Model:
    """An encoder like BERT's: embeddings, self-attention, layer normalization, a classifier on the first token."""
    layers = keras.layers
    tokens = keras.Input((length,), dtype="int32")
    x = layers.Embedding(1000, width)(tokens) + layers.Embedding(length, width)(tf.range(length)[None])
    x = layers.LayerNormalization()(x)
    for _ in range(blocks):
        attended = layers.MultiHeadAttention(heads, width // heads)(x, x)
        x = layers.LayerNormalization()(x + layers.Dropout(0.1)(attended))
        hidden = layers.Dense(4 * width, activation="gelu")(x)
        x = layers.LayerNormalization()(x + layers.Dropout(0.1)(layers.Dense(width)(hidden)))
    return keras.Model(tokens, layers.Dense(2)(x[:, 0]))


def against_the_first_call(model: keras.Model, data: tf.Tensor, *, training: bool = True) -> float:
    """The time of `explain` where all is fine, over that of the first call of the compiled gradient."""
    variables = model.trainable_variables
    model(data)

    def loss() -> tf.Tensor:
        return tf.reduce_mean(model(data, training=training) ** 2)

    def compiled() -> None:
        tf.function(lambda: tapekit.gradient(loss, variables))()

    compiled()  # warms TensorFlow up
    first = [seconds(compiled), seconds(compiled)]
    explained = [seconds(lambda: tapekit.explain(loss, variables)) for _ in range(2)]
    return min(explained) / min(first)


def rows() -> Iterator[Row]:
    image = tf.random.stateless_uniform([1, 224, 224, 3], [1, 2])
    # in training, EfficientNet drops whole blocks, whose gradients are 0
    for name, training in (("MobileNetV3Small", True), ("EfficientNetB0", False)):
        model = getattr(keras.applications, name)(weights=None)
        ratio = against_the_first_call(model, image, training=training)
        yield Row(f"explain {name}, all fine", "the first call of its compiled gradient", ratio, 1.8)
    ratio = against_the_first_call(encoder(), tf.random.stateless_uniform([2, 64], [1, 2], 0, 1000, tf.int32))
    yield Row("explain a BERT-like encoder, all fine", "the first call of its compiled gradient", ratio, 1.8)

    model = keras.applications.ResNet50(weights=None)
    variables = model.trainable_variables

    def fine() -> tf.Tensor:
        return tf.reduce_mean(model(image) ** 2)

    def cut() -> tf.Tensor:
        return tf.reduce_mean(tf.round(model(image)))

    def dead() -> tf.Tensor:
        return tf.reduce_mean(tf.nn.relu(-1.0 - model(image)))

    trace = [seconds(lambda: tapekit.trace(fine, variables)) for _ in range(2)][1]  # the first warms TensorFlow up
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
    yield Row("explain 200 variables: runs of fn", "one, for all of them", len(runs), 1, "runs")
