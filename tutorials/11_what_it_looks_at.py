# %% [markdown]
# # 11. What does the network look at?
# The same call with another source: the *image*, not the weights. It makes a map of what matters for a decision. There
# are several such maps, and each answers another question. We hold each to a test that it could fail.
#
# 35 minutes. [Start page and glossary](README.md). Before: [10. Teaching a network an equation](10_equation.ipynb).
# Next: [12. Where does it look?](12_where_it_looks.ipynb)

# %%
import exercises
import lesson
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from tensorflow import keras

import tapekit

# %% [markdown]
# ## A model and its score
# A network learns 1397 digits. We ask it about the other 400. The *score* of an image is the logit of its right digit,
# so the larger the score, the surer the network is of the right answer.

# %%
keras.utils.set_random_seed(0)
images, labels = lesson.digits()
images, labels = images[..., None], labels.astype("int64")  # [1797, 8, 8, 1], from 0 (white) to 1 (black)
model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)])
model.compile(keras.optimizers.Adam(0.005), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(images[:1397], labels[:1397], batch_size=64, epochs=12, verbose=0)
x, y = tf.constant(images[1397:]), labels[1397:]


def score(x):
    return tf.gather(model(x), y, batch_dims=1)


def accuracy(x):
    return np.mean(np.argmax(model(x), axis=1) == y)


print(f"right answers: {accuracy(x):.1%}")

# %% [markdown]
# ## Three maps
# `g = gradient(score, x)` has a number for each pixel of each image. (Each score depends on its own image only, so the
# gradient of their sum is all we need.) Three maps are made of it:
# - *saliency*, |g|: how fast would the score change, if this pixel changed a little?
# - *integrated gradients*: the mean of g on the straight way from a white image to x, times x
#   ([Sundararajan et al., 2017](https://arxiv.org/abs/1703.01365)). How much did the ink in this pixel add to the
#   score?
# - *signed*, -g (1 - 2x): what would the score lose, if this pixel were swapped, black for white (x becomes 1 - x)?
# %% [markdown]
# **Predict.** Add up one of the three over all pixels of an image, and you get score(x) - score(white image). Which
# one?

# %%
g = tapekit.gradient(score, x)
integrated = x * sum(tapekit.gradient(score, x * (i + 0.5) / 100) for i in range(100)) / 100
maps = {"saliency": tf.abs(g), "integrated": integrated, "signed": -g * (1 - 2 * x)}
change = score(x) - score(tf.zeros_like(x))
for name, values in maps.items():
    gap = np.abs(np.sum(values, axis=(1, 2, 3)) - change)
    print(f"{name:10} differs from score(x) - score(white) by {gap.max():.3f} at most")

# %% [markdown]
# So: the integrated gradients add up, as they must, to 0.01. That is a test of the calculation. It does not show that
# the map finds the right pixels.
# ## Swap and erase
# A better test: change the six pixels (of 64) that a map calls most important, and count the right answers. The more
# they fall, the better the map. There are two ways to change a pixel: *erase* it (make it white), or *swap* it (x
# becomes 1 - x).
# %% [markdown]
# **Predict.** Which map finds the most harmful pixels to erase? And to swap? (Read again what each of them asks.)

# %%
print(f"{'six pixels by':14}{'erased':>8}{'swapped':>9}")
for name, values in {"chance": np.random.rand(*x.shape), **maps}.items():
    ranks = np.argsort(np.argsort(-np.reshape(values, [-1, 64]), axis=1), axis=1).reshape(x.shape)
    erased, swapped = tf.where(ranks < 6, 0.0, x), tf.where(ranks < 6, 1 - x, x)
    print(f"{name:14}{accuracy(erased):8.1%}{accuracy(swapped):9.1%}")

# %% [markdown]
# So: the winner reverses. Integrated gradients ask what the ink adds, and win where ink is *erased*: from 90.0 % to
# 16.8 %, the signed map only to 69.8 %. The signed map asks what a swap costs, and wins where pixels are *swapped*: to
# 0.2 %, integrated gradients only to 39.0 %. Saliency knows how fast, but not in which direction, and loses both. A map
# is good for a question, not in itself.
# ## A map as an attack
# Now every pixel moves, by 0.1 only, to where the *loss* grows: x + 0.1 sign(gradient of the loss). This is the fast
# gradient sign method, FGSM ([Goodfellow et al., 2015](https://arxiv.org/abs/1412.6572)).
# %% [markdown]
# **Predict.** How many answers are still right? And if each pixel moves by 0.1 up or down at random?

# %%
loss_gradient = tapekit.gradient(lambda x: model.compute_loss(y=y, y_pred=model(x)), x)
for name, push in {"at random": tf.random.normal(x.shape), "along the gradient": loss_gradient}.items():
    attacked = tf.clip_by_value(x + 0.1 * tf.sign(push), 0, 1)
    print(f"each pixel moved by 0.1 {name}: {accuracy(attacked):.1%} right")

guess = np.argmax(model(attacked), axis=1)
fooled = np.flatnonzero((np.argmax(model(x), axis=1) == y) & (guess != y))[[0, 2]]
figure, axes = plt.subplots(2, 5, figsize=(10, 4.3), layout="constrained")
for row, i in zip(axes, fooled, strict=True):
    shown = {f"a {y[i]}": x, **maps, f"attacked: a {guess[i]}": attacked}
    for ax, (title, values) in zip(row, shown.items(), strict=True):
        white = -1 if title in ("integrated", "signed") else 0
        ax.imshow(values[i, ..., 0] / np.max(np.abs(values[i])), cmap="gray_r", vmin=white, vmax=1)
        ax.set(title=title, xticks=[], yticks=[])
figure.suptitle("Saliency: black is large. Integrated, signed: black is for, white against the digit, grey is 0.")
lesson.save(figure, "11_digits.png")

# %% [markdown]
# So: at random 0.1 costs half a percent, along the gradient it costs 38. Sixty-four small moves, all in the wrong
# direction, add up, and the eye hardly sees them.
# ## Exercise
# Be a friend, not an enemy: change each pixel of x by at most 0.1 (and stay between 0 and 1), so that more than 95 % of
# the answers are right.

# %%
mine = ...
exercises.check_friend(mine, x, accuracy)

# %% [markdown]
# <details><summary>Answer</summary>
#
# ```python
# mine = tf.clip_by_value(x - 0.1 * tf.sign(loss_gradient), 0, 1)  # to where the loss falls
# ```
# </details>
#
# **You can now** make a map of what matters for a decision, and say which question it answers.<br>
# **You can now** test such a map by erasing and swapping.<br>
# **You can now** fool a network with one gradient. Next: [12. Where does it look?](12_where_it_looks.ipynb)
