"""What happens while it trains? `GradientLog` records statistics of the gradients of every step, in any kind of loop.

`log.record(gradients, variables)` computes a few statistics of each gradient on the gradient's own device, and writes
them into a ring of rows there. Reading the log fetches the rows. In Keras `fit`, the log is a callback that records the
gradients which `train_step` hands to the optimizer.

Files, in reading order:

    log           `GradientLog`
    statistics    gradients -> one row of numbers
    ring          the rows that wait on the device
    fit           the gradients of Keras `fit`
    distributed   sums over replicas
    files         csv, npz and TensorBoard
    findings      what is wrong in a log, in sentences, and the printed table
"""

from tapekit.logs.log import GradientLog

__all__ = ["GradientLog"]
