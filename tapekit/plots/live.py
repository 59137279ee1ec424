"""A plot of a `tapekit.GradientLog` while it fills: `LivePlot`."""

import io
import os
import sys
from collections.abc import Callable
from typing import Any

from tapekit.plots.training import plot_gradient_history


class LivePlot:
    """A plot of a log that is drawn again while it fills: in place in a notebook, to a file in a script.

    Between two redraws `update` only counts.

    Args:
        log: a `GradientLog`.
        plot: any function that draws a log on `ax=`.
        every: redraw at each n-th call.
        path: the image to rewrite; needed outside a notebook.

    Raises:
        ValueError: no `path` outside of a notebook; `plot` is no function, or `every` no positive integer.

    Example:
        >>> from tapekit import GradientLog
        >>> live = LivePlot(GradientLog(), every=10, path="training.png")
        >>> for step in range(9):
        ...     live.update()                                           # after the step
        >>> import keras                                                # the same in fit, behind the log:
        >>> redraw = keras.callbacks.LambdaCallback(on_train_batch_end=live.update)
    """

    def __init__(self, log: Any, plot: Callable = plot_gradient_history, *, every: int = 25, path: Any = None):
        if path is None and _shell() is None:
            raise ValueError(
                "LivePlot: path is None, and this is no notebook. A picture needs a place: path='training.png'."
            )
        if not callable(plot) or not isinstance(every, int) or every < 1:
            raise ValueError(
                f"LivePlot: plot is {plot!r} and every is {every!r}. A function that draws a log and a positive "
                "integer are needed: LivePlot(log, tapekit.plot_gradient_flow, every=25)."
            )
        self.log, self.plot, self.every, self.path = log, plot, every, path
        self.calls, self.display = 0, None

    def update(self, batch: Any = None, logs: Any = None) -> None:
        """Count a step, and draw if it is time; a Keras callback hands over both arguments, which are not used."""
        self.calls += 1
        if self.calls % self.every == 0 and len(self.log):
            self.draw()

    def draw(self) -> None:
        """Draw now."""
        from matplotlib.figure import Figure  # of no backend: nothing of the user's pyplot changes

        figure = Figure(figsize=(8, 4.5), layout="constrained")
        self.plot(self.log, ax=figure.subplots())
        if self.path is not None:
            figure.savefig(os.fspath(self.path), dpi=100)
        if _shell() is not None:
            from IPython.display import Image, display

            png = io.BytesIO()
            figure.savefig(png, format="png", dpi=100)
            if self.display is None:
                self.display = display(Image(png.getvalue()), display_id=True)
            else:
                self.display.update(Image(png.getvalue()))


def _shell() -> Any:
    """The notebook that this runs in, or None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell if hasattr(shell, "kernel") else None
