# %% [markdown]
# # 3. The tape as a circuit
# What did the tape record, and where does each number in a gradient come from? You will see the tape as a circuit. In
# each box stand its value (left, blue) and its gradient (right, orange); on each edge, in orange, what flows back along
# it: `upstream x local = contribution`, the product that the chain rule makes there.
# Before: [2. Why is my gradient None?](02_why_none.ipynb). Next:
# [4. A training loop you can see](04_training_loop.ipynb)

# %%
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


def show(trace, name, title, direction="right", dpi=120):
    ax = tapekit.plot_trace(trace, direction=direction)
    ax.set_title(f"{title}: value | gradient", fontsize=10)
    ax.figure.savefig(PICTURES / name, dpi=dpi)
    print("picture:", PICTURES / name)


# %% [markdown]
# ## Two gates
# The circuit of [CS231n](https://cs231n.github.io/optimization-2/): f = (x + y) z at x = -2, y = 5, z = -4.
#
# **Predict.** The gradient of f with respect to itself is 1. What arrives at z? And at x and y? (On the way back, each
# gate multiplies what comes from above by its own local derivative.)

# %%
circuit = tapekit.trace(lambda x, y, z: (x + y) * z, [-2.0, 5.0, -4.0])
print(circuit)
show(circuit, "03_circuit.png", "(x + y) z")

# %% [markdown]
# A `mul` gate *swaps*: each input gets the other input's value. An `add` gate *distributes*: each input gets all that
# arrives. The edges, one by one:

# %%
for name in ("mul", "add"):
    for source, local, flow in zip(circuit[name].inputs, circuit[name].local, circuit[name].contributions, strict=True):
        print(f"{name}: {circuit[name].gradient:g} x ({local:g}) = {flow:g} back to {source}")
assert circuit["mul"].local == (circuit["z"].value, circuit["add"].value)

# %% [markdown]
# The same as a film, a step a second. (`IPython.display.HTML(film.to_jshtml())` lets you step through it.)

# %%
film = tapekit.animate_trace(circuit, interval=1000)
plt.title("(x + y) z: value | gradient", fontsize=10)
film.save(PICTURES / "03_circuit.gif", writer="pillow", dpi=120)
plt.close()  # the film is in the file; its figure would show an empty first frame
print("picture:", PICTURES / "03_circuit.gif")

# %% [markdown]
# ![The values appear from left to right, then the gradients from right to left](pictures/03_circuit.gif)
#
# ## A third gate
# **Predict.** `tf.maximum(a, b)` at a = 2, b = 7: which of the two gets a gradient?

# %%
gate = tapekit.trace(lambda a, b: 3.0 * tf.maximum(a, b), [2.0, 7.0])
print({source.name: source.gradient.item() for source in gate.sources})
assert [source.gradient for source in gate.sources] == [0, 3]

# %% [markdown]
# A `max` gate *routes*: all of it to the larger input, nothing to the other.
#
# ## A fork
# **Predict.** x = 2 goes into `x * x` twice, and into `x + ...` once more. How many edges bring a gradient back to x?

# %%
fork = tapekit.trace(lambda x: x * x + x, 2.0)
flows = [flow.item() for op in fork.ops for name, flow in zip(op.inputs, op.contributions, strict=True) if name == "x"]
print("contributions:", flows, "sum:", sum(flows), "gradient of x:", fork["x"].gradient.item())
assert sum(flows) == fork["x"].gradient == 2 * 2 + 1
show(fork, "03_fork.png", "x * x + x")

# %% [markdown]
# Where the forward pass copies, the backward pass *adds*. That is the whole of back-propagation: local derivatives,
# multiplied along paths, added at forks.
#
# ## A network that you can check by hand
# [Mazur's](https://mattmazur.com/2015/03/17/a-step-by-step-backpropagation-example/) worked example: two inputs, two
# hidden sigmoids, two outputs. He finds, by three pages of algebra, the error 0.298371109 and dE/dw5 = 0.082167041;
# float32 keeps seven digits of them.

# %%
inputs, targets = tf.constant([[0.05, 0.10]]), tf.constant([[0.01, 0.99]])
w1 = tf.Variable([[0.15, 0.25], [0.20, 0.30]], name="w1")  # columns: the two hidden neurons
w2 = tf.Variable([[0.40, 0.50], [0.45, 0.55]], name="w2")  # columns: the two outputs


def error():
    hidden = tf.sigmoid(inputs @ w1 + 0.35)
    output = tf.sigmoid(hidden @ w2 + 0.60)
    return tf.reduce_sum(0.5 * tf.square(targets - output))


mazur = tapekit.trace(error, [w1, w2])
print(f"error {mazur.target.value:.9f}, dE/dw5 {mazur['w2'].gradient[0, 0]:.9f}")
assert abs(mazur.target.value - 0.298371109) < 1e-7
assert abs(mazur["w2"].gradient[0, 0] - 0.082167041) < 1e-7
show(mazur, "03_mazur.png", "Mazur's network", direction="down", dpi=100)

# %% [markdown]
# Tensors show their shape and the L2 norm of `value | gradient`. From the bottom up, the gradient shrinks at each
# sigmoid, from 0.772 to 0.144 and from 0.0551 to 0.0133: its derivative is at most 1/4. More of that in
# [6. Vanishing, exploding, repaired](06_vanishing_exploding.ipynb).
#
# ## A model, folded by layer
# A real model has too many operations to look at. `depth=1` folds each layer to one box, with the gradient that arrives
# at its output; `values=False` keeps only the norms. **Predict.** Which layer hears least of the loss?

# %%
keras.utils.set_random_seed(0)
layers = [keras.layers.Dense(16, "sigmoid", name=f"layer{number}") for number in range(1, 5)]
model = keras.Sequential([keras.Input([8]), *layers, keras.layers.Dense(1, name="out")])
data = tf.random.stateless_normal([32, 8], [1, 2])
weights = model.trainable_variables
folded = tapekit.trace(lambda: tf.reduce_mean(tf.square(model(data) - 1.0)), weights, depth=1, values=False)
for op in folded.ops[:5]:
    print(f"{op.name:20} norm of the gradient {op.gradient:.5f}")
show(folded, "03_folded.png", "Five layers, as norms", direction="down", dpi=100)

# %% [markdown]
# ## Exercise
# f = (a + b) (b + c) at a = 1, b = 2, c = 3. Work out the three gradients on paper, with the gates above: b is a fork.

# %%
# One answer: try your own first.
mine = {"a": 5.0, "b": 5.0 + 3.0, "c": 3.0}  # the product swaps: 5 to a + b, 3 to b + c; b gets both
exercise = tapekit.trace(lambda a, b, c: (a + b) * (b + c), [1.0, 2.0, 3.0])
show(exercise, "03_exercise.png", "(a + b) (b + c)", direction="down")
for name, gradient in mine.items():
    assert gradient == exercise[name].gradient, f"{name}: look at the edges in the picture"
print("right:", mine)
