"""`LivePlot`: a plot of a `GradientLog` that is drawn again while the model trains."""

import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tapekit.plots import axes
from tapekit.plots.training import plot_gradient_history

SHARE = 0.05  # the share of the time that may be spent on drawing


class LivePlot:
    """A plot of a log that is redrawn while the log grows: in place in a notebook, into a file in a script.

    Args:
        log: a `GradientLog`.
        plot: a function that draws a log on the axes `ax=`. It gets what `log.read()` returns.
        every: a picture is drawn at every n-th call of `update`, but not if drawing takes more than 5 % of the time.
        path: the image file to overwrite. It is required outside of a notebook.

    Raises:
        TypeError: `log` is not a `GradientLog`, or `plot` is not a function.
        ValueError: `every` is not a positive integer, or no picture can be shown or written to `path`.

    Example:
        >>> from tapekit import GradientLog
        >>> live = LivePlot(GradientLog(), every=10, path="training.png")
        >>> for step in range(9):
        ...     live.update()                                           # after the step
        >>> import keras                                                # the same in fit, behind the log:
        >>> redraw = keras.callbacks.LambdaCallback(on_train_batch_end=live.update)
    """

    def __init__(self, log: Any, plot: Callable = plot_gradient_history, *, every: int = 25, path: Any = None):
        from matplotlib.figure import Figure  # without a backend, so that pyplot's state does not change

        axes.rows_of("LivePlot", log)
        if not callable(plot):
            raise TypeError(f"LivePlot: plot is {plot!r}. A function is needed. Write plot=tapekit.plot_gradient_flow.")
        if not isinstance(every, (int, np.integer)) or isinstance(every, bool) or every < 1:
            raise ValueError(f"LivePlot: every is {every!r}. A positive integer is needed. Write every=25.")
        self.figure = Figure(figsize=(8, 4.5), layout="constrained")
        ipython = sys.modules.get("IPython")
        self.notebook = ipython is not None and hasattr(ipython.get_ipython(), "kernel")
        file = Path(path).absolute() if isinstance(path, (str, os.PathLike)) else Path()
        image = file.suffix[1:].lower() in {"", *self.figure.canvas.get_supported_filetypes()}
        if not (self.notebook if path is None else image and file.parent.is_dir() and not file.is_dir()):
            where = ", and this is not a notebook" if path is None else ""
            needed = "A file in an existing folder is needed, of a kind that matplotlib writes: path='a.png'"
            raise ValueError(f"LivePlot: path is {path!r}{where}. {needed}.")
        self.log, self.plot, self.every, self.path, self.calls = log, plot, every, path, 0
        self.begin, self.spent, self.last = time.perf_counter(), 0.0, 0.0  # seconds: now, all drawing, the last one

    def update(self, batch: Any = None, logs: Any = None) -> None:
        """Count a step, and draw at every n-th. The arguments, which a Keras callback passes, are not used."""
        self.calls += 1
        affordable = self.spent + self.last <= SHARE * (time.perf_counter() - self.begin)
        if self.calls % self.every == 0 and affordable and len(self.log):
            self.draw()

    def draw(self) -> None:
        """Draw the picture now."""
        begin = time.perf_counter()
        self.figure.clear()
        self.plot(self.log.read(), ax=self.figure.subplots())
        if self.path is not None:
            self.figure.savefig(self.path, dpi=100)
        if self.notebook:
            from IPython.display import Image, display

            png = io.BytesIO()
            self.figure.savefig(png, format="png", dpi=100)
            display(Image(png.getvalue()), display_id=f"LivePlot {id(self)}", update=self.spent > 0)
        self.last = time.perf_counter() - begin
        self.spent += self.last
