# %% [markdown]
# # 3. Why is my gradient None?
# Many ask this about `tf.GradientTape`. None means that the circuit is cut: no path leads back to the variable. Where?
#
# 35 minutes. [Start page and glossary](README.md). Before: [2. The tape as a circuit](02_circuit.ipynb). Next:
# [4. Is this gradient right?](04_is_it_right.ipynb)

# %%
import exercises
import lesson
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import tapekit

# %% [markdown]
# ## A program that fails
# Three steps of gradient descent on w², from w = 2. It looks right, and it fails.
# %% [markdown]
# **Predict.** In which step does it fail? Which line is at fault?

# %%
w = tf.Variable(2.0)
try:
    for step in range(3):
        with tf.GradientTape() as tape:
            loss = w**2
        slope = tape.gradient(loss, w)
        print(f"step {step}: w is a {type(w).__name__}, slope {slope}")
        w = w - 0.1 * slope
except TypeError as error:
    print("TypeError:", error)

# %% [markdown]
# So: it fails in step 1, but the harm is done in step 0: `w = w - 0.1 * slope` makes a new tensor and calls it `w`. A
# tape watches variables, not tensors, so in step 1 no path leads to `w`. To change a variable in place, `assign_sub`:

# %%
w = tf.Variable(2.0)
for _ in range(3):
    w.assign_sub(0.1 * tapekit.gradient(lambda: w**2, w))
print("after three steps: w =", w.numpy(), "  by hand 2 x 0.8³ =", round(2 * 0.8**3, 4))

# %% [markdown]
# ## A cut
# `tapekit.explain` asks at each operation whether a gradient passes. It holds a trace, which can be drawn.
# %% [markdown]
# **Predict.** The loss is round(4 a) b, at a = 0.6, b = 2. Which of the two gets no gradient? Which gate holds it back?

# %%
a, b = tf.Variable(0.6, name="a"), tf.Variable(2.0, name="b")
cut = tapekit.explain(lambda: tf.round(4.0 * a) * b, [a, b])
print(cut)
lesson.save(tapekit.plot_trace(cut.trace).set_title("round(4 a) b: value | gradient").figure, "03_cut.png", dpi=100)

# %% [markdown]
# So: the values pass from left to right everywhere. Backward, the dashed edges carry nothing. `Round` is a staircase:
# flat, then a jump. A small nudge of a changes nothing behind it, so TensorFlow gives no gradient at all.
# ## Two more cuts
# p is [0, 3]. One loss is `tf.argmax(p)`, the place of the largest; another is the sum of `tf.stop_gradient(p) ** 2`.
# %% [markdown]
# **Predict.** Where is the cut in each? Which boxes still get a gradient?

# %%
p = tf.Variable([0.0, 3.0], name="p")
losses = {
    "argmax(p)": lambda: tf.cast(tf.argmax(p), tf.float32),
    "sum of stop_gradient(p)²": lambda: tf.reduce_sum(tf.stop_gradient(p) ** 2),
}
figure, axes = plt.subplots(2, 1, figsize=(8, 5), layout="constrained")
for ax, (title, loss) in zip(axes, losses.items(), strict=True):
    explanation = tapekit.explain(loss, p)
    print(explanation, "\n")
    tapekit.plot_trace(explanation.trace, ax=ax).set_title(f"{title}: value | gradient", fontsize=10)
lesson.save(figure, "03_two_cuts.png", dpi=100)

# %% [markdown]
# So: ArgMax lets nothing through: a place has no slope; train on the scores themselves, `tf.nn.softmax(p)`.
# `stop_gradient` cuts on purpose. The boxes behind the cut have a gradient (Cast; StopGradient, pow, Sum); p has none.
# ## Three more programs
# Each computes the right number, and each has a slope on paper. (v = 2.0, n = 3, step = 0.5, total = 1.0.)
# %% [markdown]
# **Predict.** What is wrong in `np.mean((v - [1, 2, 3])²)`, in `tf.cast(n, tf.float32)²`, and in
# `total.assign_add(2 step)²`? And what is `total` after `explain` has run the third?

# %%
v, n = tf.Variable(2.0, name="v"), tf.Variable(3, name="n")
step, total = tf.Variable(0.5, name="step"), tf.Variable(1.0, name="total")
print(tapekit.explain(lambda: np.mean((v - [1.0, 2.0, 3.0]) ** 2), v), "\n")
print(tapekit.explain(lambda: tf.cast(n, tf.float32) ** 2, n), "\n")
print(tapekit.explain(lambda: total.assign_add(step * 2.0) ** 2, [step, total]), "\n")
print("total is", total.numpy())

# %% [markdown]
# So: here the circuit ends. NumPy computes outside of the tape. Integers have no slope. A variable that is written to
# keeps a number, not its history. And `total` is still 1: `explain` puts back all that its run of the loss has changed.
# ## None, 0 and NaN
# None means that there is no path. There are two other kinds of bad gradient, in which the path is whole.
# %% [markdown]
# **Predict.** p is still [0, 3]. Which gradient has the sum of `relu(-1 - p)`, where relu turns negative numbers into
# 0? And of `where(p > 0, log(p), 0)`?

# %%
print(tapekit.explain(lambda: tf.reduce_sum(tf.nn.relu(-1.0 - p)), p), "\n")
print(tapekit.explain(lambda: tf.reduce_sum(tf.where(p > 0.0, tf.math.log(p), 0.0)), p), "\n")

# %% [markdown]
# So: 0 is a slope like any other, and the path is whole; but nothing can be learned here. NaN comes from 0 times
# infinity: `where` multiplies the branch that it does not take by 0, and the slope of log at 0 is infinite. The repair:

# %%
safe = lambda p: tf.where(p > 0.0, p, 1.0)  # a safe input, before the logarithm
print(tapekit.gradient(lambda p: tf.reduce_sum(tf.where(p > 0.0, tf.math.log(safe(p)), 0.0)), p).numpy())

# %% [markdown]
# ## Exercise
# This loss is cut in three places. Write `mine(gain, shift, limit)` with the same loss, but without a cut. A jump can
# become a narrow sigmoid, a soft step from 0 to 1. (The loss, 0.644 at the test point, may then change a little.)

# %%
x, y, centre = tf.linspace(-1.0, 1.0, 8), tf.ones([8]), tf.Variable(0.0)


def broken(gain, shift, limit):
    centre.assign(tf.reduce_mean(gain * x) + shift)
    hidden = tf.tanh(gain * x - centre)
    gate = tf.cast(hidden > limit, tf.float32)  # 1 above the limit, 0 below it
    return tf.constant(np.mean((gate * hidden - y) ** 2))


# %%
mine = ...
exercises.check_repair(mine)

# %% [markdown]
# <details><summary>Answer</summary>
#
# ```python
# def mine(gain, shift, limit):
#     hidden = tf.tanh(gain * x - (tf.reduce_mean(gain * x) + shift))  # no variable in between
#     gate = tf.sigmoid((hidden - limit) / 0.1)  # a soft step, 0.1 wide
#     return tf.reduce_mean((gate * hidden - y) ** 2)  # no NumPy
# ```
# </details>
#
# **You can now** say what None means, and tell it from 0 and NaN.<br>
# **You can now** find the operation and the line that cut a gradient.<br>
# **You can now** name the usual cuts, and repair them. Next: [4. Is this gradient right?](04_is_it_right.ipynb)
