"""Pictures of what tapekit measures: plain data in, matplotlib `Axes` out."""

from tapekit.plots.checks import plot_check as plot_check
