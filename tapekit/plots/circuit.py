"""The picture of a `tapekit.Trace` as a circuit: `plot_trace`, and `trace_png` for a notebook.

Boxes show values forward and gradients backward, edges show the factors of the chain rule.
"""

import io
from typing import Any, NamedTuple

import numpy as np

from tapekit.plots import shapes
from tapekit.plots.axes import axes_or_new, kind_of
from tapekit.plots.labels import labels
from tapekit.plots.layout import layered

READABLE = 60  # boxes; if there are more, operations are grouped
POINTS = 9  # the largest font size
TITLE = 0.4  # the height of the title in inches
FACTOR = 0.3  # log10 of 2: a colour bar for norms that differ by less says nothing
DASHED = (0, (4, 3))
EDGES: dict[str, dict[str, Any]] = {
    "flow": {"color": shapes.BACKWARD, "linewidth": 1.2, "linestyle": "-"},
    "cut": {"color": shapes.CUT, "linewidth": 1.2, "linestyle": DASHED},
    "constant": {"color": shapes.GREY, "linewidth": 0.8, "linestyle": "-"},
}
CONSTANTS = ("Constant", "Variable")  # types of records that have no gradient
FACES = {"Source": "#FFF2B3", **dict.fromkeys(CONSTANTS, "#F4F4F4")}  # different in lightness, too
TARGET = "#C9E4F5"


class Edge(NamedTuple):
    """The edge from `op` back to `source`, which is its input number `which`."""

    source: str
    op: str
    which: int
    label: str
    kind: str  # "flow", "cut" or "constant"

    def size(self) -> tuple[float, float]:
        """Return the width and height of the label."""
        return (shapes.width(self.label) * shapes.SMALL, shapes.LINE) if self.label else (0.0, 0.0)


class Picture(NamedTuple):
    """A circuit on its axes."""

    trace: Any
    ax: Any
    boxes: dict[str, shapes.Box]
    edges: list[tuple[Edge, Any, Any]]  # with the arrow, and the label or None


def plot_trace(trace: Any, *, ax: Any = None, direction: str = "right", boxes: int = READABLE) -> Any:
    """Draw a trace as a circuit: a box for each operation with `value | gradient`, an edge for each input.

    Each edge between scalars shows `upstream x local = contribution`. A tensor shows its shape, and the L2 norms of its
    value and gradient; a larger norm of the gradient makes its box darker (by log10). An edge along which no gradient
    flows back is dashed and says so. The box of a layer holds the weights that only this layer uses, with the range of
    the norms of their gradients.

    Args:
        trace: what `tapekit.trace` returned.
        ax: the axes to draw on; None makes a figure of the size that the circuit needs.
        direction: `"right"` or `"down"`, from the sources to the target.
        boxes: the largest number of boxes. If a trace has more, operations are grouped: by scope, as little as needed,
            then by the names of neighbouring layers. Give a smaller number to see less.

    Returns:
        The Axes.

    Raises:
        TypeError: `trace` is not a `Trace`, or `ax` is not an Axes.
        ValueError: `direction` is something else, or `boxes` is not a positive integer.

    Example:
        >>> import tapekit
        >>> ax = tapekit.plot_trace(tapekit.trace(lambda x, y, z: (x + y) * z, [-2.0, 5.0, -4.0]))
        >>> [text.get_text() for text in ax.texts if " x " in text.get_text()][-1]
        '1 x 3 = 3'
    """
    return draw("plot_trace", trace, ax, direction, boxes=boxes).ax


def trace_png(trace: Any) -> bytes:
    """Return the circuit as a PNG image of 200 dots per inch; no bytes if it has more boxes than can be read."""
    from matplotlib import pyplot as plt

    picture, png = draw("trace_png", trace, None, "right"), io.BytesIO()
    if len(picture.boxes) <= READABLE:
        picture.ax.figure.savefig(png, format="png", dpi=200)
    plt.close(picture.ax.figure)
    return png.getvalue()


def draw(where: str, trace: Any, ax: Any, direction: str, *, boxes: int = READABLE, shaded: bool = True) -> Picture:
    """Draw the circuit. With `shaded`, the gradients of tensors shade the boxes; `where` begins the error messages."""
    _check(where, trace, direction, boxes)
    shown, inside = trace.fold_to(boxes)
    held = {source.name for sources in inside.values() for source in sources}
    records = {op.name: op for op in (*shown.sources, *shown.constants, *shown.ops) if op.name not in held}
    names = dict(zip(records, labels(list(records), most=32, shortest=True), strict=True))
    texts = {name: _text(op, names[name], inside.get(name, [])) for name, op in records.items()}
    edges, right = _edges(shown, records), direction == "right"
    sizes = {name: text.size() for name, text in texts.items()} | {edge: edge.size() for edge in edges}
    place, routes = layered(list(records), edges, sizes, right)
    title = f"value | gradient of {trace.name or trace.target.name.rpartition('/')[2]}"
    title += f" ({len(trace.ops)} operations in {len(shown.ops)} boxes)" if len(shown.ops) < len(trace.ops) else ""
    title += " (no scopes to fold; trace a part to see less)" if boxes < len(records) else ""
    shades = _shades([op for op in records.values() if op.type not in CONSTANTS]) if shaded else None
    ax, points = _axes(ax, title, place, sizes, routes, shades)
    colours = ("black", "black") if shades else (shapes.FORWARD, shapes.BACKWARD)
    drawn = {}
    for name, op in records.items():
        look = _look(op, op is shown.target, shades)
        drawn[name] = shapes.draw_box(ax, texts[name], place[name], look, colours, points)
    return Picture(shown, ax, drawn, _draw_edges(ax, edges, place, routes, right, points))


def _check(where: str, trace: Any, direction: str, boxes: int) -> None:
    """Raise an error if one of the arguments cannot be drawn."""
    if isinstance(trace, type) or not hasattr(trace, "ops"):
        raise TypeError(f"{where}: trace is {kind_of(trace)}. A Trace is needed. Write {where}(trace(fn, vars)).")
    if direction not in ("right", "down"):
        raise ValueError(f"{where}: direction is {direction!r}. Write 'right' or 'down'.")
    if not isinstance(boxes, (int, np.integer)) or boxes < 1:
        raise ValueError(f"{where}: boxes is {boxes!r}. A positive integer is needed. Write boxes=20.")


def _edges(trace: Any, records: dict[str, Any]) -> list[Edge]:
    """Return the edges between the boxes that are drawn."""
    constants = {op.name for op in trace.constants}
    edges = []
    for op in trace.ops:
        for which, (source, flow, local) in enumerate(zip(op.inputs, op.contributions, op.local, strict=True)):
            kind = "constant" if source in constants else "cut" if flow is None else "flow"
            label = "no gradient" if kind == "cut" else ""
            if kind == "flow" and local is not None:
                upstream, factor, back = (f"{each + 0:.4g}" for each in (op.gradient, local, flow))  # -0.0 + 0 is 0
                label = f"{upstream} x {f'({factor})' if factor.startswith('-') else factor} = {back}"
            if source in records:
                edges.append(Edge(source, op.name, which, label, kind))
    return edges


def _text(op: Any, label: str, weights: list[Any]) -> shapes.BoxText:
    """Return the text of a box: the name, the shape of a tensor, the weights of a layer, value and gradient."""
    lines = [] if op.type == "Constant" else [label]  # a scalar constant needs no name beside its value
    if op.shape:
        lines = [*(lines or ["constant"]), f"{list(op.shape)}, norms"]
    if weights:
        norms = [size for weight in weights if (size := weight.gradient_norm()) is not None]
        ends = dict.fromkeys(f"{end(norms):.2g}" for end in (min, max)) if norms else ["none"]
        some = f", {len(weights) - len(norms)} none" if 0 < len(norms) < len(weights) else ""
        lines.append(f"{len(weights)} weight{'s' if len(weights) > 1 else ''}: {' to '.join(ends)}{some}")
    value, gradient = op.numbers()
    return shapes.BoxText(lines, value, "" if op.type in CONSTANTS else gradient)


def _shades(records: list[Any]) -> Any:
    """Return the colour map of log10 of the norms of all gradients; None for a circuit of scalars."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    if not any(op.shape for op in records):
        return None
    logs = np.log10([size for op in records if (size := op.gradient_norm()) and size < np.inf] or [1.0])
    light = ListedColormap(matplotlib.colormaps["Oranges"](np.linspace(0, 0.65, 256)))  # black text can be read on it
    shades = ScalarMappable(Normalize(logs.min(), max(logs.max(), logs.min() + 1)), light)  # a power of ten or more
    shades.set_array(logs)
    return shades


def _look(op: Any, is_target: bool, shades: Any) -> dict[str, Any]:
    """Return the look of a box: by its type, or by its gradient if there are `shades` and it can have a gradient."""
    look = {"linewidth": 1.2, "edgecolor": "black", "facecolor": "white"}
    if shades is None or op.type in CONSTANTS:
        return look | {"facecolor": TARGET if is_target else FACES.get(op.type, "white")}
    look["linewidth"] = 2.0 if is_target or op.type == "Source" else 1.2
    size = op.gradient_norm()
    if size is None:
        return look | {"edgecolor": shapes.GREY, "linestyle": DASHED}
    if 0 < size < np.inf:
        return look | {"facecolor": shades.to_rgba(np.log10(size))}
    return look | {"edgecolor": "0.75", "hatch": ".." if size == 0 else "//"}  # light, as the hatch lies behind text


def _axes(ax: Any, title: str, place: dict, sizes: dict, routes: dict, shades: Any) -> tuple[Any, float]:
    """Return axes in units of the font size, with a colour bar where it says something, and the font size in points."""
    centres, halves = np.array([place[each] for each in sizes]), np.array(list(sizes.values())) / 2
    corners = np.concatenate([centres - halves, centres + halves, *map(np.array, routes.values())])
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
        inset.locator_params(nbins=4)
        inset.tick_params(labelsize=points * shapes.SMALL, length=2)
        inset.set_title("log10 of the gradient's L2 norm", fontsize=points * shapes.SMALL, loc="left", pad=points / 2)
    return ax, points


def _draw_edges(ax: Any, edges: list[Edge], place: dict, routes: dict, right: bool, points: float) -> list:
    """Draw an arrow for each edge, with its label."""
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.9}
    font: Any = {"fontsize": points * shapes.SMALL, "ha": "center", "va": "center", "zorder": 4, "bbox": paper}
    drawn = []
    for edge in edges:
        look = EDGES[edge.kind]
        label = ax.text(*place[edge], edge.label, color=look["color"], **font) if edge.label else None
        drawn.append((edge, shapes.draw_arrow(ax, routes[edge], look, right, points), label))
    return drawn
