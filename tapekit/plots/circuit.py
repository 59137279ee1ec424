"""The picture of a `tapekit.Trace` as a circuit: `plot_trace`, and `trace_png` for a notebook."""

import io
from typing import Any

import numpy as np

from tapekit.plots import shapes
from tapekit.plots.axes import axes_or_new, kind_of
from tapekit.plots.labels import labels
from tapekit.plots.layout import layered
from tapekit.plots.shapes import Box, Edge

READABLE = 60  # boxes; if there are more, operations are grouped
POINTS = 9  # the largest font size
TITLE = 0.4  # the height of the title in inches
FACTOR = 0.5  # log10 of 3: norms that differ by less need no colour bar
FACES = {"Source": "#FFF2B3", **dict.fromkeys(shapes.NO_GRADIENT, "#F4F4F4")}  # different in lightness, too
TARGET = "#C9E4F5"


def plot_trace(trace: Any, *, ax: Any = None, direction: str = "right", boxes: int = READABLE) -> Any:
    """Draw a trace as a circuit: a box for each operation with `value | gradient`, an edge for each input.

    An edge between scalars shows `upstream x local = contribution`; one along which no gradient flows back is dashed. A
    tensor shows its shape, and the L2 norms of its value and gradient; a larger gradient makes its box darker (by
    log10). The box of a layer holds the weights that only this layer uses, and the range of their gradients' norms.

    Args:
        trace: what `tapekit.trace` returned.
        ax: the axes to draw on; None makes a figure of the size that the circuit needs.
        direction: `"right"` or `"down"`, from the sources to the target.
        boxes: the largest number of boxes. If a trace has more, operations are grouped: by scope, as little as needed,
            then by the names of neighbouring layers. Give a smaller number to see less.

    Returns:
        The Axes.

    Raises:
        TypeError, ValueError: an argument is not of the kind above.

    Example:
        >>> import tapekit
        >>> ax = tapekit.plot_trace(tapekit.trace(lambda x, y, z: (x + y) * z, [-2.0, 5.0, -4.0]))
        >>> [text.get_text() for text in ax.texts if " x " in text.get_text()][-1]
        '1 x 3 = 3'
    """
    if direction not in ("right", "down"):
        raise ValueError(f"plot_trace: direction is {direction!r}. Write 'right' or 'down'.")
    if not isinstance(boxes, (int, np.integer)) or boxes < 1:
        raise ValueError(f"plot_trace: boxes is {boxes!r}. A positive integer is needed. Write boxes=20.")
    return Picture("plot_trace", trace, ax, direction, boxes=boxes).ax


def trace_png(trace: Any) -> bytes:
    """Return the circuit as a PNG image of 200 dots per inch; no bytes if it has more boxes than can be read."""
    from matplotlib import pyplot as plt

    picture, png = Picture("trace_png", trace, None, "right"), io.BytesIO()
    if len(picture.boxes) <= READABLE:
        picture.ax.figure.savefig(png, format="png", dpi=200)
    plt.close(picture.ax.figure)
    return png.getvalue()


class Picture:
    """A circuit on its axes. With `shaded`, gradients of tensors shade the boxes; `where` begins the error messages."""

    def __init__(self, where: str, trace: Any, ax: Any, direction: str, *, boxes: int = READABLE, shaded: bool = True):
        if isinstance(trace, type) or not hasattr(trace, "ops"):
            raise TypeError(f"{where}: trace is {kind_of(trace)}. A Trace is needed. Write {where}(trace(fn, vars)).")
        self.trace, inside = trace.fold_to(boxes)
        ops, held = self.trace.ops, {source.name for sources in inside.values() for source in sources}
        records = [op for op in (*self.trace.sources, *self.trace.constants, *ops) if op.name not in held]
        named = zip(records, labels([op.name for op in records], most=32, shortest=True), strict=True)
        self.boxes = {op.name: Box(op, name, inside.get(op.name, [])) for op, name in named}
        inputs = [(op, which) for op in ops for which, name in enumerate(op.inputs) if name in self.boxes]
        self.edges = [Edge(self.boxes[op.inputs[which]].op, op, which) for op, which in inputs]
        layered(self.boxes, self.edges, direction == "right")
        title = f"value | gradient of {trace.name or trace.target.name.rpartition('/')[2]}"
        title += f" ({len(trace.ops)} operations in {len(ops)} boxes)" if len(ops) < len(trace.ops) else ""
        title += " (no scopes to fold; trace a part to see less)" if boxes < len(records) else ""
        shades = _shades(records) if shaded else None
        self.ax, points = _axes(ax, title, [*self.boxes.values(), *self.edges], self.edges, shades)
        for box in self.boxes.values():
            colours = ("black", "black") if shades else (shapes.FORWARD, shapes.BACKWARD)
            box.draw(self.ax, _look(box.op, box.op is self.trace.target, shades), colours, points)
        for edge in self.edges:
            edge.draw(self.ax, points)


def _shades(records: list[Any]) -> Any:
    """Return the colour map of log10 of the norms of all gradients; None for a circuit of scalars."""
    from matplotlib.cm import ScalarMappable

    if not any(op.shape for op in records):
        return None
    shades = ScalarMappable(cmap="Oranges")
    logs = np.log10([size for op in records if (size := op.gradient_norm()) and size < np.inf] or [1.0])
    shades.set_array(logs)
    shades.set_clim(logs.min(), logs.min() + max(np.ptp(logs), 1) / 0.65)  # black text can be read on the lighter part
    return shades


def _look(op: Any, is_target: bool, shades: Any) -> dict[str, Any]:
    """Return the look of a box: by its type, or by its gradient if there are `shades` and it can have a gradient."""
    if shades is None or op.type in shapes.NO_GRADIENT:
        return {"facecolor": TARGET if is_target else FACES.get(op.type, "white")}
    look, size = {"linewidth": 2.0 if is_target or op.type == "Source" else 1.2}, op.gradient_norm()
    if size is None:
        return look | {"edgecolor": shapes.GREY, "linestyle": shapes.DASHED}
    if 0 < size < np.inf:
        return look | {"facecolor": shades.to_rgba(np.log10(size))}
    return look | {"edgecolor": "0.75", "hatch": ".." if size == 0 else "//"}  # light, as the hatch lies behind text


def _axes(ax: Any, title: str, drawn: list, edges: list[Edge], shades: Any) -> tuple[Any, float]:
    """Return axes in units of the font size, with a colour bar where it says something, and the font size in points."""
    centres, halves = np.array([each.centre for each in drawn]), np.array([each.size for each in drawn]) / 2
    corners = np.concatenate([centres - halves, centres + halves, *(edge.curve for edge in edges)])
    bar = shades is not None and np.ptp(shades.get_array()) > FACTOR
    low, high = corners.min(0) - [1, 6 if bar else 1], corners.max(0) + 1
    least = max(4.5, (shapes.width(title) + 4) * POINTS / 72)  # inches: room for this title or for the user's
    width, height = np.maximum((high - low) * POINTS / 72, [least, 1.0])
    new, ax = ax is None, axes_or_new("plot_trace", ax, (width, height + TITLE), layout=None)
    if new:
        ax.figure.subplots_adjust(0, 0, 1, height / (height + TITLE))
    space = ax.get_window_extent().size * 72 / ax.figure.dpi
    points = float(min(POINTS, *space / (high - low)))
    (left, bottom), (right, top) = (low + high - space / points) / 2, (low + high + space / points) / 2
    ax.set(xlim=(left, right), ylim=(bottom, top))
    ax.set_axis_off()
    ax.set_title(title, fontsize=max(points, 7), parse_math=False)
    if bar:
        inset = ax.inset_axes((low[0] + 1, low[1] + 2.2, 12, 0.8), transform=ax.transData)
        ax.figure.colorbar(shades, cax=inset, orientation="horizontal")
        inset.set_xlim(min(shades.get_array()), max(shades.get_array()))
        inset.locator_params(axis="x", nbins=4)
        inset.tick_params(labelsize=points * shapes.SMALL, length=2)
        inset.set_title("log10 of the gradient's L2 norm", fontsize=points * shapes.SMALL, loc="left", pad=points / 2)
    return ax, points
