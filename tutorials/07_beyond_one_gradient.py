# %% [markdown]
# # 7. Beyond one gradient
# Which other derivatives are worth asking for, what are their shapes, and what do they buy? We will find wrong labels,
# cross in five steps a valley that takes gradient descent thousands, and measure curvature without a Hessian.
# Before: [6. Vanishing, exploding, repaired](06_vanishing_exploding.ipynb).
# Next: [8. Teaching a network an equation](08_equation.ipynb)

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

# %% [markdown]
# ## The Jacobian: every output by every input
# The digits of tutorial 4, and the smallest classifier there is: logits = x W. One law gives every shape: Jacobian
# shape = target.shape + source.shape. **Predict** the shape of d logits / dW for 5 images, and how much of it is zero.

# %%
DATA = PICTURES.parent / "data" / "digits.npz"
# A notebook opened without its repository, as in Colab, takes the copy that scikit-learn has.
digits = np.load(DATA) if DATA.exists() else importlib.import_module("sklearn.datasets").load_digits()
images = (digits["images"][:1000].reshape(1000, 64) / 16).astype("float32")
labels = digits["labels" if DATA.exists() else "target"][:1000].astype("int64")
keras.utils.set_random_seed(0)
W = tf.Variable(tf.zeros([64, 10]))
jacobian = tapekit.jacobian(lambda: images[:5] @ W, W)
print(f"logits (5, 10) + W (64, 10) -> Jacobian {jacobian.shape}, of which {np.mean(jacobian == 0):.0%} is zero")
print(f"(a logit hears one column of W in ten, and {np.mean(images[:5] == 0):.0%} of these images is empty)")

# %% [markdown]
# ## One gradient for each example
# We spoil 50 of the 1000 labels and train. A gradient is a mean over the examples; `per_example_gradient` keeps them
# apart. **Predict** its shape, and which examples pull hardest on W at the end.


# %%
def loss(images=images, labels=labels):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, images @ W))


@tf.function
def train():
    W.assign_sub(0.5 * tapekit.gradient(loss, W))


spoiled = np.random.choice(1000, 50, replace=False)
labels[spoiled] = (labels[spoiled] + np.random.randint(1, 10, 50)) % 10
for _ in range(300):
    train()
each = tapekit.per_example_gradient(lambda e: loss(e[0][None], e[1][None]), W, (images, labels))
same = np.allclose(np.mean(each, 0), tapekit.gradient(loss, W), atol=1e-6)
print(f"per example {each.shape}; their mean is the gradient, to 1e-6: {same}")
assert same
norms = np.linalg.norm(each, axis=(1, 2))
suspects = np.argsort(-norms)[:50]
print(f"of the 50 largest norms {np.mean(np.isin(suspects, spoiled)):.0%} have a spoiled label (at random: 5%)")
assert np.mean(np.isin(suspects, spoiled)) > 0.8

figure, axes = plt.subplots(1, 8, figsize=(10, 1.9), layout="constrained", subplot_kw={"xticks": [], "yticks": []})
for ax, i in zip(axes, suspects, strict=False):
    ax.imshow(images[i].reshape(8, 8), cmap="gray_r")
    ax.set(title=f"label {labels[i]}" + "\nspoiled" * (i in spoiled), xlabel=f"norm {norms[i]:.1f}")
figure.savefig(PICTURES / "07_labels.png", dpi=80)
print("picture:", PICTURES / "07_labels.png")

# %% [markdown]
# ## The Hessian: how the gradient changes
# Rosenbrock's valley is steep across and flat along. A gradient step must be small enough for the steep direction;
# Newton's step, H⁻¹ g, divides by the curvature. **Predict** the shape of the Hessian for p of shape `[2]`, and how
# many steps each takes from (-1.2, 1) down to a height of 1e-3 (the bottom, at (1, 1), has height 0).


# %%
def valley(p):
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


@tf.function
def step(p, method):
    gradient, hessian = tapekit.gradient(valley, p), tapekit.hessian(valley, p)
    return p - (tf.linalg.solve(hessian, gradient[:, None])[:, 0] if method == "Newton" else 0.001 * gradient)


start, bottom = np.array([-1.2, 1.0]), np.array([1.0, 1.0])
paths = {method: [start] for method in ["gradient descent", "Newton"]}
for method, path in paths.items():
    while valley(path[-1]) > 1e-3:
        path.append(step(path[-1], method).numpy())
print({method: len(path) - 1 for method, path in paths.items()}, "steps")
hessian = tapekit.hessian(valley, bottom)
print("Hessian", hessian.shape, "with curvatures", np.linalg.eigvalsh(hessian).round(1), "at the bottom")

figure, ax = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
x, y = np.meshgrid(np.linspace(-1.6, 1.6, 200), np.linspace(-3.5, 2, 200))
ax.contour(x, y, valley((x, y)), levels=np.logspace(-1, 3.4, 12), colors="0.75")
for (method, path), style in zip(paths.items(), ["-", "o--"], strict=True):
    ax.plot(*np.array(path).T, style, linewidth=2, label=f"{method}, {len(path) - 1} steps")
ax.plot(*bottom, "k*", markersize=12, label="the bottom")
ax.set(title="Newton jumps across the valley, then lands", xlabel="p[0]", ylabel="p[1]")
ax.legend(loc="lower left")
figure.savefig(PICTURES / "07_newton.png", dpi=80)
print("picture:", PICTURES / "07_newton.png")

# %% [markdown]
# ## The largest curvature, without the Hessian
# `hvp(fn, vars, v)` is H v, and never forms H. H v brought to length 1, again and again, turns towards the largest
# curvature (power iteration). **Predict** the shape of an `hvp` for W, and of the Hessian that it does without.


# %%
@tf.function
def curvature(fn, source, v):
    for _ in tf.range(60):
        v = tapekit.hvp(fn, source, v / tf.norm(v))
    return v


v, full = curvature(loss, W, tf.random.normal([64, 10])), tapekit.hessian(loss, W)
exact = np.linalg.eigvalsh(np.reshape(full, [640, 640]))[-1]
print(f"hvp {v.shape}, largest curvature {tf.norm(v):.4f}; Hessian {full.shape}, largest eigenvalue {exact:.4f}")
assert abs(tf.norm(v) / exact - 1) < 1e-3

# %% [markdown]
# **Exercise.** A gradient step s multiplies the error along a direction of curvature c by 1 - s c, so s must stay below
# 2 / c. Find c at the bottom of the valley with `hvp`. Walk 200 steps from near it with s = 1.9 / c, then 2.1 / c.

# %%
c = tf.norm(curvature(valley, bottom, tf.constant([1.0, 0.0], tf.float64)))
for factor, stays in [(1.9, True), (2.1, False)]:
    p = bottom + 1e-3
    for _ in range(200):
        p -= factor / c * tapekit.gradient(valley, p)
    print(f"c = {c:.1f}, s = {factor} / c: from 1.4e-3 to {tf.norm(p - bottom):.1e} from the bottom")
    assert (tf.norm(p - bottom) < 1.4e-3) == stays
