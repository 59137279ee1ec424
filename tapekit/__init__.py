"""See, explain, check and log the gradients of `tf.GradientTape`."""

from tapekit.plots import animate_trace, plot_trace
from tapekit.tracing import Op, Trace, trace

__all__ = ["Op", "Trace", "animate_trace", "plot_trace", "trace"]
