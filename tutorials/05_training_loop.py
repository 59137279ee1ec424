# %% [markdown]
# # 5. A training loop you can see
# A falling loss says that something is learned. It does not say where, or how fast. The gradients do, if they are
# written down. We train on 1,797 small images of handwritten digits, log every gradient, and choose a learning rate.
#
# 40 minutes. [Start page and glossary](README.md). Before: [4. Is this gradient right?](04_is_it_right.ipynb). Next:
# [6. Vanishing, exploding, repaired](06_vanishing_exploding.ipynb)

# %%
import exercises
import lesson
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from tensorflow import keras

import tapekit

# %% [markdown]
# ## The loop
# Each image has 8 x 8 points; we hand them over as a row of 64 numbers. The network has two hidden layers of 64 units
# and ten outputs, one for each digit. Each layer multiplies by its **kernel** (a matrix) and adds its **bias** (a row).
# We do not use all images at once, but 64 at a time: a **batch**. One pass through all batches is an **epoch**. The
# loss, *cross-entropy*, is small when the right digit gets a high probability; tutorial 7 has its formula.

# %%
images, labels = lesson.digits()
x, y = images.reshape(-1, 64), labels
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network():
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(64, "relu", name=name) for name in ("first", "second")]
    return keras.Sequential([keras.Input([64]), *hidden, keras.layers.Dense(10, name="head")])


model, optimizer = network(), keras.optimizers.SGD(0.1)
batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(1797, seed=0).batch(64, drop_remainder=True)
for bx, by in batches:  # one batch after the other
    with tf.GradientTape() as tape:  # record ...
        loss = loss_of(by, model(bx))  # ... how wrong the model is on this batch
    gradients = tape.gradient(loss, model.trainable_variables)  # go back: one gradient for each kernel and bias
    optimizer.apply(gradients, model.trainable_variables)  # step downhill: w = w - 0.1 * gradient
print(f"loss of the last batch of the first epoch: {float(loss):.2f}")

# %% [markdown]
# So: these five lines are what `model.fit` does inside. The loss of a blind guess among ten is log(10) = 2.30.
# ## One more line
# `log.record(...)` writes down each gradient of each step. For each gradient we look at its **norm**, the length of the
# list of all its numbers: the root of the sum of their squares. We train nine epochs. `LivePlot` draws while it runs.
# %% [markdown]
# **Predict.** The loss falls from 2.3 towards 0. What does the norm of all gradients together do meanwhile?

# %%
model, optimizer, log = network(), keras.optimizers.SGD(0.1), tapekit.GradientLog(histograms=28)
lesson.PICTURES.mkdir(exist_ok=True)
live = tapekit.LivePlot(log, every=42, path=lesson.PICTURES / "05_history.png")
for _ in range(9):
    for bx, by in batches:
        with tf.GradientTape() as tape:
            loss = loss_of(by, model(bx))
        gradients = tape.gradient(loss, model.trainable_variables)
        log.record(gradients, model.trainable_variables, loss=loss)  # the one line more
        optimizer.apply(gradients, model.trainable_variables)
        live.update()  # a new picture now and then
live.draw()  # and one at the end
print("epoch         ", *(f"{epoch:5d}" for epoch in range(1, 10)))
print("mean loss     ", *(f"{value:5.2f}" for value in log.loss.reshape(9, 28).mean(axis=1)))
print("mean norm     ", *(f"{value:5.2f}" for value in log.global_norm.reshape(9, 28).mean(axis=1)))

# %% [markdown]
# So: the loss falls from 2.15 to 0.19, but the norm grows at first, from 0.59 to 0.98, and ends at 0.77. A small loss
# does not mean small gradients: each batch still pulls in its own direction.
# ## One step, layer by layer
# There are three kernels and three biases. A norm is one number for each of them. With `histograms=28` the log also
# keeps, at every 28th step, how large the single numbers are.
# %% [markdown]
# **Predict.** Which of the six have the largest norms: those near the input or near the loss? And of the 64 x 64
# numbers in the gradient of `second/kernel`, how many are exactly 0?

# %%
row = int(log.global_norm.argmax())  # the step with the largest norm of all
print(*(f"{name:26} {norm:.2f}" for name, norm in zip(log.names, log.norm[row], strict=True)), sep="\n")
lesson.save(tapekit.plot_gradient_flow(log, step=int(log.steps[row])).figure, "05_flow.png")
lesson.save(tapekit.plot_gradient_histogram(log, variable="second/kernel").figure, "05_histogram.png")

# %% [markdown]
# So: the three kernel gradients are about equal; the bias gradients grow towards the input. Nothing is lost on the way
# back. In a deeper network it can be: see [6. Vanishing, exploding, repaired](06_vanishing_exploding.ipynb). About a
# third of the numbers (27 to 35 %) are 0, mostly because ReLU has switched off some units for the whole batch. (In the
# first picture, the short dashes are the largest single number of each gradient.)
# ## Which learning rate?
# The log also works in Keras' `fit`, as a callback. With `updates=True` it records the **update ratio**: the norm of
# the step, divided by the norm of the weights. A rule of thumb says: about 0.001. We try five rates, six epochs each.
# %% [markdown]
# **Predict.** At which of the rates 0.001, 0.01, 0.1, 0.5 and 2 does the network learn most?


# %%
def fit(rate):
    model, log = network(), tapekit.GradientLog(updates=True)
    model.compile(keras.optimizers.SGD(rate), loss_of)
    losses = model.fit(x, y, batch_size=64, epochs=6, verbose=0, callbacks=[log]).history["loss"]
    first, second, _ = model.layers
    silent = np.max(second(first(x)), axis=0) == 0  # units of the second layer that are 0 for every image
    return losses[-1], float(np.median(log["second/kernel"].update_ratio)), silent.sum(), log.findings()


rates = (0.001, 0.01, 0.1, 0.5, 2.0)
losses, ratios, silents, findings = zip(*map(fit, rates), strict=True)
for rate, loss, ratio, silent, found in zip(rates, losses, ratios, silents, findings, strict=True):
    print(f"rate {rate}: loss {loss:.2f}, update ratio {ratio:.1e}, {silent} of 64 units silent")
    print(*(f"    {text}\n" for text in found), sep="", end="")
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
axes[0].semilogx(rates, losses, "o-")
axes[0].set(title="Five rates, six epochs each", xlabel="learning rate", ylabel="loss at the end")
axes[1].loglog(rates, ratios, "s-")
axes[1].axhline(1e-3, color="black", lw=1, ls="--", label="rule of thumb")
axes[1].set(title="How far a step moves second/kernel", xlabel="learning rate", ylabel="update ratio (median)")
axes[1].legend()
lesson.save(figure, "05_rates.png")

# %% [markdown]
# So: the loss makes a U. At 0.001 and 0.01 the steps are too small for six epochs, 0.5 learns best, at 2 nothing is
# learned. `findings()` is right about 0.001 without a look at the loss. But it calls 0.5 too large, and 0.5 is best. At
# 2 it says "too small": after a few huge steps nearly all units of the second layer are silent, on the flat side of
# their ReLU, and next to nothing moves. The ratio tells how far a step moves the weights, not whether that is good. Let
# the loss choose the rate.
# ## Exercise
# Find a rate at which the update ratio is about 0.001 (from 0.0007 to 0.0014). Use the numbers printed above.

# %%
mine = ...
exercises.check_rate(mine, fit)

# %% [markdown]
# <details><summary>Answer</summary>
#
# ```python
# mine = 0.01 * 0.001 / ratios[1]  # the ratio grows like the rate
# ```
# </details>
#
# **You can now** write a training loop, and log its gradients with one more line.<br>
# **You can now** read a norm, layer by layer and step by step.<br>
# **You can now** choose a learning rate by the loss, and say what the update ratio can and cannot tell. Next:
# [6. Vanishing, exploding, repaired](06_vanishing_exploding.ipynb)
