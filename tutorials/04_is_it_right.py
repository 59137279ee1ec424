# %% [markdown]
# # 5. Is this gradient right?
# A gradient is a claim: *move x by a little, and f moves by the gradient times that*. So move x, and look. How far can
# such a finite difference be trusted? Then it judges: a formula of our own, relu, a layer, TensorFlow itself.
# Before: [4. A training loop you can see](04_training_loop.ipynb). Next:
# [6. Vanishing, exploding, repaired](06_vanishing_exploding.ipynb)

# %%
import os
import sys
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}  # few log lines; the same digits everywhere
if "google.colab" in sys.modules:
    assert os.system("pip install -q tapekit") == 0, "pip finds no tapekit: build a wheel of it and install that"

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import tapekit

PICTURES = Path("tutorials/pictures") if Path("tutorials").is_dir() else Path("pictures")
PICTURES.mkdir(exist_ok=True)

# %% [markdown]
# ## How small a step?
# The slope of sin at 1 is cos(1). *Forward*, (f(x + h) - f(x)) / h, it is measured with an error of the order of h;
# *central*, (f(x + h) - f(x - h)) / 2h, of the order of h². **Predict:** the smaller h, the better? And how good can it
# get in float32, which carries 7 digits?

# %%
steps, best = np.logspace(-1, -14, 53), {}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for ax, dtype in zip(axes, ["float32", "float64"], strict=True):
    x, h = tf.constant(1.0, dtype), tf.constant(steps, dtype)
    up, down, here = tf.sin(x + h), tf.sin(x - h), tf.sin(x)
    for name, slope, marker in (("forward", (up - here) / h, "o"), ("central", (up - down) / (2 * h), "s")):
        error = np.abs(slope.numpy().astype("float64") - np.cos(1.0))
        best[name, dtype] = error.min(), steps[error.argmin()]
        ax.loglog(steps, np.maximum(error, 1e-14), marker=marker, markersize=3, label=name)
        if dtype == "float64":  # the straight part on the right: its slope on log axes is the order
            right = steps > 1e-4
            order = np.polyfit(np.log(steps[right]), np.log(error[right]), 1)[0]
            print(f"{name}: the error falls like h to the power {order:.2f}")
    ax.set(title=f"Error of the slope of sin at 1, {dtype}", xlabel="step h")
    ax.legend()
axes[0].set_ylabel("error")
figure.savefig(PICTURES / "05_v_curve.png", dpi=100)
print("picture:", PICTURES / "05_v_curve.png")
for (name, dtype), (error, step) in best.items():
    print(f"{name} in {dtype}: {error:.0e} at best, with h = {step:.0e}")
print("in float32, (1 + 1e-8) - 1 =", np.float32(1) + np.float32(1e-8) - np.float32(1), f"and cos(1) = {np.cos(1):.2f}")

# %% [markdown]
# A V. On the right the formula errs (truncation: slope 1 for forward, 2 for central); on the left the digits run out
# (rounding: the difference of two nearly equal numbers, divided by ever less). Below 1e-7, x + h is x in float32: the
# difference is 0, the error cos(1). At best, float32 gives five of its seven digits, float64 twelve of sixteen, each at
# its own step: so `check_gradient` tries many, in float64 where it can, and *measures its own uncertainty*.
#
# ## A formula of our own
# `custom_gradient` lets you write the derivative yourself: of exp(-x²), -x exp(-x²). **Predict:** is it right?


# %%
@tf.custom_gradient
def bell(x):
    value = tf.exp(-(x**2))
    return value, lambda upstream: upstream * -x * value


check = tapekit.check_gradient(lambda x: tf.reduce_sum(bell(x)), tf.constant([0.3, 1.0, -2.0]))
print(check)
assert check.verdict == "fail"
tapekit.plot_check(check).figure.savefig(PICTURES / "05_check.png", dpi=100)
print("picture:", PICTURES / "05_check.png")

# %% [markdown]
# The factor 2 is missing, and the column `+-` says how sure that is. The picture shows the V of this check. The dashed
# line at the top is how far the tape is off: far above the whole V, so no choice of the step explains it away. The ring
# marks the step that was used, at the height of the uncertainty: lower than the curve, as the check extrapolates.
#
# ## relu at 0
# relu has no slope at 0: TensorFlow says 0 there, a central difference 0.5. **Predict:** who is right?

# %%
check = tapekit.check_gradient(lambda x: tf.reduce_sum(tf.nn.relu(x)), tf.constant([0.0, 1.0]))
print(check)
print("at 1e-4, near 0:", tapekit.check_gradient(tf.nn.relu, tf.constant([1e-4, 1.0])).verdict)

# %% [markdown]
# Nobody: left and right differ, and any number between the two is as good. Near 0 is not at 0: there is a slope.
#
# ## A layer of your own
# A layer holds float32 variables. The check moves them in float64, where `+-` is small, and leaves them as they are.


# %%
class Gate(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=[shape[-1]], initializer="ones", name="scale")
        self.shift = self.add_weight(shape=[shape[-1]], initializer="zeros", name="shift")

    def call(self, x):
        return x * tf.sigmoid(self.scale * x + self.shift)


gate, x = Gate(name="gate"), tf.random.stateless_normal([8, 3], seed=[0, 5])
gate(x)
before = gate.get_weights()
check = tapekit.check_gradient(lambda: tf.reduce_mean(gate(x) ** 2), gate.trainable_variables)
print(check)
assert check
print("variables as before:", np.array_equal(before, gate.get_weights()))

# %% [markdown]
# ## TensorFlow itself
# `cumprod` of 2, 3, x ends in 6x, of slope 6; `xlogy(x, 2)` is x log 2, of slope log 2 = 0.693. **Predict:** what does
# TensorFlow say of the two at x = 0? (On the way back, `cumprod` divides by x.)

# %%
print(tapekit.check_gradient(lambda x: tf.math.cumprod(x)[-1], tf.constant([2.0, 3.0, 0.0])))
print("xlogy(x, 2):", tapekit.check_gradient(lambda x: tf.math.xlogy(x, tf.constant(2.0, x.dtype)), 0.0)["x"].cause)

# %% [markdown]
# ## Exercise
# The logarithm of a sum of exponentials. Repair its backward pass, so that it passes in second order too.


# %%
@tf.custom_gradient
def log_sum_exp(x):
    exps = tf.exp(x - tf.reduce_max(x))
    return tf.reduce_max(x) + tf.math.log(tf.reduce_sum(exps)), lambda upstream: upstream * exps  # not this


print("this one:", tapekit.check_gradient(log_sum_exp, tf.constant([1.0, 2.0, 2.5]))["x"].cause)


# %%
# One answer: try your own first.
@tf.custom_gradient
def repaired(x):
    return tf.reduce_logsumexp(x), lambda upstream: upstream * tf.nn.softmax(x)


assert tapekit.check_gradient(repaired, tf.constant([1.0, 2.0, 2.5]), order=2)
print("right: it passes, in second order too")
