"""One box and one edge of a circuit, with their text: `Box`, `Edge`. The unit of length is the font size."""

from functools import cache
from typing import Any

ROW = 1.35  # the distance between two lines of text
SMALL = 0.8  # the size of edge labels, relative to the text in boxes
FORWARD, BACKWARD, GREY = "#0072B2", "#B34700", "#8C8C8C"  # colour-blind readers tell them apart
DASHED = (0, (4, 3))
FLOW: dict[str, Any] = {"color": BACKWARD, "linewidth": 1.2, "linestyle": "-"}
CUT: dict[str, Any] = {"color": "#AA3377", "linewidth": 1.2, "linestyle": DASHED}
CONSTANT: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "linestyle": "-"}
NO_GRADIENT = ("Constant", "Variable")  # types of records


@cache
def width(text: str) -> float:
    """Return the width of `text` at font size 1."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return text_to_path.get_text_width_height_descent(text, FontProperties(size=1), ismath=False)[0]


class Box:
    """The box of a record: its name, the shape of a tensor, the weights of a layer, and `value | gradient`."""

    def __init__(self, op: Any, name: str, weights: list[Any]):
        self.op, self.lines = op, [name]
        if op.type == "Constant":
            self.lines = ["constant"] if op.shape else []  # a scalar constant needs no name beside its value
        if op.shape:
            self.lines.append(f"{list(op.shape)}, norms")
        if weights:
            norms = [size for weight in weights if (size := weight.gradient_norm()) is not None]
            ends = dict.fromkeys(f"{end(norms):.2g}" for end in (min, max)) if norms else ["none"]
            some = f", {len(weights) - len(norms)} none" if 0 < len(norms) < len(weights) else ""
            self.lines.append(f"{len(weights)} weight{'s' if len(weights) > 1 else ''}: {' to '.join(ends)}{some}")
        value, gradient = op.numbers()
        self.numbers = value, "" if op.type in NO_GRADIENT else gradient
        widths = [*map(width, self.lines), width(" | ".join(self.numbers))]
        self.size = max(widths) + 2.0, ROW * len(widths) + 0.6
        self.centre = (0.0, 0.0)  # the layout sets it

    def draw(self, ax: Any, look: dict, colours: tuple[str, str], points: float) -> None:
        """Make `frame`, of this `look`, and the texts `value` and `gradient`, of these `colours`."""
        from matplotlib.patches import FancyBboxPatch

        (x, y), (wide, high), style = self.centre, self.size, "round,pad=0,rounding_size=0.4"
        look = {"facecolor": "white", "edgecolor": "black", "linewidth": 1.2, "zorder": 2} | look
        self.frame = FancyBboxPatch((x - wide / 2, y - high / 2), wide, high, boxstyle=style, **look)
        ax.add_patch(self.frame)
        font: dict[str, Any] = {"fontsize": points, "va": "center_baseline", "zorder": 3, "parse_math": False}
        y += ROW * len(self.lines) / 2
        for line in self.lines:
            ax.text(x, y, line, ha="center", **font)
            y -= ROW
        value, gradient = self.numbers
        bar, apart = x + (width(value) - width(gradient)) / 2, 0.35 if gradient else 0.0
        ax.text(bar, y, "|" if gradient else "", ha="center", color="0.35", **font)
        self.value = ax.text(bar - apart, y, value, ha="right", color=colours[0], **font)
        self.gradient = ax.text(bar + apart, y, gradient, ha="left", color=colours[1], **font)


class Edge:
    """The edge from `source` to input number `which` of `op`, with the factors of the chain rule for scalars."""

    def __init__(self, source: Any, op: Any, which: int):
        self.source, self.op, self.flow = source.name, op.name, op.contributions[which]
        self.look = CONSTANT if source.type in NO_GRADIENT else CUT if self.flow is None else FLOW
        self.label = "no gradient" if self.look is CUT else ""
        if self.look is FLOW and op.local[which] is not None:
            upstream, local, back = (f"{each + 0:.4g}" for each in (op.gradient, op.local[which], self.flow))  # no -0
            self.label = f"{upstream} x {f'({local})' if local.startswith('-') else local} = {back}"
        self.size = (width(self.label) * SMALL, 1.15) if self.label else (0.0, 0.0)
        self.centre, self.curve = (0.0, 0.0), [(0.0, 0.0)]  # the layout sets them

    def draw(self, ax: Any, points: float) -> None:
        """Make `arrow`, along the curve, and `text`, which is the label at its centre, or None."""
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path

        path = Path(self.curve, [Path.MOVETO] + [Path.CURVE4] * (len(self.curve) - 1))
        self.arrow = FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=points, zorder=1, **self.look)
        ax.add_patch(self.arrow)
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.9}
        font: Any = {"fontsize": points * SMALL, "ha": "center", "va": "center", "zorder": 4, "bbox": paper}
        self.text = ax.text(*self.centre, self.label, color=self.look["color"], **font) if self.label else None
