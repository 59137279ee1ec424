"""`LivePlot`: a plot of a `GradientLog` that is drawn again while the model trains."""

import io
import sys
from collections.abc import Callable
from typing import Any

from tapekit.plots.training import plot_gradient_history


class LivePlot:
    """A plot of a log that is redrawn while the log fills: in place in a notebook, into a file in a script.

    Between two pictures `update` only counts.

    Args:
        log: a `GradientLog`.
        plot: a function that draws a log on the axes `ax=`.
        every: draw at every n-th call.
        path: the image file to overwrite. It is required outside of a notebook.

    Raises:
        ValueError: `path` is None outside of a notebook, `plot` is no function, or `every` is no positive integer.

    Example:
        >>> from tapekit import GradientLog
        >>> live = LivePlot(GradientLog(), every=10, path="training.png")
        >>> for step in range(9):
        ...     live.update()                                           # after the step
        >>> import keras                                                # the same in fit, behind the log:
        >>> redraw = keras.callbacks.LambdaCallback(on_train_batch_end=live.update)
    """

    def __init__(self, log: Any, plot: Callable = plot_gradient_history, *, every: int = 25, path: Any = None):
        if path is None and not _in_notebook():
            raise ValueError(
                "LivePlot: path is None, and this is not a notebook. A file is needed. Write path='training.png'."
            )
        if not callable(plot) or not isinstance(every, int) or every < 1:
            raise ValueError(
                f"LivePlot: plot is {plot!r} and every is {every!r}. A function that draws a log and a positive "
                "integer are needed: LivePlot(log, tapekit.plot_gradient_flow, every=25)."
            )
        self.log, self.plot, self.every, self.path = log, plot, every, path
        self.calls = 0
        self.display: Any = None

    def update(self, batch: Any = None, logs: Any = None) -> None:
        """Count a step, and draw at every n-th. The arguments, which a Keras callback passes, are not used."""
        self.calls += 1
        if self.calls % self.every == 0 and len(self.log):
            self.draw()

    def draw(self) -> None:
        """Draw the picture now."""
        from matplotlib.figure import Figure  # without a backend, so that pyplot's state does not change

        figure = Figure(figsize=(8, 4.5), layout="constrained")
        self.plot(self.log, ax=figure.subplots())
        if self.path is not None:
            figure.savefig(self.path, dpi=100)
        if _in_notebook():
            from IPython.display import Image, display

            png = io.BytesIO()
            figure.savefig(png, format="png", dpi=100)
            if self.display:
                self.display.update(Image(png.getvalue()))
            else:
                self.display = display(Image(png.getvalue()), display_id=True)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")
