"""The circuit that a `tapekit.Trace` describes: `plot_trace`.

Boxes show values forward and gradients backward, edges show what the chain rule multiplies.
"""

import io
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tapekit.plots import shapes
from tapekit.plots.labels import labels
from tapekit.plots.layout import layered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.text import Text

    from tapekit.tracing import Op, Trace

READABLE = 60  # boxes; of more, operations are grouped
POINTS = 9  # font size of a figure of our own
EDGES = {"flow": shapes.BACKWARD, "cut": shapes.CUT, "constant": shapes.GREY}
CONSTANTS = ("Constant", "Variable")  # types of records that have no gradient
FACES = {"Source": "#FFF2B3", **dict.fromkeys(CONSTANTS, "#F4F4F4")}  # different in lightness, too
TARGET = "#C9E4F5"
NO_SHADE: dict[str, dict[str, Any]] = {
    "None dashed": {"edgecolor": shapes.GREY, "linestyle": (0, (4, 3))},
    "0 dotted": {"edgecolor": "0.75", "hatch": ".."},  # light, as the hatch lies behind text
    "not finite hatched": {"edgecolor": "#D9A3C4", "hatch": "//"},
}


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
    boxes: dict[str, shapes.Box]
    edges: "list[tuple[Edge, FancyArrowPatch, Text | None]]"


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


def trace_png(trace: "Trace") -> bytes:
    """Return the circuit as an image of 200 dots per inch; nothing if it has more boxes than can be read."""
    from matplotlib import pyplot as plt

    picture, png = draw("trace_png", trace, None, "right"), io.BytesIO()
    figure: Any = picture.ax.figure
    if len(picture.boxes) <= READABLE:
        figure.savefig(png, format="png", dpi=200)
    plt.close(figure)
    return png.getvalue()


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
    short = dict(zip(records, labels(list(records), most=24, shortest=True), strict=True))
    texts = {name: _text(op, short[name], inside.get(name, [])) for name, op in records.items()}
    edges = _edges(trace, records)
    right = direction == "right"
    bundle = Counter((edge.source, edge.op) for edge in edges if edge.label)  # edges from one box to one other
    below = [bundle[edge.source, edge.op] * shapes.LINE for edge in edges]
    gaps = [shapes.width(edge.label) * shapes.SMALL for edge in edges] if right else below
    sizes = {name: text.size() for name, text in texts.items()}
    place, routes = layered([(edge.source, edge.op) for edge in edges], gaps, sizes, right)

    shades = _shades(list(records.values())) if shaded else None
    note = _note(list(records.values())) if shades else ""
    strip = (15 + shapes.width(note) * shapes.SMALL, 3.5) if shades else (0.0, 0.0)
    ax, points, corner = _axes(ax, place, sizes, routes, strip)
    ax.set_title(_title(whole, trace, short, boxes < len(records)), fontsize=max(points, 7), parse_math=False)
    colours = ("black", "black") if shades else (shapes.FORWARD, shapes.BACKWARD)
    drawn = {}
    for name, text in texts.items():
        look = _look(records[name], trace.target.name == name, shades)
        drawn[name] = shapes.draw_box(ax, text, place[name], look, colours, points)
    if shades:
        _draw_shades(ax, shades, note, corner, points)
    lower = [0.0 if right else (room - shapes.LINE) / 2 for room in below]
    arrows = []
    for edge, route, at in zip(edges, routes, _label_places(edges, routes, lower), strict=True):
        dashes = (0, (4, 3)) if edge.kind == "cut" else "-"
        colour = EDGES[edge.kind]
        look = {"color": colour, "linewidth": 0.8 if edge.kind == "constant" else 1.2, "linestyle": dashes}
        label = shapes.draw_label(ax, edge.label, at, colour, points) if edge.label else None
        arrows.append((edge, shapes.draw_arrow(ax, route, look, right, points), label))
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
                factor = "" if local is None else shapes.number(local, ())
                factor = f"({factor})" if factor.startswith("-") else factor
                product = f"{shapes.number(op.gradient, ())} x {factor} = {shapes.number(flow, ())}" if factor else ""
                edges.append(Edge(source, op.name, which, product, "flow"))
    return edges


def _text(op: "Op", label: str, weights: list["Op"]) -> shapes.BoxText:
    """The text of a box: the name, the shape of a tensor, the weights of a layer, value and gradient."""
    lines = ["constant"] if op.type == "Constant" and op.shape else [] if op.type == "Constant" else [label]
    lines += [f"{list(op.shape)}, norms"] if op.shape else []
    if weights:
        norms = [shapes.norm(weight.gradient) for weight in weights if weight.gradient is not None]
        ends = dict.fromkeys(f"{end(norms):.2g}" for end in (min, max)) if norms else ["none"]
        some = f", {len(weights) - len(norms)} none" if 0 < len(norms) < len(weights) else ""
        lines.append(f"{len(weights)} weight{'s' if len(weights) > 1 else ''}: {' to '.join(ends)}{some}")
    gradient = "" if op.type in CONSTANTS else shapes.number(op.gradient, op.shape)
    return shapes.BoxText(lines, shapes.number(op.value, op.shape), gradient)


def _title(whole: "Trace", trace: "Trace", short: dict[str, str], crowded: bool) -> str:
    """What the numbers are, and how many operations each box may stand for."""
    what = f"{short[trace.target.name]}: value | gradient"
    if len(trace.ops) < len(whole.ops):
        what += f" ({len(whole.ops)} operations in {len(trace.ops)} boxes)"
    return what + (" (no scopes to fold; trace a part to see less)" if crowded else "")


def _shades(records: list["Op"]) -> "ScalarMappable | None":
    """The colour map of log10 of the norms of all gradients; None if all of them are scalars."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    if all(op.shape == () for op in records if op.gradient is not None):
        return None
    norms = np.array([shapes.norm(op.gradient) for op in records if not _unshaded(op)])
    low, high = np.log10([norms.min(), norms.max()]) if len(norms) else (0.0, 0.0)
    light = ListedColormap(matplotlib.colormaps["Oranges"](np.linspace(0, 0.65, 256)))  # black text can be read on it
    return ScalarMappable(Normalize(low, max(high, low + 1)), light)  # less than a power of ten is no great difference


def _unshaded(op: "Op") -> str:
    """Why the gradient of a record has no shade; "" if it has one."""
    none, zero, infinite = NO_SHADE
    if op.gradient is None:
        return none
    size = shapes.norm(op.gradient)
    return "" if 0 < size < np.inf else zero if size == 0 else infinite


def _look(op: "Op", is_target: bool, shades: "ScalarMappable | None") -> dict[str, Any]:
    """The look of a box: by its kind, or, of what can have a gradient, by the shade of its gradient."""
    if shades is None or op.type in CONSTANTS:
        face = TARGET if is_target else FACES.get(op.type, "#FFFFFF")
        return {"linewidth": 1.2, "facecolor": face, "edgecolor": "black"}
    edge = {"linewidth": 2.0 if is_target or op.type == "Source" else 1.2}
    if kind := _unshaded(op):
        return edge | {"facecolor": "white"} | NO_SHADE[kind]
    return edge | {"facecolor": shades.to_rgba(np.log10(shapes.norm(op.gradient))), "edgecolor": "black"}


def _note(records: list["Op"]) -> str:
    """What the shades mean, and the looks without a shade that occur."""
    others = dict.fromkeys(_unshaded(op) for op in records if op.type not in CONSTANTS and _unshaded(op))
    return "; ".join(["log10 of the gradient's L2 norm", *others])


def _draw_shades(ax: "Axes", shades: "ScalarMappable", note: str, corner: tuple, points: float) -> None:
    """A small colour bar at the lower left corner, and its note."""
    from matplotlib.ticker import MaxNLocator

    x, y = corner
    bar = ax.inset_axes((x + 1, y + 2.2, 12, 0.8), transform=ax.transData)
    colorbar = ax.figure.colorbar(shades, cax=bar, orientation="horizontal", ticks=MaxNLocator(4))
    colorbar.ax.tick_params(labelsize=points * shapes.SMALL, length=2)
    ax.text(x + 13.7, y + 2.6, note, fontsize=points * shapes.SMALL, va="center_baseline")


def _axes(
    ax: "Axes | None", place: dict, sizes: dict, routes: list, strip: tuple[float, float]
) -> tuple["Axes", float, tuple[float, float]]:
    """Axes whose unit is the font size, the same in both directions; that size in points; the lower left corner.

    `strip` is the least width of the axes, and the height of the room below the circuit.
    """
    from matplotlib import pyplot as plt

    centres, halves = np.array(list(place.values())), np.array([sizes[name] for name in place]) / 2
    corners = np.concatenate([centres - halves, centres + halves, *map(np.array, routes)])
    low, high = corners.min(0) - 1.0, corners.max(0) + 1.0
    beside = max(0.0, strip[0] - (high - low)[0]) / 2
    low, high = low - np.array([beside, strip[1]]), high + np.array([beside, 0.0])
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
            wide = (shapes.width(edges[place].label) + shapes.width(edges[below].label)) * shapes.SMALL / 2 + 0.4
            if abs(x - found[below][0]) < wide and y - found[below][1] < shapes.LINE:
                y = found[below][1] + shapes.LINE
        found[place] = (x, y)
    return found
