"""What the plots share: new axes, a legend, colours, marks for what has no place on a log axis."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito: for colour-blind eyes
TICKS = 30  # more names than this cannot be read beside an axis


class Mark(NamedTuple):
    """How a gradient without a finite, positive norm is drawn."""

    word: str
    marker: str  # on axes of numbers
    height: float  # of the marker, as a share of the axes
    colour: str  # of a cell of the heatmap
    ink: str  # of its hatch
    hatch: str


NONE = Mark("None", "x", 0.09, "white", "0.6", "xxx")
ZERO = Mark("all zero", "v", 0.03, "black", "white", "...")
NONFINITE = Mark("not finite", "*", 0.97, COLOURS[1], "black", "////")


def axes_or_new(ax: Any, size: Sequence[float], *, layout: str | None = "constrained") -> Any:
    """Return `ax`, or the axes of a new figure of that size in inches."""
    if getattr(ax, "name", None) == "rectilinear":  # the name of the projection
        return ax
    if ax is not None:
        kind = type(ax).__name__
        raise TypeError(f"ax is of type {kind}. One matplotlib Axes is needed. Write ax=axes[0], or ax=figure.gca().")
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout=layout)[1]


def legend_below(ax: Any, handles: Sequence) -> None:
    """Draw a legend under the axes, where it covers no line; none of nothing."""
    from matplotlib.transforms import ScaledTranslation

    if not handles:
        return
    under = ax.transAxes + ScaledTranslation(0, -0.45, ax.figure.dpi_scale_trans)  # inches, under the axis' label
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": under}
    columns = 3 if max(len(handle.get_label()) for handle in handles) < 36 else 2
    ax.legend(handles=handles, fontsize="small", ncols=columns, frameon=False, **place)


def marks_of(log: Any, rows: Any = slice(None)) -> dict[Mark, np.ndarray]:
    """Return where `[rows, variables]`, or `[variables]` of one row, a gradient is None, all zero or not finite."""
    bad = (log.nonfinite[rows] > 0) | np.isinf(log.norm[rows])
    return {NONE: log.missing[rows], ZERO: (log.zero_fraction[rows] == 1) & ~bad, NONFINITE: bad}


def log_axis(ax: Any, numbers: bool) -> None:
    """Make the y axis logarithmic, with room for the marks; without ticks if there are no numbers to draw."""
    if numbers:
        ax.set_yscale("log")
        ax.margins(y=0.2)
    else:
        ax.set_yticks([])


def draw_marks(ax: Any, x: np.ndarray, mark: Mark, label: str) -> None:
    """Draw a mark at each x, at the height of its kind."""
    look = {"marker": mark.marker, "s": 45, "color": "black", "label": label, "zorder": 3}
    ax.scatter(x, np.full(len(x), mark.height), transform=ax.get_xaxis_transform(), **look)


def name_ticks(axis: Any, names: Sequence[str], begins: Sequence[int] = (0,), **look: Any) -> None:
    """Write a name at each place. Of too many, write every n-th, from each of the places where a group begins."""
    every = -(-len(names) // TICKS)
    groups = itertools.pairwise([*begins, len(names) + every - 1])  # the first name of a group needs room before it
    places = [place for a, b in groups for place in range(a, b - every + 1, every)]
    axis.set_ticks(places, [names[place] for place in places], fontsize="small", **look)


def step_axis(ax: Any, steps: np.ndarray) -> None:
    """Let the x axis show all of the steps, with whole numbers and at least half a step beside them."""
    from matplotlib.ticker import MaxNLocator

    margin = max(0.5, 0.02 * (steps[-1] - steps[0]))
    ax.set_xlim(steps[0] - margin, steps[-1] + margin)
    ax.set_xlabel("step")
    ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
