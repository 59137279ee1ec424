"""Where a gradient stops: `Flow` asks TensorFlow, edge by edge of a `Recording`, whether a gradient passes back.

No list of operations decides this. A gradient passes along an edge if `tf.gradients` of that one operation is not None.
The gradient of a source stops at the edge, on the way from the source to the target, where it is None.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import tensorflow as tf

from tapekit.graphs.capture import SHAPES, Recording

# How the best way from a tensor towards the target ends; the last is the best.
SHAPE, CUT, CUT_FROM_TARGET, ARRIVES = range(4)


class Way(NamedTuple):
    """A way from a tensor towards the target: how it ends (`rank`), at which operation, and its next operation."""

    rank: int
    position: float
    last: tf.Operation | None
    op: tf.Operation | None
    onward: "Way | None"

    def ops(self) -> list[tf.Operation]:
        """Return the operations up to the one at which the gradient stops, that one included."""
        found: list[tf.Operation] = []
        way: Way | None = self
        while way is not None and way.op is not None:
            found.append(way.op)
            way = way.onward
        return found


class Flow:
    """The operations of a recording that lead to its target, and the edges along which their gradients pass."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.position = {op: index for index, op in enumerate(recording.ops)}
        self.writers = self._writers()
        self.ops = self._leading()
        self.consumers: dict = {}
        for op in self.ops:
            for index, tensor in enumerate(self.inputs(op)):
                self.consumers.setdefault(tensor.ref(), []).append((op, index))
        self._passes: dict = {}

    def inputs(self, op: tf.Operation) -> list[tf.Tensor]:
        return self.recording.inputs[op]

    def _writers(self) -> dict:
        """Return, for the handle of each variable or table, the operations that write it."""
        found: dict = defaultdict(list)
        for op in filter(self.writes, self.recording.ops):
            found[self.inputs(op)[0].ref()].append(op)
        return found

    def writes(self, op: tf.Operation) -> bool:
        """Return whether `op` writes a value into a variable or a table."""
        inputs = self.inputs(op)
        return not op.outputs and len(inputs) > 1 and inputs[0].dtype == tf.resource

    def _leading(self) -> list[tf.Operation]:
        """Return the operations on which the target depends, also through variables, in execution order."""
        seen, pending = set(), [self.recording.target.op]
        while pending:
            op = pending.pop()
            if op in seen or op not in self.position:
                continue
            seen.add(op)
            for tensor in self.inputs(op):
                pending.append(tensor.op)
                writers = self.writers.get(tensor.ref(), [])
                pending += [writer for writer in writers if self.position[writer] < self.position[op]]
        return sorted(seen, key=self.position.__getitem__)

    def ways(self) -> dict:
        """Return, for the ``ref()`` of each tensor on which the target depends, the best way to it."""
        target = self.recording.target
        found = {target.ref(): Way(ARRIVES, math.inf, None, None, None)}
        tensors = [tensor for op in reversed(self.ops) for tensor in op.outputs]
        for tensor in dict.fromkeys(t.ref() for t in (*tensors, *self.recording.sources)):
            ways = [way for op, index in self.consumers.get(tensor, ()) for way in self._through(op, index, found)]
            if ways and tensor not in found:
                found[tensor] = max(ways, key=lambda way: way[:2])
        return found

    def _through(self, op: tf.Operation, index: int, found: dict) -> Iterable[Way]:
        here = self.position[op]
        if self.writes(op):
            if index > 0:
                yield Way(CUT, here, op, op, None)
            return
        for number, output in enumerate(op.outputs):
            onward = found.get(output.ref())
            if onward is None:
                continue
            if self.passes(op, index, number):
                yield Way(onward.rank, onward.position, onward.last, op, onward)
            else:
                rank = CUT_FROM_TARGET if onward.rank == ARRIVES else CUT
                yield Way(SHAPE if op.type in SHAPES else rank, here, op, op, None)

    def passes(self, op: tf.Operation, index: int, number: int) -> bool:
        """Return whether the gradient of output `number` of `op` reaches its input `index`."""
        before, after = self.inputs(op)[index], op.outputs[number]
        if tf.variant in (before.dtype, after.dtype):
            return True  # a list of tensors, for which TensorFlow returns no gradient to look at
        kinds = (after.dtype, *(tensor.dtype for tensor in self.inputs(op)))
        key = (op.name if has_body(op) else op.type, number, kinds, own_gradient(op))
        if key not in self._passes:
            found = self.recording.vjp([after], self.inputs(op), stop=self.stop(op))
            self._passes[key] = [gradient is not None for gradient in found]
        return self._passes[key][index]

    def stop(self, op: tf.Operation) -> list[tf.Tensor]:
        """Return the tensors at which a gradient is to stop so that it passes through `op` alone."""
        return [tensor for tensor in self.inputs(op) if tensor.dtype != tf.resource]

    def after(self, tensors: Iterable[tf.Tensor]) -> list[tf.Tensor]:
        """Return the tensors on the ways from `tensors` to the target, `tensors` included."""
        found = {tensor.ref() for tensor in tensors}
        for op in self.ops:
            if any(tensor.ref() in found for tensor in self.inputs(op)):
                found.update(output.ref() for output in op.outputs)
        return [ref.deref() for ref in found if ref in self.consumers or ref.deref() is self.recording.target]


def has_body(op: tf.Operation) -> bool:
    """Return whether `op` is a tf.cond, a loop or a function, which has operations of its own inside."""
    return any(attr.type == "func" for attr in op.op_def.attr)


def takes_twice(op: tf.Operation) -> bool:
    """Return whether two inputs of `op` are one tensor, as in x - x."""
    return len({tensor.ref() for tensor in op.inputs}) < len(op.inputs)


def own_gradient(op: tf.Operation) -> str:
    """Return the name of the gradient that `tf.custom_gradient` registered for `op`, or an empty string."""
    try:
        return op.get_attr("_gradient_op_type").decode()
    except ValueError:
        return ""
