# %% [markdown]
# # 1. One variable
# What is a gradient, and what is it good for? We measure a slope by hand, let TensorFlow find it, and walk downhill.
#
# 30 minutes. [Start page and glossary](README.md). Next: [2. The tape as a circuit](02_circuit.ipynb)
#
# The first cell loads what we need. `lesson` (pictures) and `exercises` (checks) are files beside this notebook.

# %%
import exercises
import lesson
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import tapekit

# %% [markdown]
# ## Nudge it
# A **loss** is one number that says how wrong a model is. To train a model is to make its loss smaller. Our model is
# one number, `w`, and its loss is w². `lambda w: w**2` is a function without a name: it takes `w` and returns `w**2`.
#
# We stand at w = 5 and make w larger by a small h. The loss grows by (loss(5 + h) - loss(5)) / h for each unit of h.
# %% [markdown]
# **Predict.** Which number does it come close to when h gets smaller? Write it down. Then run the next cell.

# %%
loss = lambda w: w**2
for h in (1.0, 0.1, 0.01, 0.001):
    print(f"h = {h:<6} (loss(5 + h) - loss(5)) / h = {(loss(5 + h) - loss(5)) / h:.3f}")

# %% [markdown]
# So: the smaller the nudge, the closer to 10: the **slope** of the loss at w = 5. With many variables, all their
# slopes together are the **gradient**. On paper, the slope of w² is 2w, and 2 · 5 = 10.
# ## The tape
# TensorFlow finds a slope without a nudge. Inside the `with` block, a `tf.GradientTape` records every operation. Then
# it goes through the record backwards and applies the rules of calculus.
# %% [markdown]
# **Predict.** What will it say at w = 2?

# %%
w = tf.Variable(2.0)
with tf.GradientTape() as tape:
    value = loss(w)
print("with a tape:     ", tape.gradient(value, w).numpy())
print("tapekit.gradient:", tapekit.gradient(loss, w).numpy())

# %% [markdown]
# So: `tapekit.gradient(function, variable)` is the same tape in one call. It gives the same number.
# ## What sign and size say
# At w = 2 the slope is 4. Say it in words: *w wants to be lower, with force 4.* (The loss falls when w gets lower.)
# %% [markdown]
# **Predict.** What does w want at w = 5, at w = 0.1 and at w = -3?

# %%
figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
line = np.linspace(-32, 32, 2000)
ax.plot(line, line**2, "0.6")
for at, look in ((5.0, "C0--"), (0.1, "C1-"), (-3.0, "C2:")):
    slope = float(tapekit.gradient(loss, at))
    print(f"w = {at}: wants to be {'lower' if slope > 0 else 'higher'}, with force {abs(slope):g}")
    ax.plot([at - 1.5, at + 1.5], [at**2 - 1.5 * slope, at**2 + 1.5 * slope], look, lw=2.5, label=f"slope {slope:g}")
ax.set(title="Three slopes of the loss", xlabel="w", ylabel="loss w²", xlim=(-6.5, 7), ylim=(-4, 42))
ax.legend()
lesson.save(figure, "01_tangent.png")

# %% [markdown]
# So: the sign says on which side the loss is lower. The size says how steep it is; near the bottom it is near 0.
# ## A constant, and two variables
# %% [markdown]
# **Predict.** c is a `tf.constant`, not a `tf.Variable`. What will each of the two lines print?

# %%
c = tf.constant(2.0)
with tf.GradientTape() as tape:
    value = loss(c)
print("with a tape:     ", tape.gradient(value, c))
print("tapekit.gradient:", tapekit.gradient(loss, c).numpy())

# %% [markdown]
# So: a tape watches trainable variables, and other tensors only after `tape.watch(c)`. `None` is not 0. It means "I
# recorded no way from c to this value". `tapekit` watches whatever you ask about, plain numbers too.
#
# Two variables: f = a b + b². Give a dict and you get a dict with the same keys.
# %% [markdown]
# **Predict.** The slopes of f at a = 2, b = 3? (For the slope of one, treat the other as a fixed number.)

# %%
print(tapekit.gradient(lambda a, b: a * b + b**2, {"a": 2.0, "b": 3.0}))

# %% [markdown]
# So: the slope for a is b = 3, and the slope for b is a + 2b = 8. (Each is a tensor; `float(...)` makes it a number.)
# ## Downhill
# To make the loss smaller, step against the slope: new w = w - step size · slope. This is **gradient descent**. It is
# how networks learn, and the step size is then called the **learning rate**.
# %% [markdown]
# **Predict.** Ten steps from w = 5: where do they lead with a step size of 0.1? With 1.0? With 1.1?

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 3.5), sharey=True, layout="constrained")
for ax, step_size in zip(axes, (0.1, 1.0, 1.1), strict=True):
    path = [5.0]
    for _ in range(10):
        path.append(path[-1] - step_size * float(tapekit.gradient(loss, path[-1])))
    print(f"step size {step_size}:", " ".join(f"{w:.2f}" for w in path))
    ax.plot(line, line**2, "0.7")
    ax.plot(path, np.square(path), "o-", markersize=4)
    ax.set(title=f"step size {step_size}: w ends at {path[-1]:.2f}", xlabel="w", xlim=(-13, 13), ylim=(-10, 150))
axes[0].set_ylabel("loss w²")
lesson.save(figure, "01_downhill.png")

# %% [markdown]
# So: a step multiplies w by 1 - 2 · (step size). With 0.1 that is 0.8, and w goes to 0. With 1.0 it is -1: w jumps from
# 5 to -5 and back, and the loss stays at 25. With 1.1 it is -1.2: w runs away. A learning rate can be too large.
# ## Exercise 1
# One step size leads from w = 5 to the bottom, w = 0, in a single step. Which one?

# %%
mine = ...
exercises.check_step_size(mine)

# %% [markdown]
# <details><summary>Answer</summary>
#
# ```python
# mine = 0.5  # the slope at 5 is 10, and the step must be 5 long
# ```
# </details>
#
# ## Exercise 2
# The loss is (x - 3)² + 1. Start at x = 0.0 and take 30 steps of size 0.1 downhill. Where does x end?

# %%
mine = ...
exercises.check_walk(mine)

# %% [markdown]
# <details><summary>Answer</summary>
#
# ```python
# mine = 0.0
# for _ in range(30):
#     mine = mine - 0.1 * float(tapekit.gradient(lambda x: (x - 3) ** 2 + 1, mine))
# ```
# </details>
#
# **You can now** say in words what the sign and the size of a slope mean.<br>
# **You can now** get a gradient from a bare tape and from `tapekit.gradient`.<br>
# **You can now** walk downhill, and see when a step is too large. Next: [2. The tape as a circuit](02_circuit.ipynb)
