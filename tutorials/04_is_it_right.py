# %% [markdown]
# # 4. Is this gradient right?
# A gradient is a claim: *move x by a little, and f moves by the gradient times that.* So move x, and look. How far can
# such a test be trusted? Then we use it on a formula of our own, on relu, and on a layer.
#
# 35 minutes. [Start page and glossary](README.md). Before: [3. Why is my gradient None?](03_why_none.ipynb). Next:
# [5. A training loop you can see](05_training_loop.ipynb)

# %%
import exercises
import lesson
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from tensorflow import keras

import tapekit

# %% [markdown]
# ## How small a step?
# In tutorial 1 we nudged: (f(x + h) - f(x)) / h, the *forward* difference. The *central* one nudges to both sides:
# (f(x + h) - f(x - h)) / 2h. We measure the slope of sin at x = 1, which is cos(1), with steps h from 0.1 to 1e-14.
# float32 numbers carry about 7 digits, float64 numbers about 16.
# %% [markdown]
# **Predict.** Is a smaller step always better? How many right digits can one get in float32?

# %%
steps = np.logspace(-1, -14, 53)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for ax, dtype in zip(axes, ["float32", "float64"], strict=True):
    x, h = tf.constant(1.0, dtype), tf.constant(steps, dtype)
    up, down, here = tf.sin(x + h), tf.sin(x - h), tf.sin(x)
    for name, slope, look in (("forward", (up - here) / h, "o-"), ("central", (up - down) / (2 * h), "s--")):
        error = np.abs(slope.numpy().astype("float64") - np.cos(1.0))
        print(f"{name} in {dtype}: error {error.min():.0e} at best, with h = {steps[error.argmin()]:.0e}")
        ax.loglog(steps, np.maximum(error, 1e-14), look, markersize=3, label=name)
    ax.set(title=f"The slope of sin at 1, {dtype}", xlabel="step h", ylabel="error")
    ax.legend()
lesson.save(figure, "04_v_curve.png")
print("in float32, (1 + 1e-8) - 1 =", np.float32(1) + np.float32(1e-8) - np.float32(1))

# %% [markdown]
# So: the error makes a V. On the right the step is too large, and the curve bends away from its tangent. On the left
# the digits run out: two nearly equal numbers are subtracted, and what is left is divided by a tiny h. With h = 1e-8,
# x + h is x in float32. At best, float32 gives about five digits and float64 about twelve, each at its own step.
#
# `tapekit.check_gradient` therefore tries many steps, in float64 where it can, and measures how sure it is.
# ## A formula of our own
# With `tf.custom_gradient` you write the derivative yourself. The function is exp(-x²), and the inner function returns
# what flows back: upstream times -x exp(-x²).
# %% [markdown]
# **Predict.** Is that derivative right?


# %%
@tf.custom_gradient
def bell(x):
    value = tf.exp(-(x**2))
    return value, lambda upstream: upstream * -x * value


check = tapekit.check_gradient(lambda x: tf.reduce_sum(bell(x)), tf.constant([0.3, 1.0, -2.0]))
print(check)
lesson.save(tapekit.plot_check(check).figure, "04_check.png")

# %% [markdown]
# So: no. The factor 2 is missing, for (x²)' = 2x. The table shows the worst of the three elements, and the column `+-`
# says how sure the check is. In the picture, the dashed line is how far the tape is off. It lies far above the whole V,
# so no choice of the step explains it.
# ## A kink
# relu(x) is x above 0 and 0 below. At 0 TensorFlow says: slope 0. A central difference says: slope 0.5.
# %% [markdown]
# **Predict.** Which of the two does `check_gradient` call right at x = 0? And at x = 0.0001?

# %%
print(tapekit.check_gradient(lambda x: tf.reduce_sum(tf.nn.relu(x)), tf.constant([0.0, 1.0])))
print("at 0.0001:", tapekit.check_gradient(tf.nn.relu, 1e-4).verdict)

# %% [markdown]
# So: neither. At 0 left and right differ, there is no slope to be right about, and any number from 0 to 1 will do. Near
# 0 is not at 0: there the slope is 1, and the check passes.
# ## A layer of your own
# The sources can be the variables of a Keras layer. (`build` makes them, `call` uses them.) They are float32; the check
# moves them in float64.
# %% [markdown]
# **Predict.** The check changes `scale` and `shift` many times. What are they afterwards?


# %%
class Gate(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=[shape[-1]], initializer="ones", name="scale")
        self.shift = self.add_weight(shape=[shape[-1]], initializer="zeros", name="shift")

    def call(self, x):
        return x * tf.sigmoid(self.scale * x + self.shift)


gate, x = Gate(name="gate"), tf.random.stateless_normal([8, 3], seed=[0, 5])
gate(x)
print(tapekit.check_gradient(lambda: tf.reduce_mean(gate(x) ** 2), gate.trainable_variables))
print("afterwards:", *(variable.numpy() for variable in gate.trainable_variables))

# %% [markdown]
# So: the layer is right, and its variables are what they were.
# ## Exercise
# The logarithm of a sum of exponentials, log(exp(x₁) + exp(x₂) + ...), with a derivative that is wrong. Write it again
# under the name `mine`, with a last line that is right.


# %%
@tf.custom_gradient
def log_sum_exp(x):
    largest = tf.reduce_max(x)  # exp of a large number would overflow
    exps = tf.exp(x - largest)
    return largest + tf.math.log(tf.reduce_sum(exps)), lambda upstream: upstream * exps


# %%
mine = ...
exercises.check_log_sum_exp(mine)

# %% [markdown]
# <details><summary>Answer</summary>
#
# ```python
# @tf.custom_gradient
# def mine(x):
#     largest = tf.reduce_max(x)
#     exps = tf.exp(x - largest)
#     total = tf.reduce_sum(exps)
#     return largest + tf.math.log(total), lambda upstream: upstream * exps / total  # this is tf.nn.softmax(x)
# ```
# </details>
#
# ## Optional: TensorFlow itself
# The product of 2, 3 and x is 6x. Its slope is 6, everywhere.
# %% [markdown]
# **Predict.** `cumprod` multiplies a list up, step by step. What slope does it give its last element at x = 0?

# %%
print(tapekit.check_gradient(lambda x: tf.math.cumprod(x)[-1], tf.constant([2.0, 3.0, 0.0])))

# %% [markdown]
# So: 0, which is wrong. On the way back `cumprod` divides by x. Even TensorFlow's gradients deserve a test.
#
# **You can now** say why a difference has a best step, and how far to trust it.<br>
# **You can now** check a gradient of your own, and tell a mistake from a kink.<br>
# **You can now** check a layer. Next: [5. A training loop you can see](05_training_loop.ipynb)
