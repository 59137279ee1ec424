# %% [markdown]
# # 2. Why is my gradient None?
#
# It is the most asked question about `tf.GradientTape`, and TensorFlow's answer is one word: `None`. Here are programs
# that ask it, first the four of TensorFlow's [guide](https://www.tensorflow.org/guide/autodiff), then four more. Each
# looks right; **predict** what is wrong before `tapekit.explain` says it.
#
# Before: [1. One variable, one tape](01_one_variable.ipynb). Next: [3. The tape as a circuit](03_circuit.ipynb)

# %%
import os
import sys
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}  # few log lines; the same digits everywhere
if "google.colab" in sys.modules:
    assert os.system("pip install -q tapekit") == 0, "pip finds no tapekit: build a wheel of it and install that"

import numpy as np
import tensorflow as tf

import tapekit

PICTURES = Path("tutorials/pictures") if Path("tutorials").is_dir() else Path("pictures")
PICTURES.mkdir(exist_ok=True)

# %% [markdown]
# ## Two steps
# Gradient descent on w², by hand, from w = 2: `w = w - 0.1 * slope`. The first slope is 4. **Predict** the second.

# %%
w = tf.Variable(2.0)
for _ in range(2):
    with tf.GradientTape() as tape:
        loss = w**2
    slope = tape.gradient(loss, w)
    print("slope:", None if slope is None else slope.numpy())
    w = w - 0.1 * slope if slope is not None else w

# %% [markdown]
# After one step `w` is a tensor, which no tape watches by itself. `explain` watches its sources: it calls the gradient
# fine, and adds what a bare tape needs. The repair is `assign_sub`.

# %%
print(tapekit.explain(lambda: w**2, w))

v = tf.Variable(2.0)
v.assign_sub(0.1 * tapekit.gradient(lambda: v**2, v))
print("repaired:", tapekit.gradient(lambda: v**2, v).numpy())

# %% [markdown]
# ## A mean
# The loss `np.mean((v - [1.0, 2.0, 3.0]) ** 2)` is right, to the last digit. **Predict** which word stops the tape.

# %%
print(tapekit.explain(lambda: np.mean((v - [1.0, 2.0, 3.0]) ** 2), v))
print("repaired:", tapekit.gradient(lambda: tf.reduce_mean((v - [1.0, 2.0, 3.0]) ** 2), v).numpy())

# %% [markdown]
# ## A square
# The loss is `tf.cast(n, tf.float32) ** 2`, and n is `tf.Variable(3)`. **Predict**: which character is missing?

# %%
n = tf.Variable(3, name="n")
print(tapekit.explain(lambda: tf.cast(n, tf.float32) ** 2, n))
print("repaired:", tapekit.gradient(lambda x: x**2, 3.0).numpy())

# %% [markdown]
# ## A running total
# The loss is `total.assign_add(step * 2.0) ** 2`, with step = 0.5 and total = 1. Its slope with respect to `step` is
# 2 · 2 · (total + 2 step) = 8 by the formula. **Predict**: by the tape?

# %%
step, total = tf.Variable(0.5, name="step"), tf.Variable(1.0, name="total")
print(tapekit.explain(lambda: total.assign_add(step * 2.0) ** 2, [step, total]))
print("repaired:", tapekit.gradient(lambda: (total + step * 2.0) ** 2, step).numpy())

# %% [markdown]
# These are the guide's four: a variable replaced by a tensor, a step outside of TensorFlow, an integer, a state.
#
# ## Four more
# p is [0, 3]. **Predict** for each: None, 0 or NaN? (1) `argmax(p)`, as a float; the sums of (2)
# `stop_gradient(p) ** 2`, (3) `relu(-1 - p)`, (4) `where(p > 0, log(p), 0)`.

# %%
p = tf.Variable([0.0, 3.0], name="p")
print(tapekit.explain(lambda: tf.cast(tf.argmax(p), tf.float32), p), "\n")
print(tapekit.explain(lambda: tf.reduce_sum(tf.stop_gradient(p) ** 2), p), "\n")
print(tapekit.explain(lambda: tf.reduce_sum(tf.nn.relu(-1.0 - p)), p), "\n")
print(tapekit.explain(lambda: tf.reduce_sum(tf.where(p > 0.0, tf.math.log(p), 0.0)), p))


# %%
def log_of_positive():
    safe = tf.where(p > 0.0, p, 1.0)
    return tf.reduce_sum(tf.where(p > 0.0, tf.math.log(safe), 0.0))


print("softmax in place of argmax:   ", tapekit.gradient(lambda: tf.nn.softmax(p)[1], p).numpy())
print("safe input first, then where: ", tapekit.gradient(log_of_positive, p).numpy())

# %% [markdown]
# ## A cut, drawn
# round(4 a) b as a circuit: every box has its value, but backward the dashed edges carry nothing.

# %%
a, b = tf.Variable(0.6, name="a"), tf.Variable(2.0, name="b")
ax = tapekit.plot_trace(tapekit.explain(lambda: tf.round(a * 4.0) * b, [a, b]).trace)
ax.set_title("round(4 a) b: value | gradient")
ax.figure.savefig(PICTURES / "02_cut.png", dpi=120)
print("picture:", PICTURES / "02_cut.png")

# %% [markdown]
# ## Exercise
# Three mistakes are in this loss. Find them; then write `repaired`, so that `explain` finds every source fine.

# %%
x, y = tf.random.stateless_normal([8, 3], [1, 2]), tf.ones([8, 1])
gain, shift = tf.Variable(2, name="gain"), tf.Variable(0.1, name="shift")
limit, weights = tf.Variable(0.2, name="limit"), tf.Variable([[0.5], [-0.3], [0.8]], name="weights")
centre = tf.Variable(0.0, name="centre")


def broken():
    scaled = tf.cast(gain, tf.float32) * x
    centre.assign(tf.reduce_mean(scaled) + shift)
    hidden = tf.tanh((scaled - centre) @ weights)
    gate = tf.cast(hidden > limit, tf.float32)
    return tf.reduce_mean((gate * hidden - y) ** 2)


# %%
# One answer: try your own first.
print(tapekit.explain(broken, [gain, shift, limit, weights]))
gain = tf.Variable(2.0, name="gain")


def repaired():
    scaled = gain * x
    hidden = tf.tanh((scaled - (tf.reduce_mean(scaled) + shift)) @ weights)
    gate = tf.sigmoid((hidden - limit) / 0.1)
    return tf.reduce_mean((gate * hidden - y) ** 2)


variables = [gain, shift, limit, weights]
assert tapekit.explain(repaired, variables), "some source still has no gradient"
value, grads = tapekit.value_and_gradient(repaired, variables)
tf.keras.optimizers.SGD(0.1).apply(grads, variables)
print(f"right: every source is fine, and the loss falls from {value:.4f} to {repaired():.4f}")
