# %% [markdown]
# # 7. Beyond one gradient
# Which other derivatives are worth asking for, what are their shapes, and what do they buy? We will find wrong labels,
# cross a valley in which gradient descent crawls, and measure curvature without a Hessian.
# Before: [6. Vanishing, exploding, repaired](06_vanishing_exploding.ipynb).
# Next: [8. Teaching a network an equation](08_equation.ipynb)

# %%
import importlib
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
# ## The Jacobian: every output by every input
# The digits of tutorial 4, and the smallest classifier there is: logits = x W. One law gives every shape: Jacobian
# shape = target.shape + source.shape. **Predict** the shape of d logits / dW for 5 images, and how much of it is zero.

# %%
DATA = PICTURES.parent / "data" / "digits.npz"
# A notebook opened without its repository, as in Colab, takes the copy that scikit-learn has.
digits = np.load(DATA) if DATA.exists() else importlib.import_module("sklearn.datasets").load_digits()
images = (digits["images"][:1000].reshape(1000, 64) / 16).astype("float32")
true = digits["labels" if DATA.exists() else "target"][:1000].astype("int64")
W = tf.Variable(tf.zeros([64, 10]))
jacobian = tapekit.jacobian(lambda: images[:5] @ W, W)
print(f"logits (5, 10) + W (64, 10) -> Jacobian {jacobian.shape}, of which {np.mean(jacobian == 0):.0%} is zero")
print(f"(a logit hears one column of W in ten, and {np.mean(images[:5] == 0):.0%} of these images is empty)")

# %% [markdown]
# ## One gradient for each example
# We spoil 50 of the 1000 labels and train. A gradient is a mean over the examples; `per_example_gradient` keeps them
# apart (`e[0][None]` is one image, as a batch of one). **Predict** its shape, and which examples pull hardest on W.

# %%
np.random.seed(0)
labels, spoiled = true.copy(), np.random.choice(1000, 50, replace=False)
labels[spoiled] = (true[spoiled] + np.random.randint(1, 10, 50)) % 10


def loss(images=images, labels=labels):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, images @ W))


for _ in range(300):
    W.assign_sub(0.5 * tapekit.gradient(loss, W))
each = tapekit.per_example_gradient(lambda e: loss(e[0][None], e[1][None]), W, (images, labels))
assert np.allclose(np.mean(each, 0), tapekit.gradient(loss, W), atol=1e-6)
print(f"per example {each.shape}; their mean is the gradient {tapekit.gradient(loss, W).shape}, to 1e-6")
norms = np.linalg.norm(each, axis=(1, 2))
suspects = np.argsort(-norms)[:50]
print(f"of the 50 largest norms {np.mean(np.isin(suspects, spoiled)):.0%} have a spoiled label (at random: 5%)")
assert np.mean(np.isin(suspects, spoiled)) > 0.8
figure, axes = plt.subplots(1, 8, figsize=(10, 2.2), layout="constrained", subplot_kw={"xticks": [], "yticks": []})
for ax, i in zip(axes, suspects, strict=False):
    ax.imshow(images[i].reshape(8, 8), cmap="gray_r")
    title = f"label {labels[i]}\n" + (f"was {true[i]}" if i in spoiled else "not spoiled")
    ax.set(title=title, xlabel=f"norm {norms[i]:.1f}")
figure.suptitle("The eight examples that pull hardest on W")
figure.savefig(PICTURES / "07_labels.png", dpi=80)
print("picture:", PICTURES / "07_labels.png")

# %% [markdown]
# ## The Hessian: how the gradient changes
# Rosenbrock's valley is steep across and flat along. A gradient step must be small enough for the steep direction;
# Newton's step, H⁻¹ g, divides by the curvature. **Predict** the shape of the Hessian for p of shape `[2]`, how many
# steps each takes from (-1.2, 1) to a height of 1e-3 (the bottom, at (1, 1), has 0), and whether every step leads down.


# %%
def valley(p):
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


@tf.function
def step(p, method):
    gradient = tapekit.gradient(valley, p)
    if method == "Newton":
        return p - tf.linalg.solve(tapekit.hessian(valley, p), gradient[:, None])[:, 0]
    return p - 0.001 * gradient


start, bottom = np.array([-1.2, 1.0]), np.array([1.0, 1.0])
paths = {method: [start] for method in ["gradient descent", "Newton"]}
for method, path in paths.items():
    while valley(path[-1]) > 1e-3:
        path.append(step(path[-1], method).numpy())
print({method: len(path) - 1 for method, path in paths.items()}, "steps")
print("heights along Newton's path:", *[f"{valley(p):.4g}" for p in paths["Newton"]])
hessian = tapekit.hessian(valley, bottom)
print("Hessian {}, with curvatures {:.1f} and {:.1f} at the bottom".format(hessian.shape, *np.linalg.eigvalsh(hessian)))
figure, ax = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
x, y = np.meshgrid(np.linspace(-1.6, 1.6, 200), np.linspace(-3.5, 2, 200))
ax.clabel(ax.contour(x, y, valley((x, y)), levels=[10, 100, 400, 1000], colors="0.8"), fmt="%g", colors="0.4")
for (method, path), style in zip(paths.items(), ["-", "ko--"], strict=True):
    ax.plot(*np.array(path).T, style, linewidth=2, label=f"{method}, {len(path) - 1} steps")
ax.plot(*bottom, "w*", markeredgecolor="black", markersize=14, label="the bottom")
ax.set(title="Newton jumps across the valley, then lands", xlabel="p[0]", ylabel="p[1]")
ax.legend(loc="lower left")
figure.savefig(PICTURES / "07_newton.png", dpi=80)
print("picture:", PICTURES / "07_newton.png")

# %% [markdown]
# ## The largest curvature, without the Hessian
# `hvp(fn, vars, v)` is H v, and never forms H. H v brought to length 1, again and again, turns towards the curvature
# that is largest in size (power iteration; here none is negative). **Predict** the shapes of an `hvp` for W, and of H.


# %%
@tf.function
def steepest(fn, source, v):
    for _ in tf.range(60):
        v = tapekit.hvp(fn, source, v / tf.norm(v))
    return v / tf.norm(v), tf.norm(v)  # the steepest direction, and the curvature there


(v, c), full = steepest(loss, W, np.random.normal(size=[64, 10]).astype("float32")), tapekit.hessian(loss, W)
exact = np.linalg.eigvalsh(np.reshape(full, [640, 640]))[-1]
print(f"hvp {v.shape}, largest curvature {c:.4f}; Hessian {full.shape}, largest eigenvalue {exact:.4f}")
assert abs(c / exact - 1) < 1e-3

# %% [markdown]
# **Exercise.** A gradient step s multiplies the error along a direction of curvature c by 1 - s c. Start 1e-3 from the
# bottom of the valley in its steepest direction, and walk 40 steps with s = 1.9 / c, then with s = 2.1 / c. How far
# from the bottom does each walk end, by this law and in truth?

# %%
# One answer: try your own first.
v, c = steepest(valley, bottom, tf.constant([1.0, 0.0], tf.float64))
for factor in [1.9, 2.1]:
    p, law = bottom + 1e-3 * v, 1e-3 * abs(1 - factor) ** 40
    for _ in range(40):
        p -= factor / c * tapekit.gradient(valley, p)
    print(f"c = {c:.1f}, s = {factor} / c: from 1.0e-03 to {tf.norm(p - bottom):.1e} from the bottom (law {law:.1e})")
    assert (tf.norm(p - bottom) < 1e-3) == (factor < 2)
print("right: a step below 2 / c leads to the bottom, a step above it leads away")
