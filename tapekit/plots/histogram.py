"""`plot_gradient_histogram`: distributions of gradients, of all variables at one step or of one over the steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tapekit.plots.axes import NONE, NONFINITE, TICKS, axes_or_new, legend_below, name_ticks, rows_of
from tapekit.plots.labels import labels

HEIGHT = 1.6  # of a ridge, in rows, so that neighbours overlap
VISIBLE = 0.01  # in rows; the axis ends where every ridge is lower
STEPS = 40  # the most ridges of one variable that do not hide each other


def plot_gradient_histogram(log: Any, *, variable: Any = None, step: int = -1, ax: Any = None) -> Any:
    """Draw the distributions of the magnitudes of gradients as ridges, and the shares of zeros beside them.

    Both signs are counted together, and all ridges have the same height. Bars show the shares of 0, NaN and infinity.

    Args:
        log: a `GradientLog` with `histograms`.
        variable: a variable, or its name, to draw at all steps with histograms; by default all variables at one step.
        step: the number of that step; a negative one counts from the end.
        ax: the axes to draw on; new ones by default.

    Returns:
        The axes.

    Raises:
        TypeError, ValueError: `log` is not a `GradientLog`, or has no histograms of that step.

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
    if variable is None:
        step = steps[step] if step in range(-len(steps), 0) else step
        pairs, names = [(name, step) for name in log.names], labels(log.names)
        title = f"Magnitudes of the gradients at step {step}, from input (top) to loss"
    else:
        few = steps[np.unique(np.linspace(0, len(steps) - 1, STEPS).astype(int))]
        pairs, names = [(variable, int(each)) for each in few], [f"step {each}" for each in few]
        title = f"Magnitudes of the gradient of {labels(log.names)[log.index(variable)]} over the steps"
    edges, counts = log.histogram(*pairs[0]).edges, np.array([log.histogram(*pair).counts for pair in pairs])
    at = np.searchsorted(log.steps, [step for _, step in pairs]), [log.index(variable) for variable, _ in pairs]
    ax = axes_or_new("plot_gradient_histogram", ax, (8, 1.8 + min(0.28 * len(pairs), 9)))
    middle, nonfinite = counts.shape[1] // 2, log.nonfinite[at]
    _draw_ridges(ax, edges[middle + 1 :], counts[:, middle + 1 :] + counts[:, :middle][:, ::-1])
    elements = np.maximum(counts.sum(axis=1) + nonfinite, 1)
    _draw_shares(ax, 1.02, "zeros", "0.35", counts[:, middle] / elements)
    if nonfinite.any():
        _draw_shares(ax, 1.18, NONFINITE.word, NONFINITE.colour, nonfinite / elements)
    if log.missing[at].any():
        y, look = np.flatnonzero(log.missing[at]) - 0.3, {"s": 25 if len(pairs) <= TICKS else 6, "color": "black"}
        look |= {"marker": NONE.marker, "label": NONE.word, "zorder": len(pairs) + 1}
        ax.scatter(np.full(len(y), 0.02), y, transform=ax.get_yaxis_transform(), **look)
    legend_below(ax)
    name_ticks(ax.yaxis, names)
    ax.set_title(title)
    return ax


def _draw_ridges(ax: Any, edges: np.ndarray, counts: np.ndarray) -> None:
    """Draw a ridge for each row of `counts`, `[rows, bins]`, the first at the top."""
    import matplotlib

    logs = np.log10(edges)
    density = np.pad(counts / np.diff(logs), [(0, 0), (1, 1)])
    smooth = (density[:, :-2] + 2 * density[:, 1:-1] + density[:, 2:]) / 4  # a few elements make no separate peaks
    heights = HEIGHT * smooth / np.maximum(smooth.max(axis=1, keepdims=True), 1e-9)
    filled = np.flatnonzero((heights > VISIBLE).any(axis=0))
    first, last = (filled[0], filled[-1]) if len(filled) else (244, 257)  # about 1, if there is nothing to draw
    inside = slice(max(first - 3, 0), last + 4)  # more than a decade, so that a power of ten is inside
    magnitudes = 10 ** ((logs[:-1] + logs[1:]) / 2)[inside]
    colours = matplotlib.colormaps["Blues"](np.linspace(0.4, 1, len(heights)))
    for place, (height, colour) in enumerate(zip(heights, colours, strict=True)):
        look = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.8 if len(heights) <= TICKS else 0.3}
        ax.fill_between(magnitudes, place - height[inside], place, zorder=1 + place, **look)
    ax.set(xlabel="magnitude of an element", xscale="log", xlim=magnitudes[[0, -1]])
    ax.set_ylim(len(heights) - 0.4, -HEIGHT - 0.2)
    ax.grid(axis="x", color="0.9")
    ax.tick_params(left=False)
    ax.tick_params(which="minor", labelbottom=False)  # a short axis has no room for them
    ax.spines[["left", "right", "top"]].set_visible(False)


def _draw_shares(ax: Any, left: float, word: str, colour: str, shares: Sequence[float]) -> None:
    """Draw a bar for each share of the elements, on axes beside the ridges."""
    thin, column = len(shares) > TICKS, ax.inset_axes((left, 0, 0.1, 1), sharey=ax)
    bars = column.barh(np.arange(len(shares)) - 0.3, shares, height=1.0 if thin else 0.55, color=colour)
    if not thin:
        column.bar_label(bars, [f"{100 * share:.3g}%" if share else "" for share in shares], fontsize="x-small")
    column.set_xlim(0, 1)
    column.set_xlabel(word, fontsize="small", loc="right")
    column.set_xticks([1], ["100%"], ha="right", fontsize="small")
    column.tick_params(left=False, labelleft=False)
    column.spines[["left", "right", "top"]].set_visible(False)
