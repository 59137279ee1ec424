"""Parts of all plots: new axes, a legend, colours, ticks, and marks for gradients that a log axis cannot show."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito: for colour-blind eyes
TICKS = 30  # more names than this cannot be read beside an axis


class Mark(NamedTuple):
    """How a gradient without a finite, positive norm is drawn."""

    word: str
    marker: str  # in plots with a y axis of numbers
    height: float  # of the marker, as a share of the axes
    colour: str  # of a cell of the heatmap
    hatch_colour: str
    hatch: str


NONE = Mark("None", "x", 0.09, "white", "0.6", "xxx")
ZERO = Mark("all zero", "v", 0.03, "black", "white", "...")
NONFINITE = Mark("not finite", "*", 0.97, COLOURS[1], "black", "////")


def kind_of(value: Any) -> str:
    """Return what arrived, for an error message: ``the class GradientLog`` or ``of type list``."""
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


def rows_of(where: str, log: Any, least: int = 0) -> Any:
    """Return the rows of a log, `least` or more, at this moment; another thread may record while this one draws."""
    if isinstance(log, type) or not hasattr(log, "read"):
        instead = "Write log = tapekit.GradientLog() before the loop, or plot_gradient_flow(gradients, variables)"
        raise TypeError(f"{where}: the log is {kind_of(log)}. A GradientLog is needed. {instead}.")
    rows = log.read()
    if len(rows.steps) * len(rows.names) < least:
        raise ValueError(f"{where}: the log has no rows yet. Record a step first: log.record(gradients, variables).")
    return rows


def axes_or_new(where: str, ax: Any, size: Sequence[float], *, layout: str | None = "constrained") -> Any:
    """Return `ax`, or the axes of a new figure of this size in inches if `ax` is None."""
    if getattr(ax, "name", None) == "rectilinear":  # the name of the projection
        return ax
    if ax is not None:
        raise TypeError(f"{where}: ax is {kind_of(ax)}. One matplotlib Axes is needed. Write ax=figure.gca().")
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout=layout)[1]


def legend_below(*axes: Any) -> None:
    """Draw one legend under the first axes and their label, where it covers no line, if anything has a label."""
    handles = [handle for ax in axes for handle in ax.get_legend_handles_labels()[0]]
    if handles:
        columns = 3 if max(len(handle.get_label()) for handle in handles) < 36 else 2
        look: Any = {"fontsize": "small", "ncols": columns, "frameon": False, "borderaxespad": 4}  # 4 font sizes below
        axes[0].legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), **look)


def marks_of(log: Any, rows: Any = slice(None)) -> dict[Mark, np.ndarray]:
    """Return a mask for each mark, `[rows, variables]`, or `[variables]` of one row: where a gradient needs it."""
    bad = (log.nonfinite[rows] > 0) | np.isinf(log.norm[rows])
    return {NONE: log.missing[rows], ZERO: (log.zero_fraction[rows] == 1) & ~bad, NONFINITE: bad}


def log_axis(ax: Any, numbers: bool) -> None:
    """Make the y axis logarithmic, with room for the marks. If there are no numbers to draw, remove its ticks."""
    if numbers:
        ax.set_yscale("log")
        ax.margins(y=0.2)
    else:
        ax.set_yticks([])


def draw_marks(ax: Any, x: np.ndarray, mark: Mark, label: str) -> None:
    """Draw a mark at each x, at its own height, if there are any."""
    if len(x):
        look = {"marker": mark.marker, "s": 45, "color": "black", "label": label, "zorder": 3}
        ax.scatter(x, np.full(len(x), mark.height), transform=ax.get_xaxis_transform(), **look)


def name_ticks(axis: Any, names: Sequence[str], begins: Sequence[int] = (0,)) -> None:
    """Write a name at each tick; of too many every n-th, from where a group begins. On the x axis, slant long names."""
    every = -(-len(names) // TICKS)
    groups = itertools.pairwise([*begins, len(names) + every - 1])  # the first name of a group needs room before it
    places = [place for a, b in groups for place in range(a, b - every + 1, every)]
    tight = axis.axis_name == "x" and sum(map(len, names)) > 60
    slanted = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"} if tight else {}
    axis.set_ticks(places, [names[place] for place in places], fontsize="small", **slanted)


def step_axis(ax: Any, steps: np.ndarray, **words: str) -> None:
    """Let the x axis show all steps, with whole numbers and a margin of half a step or more; set title and labels."""
    from matplotlib.ticker import MaxNLocator

    margin = max(0.5, 0.02 * (steps[-1] - steps[0]))
    ax.set(xlabel="step", xlim=(steps[0] - margin, steps[-1] + margin), **words)
    ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
