"""Pictures of traces, checks and logs: plain data in, matplotlib Axes out."""

from tapekit.plots.checks import plot_check
from tapekit.plots.circuit import animate_trace, plot_trace
from tapekit.plots.live import LivePlot
from tapekit.plots.training import (
    plot_gradient_flow,
    plot_gradient_heatmap,
    plot_gradient_history,
    plot_update_ratio,
)

__all__ = [
    "LivePlot",
    "animate_trace",
    "plot_check",
    "plot_gradient_flow",
    "plot_gradient_heatmap",
    "plot_gradient_history",
    "plot_trace",
    "plot_update_ratio",
]
