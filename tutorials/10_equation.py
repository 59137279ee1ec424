# %% [markdown]
# # 8. Teaching a network an equation
# Can a network learn u' = -u when nobody shows it u? The loss must hold its derivative with respect to the **input**,
# and is then differentiated with respect to the **weights**: a gradient in a gradient. You will see two equations
# solved, and an activation that cannot. Before: [7. Beyond one gradient](07_beyond_one_gradient.ipynb).
# Next: [9. What does the network look at?](09_what_it_looks_at.ipynb)

# %%
import functools
import os
import sys
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}  # few log lines; the same digits everywhere
if "google.colab" in sys.modules:
    assert os.system("pip install -q tapekit") == 0, "pip finds no tapekit: build a wheel of it and install that"

import keras
import matplotlib.pyplot as plt
import tensorflow as tf

import tapekit

PICTURES = Path("tutorials/pictures") if Path("tutorials").is_dir() else Path("pictures")
PICTURES.mkdir(exist_ok=True)

# %% [markdown]
# ## The derivative of a network with respect to its input
# **Predict.** `x` holds 64 points, one a row: `[64, 1]`, and so does `net(x)`. The Jacobian has the shape
# target.shape + source.shape. What shape has `tapekit.gradient(net, x)`, and what is lost from one to the other?


# %%
def network(activation):
    keras.utils.set_random_seed(1)
    hidden = [keras.layers.Dense(32, activation) for _ in range(2)]
    return keras.Sequential([keras.Input([1]), *hidden, keras.layers.Dense(1)])


def worst(a, b):
    return float(tf.reduce_max(tf.abs(a - b)))


net, x = network("tanh"), tf.reshape(tf.linspace(0.0, 6.28, 64), [64, 1])
slope, full = tapekit.gradient(net, x), tapekit.jacobian(net, x)
apart = worst(tf.reshape(full, [64, 64]), tf.linalg.diag(slope[:, 0]))
print(f"gradient {slope.shape}, Jacobian {full.shape}; it and diag(gradient) differ by {apart:.0e}")
assert apart < 1e-6

# %% [markdown]
# `[64, 1]`, and nothing is lost. A gradient is that of the *sum* of the outputs, but row i of the output hears only
# row i of the input: the Jacobian is diagonal, and one cheap reverse pass gives u'(x) at all 64 points.
# ## The loop
# u(x) = 1 + tanh(x) net(x) is 1 at x = 0 whatever net says: the starting value is built in (Lagaris et al., 1998).
# What is left for the loss is the equation: u' + u, the residual, squared.


# %%
def first(u):
    return lambda x: tapekit.gradient(u, x)  # with respect to the input


def solve(ansatz, residual, activation="tanh", steps=2400):
    """Train the network in `u(x) = ansatz(net, x)` until `residual(u, x)` is near 0; give u and the last loss."""
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
print("u' = -u: largest error of u {:.1e}, of u' {:.1e}".format(*off))
assert max(off) < 2e-3

# %% [markdown]
# ## The second derivative is the gradient of the gradient
# `first(first(u))`: a tape in a tape, in the tape of the weights. For u'' = -u, u = tanh(x) + tanh(x)² net(x) has
# u(0) = 0 and u'(0) = 1 built in. **Predict.** Which function is it? Which of u, u', u'' will be the least exact?


# %%
def from_0_upwards(net, x):
    return tf.tanh(x) + tf.tanh(x) ** 2 * net(x)


wave, loss = solve(from_0_upwards, lambda u, x: first(first(u))(x) + u(x))
swinging = [tf.sin(fine), tf.cos(fine), -tf.sin(fine)]
errors = [worst(u(fine), truth) for u, truth in zip([wave, first(wave), first(first(wave))], swinging, strict=True)]
print("u'' = -u: largest error of u {:.1e}, of u' {:.1e}, of u'' {:.1e}".format(*errors))
assert max(errors) < 5e-3

# %% [markdown]
# A small ripple in u is a larger one in u' and larger still in u'': each derivative sharpens the error.
# ## Why ReLU cannot
# **Predict.** A ReLU network is made of straight lines. What is its second derivative, and what is left of u'' + u?

# %%
for name, activation in [("tanh", "tanh"), ("relu", "relu"), ("maximum(z, 0)", lambda z: tf.maximum(z, 0.0))]:
    bend = tapekit.gradient(first(network(activation)), fine, unconnected="none")
    print(f"{name:14} largest |net''|", None if bend is None else f"{worst(bend, 0.0):.2g}")

# %% [markdown]
# `tf.nn.relu` has a gradient op that answers 0; the second derivative of `maximum` depends on nothing, so None.

# %%
kinked, kinked_loss = solve(from_0_upwards, lambda u, x: first(first(u))(x) + u(x), "relu")
apart = worst(kinked(fine), swinging[0])
print(f"ReLU: loss {kinked_loss:.0e} (tanh {loss:.0e}), largest error of u {apart:.2f} (tanh {errors[0]:.0e})")
up, bend = first(kinked)(fine), first(first(kinked))(fine)
climb = (up[1:] - up[:-1]) / (fine[1:] - fine[:-1])
kink = int(tf.argmax(tf.abs(climb))[0])
print(f"at x = {fine[kink, 0]:.1f} u' climbs at {climb[kink, 0]:.1f}, the tape says u'' = {bend[kink, 0]:.3f}")
figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained", sharey=True)
titles = [f"u' = -u: off by {max(off):.0e} at most", f"u'' = -u: off by {max(errors):.0e} at most"]
titles += [f"u'' = -u, ReLU: gives up after x = {fine[kink, 0]:.1f}"]
looks = {"u": "C0-", "u'": "C1--", "u''": "C2:"}
for ax, title, u, truths in zip(axes, titles, [decay, wave, kinked], [falling, swinging, swinging], strict=True):
    for truth, (name, look) in zip(truths, looks.items(), strict=False):
        ax.plot(fine, truth, look, alpha=0.3, linewidth=7, label=f"truth: {name}")
        ax.plot(fine, u(fine), look, linewidth=2, label=name)
        u = first(u)
    ax.set(title=title, xlabel="x", ylabel="u and its derivatives" if ax is axes[0] else None)
figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=6, handlelength=3, frameon=False)
figure.savefig(PICTURES / "08_equation.png", dpi=77)
print("picture:", PICTURES / "08_equation.png")

# %% [markdown]
# The loss cannot see ReLU's kinks. Where tanh(x) is flat the tape's u'' is 0, and u'' + u is u: least at 0 (right).
#
# **Exercise.** Add friction: u'' = -u - 1.2 u', from the same start. The truth is exp(-0.6 x) sin(0.8 x) / 0.8.

# %%
# One answer: try your own first.
damped, _ = solve(from_0_upwards, lambda u, x: first(first(u))(x) + 1.2 * first(u)(x) + u(x))
error = worst(damped(fine), tf.exp(-0.6 * fine) * tf.sin(0.8 * fine) / 0.8)
assert error < 5e-3
print(f"right: with friction the largest error of u is {error:.1e}")
