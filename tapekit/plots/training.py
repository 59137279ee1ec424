"""Pictures of a log: `plot_gradient_flow`, `plot_gradient_history`, `plot_gradient_heatmap`, `plot_update_ratio`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tapekit._names import is_bias
from tapekit.plots import axes
from tapekit.plots.labels import labels

STYLES = ("-", "--", "-.", ":", (0, (9, 2)), (0, (4, 1, 1, 1, 1, 1)))  # one for each colour, for greyscale
COLUMNS = 600  # the most columns of a picture: about the width of the axes in pixels


def plot_gradient_flow(log: Any, variables: Sequence | None = None, *, step: int = -1, ax: Any = None) -> Any:
    """Draw norm and largest magnitude of each gradient at one step, layer by layer: does the signal reach the input?

    Args:
        log: a `GradientLog`, or a list of gradients; then `variables` is needed.
        variables: the variables of a list of gradients.
        step: the number of the step; a negative one counts rows from the end.
        ax: the axes to draw on; new ones by default.

    Returns:
        The axes.

    Raises:
        ValueError: the log is empty, or has no row of that step.
    """
    if variables is not None:
        from tapekit.logs import GradientLog  # only a plain list of gradients needs TensorFlow

        gradients, log = log, GradientLog()
        log.record(gradients, variables)
    log = axes.rows_of("plot_gradient_flow", log, least=1)
    row = _row(log, step)
    ax = axes.axes_or_new("plot_gradient_flow", ax, (8, 4.5))
    owners = [name.rpartition("/")[0] or name for name in log.names]
    layers = list(dict.fromkeys(owners))
    place = np.array([layers.index(owner) for owner in owners])
    bias = np.array([is_bias(name) for name in log.names])
    marks = axes.marks_of(log, row)
    drawn = ~np.any(list(marks.values()), axis=0)
    kernels, biases = ("kernels", ~bias, "o", axes.COLOURS[0]), ("biases", bias, "s", "white")
    for (word, kind, marker, face), colour in zip((kernels, biases), axes.COLOURS, strict=False):
        which = np.flatnonzero(kind & drawn)
        which = which[np.argsort(place[which], kind="stable")]
        if len(which):
            look: Any = {"color": colour, "label": f"norm, {word}", "marker": marker, "mfc": face}
            ax.plot(place[which], log.norm[row, which], lw=0.8, **look)
            ax.scatter(place[which], log.max_abs[row, which], 90, colour, marker="_", label=f"largest, {word}")
    axes.log_axis(ax, drawn.any())
    for mark, mask in marks.items():
        axes.draw_marks(ax, place[mask], mark, mark.word)
    axes.name_ticks(ax.xaxis, labels(layers, shortest=True))
    title = f"Gradients at step {log.steps[row]}, from input to loss"
    ax.set(title=title, ylabel="gradient (L2 norm, largest magnitude)", xlim=(-0.5, len(layers) - 0.5))
    ax.legend(fontsize="small")
    return ax


def plot_gradient_history(log: Any, *, ax: Any = None) -> Any:
    """Draw the norm of each gradient and of all together, and the loss, over the steps: when did it go wrong?

    If there are more than six variables, the three largest and the three smallest have names; the others are faint. In
    a long log, each pixel column shows the median of its steps, with a light band from the least to the greatest.

    Args and Returns as for `plot_gradient_flow`.
    """
    log = axes.rows_of("plot_gradient_history", log, least=1)
    ax = axes.axes_or_new("plot_gradient_history", ax, (8, 4.5))
    _draw_variables(ax, log, _positive(log.norm))
    if len(log.names) > 1:
        _draw_line(ax, *_spread(log, _positive(log.global_norm)), color="black", lw=1.8, label="all together")
    axes.log_axis(ax, np.isfinite(_positive(log.global_norm)).any())
    for mark, mask in axes.marks_of(log).items():
        _mark_steps(ax, log, mask, mark, mark.word)
    axes.step_axis(ax, log.steps, title="Gradient norms over the steps", ylabel="gradient (L2 norm)")
    if np.isfinite(log.loss).any():
        twin = ax.twinx()
        _draw_line(twin, *_spread(log, log.loss), color="0.45", lw=1.8, ls=(0, (1, 3)), label="loss (right)")
        twin.set_ylabel("loss")
        axes.legend_below(ax, twin)
    else:
        axes.legend_below(ax)
    return ax


def plot_gradient_heatmap(log: Any, *, ax: Any = None) -> Any:
    """Draw log10 of every norm, variables by steps: where does the signal die?

    Rows run from the input (top) to the loss, kernels first and then biases, whose norms are of another size. Cells in
    which a gradient is None, all zero or not finite are hatched. In a long log, each cell shows the median of several
    steps; it is hatched if half of their gradients are None or all zero, or a single one is not finite.

    Args and Returns as for `plot_gradient_flow`.
    """
    log = axes.rows_of("plot_gradient_heatmap", log, least=1)
    ax = axes.axes_or_new("plot_gradient_heatmap", ax, (8, max(2.8, 1.5 + 0.2 * min(len(log.names), 30))))
    names, bias = labels(log.names), np.array([is_bias(name) for name in log.names])
    order, kernels = np.argsort(bias, kind="stable"), int((~bias).sum())
    first, _, median, _ = _spread(log, _positive(log.norm)[:, order])
    every = min(np.diff(log.steps), default=1)
    edges, rows = np.append(first, log.steps[-1] + every) - every / 2, np.arange(len(names) + 1) - 0.5
    image = ax.pcolorfast(edges, rows, np.log10(median).T, cmap="cividis")
    for mark, mask in axes.marks_of(log).items():
        share = np.nanmean(_columns(mask[:, order]), axis=1)
        _hatch(ax, share > 0 if mark is axes.NONFINITE else share >= 0.5, edges, mark)
    ax.axhline(kernels - 0.5, color="white", lw=2)
    axes.name_ticks(ax.yaxis, [names[v] for v in order], begins=(0, kernels))
    groups = ": kernels, then biases, each" if 0 < kernels < len(names) else ","
    axes.step_axis(ax, log.steps, title=f"Gradient norms{groups} from input (top) to loss")
    ax.set(xlim=edges[[0, -1]], ylim=rows[[-1, 0]])
    axes.legend_below(ax)
    if np.isfinite(median).any():
        ax.figure.colorbar(image, ax=ax, label="log10 of the L2 norm")
    return ax


def plot_update_ratio(log: Any, *, ax: Any = None) -> Any:
    """Draw log10 of ||w_new - w_old|| / ||w_old|| over the steps, with the line at -3 where most networks train well.

    Args and Returns as for `plot_gradient_flow`.

    Source: A. Karpathy, CS231n, "Neural Networks Part 3", ratio of weights to updates.
    """
    log = axes.rows_of("plot_update_ratio", log, least=1)
    if np.isnan(log.update_ratio).all():
        needed = "They need GradientLog(updates=True), and an update after each record."
        raise ValueError(f"plot_update_ratio: the log has no update ratios. {needed}")
    ax = axes.axes_or_new("plot_update_ratio", ax, (8, 4.5))
    _draw_variables(ax, log, np.log10(_positive(log.update_ratio)))
    ax.axhline(-3, color="black", lw=1.5)
    ax.text(1.005, -3, "-3, usual", transform=ax.get_yaxis_transform(), va="center", fontsize="small")
    _mark_steps(ax, log, log.update_ratio == 0, axes.ZERO, "no update")
    axes.step_axis(ax, log.steps, title="How far a step moves the weights", ylabel="log10 of update norm / weight norm")
    axes.legend_below(ax)
    return ax


def _row(log: Any, step: int) -> int:
    """Return the row of a step; a negative number counts rows from the end."""
    steps = log.steps.tolist()
    known = [*steps, *range(-len(steps), 0)]
    if step not in known:
        needed = f"Its steps go from {steps[0]} to {steps[-1]}. Give one of log.steps, or -1 for the last, -2, ..."
        raise ValueError(f"plot_gradient_flow: the log has no row of step {step!r}. {needed}")
    return known.index(step) % len(steps)


def _columns(values: np.ndarray) -> np.ndarray:
    """Return `[rows, variables]` as `[columns of the picture, rows of a column, variables]`, padded with NaN."""
    rows = -(-len(values) // COLUMNS)
    filled = np.pad(values.astype(np.float32), ((0, -len(values) % rows), (0, 0)), constant_values=np.nan)
    return filled.reshape(-1, rows, values.shape[1])


def _spread(log: Any, values: np.ndarray) -> list[np.ndarray]:
    """Return the first step of each column, `[columns]`, and its least, median and greatest values `[columns, ...]`."""
    ordered = np.sort(_columns(values.reshape(len(values), -1)), axis=1)  # NaN comes last
    last = np.maximum((~np.isnan(ordered)).sum(1, keepdims=True) - 1, 0)
    found = [np.take_along_axis(ordered, place, 1)[:, 0] for place in (0 * last, last // 2, last)]
    return [log.steps[:: ordered.shape[1]], *found]


def _draw_variables(ax: Any, log: Any, values: np.ndarray) -> None:
    """Draw a line for each variable. If there are many, only the three largest and the three smallest have names."""
    from matplotlib.collections import LineCollection

    names, (steps, low, middle, high) = labels(log.names), _spread(log, values)
    known = np.flatnonzero(~np.isnan(middle).all(0))
    order = known[np.argsort(np.nanmedian(middle[:, known], axis=0))[::-1]]
    named = order if len(order) <= len(axes.COLOURS) else [*order[:3], *order[-3:]]  # from the top of the picture down
    faint = [np.column_stack([steps, middle[:, v]]) for v in order if v not in named]
    if faint:
        ax.add_collection(LineCollection(faint, colors="0.75", linewidths=0.5, label=f"{len(faint)} between"))
    for v in named:
        number = sorted(named).index(v)  # the same look in another plot of the same variables
        look = {"color": axes.COLOURS[number], "ls": STYLES[number], "lw": 1.2, "label": names[v]}
        _draw_line(ax, steps, low[:, v], middle[:, v], high[:, v], **look)
    ax.autoscale_view()


def _draw_line(ax: Any, steps: np.ndarray, *spread: np.ndarray, **look: Any) -> None:
    """Draw the medians of a variable and their band, and a point for a value without a neighbour to be joined to."""
    low, middle, high = map(np.ravel, spread)
    known = np.pad(np.isfinite(middle), 1)
    alone = np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:]).tolist()
    if (low < high).any():
        ax.fill_between(steps, low, high, color=look["color"], alpha=0.12, lw=0)
    ax.plot(steps, middle, **look, **({"marker": ".", "markevery": alone} if alone else {}))


def _mark_steps(ax: Any, log: Any, mask: np.ndarray, mark: axes.Mark, word: str) -> None:
    """Mark the steps at which `mask` holds for some variable, and name the first such variable in the legend."""
    steps = log.steps[mask.any(1)]
    if len(steps):
        few = steps[np.unique(np.linspace(0, len(steps) - 1, 100).astype(int))]
        variables = np.flatnonzero(mask.any(0))
        more = f" and {len(variables) - 1} more" if len(variables) > 1 else ""
        axes.draw_marks(ax, few, mark, f"{word}: {labels(log.names)[variables[0]]}{more}")


def _hatch(ax: Any, mask: np.ndarray, edges: np.ndarray, mark: axes.Mark) -> None:
    """Hatch the cells `[columns, variables]` of a heatmap where `mask` holds."""
    look: dict[str, Any] = {"facecolor": mark.colour, "edgecolor": mark.hatch_colour, "hatch": mark.hatch, "lw": 0.5}
    least, high = (edges[-1] - edges[0]) / 200, max(1.0, mask.shape[1] / 80)  # at least three pixels, to be visible
    for row in np.flatnonzero(mask.any(0)):
        first, after = edges[np.flatnonzero(np.diff(np.pad(mask[:, row], 1).astype(int)))].reshape(-1, 2).T
        wide = np.maximum(after - first, least)
        bars = ax.broken_barh(np.column_stack([(first + after - wide) / 2, wide]), (row - high / 2, high), **look)
    if mask.any():
        bars.set_label(mark.word)


def _positive(values: np.ndarray) -> np.ndarray:
    """Return the values, with NaN for those that a log axis cannot show."""
    return np.where((values > 0) & np.isfinite(values), values, np.nan)
