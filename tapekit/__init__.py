"""See, explain, check and log the gradients of `tf.GradientTape`.

>>> import tensorflow as tf
>>> import tapekit
>>> w = tf.Variable(5.0)
>>> float(tapekit.gradient(lambda: tf.square(w), w))
10.0
"""

from tapekit.explaining import Explanation, Finding, explain
from tapekit.gradients import gradient, hvp, jvp, value_and_gradient, vjp
from tapekit.jacobians import hessian, jacobian, per_example_gradient
from tapekit.plots import animate_trace, plot_trace
from tapekit.tape import GradientTape, MissingGradientWarning
from tapekit.tracing import Op, Trace, trace

__all__ = [
    "Explanation",
    "Finding",
    "GradientTape",
    "MissingGradientWarning",
    "Op",
    "Trace",
    "animate_trace",
    "explain",
    "gradient",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "per_example_gradient",
    "plot_trace",
    "trace",
    "value_and_gradient",
    "vjp",
]
