"""The circuit that a `tapekit.Trace` describes: `plot_trace`.

Boxes show values forward and gradients backward, edges show what the chain rule multiplies.
"""

import io
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from tapekit.plots import shapes
from tapekit.plots.axes import axes_or_new
from tapekit.plots.labels import labels
from tapekit.plots.layout import layered

READABLE = 60  # boxes; of more, operations are grouped
POINTS = 9  # font size of a figure of our own
EDGES: dict[str, dict[str, Any]] = {
    "flow": {"color": shapes.BACKWARD, "linewidth": 1.2, "linestyle": "-"},
    "cut": {"color": shapes.CUT, "linewidth": 1.2, "linestyle": (0, (4, 3))},
    "constant": {"color": shapes.GREY, "linewidth": 0.8, "linestyle": "-"},
}
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

    trace: Any
    ax: Any
    boxes: dict[str, shapes.Box]
    edges: list[tuple[Edge, Any, Any]]  # with the arrow, and the label or None


def plot_trace(trace: Any, *, ax: Any = None, direction: str = "right", boxes: int = READABLE) -> Any:
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
        TypeError: `trace` is no `Trace`, or `ax` is no Axes.
        ValueError: another direction, or `boxes` is not a positive integer.

    Example:
        >>> import tapekit
        >>> ax = tapekit.plot_trace(tapekit.trace(lambda x, y, z: (x + y) * z, [-2.0, 5.0, -4.0]))
        >>> [text.get_text() for text in ax.texts if " x " in text.get_text()][-1]
        '1 x 3 = 3'
    """
    return draw("plot_trace", trace, ax, direction, boxes=boxes).ax


def trace_png(trace: Any) -> bytes:
    """Return the circuit as an image of 200 dots per inch; nothing if it has more boxes than can be read."""
    from matplotlib import pyplot as plt

    picture, png = draw("trace_png", trace, None, "right"), io.BytesIO()
    if len(picture.boxes) <= READABLE:
        picture.ax.figure.savefig(png, format="png", dpi=200)
    plt.close(picture.ax.figure)
    return png.getvalue()


def draw(where: str, trace: Any, ax: Any, direction: str, *, boxes: int = READABLE, shaded: bool = True) -> Picture:
    """Draw the circuit for the function `where`; `shaded` by the gradients, unless all of them are scalars."""
    if not hasattr(trace, "ops"):
        raise TypeError(f"{where}: a {type(trace).__name__} arrived. Give a Trace: {where}(tapekit.trace(fn, vars)).")
    if direction not in ("right", "down"):
        raise ValueError(f"{where}: direction is {direction!r}. It is 'right' or 'down'.")
    if type(boxes) is not int or boxes < 1:
        raise ValueError(f"{where}: boxes is {boxes!r}. A positive integer is needed. Write boxes=20.")
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
    others = dict.fromkeys(_unshaded(op) for op in records.values() if op.type not in CONSTANTS)
    note = "; ".join(["log10 of the gradient's L2 norm", *filter(None, others)])  # and the looks without a shade
    strip = (15 + shapes.width(note) * shapes.SMALL, 3.5) if shades else (0.0, 0.0)  # below the circuit
    ax, points, corner = _axes(ax, place, sizes, routes, strip)
    title = f"{short[trace.target.name]}: value | gradient"
    title += f" ({len(whole.ops)} operations in {len(trace.ops)} boxes)" if len(trace.ops) < len(whole.ops) else ""
    title += " (no scopes to fold; trace a part to see less)" if boxes < len(records) else ""
    ax.set_title(title, fontsize=max(points, 7), parse_math=False)
    colours = ("black", "black") if shades else (shapes.FORWARD, shapes.BACKWARD)
    drawn = {}
    for name, text in texts.items():
        look = _look(records[name], trace.target.name == name, shades)
        drawn[name] = shapes.draw_box(ax, text, place[name], look, colours, points)
    if shades:
        _draw_shades(ax, shades, note, corner, points * shapes.SMALL)
    lower = [0.0 if right else (room - shapes.LINE) / 2 for room in below]
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.9}
    font: Any = {"fontsize": points * shapes.SMALL, "ha": "center", "va": "center", "zorder": 4, "bbox": paper}
    arrows = []
    for edge, route, at in zip(edges, routes, _label_places(edges, routes, lower), strict=True):
        look = EDGES[edge.kind]
        label = ax.text(*at, edge.label, color=look["color"], **font) if edge.label else None
        arrows.append((edge, shapes.draw_arrow(ax, route, look, right, points), label))
    return Picture(trace, ax, drawn, arrows)


def _edges(trace: Any, records: dict[str, Any]) -> list[Edge]:
    """The edges between the boxes that are drawn."""
    constants = {op.name for op in trace.constants}
    edges = []
    for op in trace.ops:
        for which, (source, flow, local) in enumerate(zip(op.inputs, op.contributions, op.local, strict=True)):
            kind = "constant" if source in constants else "cut" if flow is None else "flow"
            label = "no gradient" if kind == "cut" else ""
            if kind == "flow" and local is not None:
                factor = shapes.number(local, ())
                factor = f"({factor})" if factor.startswith("-") else factor
                label = f"{shapes.number(op.gradient, ())} x {factor} = {shapes.number(flow, ())}"
            if source in records:
                edges.append(Edge(source, op.name, which, label, kind))
    return edges


def _text(op: Any, label: str, weights: list[Any]) -> shapes.BoxText:
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


def _shades(records: list[Any]) -> Any:
    """The colour map of log10 of the norms of all gradients; None if all of them are scalars."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    if all(op.shape == () for op in records if op.gradient is not None):
        return None
    norms = [shapes.norm(op.gradient) for op in records if not _unshaded(op)] or [1.0]
    low, high = np.log10([min(norms), max(norms)])
    light = ListedColormap(matplotlib.colormaps["Oranges"](np.linspace(0, 0.65, 256)))  # black text can be read on it
    return ScalarMappable(Normalize(low, max(high, low + 1)), light)  # less than a power of ten is no great difference


def _unshaded(op: Any) -> str:
    """Why the gradient of a record has no shade; "" if it has one."""
    none, zero, infinite = NO_SHADE
    size = None if op.gradient is None else shapes.norm(op.gradient)
    return none if size is None else zero if size == 0 else "" if size < np.inf else infinite


def _look(op: Any, is_target: bool, shades: Any) -> dict[str, Any]:
    """The look of a box: by its kind, or, of what can have a gradient, by the shade of its gradient."""
    if shades is None or op.type in CONSTANTS:
        face = TARGET if is_target else FACES.get(op.type, "white")
        return {"linewidth": 1.2, "facecolor": face, "edgecolor": "black"}
    edge = {"linewidth": 2.0 if is_target or op.type == "Source" else 1.2}
    if kind := _unshaded(op):
        return edge | {"facecolor": "white"} | NO_SHADE[kind]
    return edge | {"facecolor": shades.to_rgba(np.log10(shapes.norm(op.gradient))), "edgecolor": "black"}


def _draw_shades(ax: Any, shades: Any, note: str, corner: tuple, points: float) -> None:
    """A small colour bar at the lower left corner, and its note."""
    from matplotlib.ticker import MaxNLocator

    x, y = corner
    bar = ax.inset_axes((x + 1, y + 2.2, 12, 0.8), transform=ax.transData)
    ax.figure.colorbar(shades, cax=bar, orientation="horizontal", ticks=MaxNLocator(4))
    bar.tick_params(labelsize=points, length=2)
    ax.text(x + 13.7, y + 2.6, note, fontsize=points, va="center_baseline")


def _axes(ax: Any, place: dict, sizes: dict, routes: list, strip: tuple[float, float]) -> tuple[Any, float, tuple]:
    """Axes whose unit is the font size, the same in both directions; that size in points; the lower left corner.

    `strip` is the least width of the axes, and the height of the room below the circuit.
    """
    centres, halves = np.array(list(place.values())), np.array([sizes[name] for name in place]) / 2
    corners = np.concatenate([centres - halves, centres + halves, *map(np.array, routes)])
    low, high = corners.min(0) - 1.0, corners.max(0) + 1.0
    beside = max(0.0, strip[0] - (high - low)[0]) / 2
    low, high = low - np.array([beside, strip[1]]), high + np.array([beside, 0.0])
    inches = np.maximum((high - low) * POINTS / 72, [4.5, 1.0]) + np.array([0, 0.4])
    given, ax = ax, axes_or_new(ax, inches, layout=None)
    if given is None:
        ax.figure.subplots_adjust(0, 0, 1, 1 - 0.4 / inches[1])
    space = ax.get_window_extent().size * 72 / ax.figure.dpi
    points = float(min(space / (high - low)))
    middle, reach = (low + high) / 2, space / points / 2
    left, right = middle - reach, middle + reach
    ax.set(xlim=(left[0], right[0]), ylim=(left[1], right[1]))
    ax.set_axis_off()
    return ax, points, tuple(low)


def _label_places(edges: list[Edge], routes: list, lower: list[float]) -> list[tuple[float, float]]:
    """The middle of the last stretch of each edge, or `lower`, moved so that no two labels stand on each other."""
    middles = [np.mean(route[-2:], axis=0) for route in routes]
    found = [(x, y - low) for (x, y), low in zip(middles, lower, strict=True)]
    labelled = sorted((place for place, edge in enumerate(edges) if edge.label), key=lambda place: found[place][1])
    for count, place in enumerate(labelled):
        x, y = found[place]
        for below in labelled[:count]:
            wide = (shapes.width(edges[place].label) + shapes.width(edges[below].label)) * shapes.SMALL / 2 + 0.4
            if abs(x - found[below][0]) < wide and y - found[below][1] < shapes.LINE:
                y = found[below][1] + shapes.LINE
        found[place] = (x, y)
    return found
