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
    findings      what is wrong, in sentences
    tables        the last row, as it is printed and as a notebook shows it
    files         csv, npz and the event files of TensorBoard
"""

from tapekit.logs.log import GradientLog

__all__ = ["GradientLog"]
