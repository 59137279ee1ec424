"""Pictures of what the other rooms return: plain data in, matplotlib `Axes` out.

A plot takes `ax=None` and returns the `Axes`. It imports matplotlib when it draws, shows nothing and sets no style.

Files, in reading order:

    axes        parts of all plots: new axes, a legend, colours, marks for None, zero and not finite
    labels      short unique names for ticks, legends and boxes
    training    a `GradientLog`: flow, history, heatmap, update ratio
    histogram   a `GradientLog`: distributions of the gradients
    live        a plot that is redrawn while a model trains
    checks      a `GradientCheck`: error against step
    circuit     a `Trace`: boxes and edges
    shapes      one box or one arrow, with its text
    layout      the positions of the boxes and edges of a circuit
    animation   a `Trace` as a film of the forward and the backward pass
"""

from tapekit.plots.animation import animate_trace
from tapekit.plots.checks import plot_check
from tapekit.plots.circuit import plot_trace, trace_png
from tapekit.plots.histogram import plot_gradient_histogram
from tapekit.plots.live import LivePlot
from tapekit.plots.training import plot_gradient_flow, plot_gradient_heatmap, plot_gradient_history, plot_update_ratio

__all__ = [
    "LivePlot",
    "animate_trace",
    "plot_check",
    "plot_gradient_flow",
    "plot_gradient_heatmap",
    "plot_gradient_histogram",
    "plot_gradient_history",
    "plot_trace",
    "plot_update_ratio",
    "trace_png",
]
