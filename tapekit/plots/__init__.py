"""Pictures of traces, checks and logs: plain data in, matplotlib Axes out."""

from tapekit.plots.circuit import animate_trace, plot_trace

__all__ = ["animate_trace", "plot_trace"]
