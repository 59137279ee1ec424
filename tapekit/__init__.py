"""See, explain, check and log the gradients of `tf.GradientTape`."""

from tapekit.checking import GradientCheck, SourceCheck, check_gradient
from tapekit.plots import plot_check

__all__ = ["GradientCheck", "SourceCheck", "check_gradient", "plot_check"]
