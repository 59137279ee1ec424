"""Pictures of a `tapekit.GradientLog`: of one step, over the steps, and of everything at one look.

- `plot_gradient_flow`: one step, layer by layer: does the signal reach the input?
- `plot_gradient_history`: norms and loss over the steps: when did it go wrong?
- `plot_gradient_heatmap`: all variables, all steps: where does it die?
- `plot_update_ratio`: how far a step moves the weights: is the learning rate right?

>>> from types import SimpleNamespace as Log
>>> column = lambda *values: np.array([values])
>>> log = Log(names=("a/kernel", "b/kernel"), steps=np.array([7]), norm=column(1.0, 0.1), max_abs=column(0.5, 0.05),
...           zero_fraction=column(0, 0), nonfinite=column(0, 0), missing=column(False, False))
>>> plot_gradient_flow(log).get_title()
'Gradients at step 7, from input to loss'
"""

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tapekit._names import is_bias
from tapekit.plots.axes import COLOURS, axes_or_new, legend_below

STYLES = ("-", "--", "-.", ":", (0, (9, 2)), (0, (4, 1, 1, 1, 1, 1)))  # and for printers without colour
# marker, word, and height as a share of the axes
NONE, ZERO, NONFINITE = ("x", "None", 0.09), ("v", "all zero", 0.03), ("*", "not finite", 0.97)
COLUMNS = 600  # more steps than this cannot be told apart in a picture


def plot_gradient_flow(log: Any, variables: Sequence | None = None, *, step: int = -1, ax: Any = None) -> Any:
    """Draw norm and largest magnitude of each gradient of one step, layers in order of depth.

    Args:
        log: a `GradientLog`, or a list of gradients, with `variables` then.
        variables: the variables of a list of gradients.
        step: the number of the step; a negative one counts rows from the end.
        ax: the axes to draw on; new ones by default.

    Returns:
        The axes.

    Raises:
        ValueError: the log is empty, or has no row of that step.
    """
    log = _with_rows("plot_gradient_flow", log if variables is None else _recorded(log, variables))
    row = len(log.steps) + step if step < 0 else int(np.searchsorted(log.steps, step))
    if not 0 <= row < len(log.steps) or (step >= 0 and log.steps[row] != step):
        raise ValueError(
            f"plot_gradient_flow: there is no row of step {step}. Rows are from {log.steps[0]} to {log.steps[-1]}."
        )
    ax = axes_or_new(ax, (8, 4.5))
    names = _short(log.names)
    owners = [name.rpartition("/")[0] or name for name in names]
    layers = list(dict.fromkeys(owners))
    place = np.array([layers.index(owner) for owner in owners])
    bias = np.array([is_bias(name) for name in names])
    marks = _marks(log, slice(row, row + 1))
    usual = ~np.any([mask[0] for mask in marks.values()], axis=0)
    for which, marker, colour, word in ((~bias, "o", COLOURS[0], "kernels"), (bias, "s", COLOURS[1], "biases")):
        which = which & usual
        if which.any():
            look = {"marker": marker, "color": colour, "mfc": colour if marker == "o" else "white", "lw": 0.8}
            ax.plot(place[which], log.norm[row, which], label=f"norm, {word}", **look)
            ax.scatter(place[which], log.max_abs[row, which], marker="_", s=90, color=colour, label=f"largest, {word}")
    ax.set_yscale("log")
    for mark, mask in marks.items():
        if mask.any():
            _edge_marks(ax, place[mask[0]], *mark)
    slanted: dict[str, Any] = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
    _name_ticks(ax.xaxis, layers, **(slanted if sum(map(len, layers)) > 60 else {}))
    ax.set_xlim(-0.5, len(layers) - 0.5)
    ax.set_title(f"Gradients at step {log.steps[row]}, from input to loss")
    ax.set_ylabel("gradient (L2 norm, largest magnitude)")
    ax.legend(fontsize="small")
    return ax


def plot_gradient_history(log: Any, *, ax: Any = None) -> Any:
    """Draw the norm of each gradient and of all together over the steps, and the loss on an axis of its own.

    Of more than six variables, the three largest and the three smallest have names; the rest is faint.

    Args and Returns as for `plot_gradient_flow`.
    """
    log = _with_rows("plot_gradient_history", log)
    ax = axes_or_new(ax, (8, 4.5))
    _draw_lines(ax, log, _positive(log.norm))
    _line(ax, *_thin(log.steps, _positive(log.global_norm)[:, np.newaxis]), color="black", lw=1.8, label="all together")
    if (log.global_norm > 0).any():  # a log axis without a number cannot be drawn
        ax.set_yscale("log")
    for mark, mask in _marks(log).items():
        rows = np.flatnonzero(mask.any(1))
        if len(rows):
            _edge_marks(ax, log.steps[_some(rows, 100)], *mark)
    ax.margins(y=0.15)
    ax.set(title="Gradient norms over the steps", xlabel="step", ylabel="gradient (L2 norm)")
    handles, labels = ax.get_legend_handles_labels()
    if np.isfinite(log.loss).any():
        twin = ax.twinx()
        dotted: dict[str, Any] = {"color": "0.45", "lw": 1.8, "ls": (0, (1, 3)), "label": "loss (right)"}
        _line(twin, *_thin(log.steps, log.loss[:, np.newaxis]), **dotted)
        twin.set_ylabel("loss")
        handles, labels = handles + twin.lines, [*labels, "loss (right)"]
    legend_below(ax, handles, labels)
    return ax


def plot_gradient_heatmap(log: Any, *, ax: Any = None) -> Any:
    """Draw log10 of every norm, variables by steps: one look tells where the signal dies.

    Rows run from the input (top) to the loss, kernels first and then biases, whose norms are of another size.

    Args and Returns as for `plot_gradient_flow`.
    """
    log = _with_rows("plot_gradient_heatmap", log)
    ax = axes_or_new(ax, (8, max(2.8, 1.5 + 0.2 * min(len(log.names), 30))))
    bias = np.array([is_bias(name) for name in log.names])
    order = np.argsort(bias, kind="stable")
    norms = _positive(log.norm)[:, order]
    picture = _by_columns(np.log10(norms), np.nanmean).T
    extent = (log.steps[0] - 0.5, log.steps[-1] + 0.5, len(log.names) - 0.5, -0.5)
    image = ax.imshow(picture, aspect="auto", cmap="cividis", extent=extent, interpolation="nearest")
    ax.set_facecolor("0.85")  # under the marks
    both = 0 < bias.sum() < len(bias)
    if both:
        ax.axhline(len(bias) - bias.sum() - 0.5, color="white", lw=2)
    centres = np.linspace(*extent[:2], 2 * picture.shape[1] + 1)[1::2]
    for mark, mask in _marks(log).items():
        found = [(v, np.flatnonzero(row)) for v, row in enumerate(_by_columns(mask[:, order], np.max).T) if row.any()]
        if found:
            few = [(v, _some(columns, 25)) for v, columns in found]
            x = np.concatenate([centres[columns] for _, columns in few])
            y = np.concatenate([np.full(len(columns), v) for v, columns in few])
            size, colour = (50, COLOURS[1]) if mark is NONFINITE else (18, "black")
            ax.scatter(x, y, marker=mark[0], s=size, color=colour, lw=1, label=mark[1])
    if ax.get_legend_handles_labels()[0]:
        legend_below(ax, *ax.get_legend_handles_labels())
    names = _short(log.names)
    _name_ticks(ax.yaxis, [names[v] for v in order], begins=(0, len(bias) - bias.sum()) if both else (0,))
    groups = ": kernels, then biases, each" if both else ","
    ax.set(title=f"Gradient norms{groups} from input (top) to loss", xlabel="step")
    ax.figure.colorbar(image, ax=ax, label="log10 of the gradient's L2 norm")
    return ax


def plot_update_ratio(log: Any, *, ax: Any = None) -> Any:
    """Draw log10 of ||w_new - w_old|| / ||w_old|| over the steps, with the line at -3 where most networks train well.

    Args and Returns as for `plot_gradient_flow`.

    Source: A. Karpathy, CS231n, "Neural Networks Part 3", ratio of weights to updates.
    """
    log = _with_rows("plot_update_ratio", log)
    if np.isnan(log.update_ratio).all():
        raise ValueError(
            "plot_update_ratio: the log has no update ratios. It needs GradientLog(updates=True), and an update after "
            "each record."
        )
    ax = axes_or_new(ax, (8, 4.5))
    ratios = np.where(np.isfinite(log.update_ratio), _positive(log.update_ratio), np.nan)
    _draw_lines(ax, log, np.log10(ratios))
    ax.axhline(-3, color="black", lw=1.5)
    ax.annotate("-3: usual", (0.99, -3), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize="small")
    zero = log.steps[(log.update_ratio == 0).any(1)]
    if len(zero):
        _edge_marks(ax, zero, ZERO[0], "no update", ZERO[2])
    ax.set(title="How far a step moves the weights", xlabel="step", ylabel="log10 of update norm / weight norm")
    legend_below(ax, *ax.get_legend_handles_labels())
    return ax


def _recorded(gradients: Any, variables: Sequence) -> Any:
    from tapekit.logs import GradientLog  # only a plain list of gradients needs TensorFlow

    if hasattr(gradients, "steps"):
        raise TypeError(
            "plot_gradient_flow: a GradientLog came, and a second argument. Give the log alone; step= and ax= by name."
        )
    log = GradientLog()
    log.record(gradients, variables)
    return log


def _with_rows(where: str, log: Any) -> Any:
    if not hasattr(log, "names"):
        instead = ", or (gradients, variables)" if where == "plot_gradient_flow" else ""
        raise TypeError(f"{where}: the log is of type {type(log).__name__}. Give a GradientLog{instead}.")
    if not len(log.steps) or not log.names:
        raise ValueError(f"{where}: the log has no rows yet. Record a step first: log.record(gradients, variables).")
    return log


def _marks(log: Any, rows: slice = slice(None)) -> dict[tuple[str, str, float], np.ndarray]:
    """Where `[rows, variables]` a gradient is None, all zero or not finite."""
    bad = log.nonfinite[rows] > 0
    return {NONE: log.missing[rows], ZERO: (log.zero_fraction[rows] == 1) & ~bad, NONFINITE: bad}


def _short(names: Sequence[str]) -> list[str]:
    """The names without the model they all begin with, of long ones the end."""
    first = {name.split("/")[0] for name in names if name.count("/") > 1}
    common = len(first) == 1 and all(name.count("/") > 1 for name in names)
    own = [name.split("/", 1)[1] if common else name for name in names]
    return [name if len(name) <= 40 else f"…{name[-39:]}" for name in own]


def _edge_marks(ax: Any, x: np.ndarray, marker: str, word: str, height: float) -> None:
    """Marks at a share of the axes' height, for what has no place on a log axis."""
    look = {"marker": marker, "s": 45, "color": "black", "label": word, "zorder": 3}
    ax.scatter(x, np.full(len(x), height), transform=ax.get_xaxis_transform(), **look)


def _some(places: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the places, from the first to the last."""
    return places[np.unique(np.linspace(0, len(places) - 1, most).astype(int))]


def _name_ticks(axis: Any, names: Sequence[str], begins: Sequence[int] = (0,), **look: Any) -> None:
    """A name at each place, or, from each of those where a group begins, at every n-th if they are too many to read."""
    every = -(-len(names) // 30)
    groups = itertools.pairwise([*begins, len(names) + every - 1])  # the first name of a group wants room before it
    places = [place for a, b in groups for place in range(a, b - every + 1, every)]
    axis.set_ticks(places, [names[place] for place in places], fontsize="small", **look)


def _by_columns(values: np.ndarray, reduce: Callable) -> np.ndarray:
    """`[rows, variables]` -> at most `COLUMNS` rows, each of which `reduce` makes of some neighbours."""
    if len(values) <= COLUMNS:
        return values
    edges = np.linspace(0, len(values), COLUMNS + 1).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a mean of nothing is NaN, and drawn as nothing
        return np.array([reduce(values[a:b], axis=0) for a, b in itertools.pairwise(edges)])


def _thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lines that look the same and have a few points: the least and the greatest of neighbours in turn."""
    if len(values) <= 2 * COLUMNS:
        return steps, values
    low, high = _by_columns(values, np.nanmin), _by_columns(values, np.nanmax)
    edges = np.linspace(0, len(values), COLUMNS + 1).astype(int)[:-1]
    return np.repeat(steps[edges], 2), np.stack([low, high], 1).reshape(-1, values.shape[1])


def _draw_lines(ax: Any, log: Any, values: np.ndarray) -> None:
    """One line a variable: all named, or the three largest and the three smallest of many."""
    from matplotlib.collections import LineCollection

    names = _short(log.names)
    steps, values = _thin(log.steps, values)
    known = np.flatnonzero(~np.isnan(values).all(0))
    order = known[np.argsort(np.nanmedian(values[:, known], axis=0))[::-1]]
    named = order if len(order) <= len(COLOURS) else [*order[:3], *order[-3:]]  # from the top of the picture down
    faint = [np.column_stack([steps, values[:, v]]) for v in order if v not in named]
    if faint:
        ax.add_collection(LineCollection(faint, colors="0.75", linewidths=0.5, label=f"{len(faint)} between"))
    for v in named:
        place = sorted(named).index(v)  # the same look in another plot of the same variables
        _line(ax, steps, values[:, v], color=COLOURS[place], ls=STYLES[place], lw=1.2, label=names[v])
    ax.autoscale_view()


def _line(ax: Any, x: np.ndarray, y: np.ndarray, **look: Any) -> None:
    """A line, with a point where there is nothing on either side to draw a line to."""
    known = np.pad(np.isfinite(np.ravel(y)), 1)
    alone = np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:]).tolist()
    ax.plot(x, y, **look, **({"marker": ".", "markevery": alone} if alone else {}))


def _positive(values: np.ndarray) -> np.ndarray:
    """What has a place on a log axis; NaN for the rest, which marks show."""
    return np.where(values > 0, values, np.nan)
