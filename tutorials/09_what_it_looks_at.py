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

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up lines, out of the way
if "google.colab" in sys.modules:
    os.system("pip install -q tapekit")

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import tapekit

PICTURES = Path("tutorials/pictures") if Path("tutorials").is_dir() else Path("pictures")
PICTURES.mkdir(exist_ok=True)

# %%
keras.utils.set_random_seed(0)
DATA = PICTURES.parent / "data" / "digits.npz"
# A notebook opened without its repository, as in Colab, takes the copy that scikit-learn has.
digits = np.load(DATA) if DATA.exists() else importlib.import_module("sklearn.datasets").load_digits()
images = (digits["images"][..., None] / 16).astype("float32")
labels = digits["labels" if DATA.exists() else "target"].astype("int64")
model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)])
model.compile(keras.optimizers.Adam(0.005), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(images[:1397], labels[:1397], batch_size=64, epochs=12, verbose=0)
x, y = tf.constant(images[1397:]), labels[1397:]


def score(x):
    return tf.gather(model(x), y, batch_dims=1)  # the logit of the right answer, [images]


def accuracy(x):
    return np.mean(np.argmax(model(x), 1) == y)


def swap(x, importance):
    ranks = np.argsort(np.argsort(-np.reshape(importance, [-1, 64]), 1), 1)
    return tf.where(ranks.reshape(x.shape) < 6, 1 - x, x)


# %% [markdown]
# ## Saliency and integrated gradients
# Saliency, |d score / d pixel|, is what *would* change the score. Integrated gradients are what *made* it: the mean
# gradient on the way from an empty image to x, times x (Sundararajan et al., 2017). Its sum: score(x) - score(empty).
# **Predict** both shapes, for x of shape `[400, 8, 8, 1]`. If dark and light swap in 6 of 64 pixels, which 6 hurt most?

# %%
saliency = tf.abs(tapekit.gradient(score, x))
integrated = x * sum(tapekit.gradient(score, x * (i + 0.5) / 100) for i in range(100)) / 100
change = score(x) - score(tf.zeros_like(x))
gap = np.max(np.abs(np.sum(integrated, (1, 2, 3)) - change))
print(f"shapes {saliency.shape}, {integrated.shape}; mean |sum| {np.mean(np.abs(change)):.2f}, largest gap {gap:.3f}")
assert gap < 0.02
for name, importance in {"random": np.random.rand(*x.shape), "saliency": saliency, "integrated": integrated}.items():
    print(f"6 pixels swapped, {name:10} accuracy {accuracy(x):.1%} -> {accuracy(swap(x, importance)):.1%}")

# %% [markdown]
# ## FGSM: the gradient as an attack
# Every pixel moves by 0.1 (white is 0, black is 1) in the direction that raises the loss: x + 0.1 sign(gradient)
# (Goodfellow et al., 2015). **Predict** the accuracy, and what the same step in random directions costs.

# %%
gradient = tapekit.gradient(lambda x: model.compute_loss(y=y, y_pred=model(x)), x)
for name, push in {"a random direction": tf.random.normal(x.shape), "the gradient": gradient}.items():
    attacked = tf.clip_by_value(x + 0.1 * tf.sign(push), 0, 1)
    print(f"accuracy {accuracy(x):.1%} -> {accuracy(attacked):.1%} by a step of 0.1 along the signs of {name}")

figure, axes = plt.subplots(2, 4, figsize=(8, 4.2), layout="constrained")
guess = np.argmax(model(attacked), 1)
for row, i in zip(axes, np.flatnonzero((np.argmax(model(x), 1) == y) & (guess != y))[[0, 2]], strict=True):
    shown = {f"a {y[i]}": x, "saliency": saliency, "integrated gradients": integrated, f"now a {guess[i]}": attacked}
    for ax, (title, values), colours in zip(row, shown.items(), ["gray_r", "viridis", "RdBu_r", "gray_r"], strict=True):
        ax.imshow(values[i, ..., 0] / np.max(np.abs(values[i])), cmap=colours, vmin=-(colours == "RdBu_r"), vmax=1)
        ax.set(title=title, xticks=[], yticks=[])
figure.savefig(PICTURES / "09_digits.png", dpi=80)
print("picture:", PICTURES / "09_digits.png")

# %% [markdown]
# ## Grad-CAM: where in the image?
# To test a "where" we must know the answer: we plant a cross, a ring, both or none in noise, and train a network to say
# which. Grad-CAM (Selvaraju et al., 2017) weighs each feature map, `[24, 24]`, by the mean gradient of one score with
# respect to it, and adds them. **Predict** how often the brightest of 576 places is in the pattern's 25 (chance: 4%).


# %%
def plant(present):
    stamps = np.eye(5) + np.eye(5)[::-1] > 0, np.pad(np.zeros([3, 3]), 1, constant_values=1)
    images = np.random.uniform(0, 0.8, [len(present), 24, 24, 1]).astype("float32")
    corners = np.random.randint(0, [20, 8], [len(present), 2, 2])
    corners[..., 1] += 12 * (
        np.arange(2) ^ np.random.randint(0, 2, [len(present), 1])
    )  # one half for the cross, one for the ring
    for i, kind in np.argwhere(present):
        row, column = corners[i, kind]
        images[i, row : row + 5, column : column + 5, 0] = stamps[kind]
    return images, corners


def grad_cam(images, kind):
    maps = convolutions(images)
    weights = tf.reduce_mean(tapekit.gradient(lambda maps: head(maps)[:, kind], maps), [1, 2], keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * maps, 3))


def hit_rate(heat, corners):
    place = np.stack(np.unravel_index(np.argmax(np.reshape(heat, [-1, 576]), 1), [24, 24]), 1)
    return np.mean(np.all((corners <= place) & (place < corners + 5), 1))


convolutions = keras.Sequential([keras.layers.Conv2D(8, k, activation="relu", padding="same") for k in (5, 3)])
head = keras.Sequential([keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(2)])
finder = keras.Sequential([convolutions, head])
finder.compile(keras.optimizers.Adam(0.005), keras.losses.BinaryCrossentropy(from_logits=True))
present = np.random.randint(0, 2, [2000, 2])
finder.fit(plant(present)[0], present, batch_size=50, epochs=10, verbose=0)
for kind, name in enumerate(["cross", "ring"]):
    seen, corners = plant(np.eye(2)[[kind] * 200])
    rate = hit_rate(grad_cam(seen, kind), corners[:, kind])
    print(f"{name}: {np.mean((finder(seen) > 0) == (np.arange(2) == kind)):.0%} of answers, {rate:.0%} of maps right")

# %% [markdown]
# **Exercise.** Plant both in each of 200 images. Does each map find its own pattern, or just any?

# %%
both, corners = plant(np.ones([200, 2]))
maps = [grad_cam(both, kind) for kind in (0, 1)]
rates = np.array([[hit_rate(heat, corners[:, place]) for place in (0, 1)] for heat in maps])
print("rows: map of the cross, of the ring; columns: hits on the cross, on the ring\n", rates)
assert np.all(np.abs(rates - np.eye(2)) < 0.2)

figure, axes = plt.subplots(1, 3, figsize=(8, 3), layout="constrained")
for ax, values, title in zip(axes, [both, *maps], ["image", "cross (solid)?", "ring (dashed)?"], strict=True):
    ax.imshow(np.reshape(values[0], [24, 24]), cmap="gray_r")
    ax.scatter(*corners[0].T[::-1] + 2, s=1400, marker="s", color="none", edgecolor="tab:red", linestyle=["-", "--"])
    ax.set(title=title, xticks=[], yticks=[])
figure.savefig(PICTURES / "09_where.png", dpi=80)
print("picture:", PICTURES / "09_where.png")
