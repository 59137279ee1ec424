"""What happens while it trains? `GradientLog` records statistics of the gradients of every step, in any kind of loop.

`log.record(gradients, variables)` computes a few statistics of each gradient on the gradient's own device, and writes
them into a ring buffer of rows there. Reading the log fetches the rows. In Keras `fit`, the log is a callback that
records the gradients which `train_step` passes to the optimizer.

Files, in reading order:

    log           `GradientLog`: recording, reading, saving
    inputs        checks of what `record` receives
    statistics    the numbers of one row, from the gradients
    ring          the rows that wait on the device
    distributed   sums over the replicas of `tf.distribute`
    fit           the gradients of Keras `fit`
    files         csv, npz and TensorBoard
    findings      what is wrong, in sentences, and the printed table
"""

from tapekit.logs.log import GradientLog

__all__ = ["GradientLog"]
