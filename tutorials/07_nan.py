# %% [markdown]
# # 7. A run that went NaN
# My loss became NaN. Now what? Ask in which step, in which operation and in which record; then you know what to change.
# We ask it of a small run that really does go NaN.
#
# 35 minutes. [Start page and glossary](README.md). Before: [6. Vanishing, exploding](06_vanishing_exploding.ipynb).
# Next: [8. One gradient for each example](08_each_example.ipynb)

# %%
import exercises
import lesson
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from tensorflow import keras

import tapekit

# %% [markdown]
# ## The run
# The records are 14,400 digits with some noise, each a row of 64 numbers from about 0 to 1. They come in batches of 32,
# once each: 450 steps. The loss is the **cross-entropy**: minus the logarithm of the probability that the model gives
# to the right digit. We wrote it ourselves. (What comes out of the last layer, before `softmax`, are the **logits**.)

# %%
x, y = lesson.records()


def loss(model, x, y):
    probabilities = tf.nn.softmax(model(x))
    right = tf.gather(probabilities, y, batch_dims=1)  # for each record, that of its own digit
    return tf.reduce_mean(-tf.math.log(right))


def train(loss, x, y, steps=450):
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(64, "relu", name=name) for name in ("first", "second")]
    model = keras.Sequential([keras.Input([64]), *hidden, keras.layers.Dense(10, name="head")])
    optimizer, log = keras.optimizers.SGD(0.1), tapekit.GradientLog()

    @tf.function
    def step(x, y):
        gradients = tapekit.gradient(lambda: loss(model, x, y), model.trainable_variables, log=log)
        optimizer.apply(gradients, model.trainable_variables)

    for number in range(steps):
        step(x[32 * number : 32 * number + 32], y[32 * number : 32 * number + 32])
    return model, log


model, log = train(loss, x, y)
print("loss at every 60th step:", *(f"{value:.2f}" for value in log.loss[::60]))

# %% [markdown]
# So: it went well for hundreds of steps. After one bad step, everything later is NaN.
# ## In which step?
# %% [markdown]
# **Predict.** In the first bad step, which of the six gradients are not finite: those near the loss, or all?

# %%
print(*log.findings(), sep="\n")
bad = int(np.argmax((log.nonfinite > 0).any(axis=1)))
print(f"\nfirst bad step: {bad}, the loss before it, in it and after it: {log.loss[bad - 1 : bad + 2]}")
print("gradients that are not finite in it:", np.sum(log.nonfinite[bad] > 0), "of", len(log.names))
lesson.save(tapekit.plot_gradient_heatmap(log).figure, "07_nan_heatmap.png")

# %% [markdown]
# So: every gradient breaks in the same step, because all of them come from one loss. And the loss was infinite first,
# not NaN. The picture says which step. It does not say why.
# ## In which operation?
# Now the weights are NaN. So we train again from the same seed, stop before that step, and explain that one batch.
# %% [markdown]
# **Predict.** Which operation in `loss` can be infinite, and for which input?

# %%
model, _ = train(loss, x, y, steps=bad)
weights, batch = model.trainable_variables, (x[32 * bad :][:32], y[32 * bad :][:32])
print(tapekit.explain(lambda: loss(model, *batch), weights))

# %% [markdown]
# So: it is the logarithm, on our own line. Some record got the probability 0 for its right digit. With float32, softmax
# gives exactly 0 when a logit is more than about 87 below the largest: exp(-87) is near the smallest float32.
# ## In which record?
# The gradient of a batch is the mean of one gradient for each record. `per_example_gradient` keeps them apart.
# %% [markdown]
# **Predict.** How many of the 32 records have a gradient that is not finite?

# %%
each = tapekit.per_example_gradient(lambda r: loss(model, r[0][None], r[1][None]), weights, batch)
finite = np.all([np.isfinite(g).reshape(32, -1).all(axis=1) for g in each], axis=0)
print("not finite in the batch:", *np.flatnonzero(~finite))
record = 32 * bad + int(np.argmin(finite))
print(f"record {record}: largest number {x[record].max():.1f}; of all others {np.delete(x, record, axis=0).max():.1f}")
figure, axes = plt.subplots(1, 2, figsize=(6, 3.2), layout="constrained")
for ax, number in zip(axes, (record - 1, record), strict=True):
    ax.figure.colorbar(ax.imshow(x[number].reshape(8, 8), cmap="gray_r"), ax=ax)
    ax.set(title=f"record {number}, label {y[number]}", xticks=[], yticks=[])
lesson.save(figure, "07_record.png")

# %% [markdown]
# So: one record of 14,400 is enough. It runs to 255 and not to 1, and black and white are exchanged.
# ## Repair
# Two things are wrong. The loss cannot bear a probability of 0; TensorFlow's own cross-entropy takes the *logits* and
# never forms the probability. And the record is bad; test the data before the first step.
# %% [markdown]
# **Predict.** With the better loss alone, is the run saved?


# %%
def safe_loss(model, x, y):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x)))


good = np.abs(x).max(axis=1) < 2
runs = {"as it was": log, "safe loss": train(safe_loss, x, y)[1]}
runs["safe loss, good records"] = train(safe_loss, x[good], y[good])[1]
figure, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
for (name, run), look in zip(runs.items(), ["k-", "C1--", "C0:"], strict=True):
    print(f"{name:24} loss in step {bad}: {run.loss[bad]:.3g}, mean of the last 40 steps: {run.loss[-40:].mean():.3g}")
    ax.plot(run.steps, np.where(np.isfinite(run.loss), run.loss, np.nan), look, label=name)
ax.set(title=f"Three runs; the bad record comes in step {bad}", xlabel="step", ylabel="loss", yscale="log")
ax.legend()
lesson.save(figure, "07_repaired.png")

# %% [markdown]
# So: the safe loss keeps the run finite, but one step on this record throws the model back: from 0.27 before it to 1.69
# in the last forty. Without the record the loss stays near 0.14. Repair both: the loss and the data.
# ## Exercise
# `x2, y2 = lesson.records(2)` holds another bad record. Which one? Give its number among all 14,400.

# %%
mine = ...
exercises.check_record(mine)

# %% [markdown]
# <details><summary>Answer</summary>
#
# ```python
# x2, y2 = lesson.records(2)
# bad2 = int(np.argmax((train(safe_loss, x2, y2)[1].nonfinite > 0).any(axis=1)))
# model, batch2 = train(safe_loss, x2, y2, steps=bad2)[0], (x2[32 * bad2 :][:32], y2[32 * bad2 :][:32])
# biases = tapekit.per_example_gradient(lambda r: safe_loss(model, r[0][None], r[1][None]), model.weights[-1], batch2)
# mine = 32 * bad2 + int(np.argmin(np.isfinite(biases).all(axis=1)))
# ```
# </details>
#
# **You can now** find the first bad step and variable in a log.<br>
# **You can now** train up to that step again, and ask for the operation and the record.<br>
# **You can now** repair the loss and the data. Next: [8. One gradient for each example](08_each_example.ipynb)
