"""Backpropagation as a film: `animate_trace`."""

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tapekit.plots.circuit import Picture
from tapekit.plots.shapes import CONSTANT, GREY


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
        needed = "A positive number of milliseconds is needed. Write interval=600."
        raise ValueError(f"animate_trace: interval is {interval!r}. {needed}")
    picture = Picture("animate_trace", trace, None, "right", shaded=False)
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
    flowing = [edge for edge in picture.edges if edge.look is not CONSTANT]
    edges = sorted(flowing, key=lambda edge: -order.index(edge.op))
    # the n-th box is reached at time n, the target's gradient comes next, then an edge at a time
    back, end = len(order) + 1, len(order) + len(edges) + 2
    times = [end, *range(len(order) - len(trace.ops), end), end, end]

    def show(frame: int) -> list:
        now = times[frame]
        arrived: dict[str, list] = {name: [] for name in order}
        arrived[trace.target.name] += [trace.target.gradient] if now >= back else []
        for time, edge in enumerate(edges, start=back + 1):
            passed, bold = time <= now, time == now
            arrived[edge.source] += [edge.flow] if passed and edge.flow is not None else []
            edge.arrow.set(color=edge.look["color"] if passed else GREY, linewidth=2.2 if bold else 1.2)
            if edge.text:
                edge.text.set_visible(passed)
        for time, (name, box) in enumerate(picture.boxes.items(), start=1):
            passed, bold = time <= now, time == now and box.op.inputs
            box.frame.set(alpha=1.0 if passed else 0.25, linewidth=2.4 if bold else 1.2)
            box.value.set_visible(passed)
            with np.errstate(all="ignore"):  # inf - inf is shown as nan
                total = np.sum(arrived[name], axis=0) if arrived[name] else None
            box.gradient.set_text("" if total is None else replace(box.op, gradient=total).numbers()[1])
        return []

    return show, len(times)
