# %% [markdown]
# # 4. A training loop you can see
#
# A loss that falls says that something is learned, not where, or how fast. The gradients say it, layer by layer and
# step by step, if somebody writes them down. Here a `GradientLog` does, first in a loop of our own and then in Keras'
# `fit`, on 1,797 small pictures of handwritten digits. At the end, one number says how far a step moves the weights:
# a rough guide to the learning rate, not a verdict.
#
# Before: [3. The tape as a circuit](03_circuit.ipynb). Next: [5. Is this gradient right?](05_is_it_right.ipynb)

# %%
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

HERE = Path("tutorials") if Path("tutorials").is_dir() else Path(".")
PICTURES = HERE / "pictures"
PICTURES.mkdir(exist_ok=True)

# %% [markdown]
# The data: the UCI handwritten digits (E. Alpaydin and C. Kaynak, CC BY 4.0), 8x8 points of 0 to 16. The network: two
# hidden layers of 64.

# %%
if (HERE / "data" / "digits.npz").exists():
    digits = np.load(HERE / "data" / "digits.npz")
    images, labels = digits["images"], digits["labels"]
else:  # in Colab, without the repository, but with scikit-learn and its copy
    from sklearn.datasets import load_digits

    images, labels = load_digits().images, load_digits().target
x, y = (images.reshape(-1, 64) / 16).astype("float32"), labels.astype("int32")
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network():
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(64, activation="relu", name=name) for name in ("first", "second")]
    return keras.Sequential([keras.Input([64]), *hidden, keras.layers.Dense(10, name="head")])


print(f"{len(x)} pictures, {np.bincount(y).min()} to {np.bincount(y).max()} of each digit")

# %% [markdown]
# ## A loop of one's own
# One argument more, `log=log`, and the gradients go into the log; `every=7` keeps each seventh step, four an epoch. The
# statistics are computed in the graph, beside the gradients: no second pass over the data, no gradient of another
# batch. For comparison, the log `whole` takes the gradients over all pictures at once, before each epoch.

# %%
model, optimizer = network(), keras.optimizers.SGD(0.1)
log, whole = tapekit.GradientLog(every=7), tapekit.GradientLog()
batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(1797, seed=0).batch(64, drop_remainder=True)


@tf.function
def step(images, labels):
    variables = model.trainable_variables
    gradients = tapekit.gradient(lambda: loss_of(labels, model(images)), variables, log=log)
    optimizer.apply(gradients, variables)


for _ in range(9):
    tapekit.gradient(lambda: loss_of(y, model(x)), model.trainable_variables, log=whole)
    for images, labels in batches:
        step(images, labels)
print(log)

# %% [markdown]
# **Predict** before you look. The loss starts near log(10) = 2.3, that of a guess among ten, and falls towards 0. What
# do the gradients do: fall with it, stay as they are, or grow?

# %%
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
tapekit.plot_gradient_history(log, ax=ax).figure.savefig(PICTURES / "04_history.png", dpi=100)
print("picture:", PICTURES / "04_history.png")
print("epoch                         ", *(f"{epoch:5d}" for epoch in range(9)))
print("loss, all pictures, before it ", *(f"{loss:5.2f}" for loss in whole.loss))
print("norm, all pictures, before it ", *(f"{norm:5.2f}" for norm in whole.global_norm))
print("norm, a batch, mean of 4 in it", *(f"{norm:5.2f}" for norm in log.global_norm.reshape(9, 4).mean(1)))

# %% [markdown]
# The norm of a batch grows at first, and with a tenth of the loss left it is larger than at the start. Over all
# pictures it is smaller, for what the batches disagree about cancels, but it stays about where it began. A small loss
# does not mean small gradients. **Predict**: at the step with the largest norm, which kernel has the smallest gradient?

# %%
row = log.global_norm.argmax()
ax = tapekit.plot_gradient_flow(log, step=int(log.steps[row]))
ax.legend(loc=(0.26, 0.55), fontsize="small", ncols=2)  # between the lines
ax.figure.savefig(PICTURES / "04_flow.png", dpi=100)
print("picture:", PICTURES / "04_flow.png")
for name, norm in zip(log.names, log.norm[row], strict=True):
    print(f"{name:24} {norm:.3f}")

# %% [markdown]
# None stands out, and those of the biases even grow towards the input: what comes from the loss is not lost on the way.
# That is not so in every network: see [6. Vanishing, exploding, repaired](06_vanishing_exploding.ipynb).
#
# ## The same in `fit`, at three learning rates
# In Keras the log is a callback. The **update ratio** ||new weights - old weights|| / ||old weights|| says how far a
# step moves them; about a thousandth is usual. At a rate of 0.01 it is 4e-4. **Predict** it for 0.0001 and for 0.1, and
# at which of the three rates the network learns most in six epochs.

# %%
figure, axes = plt.subplots(1, 3, figsize=(8.5, 4.5), sharey=True, layout="constrained")
ratios, losses = {}, {}
for ax, rate in zip(axes, (1e-4, 1e-2, 1e-1), strict=True):
    model, log = network(), tapekit.GradientLog(updates=True, every=7)
    model.compile(keras.optimizers.SGD(rate), loss_of)
    losses[rate] = model.fit(x, y, batch_size=64, epochs=6, verbose=0, callbacks=[log]).history["loss"]
    tapekit.plot_update_ratio(log, ax=ax)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), fontsize="small", frameon=False)
    ax.set_title(f"learning rate {rate:g}")
    ax.label_outer()
    ratios[rate] = np.median(log["second/kernel"].update_ratio)
    print(f"learning rate {rate:g}: ratio {ratios[rate]:.1e}, loss {losses[rate][0]:.2f} -> {losses[rate][-1]:.2f}")
    print("   ", *(log.findings() or ["(no findings)"]))
figure.savefig(PICTURES / "04_update_ratio.png", dpi=100)
print("picture:", PICTURES / "04_update_ratio.png")

# %% [markdown]
# A hundred times the rate, about a hundred times the ratio. The finding about the first run is right without a look at
# its loss: such steps lead nowhere. But 0.01, whose ratio is near the usual, has hardly begun, and 0.1, six times the
# usual, learns best: a rough guide, no verdict. (Biases lie higher: they start at 0, beside which any step is large.)
#
# ## Exercise
# From the numbers above, compute a rate whose ratio is the usual 1e-3, give or take a half. Does it beat 0.1?

# %%
# One answer: try your own first.
mine = float(0.01 * 1e-3 / ratios[1e-2])  # the ratio grows like the rate
model, log = network(), tapekit.GradientLog(updates=True)
model.compile(keras.optimizers.SGD(mine), loss_of)
loss = model.fit(x, y, batch_size=64, epochs=6, verbose=0, callbacks=[log]).history["loss"][-1]
ratio = np.median(log["second/kernel"].update_ratio)
assert 0.5e-3 < ratio < 1.5e-3
print(f"right: at {mine:.3f} the ratio is {ratio:.1e}; the loss is {loss:.2f}, at 0.1 it was {losses[0.1][-1]:.2f}")
