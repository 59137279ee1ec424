"""Backpropagation as a film: `animate_trace`."""

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tapekit.plots.circuit import EDGES, Picture, draw
from tapekit.plots.shapes import GREY


def animate_trace(trace: Any, *, interval: int = 600) -> Any:
    """Show backpropagation as a film: values appear box by box, then gradients flow back and add up at forks.

    The first frame is the finished circuit, for viewers that do not play films. In a notebook, the film plays.

    Args:
        trace: a small one, such as a circuit of scalars.
        interval: milliseconds between two steps.

    Returns:
        The animation. `.save("circuit.gif", writer="pillow")` saves it; `.to_jshtml()` is HTML that steps through it.

    Raises:
        TypeError, ValueError: `trace` is no `Trace`, or `interval` is not a positive number.

    Example:
        >>> import tapekit
        >>> film = tapekit.animate_trace(tapekit.trace(lambda x: x * x, 3.0))
        >>> "<img" in film.to_jshtml()
        True
    """
    from matplotlib import pyplot as plt
    from matplotlib.animation import FuncAnimation

    if not isinstance(interval, (int, float, np.number)) or not 0 < interval < np.inf:
        milliseconds = "A positive number of milliseconds is needed. Write interval=600."
        raise ValueError(f"animate_trace: interval is {interval!r}. {milliseconds}")
    picture = draw("animate_trace", trace, None, "right", shaded=False)
    figure = picture.ax.figure

    class Film(FuncAnimation):
        def _repr_html_(self) -> str:
            with TemporaryDirectory() as folder:
                self.save(f"{folder}/film.gif", writer="pillow")
                data = base64.b64encode(Path(folder, "film.gif").read_bytes()).decode()
            plt.close(figure)  # or the notebook would show the figure as well
            return f'<img style="max-width:100%" alt="the two passes" src="data:image/gif;base64,{data}">'

    show, frames = film(picture)
    return Film(figure, show, frames=frames, interval=interval, blit=False)


def film(picture: Picture) -> tuple[Callable[[int], list], int]:
    """Return the function that draws a frame, in any order, and the number of frames."""
    trace, order = picture.trace, list(picture.boxes)
    edges = [each for each in picture.edges if each[0].kind != "constant"]
    edges.sort(key=lambda each: -order.index(each[0].op))
    # the number of boxes with a value, and of edges that a gradient has passed; the last ones are drawn bold
    finished = (len(order) + 1, len(edges) + 1)
    states = [finished, *((lit, -1) for lit in range(len(order) - len(trace.ops), len(order) + 1))]
    states += [*((len(order) + 1, passed) for passed in range(len(edges) + 1)), finished, finished]

    def show(frame: int) -> list:
        lit, passed = states[frame]
        arrived: dict[str, list] = {name: [] for name in order}
        arrived[trace.target.name] += [trace.target.gradient] if passed >= 0 else []
        for place, (edge, arrow, label) in enumerate(edges, start=1):
            flow = trace[edge.op].contributions[edge.which] if place <= passed else None
            arrived[edge.source] += [] if flow is None else [flow]
            arrow.set_color(EDGES[edge.kind]["color"] if place <= passed else GREY)
            arrow.set_linewidth(2.2 if place == passed else 1.2)
            if label:
                label.set_visible(place <= passed)
        for place, (name, flows) in enumerate(arrived.items(), start=1):
            box = picture.boxes[name]
            box.frame.set_alpha(1.0 if place <= lit else 0.25)
            box.frame.set_linewidth(2.4 if place == lit and trace[name].inputs else 1.2)
            box.value.set_visible(place <= lit)
            with np.errstate(all="ignore"):  # inf - inf is shown as nan
                total = sum(flows[1:], flows[0]) if flows else None
            box.gradient.set_text("" if total is None else replace(trace[name], gradient=total).numbers()[1])
        return []

    return show, len(states)
