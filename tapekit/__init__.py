"""See, explain, check and log the gradients of `tf.GradientTape`."""

from tapekit.tracing import Op, Trace, trace

__all__ = ["Op", "Trace", "trace"]
