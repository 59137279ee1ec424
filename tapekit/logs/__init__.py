"""What happens while it trains? `GradientLog` records statistics of the gradients of every step, in any kind of loop.

A few statistics of each gradient, and now and then its distribution, are computed on the gradient's own device and
written into a ring buffer there. Reading the log fetches them. In Keras `fit`, the log is a callback that records the
gradients which `train_step` passes to the optimizer.

Files, in reading order:

    log           `GradientLog`: recording
    inputs        what `record` receives: checks, and sums over replicas
    ring          the statistics and distributions of each row, which wait on the device
    fit           the gradients of Keras `fit`
    records       the rows as arrays: reading
    findings      what is wrong, in sentences, and the printed table
    notebook      the last step, and the rows of a variable, as a notebook shows them
    files         csv, npz and the event files of TensorBoard
"""

from tapekit.logs.log import GradientLog

__all__ = ["GradientLog"]
