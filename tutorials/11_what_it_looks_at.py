# %% [markdown]
# # 9. What does the network look at?
# The same call with another source: the *image*, not the weights. What does the gradient say about a decision, and how
# do we know that it is true? Each picture comes with a number that could have proved it wrong. Before:
# [8. Teaching a network an equation](08_equation.ipynb). Again: [1. One variable, one tape](01_one_variable.ipynb)

# %%
import importlib
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
# A network learns 1397 digits of tutorial 4, and we ask it about the other 400. `score` is the right answer's logit.

# %%
keras.utils.set_random_seed(0)
DATA = PICTURES.parent / "data" / "digits.npz"
digits = np.load(DATA) if DATA.exists() else importlib.import_module("sklearn.datasets").load_digits()  # in Colab
images = (digits["images"][..., None] / 16).astype("float32")
labels = digits["labels" if DATA.exists() else "target"].astype("int64")
model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)])
model.compile(keras.optimizers.Adam(0.005), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(images[:1397], labels[:1397], batch_size=64, epochs=12, verbose=0)
x, y = tf.constant(images[1397:]), labels[1397:]


def score(x):
    return tf.gather(model(x), y, batch_dims=1)


def accuracy(x):
    return np.mean(np.argmax(model(x), 1) == y)


# %% [markdown]
# ## Saliency and integrated gradients
# Saliency, |d score / d pixel|, is what *would* change the score. Integrated gradients are what *made* it: the mean
# gradient on the way from an empty image to x, times x (Sundararajan et al., 2017). Its sum: score(x) - score(empty).
# **Predict** both shapes, for x of shape `[400, 8, 8, 1]`. If dark and light swap in 6 of 64 pixels (x becomes 1 - x),
# which 6 hurt most: those of the largest saliency, integrated gradient, or "signed", gradient * (2 x - 1)?

# %%
saliency, signed = tf.abs(tapekit.gradient(score, x)), tapekit.gradient(score, x) * (2 * x - 1)
integrated = x * sum(tapekit.gradient(score, x * (i + 0.5) / 100) for i in range(100)) / 100
change = score(x) - score(tf.zeros_like(x))
gap = np.max(np.abs(np.sum(integrated, (1, 2, 3)) - change))
print(f"shapes {saliency.shape}, {integrated.shape}; mean |sum| {np.mean(np.abs(change)):.2f}, largest gap {gap:.3f}")
assert gap < 0.02
choices = {"random": np.random.rand(*x.shape), "saliency": saliency, "integrated": integrated, "signed": signed}
for name, importance in choices.items():
    ranks = np.argsort(np.argsort(-np.reshape(importance, [-1, 64]), 1), 1).reshape(x.shape)
    print(f"6 pixels swapped, {name:10} accuracy {accuracy(x):.1%} -> {accuracy(tf.where(ranks < 6, 1 - x, x)):.1%}")

# %% [markdown]
# "signed" is what the gradient says that the swap will cost. Saliency, its size alone, has lost the direction.
# ## FGSM: the gradient as an attack
# Every pixel moves by 0.1 to where the loss rises, x + 0.1 sign(gradient) (Goodfellow et al., 2015), and stays between
# 0 (white) and 1 (black). **Predict** the accuracy, and what the same step in random directions costs.

# %%
gradient = tapekit.gradient(lambda x: model.compute_loss(y=y, y_pred=model(x)), x)
for name, push in {"a random direction": tf.random.normal(x.shape), "the gradient": gradient}.items():
    attacked = tf.clip_by_value(x + 0.1 * tf.sign(push), 0, 1)
    print(f"accuracy {accuracy(x):.1%} -> {accuracy(attacked):.1%} by a step of 0.1 along the signs of {name}")
figure, axes = plt.subplots(2, 4, figsize=(8, 4.4), layout="constrained")
guess = np.argmax(model(attacked), 1)  # of those that are fooled, the first and the third: the second is a 4 again
for row, i in zip(axes, np.flatnonzero((np.argmax(model(x), 1) == y) & (guess != y))[[0, 2]], strict=True):
    shown = {f"a {y[i]}": x, "saliency": saliency, "integrated gradients": integrated, f"now a {guess[i]}": attacked}
    for ax, (title, values) in zip(row, shown.items(), strict=True):
        ax.imshow(values[i, ..., 0] / np.max(np.abs(values[i])), cmap="gray_r", vmin=-(values is integrated), vmax=1)
        ax.set(title=title, xticks=[], yticks=[])
figure.suptitle("Saliency: black is large; integrated: black is for, white against (each panel to its own largest)")
figure.savefig(PICTURES / "09_digits.png", dpi=80)
print("picture:", PICTURES / "09_digits.png")

# %% [markdown]
# ## Grad-CAM: where in the image?
# To test a "where" we must know it: we plant a cross, a ring, both or none in noise, and train a network to say which.
# Grad-CAM (Selvaraju et al., 2017) adds its feature maps, `[24, 24]`, each weighed by the mean gradient of one score
# with respect to it. **Predict**, with both planted: how much of each map's heat is on its own 25 of 576 places (4%)?


# %%
def plant(present):
    stamps = np.eye(5) + np.eye(5)[::-1] > 0, np.pad(np.zeros([3, 3]), 1, constant_values=1)
    images = np.random.uniform(0, 0.8, [len(present), 24, 24, 1]).astype("float32")
    corners = np.random.randint(0, [20, 8], [len(present), 2, 2])
    corners[..., 1] += 12 * (np.arange(2) ^ np.random.randint(0, 2, [len(present), 1]))  # each has a half of its own
    for (i, kind), (row, column) in zip(np.argwhere(present), corners[present > 0], strict=True):
        images[i, row : row + 5, column : column + 5, 0] = stamps[kind]
    return images - 0.4, corners  # noise of mean 0, like the padding


def grad_cam(images, kind):
    maps = convolutions(images)
    weights = tf.reduce_mean(tapekit.gradient(lambda maps: head(maps)[:, kind], maps), [1, 2], keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * maps, 3)).numpy()


def shares(heat, corners):  # how much of the heat is on the cross, how much on the ring
    parts = [[h[r : r + 5, c : c + 5].sum() / h.sum() for r, c in at] for h, at in zip(heat, corners, strict=True)]
    return np.mean(parts, 0)


convolutions = keras.Sequential([keras.layers.Conv2D(8, k, activation="relu", padding="same") for k in (5, 3)])
head = keras.Sequential([keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(2)])
finder = keras.Sequential([convolutions, head])
finder.compile(keras.optimizers.Adam(0.005), keras.losses.BinaryCrossentropy(from_logits=True))
present = np.random.randint(0, 2, [2000, 2])
finder.fit(plant(present)[0], present, batch_size=50, epochs=10, verbose=0)
print(f"{np.mean((finder(plant(present)[0]) > 0) == present):.1%} of answers on new images are right")
both, corners = plant(np.ones([200, 2]))
maps = [grad_cam(both, kind) for kind in (0, 1)]
table = np.array([shares(heat, corners) for heat in maps])
print("rows: map of the cross, of the ring; columns: share of its heat on the cross, on the ring\n", table.round(4))
assert np.all(np.diag(table) > 0.9)
figure, axes = plt.subplots(1, 3, figsize=(8, 3), layout="constrained")
for ax, seen, title in zip(axes, [both, *maps], ["image", "map of cross (solid)", "map of ring (dashed)"], strict=True):
    ax.imshow(np.reshape(seen[0], [24, 24]), cmap="gray_r")
    ax.scatter(*corners[0].T[::-1] + 2, 2600, "none", "s", edgecolor="tab:red", lw=2.5, linestyle=["-", "--"])
    ax.set(title=title, xticks=[], yticks=[])
figure.savefig(PICTURES / "09_where.png", dpi=80)
print("picture:", PICTURES / "09_where.png")

# %% [markdown]
# Every picture here met a number that could have refuted it. Ask for such a number before you believe the next picture.
#
# **Exercise.** What do the gradient's weights add? Take them away: on which pattern do the bare maps lie, added up?

# %%
# One answer: try your own first.
cross, ring = shares(np.sum(convolutions(both), 3), corners)
assert max(cross, ring) < 0.1
print(f"right: {cross:.1%} of the heat on the cross, {ring:.1%} on the ring, hardly more than by chance")
