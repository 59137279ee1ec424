# %% [markdown]
# # 6. Vanishing, exploding, repaired
# On its way back through a deep network, the gradient is multiplied at every layer: thirty times a little too little is
# nothing, thirty times a little too much is everything. We measure the factor for each kind of layer, and repair.
#
# 45 minutes. [Start page and glossary](README.md). Before: [5. A training loop you can see](05_training_loop.ipynb)

# %%
import exercises
import lesson
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from tensorflow import keras

import tapekit

# %% [markdown]
# ## A ruler
# We build thirty equal layers. `layer(h, dense)` makes the next **activation** from h; a **residual block** adds to it,
# h + f(h). `dense(v)` is `v @ w` plus a *probe*: zeros, which change nothing, but their gradient is the signal that
# comes back to this layer. `spread` is the standard deviation of w times sqrt(width). The loss mixes the outputs.


# %%
def signal(layer, spread, width=256, depth=30, batch=128):
    """Return the gradients and the activations of the layers, from the input to the loss."""
    random, activations = tf.random.Generator.from_seed(1), []
    weights = [random.normal([width, width], stddev=spread / width**0.5) for _ in range(depth)]
    x, direction = random.normal([batch, width]), random.normal([batch, width])

    def loss(probes):
        h = x
        for w, probe in zip(weights, probes, strict=True):
            h = layer(h, lambda v, w=w, probe=probe: v @ w + probe)
            activations.append(h)
        return tf.reduce_sum(h * direction)

    return tapekit.gradient(loss, tf.zeros([depth, batch, width])), activations


batch_norm = lambda z: tf.nn.batch_normalization(z, *tf.nn.moments(z, 0), None, None, 1e-5)  # mean 0, deviation 1
LAYERS = {  # two ways to draw the weights: Glorot's have spread 1 (Keras' default), He's have spread sqrt(2)
    "linear, spread 0.577": (lambda h, dense: dense(h), 0.577),
    "linear, Glorot": (lambda h, dense: dense(h), 1.0),
    "sigmoid, Glorot": (lambda h, dense: tf.sigmoid(dense(h)), 1.0),
    "tanh, Glorot": (lambda h, dense: tf.tanh(dense(h)), 1.0),
    "ReLU, Glorot": (lambda h, dense: tf.nn.relu(dense(h)), 1.0),
    "ReLU, He": (lambda h, dense: tf.nn.relu(dense(h)), 2**0.5),
    "residual h + f(h)": (lambda h, dense: h + dense(tf.nn.relu(h)), 2**0.5),
    "batch norm": (lambda h, dense: tf.nn.relu(batch_norm(dense(h))), 1.0),
    "residual, batch norm": (lambda h, dense: h + dense(tf.nn.relu(batch_norm(h))), 2**0.5),
}

# %% [markdown]
# **Predict.** Which of the nine lose the signal on the way from the loss to the input? Which let it explode?

# %%
curves = {}
for name, (layer, spread) in LAYERS.items():
    norms = np.linalg.norm(signal(layer, spread)[0], axis=(1, 2))
    near_input, near_loss = (norms[1] / norms[6]) ** 0.2, (norms[-6] / norms[-1]) ** 0.2
    curves[name] = norms / norms[-1]
    print(f"{name:20} near the input {near_input:.3f}, near the loss {near_loss:.3f}, in all {curves[name][0]:.2g}")
figure, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
for name, look in zip(sorted(curves, key=lambda name: -curves[name][0]), ["-", "--", "-.", ":"] * 3, strict=False):
    ax.plot(range(1, 31), curves[name], look, lw=2, label=name)
ax.set(yscale="log", xlabel="layer, input to loss", ylabel="signal (1 in layer 30)", title="The signal on its way back")
ax.legend(loc="lower right")
lesson.save(figure, "06_laws.png")

# %% [markdown]
# So, for one layer:
# - *linear*: the spread. *ReLU*: half of the energy (norm squared) passes: sqrt(1/2) = 0.707, and He repairs it.
# - *sigmoid*: its slopes are at most 1/4. *tanh* has no single factor: what goes into it shrinks from layer to layer,
#   so its slope comes closer to 1. *residual*: the energies of the two ways add, 1 + 1, which makes sqrt(2).
# - *batch norm*: the activations stay in place, yet the gradient grows by sqrt(pi / (pi - 1)) = 1.211
#   ([Yang et al., 2019](https://arxiv.org/abs/1902.08129)). How can it help, then? Five layers make only 2.6 of it. And
#   deep networks have it inside residual blocks: there h grows, each block adds less to it, and thirty layers make 6.
# %% [markdown]
# **Predict.** With ReLU and Glorot's weights, the gradient fades towards the input. And the activations?

# %%
figure, axes = plt.subplots(2, 2, figsize=(9, 5), sharex=True, layout="constrained")
for column, start in zip(axes.T, ("ReLU, Glorot", "ReLU, He"), strict=True):
    for ax, what, arrays in zip(column, ("gradients", "activations"), signal(*LAYERS[start]), strict=True):
        for number, look in ((1, "-"), (10, "--"), (20, "-."), (30, ":")):
            sizes = np.abs(arrays[number - 1].numpy()).ravel()
            ax.hist(np.log10(sizes[sizes > 0]), 60, (-7, 3), histtype="step", ls=look, label=f"layer {number}")
        ax.set(title=f"{start}: {what}", xlabel="log10 of the size", yticks=[])
axes[0, 0].legend()
lesson.save(figure, "06_histograms.png")

# %% [markdown]
# So: with Glorot's weights the activations fade forward as the gradients fade backward. With He's, both stay in place.
# ## Networks that train, or not
# Thirty ReLU layers learn the digits. In run 5 the gradient is **clipped**: scaled down to norm 1 where it is above 1.
# %% [markdown]
# **Predict.** Which learn? (1) Glorot, SGD at 0.005, ten epochs. (2) The same with He. (3) Glorot, Adam at 0.001,
# thirty epochs. (4) Spread sqrt(3), SGD at 0.05, one epoch. (5) The same, clipped, ten epochs.

# %%
x, y = lesson.digits()[0].reshape(-1, 64) * 2 - 1, lesson.digits()[1]
SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam


def train(name, start, optimizer, epochs=10):
    model, log = lesson.deep_network(start), tapekit.GradientLog(every=8)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    loss = model.fit(x, y, batch_size=64, epochs=epochs, verbose=0, callbacks=[log]).history["loss"]
    right = np.mean(np.argmax(model(x), axis=1) == y)
    print(f"{name}: loss {loss[0]:.2f} -> {loss[-1]:.2f}, {right:.0%} right; norm at first {log.global_norm[0]:.3g}")
    return log


glorot = train("(1) Glorot, SGD", "glorot_uniform", SGD(0.005))
he = train("(2) He, SGD", "he_normal", SGD(0.005))
train("(3) Glorot, Adam", "glorot_uniform", Adam(0.001), epochs=30)
train("(4) sqrt(3), SGD", 3**0.5, SGD(0.05), epochs=1)
train("(5) sqrt(3), SGD, clipped", 3**0.5, SGD(0.05, global_clipnorm=1.0))
figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.8), layout="constrained")
for ax, title, log in zip(axes, ("(1) Glorot: it stalls", "(2) He: it trains"), (glorot, he), strict=True):
    tapekit.plot_gradient_heatmap(log, ax=ax).set_title(title)
    ax.images[0].set_clim(-6, 1)
axes[0].images[0].colorbar.remove()
lesson.save(figure, "06_stalls_and_trains.png", dpi=80)

# %% [markdown]
# So: with SGD at 0.005, in ten epochs, Glorot's start learns nothing (2.30 is a blind guess), and He's does. The same
# thirty layers do train with *Adam*: it divides each gradient by its own recent size, so a faded one moves the weights
# as far as any other. Spread sqrt(3) explodes at once; clipped, it learns. (Gradients of biases are the signal itself.)
# ## Exercise
# Thirty residual blocks h + a f(h), drawn with He, multiply the signal by sqrt(1 + a²) each. Which a doubles it in all?

# %%
mine = ...
exercises.check_residual(mine, signal)

# %% [markdown]
# <details><summary>Answer</summary>
#
# ```python
# mine = (2 ** (2 / 30) - 1) ** 0.5  # sqrt(1 + a²) to the power 30 is 2
# ```
# </details>
#
# **You can now** measure by what factor a layer multiplies the signal.<br>
# **You can now** say why a start, an activation or batch norm lets it fade or explode.<br>
# **You can now** repair a network with He's start, Adam or clipping. Next: [7. A run that went NaN](07_nan.ipynb)
