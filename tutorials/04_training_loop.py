# %% [markdown]
# # 4. A training loop you can see
#
# A loss that falls says that something is learned, not where, or how fast. The gradients say it, layer by layer and
# step by step, if somebody writes them down. Here a `GradientLog` does, first in a loop of our own and then in Keras'
# `fit`, on 1,797 small pictures of handwritten digits; and one number, how far a step moves the weights, tells
# whether a learning rate is right.
#
# Before: [3. The tape as a circuit](03_circuit.ipynb). Next: [5. Is this gradient right?](05_is_it_right.ipynb)

# %%
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up lines, out of the way
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
#
# One argument more, `log=log`, and every gradient of every step is in the log. The statistics are computed in the
# graph, beside the gradients: no second pass over the data, no gradient of another batch.

# %%
model, optimizer = network(), keras.optimizers.SGD(0.1)
log = tapekit.GradientLog(updates=True)
batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(1797, seed=0).batch(64, drop_remainder=True)


@tf.function
def step(images, labels):
    variables = model.trainable_variables
    loss, gradients = tapekit.value_and_gradient(lambda: loss_of(labels, model(images)), variables, log=log)
    optimizer.apply(gradients, variables)
    return loss


for _ in range(8):
    for images, labels in batches:
        step(images, labels)
print(log)

# %% [markdown]
# **Predict** before you look. The loss starts at log(10) = 2.3 and falls towards 0. Will the gradients fall with it
# from the first step on?

# %%
figure, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
tapekit.plot_gradient_history(log, ax=ax)
figure.savefig(PICTURES / "04_history.png", dpi=60)
print("pictures/04_history.png")
norms, losses = (column.reshape(8, -1).mean(1) for column in (log.global_norm, log.loss))
print("epoch              ", *(f"{epoch:6d}" for epoch in range(8)))
print("loss, mean         ", *(f"{mean:6.2f}" for mean in losses))
print("global norm, mean  ", *(f"{mean:6.2f}" for mean in norms))
assert norms[1] > 1.3 * norms[0]
assert losses[1] < losses[0]

# %% [markdown]
# They grow while the loss falls, and in the end, with a tenth of the loss, they are larger than at the start: a batch
# of 64 has its own idea of the way down. A small gradient is not what good training looks like. The largest step,
# layer by layer:

# %%
peak = int(log.global_norm.argmax())
tapekit.plot_gradient_flow(log, step=peak).figure.savefig(PICTURES / "04_flow.png", dpi=100)
print("pictures/04_flow.png")
biases = [f"{log[f'{name}/bias'].norm[peak]:.3f}" for name in ("first", "second", "head")]
print("bias gradients, input to head:", *biases)

# %% [markdown]
# ## The same in `fit`, at three learning rates
#
# In Keras the log is a callback. The **update ratio** ||new weights - old weights|| / ||old weights|| says how far a
# step moves them; about a thousandth is usual. At a rate of 0.01 it is 4e-4. **Predict** it for 0.0001 and for 0.1.

# %%
figure, axes = plt.subplots(1, 3, figsize=(13, 4), sharey=True, layout="constrained")
ratios = {}
for ax, rate in zip(axes, (1e-4, 1e-2, 1e-1), strict=True):
    model, log = network(), tapekit.GradientLog(updates=True)
    model.compile(keras.optimizers.SGD(rate), loss_of)
    model.fit(x, y, batch_size=64, epochs=6, verbose=0, callbacks=[log])
    tapekit.plot_update_ratio(log, ax=ax)
    ax.set_title(f"learning rate {rate:g}")
    ratios[rate] = np.median(log["second/kernel"].update_ratio)
    first, last = log.loss[:29].mean(), log.loss[-29:].mean()  # the first and the last epoch
    print(f"learning rate {rate:g}: update ratio {ratios[rate]:.1e}, loss {first:.2f} -> {last:.2f}")
    print("   ", *(log.findings() or ["(no findings)"]))
figure.savefig(PICTURES / "04_update_ratio.png", dpi=55)
print("pictures/04_update_ratio.png")
assert 50 < ratios[1e-2] / ratios[1e-4] < 200
assert 5 < ratios[1e-1] / ratios[1e-2] < 20

# %% [markdown]
# A hundred times the learning rate, about a hundred times the ratio, and the findings read the first run aloud
# without looking at its loss: its steps are too small to go anywhere.
#
# ## Exercise
#
# Adam divides every gradient by its own size, so its ratio hardly depends on the gradients. Find a learning rate for
# `keras.optimizers.Adam` at which the median update ratio of `second/kernel` lies between 10^-2.5 and 10^-2 over six
# epochs, and look whether the network then learns better than plain SGD at 0.01.

# %%
answer = 1e-3  # try 1e-2 first
model, log = network(), tapekit.GradientLog(updates=True)
model.compile(keras.optimizers.Adam(answer), loss_of)
model.fit(x, y, batch_size=64, epochs=6, verbose=0, callbacks=[log])
ratio = np.median(log["second/kernel"].update_ratio)
print(f"Adam({answer:g}): update ratio {ratio:.1e}, loss {log.loss[:29].mean():.2f} -> {log.loss[-29:].mean():.2f}")
assert 10**-2.5 < ratio < 1e-2
