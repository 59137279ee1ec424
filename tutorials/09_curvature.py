# %% [markdown]
# # 9. Curvature
# A gradient says how the loss changes. The Hessian says how the *gradient* changes: the curvature. It tells how large a
# step may be, and Newton's method uses it to cross a valley in which gradient descent crawls.
#
# 40 minutes. [Start page and glossary](README.md). Before: [8. One gradient for each example](08_each_example.ipynb).
# Next: [10. Teaching a network an equation](10_equation.ipynb)

# %%
import exercises
import lesson
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import tapekit

# %% [markdown]
# ## The gradient of the gradient
# The valley of Rosenbrock is a famous test: h = (1 - p₀)² + 100 (p₁ - p₀²)². It is steep across and nearly flat along.
# Its bottom is at (1, 1), with height 0.
# %% [markdown]
# **Predict.** p has the shape `[2]`. What is the shape of the Hessian, the table of all second derivatives? Is it
# symmetric?


# %%
def valley(p):
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


bottom = np.array([1.0, 1.0])
hessian = tapekit.hessian(valley, bottom).numpy()
print("Hessian at the bottom:\n", hessian, sep="")
print(
    "the Jacobian of the gradient is the same:",
    np.allclose(hessian, tapekit.jacobian(lambda p: tapekit.gradient(valley, p), bottom)),
)
curvatures, directions = np.linalg.eigh(hessian)
for curvature, direction in zip(curvatures, directions.T, strict=True):
    print(f"curvature {curvature:6.1f} in the direction {direction.round(2)}")

# %% [markdown]
# So: the Hessian is the Jacobian of the gradient, `[2, 2]` and symmetric. In two directions, its *eigenvectors*, H only
# stretches; the factors, its **eigenvalues**, are the curvatures: 1001.6 across the valley, 0.4 along it. A step that
# is small enough for the one is 2500 times too small for the other.
# ## Newton's step
# Gradient descent takes a step against the gradient g. Newton's method first divides by the curvature: it solves H s =
# g and takes the step -s. On a parabola, that lands at the bottom at once. Both start at (-1.2, 1), at a height of
# 24.2, and walk until the height is below 0.001.
# %% [markdown]
# **Predict.** How many steps does each need: tens, thousands, tens of thousands? Does each step of Newton's lead down?


# %%
@tf.function
def step(p, method):
    gradient = tapekit.gradient(valley, p)
    if method == "Newton":
        return p - tf.linalg.solve(tapekit.hessian(valley, p), gradient[:, None])[:, 0]
    return p - 0.001 * gradient


paths = {method: [np.array([-1.2, 1.0])] for method in ("gradient descent", "Newton")}
for method, path in paths.items():
    while valley(path[-1]) > 1e-3:
        path.append(step(path[-1], method).numpy())
    print(f"{method}: {len(path) - 1} steps")
print("heights on Newton's way:", *(f"{valley(p):.4g}" for p in paths["Newton"]))

figure, ax = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
x, y = np.meshgrid(np.linspace(-1.6, 1.6, 200), np.linspace(-3.5, 2, 200))
ax.clabel(ax.contour(x, y, valley((x, y)), levels=[10, 100, 400, 1000], colors="0.8"), fmt="%g", colors="0.4")
for (method, path), style in zip(paths.items(), ["-", "ko--"], strict=True):
    ax.plot(*np.array(path).T, style, linewidth=2, label=f"{method}, {len(path) - 1} steps")
for number, p in enumerate(paths["Newton"][:4]):
    place = (-5, -15) if number == 0 else (7, -3)  # the paths begin on the right of point 0
    ax.annotate(f"{number}: {valley(p):.4g}", p, place, textcoords="offset points", fontsize="small")
ax.plot(*bottom, "w*", markeredgecolor="black", markersize=14, label="the bottom")
ax.set(title="Rosenbrock's valley, and the height at Newton's steps", xlabel="p[0]", ylabel="p[1]")
ax.legend(loc="lower left")
lesson.save(figure, "09_newton.png")

# %% [markdown]
# So: 6543 steps against 5, and not each of the five leads down. Newton takes the surface for a parabola. Step 1 lands
# on the floor of the valley: from 24.2 to 4.73. There the floor is nearly flat, so step 2 goes far, and straight on;
# but the valley bends, and the step ends high on the wall, at 1412. Step 3 comes down from the wall, close to the
# bottom. Newton's steps can be trusted only where the parabola fits. That is why practice shortens them, or tests each
# one.
# ## The largest curvature without the Hessian
# A model of a million weights has a Hessian of a million times a million numbers. But the product H v with one
# direction v costs about two gradients: `hvp(fn, vars, v)`. Multiply a direction by H, bring it back to length 1, and
# again: it turns towards the direction of the largest curvature. Here for a classifier of digits with 640 weights:
# %% [markdown]
# **Predict.** What are the shapes of `hvp` and of the full Hessian for W of shape `[64, 10]`?


# %%
@tf.function
def steepest(fn, source, v):
    for _ in tf.range(60):
        v = tapekit.hvp(fn, source, v / tf.norm(v))
    return v / tf.norm(v), tf.norm(v)  # the direction, and the curvature in it


pictures, labels = lesson.digits()
images, W = pictures[:500].reshape(500, 64), tf.Variable(tf.zeros([64, 10]))
loss = lambda: tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels[:500], images @ W))
direction, curvature = steepest(loss, W, tf.random.stateless_normal([64, 10], seed=[0, 1]))
full = tapekit.hessian(loss, W)
print(f"hvp {direction.shape}: largest curvature {curvature:.4f}")
print(f"Hessian {full.shape}: largest eigenvalue {np.linalg.eigvalsh(np.reshape(full, [640, 640]))[-1]:.4f}")

# %% [markdown]
# So: the same number, from sixty products in the place of 409,600 second derivatives.
# ## The largest step
# At the bottom of a valley with curvature c, the slope at a distance d is c d. A gradient step of size s therefore
# leads from d to d - s c d: it multiplies the distance by 1 - s c.
# ## Exercise
# At the bottom of Rosenbrock's valley, the curvatures are 0.4 and 1001.6. Up to which step size s does gradient descent
# come closer to the bottom? Above it, it runs away. (The check walks forty steps, a little below your s and a little
# above.)

# %%
mine = ...
exercises.check_largest_step(mine, valley)

# %% [markdown]
# <details><summary>Answer</summary>
#
# ```python
# mine = 2 / 1001.6  # 1 - s c must be larger than -1
# ```
# </details>
#
# **You can now** read a Hessian: curvatures and their directions.<br>
# **You can now** take Newton's step, and say when it fails.<br>
# **You can now** find the largest curvature, and with it the largest step, without a Hessian. Next:
# [10. Teaching a network an equation](10_equation.ipynb)
