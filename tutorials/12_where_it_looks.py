# %% [markdown]
# # 12. Where does it look?
# A network says: there is a cross in this image. *Where* did it see it? Grad-CAM answers with a map, made from one
# gradient. To test a map of places, one must know the place. So we plant the patterns ourselves.
#
# 30 minutes. [Start page and glossary](README.md). Before:
# [11. What does the network look at?](11_what_it_looks_at.ipynb)

# %%
import exercises
import lesson
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from tensorflow import keras

import tapekit

# %% [markdown]
# ## A network that finds crosses and rings
# The images have 48 x 48 pixels of noise. In each half there may be a pattern of 11 x 11: a cross in one, a ring in the
# other, both, or none. `plant` makes such images, and returns the upper left corners of the patterns. The network has
# two outputs, the logits of "there is a cross" and "there is a ring". Nobody tells it where they are.

# %%
keras.utils.set_random_seed(0)
across = np.abs(np.arange(11) - 5)
cross = np.abs(across[:, None] - across) < 2
ring = np.abs(np.hypot(across[:, None], across) - 4.3) < 0.9


def plant(present):
    """Return images `[n, 48, 48, 1]` and corners `[n, 2, 2]`. `present`, `[n, 2]`, says which have a cross, a ring."""
    images = np.random.uniform(0, 0.8, [len(present), 48, 48, 1]).astype("float32")
    corners = np.random.randint(0, [38, 14], [len(present), 2, 2])
    corners[..., 1] += 24 * (np.arange(2) ^ np.random.randint(0, 2, [len(present), 1]))  # each has a half of its own
    for (i, kind), (row, column) in zip(np.argwhere(present), corners[present > 0], strict=True):
        patch, pattern = images[i, row : row + 11, column : column + 11, 0], (cross, ring)[kind]
        patch[...] = np.where(pattern, 1.0, 0.5 * patch)
    return images - 0.4, corners


layers = [keras.layers.Conv2D(8, 5, strides=stride, activation="relu", padding="same") for stride in (2, 1)]
convolutions = keras.Sequential(layers)
head = keras.Sequential([keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(2)])
finder = keras.Sequential([convolutions, head])
finder.compile(keras.optimizers.Adam(0.005), keras.losses.BinaryCrossentropy(from_logits=True))
present = np.random.randint(0, 2, [2000, 2])
finder.fit(plant(present)[0], present, batch_size=50, epochs=6, verbose=0)
present = np.random.randint(0, 2, [1000, 2])
print(f"right answers on 1000 new images: {np.mean((finder(plant(present)[0]) > 0) == present):.1%}")

# %% [markdown]
# ## Grad-CAM
# The convolutions make eight *feature maps* of 24 x 24 places, and the head makes the two logits of them. Grad-CAM
# ([Selvaraju et al., 2017](https://arxiv.org/abs/1610.02391)) adds up the eight maps, each weighed by the mean gradient
# of *one* logit for it. Maps that speak for "cross" count, maps that speak against it are subtracted; what is below 0
# in the end is cut off.
# %% [markdown]
# **Predict.** Both patterns are in the image; each covers 5 % of it. How much of the heat of the map for "cross" lies
# on the cross: 5 %, 50 %, more? How much lies on the ring?


# %%
def grad_cam(images, kind):
    maps = convolutions(images)
    gradient = tapekit.gradient(lambda maps: head(maps)[:, kind], maps)
    weights = tf.reduce_mean(gradient, axis=[1, 2], keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * maps, axis=3)).numpy()


def shares(heat, corners):
    """Return which share of the heat, `[n, 24, 24]`, lies on the cross and which on the ring, as means over images."""
    places = [[(h, row // 2, column // 2) for row, column in at] for h, at in zip(heat, corners, strict=True)]
    return np.mean([[h[r : r + 6, c : c + 6].sum() / h.sum() for h, r, c in both] for both in places], axis=0)


both, corners = plant(np.ones([200, 2]))
heat = {"cross": grad_cam(both, 0), "ring": grad_cam(both, 1)}
for name, maps in heat.items():
    print("map for {}: {:.1%} of its heat on the cross, {:.1%} on the ring".format(name, *shares(maps, corners)))

figure, axes = plt.subplots(2, 3, figsize=(10.5, 7), layout="constrained", subplot_kw={"xticks": [], "yticks": []})
for row, i in zip(axes, (0, 1), strict=True):
    row[0].imshow(both[i, ..., 0], cmap="gray_r")
    row[0].set_title("the image")
    for ax, (name, maps) in zip(row[1:], heat.items(), strict=True):
        ax.imshow(maps[i], cmap="gray_r", extent=(0, 48, 48, 0))
        for (top, left), look in zip(corners[i], ("-", "--"), strict=True):
            ax.add_patch(plt.Rectangle((left, top), 11, 11, fill=False, edgecolor="tab:red", lw=2.5, ls=look))
        ax.set_title(f"map for {name} (solid: the cross, dashed: the ring)", fontsize=9)
lesson.save(figure, "12_where.png", dpi=70)

# %% [markdown]
# So: chance would be 6 % (6 x 6 of the 24 x 24 places). Of the heat for "cross", 74.5 % lies on the cross and
# 22.3 % on the ring; of the heat for "ring", 82.3 % lies on the ring. Nobody told the network the places. The map found
# them, and we could measure it.
# ## Exercise
# What do the gradient's weights do? Leave them out: add up the eight maps as they are. Without the weights, which
# pattern is hot? `mine` is the pair of shares, on the cross and on the ring, for the images `both`.

# %%
mine = ...
exercises.check_bare(mine, convolutions, both, corners, shares)

# %% [markdown]
# <details><summary>Answer</summary>
#
# ```python
# mine = shares(np.sum(convolutions(both), axis=3), corners)  # neither: a few per cent each, little more than chance
# ```
# </details>
#
# **You can now** make a Grad-CAM map of any layer of a network.<br>
# **You can now** plant what you look for, and measure whether a map finds it.<br>
# **You can now** distrust a picture that no number could have proved wrong.
# ## The end, and what comes next
# You can read a gradient, find where it was lost, test it, log it, repair a network in which it fades or explodes, and
# use it for much more than training. From here:
# - Put `tapekit.GradientLog` into a training run of your own, and read `print(*log.findings(), sep="\n")` after it.
# - Take the [README](../README.md) as the list of all calls, and `help(tapekit.gradient)` for each of them.
# - Look up your other libraries in the [recipes](recipes.md).
# - Read the code: `tapekit/gradients.py` first. It is a thin layer, and TensorFlow does the calculus.
# - Go deeper with [TensorFlow's guide to autodiff](https://www.tensorflow.org/guide/advanced_autodiff), the
#   [notes of CS231n](https://cs231n.github.io/optimization-2/), or
#   [The Autodiff Cookbook](https://docs.jax.dev/en/latest/notebooks/autodiff_cookbook.html).
# - Back to the [start page](README.md), with its glossary.
