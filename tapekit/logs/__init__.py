"""What happens while it trains? `GradientLog` records statistics of the gradients of every step, in any kind of loop.

The statistics of each gradient, and at some steps its distribution, are computed and kept in a ring buffer on its
device. Reading the log fetches them. In Keras `fit`, the log is a callback.

Files, in reading order:

    log           `GradientLog`: checks and records steps
    ring          computes statistics and distributions, and keeps the rows on the device
    fit           the callback: finds the gradients of Keras `fit`
    records       reads the rows as arrays and as tables
    findings      says in sentences what is wrong
    files         writes and reads csv, npz and the event files of TensorBoard
"""

from tapekit.logs.log import GradientLog

__all__ = ["GradientLog"]
