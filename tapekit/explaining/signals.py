"""The numbers in a graph: `Signal` finds where a gradient or a value becomes 0, NaN or infinite."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import tensorflow as tf

from tapekit._sources import is_float
from tapekit.explaining.flow import Flow


class Health(NamedTuple):
    """How many elements a tensor has, and how many of them are infinite, NaN and 0."""

    size: float
    infinite: float
    nan: float
    zero: float

    @classmethod
    def of(cls, row: Any) -> "Health":
        """Return the health that is counted in a row made by `health`."""
        return cls(row[4], row[5] + row[6], row[7], row[9])

    @property
    def all_zero(self) -> bool:
        return self.zero == self.size > 0

    @property
    def finite(self) -> bool:
        return not (self.infinite or self.nan)


def health(tensor: tf.Tensor) -> tf.Tensor:
    """Return the counts of a `Health`, made by one operation: the graph of a large model has many tensors."""
    if tensor.dtype.is_complex:
        tensor = tf.stack([tf.math.real(tensor), tf.math.imag(tensor)])
    counts = 4  # of the modes of this operation, the one that counts every kind of number
    return tf.raw_ops.DebugNumericSummaryV2(input=tensor, output_dtype=tf.float64, tensor_debug_mode=counts)


def status(row: Any) -> str:
    """Return the status of a gradient with this `health`, or of None."""
    if row is None:
        return "none"
    found = Health.of(row)
    return "not_finite" if not found.finite else "zero" if found.all_zero else "ok"


class Signal:
    """The gradients that flow back to some sources, at each tensor and along each edge, and the values, as `Health`.

    ``given`` has the tensors that were made before `fn` ran. ``question`` is a structure of tensors of the graph;
    `answered` takes their values. `zero_at`, `nan_at` and `first` then find the operation at fault.
    """

    def __init__(self, flow: Flow, sources: list[tf.Tensor], given: dict) -> None:
        self.flow, self.given = flow, given
        tensors = flow.after(sources)
        gradients = flow.recording.gradients(tensors)
        self.known = {t.ref(): gradient for t, gradient in zip(tensors, gradients, strict=True) if gradient is not None}
        forks = [tensor for tensor in self.known if len(flow.consumers.get(tensor, ())) > 1]
        shares = {}
        if len(forks) < 50:  # each share costs TensorFlow a walk through the graph
            edges = [(tensor, op, index) for tensor in forks for op, index in flow.consumers[tensor]]
            # the gradient of a tf.py_function can be asked for only once
            shares = {(op, at): self._share(tensor, op) for tensor, op, at in edges if op.type != "EagerPyFunc"}
        values = {t.ref(): t for op in flow.ops for t in (*flow.inputs[op], *op.outputs) if is_float(t)}
        self._asked = (self.known, {edge: share for edge, share in shares.items() if share is not None}, values)
        self.question = [[health(tensor) for tensor in asked.values()] for asked in self._asked]

    def _share(self, tensor: Any, op: tf.Operation) -> tf.Tensor | None:
        """Return the part of the gradient of `tensor` that flows back through `op`."""
        outputs = [output for output in op.outputs if output.ref() in self.known]
        upstream = [self.known[output.ref()] for output in outputs]
        return self.flow.recording.vjp(outputs, [tensor.deref()], upstream, stop=self.flow.stop(op))[0]

    def answered(self, answer: list) -> None:
        """Store the values of `question`."""
        self.gradients, self.shares, self._values = (
            {key: Health.of(row) for key, row in zip(asked, rows, strict=True)}
            for asked, rows in zip(self._asked, answer, strict=True)
        )

    def value(self, tensor: tf.Tensor) -> Health:
        """Return the health of the value of a tensor; a tensor that is no float is taken to be sound."""
        return self._values.get(tensor.ref(), Health(1, 0, 0, 0))

    def zero_at(self, source: tf.Tensor, flat: Callable[[tf.Operation], bool]) -> tuple[list[tf.Operation], bool]:
        """Return the operations from `source` to the one whose outputs have a gradient that is not 0.

        A `flat` operation is preferred: another one multiplies by a factor that is 0. The second result is whether the
        parts that arrive there are not 0 themselves, but cancel.
        """
        cancelled = set()

        def stops(op: tf.Operation, share: Health | None) -> bool:
            if share and not share.all_zero:
                cancelled.add(op)
            return any(not self.gradients[output].all_zero for output in self._known_outputs(op))

        paths = self._search(source, lambda share: True, stops)
        path = next((path for path in reversed(paths) if flat(path[-1])), (paths or [[]])[-1])
        return path, bool(path) and path[-1] in cancelled

    def nan_at(self, source: tf.Tensor) -> list[tf.Operation]:
        """Return the operations from `source` to the one whose outputs have a finite gradient."""
        paths = self._search(
            source,
            lambda share: share is None or not share.finite,
            lambda op, share: all(self.gradients[output].finite for output in self._known_outputs(op)),
        )
        return (paths or [[]])[-1]

    def first(
        self, tensors: Iterable[tf.Tensor], sick: Callable[[Health], bool], ends: Callable[[tf.Operation], bool]
    ) -> tf.Tensor | None:
        """Return the tensor from which on values are `sick` (0, not finite) up to one of `tensors`, if one is.

        The search goes back no further than to an operation that `ends` it.
        """
        found, seen = None, set()
        while bad := [t for t in tensors if t.ref() not in seen and t.ref() in self._values and sick(self.value(t))]:
            found = bad[0]
            seen.add(found.ref())
            tensors = [] if ends(found.op) else self.flow.inputs.get(found.op, [])
        return found

    def _known_outputs(self, op: tf.Operation) -> list:
        return [output.ref() for output in op.outputs if output.ref() in self.gradients]

    def _search(self, source: tf.Tensor, goes: Callable, stops: Callable) -> list[list[tf.Operation]]:
        """Return the paths, in execution order, to the operations at which an edge that `goes` also `stops`."""
        came_by: dict = {source.ref(): []}
        ends = []
        for op in self.flow.ops:
            for index, tensor in enumerate(self.flow.inputs[op]):
                if tensor.ref() not in came_by:
                    continue
                onward = self._known_outputs(op)
                share = self.shares.get((op, index), self.gradients.get(tensor.ref()))
                if tensor.dtype != tf.variant and onward and (share is None or not goes(share)):
                    continue
                path = [*came_by[tensor.ref()], op]
                if not onward:  # a list of tensors, whose gradient is not known
                    onward = [output.ref() for output in op.outputs if output.dtype == tf.variant]
                elif stops(op, self.shares.get((op, index))):
                    ends.append(path)
                    continue
                came_by |= {output: path for output in onward if output not in came_by}
        return ends
