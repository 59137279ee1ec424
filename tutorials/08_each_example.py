# %% [markdown]
# # 8. One gradient for each example
# So far the loss was one number. What if the target has many, one for each output or one for each image? There are more
# slopes then, and one of them finds wrong labels in a data set.
#
# 40 minutes. [Start page and glossary](README.md). Before: [7. A run that went NaN](07_nan.ipynb). Next:
# [9. Curvature](09_curvature.ipynb)

# %%
import exercises
import lesson
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import tapekit

# %% [markdown]
# ## Three outputs, two inputs
# f takes two numbers and returns three: x₁², x₁ x₂ and 3 x₂. We ask for its gradient at x = (1, 10).
# %% [markdown]
# **Predict.** f has six slopes, three outputs by two inputs. How many numbers does `gradient` return, and which?


# %%
def f(x):
    return tf.stack([x[0] ** 2, x[0] * x[1], 3.0 * x[1]])


x = tf.constant([1.0, 10.0])
print("gradient of f:            ", tapekit.gradient(f, x).numpy())
print("gradient of the sum of f: ", tapekit.gradient(lambda x: tf.reduce_sum(f(x)), x).numpy())
print("jacobian:\n", tapekit.jacobian(f, x).numpy(), sep="")

# %% [markdown]
# So: TensorFlow's gradient of several outputs is that of their *sum*: (2 + 10 + 0, 0 + 1 + 3). The table of all six is
# the **Jacobian**. Row i belongs to output i, column j to input j.
# ## The law of shapes
# Jacobian shape = target shape + source shape. Next, the smallest classifier of digits: logits = images @ W. The images
# are `[5, 64]` and W is `[64, 10]`.
# %% [markdown]
# **Predict.** What is the shape of the Jacobian of these logits for W? How many of its numbers are 0: few, half or
# most?

# %%
pictures, true = lesson.digits()
images, true = pictures[:1000].reshape(1000, 64), true[:1000]
W = tf.Variable(tf.zeros([64, 10]))
table = tapekit.jacobian(lambda: images[:5] @ W, W)
print(f"logits (5, 10) + W (64, 10) -> Jacobian {table.shape}; {np.mean(table == 0):.0%} of it is 0")

# %% [markdown]
# So: `[5, 10, 64, 10]`, 32,000 numbers, nearly all 0: a logit uses one column of W in ten, and half of each image is
# white. Large Jacobians are slow and mostly empty. Usually one needs only a product with them.
# ## A row, a column, or a mixture
# `vjp(f, x, u)` mixes the *rows*: u tells how much of each output. It costs one pass back, as a gradient does.
# `jvp(f, x, v)` mixes the *columns*: v tells how far each input moves. In books, u is the *cotangent* and v the
# *tangent*.
# %% [markdown]
# **Predict.** The Jacobian of f was (2, 0), (10, 1), (0, 3). What is `vjp` with u = (0, 1, 0)? And `jvp` with v = (1,
# 0)?

# %%
print("vjp:", tapekit.vjp(f, x, [0.0, 1.0, 0.0]).cotangents.numpy())
print("jvp:", tapekit.jvp(f, x, [1.0, 0.0]).tangent.numpy())
u, v = tf.constant([1.0, -1.0, 2.0]), tf.constant([0.5, 2.0])
both = tf.tensordot(tapekit.vjp(f, x, u).cotangents, v, 1), tf.tensordot(u, tapekit.jvp(f, x, v).tangent, 1)
print("(u J) v =", both[0].numpy(), "  u (J v) =", both[1].numpy())

# %% [markdown]
# So: the second row, and the first column. The last line is a test that works for any size: (u J) v = u (J v).
#
# For a loss, u is simply 1: a gradient is a vjp. That is why training needs no Jacobian.
# ## One gradient for each example
# The loss of a batch is a mean over its images, and so is the gradient. `per_example_gradient` keeps them apart: it
# calls the loss with one image and one label at a time (`[None]` makes a batch of one of them).
#
# We give 50 of 1000 images a wrong label, train on all of them, and then ask for the gradient of each.
# %% [markdown]
# **Predict.** What shape comes back for W, `[64, 10]`? Of the 50 images with the largest gradients, how many have a
# wrong label? (Chance would give 2 or 3.)

# %%
np.random.seed(0)
labels, spoiled = true.copy(), np.random.choice(1000, 50, replace=False)
labels[spoiled] = (true[spoiled] + np.random.randint(1, 10, 50)) % 10


def loss(images, labels):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, images @ W))


for _ in range(300):
    W.assign_sub(0.5 * tapekit.gradient(lambda: loss(images, labels), W))
each = tapekit.per_example_gradient(lambda e: loss(e[0][None], e[1][None]), W, (images, labels))
gap = np.max(np.abs(np.mean(each, axis=0) - tapekit.gradient(lambda: loss(images, labels), W)))
print(f"shape {each.shape}; their mean and the gradient of the mean differ by {gap:.0e}")
norms = np.linalg.norm(each, axis=(1, 2))
suspects = np.argsort(-norms)[:50]
print(f"of the 50 largest, {np.sum(np.isin(suspects, spoiled))} have a wrong label")

figure, axes = plt.subplots(1, 8, figsize=(10, 2.2), layout="constrained", subplot_kw={"xticks": [], "yticks": []})
for ax, i in zip(axes, suspects[:8], strict=True):
    ax.imshow(images[i].reshape(8, 8), cmap="gray_r")
    ax.set(title=f"label {labels[i]}\ntruth {true[i]}", xlabel=f"norm {norms[i]:.1f}")
figure.suptitle("The eight images with the largest gradients")
lesson.save(figure, "08_labels.png")

# %% [markdown]
# So: `[1000, 64, 10]`, and 46 of the 50 have a wrong label. A wrong label pulls hard, because the model is sure of
# another answer. The same list helps to clean a real data set.
# ## Exercise
# x moves from (1, 10) by (0.02, -0.01). How much does each output of f change, to first order? Use one product with the
# Jacobian, `jvp` or `vjp`, and not the Jacobian itself.

# %%
mine = ...
exercises.check_change(mine)

# %% [markdown]
# <details><summary>Answer</summary>
#
# ```python
# mine = tapekit.jvp(f, x, [0.02, -0.01]).tangent  # a move of the inputs mixes the columns
# ```
# </details>
#
# **You can now** say what a gradient of several outputs is, and what shape a Jacobian has.<br>
# **You can now** choose between a Jacobian, `vjp` and `jvp`.<br>
# **You can now** find the examples that pull hardest on a model. Next: [9. Curvature](09_curvature.ipynb)
