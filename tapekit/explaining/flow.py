"""Where a gradient stops: `Flow` asks TensorFlow, edge by edge of a `Recording`, whether a gradient passes back.

No list of operations decides this. A gradient passes along an edge if `tf.gradients` of that one operation is not None.
The gradient of a source stops at the edge, on the way from the source to the target, where it is None.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import tensorflow as tf

from tapekit._sources import is_float
from tapekit.explaining.words import FLAT
from tapekit.graphs.capture import PLUMBING, SHAPES, Recording

# How the best way from a tensor towards the target ends; the last is the best.
SHAPE, CUT, CUT_FROM_TARGET, ARRIVES = range(4)
_HAS_BODY: dict[str, bool] = {}  # by type of operation: to read its definition takes long


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
        self.inputs = recording.inputs
        self.position = {op: index for index, op in enumerate(recording.ops)}
        self.writers: dict = defaultdict(list)  # handle of a variable or table -> the operations that write it
        for op in filter(self.writes, recording.ops):
            self.writers[self.inputs[op][0].ref()].append(op)
        self.ops = self._leading()
        self.consumers: dict = {}
        for op in self.ops:
            for index, tensor in enumerate(self.inputs[op]):
                self.consumers.setdefault(tensor.ref(), []).append((op, index))
        self._passes: dict = {}

    def writes(self, op: tf.Operation) -> bool:
        """Return whether `op` writes a value into a variable or a table."""
        inputs = self.inputs[op]
        return not op.outputs and len(inputs) > 1 and inputs[0].dtype == tf.resource

    def _leading(self) -> list[tf.Operation]:
        """Return the operations on which the target depends, also through variables, in execution order."""
        seen, pending = set(), [self.recording.target.op]
        while pending:
            op = pending.pop()
            if op in seen or op not in self.position:
                continue
            seen.add(op)
            for tensor in self.inputs[op]:
                pending.append(tensor.op)
                writers = self.writers.get(tensor.ref(), [])
                pending += [writer for writer in writers if self.position[writer] < self.position[op]]
        return sorted(seen, key=self.position.__getitem__)

    def leads(self, tensor: tf.Tensor) -> bool:
        """Return whether the target depends on `tensor`."""
        return tensor.ref() in self.consumers or tensor is self.recording.target

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

    def cuts(self, ways: dict) -> dict[tf.Operation, set]:
        """Return the operations that stop a part of a gradient, and the ``ref()`` of each source concerned.

        A part is lost where the result is used as a number and has a gradient itself. Nothing is lost where it is a
        decision or an index (the condition of a tf.where, a mask), where only a shape is read, or where a
        straight-through estimator lets the gradient pass by the operation.
        """
        behind: dict = {entry.ref(): {entry.ref()} for entry in self.recording.sources}
        cut: dict[tf.Operation, set] = defaultdict(set)
        for op in self.ops:
            for index, tensor in enumerate(self.inputs[op]):
                if not (concerned := behind.get(tensor.ref())):
                    continue
                if self.writes(op):
                    cut[op] |= concerned if index > 0 else set()
                    continue
                onward = [number for number, output in enumerate(op.outputs) if output.ref() in ways]
                passing = [n for n in onward if op.type not in FLAT and self.passes(op, index, n)]
                for number in passing:
                    behind.setdefault(op.outputs[number].ref(), set()).update(concerned)
                if passing or op.type in SHAPES or self._straight_through(op):
                    continue
                if any(self._is_number(op.outputs[number], ways) for number in onward):
                    cut[op] |= concerned
        return {op: concerned for op, concerned in cut.items() if concerned}

    def _is_number(self, tensor: tf.Tensor, ways: dict) -> bool:
        """Return whether a gradient arrives at a tensor, or at the float that is made of an integer."""
        if is_float(tensor):
            return tensor.ref() in ways and ways[tensor.ref()].rank == ARRIVES
        uses = [op for op, _ in self.consumers.get(tensor.ref(), ()) if tensor.dtype.is_integer]
        whole = [op for op in uses if op.type == "Cast" or not any(is_float(output) for output in op.outputs)]
        return any(self._is_number(output, ways) for op in whole for output in op.outputs)

    def _straight_through(self, op: tf.Operation) -> bool:
        """Return whether `op` is the StopGradient in ``x + tf.stop_gradient(step(x) - x)``."""
        if op.type != "StopGradient" or op.inputs[0].op.type != "Sub":
            return False
        taken = _root(op.inputs[0].op.inputs[1])
        sums = [user for user, _ in self.consumers.get(op.outputs[0].ref(), ()) if user.type in ("Add", "AddV2")]
        return any(_root(tensor) is taken for user in sums for tensor in user.inputs)

    def passes(self, op: tf.Operation, index: int, number: int) -> bool:
        """Return whether the gradient of output `number` of `op` reaches its input `index`."""
        before, after = self.inputs[op][index], op.outputs[number]
        if tf.variant in (before.dtype, after.dtype):
            return True  # a list of tensors, for which TensorFlow returns no gradient to look at
        if op.type == "EagerPyFunc":  # its gradient can be asked for only once
            return op not in self.recording.no_gradient
        alike = () if has_body(op) else (op.type, own_gradient(op))
        key = (alike or op.name, number, after.dtype, *(tensor.dtype for tensor in self.inputs[op]))
        if key not in self._passes:
            self._passes[key] = [gradient is not None for gradient in self._backward(op, number)]
        return self._passes[key][index]

    def _backward(self, op: tf.Operation, number: int) -> list:
        """Return the gradients of one output of `op` with respect to its inputs."""
        inputs = self.inputs[op]
        handles = any(tensor.dtype in (tf.resource, tf.variant) for tensor in inputs)
        if handles or has_body(op) or op.op_def.is_stateful:
            return self.recording.vjp([op.outputs[number]], inputs, stop=self.stop(op))
        # TensorFlow walks through all that follows the inputs: nothing but the copy follows these
        fresh = [tf.identity(tensor) for tensor in inputs]
        kinds = [output.dtype for output in op.outputs]
        copy = self.recording.graph.create_op(op.type, fresh, kinds, attrs=dict(op.node_def.attr))
        return self.recording.vjp([copy.outputs[number]], fresh)

    def stop(self, op: tf.Operation) -> list[tf.Tensor]:
        """Return the tensors at which a gradient is to stop so that it passes through `op` alone."""
        return [tensor for tensor in self.inputs[op] if tensor.dtype != tf.resource]

    def after(self, tensors: Iterable[tf.Tensor]) -> list[tf.Tensor]:
        """Return the tensors on the ways from `tensors` to the target, `tensors` included."""
        found = {tensor.ref() for tensor in tensors}
        for op in self.ops:
            if any(tensor.ref() in found for tensor in self.inputs[op]):
                found.update(output.ref() for output in op.outputs)
        return [ref.deref() for ref in found if self.leads(ref.deref())]


def has_body(op: tf.Operation) -> bool:
    """Return whether `op` is a tf.cond, a loop or a function, with operations of its own inside."""
    if op.type not in _HAS_BODY:
        _HAS_BODY[op.type] = any(attr.type == "func" for attr in op.op_def.attr)
    return _HAS_BODY[op.type]


def _root(tensor: tf.Tensor) -> tf.Tensor:
    """Return the tensor, or the handle of a variable, whose value operations like Identity hand on as `tensor`."""
    return _root(tensor.op.inputs[0]) if tensor.op.type in PLUMBING and tensor.op.inputs else tensor


def own_gradient(op: tf.Operation) -> Any:
    """Return the name of the gradient that `tf.custom_gradient` registered for `op`, or an empty string."""
    try:
        return op.get_attr("_gradient_op_type").decode()
    except ValueError:
        return ""
