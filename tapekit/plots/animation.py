"""Backpropagation as a film: `animate_trace`."""

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tapekit.plots.circuit import EDGES, Picture, draw
from tapekit.plots.shapes import GREY, number

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation

    from tapekit.tracing import Op, Trace

STAY = 3  # frames for which the finished circuit stays at the end


def animate_trace(trace: "Trace", *, interval: int = 600) -> "FuncAnimation":
    """Play backpropagation: boxes light up with their values, then edges with what flows back and adds up at forks.

    The first frame is the finished circuit, which is what a viewer shows that does not play. As the last expression of
    a notebook's cell the film plays in the page.

    Args:
        trace: a small one, such as a circuit of scalars.
        interval: milliseconds between two steps.

    Returns:
        The animation: `.to_jshtml()` steps through it in a page, `.save("circuit.gif", writer="pillow")` saves it.

    Raises:
        TypeError: `trace` is no `Trace`.

    Example:
        >>> import tapekit
        >>> film = tapekit.animate_trace(tapekit.trace(lambda x: x * x, 3.0))
        >>> "<img" in film.to_jshtml()
        True
    """
    from matplotlib import pyplot as plt
    from matplotlib.animation import FuncAnimation

    picture = draw("animate_trace", trace, None, "right", shaded=False)
    figure = picture.ax.figure

    class Film(FuncAnimation):
        def _repr_html_(self) -> str:
            html = self.to_jshtml()
            plt.close(figure)  # type: ignore[arg-type]  # or the notebook would show the figure as well
            return html

    show, frames = film(picture)
    return Film(figure, show, frames=frames, interval=interval, blit=False)  # type: ignore[arg-type]


def film(picture: Picture) -> tuple[Callable[[int], list], int]:
    """Return the function that draws a frame, in any order, and the number of frames."""
    trace = picture.trace
    order = {op.name: step for step, op in enumerate((*trace.sources, *trace.constants, *trace.ops))}
    position = {op.name: step for step, op in enumerate(trace.ops)}
    edges = [(edge, arrow, label) for edge, arrow, label in picture.edges if edge.kind != "constant"]
    edges.sort(key=lambda each: -position[each[0].op])
    leaves = len(order) - len(trace.ops)
    forward = len(trace.ops) + 1  # the leaves together, then the operations one by one
    frames = 1 + forward + len(edges) + STAY

    def show(frame: int) -> list:
        step = frame - 1 if frame else frames  # the first frame is the finished circuit
        lit = leaves + step
        arrived: dict[str, list] = defaultdict(list)
        if step >= forward:
            arrived[trace.target.name].append(trace.target.gradient)
        for place, (edge, arrow, label) in enumerate(edges, start=forward + 1):
            passed = step >= place
            arrow.set_color(EDGES[edge.kind] if passed else GREY)
            arrow.set_linewidth(2.2 if step == place else 1.2)
            if label:
                label.set_visible(passed)
            if passed:
                arrived[edge.source].append(trace[edge.op].contributions[edge.which])
        for name, box in picture.boxes.items():
            box.frame.set_alpha(1.0 if order[name] < lit else 0.25)
            box.frame.set_linewidth(2.4 if order[name] == lit - 1 and 0 < step < forward else 1.2)
            box.value.set_visible(order[name] < lit)
            box.gradient.set_text(_sum(trace[name], arrived[name]))
        return []

    return show, frames


def _sum(op: "Op", flows: list) -> str:
    """The gradient of `op` after `flows` have arrived."""
    flows = [flow for flow in flows if flow is not None]
    with np.errstate(all="ignore"):  # inf - inf is shown as nan
        return number(sum(flows[1:], flows[0]), op.shape) if flows else ""
