"""The numbers in a graph: `Signal` finds where a gradient or a value becomes 0, NaN or infinite.

`health` counts such elements of a tensor in the graph, and `status` tells from the counts which kind it has.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import tensorflow as tf

from tapekit._sources import is_float
from tapekit.graphs.flow import Flow

ZERO = ("zero",)
NOT_FINITE = ("infinite", "nan")


def health(tensor: tf.Tensor) -> tf.Tensor:
    """Return the counts that `status` reads, made by one operation: the graph of a large model has many tensors."""
    if tensor.dtype.is_complex:
        tensor = tf.stack([tf.math.real(tensor), tf.math.imag(tensor)])
    full_health = 4  # the mode of this operation that counts every kind of number
    return tf.raw_ops.DebugNumericSummaryV2(input=tensor, output_dtype=tf.float64, tensor_debug_mode=full_health)


def status(row: Any) -> str:
    """Return "none", "nan", "infinite", "zero" (every element is) or "ok" for the `health` of a tensor, or for None."""
    if row is None:
        return "none"
    *_, size, minus_infinite, plus_infinite, nan, _, zero, _ = row
    if nan:
        return "nan"
    if minus_infinite or plus_infinite:
        return "infinite"
    return "zero" if size > 0 and zero == size else "ok"


def in_words(row: Any) -> str:
    """Return the `status` as `explain` reports it: "not_finite" stands for "nan" and for "infinite"."""
    found = status(row)
    return "not_finite" if found in NOT_FINITE else found


class Signal:
    """The status of each value, and of the gradients that flow back to some sources, at tensors and along edges.

    ``given`` has the tensors that were made before `fn` ran. ``question`` is a structure of tensors of the graph; call
    `answered` with their values. `lost_at` and `first` then find the operation at fault.
    """

    def __init__(self, flow: Flow, sources: list[tf.Tensor], given: dict) -> None:
        self.flow, self.given = flow, given
        tensors = flow.after(sources)
        gradients = flow.recording.gradients(tensors)
        self.known = {t.ref(): gradient for t, gradient in zip(tensors, gradients, strict=True) if gradient is not None}
        values = {t.ref(): t for op in flow.ops for t in (*flow.inputs[op], *op.outputs) if is_float(t)}
        self._asked = (self.known, self._shares(), values)
        self.question = [[health(tensor) for tensor in asked.values()] for asked in self._asked]

    def _shares(self) -> dict:
        """Return the part of a gradient that flows back along each edge to a tensor with several uses."""
        shares: dict = {}
        for op in self.flow.ops:
            inputs = self.flow.inputs[op]
            upstream = {n: self.known[each.ref()] for n, each in enumerate(op.outputs) if each.ref() in self.known}
            fork = any(each.ref() in self.known and len(self.flow.consumers[each.ref()]) > 1 for each in inputs)
            if fork and upstream and op.type != "EagerPyFunc":  # its gradient can be asked for only once
                flows = enumerate(self.flow.backward(op, upstream))
                shares |= {(op, index): flow for index, flow in flows if flow is not None}
        return shares

    def answered(self, answer: list) -> None:
        """Store the values of `question`."""
        pairs = [zip(asked, rows, strict=True) for asked, rows in zip(self._asked, answer, strict=True)]
        self.gradients, self.shares, self.values = ({key: status(row) for key, row in each} for each in pairs)

    def lost_at(self, source: tf.Tensor, sick: Collection[str]) -> list[tuple[list[tf.Operation], bool]]:
        """Return the paths to the operations at which the status of the gradient of `source` becomes one of `sick`.

        The paths are in execution order. Each comes with True if the parts of the gradient cancel: their sum is `sick`,
        and the part along this path is not.
        """
        paths: dict = {source.ref(): []}
        dependent = {tensor.ref() for tensor in self.flow.after([source])}
        ends, chosen = [], []
        for op in self.flow.ops:
            outputs = [output.ref() for output in op.outputs if output.ref() in self.gradients]
            lists = [output.ref() for output in op.outputs if output.dtype == tf.variant]  # their gradient is not known
            healthy = outputs and not any(self.gradients[output] in sick for output in outputs)
            for index, tensor in enumerate(self.flow.inputs[op]):
                share = self.shares.get((op, index), self.gradients.get(tensor.ref()))
                unknown = tensor.dtype == tf.variant or not outputs
                if tensor.ref() not in paths or (share is None and not unknown):
                    continue
                path = [*paths[tensor.ref()], op]
                if healthy and (unknown or share in sick or sick == ZERO):
                    ends.append((path, share is not None and share not in sick))
                    if not self._passes_beside(op, index, dependent):
                        chosen.append(ends[-1])
                elif not healthy and (unknown or share in sick):
                    paths |= {output: path for output in outputs or lists if output not in paths}
        return chosen or ends  # where an operation lets the gradient go on by another way, it is lost there

    def _passes_beside(self, op: tf.Operation, index: int, dependent: Collection) -> bool:
        """Return whether a gradient that is ok reaches one of the `dependent` tensors by another input of `op`."""
        inputs = enumerate(self.flow.inputs[op])
        others = {tensor.ref(): number for number, tensor in inputs if number != index and tensor.ref() in dependent}
        return any(self.shares.get((op, n), self.gradients.get(ref)) == "ok" for ref, n in others.items())

    def arriving(self, op: tf.Operation) -> list[tf.Tensor]:
        """Return the gradients of the inputs of `op`."""
        return [self.known[tensor.ref()] for tensor in self.flow.inputs[op] if tensor.ref() in self.known]

    def first(
        self, tensors: Iterable[tf.Tensor], sick: Collection[str], ends: Callable = lambda op: False
    ) -> tf.Tensor | None:
        """Return the tensor from which on values are `sick` up to one of `tensors`, if one is.

        The search goes back no further than to an operation that `ends` it.
        """
        found, seen, pending = None, set(), [*tensors]
        while pending:
            tensor = pending.pop(0)
            inputs = [each for each in self.flow.inputs.get(tensor.op, ()) if each.ref() not in seen]
            seen.add(tensor.ref())
            if self.values.get(tensor.ref()) in sick:
                found = tensor
                pending = [] if ends(tensor.op) else inputs
            elif tensor.dtype == tf.variant:  # a list of tensors, whose values are not known
                pending = [*inputs, *pending]
        return found
