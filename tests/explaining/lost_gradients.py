"""Programs that lose a gradient, and healthy ones that look like them: what `explain` is tried on.

A program is a function that gives ``(fn, vars)``; the comment ``# here`` marks the line at fault.
"""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf


class Program(NamedTuple):
    """`make` gives ``(fn, vars)``; `causes` has, for each source, its cause (None where it is fine)."""

    make: Callable
    causes: tuple
    op: str | None

    def line(self) -> int | None:
        lines, first = inspect.getsourcelines(self.make)
        marked = [first + i for i, line in enumerate(lines) if line.rstrip().endswith("# here")]
        return marked[0] if marked else None


SICK: list[Program] = []
HEALTHY: list[Program] = []


def loses(*causes, op=None):
    return lambda make: SICK.append(Program(make, causes, op)) or make


def keeps(make):
    HEALTHY.append(Program(make, (), None))
    return make


def dense(units, **kwargs):
    return keras.layers.Dense(units, **kwargs)


# ------------------------------------------------------------------ not used


@loses("not_used", None)
def a_forgotten_term():
    w, b = tf.Variable(2.0, name="w"), tf.Variable(1.0, name="b")
    x = tf.constant([1.0, 2.0])

    def fn():
        return tf.reduce_sum(b * x)

    return fn, [w, b]


@loses("not_used", None)
def data_that_equals_the_unused_variable_by_chance():
    w, b = tf.Variable([1.0, 2.0], name="w"), tf.Variable(1.0, name="b")
    x = tf.constant([1.0, 2.0])
    return (lambda: tf.reduce_sum(b * x)), [w, b]


@loses("not_used")
def an_unused_argument():
    return (lambda a, b=2.0: tf.constant(3.0) * b), [tf.constant(1.0)]


@loses(None, None, "not_used", "not_used")
def a_head_that_the_loss_leaves_out():
    body, used, unused = dense(3), dense(1), dense(1)
    x = tf.ones([2, 4])
    used(body(x)), unused(body(x))

    def fn():
        return tf.reduce_mean(used(body(x)) ** 2)

    return fn, [body.kernel, used.kernel, *unused.trainable_variables]


@loses("not_used")
def only_the_shape():
    w = tf.Variable(tf.ones([3, 2]))

    def fn():
        return tf.cast(tf.shape(w)[0], tf.float32) * 2.0  # here

    return fn, [w]


@loses("not_used")
def a_count_of_what_a_mask_keeps():
    w, mask = tf.Variable([0.3, 0.7, 0.9]), tf.constant([True, False, True])

    def fn():
        kept = tf.boolean_mask(w, mask)
        return tf.cast(tf.size(kept), tf.float32)  # here

    return fn, [w]


@loses("not_used")
def a_constant_slope():
    def fn(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = 3.0 * x
        return tape.gradient(y, x)

    return fn, [tf.constant(2.0)]


# ------------------------------------------------------------------ computed before


@loses("not_used", None)
def a_hidden_layer_computed_before():
    x, y = tf.random.normal([4, 2]), tf.random.normal([4, 1])
    first, second = tf.Variable(tf.ones([2, 3]), name="first"), tf.Variable(tf.ones([3, 1]), name="second")
    hidden = tf.nn.relu(x @ first)  # here

    def fn():
        return tf.reduce_mean((hidden @ second - y) ** 2)

    return fn, [first, second]


@loses("outside_tape")
def a_prediction_computed_before():
    w = tf.Variable(3.0, name="w")
    prediction = w * tf.constant([1.0, 2.0])  # here

    def fn():
        return tf.reduce_sum((prediction - 1.0) ** 2)

    return fn, [w]


@loses("outside_tape", None)
def a_kernel_scaled_in_build():
    class Scaled(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 2), name="kernel")
            self.bias = self.add_weight(shape=(2,), name="bias")
            self.scaled = 0.1 * tf.convert_to_tensor(self.kernel)  # here

        def call(self, x):
            return x @ self.scaled + self.bias

    layer, x = Scaled(), tf.ones([3, 4])
    layer(x)

    def fn():
        return tf.reduce_sum(layer(x) ** 2)

    return fn, [layer.kernel, layer.bias]


@loses("outside_tape")
def a_result_of_two_steps_before():
    w = tf.Variable([1.0, 2.0], name="w")
    halves = w / 2.0
    total = tf.reduce_sum(halves)  # here

    def fn():
        return total**2

    return fn, [w]


# ------------------------------------------------------------------ another object


@loses("outside_tape")
def a_copy_is_used():
    w = tf.Variable([0.3, 0.7], name="w")
    copy = tf.identity(w)  # here

    def fn():
        return tf.reduce_sum(copy**2)

    return fn, [w]


@loses("not_used", None)
def a_row_taken_before():
    table, v = tf.Variable([[0.3, 0.7], [1.5, 2.5]], name="table"), tf.Variable(1.0)
    row = table[1]  # here

    def fn():
        return v * tf.reduce_sum(row**2)

    return fn, [table, v]


@loses("replaced_by_tensor")
def a_step_that_rebinds_the_name():
    w = tf.Variable([0.31, 0.72], name="w")
    variables = [w]
    w = w - 0.1 * tf.constant([1.0, 2.0])  # here

    def fn():
        return tf.reduce_sum(w**2)

    return fn, variables


@loses("wrong_tensor")
def a_clone_is_called():
    model, x = keras.Sequential([dense(3)]), tf.ones([1, 2])
    model(x)
    clone = keras.models.clone_model(model)
    clone(x)
    clone.set_weights(model.get_weights())

    def fn():
        return tf.reduce_sum(clone(x))  # here

    return fn, [model.layers[0].kernel]


@loses("wrong_tensor")
def the_array_is_fed_not_the_tensor():
    net, picture = dense(1), np.random.default_rng(1).normal(size=(2, 5)).astype("float32")
    net(picture)
    watched = tf.constant(picture)

    def fn():
        return tf.reduce_sum(net(picture))  # here

    return fn, [watched]


# ------------------------------------------------------------------ made anew inside


@loses("rewrapped", op="tf.Variable")
def a_new_variable_inside():
    w = tf.Variable([1.0, 2.0])

    def fn():
        copy = tf.Variable(w * 2.0)  # here
        return tf.reduce_sum(copy**2)

    return fn, [w]


@loses("rewrapped", op="tf.constant")
def a_constant_of_a_variable():
    w = tf.Variable([1.0, 2.0])

    def fn():
        frozen = tf.constant(w)  # here
        return tf.reduce_sum(frozen**2)

    return fn, [w]


# ------------------------------------------------------------------ out of TensorFlow


@loses("left_tensorflow", op="np.sin")
def numpy_on_the_way():
    x = tf.Variable(0.5)

    def fn():
        y = np.sin(x)  # here
        return tf.constant(2.0) * y

    return fn, [x]


@loses("left_tensorflow", op="float")
def a_float_on_the_way():
    def fn(x):
        y = x * 3.0
        return tf.square(float(y))  # here

    return fn, [tf.constant(2.0)]


@loses("left_tensorflow", None)
def numpy_in_one_branch():
    a, b = tf.Variable([1.0, 2.0]), tf.Variable([3.0, 4.0])

    def fn():
        frozen = (a * 2.0).numpy()  # here
        return tf.reduce_sum(frozen * b)

    return fn, [a, b]


@loses("left_tensorflow", "left_tensorflow")
def predict_in_place_of_call():
    model, x = keras.Sequential([dense(2)]), np.ones([3, 4], "float32")
    model(x)

    def fn():
        scores = model.predict(x, verbose=0)  # here
        return tf.reduce_mean(tf.square(scores - 1.0))

    return fn, model.trainable_variables


@loses("left_tensorflow", op="tf.numpy_function")
def a_numpy_function():
    w = tf.Variable([1.0, -2.0])

    def fn():
        y = tf.numpy_function(lambda a: np.abs(a), [w * 2.0], tf.float32)  # here
        return tf.reduce_sum(y)

    return fn, [w]


@loses("left_tensorflow", op="tf.py_function")
def a_py_function_with_numpy_in_it():
    w = tf.Variable([1.0, 2.0])

    def body(a):
        return np.exp(a.numpy())

    def fn():
        return tf.reduce_sum(tf.py_function(body, [w], tf.float32))  # here

    return fn, [w]


@loses("left_tensorflow")
def a_penalty_from_get_weights():
    layer = dense(2)
    layer.build((None, 3))

    def fn():
        return tf.reduce_sum(tf.square(layer.get_weights()[0]))  # here

    return fn, [layer.kernel]


@loses("left_tensorflow")
def a_list_of_python_numbers():
    w = tf.Variable([1.0, 2.0, 3.0])

    def fn():
        parts = [v**2 for v in w.numpy().tolist()]  # here
        return tf.add_n([tf.constant(p) for p in parts])

    return fn, [w]


# ------------------------------------------------------------------ integers


@loses("integer_dtype")
def an_integer_variable():
    w = tf.Variable(3)  # here

    def fn():
        return tf.cast(w, tf.float32) ** 2

    return fn, [w]


@loses(None, "integer_dtype")
def an_index():
    def fn(table, rows):
        return tf.reduce_sum(tf.gather(table, rows) ** 2)  # here

    return fn, [tf.constant([1.0, 2.0]), tf.constant([0, 1, 1])]


@loses("integer_dtype", op="Cast")
def a_cast_to_int():
    w = tf.Variable(2.7)

    def fn():
        whole = tf.cast(w * 2.0, tf.int32)  # here
        return tf.cast(whole, tf.float32) ** 2

    return fn, [w]


@loses("integer_dtype", op="Cast")
def a_target_of_whole_numbers():
    w = tf.Variable(2.7)

    def fn():
        return tf.cast(w**2, tf.int64)  # here

    return fn, [w]


@loses("integer_dtype", op="Cast")
def a_cast_inside_an_embedding():
    embed = keras.layers.Embedding(5, 3)
    embed(tf.zeros([1]))

    def fn(ids):
        return tf.reduce_sum(embed(ids))  # here

    return fn, [tf.constant([1.0, 3.0])]


# ------------------------------------------------------------------ no derivative


@loses("non_differentiable_op", op="Round")
def a_round():
    w = tf.Variable([0.4, 1.6])

    def fn():
        steps = tf.round(w * 3.0)  # here
        return tf.reduce_sum(steps**2)

    return fn, [w]


@loses("non_differentiable_op", op="Floor")
def a_floor_in_a_helper():
    w = tf.Variable(2.3)

    def bucket(x):
        return tf.floor(x / 0.5)  # here

    def fn():
        return bucket(w) * 4.0

    return fn, [w]


@loses("non_differentiable_op", "non_differentiable_op", op="ArgMax")
def an_argmax_before_the_loss():
    model, x, y = keras.Sequential([dense(3)]), tf.random.normal([4, 2]), tf.constant([0.0, 1.0, 2.0, 1.0])
    model(x)

    def fn():
        scores = model(x)
        labels = tf.argmax(scores, axis=-1)  # here
        return tf.reduce_mean((tf.cast(labels, tf.float32) - y) ** 2)

    return fn, model.trainable_variables


@loses("non_differentiable_op", op="Greater")
def an_accuracy_as_loss():
    w, x = tf.Variable([[1.0], [0.5]]), tf.random.normal([5, 2])

    def fn():
        hits = (x @ w) > 0.0  # here
        return tf.reduce_mean(tf.cast(hits, tf.float32))

    return fn, [w]


@loses("non_differentiable_op", op="Sign")
def a_sign():
    w = tf.Variable([0.4, -1.6])

    def fn():
        return tf.reduce_sum(tf.sign(w) * 2.0)  # here

    return fn, [w]


@loses("non_differentiable_op")
def an_argsort():
    w = tf.Variable([0.4, -1.6, 0.9])

    def fn():
        order = tf.argsort(w)  # here
        return tf.reduce_sum(tf.cast(order, tf.float32) * [1.0, 2.0, 3.0])

    return fn, [w]


@loses("non_differentiable_op")
def a_categorical_sample():
    logits = tf.Variable([[0.4, 1.6]])

    def fn():
        picked = tf.random.categorical(logits, 3)  # here
        return tf.reduce_mean(tf.cast(picked, tf.float32))

    return fn, [logits]


@loses("non_differentiable_op", op="RandomPoissonV2")
def a_poisson_sample():
    rate = tf.Variable([1.0, 2.0])

    def fn():
        return tf.reduce_sum(tf.random.poisson([], rate))  # here

    return fn, [rate]


@loses("non_differentiable_op")
def a_histogram():
    w = tf.Variable([0.1, 0.5, 0.9])

    def fn():
        counts = tf.histogram_fixed_width(w, [0.0, 1.0], 4)  # here
        return tf.reduce_sum(tf.cast(counts, tf.float32) ** 2)

    return fn, [w]


@loses("non_differentiable_op")
def a_searchsorted():
    w = tf.Variable([0.1, 0.5])

    def fn():
        bins = tf.searchsorted([0.0, 0.3, 0.6], w)  # here
        return tf.reduce_sum(tf.cast(bins, tf.float32))

    return fn, [w]


@loses("non_differentiable_op", op="Round")
def a_round_inside_a_tf_function():
    w = tf.Variable(2.4)

    @tf.function
    def quantize(x):
        return tf.round(x * 8.0) / 8.0  # here

    return (lambda: quantize(w) ** 2), [w]


@loses("non_differentiable_op", op="Round")
def a_round_on_both_ways():
    w = tf.Variable([2.4, 0.3])

    def fn():
        mask = tf.cast(w > 1.0, tf.float32)
        return tf.reduce_sum(mask * tf.round(w))  # here

    return fn, [w]


@loses("non_differentiable_op", op="Round")
def a_round_in_a_branch():
    w = tf.Variable([2.4, 0.3])

    def fn():
        return tf.cond(w[0] > 0.0, lambda: tf.reduce_sum(tf.round(w)), lambda: tf.reduce_sum(w))  # here

    return fn, [w]


@loses("non_differentiable_op", op="Floor")
def a_floor_in_a_loop():
    def fn(x):
        return tf.reduce_sum(tf.map_fn(lambda v: tf.floor(v) * 2.0, x))  # here

    return fn, [tf.constant([1.5, 2.5])]


@loses("not_used", None)
def a_variable_of_the_branch_not_taken():
    a, b = tf.Variable(2.0), tf.Variable(3.0)
    return (lambda: tf.cond(b > 0.0, lambda: b**2, lambda: a * b)), [a, b]


# ------------------------------------------------------------------ stopped


@loses("stop_gradient", None, op="StopGradient")
def a_frozen_encoder():
    a, b = tf.Variable(2.0), tf.Variable(3.0)

    def fn():
        code = tf.stop_gradient(a**2)  # here
        return code * b

    return fn, [a, b]


@loses("stop_gradient", None, op="StopGradient")
def a_bellman_target():
    model, x = keras.Sequential([dense(1)]), tf.ones([2, 3])
    model(x)
    target = tf.Variable(1.0, name="target")

    def fn():
        goal = tf.stop_gradient(target * 0.9)  # here
        return tf.reduce_mean((model(x) - goal) ** 2)

    return fn, [target, model.trainable_variables[0]]


# ------------------------------------------------------------------ state


@loses("stateful", None)
def a_value_through_assign():
    step, total = tf.Variable(0.5), tf.Variable(1.0)

    def fn():
        total.assign_add(step * 2.0)  # here
        return total**2

    return fn, [step, total]


@loses("stateful")
def a_value_assigned_into_a_layer():
    layer, x = dense(1, use_bias=False), tf.ones([2, 3])
    layer(x)

    def fn(w):
        layer.kernel.assign(w)  # here
        return tf.reduce_sum(layer(x) ** 2)

    return fn, [tf.constant([[0.5], [1.0], [2.0]])]


@loses("stateful")
def a_table_filled_in_a_loop():
    w = tf.Variable([1.0, 2.0, 3.0])
    table = tf.Variable(tf.zeros([3]))

    def fn():
        for i in range(3):
            table[i].assign(w[i] ** 2)  # here
        return tf.reduce_sum(table)

    return fn, [w]


@loses("stateful", "stateful")
def a_metric_as_loss():
    model, x, y = keras.Sequential([dense(1)]), tf.ones([2, 3]), tf.zeros([2, 1])
    model(x)
    metric = keras.metrics.MeanSquaredError()
    metric.update_state(y, model(x))

    def fn():
        metric.update_state(y, model(x))  # here
        return metric.result()

    return fn, model.trainable_variables


# ------------------------------------------------------------------ custom gradients


@loses("custom_gradient")
def a_custom_gradient_of_none():
    @tf.custom_gradient
    def mystery(x):
        return x * 2.0, lambda dy: None

    w = tf.Variable([1.0, 2.0])

    def fn():
        return tf.reduce_sum(mystery(w))  # here

    return fn, [w]


@loses("custom_gradient")
def a_custom_gradient_of_zero():
    @tf.custom_gradient
    def mystery(x):
        def grad(dy):
            return dy * 0.0  # here

        return tf.round(x), grad

    w = tf.Variable([1.0, 2.0])

    def fn():
        return tf.reduce_sum(mystery(w * 2.0))

    return fn, [w]


# ------------------------------------------------------------------ zero


@loses("zero", "zero", op="Relu")
def a_dead_relu():
    net, x = dense(2, bias_initializer=keras.initializers.Constant(-9.0)), tf.random.uniform([4, 2])
    net(x)

    def fn():
        return tf.reduce_mean((tf.nn.relu(net(x)) - 1.0) ** 2)  # here

    return fn, net.trainable_variables


@loses("zero", op="tf.clip_by_value")
def a_clip():
    w = tf.Variable([12.0, 30.0])

    def fn():
        return tf.reduce_sum(tf.clip_by_value(w * 2.0, -1.0, 1.0))  # here

    return fn, [w]


@loses("zero")
def an_inactive_hinge():
    w = tf.Variable([3.0, 4.0])

    def fn():
        margin = 1.0 - w
        return tf.reduce_sum(tf.maximum(margin, 0.0))  # here

    return fn, [w]


@loses("zero", op="Sub")
def an_exact_cancellation():
    w = tf.Variable(3.0)

    def fn():
        y = w**2
        return y - y  # here

    return fn, [w]


@loses("zero", op="Mul")
def a_weight_of_zero():
    w, weight = tf.Variable([1.0, 2.0]), tf.constant(0.0)

    def fn():
        penalty = tf.reduce_sum(w**2)
        return weight * penalty  # here

    return fn, [w]


@loses("zero", op="Sigmoid")
def a_saturated_sigmoid():
    w = tf.Variable([200.0, 300.0])

    def fn():
        p = tf.sigmoid(w)  # here
        return tf.reduce_sum((p - 0.5) ** 2)

    return fn, [w]


@loses("zero", op="Softmax")
def a_softmax_of_one():
    w = tf.Variable([[2.0], [3.0]])

    def fn():
        return tf.reduce_sum(tf.nn.softmax(w) * 3.0)  # here

    return fn, [w]


@loses("zero")
def a_branch_not_taken():
    w = tf.Variable([1.0, 2.0])

    def fn():
        return tf.reduce_sum(tf.where(w < 0.0, w * 2.0, 1.0))  # here

    return fn, [w]


# ------------------------------------------------------------------ NaN and inf


@loses("nan", op="Log")
def a_where_trap():
    def fn(x):
        return tf.reduce_sum(tf.where(x > 0.0, tf.math.log(x), 0.0))  # here

    return fn, [tf.constant([0.0, 2.0])]


@loses("nan", op="Sqrt")
def a_root_of_zero():
    w = tf.Variable([0.0, 4.0])

    def fn():
        return tf.reduce_sum(tf.sqrt(w * 2.0))  # here

    return fn, [w]


@loses("nan", op="tf.norm")
def a_distance_of_zero():
    def fn(a, b=(1.0, 2.0)):
        return tf.norm(a - b)  # here

    return fn, [tf.constant([1.0, 2.0])]


@loses("nan", op="Pow")
def a_power_below_one():
    def fn(x):
        return tf.reduce_sum(x**0.5)  # here

    return fn, [tf.constant([0.0, 1.0])]


@loses("nan", op="Exp")
def an_overflow():
    w = tf.Variable([100.0, 1.0])

    def fn():
        weights = tf.exp(w)  # here
        return tf.reduce_sum(weights / tf.reduce_sum(weights))

    return fn, [w]


@loses("nan", None)
def a_log_of_a_negative():
    a, b = tf.Variable(2.0), tf.Variable(-1.0)

    def fn():
        return a * tf.math.log(b)  # here

    return fn, [a, b]


@loses("nan", None, op="Log")
def a_log_of_a_negative_two_steps_before():
    a, b = tf.Variable(2.0), tf.Variable(-1.0)

    def fn():
        logs = tf.math.log(b)  # here
        scores = logs * 2.0 + 1.0
        return a * scores

    return fn, [a, b]


@loses("nan")
def a_nan_in_the_data():
    w, x = tf.Variable(2.0), tf.constant([1.0, np.nan])

    def fn():
        return tf.reduce_sum(w * x)  # here

    return fn, [w]


@loses("nan", op="RealDiv")
def a_division_by_zero():
    def fn(x):
        return tf.reduce_sum(1.0 / x)  # here

    return fn, [tf.constant([0.0, 1.0])]


# ================================================================== healthy


@keeps
def a_plain_product():
    w = tf.Variable(2.0)
    return (lambda: w * 3.0), [w]


@keeps
def a_tensor_argument():
    return (lambda x: tf.sin(x)), [tf.constant(2.0)]


@keeps
def a_tensor_closed_over():
    x = tf.constant([1.0, 2.0])
    return (lambda: tf.reduce_sum(x**2)), [x]


@keeps
def a_straight_through_estimator():
    w = tf.Variable([0.2, 1.7])
    return (lambda: tf.reduce_sum(w + tf.stop_gradient(tf.round(w) - w))), [w]


@keeps
def a_gather_by_argmax():
    w = tf.Variable([0.2, 1.7])
    return (lambda: tf.gather(w, tf.argmax(w)) ** 2), [w]


@keeps
def a_mask_from_a_comparison():
    w = tf.Variable([0.2, -1.7])
    return (lambda: tf.reduce_sum(tf.where(w > 0.0, w**2, 0.1 * w))), [w]


@keeps
def a_safe_where():
    x = tf.Variable([0.0, 2.0])
    return (lambda: tf.reduce_sum(tf.where(x > 0.0, tf.math.log(tf.where(x > 0.0, x, 1.0)), x))), [x]


@keeps
def a_number_printed_on_the_way():
    w = tf.Variable([0.2, 1.7])

    def fn():
        loss = tf.reduce_sum(w**2)
        assert float(loss) > 0.0
        return loss

    return fn, [w]


@keeps
def a_python_if_on_a_value():
    def fn(x):
        if x > 1.0:
            return x**2
        return 3.0 * x

    return fn, [tf.constant(2.0)]


@keeps
def a_python_loop_over_a_value():
    n = tf.constant(3)

    def fn(x):
        for _ in range(int(n)):
            x = x * 2.0
        return x

    return fn, [tf.constant(2.0)]


@keeps
def a_variable_made_inside_for_counting():
    w = tf.Variable(2.0)

    def fn():
        count = tf.Variable(0.0)
        count.assign_add(1.0)
        return w**2 * count

    return fn, [w]


@keeps
def a_constant_of_a_tensor():
    w = tf.Variable([1.0, 2.0])
    return (lambda: tf.reduce_sum(tf.constant(w * 2.0) ** 2)), [w]


@keeps
def a_counter_assigned_after():
    w, count = tf.Variable(2.0), tf.Variable(0)

    def fn():
        loss = w**2
        count.assign_add(1)
        return loss

    return fn, [w]


@keeps
def a_batch_norm_in_training():
    net, x = keras.Sequential([dense(3), keras.layers.BatchNormalization(), dense(1)]), tf.random.normal([6, 2])
    net(x)
    return (lambda: tf.reduce_mean((net(x, training=True) - 1.0) ** 2)), [
        net.layers[0].kernel,
        net.layers[1].gamma,
        net.layers[2].kernel,
    ]


@keeps
def a_dropout():
    net, x = keras.Sequential([dense(32), keras.layers.Dropout(0.5), dense(1)]), tf.random.normal([6, 2])
    net(x)
    return (lambda: tf.reduce_mean((net(x, training=True) - 1.0) ** 2)), net.trainable_variables


@keeps
def a_layer_not_built_yet():
    net, x, w = dense(2), tf.ones([2, 3]), tf.Variable(tf.ones([3]))
    return (lambda: tf.reduce_sum(net(x * w) ** 2)), [w]


@keeps
def an_embedding():
    embed = keras.layers.Embedding(5, 3)
    embed(tf.zeros([1]))
    return (lambda: tf.reduce_sum(embed(tf.constant([1, 1, 2])) ** 2)), embed.trainable_variables


@keeps
def a_recurrent_layer():
    net, x = keras.layers.GRU(3), tf.random.normal([2, 4, 2])
    net(x)
    return (lambda: tf.reduce_sum(net(x) ** 2)), net.trainable_variables


@keeps
def a_while_loop():
    def fn(x):
        return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * x), [0, tf.constant(1.0)])[1]

    return fn, [tf.constant(2.0)]


@keeps
def a_tf_map():
    return (lambda x: tf.reduce_sum(tf.map_fn(lambda v: v**2, x))), [tf.constant([1.0, 2.0])]


@keeps
def a_custom_gradient_that_gives_one():
    @tf.custom_gradient
    def step(x):
        return tf.round(x), lambda dy: dy

    w = tf.Variable([0.4, 1.6])
    return (lambda: tf.reduce_sum(step(w))), [w]


@keeps
def a_py_function_in_tensorflow():
    w = tf.Variable([0.4, 1.6])
    return (lambda: tf.reduce_sum(tf.py_function(lambda a: a * a, [w], tf.float32))), [w]


@keeps
def an_xla_function():
    w = tf.Variable([0.4, 1.6])

    @tf.function(jit_compile=True)
    def square(x):
        return tf.reduce_sum(x * x)

    return (lambda: square(w)), [w]


@keeps
def a_complex_detour():
    w = tf.Variable([0.4, 1.6])
    return (lambda: tf.reduce_sum(tf.abs(tf.signal.fft(tf.cast(w, tf.complex64))) ** 2)), [w]


@keeps
def a_higher_derivative():
    def fn(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x**3
        return tape.gradient(y, x)

    return fn, [tf.constant(2.0)]


@keeps
def a_target_of_two_parts():
    a, b = tf.Variable(2.0), tf.Variable([1.0, 2.0])
    return (lambda: {"one": a * b, "two": b**2}), [a, b]


@keeps
def a_dead_unit_among_others():
    w = tf.Variable([[1.0, -1.0]])
    return (lambda: tf.reduce_sum(tf.nn.relu(tf.ones([2, 1]) @ w))), [w]
