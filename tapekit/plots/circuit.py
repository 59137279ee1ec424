"""The circuit that a `tapekit.Trace` describes: `plot_trace`.

Boxes show values forward and gradients backward, edges show what the chain rule multiplies.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tapekit.plots.boxes import (
    BACKWARD,
    CUT,
    FORWARD,
    GREY,
    LINE,
    SMALL,
    Box,
    BoxText,
    draw_arrow,
    draw_box,
    draw_label,
    norm,
    number,
    width,
)
from tapekit.plots.labels import labels
from tapekit.plots.layout import layered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.text import Text

    from tapekit.tracing import Op, Trace

READABLE = 60  # boxes; of more, operations are grouped
POINTS = 9  # font size of a figure of our own
EDGES = {"flow": BACKWARD, "cut": CUT, "constant": GREY}
FACES = {"Source": "#FFF2B3", "Constant": "#F4F4F4", "Variable": "#F4F4F4"}  # different in lightness, too
TARGET = "#C9E4F5"
DARKEST = 0.65  # of the colour map, on which black text can be read


class Edge(NamedTuple):
    """What flows back from `op` along its input number `which` to `source`."""

    source: str
    op: str
    which: int
    label: str
    kind: str  # "flow", "cut" or "constant"


class Picture(NamedTuple):
    """A circuit on its axes."""

    trace: "Trace"
    ax: "Axes"
    boxes: dict[str, Box]
    edges: "list[tuple[Edge, FancyArrowPatch, Text | None]]"


class Scale(NamedTuple):
    """The shades of boxes: log10 of the norm of the gradient that arrives, from `low` to `high`."""

    low: float
    high: float

    def look(self, gradient: Any) -> dict[str, Any]:
        """Return the look of a box at which `gradient` arrives."""
        import matplotlib

        if gradient is None:
            return {"facecolor": "white", "edgecolor": GREY, "linestyle": (0, (4, 3))}
        size = norm(gradient)
        if not np.isfinite(size):
            return {"facecolor": "white", "edgecolor": CUT, "hatch": "//"}
        if size == 0:
            return {"facecolor": "white", "edgecolor": GREY, "hatch": ".."}
        share = (np.log10(size) - self.low) / (self.high - self.low)
        return {"facecolor": matplotlib.colormaps["Oranges"](DARKEST * share), "edgecolor": "black"}


def plot_trace(trace: "Trace", *, ax: "Axes | None" = None, direction: str = "right", boxes: int = READABLE) -> "Axes":
    """Draw a trace as a circuit: a box for each operation with `value | gradient`, an edge for each input.

    On each edge between scalars stands `upstream x local = contribution`. A tensor shows its shape, and the L2 norms of
    its value and gradient; its box is the darker, the larger log10 of the gradient's norm is. An edge along which no
    gradient flows back is dashed and says so. The box of a layer holds the weights that only this layer uses, with the
    range of their gradients' norms.

    Args:
        trace: what `tapekit.trace` returned.
        ax: where to draw; None makes a figure of the size that the circuit needs.
        direction: `"right"` or `"down"`, from the sources to the target.
        boxes: the most boxes to draw. Of a trace with more, operations are grouped: by scope at the largest depth at
            which there are no more, then by the names of neighbouring layers. Give a smaller number to see less.

    Returns:
        The Axes.

    Raises:
        TypeError: `trace` is no `Trace`.
        ValueError: another direction.

    Example:
        >>> import tapekit
        >>> ax = tapekit.plot_trace(tapekit.trace(lambda x, y, z: (x + y) * z, [-2.0, 5.0, -4.0]))
        >>> [text.get_text() for text in ax.texts if " x " in text.get_text()][-1]
        '1 x 3 = 3'
    """
    return draw("plot_trace", trace, ax, direction, boxes=boxes).ax


def draw(
    where: str, trace: "Trace", ax: "Axes | None", direction: str, *, boxes: int = READABLE, shaded: bool = True
) -> Picture:
    """Draw the circuit for the function `where`; `shaded` by the gradients, unless all of them are scalars."""
    if not hasattr(trace, "ops"):
        raise TypeError(f"{where}: a {type(trace).__name__} arrived. Give a Trace: {where}(tapekit.trace(fn, vars)).")
    if direction not in ("right", "down"):
        raise ValueError(f"{where}: direction is {direction!r}. It is 'right' or 'down'.")
    whole, (trace, inside) = trace, trace.fold_to(boxes)
    held = {source.name for sources in inside.values() for source in sources}
    records = {op.name: op for op in (*trace.sources, *trace.constants, *trace.ops) if op.name not in held}
    short = dict(zip(records, labels(list(records), most=24, last=1, shortest=True), strict=True))
    texts = {name: _text(op, short[name], inside.get(name, [])) for name, op in records.items()}
    edges = _edges(trace, records)
    right = direction == "right"
    bundle = Counter((edge.source, edge.op) for edge in edges if edge.label)  # edges from one box to one other
    below = [bundle[edge.source, edge.op] * LINE for edge in edges]
    gaps = [width(edge.label) * SMALL for edge in edges] if right else below
    sizes = {name: text.size() for name, text in texts.items()}
    place, routes = layered([(edge.source, edge.op) for edge in edges], gaps, sizes, right)

    scale = _scale(list(records.values())) if shaded else None
    ax, points, corner = _axes(ax, place, sizes, routes, room=3.5 if scale else 0.0)
    ax.set_title(_title(whole, trace, short, boxes < len(records)), fontsize=max(points, 7), parse_math=False)
    colours = ("black", "black") if scale else (FORWARD, BACKWARD)
    drawn = {}
    for name, text in texts.items():
        look = _look(records[name], trace.target.name == name, scale)
        drawn[name] = draw_box(ax, text, place[name], look, colours, points)
    if scale:
        _draw_scale(ax, scale, corner, points)
    lower = [0.0 if right else (room - LINE) / 2 for room in below]
    arrows = []
    for edge, route, at in zip(edges, routes, _label_places(edges, routes, lower), strict=True):
        dashes = (0, (4, 3)) if edge.kind == "cut" else "-"
        look = {"color": EDGES[edge.kind], "linewidth": 0.8 if edge.kind == "constant" else 1.2, "linestyle": dashes}
        arrow = draw_arrow(ax, route, look, right, points)
        arrows.append((edge, arrow, draw_label(ax, edge.label, at, EDGES[edge.kind], points) if edge.label else None))
    return Picture(trace, ax, drawn, arrows)


def _edges(trace: "Trace", records: dict[str, "Op"]) -> list[Edge]:
    """The edges between the boxes that are drawn."""
    constants = {op.name for op in trace.constants}
    edges = []
    for op in trace.ops:
        for which, (source, flow, local) in enumerate(zip(op.inputs, op.contributions, op.local, strict=True)):
            if source in constants:
                edges.append(Edge(source, op.name, which, "", "constant"))
            elif source in records and flow is None:
                edges.append(Edge(source, op.name, which, "no gradient", "cut"))
            elif source in records:
                factor = "" if local is None else number(local, ())
                factor = f"({factor})" if factor.startswith("-") else factor
                product = f"{number(op.gradient, ())} x {factor} = {number(flow, ())}" if factor else ""
                edges.append(Edge(source, op.name, which, product, "flow"))
    return edges


def _text(op: "Op", label: str, weights: list["Op"]) -> BoxText:
    """The text of a box: the name, the shape of a tensor, the weights of a layer, value and gradient."""
    lines = ["constant"] if op.type == "Constant" and op.shape else [] if op.type == "Constant" else [label]
    lines += [f"{list(op.shape)}, norms"] if op.shape else []
    if weights:
        norms = [norm(weight.gradient) for weight in weights if weight.gradient is not None]
        spread = sorted({f"{each:.2g}": each for each in norms}.items(), key=lambda item: item[1])
        numbers = " to ".join(dict.fromkeys([spread[0][0], spread[-1][0]])) if spread else "none"
        some = f", {len(weights) - len(norms)} none" if 0 < len(norms) < len(weights) else ""
        lines.append(f"{len(weights)} weight{'s' if len(weights) > 1 else ''}: {numbers}{some}")
    gradient = "" if op.type in ("Constant", "Variable") else number(op.gradient, op.shape)
    return BoxText(lines, number(op.value, op.shape), gradient)


def _title(whole: "Trace", trace: "Trace", short: dict[str, str], crowded: bool) -> str:
    """What the numbers are, and how many operations each box may stand for."""
    what = f"{short[trace.target.name]}: value | gradient"
    if len(trace.ops) < len(whole.ops):
        what += f" ({len(whole.ops)} operations in {len(trace.ops)} boxes)"
    return what + (" (no scopes to fold; trace a part to see less)" if crowded else "")


def _scale(records: list["Op"]) -> Scale | None:
    """The shades for the gradients of a trace with tensors."""
    if all(op.shape == () for op in records if op.gradient is not None):
        return None
    norms = np.array([norm(op.gradient) for op in records if op.gradient is not None])
    logs = np.log10(norms[np.isfinite(norms) & (norms > 0)])
    low, high = (float(logs.min()), float(logs.max())) if len(logs) else (0.0, 0.0)
    return Scale(low, max(high, low + 1))  # less than a power of ten is not spread over all shades


def _look(op: "Op", is_target: bool, scale: Scale | None) -> dict[str, Any]:
    """The look of a box: by its kind, or, of what can have a gradient, by the shade of its gradient."""
    if scale and op.type not in ("Constant", "Variable"):
        return {"linewidth": 2.0 if is_target or op.type == "Source" else 1.2} | scale.look(op.gradient)
    face = TARGET if is_target else FACES.get(op.type, "#FFFFFF")
    return {"linewidth": 1.2, "facecolor": face, "edgecolor": "black"}


def _draw_scale(ax: "Axes", scale: Scale, corner: tuple[float, float], points: float) -> None:
    """A small colour bar at the lower left corner."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    shades = ListedColormap(matplotlib.colormaps["Oranges"](np.linspace(0, DARKEST, 256)))
    x, y = corner
    bar = ax.inset_axes((x + 1, y + 2.2, 12, 0.8), transform=ax.transData)
    mappable = ScalarMappable(Normalize(scale.low, scale.high), shades)
    ax.figure.colorbar(mappable, cax=bar, orientation="horizontal").ax.tick_params(labelsize=points * SMALL, length=2)
    note = "log10 of the gradient's L2 norm; None dashed, 0 dotted, not finite hatched"
    ax.text(x + 13.7, y + 2.6, note, fontsize=points * SMALL, va="center_baseline")


def _axes(
    ax: "Axes | None", place: dict, sizes: dict, routes: list, room: float
) -> tuple["Axes", float, tuple[float, float]]:
    """Axes whose unit is the font size, the same in both directions; that size in points; the lower left corner.

    `room` is the height of a strip below the circuit.
    """
    from matplotlib import pyplot as plt

    centres, halves = np.array(list(place.values())), np.array([sizes[name] for name in place]) / 2
    corners = np.concatenate([centres - halves, centres + halves, *map(np.array, routes)])
    low, high = corners.min(0) - 1.0, corners.max(0) + 1.0
    low[1] -= room
    high[0] = max(high[0], low[0] + (48.0 if room else 0.0))
    size = high - low
    if ax is None:
        inches = np.maximum(size * POINTS / 72, [4.5, 1.0])
        figure, ax = plt.subplots(figsize=(inches[0], inches[1] + 0.4))
        figure.subplots_adjust(0, 0, 1, 1 - 0.4 / (inches[1] + 0.4))
    window = ax.get_window_extent()
    space = np.array([window.width, window.height]) * 72 / ax.figure.dpi
    points = float(min(space / size))
    middle, reach = (low + high) / 2, space / points / 2
    ax.set_xlim(middle[0] - reach[0], middle[0] + reach[0])
    ax.set_ylim(middle[1] - reach[1], middle[1] + reach[1])
    ax.set_axis_off()
    return ax, points, (low[0], low[1])


def _label_places(edges: list[Edge], routes: list, lower: list[float]) -> list[tuple[float, float]]:
    """The middle of the last stretch of each edge, or `lower`, moved so that no two labels stand on each other."""
    ends = [(route[-2], route[-1], low) for route, low in zip(routes, lower, strict=True)]
    found = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2 - low) for a, b, low in ends]
    labelled = sorted((place for place, edge in enumerate(edges) if edge.label), key=lambda place: found[place][1])
    for count, place in enumerate(labelled):
        x, y = found[place]
        for below in labelled[:count]:
            wide = (width(edges[place].label) + width(edges[below].label)) * SMALL / 2 + 0.4
            if abs(x - found[below][0]) < wide and y - found[below][1] < LINE:
                y = found[below][1] + LINE
        found[place] = (x, y)
    return found
