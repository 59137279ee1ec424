# %% [markdown]
# # 1. One variable, one tape
#
# What is a gradient, and how does TensorFlow find it? We take the smallest loss there is, ask a `tf.GradientTape` for
# its slope, and then walk downhill with the answer.
#
# Next: [2. Why is my gradient None?](02_why_none.ipynb)

# %%
import os
import sys
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}  # few log lines; the same digits everywhere
if "google.colab" in sys.modules:
    assert os.system("pip install -q tapekit") == 0, "pip finds no tapekit: build a wheel of it and install that"

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import tapekit

PICTURES = Path("tutorials/pictures") if Path("tutorials").is_dir() else Path("pictures")
PICTURES.mkdir(exist_ok=True)

# %% [markdown]
# ## A tape, by hand
#
# The loss is w², and w is 5. Its slope is 2w. **Predict**: what will the tape say?

# %%
w = tf.Variable(5.0)

with tf.GradientTape() as tape:
    loss = tf.square(w)

print("by hand:   d(w²)/dw at w = 5 is", tape.gradient(loss, w).numpy())

# %% [markdown]
# The tape recorded `tf.square` while the `with` block ran, and played it backwards. The same in one call: give the
# calculation and the variable.

# %%
print("in a call: d(w²)/dw at w = 5 is", tapekit.gradient(lambda: tf.square(w), w).numpy())

# %% [markdown]
# ## A constant
#
# So far, w was a `tf.Variable`. **Predict**: what will the two say if it is a constant?

# %%
c = tf.constant(5.0)

with tf.GradientTape() as tape:
    loss = tf.square(c)

print("a bare tape:     ", tape.gradient(loss, c))
print("tapekit.gradient:", tapekit.gradient(tf.square, c).numpy())

# %% [markdown]
# A tape watches trainable variables by itself, nothing else. `None` means "no path that I saw", not zero. A bare tape
# needs `tape.watch(c)` *before* `c` is used; `tapekit` watches what you ask about, so plain numbers work as well.
#
# ## Several variables
#
# f = a b + b². **Predict** both slopes at a = 2, b = 3. The answer has the structure of the question.

# %%
slopes = tapekit.gradient(lambda a, b: a * b + b**2, {"a": 2.0, "b": 3.0})
print("df/da = b      =", slopes["a"].numpy())
print("df/db = a + 2b =", slopes["b"].numpy())

# %% [markdown]
# ## What the number means
#
# The gradient is the slope of the line that touches the curve: at w = 5 the loss grows at the rate of 10.

# %%
result = tapekit.value_and_gradient(tf.square, 5.0)
value, slope = float(result.value), float(result.gradient)

figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
line = np.linspace(-6.5, 8.5, 200)
ax.plot(line, line**2, label="loss w²")
ax.plot([2.5, 7.5], [value - 2.5 * slope, value + 2.5 * slope], "--", label=f"tangent at w = 5, slope {slope:g}")
ax.plot(5.0, value, "ko")
ax.set(title="The gradient is the slope of the tangent", xlabel="w", ylabel="loss", ylim=(-5, 60))
ax.legend(loc="upper center")
figure.savefig(PICTURES / "01_tangent.png", dpi=100)
print("picture:", PICTURES / "01_tangent.png")

# %% [markdown]
# ## A target that is not one number
#
# Here the target is a vector, (x₁², x₂²). **Predict**: will the gradient be a matrix?

# %%
x = tf.constant([1.0, 10.0])
print("of the vector: ", tapekit.gradient(tf.square, x).numpy())
print("of its sum:    ", tapekit.gradient(lambda x: tf.reduce_sum(tf.square(x)), x).numpy())
print("every slope:\n", tapekit.jacobian(tf.square, x).numpy(), sep="")

# %% [markdown]
# TensorFlow gives the gradient of the *sum*. The matrix of all slopes is the Jacobian.
#
# ## Downhill
#
# The gradient points uphill, so a step against it lowers the loss. **Predict**: from w = 5 with a step size of 0.1,
# where does one step lead? And twenty?

# %%
w.assign_sub(0.1 * tapekit.gradient(lambda: tf.square(w), w))
print("after one step: w =", w.numpy())

path = [5.0, float(w)]
for _ in range(19):
    w.assign_sub(0.1 * tapekit.gradient(lambda: tf.square(w), w))
    path.append(float(w))
print(f"after twenty:   w = {path[-1]:.6f}   (5 x 0.8²⁰ = {5 * 0.8**20:.6f})")

figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
ax.plot(line, line**2, color="0.7")
ax.plot(path, np.square(path), "o-", markersize=4)
ax.annotate("start", (path[0], path[0] ** 2), xytext=(10, -4), textcoords="offset points")
ax.annotate("one step", (path[1], path[1] ** 2), xytext=(10, -4), textcoords="offset points")
ax.set(title="Twenty steps against the gradient", xlabel="w", ylabel="loss", xlim=(-6.5, 8.5), ylim=(-5, 60))
figure.savefig(PICTURES / "01_downhill.png", dpi=100)
print("picture:", PICTURES / "01_downhill.png")

# %% [markdown]
# ## Exercise
#
# Find the derivative of log(x²) sin x + 1/x at x = 2 on paper, by a bare tape and by `tapekit.gradient`: one number?

# %%
# One answer: try your own first.
by_hand = 2 / 2 * np.sin(2) + np.log(4) * np.cos(2) - 1 / 4  # (2/x) sin x + log(x²) cos x - 1/x²

x = tf.constant(2.0)
with tf.GradientTape() as tape:
    tape.watch(x)
    y = tf.math.log(x**2) * tf.sin(x) + 1 / x
by_tape = tape.gradient(y, x)

by_tapekit = tapekit.gradient(lambda x: tf.math.log(x**2) * tf.sin(x) + 1 / x, 2.0)

np.testing.assert_allclose([by_hand, by_tape, by_tapekit], 0.0823954, atol=2e-7)
print(f"right: by hand {by_hand:.7f}, by the tape {by_tape:.7f}, by tapekit {by_tapekit:.7f}")
