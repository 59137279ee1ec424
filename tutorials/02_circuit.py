# %% [markdown]
# # 2. The tape as a circuit
# Where does each number in a gradient come from? We draw what the tape recorded as a circuit of small gates. Each gate
# knows one rule. With four rules you can do the tape's work by hand.
#
# 40 minutes. [Start page and glossary](README.md). Before: [1. One variable](01_one_variable.ipynb). Next:
# [3. Why is my gradient None?](03_why_none.ipynb)

# %%
import exercises
import lesson
import matplotlib.pyplot as plt
import tensorflow as tf
from tensorflow import keras

import tapekit


def show(trace, title, name, **options):
    ax = tapekit.plot_trace(trace, **options)
    ax.set_title(f"{title}: value | gradient", fontsize=10)
    lesson.save(ax.figure, name, dpi=100)


# %% [markdown]
# ## Two gates
# f = (x + y) z at x = -2, y = 5, z = -4 is a circuit of two gates, `add` and `mul`. Forward, each gate computes a
# value. Backward, numbers flow from f to the inputs. The gradient of f for itself is 1; it arrives at the last gate.
# What arrives at a gate from the side of f is called **upstream**. `tapekit.trace` runs a function and keeps all that
# its tape recorded; `show`, above, draws it.
# %% [markdown]
# **Predict.** Which gradients come out at x, y and z? Nudge each in your head: z grows by 0.001, what does f do?

# %%
circuit = tapekit.trace(lambda x, y, z: (x + y) * z, [-2.0, 5.0, -4.0])
show(circuit, "(x + y) z", "02_circuit.png")

# %% [markdown]
# Blue is the value, orange the gradient. Arrows point forward; gradients flow against them. On each edge stands
# `upstream x local = what flows back`, where *local* is the slope of this one gate. So: an `add` gate has the local
# slope 1 for each input. It passes on what arrives. A `mul` gate has, for each input, the *other* input.
# %% [markdown]
# **Predict.** g = 5 (x y) at x = 2, y = 3. Which gradient comes out at x, and which at y?

# %%
five = tapekit.trace(lambda x, y: 5.0 * (x * y), [2.0, 3.0])
print({source.name: float(source.gradient) for source in five.sources})

# %% [markdown]
# So: not 3 and 2, but 15 and 10. A `mul` gate gives each input the other input *times what arrives*, and 5 arrives.
#
# Now do the tape's work yourself. First forward, and keep each value. Then backward, one line for each edge:

# %%
x, y, z = -2.0, 5.0, -4.0
a = x + y  # forward
f = a * z
df = 1.0  # backward: df is the gradient of f for itself
da, dz = df * z, df * a  # the mul gate: upstream times the other input
dx, dy = da * 1.0, da * 1.0  # the add gate: upstream times 1
print("by hand:", dx, dy, dz, "  by the tape:", *(float(source.gradient) for source in circuit.sources))

# %% [markdown]
# So: the tape does nothing more than this. Here it is as a film.

# %%
film = tapekit.animate_trace(circuit, interval=1000)
plt.title("(x + y) z: value | gradient", fontsize=10)
film.save(lesson.PICTURES / "02_circuit.gif", writer="pillow", dpi=120)
plt.close()  # it is in the file
print("picture:", lesson.PICTURES / "02_circuit.gif")

# %% [markdown]
# ![Values appear from left to right, then gradients from right to left](pictures/02_circuit.gif)
# ## A choice
# %% [markdown]
# **Predict.** `3 * tf.maximum(a, b)` at a = 2, b = 7. Which gradients come out at a and at b?

# %%
choice = tapekit.trace(lambda a, b: 3.0 * tf.maximum(a, b), [2.0, 7.0])
print({source.name: float(source.gradient) for source in choice.sources})

# %% [markdown]
# So: a `maximum` gate sends all that arrives to the larger input. A nudge of the smaller one changes nothing.
# ## A fork
# In x x + x at x = 2, the value x is used three times. Three edges lead away from it.
# %% [markdown]
# **Predict.** What flows back along each of the three edges? What does x make of them?

# %%
fork = tapekit.trace(lambda x: x * x + x, 2.0)
show(fork, "x x + x", "02_fork.png")

# %% [markdown]
# So: 2, 2 and 1 flow back, and x gets their sum, 5. Where a value is used more than once, the gradients *add*. That is
# all: **multiply along a path, add where paths meet.** It is called back-propagation.
# ## A sigmoid, built from gates
# sigmoid(x) = 1 / (1 + exp(-x)) turns any number into one between 0 and 1. It is made of four gates. `exp` has its own
# value as its local slope, and 1 / v has -1 / v².
# %% [markdown]
# **Predict.** At x = 1 the sigmoid is s = 0.731. Its slope is s (1 - s). Is that more or less than 0.25?

# %%
gates = tapekit.trace(lambda x: 1.0 / (1.0 + tf.exp(-x)), 1.0)
show(gates, "A sigmoid", "02_sigmoid.png", direction="down")
s = float(gates.target.value)
print(f"s = {s:.4f}, s (1 - s) = {s * (1 - s):.4f}, the circuit: {float(gates['x'].gradient):.4f}")

# %% [markdown]
# So: four small slopes, multiplied along the path, give s (1 - s) = 0.1966. It is never above 0.25, its value at x = 0.
# ## A network, folded by layer
# A model has too many operations to look at. With `depth=1` each layer is one box, the darker, the larger its gradient.
# For a tensor, a box shows the **norm**, the length of the list of all its numbers: the root of the sum of their
# squares. The norm of (3, 4) is 5. This model has four sigmoid layers and an output layer. (`2 weights` are the two
# variables inside a layer, with the norms of their gradients.)
# %% [markdown]
# **Predict.** Which box gets the smallest gradient: the one nearest to the loss, or the one nearest to the input?

# %%
keras.utils.set_random_seed(0)
layers = [keras.layers.Dense(16, "sigmoid", name=f"layer{number}") for number in range(1, 5)]
model = keras.Sequential([keras.Input([8]), *layers, keras.layers.Dense(1, name="out")])
data = tf.random.stateless_normal([32, 8], seed=[1, 2])
folded = tapekit.trace(lambda: tf.reduce_mean((model(data) - 1.0) ** 2), model.trainable_variables, depth=1)
for op in folded.ops[:5]:
    print(f"{op.name.split('/')[-1]:7} norm of the gradient {float(tf.norm(op.gradient)):.5f}")
show(folded, "Five layers", "02_folded.png", direction="down")

# %% [markdown]
# So: each sigmoid layer multiplies by slopes of at most 0.25 (and by its weights). From layer4 to layer1 the norm falls
# from 0.657 to 0.005. How to measure and repair that: [tutorial 6](06_vanishing_exploding.ipynb).
# ## Exercise
# f = (a + b)(b + c) at a = 1, b = 2, c = 3. Find the three gradients with the rules above, on paper.

# %%
mine = {"a": ..., "b": ..., "c": ...}
exercises.check_gates(mine)

# %% [markdown]
# <details><summary>Answer</summary>
#
# ```python
# mine = {"a": 5.0, "b": 8.0, "c": 3.0}  # 5 flows to a + b, 3 flows to b + c, and b gets both
# ```
# </details>
#
# **You can now** read a circuit: values forward, upstream times local slope backward.<br>
# **You can now** do a backward pass by hand.<br>
# **You can now** fold a model to its layers. Next: [3. Why is my gradient None?](03_why_none.ipynb)
