"""Whatever the program and the depth, a trace is the whole calculation: no edge is lost."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tapekit import trace
from tapekit.tracing.folding import model_scope

W = tf.Variable([[0.5, -1.0, 2.0], [1.5, 0.3, -0.7]], name="w")
LABELS = tf.constant([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def check_whole(found):
    """Every input names a record, names are unique, and from every source with a gradient a way leads to the target."""
    records = [*found.sources, *found.constants, *found.ops]
    names = [op.name for op in records]
    assert len(set(names)) == len(names)
    assert {name for op in found.ops for name in op.inputs} <= set(names)
    assert found.target.name in names
    reached, stack = set(), [found.target.name]
    while stack:
        name = stack.pop()
        reached.add(name)
        stack += [feed for feed in found[name].inputs if feed not in reached]
    assert {op.name for op in found.sources if op.gradient is not None} <= reached
    assert {op.name for op in (*found.ops, *found.constants)} <= reached


def check_folded_alike(now, later):
    """Folding while `trace` runs, and folding a whole trace, give the same records and gradients."""
    assert [(op.name, op.type, op.inputs, op.scope) for op in now.ops] == [
        (op.name, op.type, op.inputs, op.scope) for op in later.ops
    ]
    for one, other in zip(now.ops, later.ops, strict=True):
        for a, b in zip((one.gradient, *one.contributions), (other.gradient, *other.contributions), strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def scaled(x, name="scaled"):
    with tf.name_scope(name) as scope:
        return tf.multiply(tf.sin(x), tf.cos(x) + tf.sin(x), name=scope)


def nested_scopes(x):
    for _ in range(2):
        with tf.name_scope("block"):
            x = scaled(x) + scaled(x, "other")
            with tf.name_scope("inner"):
                x = scaled(x * 2.0) - tf.nn.l2_normalize(x)
    return tf.reduce_sum(x)


def two_outputs(x):
    with tf.name_scope("both"):
        a, b = tf.sin(x), tf.cos(x)
        c = a * b
    return tf.reduce_sum(a + c) + tf.reduce_sum(c * 2.0)


PROGRAMS = {
    "l2_normalize": lambda: tf.reduce_sum(tf.nn.l2_normalize(W)),
    "sigmoid_cross_entropy": lambda: tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(LABELS, W)),
    "weighted_cross_entropy": lambda: tf.reduce_mean(tf.nn.weighted_cross_entropy_with_logits(LABELS, W, 2.0)),
    "softmax_cross_entropy": lambda: tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(LABELS, W)),
    "division_by_a_list": lambda: tf.reduce_sum(W / [1.0, 2.0, 3.0]),
    "tensordot": lambda: tf.reduce_sum(tf.tensordot(W, tf.transpose(W), 1)),
    "logsumexp": lambda: tf.reduce_sum(tf.reduce_logsumexp(W, 1)),
    "norm": lambda: tf.norm(W) + tf.reduce_sum(tf.nn.moments(W, [0])[1]),
    "std": lambda: tf.reduce_sum(tf.math.reduce_std(W, 0)) * tf.reduce_max(W),
    "einsum": lambda: tf.reduce_sum(tf.einsum("ij,kj->ik", W, W)),
    "batch_normalization": lambda: tf.reduce_sum(tf.nn.batch_normalization(W, *tf.nn.moments(W, [0]), 1.0, W, 1e-3)),
    "split_and_stack": lambda: tf.reduce_sum(tf.stack(tf.split(W, 3, 1)) * 2.0 + tf.unstack(W, axis=0)[0]),
    "scope_as_operation": lambda: tf.reduce_sum(scaled(scaled(W))),
    "nested_scopes": lambda: nested_scopes(W),
    "two_outputs": lambda: two_outputs(W),
    "map_fn": lambda: tf.reduce_sum(tf.map_fn(scaled, W) * scaled(W)),
    "while_loop": lambda: tf.reduce_sum(tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, scaled(a)), (0, W))[1]),
    "cond": lambda: tf.reduce_sum(tf.cond(tf.reduce_sum(W) > 0, lambda: scaled(W), lambda: W)),
    "gather": lambda: tf.reduce_sum(tf.gather(W, [0, 0, 1]) ** 2),
    "rounded": lambda: tf.reduce_sum(tf.round(scaled(W)) * W),
    "where": lambda: tf.reduce_sum(tf.where(W > 0, scaled(W), tf.nn.l2_normalize(W))),
    "several_results": lambda: {"a": scaled(W), "b": tf.nn.l2_normalize(W)},
    "source_is_target": lambda: W,
    "clip_by_norm": lambda: tf.reduce_sum(tf.clip_by_norm(W, 1.0) * tf.clip_by_value(W, -1.0, 1.0)),
    "conv": lambda: tf.reduce_sum(tf.nn.conv1d(W[None], W[:, :, None], 1, "SAME")),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_edge_is_lost_in_a_program(name):
    whole = trace(PROGRAMS[name], W)
    check_whole(whole)
    for depth in (1, 2, 3):
        folded = whole.fold(depth)
        check_whole(folded)
        check_whole(folded.fold(1))
        if depth < 3:
            now = trace(PROGRAMS[name], W, depth=depth)
            check_whole(now)
            check_folded_alike(now, folded)


def sequential():
    layers = [keras.layers.Dense(4, "gelu", name="a"), keras.layers.LayerNormalization(name="n")]
    return keras.Sequential([keras.Input([3]), *layers, keras.layers.Dense(2, name="b")], name="net")


def convolutional():
    x = inputs = keras.Input([8, 8, 1])
    for stage in range(2):
        x = keras.layers.Conv2D(3, 3, activation="relu", name=f"stage{stage}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"stage{stage}_norm")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(keras.layers.GlobalAveragePooling2D()(x)))


class Block(keras.layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.attention = keras.layers.MultiHeadAttention(2, 3, name="attention")
        self.add, self.norm = keras.layers.Add(name="add"), keras.layers.LayerNormalization(name="norm")
        self.dense = keras.layers.Dense(4, "gelu", name="dense")

    def build(self, shape):
        self.attention.build(shape, shape)
        self.norm.build(shape)
        self.dense.build(shape)

    def call(self, x):
        x = self.norm(self.add([x, self.attention(x, x)]))
        return self.add([x, self.dense(x)])


def transformer():
    inputs = keras.Input([5, 4])
    x = Block(name="block_1")(Block(name="block_0")(inputs))
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(x), name="transformer")


def recurrent():
    layers = [keras.layers.LSTM(3, return_sequences=True), keras.layers.GRU(2, unroll=True)]
    return keras.Sequential([keras.Input([4, 3]), *layers, keras.layers.Dense(1)])


def shared():
    inputs, layer = keras.Input([3]), keras.layers.Dense(3, "tanh", name="shared")
    return keras.Model(inputs, keras.layers.Add(name="add")([layer(inputs), layer(layer(inputs))]), name="twice")


@pytest.mark.parametrize("make", [sequential, convolutional, transformer, recurrent, shared])
@pytest.mark.parametrize("by_input", [False, True])
def test_no_edge_is_lost_in_a_model(make, by_input):
    keras.utils.set_random_seed(0)
    model = make()
    data = tf.random.stateless_normal([2, *model.input_shape[1:]], [1, 2])

    def loss(x=data):
        return tf.reduce_mean(keras.losses.mean_squared_error(tf.ones([2, 1]), model(x, training=True)))

    sources, fn = ([data], lambda x: loss(x)) if by_input else (model.trainable_variables, loss)
    whole = trace(fn, sources)
    check_whole(whole)
    check_whole(whole.fold(3))
    for depth in (1, 2):
        now = trace(fn, sources, depth=depth)
        check_whole(now)
        check_whole(now.fold(1))
        check_folded_alike(now, whole.fold(depth))


def test_the_input_of_a_normalised_sum_is_the_normalisation():
    found = trace(lambda: tf.reduce_sum(tf.nn.l2_normalize(W)), W, depth=1)
    assert [(op.name, op.inputs) for op in found.ops] == [("l2_normalize", ("w",)), ("Sum", ("l2_normalize",))]


@pytest.mark.parametrize(
    ("fn", "scope"),
    [
        (lambda: tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(LABELS, W)), "logistic_loss"),
        (lambda: tf.reduce_sum(scaled(W)), "scaled"),
        (lambda: tf.reduce_sum(tf.reduce_logsumexp(W, 1)), "ReduceLogSumExp"),
    ],
)
def test_an_operation_that_bears_the_name_of_its_scope_belongs_to_it(fn, scope):
    (op,) = (op for op in trace(fn, W, depth=1).ops if op.name == scope)
    assert (op.type, op.scope) == ("Scope", scope)


def test_a_constant_named_below_an_operation_makes_no_scope_of_it():
    found = trace(lambda x: x * 2.0, 3.0, depth=1)
    assert [(op.type, op.inputs, op.local[0]) for op in found.ops] == [("Mul", ("x", "mul/y"), 2)]


def nested_model(x):
    """Scopes as tf_keras, Sonnet and Hugging Face open them: one for the model, blocks inside, and a loss outside."""
    with tf.name_scope("model"), tf.name_scope("encoder"):
        for block in range(3):
            with tf.name_scope(f"block_{block}"):
                with tf.name_scope("dense"):
                    x = tf.tanh(x @ WEIGHTS[block])
                with tf.name_scope("add"):
                    x = x + 1.0 + tf.sin(x)
    with tf.name_scope("loss"):
        return tf.reduce_mean(tf.square(x - 1.0))


WEIGHTS = [tf.Variable(tf.eye(3) / 2, name=f"model/encoder/block_{block}/dense/kernel") for block in range(3)]


@pytest.mark.parametrize("as_sources", [True, False])
def test_depth_counts_from_the_scope_that_first_divides(as_sources):
    x = tf.ones([2, 3])
    found = trace(lambda: nested_model(x), WEIGHTS) if as_sources else trace(nested_model, x)
    assert found.model == "model/encoder"
    blocks = [f"model/encoder/block_{block}" for block in range(3)]
    assert [op.name for op in found.fold(1).ops] == [*blocks, "loss"]
    inner = [f"{block}/{layer}" for block in blocks for layer in ("dense", "add")]
    assert [op.name for op in found.fold(2).ops] == [*inner, "loss"]
    check_whole(found.fold(1))
    check_whole(found.fold(2))


def test_the_model_is_the_innermost_scope_with_nearly_all_weights_that_is_divided():
    assert model_scope(["net/a", "net/b", "loss"], ["net/a", "net/b"]) == "net"
    assert model_scope(["net/body/a", "net/body/b", "net/head"], ["net/body/a"] * 9 + ["net/head"]) == "net/body"
    assert model_scope(["net/body/a", "net/body/b", "net/head"], ["net/body/a"] * 8 + ["net/head"]) == "net"
    assert model_scope(["a", "b"], ["a", "a"]) == ""
    assert model_scope(["", "net/a"], ["", "net/a"]) == ""
    assert model_scope([], []) == ""


def test_two_passes_and_layers_of_the_same_name_are_told_apart():
    model = transformer()
    found = trace(lambda: model(tf.ones([2, 5, 4])), model.trainable_variables, depth=2)
    names = [op.name for op in found.ops]
    assert {"transformer/block_0/add", "transformer/block_1/add"} <= set(names)
    assert {"transformer/block_0/add (2)", "transformer/block_1/add (2)"} <= set(names)


def test_a_scope_with_two_outputs_is_numbered_as_two_passes_are():
    def passes(x):
        with tf.name_scope("net"):
            with tf.name_scope("dense/"):  # as tf_keras opens the scope of a layer again
                first = tf.tanh(x * W)
            with tf.name_scope("dense/"):
                second = tf.tanh(tf.sin(first) * W)
            return tf.reduce_sum(first * second)

    found = trace(passes, [tf.ones([2, 3])], depth=1)
    assert [op.name for op in found.ops if op.scope == "dense"] == ["dense", "dense (2)"]
    check_whole(found)
