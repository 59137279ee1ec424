# %% [markdown]
# # 6. Vanishing, exploding, repaired
# On its way back through a deep network the gradient is multiplied at every layer. Thirty times a little too little
# is nothing, thirty times a little too much is everything. The factor is no accident: for each kind of layer there is
# a law, and this tutorial measures them, one by one, and then repairs a network that does not train.
# Before: [5. Is this gradient right?](05_is_it_right.ipynb).
# Next: [7. Beyond one gradient](07_beyond_one_gradient.ipynb)

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
# ## A ruler for the signal
# The gradient of a layer's *pre-activation* is the signal itself. A variable of zeros, added there, has exactly that
# gradient, so thirty such probes show how the signal shrinks or grows from the loss back to the input. `spread` is
# the standard deviation of the weights times sqrt(width).

# %%
WIDTH, DEPTH, BATCH = 256, 30, 128


def signal(layer, spread):
    """The norms of the signal along DEPTH layers, and the factor between two of them, from the loss to the input."""
    random = tf.random.Generator.from_seed(1)
    weights = [random.normal([WIDTH, WIDTH], stddev=spread / WIDTH**0.5) for _ in range(DEPTH)]
    probes = [tf.Variable(tf.zeros([BATCH, WIDTH]), name=f"layer{i}/probe") for i in range(DEPTH)]
    x, direction = random.normal([BATCH, WIDTH]), random.normal([BATCH, WIDTH])

    def loss():
        h = x
        for w, probe in zip(weights, probes, strict=True):
            h = layer(h, lambda v, w=w, probe=probe: v @ w + probe)
        return tf.reduce_sum(h * direction)

    norms = tf.norm(tapekit.gradient(loss, probes), axis=(1, 2)).numpy()
    return norms, (norms[1] / norms[-1]) ** (1 / (DEPTH - 2))  # without the first, which sees raw input


def normed(z):
    mean, variance = tf.nn.moments(z, 0)
    return (z - mean) / tf.sqrt(variance + 1e-5)


# %% [markdown]
# **Predict** the factors before you look. A linear layer multiplies the signal by its spread. The old standard start,
# uniform between -1/sqrt(n) and 1/sqrt(n), has a spread of 1/sqrt(3); Glorot's has 1. A ReLU lets half of the
# signal's energy through, and He's start, spread sqrt(2), pays it back. A residual block h + a f(h) adds the energies
# 1 and a². Guess for tanh and for batch norm: do they let the signal shrink, keep it, or let it grow?

# %%
RELU = tf.nn.relu
LAYERS = {
    "linear, uniform 1/sqrt(n)": (lambda h, dense: dense(h), 3**-0.5, 3**-0.5),
    "linear, Glorot": (lambda h, dense: dense(h), 1.0, 1.0),
    "tanh, uniform 1/sqrt(n)": (lambda h, dense: tf.tanh(dense(h)), 3**-0.5, 3**-0.5),
    "ReLU, Glorot (Xavier)": (lambda h, dense: RELU(dense(h)), 1.0, 2**-0.5),
    "ReLU, He": (lambda h, dense: RELU(dense(h)), 2**0.5, 1.0),
    "residual, a = 1": (lambda h, dense: h + dense(RELU(h)), 2**0.5, 2**0.5),
    "residual, a = 0.3": (lambda h, dense: h + 0.3 * dense(RELU(h)), 2**0.5, 1.09**0.5),
    "batch norm, ReLU": (lambda h, dense: RELU(normed(dense(h))), 1.0, (np.pi / (np.pi - 1)) ** 0.5),
}
print(f"{'':28}{'law':>8}{'measured':>10}   layer 1 / layer {DEPTH}")
signals = {}
for name, (layer, spread, law) in LAYERS.items():
    signals[name], factor = signal(layer, spread)
    print(f"{name:28}{law:8.3f}{factor:10.3f}   x {signals[name][0] / signals[name][-1]:.2g}")
    assert abs(factor - law) < 0.02 * law

# %% [markdown]
# Batch norm is the surprise: it keeps every activation in place, and at the start lets the *gradient* explode, by
# sqrt(pi / (pi - 1)) = 1.211 a layer (Yang et al., "A Mean Field Theory of Batch Normalization", 2019).

# %%
figure, ax = plt.subplots(figsize=(8, 4.8), layout="constrained")
for name, norms in signals.items():
    under = {"linewidth": 7, "alpha": 0.3} if name.startswith("linear") else {}  # wide, for the lines that lie on them
    ax.plot(range(1, DEPTH + 1), norms / norms[-1], **under)
    place = (-6, 6 if name.startswith(("linear", "residual")) else -6)
    at_its_end = {"textcoords": "offset points", "ha": "right", "va": "center", "fontsize": "small"}
    ax.annotate(name, (1, norms[0] / norms[-1]), place, **at_its_end)
ax.set(yscale="log", xlabel="layer (input left, loss right)", ylabel="signal, relative to the last layer")
ax.set(title="Straight on a log scale: a factor per layer", xlim=(-8.5, 31), xticks=[1, 5, 10, 15, 20, 25, 30])
figure.savefig(PICTURES / "06_laws.png", dpi=80)
print("picture:", PICTURES / "06_laws.png")

# %% [markdown]
# ## A network that stalls, and its repair
# Thirty ReLU layers on the handwritten digits of tutorial 4, once with Glorot's start (Keras' default) and once with
# He's. **Predict** from the table: by how much is the first layer's signal smaller than the last one's? (A bias is
# added where the probe was: its gradient is the signal, summed over the batch. The colours are the same in both.)

# %%
DATA = PICTURES.parent / "data" / "digits.npz"
# A notebook opened without its repository, as in Colab, takes the copy that scikit-learn has.
digits = np.load(DATA) if DATA.exists() else importlib.import_module("sklearn.datasets").load_digits()
x = (digits["images"].reshape(-1, 64) / 8 - 1).astype("float32")
y = digits["labels" if DATA.exists() else "target"].astype("int32")
figure, axes = plt.subplots(2, 1, figsize=(6.5, 8), layout="constrained")
for ax, start, law in zip(axes, ["glorot_normal", "he_normal"], [0.5 ** (29 / 2), 1.0], strict=True):
    keras.utils.set_random_seed(2)
    layers = [keras.layers.Dense(64, "relu", kernel_initializer=start, name=f"layer{i:02d}") for i in range(DEPTH)]
    model = keras.Sequential([keras.Input([64]), *layers, keras.layers.Dense(10, name="head")])
    model.compile(keras.optimizers.SGD(0.005), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    run = tapekit.GradientLog(every=8)
    model.fit(x, y, batch_size=64, epochs=10, verbose=0, callbacks=[run])
    tapekit.plot_gradient_heatmap(run, ax=ax).images[0].set_clim(-6, 1)
    start_loss, end_loss = run.loss[:4].mean(), run.loss[-4:].mean()  # the first and the last epoch
    accuracy = np.mean(np.argmax(model(x), 1) == y)
    ax.set_title(f"{start}: the loss goes from {start_loss:.2f} to {end_loss:.2f}")
    fall = run["layer00/bias"].norm[0] / run["layer29/bias"].norm[0]  # at step 0
    print(f"{start}: first bias / last bias {fall:.2g} (law {law:.2g})")
    print(f"    loss {start_loss:.2f} -> {end_loss:.2f}, then {accuracy:.0%} of the answers are right")
    assert law / 3 < fall < 3 * law
    print("   ", "\n    ".join(run.findings() or ["(no findings)"]))
figure.savefig(PICTURES / "06_stalls_and_trains.png", dpi=65)
print("picture:", PICTURES / "06_stalls_and_trains.png")

# %% [markdown]
# 2.30 is log 10, the loss of a guess among ten digits: Glorot's network never gets beyond it, and with He's start the
# same thirty layers learn. In the upper picture the signal (biases, below the line) fades from the loss to the input.
# The kernels above the line are dark everywhere: their gradient is signal times activation, and that fades forwards.
#
# **Exercise.** Thirty residual blocks h + a f(h) multiply the signal by sqrt(1 + a²) each. Which a doubles it over
# all thirty?

# %%
# One answer: try your own first.
a = (2 ** (2 / DEPTH) - 1) ** 0.5
_, factor = signal(lambda h, dense: h + a * dense(RELU(h)), 2**0.5)
assert abs(factor**DEPTH - 2) < 0.1
print(f"right: a = {a:.3f} makes it x {factor**DEPTH:.2f} after {DEPTH} blocks")
