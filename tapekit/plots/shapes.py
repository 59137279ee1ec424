"""One box or one arrow of a circuit, with its text: `draw_box`, `draw_arrow`. The unit of length is the font size."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

ROW = 1.35  # the distance between two lines of text
SMALL = 0.8  # the size of edge labels, relative to the text in boxes
LINE = 1.15  # the height of an edge label
# Okabe and Ito's colours, which colour-blind readers tell apart.
FORWARD, BACKWARD, CUT, GREY = "#0072B2", "#B34700", "#AA3377", "#8C8C8C"


class BoxText(NamedTuple):
    """The text of a box: its lines, and a last line with the value and the gradient ("" for a constant)."""

    lines: Sequence[str]
    value: str
    gradient: str

    def size(self) -> tuple[float, float]:
        """Return the width and height of the box."""
        widths = [*map(width, self.lines), width(f"{self.value} | {self.gradient}")]
        return max(widths) + 2.0, ROW * len(widths) + 0.6


class Box(NamedTuple):
    """A box on the axes, and its two numbers."""

    frame: Any
    value: Any
    gradient: Any


@cache
def width(text: str) -> float:
    """Return the width of `text` at font size 1."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return text_to_path.get_text_width_height_descent(text, FontProperties(size=1), ismath=False)[0]


def draw_box(ax: Any, text: BoxText, at: tuple, look: dict, colours: tuple[str, str], points: float) -> Box:
    """Draw a box with its centre at `at`, the `look` of its patch, and the `colours` of value and gradient."""
    from matplotlib.patches import FancyBboxPatch

    (x, y), (wide, high) = at, text.size()
    style = "round,pad=0,rounding_size=0.4"
    frame = FancyBboxPatch((x - wide / 2, y - high / 2), wide, high, boxstyle=style, zorder=2, **look)
    ax.add_patch(frame)
    font: dict[str, Any] = {"fontsize": points, "va": "center_baseline", "zorder": 3, "parse_math": False}
    first, last = y + ROW * len(text.lines) / 2, y - ROW * len(text.lines) / 2
    for row, line in enumerate(text.lines):
        ax.text(x, first - ROW * row, line, ha="center", **font)
    bar, apart = x + (width(text.value) - width(text.gradient)) / 2, 0.35 if text.gradient else 0.0
    ax.text(bar, last, "|" if text.gradient else "", ha="center", color="0.35", **font)
    value = ax.text(bar - apart, last, text.value, ha="right", color=colours[0], **font)
    return Box(frame, value, ax.text(bar + apart, last, text.gradient, ha="left", color=colours[1], **font))


def draw_arrow(ax: Any, route: list, look: dict, right: bool, points: float) -> Any:
    """Draw an arrow through the points of `route`."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    steps = [route[0]]
    for a, b in pairwise(route):  # an S-curve, which is straight along an axis
        middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
        steps += [(middle[0], a[1]), (middle[0], b[1])] if right else [(a[0], middle[1]), (b[0], middle[1])]
        steps.append(b)
    path = Path(steps, [Path.MOVETO] + [Path.CURVE4] * (len(steps) - 1))
    arrow = FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=points, zorder=1, **look)
    ax.add_patch(arrow)
    return arrow
