"""See, explain, check and log the gradients of `tf.GradientTape`.

Compute     `gradient`, `value_and_gradient`, `vjp`, `jvp`, `hvp`, `jacobian`, `hessian`, `per_example_gradient`,
            and `GradientTape` for a ``with`` block of one's own
See         `trace` -> `Trace` of `Op`s; `plot_trace`, `animate_trace`
Explain     `explain` -> `Explanation` of `Finding`s: why a gradient is None, zero or not finite, and where
Check       `check_gradient` -> `GradientCheck` of `SourceCheck`s; `plot_check`
Log         `GradientLog`; `plot_gradient_flow`, `plot_gradient_history`, `plot_gradient_heatmap`,
            `plot_gradient_histogram`, `plot_update_ratio`, `LivePlot`

>>> import tensorflow as tf
>>> import tapekit
>>> w = tf.Variable(5.0)
>>> float(tapekit.gradient(lambda: tf.square(w), w))
10.0
"""

import contextlib
import importlib.metadata

from tapekit.checking import GradientCheck, SourceCheck, check_gradient
from tapekit.explaining import Explanation, Finding, explain
from tapekit.gradients import gradient, hvp, jvp, value_and_gradient, vjp
from tapekit.jacobians import hessian, jacobian, per_example_gradient
from tapekit.logs import GradientLog
from tapekit.plots import (
    LivePlot,
    animate_trace,
    plot_check,
    plot_gradient_flow,
    plot_gradient_heatmap,
    plot_gradient_histogram,
    plot_gradient_history,
    plot_trace,
    plot_update_ratio,
)
from tapekit.tape import GradientTape, MissingGradientWarning
from tapekit.tracing import Op, Trace, trace

__all__ = [
    "Explanation",
    "Finding",
    "GradientCheck",
    "GradientLog",
    "GradientTape",
    "LivePlot",
    "MissingGradientWarning",
    "Op",
    "SourceCheck",
    "Trace",
    "animate_trace",
    "check_gradient",
    "explain",
    "gradient",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "per_example_gradient",
    "plot_check",
    "plot_gradient_flow",
    "plot_gradient_heatmap",
    "plot_gradient_histogram",
    "plot_gradient_history",
    "plot_trace",
    "plot_update_ratio",
    "trace",
    "value_and_gradient",
    "vjp",
]

with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # a folder on sys.path that is not installed
    __version__ = importlib.metadata.version("tapekit")
