"""`plot_gradient_histogram`: distributions of gradients, of all variables at one step or of one over the steps."""

from typing import Any, NamedTuple

import numpy as np

from tapekit._names import is_bias
from tapekit.plots.axes import COLOURS, NONE, TICKS, axes_or_new, legend_below, name_ticks
from tapekit.plots.labels import labels

HEIGHT = 1.6  # of a ridge, in rows: neighbours overlap
SMOOTH = (0.25, 0.5, 0.25)  # over an octave: a few elements make a hill, not a comb
VISIBLE = 0.005  # of the height: the axis ends where every ridge is lower
STEPS = 40  # more ridges of one variable than this hide each other


class Ridge(NamedTuple):
    """One row of the picture: the densities are over `log10` of the magnitude."""

    magnitudes: np.ndarray  # log10 of the middle of each bin
    density: np.ndarray  # the highest is 1
    zeros: float  # share of the elements
    nonfinite: float
    missing: bool


def plot_gradient_histogram(log: Any, *, variable: Any = None, step: int = -1, ax: Any = None) -> Any:
    """Draw the distributions of the magnitudes of gradients as ridges, and the shares of zeros beside them.

    Each distribution is a ridge over a log axis; all ridges have the same height, and are smoothed over an octave.
    Both signs are counted together. A bar before the ridge shows the share of elements that are 0, and a bar behind it
    the share that is NaN or infinite.

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
    if isinstance(log, type) or not hasattr(log, "histogram"):
        raise TypeError(f"plot_gradient_histogram: the log is of type {type(log).__name__}. Give a GradientLog.")
    log = log.read()
    steps = log.histogram_steps
    if not len(steps):
        raise ValueError(
            "plot_gradient_histogram: the log has no histograms. Make it with GradientLog(histograms=100), and record."
        )
    if variable is None:
        step = int(steps[step]) if -len(steps) <= step < 0 else step
        ridges = [_ridge(log, name, step) for name in log.names]
        colours: Any = [COLOURS[is_bias(name)] for name in log.names]
        names, title = labels(log.names), f"Magnitudes of the gradients at step {step}, from input (top) to loss"
    else:
        import matplotlib

        steps = steps[np.unique(np.linspace(0, len(steps) - 1, STEPS).astype(int))]
        ridges = [_ridge(log, variable, int(each)) for each in steps]
        colours = matplotlib.colormaps["Blues"](np.linspace(0.4, 1, len(steps)))
        names = [f"step {each}" for each in steps]
        title = f"Magnitudes of the gradient of {labels(log.names)[log.place(variable)]} over the steps"
    ax = axes_or_new(ax, (8, 1.8 + min(0.28 * len(ridges), 9)))
    _draw(ax, ridges, colours)
    name_ticks(ax.yaxis, names)
    ax.set_title(title)
    if variable is None and len(set(colours)) == 2:
        for colour, word in zip(COLOURS, ("kernels", "biases"), strict=False):
            ax.fill_between([], [], [], color=colour, label=word)
    if handles := ax.get_legend_handles_labels()[0]:
        legend_below(ax, handles)
    return ax


def _ridge(log: Any, variable: Any, step: int) -> Ridge:
    edges, counts = log.histogram(variable, step)
    own, row = log[variable], int(np.searchsorted(log.steps, step))
    middle = len(counts) // 2
    sizes, logs = counts[middle + 1 :] + counts[:middle][::-1], np.log10(edges[middle + 1 :])
    shares = np.array([counts[middle], own.nonfinite[row]]) / max(counts.sum() + own.nonfinite[row], 1)
    density = np.convolve(sizes / np.diff(logs), SMOOTH, "same")
    return Ridge((logs[:-1] + logs[1:]) / 2, density / (density.max() or 1), shares[0], shares[1], own.missing[row])


def _draw(ax: Any, ridges: list[Ridge], colours: Any) -> None:
    """Draw the ridges, the first at the top, between the column of the zeros and that of what is not finite."""
    filled = np.flatnonzero(np.any([ridge.density > VISIBLE for ridge in ridges], axis=0))
    first, last = (filled[0], filled[-1]) if len(filled) else (244, 257)  # about 1, if there is nothing to draw
    inside = slice(max(first - 3, 0), last + 4)  # more than a decade, so that a power of ten is inside
    magnitudes = ridges[0].magnitudes[inside]
    low, high, thin = magnitudes[0], magnitudes[-1], len(ridges) > TICKS
    for place, (ridge, colour) in enumerate(zip(ridges, colours, strict=True)):
        look = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.3 if thin else 0.8, "zorder": 1 + place}
        ax.fill_between(magnitudes, place - HEIGHT * ridge.density[inside], place, **look)
    width = 0.15 * (high - low)
    columns = {"zeros": (low - 1.3 * width, [ridge.zeros for ridge in ridges])}
    if any(ridge.nonfinite for ridge in ridges):
        columns["NaN, inf"] = high + 0.3 * width, [ridge.nonfinite for ridge in ridges]
    for left, shares in columns.values():
        _draw_shares(ax, left, width, shares, thin)
    none = [place for place, ridge in enumerate(ridges) if ridge.missing]
    if none:
        look = {"marker": NONE.marker, "color": "black", "s": 6 if thin else 25, "label": NONE.word}
        ax.scatter(np.full(len(none), low), np.array(none) - 0.3, zorder=len(ridges) + 1, **look)
    ax.set(ylim=(len(ridges) - 0.4, -HEIGHT - 0.2), xlabel="magnitude of an element")
    ax.set_xlim(low - 1.5 * width, high + (1.5 * width if len(columns) > 1 else 0))
    every = max(1, round((high - low) / 7))
    powers = {f"$10^{{{n}}}$": n for n in range(int(np.ceil(low)), int(high) + 1) if n % every == 0}
    ticks = powers | {word: left + width / 2 for word, (left, _) in columns.items()}
    ax.set_xticks(list(ticks.values()), list(ticks))
    for power in powers.values():
        ax.axvline(power, color="0.9", lw=0.8, zorder=0)
    ax.tick_params(left=False)
    ax.spines[["left", "right", "top"]].set_visible(False)


def _draw_shares(ax: Any, left: float, width: float, shares: list[float], thin: bool) -> None:
    """Draw a bar for each share of the elements, on a track that stands for all of them."""
    places, height = np.arange(len(shares)) - 0.3, 1.0 if thin else 0.55
    ax.barh(places, width, left=left, height=height, color="0.92")
    ax.barh(places, np.multiply(shares, width), left=left, height=height, color="0.35")
    for place, share in zip(places, shares, strict=True) if not thin else ():
        if share:
            word, on = "<1%" if share < 0.01 else f"{share:.0%}", share > 0.5  # on the bar
            look = {"ha": "left", "color": "white"} if on else {"ha": "right", "color": "black"}
            ax.text(left if on else left + width, place, f" {word} ", va="center", fontsize="x-small", **look)
