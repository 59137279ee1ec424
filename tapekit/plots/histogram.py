"""`plot_gradient_histogram`: distributions of gradients, of all variables at one step or of one over the steps."""

from typing import Any, NamedTuple

import numpy as np

from tapekit.plots.axes import NONE, NONFINITE, TICKS, axes_or_new, legend_below, name_ticks, rows_of
from tapekit.plots.labels import labels

HEIGHT = 1.6  # of a ridge, in rows, so that neighbours overlap
SMOOTH = (0.25, 0.5, 0.25)  # weights over an octave, so that a few elements do not make separate peaks
VISIBLE = 0.005  # a share of the height; the axis ends where every ridge is lower
STEPS = 40  # the most ridges of one variable that do not hide each other


class Ridge(NamedTuple):
    """One row of the picture."""

    magnitudes: np.ndarray  # the middle of each bin
    density: np.ndarray  # over log10 of the magnitude; the highest is 1
    zeros: float  # share of the elements
    nonfinite: float
    missing: bool


def plot_gradient_histogram(log: Any, *, variable: Any = None, step: int = -1, ax: Any = None) -> Any:
    """Draw the distributions of the magnitudes of gradients as ridges, and the shares of zeros beside them.

    Each distribution is a ridge over a log axis; all ridges have the same height, and are smoothed over an octave.
    Both signs are counted together. Bars beside the ridges show the share of elements that are 0, or not finite.

    Args:
        log: a `GradientLog` with `histograms`.
        variable: one variable, or its name, to draw at all steps that have histograms, from the first (top) to the
            last; by default all variables are drawn at one step, from the input (top) to the loss.
        step: the number of that step; a negative one counts from the end.
        ax: the axes to draw on; new ones by default.

    Returns:
        The axes.

    Raises:
        TypeError: `log` is not a `GradientLog`.
        ValueError: the log has no histograms, or none of that step.

    Example:
        >>> from tapekit import GradientLog
        >>> import tensorflow as tf
        >>> log = GradientLog(histograms=1)
        >>> log.record([tf.constant([1e-3, 0.0, 1e-2])], [tf.Variable(tf.zeros([3]), name="w")])
        >>> plot_gradient_histogram(log).get_title()
        'Magnitudes of the gradients at step 0, from input (top) to loss'
    """
    log = rows_of("plot_gradient_histogram", log)
    steps = log.histogram_steps
    if not len(steps):
        raise ValueError("plot_gradient_histogram: the log has no histograms. Make it with GradientLog(histograms=100)")
    import matplotlib

    if variable is None:
        step = steps[step] if step in range(-len(steps), 0) else step
        rows, names = [(name, step) for name in log.names], labels(log.names)
        title = f"Magnitudes of the gradients at step {step}, from input (top) to loss"
    else:
        rows = [(variable, int(each)) for each in steps[np.unique(np.linspace(0, len(steps) - 1, STEPS).astype(int))]]
        names = [f"step {each}" for _, each in rows]
        title = f"Magnitudes of the gradient of {labels(log.names)[log.index(variable)]} over the steps"
    ax = axes_or_new("plot_gradient_histogram", ax, (8, 1.8 + min(0.28 * len(rows), 9)))
    _draw(ax, [_ridge(log, *row) for row in rows], matplotlib.colormaps["Blues"](np.linspace(0.4, 1, len(rows))))
    name_ticks(ax.yaxis, names)
    ax.set_title(title)
    legend_below(ax, ax.get_legend_handles_labels()[0])
    return ax


def _ridge(log: Any, variable: Any, step: int) -> Ridge:
    edges, counts = log.histogram(variable, step)
    own, row = log[variable], int(np.searchsorted(log.steps, step))
    middle = len(counts) // 2
    sizes, logs = counts[middle + 1 :] + counts[:middle][::-1], np.log10(edges[middle + 1 :])
    zeros, nonfinite = np.array([counts[middle], own.nonfinite[row]]) / max(counts.sum() + own.nonfinite[row], 1)
    density = np.convolve(sizes / np.diff(logs), SMOOTH, "same")
    return Ridge(10 ** ((logs[:-1] + logs[1:]) / 2), density / (density.max() or 1), zeros, nonfinite, own.missing[row])


def _draw(ax: Any, ridges: list[Ridge], colours: Any) -> None:
    """Draw the ridges, the first at the top, and beside them the shares of zeros and of what is not finite."""
    filled = np.flatnonzero(np.any([ridge.density > VISIBLE for ridge in ridges], axis=0))
    first, last = (filled[0], filled[-1]) if len(filled) else (244, 257)  # about 1, if there is nothing to draw
    inside = slice(max(first - 3, 0), last + 4)  # more than a decade, so that a power of ten is inside
    magnitudes, thin = ridges[0].magnitudes[inside], len(ridges) > TICKS
    for place, (ridge, colour) in enumerate(zip(ridges, colours, strict=True)):
        look = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.3 if thin else 0.8, "zorder": 1 + place}
        ax.fill_between(magnitudes, place - HEIGHT * ridge.density[inside], place, **look)
    none = [place - 0.3 for place, ridge in enumerate(ridges) if ridge.missing]
    if none:
        look = {"marker": NONE.marker, "color": "black", "s": 6 if thin else 25, "label": NONE.word}
        ax.scatter(np.full(len(none), 0.02), none, transform=ax.get_yaxis_transform(), zorder=len(ridges) + 1, **look)
    ax.set(xscale="log", xlim=magnitudes[[0, -1]], ylim=(len(ridges) - 0.4, -HEIGHT - 0.2))
    ax.set_xlabel("magnitude of an element")
    ax.grid(axis="x", color="0.9")
    ax.tick_params(left=False)
    ax.spines[["left", "right", "top"]].set_visible(False)
    _draw_shares(ax, 1.02, "zeros", "0.35", [ridge.zeros for ridge in ridges])
    if any(ridge.nonfinite for ridge in ridges):
        _draw_shares(ax, 1.2, NONFINITE.word, NONFINITE.colour, [ridge.nonfinite for ridge in ridges])


def _draw_shares(ax: Any, left: float, word: str, colour: str, shares: list[float]) -> None:
    """Draw a bar for each share of the elements, on axes beside the ridges."""
    thin, column = len(shares) > TICKS, ax.inset_axes((left, 0, 0.12, 1), sharey=ax)
    bars = column.barh(np.arange(len(shares)) - 0.3, shares, height=1.0 if thin else 0.55, color=colour)
    if not thin:
        column.bar_label(bars, [f"{100 * share:.3g}%" if share else "" for share in shares], fontsize="x-small")
    column.set(xlim=(0, 1), xlabel=word)
    column.set_xticks([1], ["100%"], ha="right", fontsize="small")
    column.tick_params(left=False, labelleft=False)
    column.spines[["left", "right", "top"]].set_visible(False)
