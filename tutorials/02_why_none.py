# %% [markdown]
# # 2. Why is my gradient None?
#
# It is the most asked question about `tf.GradientTape`, and TensorFlow's answer is one word: `None`. Here are the
# programs that ask it. Each looks right; **predict** what is wrong before `tapekit.explain` says it.
#
# Before: [1. One variable, one tape](01_one_variable.ipynb). Next: [3. The tape as a circuit](03_circuit.ipynb)

# %%
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up lines, out of the way
if "google.colab" in sys.modules:
    assert os.system("pip install -q tapekit") == 0, "pip finds no tapekit: build a wheel of it and install that"

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import tapekit

PICTURES = Path("tutorials/pictures") if Path("tutorials").is_dir() else Path("pictures")
PICTURES.mkdir(exist_ok=True)

# %% [markdown]
# ## TensorFlow's four: a variable replaced by a tensor
# Gradient descent, by hand. The first gradient is a number. **Predict** the second.

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
# ## Out of TensorFlow
# The loss is right, to the last digit. **Predict** which word the tape cannot follow.

# %%
print(tapekit.explain(lambda: tf.constant(1.0) * np.mean((v - [1.0, 2.0, 3.0]) ** 2), v))
print("repaired:", tapekit.gradient(lambda: tf.reduce_mean((v - [1.0, 2.0, 3.0]) ** 2), v).numpy())

# %% [markdown]
# ## Through an integer
# **Predict**: which character is missing?

# %%
n = tf.Variable(3, name="n")
print(tapekit.explain(lambda: tf.cast(n, tf.float32) ** 2, n))
print("repaired:", tapekit.gradient(lambda x: x**2, 3.0).numpy())

# %% [markdown]
# ## Through a state
# **Predict** the gradient with respect to `step`: the formula says 2 · 2 · total.

# %%
step, total = tf.Variable(0.5, name="step"), tf.Variable(1.0, name="total")
print(tapekit.explain(lambda: total.assign_add(step * 2.0) ** 2, [step, total]))
print("repaired:", tapekit.gradient(lambda: (total + step * 2.0) ** 2, step).numpy())

# %% [markdown]
# ## The rest: a place, a stop, a zero, a NaN
# **Predict** for each of the four: None, 0 or NaN?

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
# ## The picture of a cut
# The same as a circuit: every box has its value, but backward the dashed edges carry nothing.

# %%
a, b = tf.Variable(0.6, name="a"), tf.Variable(2.0, name="b")
figure, ax = plt.subplots(figsize=(9, 3))
tapekit.plot_trace(tapekit.explain(lambda: tf.round(a * 4.0) * b, [a, b]).trace, ax=ax)
figure.savefig(PICTURES / "02_cut.png", dpi=100)
print(PICTURES / "02_cut.png")

# %% [markdown]
# ## Exercise
# Three mistakes are in this training step. Find them before you run it; then write `repaired`, so that every source
# is fine. (The answer follows.)

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


print(tapekit.explain(broken, [gain, shift, limit, weights]))

# %%
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
print(f"every source is fine; the loss falls from {value:.4f} to {repaired():.4f}")
