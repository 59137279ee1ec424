"""Programs in which a gradient is lost, each with its twin, which does what the printed advice says; and healthy ones.

A program takes `repaired` and returns ``(fn, vars)``; the comment ``# here`` marks the line at fault.
"""
# ruff: noqa: B007, E731, E741, F821, F841, RUF034, RUF059 - the programs are wrong on purpose

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf


class Program(NamedTuple):
    """`make` returns ``(fn, vars)``; the finding of the first source has `status`, one of `causes`, and `says`."""

    make: Callable
    status: str
    causes: tuple = ()
    says: tuple = ()
    op: str | None = None
    twin: bool = True
    mark: str = "# here"


SICK: list[Program] = []
NOTED: list[Program] = []
HEALTHY: list[Program] = []
D = keras.layers.Dense
L = keras.layers


def sick(status, *causes, says=(), op=None, twin=True):
    says = (says,) if isinstance(says, str) else says
    return lambda make: SICK.append(Program(make, status, causes, says, op, twin)) or make


def noted(*says):
    return lambda make: NOTED.append(Program(make, "ok", (), says)) or make


def healthy(make):
    HEALTHY.append(Program(make, "ok"))
    return make


# ---- item 1
@noted("Round")
def a_round(repaired):
    m = tf.Variable(2.0, name="m")
    return (lambda: (tf.round(3 * m) - 2) ** 2 + m**2), m


@noted("StopGradient")
def a_stop(repaired):
    m = tf.Variable(2.0, name="m")
    return (lambda: tf.stop_gradient(3 * m) * 2 + m**2), m


@noted("numpy")
def a_numpy(repaired):
    m = tf.Variable(2.0, name="m")
    return (lambda: (tf.constant((3 * m).numpy()) - 2) ** 2 + m**2), m


@noted("predict")
def a_predict(repaired):
    model = keras.Sequential([D(1)])
    x = np.ones([2, 3], "float32")
    model(x)

    def fn():
        return tf.reduce_mean((model(x) - model.predict(x, verbose=0) - 1.0) ** 2)

    return fn, model.trainable_variables[0]


@noted("StopGradient")
def a_actor_critic(repaired):
    actor, critic = keras.Sequential([D(2)]), keras.Sequential([D(1)])
    s = tf.random.normal([5, 3])
    actor(s)
    critic(s)

    def fn():
        v = critic(s)
        adv = tf.stop_gradient(1.0 - v)
        logp = tf.nn.log_softmax(actor(s))[:, :1]
        return tf.reduce_mean(-logp * adv) + tf.reduce_mean((v - 1.0) ** 2)

    return fn, [critic.layers[0].kernel, actor.layers[0].kernel]


@noted("float")
def a_float(repaired):
    w = tf.Variable([1.0, 2.0], name="w")

    def fn():
        scale = float(tf.reduce_sum(w))
        return tf.reduce_sum(w**2) * scale

    return fn, w


@noted("ArgMax")
def a_argmax(repaired):
    w = tf.Variable([1.0, 2.0], name="w")

    def fn():
        k = tf.cast(tf.argmax(w), tf.float32)
        return tf.reduce_sum(w**2) + k * w[0]

    return fn, w


# ---- item 2
@sick("none", "non_differentiable_op", op="Round")
def a_len(repaired):
    w = tf.Variable([1.2, 2.3], name="w")

    def fn():
        z = 2.0 * w
        count = len(z)
        return tf.reduce_sum(z if repaired else tf.round(z)) / count  # here

    return fn, w


@sick("none", "non_differentiable_op", op="Floor")
def a_range(repaired):
    w = tf.Variable([1.2, 2.3], name="w")

    def fn():
        t = tf.constant(0.0)
        for i in range(tf.shape(w)[0]):
            t += w[i]
        return (t if repaired else tf.floor(t)) * 2.0  # here

    return fn, w


@sick("none", "non_differentiable_op", op="Round")
def a_float_if(repaired):
    w = tf.Variable([1.2, 2.3], name="w")

    def fn():
        loss = tf.reduce_sum(w)
        if float(loss) > 1:
            loss = loss * 2.0
        return (loss + tf.stop_gradient(tf.round(loss) - loss)) if repaired else tf.round(loss)  # here

    return fn, w


@sick("error", "", says=("columns",), twin=False)
def a_layer_error(repaired):
    class L(keras.layers.Layer):
        def call(self, x):
            raise ValueError("3 columns needed")

    l = L()
    x = tf.ones([2, 2])
    w = tf.Variable(1.0)
    return (lambda: tf.reduce_sum(l(x * w))), w


# ---- item 3
@sick("none", "left_tensorflow", says=("numpy",))
def a_softmax_numpy(repaired):
    b = tf.Variable([1.0, 2.0, 3.0], name="b")
    c = tf.constant([1.0, 2.0, 4.0])

    def fn():
        p = tf.nn.softmax(b) if repaired else tf.constant(tf.nn.softmax(b).numpy())  # here
        return tf.reduce_sum(p * c)

    return fn, b


@sick("none", "left_tensorflow")
def a_centred_numpy(repaired):
    b = tf.Variable([1.0, 2.0, 4.0], name="b")

    def fn():
        d = (b - tf.reduce_mean(b)) if repaired else (b - tf.reduce_mean(b)).numpy()  # here
        return tf.reduce_sum(tf.square(d))

    return fn, b


@sick("none", "not_used", twin=False)
def a_printed_only(repaired):
    b, c = tf.Variable([1.0, 2.0, 4.0], name="b"), tf.Variable(2.0, name="c")

    def fn():
        print_me = c.numpy()
        return tf.reduce_sum(tf.square(c))

    return fn, [b, c]


# ---- item 4
@sick("none", "outside_tape", "not_used", "wrong_tensor", says=("cost",))
def a_cost_itself(repaired):
    y = tf.Variable([1.0, 2.0], name="y")
    cost = tf.reduce_sum(y**2)  # here
    return ((lambda: tf.reduce_sum(y**2)) if repaired else (lambda: cost)), y


@sick("none", "outside_tape", "not_used", "wrong_tensor", says=("cost",))
def a_cost_plus(repaired):
    y = tf.Variable([1.0, 2.0], name="y")
    cost = tf.reduce_sum(y**2)  # here
    return (lambda: tf.reduce_sum(y**2) + 0.0 if repaired else cost + 0.0), y


@sick("none", "outside_tape", "not_used", says=("feats",))
def a_features_tuple(repaired):
    w = tf.Variable(tf.ones([3, 2]), name="w")
    x = tf.random.normal([4, 3])
    feats, n = tf.nn.relu(x @ w), 4  # here

    def fn():
        h = tf.nn.relu(x @ w) if repaired else feats
        return tf.reduce_mean(h**2) * n

    return fn, w


@sick("none", "outside_tape", "not_used")
def a_method_attr(repaired):
    class Net:
        def __init__(self):
            self.w = tf.Variable(tf.ones([3, 2]), name="w")
            self.x = tf.random.normal([4, 3])
            self.forward()

        def forward(self):
            self.h = self.x @ self.w  # here

        def loss(self):
            h = self.x @ self.w if repaired else self.h
            return tf.reduce_mean(h**2)

    net = Net()
    return net.loss, net.w


@sick("none", "outside_tape", "not_used")
def a_loop_target(repaired):
    w = tf.Variable([1.0, 2.0], name="w")
    for out in [w * 1.0, w * 2.0, w * 3.0]:  # here
        pass

    def fn():
        return tf.reduce_sum((w if repaired else out) ** 2)

    return fn, w


@sick("none", "outside_tape", "not_used")
def a_dict_store(repaired):
    w = tf.Variable(tf.ones([2, 5]), name="w")
    cache = {}
    cache["h"] = tf.tanh(tf.ones([3, 2]) @ w)  # here

    def fn():
        h = tf.tanh(tf.ones([3, 2]) @ w) if repaired else cache["h"]
        return tf.reduce_sum(h**2)

    return fn, w


@sick("none", "outside_tape", "not_used", "wrong_tensor")
def a_complex_ready(repaired):
    w = tf.Variable([1.0, 2.0], name="w")
    spec = tf.signal.fft(tf.cast(w, tf.complex64))  # here

    def fn():
        s = tf.signal.fft(tf.cast(w, tf.complex64)) if repaired else spec
        return tf.reduce_sum(tf.abs(s) ** 2)

    return fn, w


@sick("none", "replaced_by_tensor")
def a_rebound(repaired):
    w = tf.Variable([1.0, 2.0])
    vs = [w]
    for _ in range(2):
        g = tf.constant([0.1, 0.2])
        if repaired:
            w.assign_sub(g)
        else:
            w = w - g  # here
    return (lambda: tf.reduce_sum(w**2)), vs


@sick("none", "outside_tape", "not_used", "stateful")
def a_sparse(repaired):
    w = tf.Variable([1.0, 2.0], name="w")
    sp = tf.SparseTensor([[0, 0], [1, 1]], w * 2.0, [2, 2])  # here

    def fn():
        s = tf.SparseTensor([[0, 0], [1, 1]], w * 2.0, [2, 2]) if repaired else sp
        return tf.reduce_sum(tf.sparse.sparse_dense_matmul(s, tf.ones([2, 1])))

    return fn, w


# ---- item 5
def pinn(kind):
    def make(repaired):
        net = keras.Sequential([D(4, activation="tanh"), D(1)])
        x = tf.linspace(0.1, 1.0, 5)[:, None]
        net(x)
        w = tf.Variable(1.5, name="w")

        def fn():
            with tf.GradientTape() as second:
                second.watch(x)
                with tf.GradientTape() as first:
                    if kind != "unwatched" or repaired:
                        first.watch(x)
                    u = w * x if kind == "linear" else w * net(x)
                    if kind == "outside" and repaired:
                        u_x = None
                u_x = first.gradient(u, x)  # unwatched
            if kind == "outside" and not repaired:
                u_x = u_x
            kw = {"unconnected_gradients": "zero"} if repaired and kind == "linear" else {}
            u_xx = second.gradient(u_x, x, **kw)  # linear
            return tf.reduce_mean((u_xx + 1.0 + w * x) ** 2)

        return fn, w

    make.__name__ = "pinn_" + kind
    return make


SICK.append(Program(pinn("linear"), "none", ("not_used",), ("second.gradient",), "second.gradient", True, "# linear"))
SICK.append(
    Program(
        pinn("unwatched"), "none", ("not_watched",), ("first.gradient", "watch"), "first.gradient", True, "# unwatched"
    )
)


@sick("none", "outside_tape", says="inside the with block")
def a_inner_outside(repaired):
    w = tf.Variable(1.5, name="w")
    x = tf.constant([1.0, 2.0])

    def fn():
        u = w * x**2
        with tf.GradientTape() as t:
            t.watch(x)
            if repaired:
                u = w * x**2
        du = t.gradient(u, x)  # here
        return tf.reduce_sum(du * 2.0)

    return fn, w


@sick("none", "left_tensorflow", op="tf.py_function")
def a_pyfunc_matmul(repaired):
    w = tf.Variable(tf.ones([3, 2]), name="w")
    x = tf.ones([4, 3])

    def fn():
        h = x @ w
        y = tf.nn.relu(h) if repaired else tf.py_function(lambda a: np.maximum(a.numpy(), 0.0), [h], tf.float32)  # here
        return tf.reduce_sum(y)

    return fn, w


# ---- item 6
@sick("zero", "zero", op="Maximum")
def a_overlap(repaired):
    box = tf.Variable([1.0, 1.5], name="box")

    def fn():
        overlap = tf.maximum(box - (0.5 if repaired else 2.0), 0.0)  # here
        return tf.reduce_sum(overlap / (box + 1.0 - overlap))

    return fn, box


@sick("zero", "zero", op="Maximum")
def a_hinge_square(repaired):
    w = tf.Variable([3.0, 4.0], name="w")

    def fn():
        gap = tf.maximum((5.0 if repaired else 1.0) - w, 0.0)  # here
        return tf.reduce_sum(tf.square(gap))

    return fn, w


@sick("zero", "zero", op="Relu")
def a_relu_product(repaired):
    w = tf.Variable([1.0, 2.0], name="w")

    def fn():
        gate = tf.nn.leaky_relu(-w) if repaired else tf.nn.relu(-w)  # here
        return tf.reduce_sum(gate * w * w)

    return fn, w


@sick("zero", "zero", op="Relu", says=("second derivative", "tanh"))
def a_pinn_relu(repaired):
    w1, w2 = tf.Variable(tf.random.normal([1, 4], seed=1)), tf.Variable(tf.random.normal([4, 1], seed=2))
    x = tf.linspace(0.1, 1.0, 5)[:, None]

    def fn():
        with tf.GradientTape() as second:
            second.watch(x)
            with tf.GradientTape() as first:
                first.watch(x)
                h = tf.tanh(x @ w1) if repaired else tf.nn.relu(x @ w1)  # here
                u = h @ w2
            u_x = first.gradient(u, x)
        u_xx = second.gradient(u_x, x)
        return tf.reduce_mean((u_xx + 1.0) ** 2)

    return fn, [w1, w2]


@sick("zero", "zero", op="Relu", says=("second derivative", "tanh"))
def a_pinn_relu_keras(repaired):
    net = keras.Sequential([D(4, activation="tanh" if repaired else "relu", bias_initializer="ones"), D(1)])
    x = tf.linspace(0.1, 1.0, 5)[:, None]
    net(x)

    def fn():
        with tf.GradientTape() as second:
            second.watch(x)
            with tf.GradientTape() as first:
                first.watch(x)
                u = net(x)
            u_x = first.gradient(u, x)
        u_xx = second.gradient(u_x, x)
        return tf.reduce_mean((u_xx + 1.0) ** 2)

    return fn, net.layers[0].kernel


@sick("zero", "zero", says=("0",), twin=False, op="Mul")
def a_mask_zero(repaired):
    w, mask = tf.Variable([1.0, 2.0], name="w"), tf.constant([0.0, 0.0])

    def fn():
        return tf.reduce_sum(w * mask)  # here

    return fn, w


@sick("zero", "zero", op="MatMul", twin=False)
def a_zero_head(repaired):
    a, b = tf.Variable(tf.ones([3, 2]), name="a"), tf.Variable(tf.zeros([2, 1]), name="b")
    x = tf.ones([4, 3])

    def fn():
        h = x @ a
        return tf.reduce_sum(h @ b)  # here

    return fn, [a, b]


# ---- item 7
@sick("not_finite", "nan", says=("65504", "float32"))
def a_half(repaired):
    g = tf.Variable(tf.constant([3.0, 4.0], tf.float32 if repaired else tf.float16), name="g")

    def fn():
        return tf.reduce_sum(g**2) * 60000.0  # here

    return fn, g


@sick("not_finite", "nan", says=("float32",), op="Exp")
def a_exp_over(repaired):
    w = tf.Variable([100.0, 1.0], name="w")

    def fn():
        if repaired:
            return tf.reduce_logsumexp(w)
        e = tf.exp(w)  # here
        return tf.math.log(tf.reduce_sum(e))

    return fn, w


@sick("zero", "nan", says=("float32",), twin=False)
def a_square_over(repaired):
    w = tf.Variable([1e30, 1.0], name="w")

    def fn():
        s = tf.square(w)  # here
        return tf.sqrt(tf.reduce_sum(s))

    return fn, w


@noted("not finite")
def a_inf_value(repaired):
    w = tf.Variable(tf.constant([300.0, 200.0], tf.float16), name="w")
    return (lambda: tf.reduce_sum(w * 400.0)), w


# ---- item 8
@noted("-1e9")
def a_inf_const(repaired):
    w = tf.Variable([[1.0, 2.0], [3.0, 4.0]], name="w")
    mask = tf.constant([[True, True], [False, False]])

    def fn():
        s = tf.where(mask, -1e9 if repaired else -np.inf, w)  # here
        return tf.reduce_sum(tf.nn.softmax(s)[:, 0])

    return fn, w


@sick("not_finite", "nan", says=("-1e9",))
def a_inf_add(repaired):
    w = tf.Variable([[1.0, 2.0], [3.0, 4.0]], name="w")
    pad = tf.constant([[1.0, 1.0], [0.0, 0.0]])

    def fn():
        big = tf.fill([2, 2], -1e9 if repaired else float("-inf"))  # here
        s = w + tf.where(pad > 0, big, tf.zeros([2, 2]))
        return tf.reduce_sum(tf.nn.softmax(s)[:, 0])

    return fn, w


# ---- item 9
@sick("not_finite", "nan", op="Sqrt", says=("1e-12",))
def a_slope_inner(repaired):
    w = tf.Variable(1.0, name="w")
    x = tf.constant([0.0, 1.0])

    def fn():
        with tf.GradientTape() as t:
            t.watch(x)
            y = tf.sqrt(x + (1e-12 if repaired else 0.0)) * w  # here
        d = t.gradient(y, x)
        return tf.reduce_sum(d**2)

    return fn, w


@sick("not_finite", "nan", op="Pow")
def a_second_pow(repaired):
    x = tf.Variable([0.0, 1.0], name="x")

    def fn():
        with tf.GradientTape() as t:
            y = tf.reduce_sum((tf.maximum(x, 1e-6) if repaired else x) ** 1.5)  # here
        d = t.gradient(y, x)
        return tf.reduce_sum(d)

    return fn, x


# ---- item 10
@sick("not_finite", "nan", op="Acos", says=("clip",))
def a_acos(repaired):
    x = tf.Variable([1.0, 0.3], name="x")

    def fn():
        c = tf.clip_by_value(x, -1 + 1e-6, 1 - 1e-6) if repaired else x
        return tf.reduce_sum(tf.acos(c))  # here

    return fn, x


@sick("not_finite", "nan", op="Erfinv", says=("clip",))
def a_erfinv(repaired):
    x = tf.Variable([1.0, 0.3], name="x")

    def fn():
        c = tf.clip_by_value(x, -1 + 1e-6, 1 - 1e-6) if repaired else x
        return tf.reduce_sum(tf.math.erfinv(c))  # here

    return fn, x


@sick("not_finite", "nan", op="Atan2")
def a_atan2(repaired):
    y, x = tf.Variable(0.0, name="y"), tf.Variable(0.0, name="x")

    def fn():
        return tf.atan2(y, x + 1e-12 if repaired else x)  # here

    return fn, [y, x]


@sick("not_finite", "nan", op="tf.norm", says=("1e-12",))
def a_norm(repaired):
    a = tf.Variable([0.0, 0.0], name="a")

    def fn():
        return (tf.sqrt(tf.reduce_sum(a**2) + 1e-12) + tf.reduce_sum(a)) if repaired else tf.norm(a)  # here

    return fn, a


@sick("not_finite", "nan", op="Log")
def a_log_softmax(repaired):
    z = tf.Variable([[200.0, -200.0]], name="z")

    def fn():
        if repaired:
            return -tf.reduce_sum(tf.nn.log_softmax(z)[:, 1])
        p = tf.nn.softmax(z)
        return -tf.reduce_sum(tf.math.log(p)[:, 1])  # here

    return fn, z


@sick("zero", "zero", says=("logits",))
def a_sigmoid_bce(repaired):
    z = tf.Variable([[200.0], [300.0]], name="z")
    y = tf.zeros([2, 1])

    def fn():
        if repaired:
            return tf.reduce_mean(keras.losses.binary_crossentropy(y, z, from_logits=True))
        p = tf.sigmoid(z)  # here
        return tf.reduce_mean((p - y) ** 2)

    return fn, z


@sick("zero", "zero", says=("equal",), twin=False)
def a_svd(repaired):
    w = tf.Variable(tf.eye(3), name="w")

    def fn():
        s, u, v = tf.linalg.svd(w)  # here
        return tf.reduce_sum(u * [[1.0, 2.0, 3.0]] * 3) + tf.reduce_sum(v)

    return fn, w


@sick("none", "non_differentiable_op", says=("log-prob",), twin=False)
def a_draw_class(repaired):
    logits = tf.Variable([[0.1, 0.2]], name="logits")

    def fn():
        a = tf.random.categorical(logits, 4)  # here
        return tf.reduce_mean(tf.cast(a, tf.float32))

    return fn, logits


@sick("none", "non_differentiable_op", says=("std",), twin=False)
def a_draw_trunc(repaired):
    mu = tf.Variable([0.1, 0.2], name="mu")

    def fn():
        a = tf.raw_ops.ParameterizedTruncatedNormal(  # here
            shape=[2], means=mu, stdevs=[1.0, 1.0], minvals=[-9.0, -9.0], maxvals=[9.0, 9.0]
        )
        return tf.reduce_mean(a)

    return fn, mu


@sick("none", "non_differentiable_op", "integer_dtype", twin=False)
def a_strings(repaired):
    mu = tf.Variable([0.1, 0.2], name="mu")

    def fn():
        t = tf.strings.as_string(mu)  # here
        return tf.reduce_sum(tf.strings.to_number(t))

    return fn, mu


@sick("none", "integer_dtype", "non_differentiable_op", twin=False)
def a_int_div(repaired):
    w = tf.Variable([3.0, 5.0], name="w")

    def fn():
        k = tf.cast(w, tf.int32) // 2  # here
        return tf.reduce_sum(tf.cast(k, tf.float32))

    return fn, w


@sick("none", "non_differentiable_op", twin=False)
def a_floordiv(repaired):
    w = tf.Variable([3.0, 5.0], name="w")

    def fn():
        return tf.reduce_sum((w // 2.0) * 2.0)  # here

    return fn, w


@sick("zero", "zero", says=("range",))
def a_fakequant(repaired):
    w = tf.Variable([30.0, 50.0], name="w")

    def fn():
        q = tf.quantization.fake_quant_with_min_max_args(  # here
            w, min=-100.0 if repaired else -6.0, max=100.0 if repaired else 6.0
        )
        return tf.reduce_sum(q**2)

    return fn, w


@sick("not_finite", "nan", twin=False, says=("positive definite",))
def a_logdet(repaired):
    w = tf.Variable([[1.0, 2.0], [2.0, 4.0]], name="w")

    def fn():
        return tf.linalg.logdet(w)  # here

    return fn, w


# ---- item 11
@sick("none", "left_tensorflow", says=("numpy",))
def a_chain_numpy(repaired):
    w = tf.Variable([1.0, 2.0], name="w")

    def fn():
        y = tf.reduce_sum(tf.square(w)) if repaired else tf.reduce_sum(tf.square(w)).numpy()  # here
        return tf.constant(2.0) * y

    return fn, w


@sick("none", "not_used", says=("losses",))
def a_add_loss(repaired):
    class KL(keras.layers.Layer):
        def build(self, s):
            self.mu = self.add_weight(shape=(2,), name="mu", initializer="ones")

        def call(self, x):
            self.add_loss(tf.reduce_sum(self.mu**2))
            return x

    model = keras.Sequential([KL(), D(1)])
    x = tf.ones([2, 2])
    model(x)

    def fn():
        loss = tf.reduce_mean(model(x) ** 2)
        return loss + sum(model.losses) if repaired else loss

    return fn, model.layers[0].mu


@sick("none", "not_used", twin=False)
def a_unused_result(repaired):
    w, v = tf.Variable([1.0, 2.0], name="w"), tf.Variable(1.0)

    def fn():
        reg = tf.reduce_sum(w**2)  # here
        return v**2

    return fn, [w, v]


# ---- item 14
@noted("Also read", "rate")
def a_also(repaired):
    w, rate = tf.Variable(2.0, name="w"), tf.Variable(3.0, name="rate")
    return (lambda: w * rate), w


@noted("[16, 16]")
def a_square(repaired):
    w = tf.Variable(2.0, name="w")
    x, y = tf.random.normal([16, 1]), tf.random.normal([16])

    def fn():
        p = w * x
        return tf.reduce_mean((y - p) ** 2)

    return fn, w


@noted("[8, 8]")
def a_square_keras(repaired):
    m = keras.Sequential([D(1)])
    x, y = tf.random.normal([8, 3]), tf.random.normal([8])
    m(x)

    def fn():
        e = tf.math.squared_difference(m(x), y)
        return tf.reduce_mean(e)

    return fn, m.trainable_variables


# ---- healthy
def healthy_model(name, build, loss, shape, train=True):
    def make(repaired):
        model = build()
        x = tf.random.normal(shape, seed=1)
        model(x)
        return (lambda: loss(model(x, training=train))), model.trainable_variables

    make.__name__ = name
    healthy(make)


def mse(y):
    return tf.reduce_mean((y - 0.3) ** 2)


healthy_model("mlp", lambda: keras.Sequential([D(8, "relu"), D(1)]), mse, [4, 3])
healthy_model("bn", lambda: keras.Sequential([D(8), L.BatchNormalization(), D(1)]), mse, [4, 3])
healthy_model("ln", lambda: keras.Sequential([D(8), L.LayerNormalization(), D(1)]), mse, [4, 3])
healthy_model(
    "gn",
    lambda: keras.Sequential([L.Conv2D(8, 3), L.GroupNormalization(4), L.GlobalAveragePooling2D(), D(1)]),
    mse,
    [2, 8, 8, 3],
)
healthy_model("sn", lambda: keras.Sequential([L.SpectralNormalization(D(8)), D(1)]), mse, [4, 3])
healthy_model("dropout", lambda: keras.Sequential([D(32), L.Dropout(0.3), D(1)]), mse, [4, 3])
healthy_model("lstm", lambda: keras.Sequential([L.LSTM(4), D(1)]), mse, [2, 5, 3])
healthy_model("gru", lambda: keras.Sequential([L.GRU(4, return_sequences=True), D(1)]), mse, [2, 5, 3])
healthy_model("bilstm", lambda: keras.Sequential([L.Bidirectional(L.LSTM(4)), D(1)]), mse, [2, 5, 3])
healthy_model(
    "conv",
    lambda: keras.Sequential([L.Conv2D(4, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(), D(3)]),
    lambda y: tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(tf.constant([0, 1]), y, from_logits=True)),
    [2, 8, 8, 3],
)
healthy_model("prelu", lambda: keras.Sequential([D(8), L.PReLU(), D(1)]), mse, [4, 3])
healthy_model("unit", lambda: keras.Sequential([D(8), L.UnitNormalization(), D(1)]), mse, [4, 3])
healthy_model(
    "softmax_cce",
    lambda: keras.Sequential([D(3, activation="softmax")]),
    lambda y: tf.reduce_mean(keras.losses.categorical_crossentropy(tf.one_hot([0, 1, 2, 0], 3), y)),
    [4, 3],
)
healthy_model(
    "bce",
    lambda: keras.Sequential([D(1, activation="sigmoid")]),
    lambda y: tf.reduce_mean(keras.losses.binary_crossentropy(tf.ones([4, 1]), y)),
    [4, 3],
)
healthy_model(
    "focal",
    lambda: keras.Sequential([D(1, activation="sigmoid")]),
    lambda y: tf.reduce_mean(keras.losses.binary_focal_crossentropy(tf.ones([4, 1]), y)),
    [4, 3],
)
healthy_model(
    "huber", lambda: keras.Sequential([D(1)]), lambda y: tf.reduce_mean(keras.losses.huber(tf.ones([4, 1]), y)), [4, 3]
)
healthy_model(
    "logcosh",
    lambda: keras.Sequential([D(1)]),
    lambda y: tf.reduce_mean(keras.losses.log_cosh(tf.ones([4, 1]), y)),
    [4, 3],
)
healthy_model(
    "kld",
    lambda: keras.Sequential([D(3, activation="softmax")]),
    lambda y: tf.reduce_mean(keras.losses.kl_divergence(tf.nn.softmax(tf.ones([4, 3])), y)),
    [4, 3],
)
healthy_model(
    "cosine",
    lambda: keras.Sequential([D(3)]),
    lambda y: tf.reduce_mean(keras.losses.cosine_similarity(tf.random.normal([4, 3]), y)),
    [4, 3],
)
healthy_model(
    "dice",
    lambda: keras.Sequential([D(3, activation="sigmoid")]),
    lambda y: keras.losses.dice(tf.ones([4, 3]), y),
    [4, 3],
)
healthy_model("lse", lambda: keras.Sequential([D(3)]), lambda y: tf.reduce_mean(tf.reduce_logsumexp(y, 1)), [4, 3])
healthy_model(
    "upsample",
    lambda: keras.Sequential([L.Conv2DTranspose(4, 3, strides=2), L.UpSampling2D(), L.Conv2D(1, 1)]),
    mse,
    [2, 4, 4, 3],
)
healthy_model(
    "sep",
    lambda: keras.Sequential([L.SeparableConv2D(4, 3), L.DepthwiseConv2D(3), L.GlobalMaxPooling2D(), D(1)]),
    mse,
    [2, 8, 8, 3],
)


def attn():
    i = keras.Input((6, 8))
    a = L.MultiHeadAttention(2, 4)(i, i, use_causal_mask=True)
    return keras.Model(i, D(1)(L.Add()([i, a])))


healthy_model("attention", attn, mse, [2, 6, 8])


def embedded():
    i = keras.Input((6,))
    x = L.Embedding(20, 8, mask_zero=True)(i)
    return keras.Model(i, D(1)(L.LSTM(4)(x)))


@healthy
def a_embed(repaired):
    m = embedded()
    ids = np.array([[1, 2, 0, 0, 0, 0], [3, 4, 5, 0, 0, 0]])
    m(ids)
    return (lambda: mse(m(ids))), m.trainable_variables


@healthy
def a_sampled_vae(repaired):
    enc, dec = D(4), D(3)
    x = tf.random.normal([5, 3])
    dec(enc(x)[:, :2])

    def fn():
        mu, lv = tf.split(enc(x), 2, 1)
        z = mu + tf.exp(0.5 * lv) * tf.random.normal(tf.shape(mu))
        return tf.reduce_mean((dec(z) - x) ** 2) - 0.5 * tf.reduce_mean(1 + lv - mu**2 - tf.exp(lv))

    return fn, enc.trainable_variables + dec.trainable_variables


@healthy
def a_mask(repaired):
    m = keras.Sequential([D(1)])
    x = tf.random.normal([6, 2])
    m(x)

    def fn():
        y = m(x)
        mask = tf.cast(y > 0.0, tf.float32)
        return tf.reduce_sum(mask * y**2) / tf.maximum(tf.reduce_sum(mask), 1.0) + tf.reduce_mean(y**2)

    return fn, m.trainable_variables


@healthy
def a_ste(repaired):
    w = tf.Variable([0.2, 1.4])
    return (lambda: tf.reduce_sum((w + tf.stop_gradient(tf.round(w) - w)) ** 2)), w


@healthy
def a_topk(repaired):
    w = tf.Variable([0.2, 1.4, 0.7])
    return (lambda: tf.reduce_sum(tf.nn.top_k(w, 2)[0] ** 2)), w


@healthy
def a_sort_idx(repaired):
    w = tf.Variable([0.2, 1.4, 0.7])
    return (lambda: tf.reduce_sum(tf.gather(w, tf.argsort(w)) * [1.0, 2.0, 3.0])), w


@healthy
def a_triplet(repaired):
    m = keras.Sequential([D(4)])
    x = tf.random.normal([6, 3])
    m(x)

    def fn():
        e = tf.math.l2_normalize(m(x), 1)
        d = tf.reduce_sum((e[:, None] - e[None]) ** 2, -1)
        hard = tf.reduce_max(d, 1)
        return tf.reduce_mean(tf.nn.relu(hard - tf.reduce_min(d + 9.0 * tf.eye(6), 1) + 0.5))

    return fn, m.trainable_variables


@healthy
def a_gan_penalty(repaired):
    c = keras.Sequential([D(8, activation="tanh"), D(1)])
    x = tf.random.normal([5, 3])
    c(x)

    def fn():
        with tf.GradientTape() as t:
            t.watch(x)
            y = c(x)
        g = t.gradient(y, x)
        return tf.reduce_mean((tf.sqrt(tf.reduce_sum(g**2, 1) + 1e-9) - 1.0) ** 2) + tf.reduce_mean(y) ** 2

    return fn, c.trainable_variables[:3]


@healthy
def a_ctc(repaired):
    m = keras.Sequential([D(5)])
    x = tf.random.normal([2, 7, 3])
    m(x)
    return (
        lambda: tf.reduce_mean(
            tf.nn.ctc_loss(tf.constant([[1, 2], [2, 3]]), m(x), [2, 2], [7, 7], logits_time_major=False, blank_index=0)
        )
    ), m.trainable_variables


@healthy
def a_iou(repaired):
    b = tf.Variable([[0.0, 0.0, 2.0, 2.0]])
    t = tf.constant([[1.0, 1.0, 3.0, 3.0]])

    def fn():
        lt = tf.maximum(b[:, :2], t[:, :2])
        rb = tf.minimum(b[:, 2:], t[:, 2:])
        wh = tf.maximum(rb - lt, 0.0)
        inter = wh[:, 0] * wh[:, 1]
        area = lambda q: (q[:, 2] - q[:, 0]) * (q[:, 3] - q[:, 1])
        return tf.reduce_mean(1 - inter / (area(b) + area(t) - inter))

    return fn, b


@noted("Round")
def a_tf_function(repaired):
    m = tf.Variable(2.0, name="m")

    @tf.function
    def loss(a):
        return tf.round(a) * 2.0 + a**2

    return (lambda: loss(m)), m


@noted("Floor")
def a_module_class(repaired):
    class M(tf.Module):
        def __init__(self):
            self.w = tf.Variable([1.5, 2.5], name="w")

        def __call__(self, x):
            return tf.reduce_sum(tf.floor(self.w * x) + self.w)

    mod = M()
    x = tf.constant([2.0, 3.0])
    return (lambda: mod(x)), mod.trainable_variables[0]


@noted("StopGradient")
def a_vae_stop(repaired):
    enc, dec = D(2), D(3)
    x = tf.random.normal([4, 3])
    dec(enc(x))

    def fn():
        z = enc(x)
        q = tf.stop_gradient(z)
        return tf.reduce_mean((dec(q) - x) ** 2) + 1e-3 * tf.reduce_mean(z**2)

    return fn, enc.trainable_variables


@noted("get_weights")
def a_get_weights(repaired):
    l = D(2)
    x = tf.ones([3, 2])
    l(x)

    def fn():
        return tf.reduce_mean(l(x) ** 2) + 0.1 * tf.reduce_sum(tf.square(l.get_weights()[0] + 1.0))

    return fn, l.kernel


@noted("Sign")
def a_sign(repaired):
    w = tf.Variable([1.5, -2.5], name="w")
    return (lambda: tf.reduce_sum(tf.sign(w) * 2.0 + w**2)), w


@noted("Cast")
def a_cast(repaired):
    w = tf.Variable([1.5, 2.5], name="w")
    return (lambda: tf.reduce_sum(tf.cast(tf.cast(w, tf.int32), tf.float32) * w)), w


@noted("tf.numpy_function")
def a_npf(repaired):
    w = tf.Variable([1.5, 2.5], name="w")
    return (lambda: tf.reduce_sum(tf.numpy_function(lambda a: a * 2, [w], tf.float32) * w)), w


@noted("custom_gradient")
def a_custom(repaired):
    @tf.custom_gradient
    def f(x):
        return x * 3.0, lambda dy: None

    w = tf.Variable([1.5, 2.5], name="w")
    return (lambda: tf.reduce_sum(f(w) + w**2)), w


@noted("s.assign")
def a_state(repaired):
    w, s = tf.Variable(2.0, name="w"), tf.Variable(0.0, name="s")

    def fn():
        s.assign(w * 3.0)
        return s * 2.0 + w**2

    return fn, w


@sick("none", "non_differentiable_op", op="Round")
def a_for_tensor(repaired):
    w = tf.Variable([1.2, 2.3, 3.1], name="w")

    def fn():
        out = 0.0
        for v in w * 2.0:
            out += v if repaired else tf.round(v)  # here
        return out

    return fn, w


@sick("none", "non_differentiable_op", op="Round")
def a_branch_in_a_loop(repaired):
    w = tf.Variable([1.2, 2.3], name="w")

    def fn():
        total = tf.constant(0.0)
        for i in tf.range(2):
            part = w[i] * 2.0
            if part > 1.0:
                part = part if repaired else tf.round(part)  # here
            total = total + part
        return total

    return fn, w


@sick("none", "stop_gradient", op="StopGradient")
def a_stop_in_a_while_loop(repaired):
    w = tf.Variable([1.2, 2.3], name="w")

    def body(i, total):
        part = w[i] * 3.0
        if not repaired:
            part = tf.stop_gradient(part)  # here
        return i + 1, total + part

    return (lambda: tf.while_loop(lambda i, total: i < 2, body, (0, 0.0))[1]), w


@sick("none", "non_differentiable_op", op="Floor")
def a_floor_in_a_branch(repaired):
    w = tf.Variable([1.2, 2.3], name="w")

    def fn():
        def positive():
            doubled = w * 2.0
            return doubled if repaired else tf.floor(doubled)  # here

        return tf.cond(tf.reduce_sum(w) > 0.0, positive, lambda: w * 2.0)

    return fn, w


@sick("none", "integer_dtype")
def a_cast_in_a_branch_in_a_loop(repaired):
    w = tf.Variable([1.2, 2.3], name="w")

    def fn():
        total = tf.constant(0.0)
        for v in w:
            if v > 1.0:
                total += v if repaired else tf.cast(tf.cast(v, tf.int32), tf.float32)  # here
        return total

    return fn, w


@sick("none", "non_differentiable_op", op="Floor")
def a_floor_in_a_switch(repaired):
    w = tf.Variable([1.2, 2.3], name="w")

    def fn():
        def second():
            return tf.reduce_sum(w if repaired else tf.floor(w))  # here

        return tf.switch_case(tf.constant(1), [lambda: tf.reduce_sum(w), second])

    return fn, w


@sick("none", "non_differentiable_op", op="ArgMax")
def a_while_py(repaired):
    w = tf.Variable([1.2, 2.3, 3.1], name="w")

    def fn():
        s = tf.reduce_sum(w)
        while s > 1.0:
            s = s / 2.0
        return s * 1.0 if repaired else tf.cast(tf.argmax(w * s), tf.float32) * 2.0  # here

    return fn, w


@sick("none", "non_differentiable_op", op="Round")
def a_len_method(repaired):
    class Loss:
        def __init__(self):
            self.w = tf.Variable([1.2, 2.3], name="w")

        def __call__(self):
            z = self.w * 2.0
            return tf.reduce_sum(z if repaired else tf.round(z)) / float(len(z))  # here

    l = Loss()
    return l, l.w


@sick("none", "left_tensorflow", op="h.numpy")
def a_numpy_helper(repaired):
    w = tf.Variable([1.0, 2.0], name="w")

    def scale(h):
        return h if repaired else tf.convert_to_tensor(h.numpy() * 2)  # here

    def fn():
        return tf.reduce_sum(scale(w * 3.0) ** 2)

    return fn, w


@sick("none", "left_tensorflow")
def a_item(repaired):
    w = tf.Variable([1.0, 2.0], name="w")

    def fn():
        parts = [w[i] for i in range(2)] if repaired else [w[i].numpy().item() for i in range(2)]  # here
        return tf.add_n([tf.square(tf.convert_to_tensor(p)) for p in parts])

    return fn, w


@sick("none", "left_tensorflow")
def a_int_index(repaired):
    def fn(x):
        k = x**2 if repaired else int(x)  # here
        return tf.constant([1.0, 5.0, 7.0])[1] * k if repaired else tf.constant([1.0, 5.0, 7.0])[k]

    return fn, [tf.constant(2.0)]


@sick("none", "left_tensorflow", says="model(x)")
def a_predict_class(repaired):
    class T:
        def __init__(self):
            self.model = keras.Sequential([D(2)])
            self.x = np.ones([3, 4], "float32")
            self.model(self.x)

        def loss(self):
            p = self.model(self.x) if repaired else self.model.predict(self.x, verbose=0)  # here
            return tf.reduce_mean(tf.square(p - 1.0))

    t = T()
    return t.loss, t.model.trainable_variables


@sick("none", "outside_tape", "not_used", says="emb")
def a_module_level(repaired):
    g = globals()
    g["W"] = tf.Variable([[1.0, 2.0]], name="W")
    g["emb"] = tf.nn.relu(g["W"] * 2.0)
    return module_loss_fixed if repaired else module_loss, g["W"]


def module_loss():
    return tf.reduce_sum(emb**2)


def module_loss_fixed():
    return tf.reduce_sum(tf.nn.relu(W * 2.0) ** 2)


@sick("none", "outside_tape", "not_used")
def a_with_block(repaired):
    w = tf.Variable([1.0, 2.0], name="w")
    x = tf.constant([3.0, 4.0])
    with tf.GradientTape() as t:
        pred = w * x  # here

    def fn():
        p = w * x if repaired else pred
        return tf.reduce_mean((p - 1.0) ** 2)

    return fn, w


@sick("none", "outside_tape", "not_used")
def a_list_append(repaired):
    w = tf.Variable(tf.ones([2, 2]), name="w")
    acts = []
    h = tf.ones([1, 2])
    for _ in range(3):
        h = tf.tanh(h @ w)
        acts.append(h)  # here

    def fn():
        if repaired:
            return tf.reduce_sum(tf.tanh(tf.ones([1, 2]) @ w) ** 2)
        return tf.add_n([tf.reduce_sum(a**2) for a in acts])

    return fn, w


@sick("none", "outside_tape", "not_used")
def a_default_arg(repaired):
    w = tf.Variable(tf.ones([2, 2]), name="w")
    h = tf.tanh(tf.ones([1, 2]) @ w)  # here
    return (lambda h=h: tf.reduce_sum(tf.tanh(tf.ones([1, 2]) @ w if repaired else h) ** 2)), w


@sick("none", "outside_tape", "not_used")
def a_layer_build(repaired):
    class Sc(keras.layers.Layer):
        def build(self, s):
            self.kernel = self.add_weight(shape=(s[-1], 2), name="kernel")
            self.bias = self.add_weight(shape=(2,), name="bias")
            self.norm = tf.nn.l2_normalize(tf.convert_to_tensor(self.kernel), 0)  # here

        def call(self, x):
            n = tf.nn.l2_normalize(tf.convert_to_tensor(self.kernel), 0) if repaired else self.norm
            return x @ n + self.bias

    m = keras.Sequential([Sc(), D(1)])
    x = tf.ones([3, 4])
    m(x)
    return (lambda: tf.reduce_sum(m(x) ** 2)), m.layers[0].kernel


@sick("none", "replaced_by_tensor")
def a_dense_params(repaired):
    W, b = tf.Variable([[0.3], [0.2]]), tf.Variable([0.1])
    x, y = tf.random.normal([4, 2]), tf.random.normal([4, 1])
    params = [W, b]
    for step in range(2):
        with tf.GradientTape() as t:
            loss = tf.reduce_mean((x @ W + b - y) ** 2)
        gW, gb = t.gradient(loss, params)
        if repaired:
            W.assign_sub(0.1 * gW)
            b.assign_sub(0.1 * gb)
        else:
            W = W - 0.1 * gW  # here
            b = b - 0.1 * gb
            break
    return (lambda: tf.reduce_mean((x @ W + b - y) ** 2)), params


@sick("none", "not_watched", says="watch")
def a_gp_unwatched(repaired):
    c = keras.Sequential([D(3, activation="tanh"), D(1)])
    x = tf.random.normal([4, 2])
    c(x)

    def fn():
        with tf.GradientTape() as t:
            if repaired:
                t.watch(x)
            y = c(x)
        g = t.gradient(y, x)  # here
        n = tf.sqrt(tf.reduce_sum(tf.square(g), 1) + 1e-9)
        return tf.reduce_mean((n - 1.0) ** 2)

    return fn, c.trainable_variables[0]


@sick("none", "not_used", "outside_tape", twin=False)
def a_hess_linear(repaired):
    w = tf.Variable([1.0, 2.0], name="w")

    def fn():
        with tf.GradientTape() as t2:
            with tf.GradientTape() as t1:
                y = tf.reduce_sum(w * 3.0)
            g = t1.gradient(y, w)
        h = t2.gradient(g, w)  # here
        return tf.reduce_sum(h * w)

    return fn, w


@sick("zero", "zero", op="Relu")
def a_dead_mid(repaired):
    m = keras.Sequential([D(3), L.ReLU() if not repaired else L.LeakyReLU(), D(1)])
    x = tf.random.uniform([4, 2])
    m(x)
    m.layers[0].bias.assign([-9.0] * 3)
    return (lambda: tf.reduce_mean((m(x) - 1.0) ** 2)), m.layers[0].kernel


@sick("zero", "zero", op="Minimum", says="limit")
def a_min_div(repaired):
    w = tf.Variable([5.0, 6.0], name="w")

    def fn():
        c = tf.minimum(w, 9.0 if repaired else 1.0) - 1.0  # here
        return tf.reduce_sum(c / (1.0 + w))

    return fn, w


@sick("zero", "zero", op="Sigmoid", says="logits")
def a_gate_sat(repaired):
    w = tf.Variable([-200.0, -300.0], name="w")

    def fn():
        g = tf.sigmoid(w * 0.01 if repaired else w)  # here
        return tf.reduce_sum(g * 5.0)

    return fn, w


@sick("zero", "zero", op="Abs", twin=False, says="second")
def a_second_abs(repaired):
    x = tf.Variable([1.0, 2.0], name="x")

    def fn():
        with tf.GradientTape() as t:
            y = tf.reduce_sum(tf.abs(x) * 3.0)  # here
        return tf.reduce_sum(t.gradient(y, x) * 2.0)

    return fn, x


@sick("not_finite", "nan", says=("float32",))
def a_half_sum(repaired):
    w = tf.Variable(tf.ones([2000], tf.float32 if repaired else tf.float16) * 200.0, name="w")

    def fn():
        s = tf.reduce_sum(w)  # here
        return s * s

    return fn, w


@sick("not_finite", "nan", says=("65504",))
def a_half_exp(repaired):
    w = tf.Variable(tf.constant([12.0, 1.0], tf.float32 if repaired else tf.float16), name="w")

    def fn():
        e = tf.exp(w)  # here
        return tf.reduce_sum(e / tf.reduce_sum(e) * [1.0, 2.0])

    return fn, w


@sick("not_finite", "nan", says=("-1e9",))
def a_neg_inf_mask(repaired):
    q = tf.Variable(tf.random.normal([2, 3, 3]), name="q")
    mask = tf.constant([[[1, 1, 1]] * 3, [[0, 0, 0]] * 3])

    def fn():
        bias = tf.where(mask > 0, 0.0, -1e9 if repaired else -np.inf)  # here
        return tf.reduce_sum(tf.nn.softmax(q + bias) ** 2)

    return fn, q


@sick("not_finite", "nan", op="Log", says=("1e-7",))
def a_entropy(repaired):
    z = tf.Variable([1.0, 0.0], name="z")

    def fn():
        return -tf.reduce_sum(z * (tf.math.log(tf.maximum(z, 0.0) + 1e-7) if repaired else tf.math.log(z)))  # here

    return fn, z


@sick("not_finite", "nan", op="Sqrt")
def a_dist(repaired):
    a = tf.Variable([[0.0, 0.0], [1.0, 1.0]], name="a")

    def fn():
        d2 = tf.reduce_sum((a[:, None] - a[None]) ** 2, -1)
        return tf.reduce_sum(tf.sqrt(d2 + 1e-12 if repaired else d2))  # here

    return fn, a


@sick("not_finite", "nan", op="RealDiv", says="divide_no_nan")
def a_norm_div(repaired):
    a = tf.Variable([0.0, 0.0], name="a")

    def fn():
        s = tf.reduce_sum(a)
        return tf.reduce_sum(tf.math.divide_no_nan(a, s) + a) if repaired else tf.reduce_sum(a / s)  # here

    return fn, a


@sick("not_finite", "nan", says="safe")
def a_where_sqrt_div(repaired):
    x = tf.Variable([0.0, 4.0], name="x")

    def fn():
        ok = x > 0
        safe = tf.where(ok, x, 1.0) if repaired else x
        return tf.reduce_sum(tf.where(ok, 1.0 / safe, 0.0))  # here

    return fn, x


@sick("not_finite", "nan", says="positive definite")
def a_chol(repaired):
    a = tf.Variable([[1.0, 1.0], [1.0, 1.0]], name="a")

    def fn():
        c = tf.linalg.cholesky(a + 1e-3 * tf.eye(2) if repaired else a - 1e-3 * tf.eye(2))  # here
        return tf.reduce_sum(c)

    return fn, a


@sick("none", "non_differentiable_op", "integer_dtype", twin=False)
def a_bernoulli(repaired):
    p = tf.Variable([0.3, 0.6], name="p")

    def fn():
        hit = tf.cast(tf.random.uniform([2]) < p, tf.float32)  # here
        return tf.reduce_sum(hit)

    return fn, p


@sick("none", "non_differentiable_op", says="gather", twin=False)
def a_topk_idx(repaired):
    p = tf.Variable([0.3, 0.6], name="p")

    def fn():
        i = tf.math.top_k(p, 1).indices  # here
        return tf.reduce_sum(tf.cast(i, tf.float32))

    return fn, p


@sick("none", "not_used", says="losses")
def a_activity_reg(repaired):
    class Reg(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = D(2), D(2)

        def call(self, x):
            self.add_loss(tf.reduce_mean(self.a(x) ** 2))
            return self.b(x)

    m = Reg()
    x = tf.ones([2, 3])
    m(x)

    def loss_fn():
        y = m(x)
        return tf.reduce_mean(y**2) + (sum(m.losses) if repaired else 0.0)

    return loss_fn, m.a.kernel


@sick("none", "integer_dtype")
def a_int_var_list(repaired):
    ws = [tf.Variable(3.0 if repaired else 3), tf.Variable(2.0)]  # here
    return (lambda: tf.cast(ws[0], tf.float32) * ws[1]), ws


@sick("none", "stateful", says="assign")
def a_state_method(repaired):
    class Acc:
        def __init__(self):
            self.total = tf.Variable(0.0)

        def add(self, v):
            if repaired:
                return v
            self.total.assign_add(v)  # here
            return self.total.read_value()

    acc, w = Acc(), tf.Variable(2.0, name="w")
    return (lambda: acc.add(w**2) * 2.0), w


@sick("none", "rewrapped")
def a_rewrap_list(repaired):
    w = tf.Variable([1.0, 2.0], name="w")

    def fn():
        if repaired:
            return tf.reduce_sum(tf.identity(w) ** 2)
        c = tf.Variable(w * 2.0)  # here
        return tf.reduce_sum(c**2)

    return fn, w


@sick("none", "wrong_tensor", twin=False)
def a_other_model(repaired):
    a, b = keras.Sequential([D(2)]), keras.Sequential([D(2)])
    x = tf.ones([2, 3])
    a(x), b(x)
    return (lambda: tf.reduce_sum(b(x) ** 2)), a.trainable_variables


@noted("Also read")
def a_lambda_layer(repaired):
    w = tf.Variable(tf.ones([2, 1]), name="w")
    m = keras.Sequential([D(2), L.Lambda(lambda t: t @ w)])
    x = tf.ones([3, 2])
    m(x)
    return (lambda: tf.reduce_mean(m(x) ** 2)), m.trainable_variables


@noted("[5, 5]")
def a_sq_mae(repaired):
    m = keras.Sequential([D(1)])
    x = tf.random.normal([5, 2])
    y = tf.random.normal([5])
    m(x)

    def fn():
        err = tf.abs(m(x) - y)
        return tf.reduce_mean(err)

    return fn, m.trainable_variables


@healthy
def a_frozen_backbone(repaired):
    b, h = keras.Sequential([D(4, "relu"), L.BatchNormalization()]), D(1)
    x = tf.random.normal([6, 3])
    h(b(x))
    b.trainable = False
    return (lambda: tf.reduce_mean((h(b(x, training=False)) - 1.0) ** 2)), h.trainable_variables


@healthy
def a_dict(repaired):
    p = {"w": tf.Variable([1.0, 2.0]), "b": tf.Variable(0.5)}
    return (lambda w, b: tf.reduce_sum(w**2) + b**2), p


@healthy
def a_vq(repaired):
    enc, dec, book = D(2), D(3), tf.Variable(tf.random.normal([4, 2]), name="book")
    x = tf.random.normal([5, 3])
    dec(enc(x))

    def fn():
        z = enc(x)
        k = tf.argmin(tf.reduce_sum((z[:, None] - book[None]) ** 2, -1), 1)
        q = tf.gather(book, k)
        return tf.reduce_mean((dec(z + tf.stop_gradient(q - z)) - x) ** 2)

    return fn, [*enc.trainable_variables, *dec.trainable_variables]


@healthy
def a_tfdata_step(repaired):
    m = keras.Sequential([D(2)])
    xs = tf.random.normal([8, 3])
    m(xs)
    ce = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    acc = keras.metrics.SparseCategoricalAccuracy()
    y = tf.constant([0, 1] * 4)

    def fn():
        out = m(xs)
        acc.update_state(y, out)
        return ce(y, out)

    return fn, m.trainable_variables


@healthy
def a_clip_norm(repaired):
    w = tf.Variable([3.0, 4.0])
    return (lambda: tf.reduce_sum(tf.clip_by_norm(w, 1.0) * [1.0, 2.0])), w


@healthy
def a_ragged(repaired):
    t = tf.Variable(tf.random.normal([5, 2]))
    rt = tf.ragged.constant([[0, 1], [2, 3, 4]])
    return (lambda: tf.reduce_sum(tf.reduce_mean(tf.gather(t, rt), 1) ** 2)), t


@healthy
def a_beam(repaired):
    w = tf.Variable([0.1, 0.5, 0.2])

    def fn():
        if tf.reduce_sum(w) > 0.0:
            return tf.reduce_sum(w**2)
        return tf.reduce_sum(w)

    return fn, w


@healthy
def a_print(repaired):
    w = tf.Variable([0.1, 0.5, 0.2])

    def fn():
        l = tf.reduce_sum(w**2)
        print(end="" if float(l) > 1e9 else "")
        return l

    return fn, w


@healthy
def a_huberquantile(repaired):
    w = tf.Variable([0.1, 0.5, 0.2])
    y = tf.constant([1.0, 0.0, 0.3])

    def fn():
        e = y - w
        return tf.reduce_mean(tf.where(e > 0, 0.9 * e, -0.1 * e)) + tf.reduce_mean(
            tf.where(tf.abs(e) < 1.0, 0.5 * e**2, tf.abs(e) - 0.5)
        )

    return fn, w


@healthy
def a_gumbel(repaired):
    w = tf.Variable([0.1, 0.5, 0.2])

    def fn():
        g = -tf.math.log(-tf.math.log(tf.random.uniform([3], 0.01, 0.99)))
        return tf.reduce_sum(tf.nn.softmax((w + g) / 0.5) * [1.0, 2.0, 3.0])

    return fn, w


@healthy
def a_scan(repaired):
    w = tf.Variable(0.5)
    return (lambda: tf.reduce_sum(tf.scan(lambda a, x: a * w + x, tf.constant([1.0, 2.0, 3.0])))), w


@healthy
def a_mixup(repaired):
    m = keras.Sequential([L.Conv1D(4, 3, padding="same", activation="gelu"), L.GlobalAveragePooling1D(), D(3)])
    x = tf.random.normal([4, 6, 2])
    m(x)

    def fn():
        y = m(x)
        t = tf.one_hot(tf.argmax(y, 1), 3)
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(t, y))

    return fn, m.trainable_variables
