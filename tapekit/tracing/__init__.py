"""What did the tape record? `trace` returns a `Trace`: every operation with its value, gradient and source line.

`trace` runs `fn` forward and backward once as a graph. It keeps the operations on the way from the sources to the
target, without reads, identities and shape arithmetic. For each it fetches the value, the gradient that arrives, and
what flows back along each of its edges. `Trace.fold` groups the operations by Keras layer or name scope.

Files, in reading order:

    evaluation   `trace`: runs the graph and makes the records
    records      `Op` and `Trace`: NumPy data, and the printed table
    operations   `Graph`: the operations and edges of a recorded graph, and the tensors that hold their values
    folding      groups operations by layer or name scope
    reduction    folds a trace until it has few enough records for a picture
    notebook     the picture and the table that a notebook shows
    values       whether the target is computed from values that `fn` uses in Python
    signals      where values and gradients become 0, NaN or infinite, for `explain`

>>> circuit = trace(lambda x, y, z: (x + y) * z, [-2.0, 5.0, -4.0])
>>> circuit["add"].value.item(), circuit["add"].gradient.item()
(3.0, -4.0)
"""

from tapekit.tracing.evaluation import trace
from tapekit.tracing.records import Op, Trace

__all__ = ["Op", "Trace", "trace"]
