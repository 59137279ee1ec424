# %% [markdown]
# # 10. Teaching a network an equation
# Can a network learn the solution of u' = -u when nobody shows it one? The loss must hold the derivative of the network
# with respect to its *input*, and is then differentiated with respect to its *weights*: a gradient in a gradient.
#
# 40 minutes. [Start page and glossary](README.md). Before: [9. Curvature](09_curvature.ipynb). Next:
# [11. What does the network look at?](11_what_it_looks_at.ipynb)

# %%
import functools

import exercises
import lesson
import matplotlib.pyplot as plt
import tensorflow as tf
from tensorflow import keras

import tapekit

# %% [markdown]
# ## The derivative with respect to the input
# `x` holds 64 points, one in each row: `[64, 1]`. The network makes one number of each: `net(x)` is `[64, 1]` too. In
# tutorial 8, the gradient of many outputs was that of their sum.
# %% [markdown]
# **Predict.** What is the shape of `tapekit.gradient(net, x)`, and of the Jacobian? We need u'(x) at each of the 64
# points: does the gradient give it, although it is that of a sum?


# %%
def network(activation):
    keras.utils.set_random_seed(1)
    hidden = [keras.layers.Dense(32, activation) for _ in range(2)]
    return keras.Sequential([keras.Input([1]), *hidden, keras.layers.Dense(1)])


def worst(a, b):
    return float(tf.reduce_max(tf.abs(a - b)))


net, x = network("tanh"), tf.reshape(tf.linspace(0.0, 6.28, 64), [64, 1])
slope, full = tapekit.gradient(net, x), tf.reshape(tapekit.jacobian(net, x), [64, 64])
print(f"gradient {slope.shape}, Jacobian [64, 1, 64, 1]; {tf.math.count_nonzero(full)} of its 4096 numbers are not 0")
print(f"its diagonal and the gradient differ by {worst(tf.linalg.diag_part(full), slope[:, 0]):.0e}")

# %% [markdown]
# So: nothing is lost. Row i of the output depends on row i of the input alone, so each sum has one member. One pass
# back gives u'(x) at all points.
# ## The loop
# We want u' = -u with u(0) = 1. Let u(x) = 1 + tanh(x) net(x). It is 1 at x = 0, whatever the network says
# ([Lagaris et al., 1998](https://arxiv.org/abs/physics/9705023)). For the loss, only the equation is left: u' + u
# should be 0. What it is instead is called the **residual**, and the loss is the mean of its square.


# %%
def first(u):
    return lambda x: tapekit.gradient(u, x)  # u', with respect to the input


def solve(ansatz, residual, activation="tanh", steps=2400):
    """Train the network in `u(x) = ansatz(net, x)` until `residual(u, x)` is near 0; return u and the last loss."""
    net = network(activation)
    u = functools.partial(ansatz, net)
    # The loss falls by more than six orders of magnitude: with beta_2 = 0.95 Adam remembers 20 steps, not 1000.
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.02, steps), beta_2=0.95)

    @tf.function
    def step():
        loss, grads = tapekit.value_and_gradient(lambda: tf.reduce_mean(residual(u, x) ** 2), net.trainable_variables)
        optimizer.apply(grads, net.trainable_variables)
        return loss

    losses = [step() for _ in range(steps)]
    return u, float(losses[-1])


decay, _ = solve(lambda net, x: 1.0 + tf.tanh(x) * net(x), lambda u, x: first(u)(x) + u(x))
fine = tf.reshape(tf.linspace(0.0, 6.28, 501), [501, 1])  # between the training points too
falling = [tf.exp(-fine), -tf.exp(-fine)]
off = [worst(decay(fine), falling[0]), worst(first(decay)(fine), falling[1])]
print("largest error of u {:.1e}, of u' {:.1e}; the solution is exp(-x)".format(*off))

# %% [markdown]
# So: the network has found exp(-x), from its equation alone.
# ## The second derivative
# `first(first(u))` is u'': a tape in a tape, in the tape of the weights. Now u'' = -u. With u = tanh(x) + tanh(x)²
# net(x), u(0) = 0 and u'(0) = 1 are built in, so the solution is sin(x).
# %% [markdown]
# **Predict.** How large will the errors of u, u' and u'' be: equal, or one of them ten times another?


# %%
def from_0_upwards(net, x):
    return tf.tanh(x) + tf.tanh(x) ** 2 * net(x)


wave, loss = solve(from_0_upwards, lambda u, x: first(first(u))(x) + u(x))
swinging = [tf.sin(fine), tf.cos(fine), -tf.sin(fine)]
errors = [worst(u(fine), truth) for u, truth in zip([wave, first(wave), first(first(wave))], swinging, strict=True)]
print("against sin(x): largest error of u {:.1e}, of u' {:.1e}, of u'' {:.1e}".format(*errors))

# %% [markdown]
# So: the error of u'' is twenty times that of u. A small ripple in u is a larger one in u' and a larger one still in
# u''.
# ## With ReLU
# %% [markdown]
# **Predict.** A ReLU network is made of straight pieces. What is its second derivative? What becomes of the loss, u'' +
# u?

# %%
print("largest |net''|:", *(f"{name} {worst(first(first(network(name)))(fine), 0.0):.2g}" for name in ("tanh", "relu")))
kinked, kinked_loss = solve(from_0_upwards, lambda u, x: first(first(u))(x) + u(x), "relu")
print(f"loss: tanh {loss:.0e}, relu {kinked_loss:.0e}")
print(f"largest error of u: tanh {errors[0]:.0e}, relu {worst(kinked(fine), swinging[0]):.2f}")
figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained", sharey=True)
titles = ["u' = -u, tanh", "u'' = -u, tanh", "u'' = -u, ReLU"]
looks = {"u": "C0-", "u'": "C1--", "u''": "C2:"}
for ax, title, u, truths in zip(axes, titles, [decay, wave, kinked], [falling, swinging, swinging], strict=True):
    for truth, (name, look) in zip(truths, looks.items(), strict=False):
        ax.plot(fine, truth, look, alpha=0.3, linewidth=7, label=f"truth: {name}")
        ax.plot(fine, u(fine), look, linewidth=2, label=name)
        u = first(u)
    ax.set(title=title, xlabel="x", ylabel="u and its derivatives" if ax is axes[0] else None)
axes[1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3, handlelength=3, frameon=False)
lesson.save(figure, "10_equation.png")

# %% [markdown]
# So: the second derivative of straight pieces is 0, and the tape does not see the kinks between them. Where tanh(x) is
# flat, u'' + u is then only u, and the loss is least where u is 0 (right, beyond 3.3).
# ## Exercise
# A swing with friction: u'' = -u - 1.2 u', from the same start. Write a function `mine(u, x)` that returns its
# residual. (Training takes a few seconds.)

# %%
mine = ...
exercises.check_friction(mine, solve, from_0_upwards, first)

# %% [markdown]
# <details><summary>Answer</summary>
#
# ```python
# def mine(u, x):
#     return first(first(u))(x) + 1.2 * first(u)(x) + u(x)
# ```
# </details>
#
# **You can now** take the derivative of a network with respect to its input.<br>
# **You can now** put a derivative into a loss, and train on it.<br>
# **You can now** say why ReLU cannot learn from a second derivative. Next:
# [11. What does the network look at?](11_what_it_looks_at.ipynb)
