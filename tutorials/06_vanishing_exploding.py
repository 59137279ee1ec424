# %% [markdown]
# # 6. Vanishing, exploding, repaired
#
# On its way back through a deep network the gradient is multiplied at every layer. Thirty times a little too little
# is nothing, thirty times a little too much is everything. The factor is no accident: for each kind of layer there is
# a law, and this tutorial measures them, one by one, and then repairs a network that does not train.
#
# Before: [5. Is this gradient right?](05_is_it_right.ipynb). Next: [7. Beyond one
# gradient](07_beyond_one_gradient.ipynb)

# %%
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

HERE = Path("tutorials") if Path("tutorials").is_dir() else Path(".")
PICTURES = HERE / "pictures"
PICTURES.mkdir(exist_ok=True)

# %% [markdown]
# ## A ruler for the signal
#
# The gradient of a layer's *pre-activation* is the signal itself. A variable of zeros, added there, has exactly that
# gradient, so thirty such probes show how the signal shrinks or grows from the loss back to the input. `spread` is
# the standard deviation of the weights times sqrt(width).

# %%
WIDTH, DEPTH, BATCH = 256, 30, 128
log = tapekit.GradientLog()  # a row for each network


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

    tapekit.gradient(loss, probes, log=log)
    norms = log.norm[-1]
    return norms, (norms[1] / norms[-1]) ** (1 / (DEPTH - 2))  # without the first, which sees raw input


def normed(z):
    mean, variance = tf.nn.moments(z, 0)
    return (z - mean) / tf.sqrt(variance + 1e-5)


# %% [markdown]
# **Predict** the factors before you look. A linear layer multiplies the signal by its spread. The old standard start,
# uniform between -1/sqrt(n) and 1/sqrt(n), has a spread of 1/sqrt(3); Glorot's has 1. A ReLU lets half of the
# signal's energy through, and He's start, spread sqrt(2), pays it back. A residual block h + a f(h) adds the energies
# 1 and a².

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
print(f"{'':28}{'law':>8}{'measured':>10}   after {DEPTH} layers")
signals = {}
for name, (layer, spread, law) in LAYERS.items():
    signals[name], factor = signal(layer, spread)
    print(f"{name:28}{law:8.3f}{factor:10.3f}   x {factor**DEPTH:.2g}")
    assert abs(factor - law) < 0.02 * law

# %% [markdown]
# Batch norm is the surprise: it keeps every activation in place, and at the start lets the *gradient* explode, by
# sqrt(pi / (pi - 1)) = 1.211 a layer (Yang et al., "A Mean Field Theory of Batch Normalization", 2019).

# %%
figure, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
for (name, norms), style in zip(signals.items(), 2 * ("-", "--", "-.", ":"), strict=True):
    ax.plot(range(1, DEPTH + 1), norms / norms[-1], style, label=name)
ax.set(yscale="log", xlabel="layer (input left, loss right)", ylabel="signal, relative to the last layer")
ax.set_title("The signal on its way back")
ax.legend(fontsize="small", ncols=2)
figure.savefig(PICTURES / "06_laws.png", dpi=80)
print("pictures/06_laws.png")

# %% [markdown]
# ## A network that stalls, and its repair
#
# Thirty ReLU layers on the handwritten digits of tutorial 4, once with Glorot's start (Keras' default) and once with
# He's. **Predict** from the table: by how much is the first layer's signal smaller than the last one's? (Same colours
# in both.)

# %%
if (HERE / "data" / "digits.npz").exists():
    digits = np.load(HERE / "data" / "digits.npz")
    images, labels = digits["images"], digits["labels"]
else:  # in Colab, without the repository, but with scikit-learn and its copy
    from sklearn.datasets import load_digits

    images, labels = load_digits().images, load_digits().target
x, y = (images.reshape(-1, 64) / 8 - 1).astype("float32"), labels.astype("int32")
figure, axes = plt.subplots(2, 1, figsize=(6.5, 8), layout="constrained")
for ax, start in zip(axes, ("glorot_normal", "he_normal"), strict=True):
    keras.utils.set_random_seed(2)
    layers = [keras.layers.Dense(64, "relu", kernel_initializer=start, name=f"layer{i:02d}") for i in range(DEPTH)]
    model = keras.Sequential([keras.Input([64]), *layers, keras.layers.Dense(10, name="head")])
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    run = tapekit.GradientLog(every=8)
    model.fit(x, y, batch_size=64, epochs=10, verbose=0, callbacks=[run])
    tapekit.plot_gradient_heatmap(run, ax=ax).images[0].set_clim(-7, 1)
    start_loss, end_loss = run.loss[:4].mean(), run.loss[-4:].mean()  # the first and the last epoch
    ax.set_title(f"{start}: the loss goes from {start_loss:.2f} to {end_loss:.2f}")
    fall = run["layer00/bias"].norm.mean() / run["layer29/bias"].norm.mean()
    print(f"{start}: loss {start_loss:.2f} -> {end_loss:.2f}, first bias / last bias {fall:.1e}")
    print("   ", "\n    ".join(run.findings() or ["(no findings)"]))
figure.savefig(PICTURES / "06_stalls_and_trains.png", dpi=65)
print("pictures/06_stalls_and_trains.png")

# %% [markdown]
# ## Exercise
#
# Thirty residual blocks h + a f(h) multiply the signal by sqrt(1 + a²) each. Which a doubles it over all thirty?

# %%
a = (2 ** (2 / DEPTH) - 1) ** 0.5  # your answer here

_, factor = signal(lambda h, dense: h + a * dense(RELU(h)), 2**0.5)
print(f"a = {a:.3f}: x {factor**DEPTH:.2f} after {DEPTH} blocks")
assert abs(factor**DEPTH - 2) < 0.1
