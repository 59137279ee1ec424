"""The circuit that a `tapekit.Trace` describes.

- `plot_trace` draws it: values forward, gradients backward, on each edge what the chain rule multiplies.
- `animate_trace` plays the two passes as a film.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tapekit.plots.layout import layered

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.axes import Axes
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.text import Text

    from tapekit.tracing import Op, Trace

READABLE = 60  # boxes; more are folded by scope
POINTS = 9  # font size of a figure of our own
SMALL = 0.8  # edge labels, relative to the boxes' text
LINE = 1.15  # from one of them to the next
# Okabe and Ito's colours, which colour-blind readers tell apart; the faces differ in lightness, too.
FORWARD, BACKWARD, CUT, GREY = "#0072B2", "#B34700", "#AA3377", "#8C8C8C"
COLOURS = {"flow": BACKWARD, "cut": CUT, "constant": GREY}
FACES = {"Source": "#FFF2B3", "Constant": "#F4F4F4", "Variable": "#F4F4F4"}
TARGET = "#C9E4F5"


class _Edge(NamedTuple):
    source: str
    op: str
    which: int  # of the inputs of op
    label: str
    kind: str  # "flow", "cut" or "constant"


class _Picture(NamedTuple):
    trace: "Trace"
    ax: "Axes"
    boxes: "dict[str, FancyBboxPatch]"
    values: "dict[str, Text]"
    gradients: "dict[str, Text]"
    edges: "list[tuple[_Edge, FancyArrowPatch, Text | None]]"


def plot_trace(trace: "Trace", *, ax: "Axes | None" = None, direction: str = "right") -> "Axes":
    """Draw a trace as a circuit: a box for each operation with `value | gradient`, an edge for each input.

    On each edge between scalars stands `upstream x local = contribution`; a tensor shows its shape, and the L2 norms of
    its value and gradient. An edge along which no gradient flows back is dashed and says so. More than 60 operations
    are folded by scope.

    Args:
        trace: what `tapekit.trace` gave.
        ax: where to draw; None makes a figure of the size that the circuit needs.
        direction: `"right"` or `"down"`, from the sources to the target.

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
    return _draw("plot_trace", trace, ax, direction).ax


def animate_trace(trace: "Trace", *, interval: int = 600) -> "FuncAnimation":
    """Play backpropagation: boxes light up with their values, then edges with what flows back and adds up at forks.

    Args:
        trace: a small one, such as a circuit of scalars.
        interval: milliseconds between two steps.

    Returns:
        The animation: `.to_jshtml()` steps through it in a notebook, `.save("circuit.gif", writer="pillow")` keeps it.

    Raises:
        TypeError: `trace` is no `Trace`.

    Example:
        >>> import tapekit
        >>> film = tapekit.animate_trace(tapekit.trace(lambda x: x * x, 3.0))
        >>> "<img" in film.to_jshtml()
        True
    """
    from matplotlib.animation import FuncAnimation

    picture = _draw("animate_trace", trace, None, "right")
    show, frames = _film(picture)
    return FuncAnimation(picture.ax.figure, show, frames=frames, interval=interval, blit=False)  # type: ignore[arg-type]


def _film(picture: _Picture) -> tuple[Callable[[int], list], int]:
    """What draws a frame, in any order, and how many there are."""
    trace = picture.trace
    order = {op.name: step for step, op in enumerate((*trace.sources, *trace.constants, *trace.ops))}
    position = {op.name: step for step, op in enumerate(trace.ops)}
    back = sorted(range(len(picture.edges)), key=lambda edge: -position[picture.edges[edge][0].op])
    back = [edge for edge in back if picture.edges[edge][0].kind != "constant"]
    forward = len(trace.ops) + 1  # the leaves, then the operations one by one
    leaves = len(order) - len(trace.ops)

    def show(frame: int) -> list:
        lit = leaves + frame
        arrived: dict[str, list] = defaultdict(list)
        if frame >= forward:
            arrived[trace.target.name].append(trace.target.gradient)
        for step, number in enumerate(back):
            edge, arrow, label = picture.edges[number]
            passed = frame > forward + step
            arrow.set_color(COLOURS[edge.kind] if passed else GREY)
            arrow.set_linewidth(2.2 if frame == forward + step + 1 else 1.2)
            if label:
                label.set_visible(passed)
            if passed:
                arrived[edge.source].append(trace[edge.op].contributions[edge.which])
        for name, box in picture.boxes.items():
            box.set_alpha(1.0 if order[name] < lit else 0.25)
            box.set_linewidth(2.4 if order[name] == lit - 1 and 0 < frame < forward else 1.2)
            picture.values[name].set_visible(order[name] < lit)
            picture.gradients[name].set_text(_sum(trace[name], arrived[name]))
        return []

    return show, forward + len(back) + 3  # the end stays for a moment


def _sum(op: "Op", flows: list) -> str:
    """The gradient of `op` after `flows` have arrived."""
    flows = [flow for flow in flows if flow is not None]
    if not flows:
        return ""
    if len(flows) > 1 and np.shape(flows[0]) != op.shape:  # norms do not add up
        return _number(op.gradient, op.shape)
    with np.errstate(all="ignore"):  # inf - inf is a nan to show
        return _number(sum(flows[1:], flows[0]), op.shape)


def _draw(where: str, trace: "Trace", ax: "Axes | None", direction: str) -> _Picture:
    if not hasattr(trace, "ops"):
        raise TypeError(f"{where}: a {type(trace).__name__} arrived. Give a Trace: {where}(tapekit.trace(fn, vars)).")
    if direction not in ("right", "down"):
        raise ValueError(f"{where}: direction is {direction!r}. It is 'right' or 'down'.")
    notes = []
    if len(trace.ops) > READABLE and not trace.folded:
        folded = trace.fold()
        smaller = len(folded.ops) < len(trace.ops)
        how = f"folded by scope to {len(folded.ops)}" if smaller else "in no scope to fold by"
        notes.append(f"{len(trace.ops)} operations {how}")
        trace = folded if smaller else trace
    records = {op.name: op for op in (*trace.sources, *trace.constants, *trace.ops)}
    if len(records) > READABLE and (trace.folded or len(trace.sources) > READABLE):
        left_out = {op.name for op in trace.sources} - {trace.target.name}
        records = {name: op for name, op in records.items() if name not in left_out}
        notes.append(f"{len(left_out)} sources not drawn")
    title = f"{_short(trace.target.name)}: value | gradient" + (f" ({', '.join(notes)})" if notes else "")
    edges = [_edge(trace, op, index) for op in trace.ops for index, name in enumerate(op.inputs) if name in records]
    lines = {name: _lines(op) for name, op in records.items()}
    sizes = {name: (max(map(_width, text)) + 1.2, 1.35 * len(text) + 0.6) for name, text in lines.items()}
    right = direction == "right"
    bundle = Counter(edge[:2] for edge in edges if edge.label)  # edges from one box to one other
    gaps = [_width(edge.label) * SMALL if right else bundle[edge[:2]] * LINE for edge in edges]
    place, routes = layered([(edge.source, edge.op) for edge in edges], gaps, sizes, right)
    ax, points = _axes(ax, place, sizes, routes)
    ax.set_title(title, fontsize=max(points, 7), parse_math=False)
    boxes, values, gradients = {}, {}, {}
    for name, text in lines.items():
        face = TARGET if name == trace.target.name else FACES.get(records[name].type, "#FFFFFF")
        boxes[name], values[name], gradients[name] = _box(ax, text, place[name], sizes[name], face, points)
    lower = [0.0 if right else (bundle[edge[:2]] - 1) * LINE / 2 for edge in edges]
    labels = _label_places(edges, routes, lower)
    drawn = [
        (edge, *_arrow(ax, edge, route, at, right, points))
        for edge, route, at in zip(edges, routes, labels, strict=True)
    ]
    return _Picture(trace, ax, boxes, values, gradients, drawn)


def _edge(trace: "Trace", op: "Op", index: int) -> _Edge:
    source, flow, local = op.inputs[index], op.contributions[index], op.local[index]
    if any(source == constant.name for constant in trace.constants):
        return _Edge(source, op.name, index, "", "constant")
    if flow is None:
        return _Edge(source, op.name, index, "no gradient", "cut")
    factor = _number(local, ()) if local is not None else ""
    factor = f"({factor})" if factor.startswith("-") else factor
    product = f"{_number(op.gradient, ())} x {factor} = {_number(flow, ())}" if factor else ""
    return _Edge(source, op.name, index, product, "flow")


def _lines(op: "Op") -> list[str]:
    """The text in a box, the numbers last."""
    value = _number(op.value, op.shape)
    size = [f"{list(op.shape)}, norms"] if op.shape else []
    name = [_short(op.name)] if op.type != "Constant" else ["constant"] if op.shape else []
    gradient = _number(op.gradient, op.shape) if op.type not in ("Constant", "Variable") else ""
    return [*name, *size, f"{value} | {gradient}"]


def _short(name: str) -> str:
    own = name.rpartition("/")[2]
    return own if len(own) <= 24 else f"{own[:11]}…{own[-12:]}"


def _number(value: Any, shape: tuple[int, ...]) -> str:
    """A scalar with four digits, the L2 norm of a tensor with three."""
    if value is None:
        return "none"
    value = np.asarray(value)
    if value.dtype.kind in "SUO":
        return "text"
    if not shape and value.dtype.kind in "iub":
        return str(value)
    value = value.astype(np.complex128 if value.dtype.kind == "c" else np.float64)  # no square overflows
    if not shape:
        return f"{value:.4g}"
    return f"{value if value.ndim == 0 else np.linalg.norm(value.ravel()):.3g}"


@cache
def _width(text: str) -> float:
    """Of `text` at font size 1."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return text_to_path.get_text_width_height_descent(text, FontProperties(size=1), ismath=False)[0]


def _axes(ax: "Axes | None", place: dict, sizes: dict, routes: list) -> tuple["Axes", float]:
    """Axes whose unit is the font size, the same in both directions, and that size in points."""
    from matplotlib import pyplot as plt

    centres, halves = np.array(list(place.values())), np.array([sizes[name] for name in place]) / 2
    corners = np.concatenate([centres - halves, centres + halves, *map(np.array, routes)])
    low, high = corners.min(0) - 1.0, corners.max(0) + 1.0
    width, height = high - low
    if ax is None:
        inches = np.maximum(np.array([width, height]) * POINTS / 72, [4.5, 1.0])
        figure, ax = plt.subplots(figsize=(inches[0], inches[1] + 0.4))
        figure.subplots_adjust(0, 0, 1, 1 - 0.4 / (inches[1] + 0.4))
    window = ax.get_window_extent()
    room = np.array([window.width, window.height]) * 72 / ax.figure.dpi
    points = float(min(room / (width, height)))
    middle, reach = (low + high) / 2, room / points / 2
    ax.set_xlim(middle[0] - reach[0], middle[0] + reach[0])
    ax.set_ylim(middle[1] - reach[1], middle[1] + reach[1])
    ax.set_axis_off()
    return ax, points


def _box(ax: "Axes", text: list[str], at: tuple, size: tuple, face: str, points: float) -> tuple:
    """The box, its value and its gradient."""
    from matplotlib.patches import FancyBboxPatch

    (x, y), (width, height) = at, size
    frame: dict[str, Any] = {
        "boxstyle": "round,pad=0,rounding_size=0.4",
        "linewidth": 1.2,
        "edgecolor": "black",
        "zorder": 2,
    }
    box = FancyBboxPatch((x - width / 2, y - height / 2), width, height, facecolor=face, **frame)
    ax.add_patch(box)
    rows = y + 1.35 * (np.arange(len(text))[::-1] - (len(text) - 1) / 2)
    style: dict[str, Any] = {"fontsize": points, "va": "center_baseline", "zorder": 3, "parse_math": False}
    for line, row in zip(text[:-1], rows[:-1], strict=True):
        ax.text(x, row, line, ha="center", **style)
    value, gradient = text[-1].split(" | ")
    if not gradient:
        return box, ax.text(x, rows[-1], value, ha="center", color=FORWARD, **style), ax.text(x, rows[-1], "", **style)
    bar = x + (_width(value) - _width(gradient)) / 2
    ax.text(bar, rows[-1], "|", ha="center", color=GREY, **style)
    forward = ax.text(bar - 0.35, rows[-1], value, ha="right", color=FORWARD, **style)
    return box, forward, ax.text(bar + 0.35, rows[-1], gradient, ha="left", color=BACKWARD, **style)


def _label_places(edges: list[_Edge], routes: list, lower: list[float]) -> list[tuple[float, float]]:
    """The middle of the last stretch of each edge, or `lower`, moved so that no two labels stand on each other."""
    ends = [(route[-2], route[-1], low) for route, low in zip(routes, lower, strict=True)]
    found = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2 - low) for a, b, low in ends]
    labelled = sorted((number for number, edge in enumerate(edges) if edge.label), key=lambda number: found[number][1])
    for place, number in enumerate(labelled):
        x, y = found[number]
        for below in labelled[:place]:
            wide = (_width(edges[number].label) + _width(edges[below].label)) * SMALL / 2 + 0.4
            if abs(x - found[below][0]) < wide and y - found[below][1] < LINE:
                y = found[below][1] + LINE
        found[number] = (x, y)
    return found


def _arrow(ax: "Axes", edge: _Edge, route: list, at: tuple[float, float], right: bool, points: float) -> tuple:
    """The arrow along `route`, and its label."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    steps = [route[0]]
    for a, b in pairwise(route):  # an S-curve, which is straight along an axis
        middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
        steps += [(middle[0], a[1]), (middle[0], b[1])] if right else [(a[0], middle[1]), (b[0], middle[1])]
        steps.append(b)
    path = Path(steps, [Path.MOVETO] + [Path.CURVE4] * (len(steps) - 1))
    colour, width = COLOURS[edge.kind], 0.8 if edge.kind == "constant" else 1.2
    arrow = FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=points, color=colour, linewidth=width, zorder=1)
    arrow.set_linestyle((0, (4, 3)) if edge.kind == "cut" else "-")
    ax.add_patch(arrow)
    if not edge.label:
        return arrow, None
    style: dict[str, Any] = {"fontsize": points * SMALL, "ha": "center", "va": "center", "color": colour, "zorder": 4}
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.9}
    return arrow, ax.text(*at, edge.label, bbox=paper, **style)
