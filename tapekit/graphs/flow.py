"""Where a gradient stops: `Flow` asks TensorFlow, edge by edge of a `Recording`, whether a gradient passes back.

No list of operations decides this. A gradient passes along an edge if `tf.gradients` of that one operation is not None.
The gradient of a source stops at the edge, on the way from the source to the target, where it is None.
"""

import gc
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tapekit._sources import is_float
from tapekit.graphs.recording import IDENTITIES, SHAPES, Recording

# How a way from a tensor towards the target ends: where only a shape is read; in Python, where it decides at most;
# where a decision or an index is made; where a number is made that has a gradient itself; or at the target.
SHAPE, DECIDES, CUT, NUMBER, ARRIVES = range(5)
FLAT = {"Sign"}  # step functions whose registered gradient is 0, not None
_HAS_BODY: dict[str, bool] = {}  # by type of operation: to read its definition takes long


class Way(NamedTuple):
    """A way from a tensor towards the target, or to the operation at which the gradient stops."""

    rank: int  # how it ends
    position: float  # of its last operation, in execution order
    last: tf.Operation | None  # None at the target
    op: tf.Operation | None  # its first operation
    onward: "Way | None"  # the way from there

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

    def __init__(self, recording: Recording, targets: Sequence[tf.Tensor] = (), asked: Collection = ()) -> None:
        self.recording = recording
        self.targets = targets or [recording.target]
        self.asked = asked  # operations whose values fn used in Python
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
        return not op.outputs and len(self.inputs[op]) > 1 and self.inputs[op][0].dtype == tf.resource

    def _leading(self) -> list[tf.Operation]:
        """Return the operations on which the target depends, also through variables, in execution order."""
        seen, pending = set(), [*(target.op for target in self.targets), *self.asked]
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
        return tensor.ref() in self.consumers or any(tensor is target for target in self.targets)

    def after(self, tensors: Iterable[tf.Tensor]) -> list[tf.Tensor]:
        """Return the tensors on the ways from `tensors` to the target, `tensors` included."""
        found = {tensor.ref() for tensor in tensors}
        for op in self.ops:
            if any(tensor.ref() in found for tensor in self.inputs[op]):
                found.update(output.ref() for output in op.outputs)
        return [ref.deref() for ref in found if self.leads(ref.deref())]

    def ways(self) -> dict[Any, dict]:
        """Return, for the ``ref()`` of each tensor, the best way to each operation at which its gradient stops.

        The key of a way that arrives at the target is None.
        """
        arrival = Way(ARRIVES, math.inf, None, None, None)
        found: dict[Any, dict] = {target.ref(): {None: arrival} for target in self.targets}
        for op in reversed(self.ops):
            for index, tensor in enumerate(self.inputs[op]):
                for way in self._through(op, index, found):
                    ends = found.setdefault(tensor.ref(), {})
                    ends[way.last] = max(way, ends.get(way.last, way), key=lambda each: each.rank)
        return found

    def _through(self, op: tf.Operation, index: int, found: dict) -> Iterator[Way]:
        """Yield the ways from one input of `op`, where those from its outputs are known."""
        here = self.position[op]
        if op in self.asked or (self.writes(op) and index > 0):
            yield Way(NUMBER if is_float(self.inputs[op][index]) else CUT, here, op, op, None)
        for number, output in enumerate(op.outputs):
            if output.ref() in found and self.passes(op, index, number):
                for way in found[output.ref()].values():
                    yield way._replace(op=op, onward=way)
            elif output.ref() in found and not (index == number and own_gradient(op)):
                counts = self._is_number(output, found) and not self._straight_through(op)
                rank = NUMBER if counts else CUT
                yield Way(SHAPE if op.type in SHAPES else rank, here, op, op, None)

    def _is_number(self, tensor: tf.Tensor, found: dict) -> bool:
        """Return whether a gradient arrives at a tensor, or at the float that is made of an integer."""
        if is_float(tensor):
            return None in found.get(tensor.ref(), {})
        uses = [op for op, _ in self.consumers.get(tensor.ref(), ()) if tensor.dtype.is_integer]
        whole = [op for op in uses if op.type == "Cast" or not any(is_float(output) for output in op.outputs)]
        return any(self._is_number(output, found) for op in whole for output in op.outputs)

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
        alike = op.name if has_body(op) else (op.type, own_gradient(op))
        key = (alike, number, after.dtype, *(tensor.dtype for tensor in self.inputs[op]))
        if key not in self._passes:
            self._passes[key] = [gradient is not None for gradient in self.backward(op, {number: None})]
        return self._passes[key][index] and op.type not in FLAT

    def backward(self, op: tf.Operation, upstream: dict[int, tf.Tensor | None]) -> list:
        """Return what flows back along each input edge of `op` alone, for gradients of its outputs (None for ones)."""
        inputs = self.inputs[op]
        outputs, stop = op.outputs, [tensor for tensor in inputs if tensor.dtype != tf.resource]
        handles = any(tensor.dtype in (tf.resource, tf.variant) for tensor in inputs)
        if not (handles or has_body(op) or op.op_def.is_stateful):
            # tf.gradients visits every operation that follows the inputs: only the copy follows these
            copy = self.recording.copy(op)
            inputs, outputs, stop = [*copy.inputs], copy.outputs, []
        flows = None if None in upstream.values() else [*upstream.values()]
        return self.recording.vjp([outputs[number] for number in upstream], inputs, flows, stop=stop)


def inside(path: Sequence[tf.Operation], recording: Recording, least: int = CUT) -> list[tf.Operation]:
    """Return the path, continued into the body of one of its operations to the one that stops the gradient there.

    It stops where the way from an input of the body ends with at least the rank `least`.
    """
    bodies = [(count, op) for count, op in enumerate(path, 1) if has_body(op)]
    # The garbage collector knows the graph of a body; an operation does not show it.
    graphs = [each for each in gc.get_objects() if issubclass(type(each), tf.Graph)] if bodies else []
    ends = [(rank, count, ops) for count, op in bodies for rank, ops in _ends_inside(op, recording.call, graphs)]
    losses = [end for end in ends if end[0] >= least]
    _, count, ops = max(losses, key=lambda end: (end[0], not has_body(end[2][-1])), default=(least, len(path), []))
    return [*path[:count], *ops]


def _ends_inside(op: tf.Operation, call: Any, graphs: Sequence[Any]) -> Iterator[tuple[int, list[tf.Operation]]]:
    """Yield the rank and the operations of each way that ends in a body of `op`, or in bodies inside it."""
    names = {each.name for value in op.node_def.attr.values() for each in (value.func, *value.list.func)}
    for graph in graphs:
        targets = [each for each in getattr(graph, "outputs", ()) if is_float(each) or each.dtype == tf.variant]
        if targets and graph.name in names:
            ops = graph.get_operations()
            flow = Flow(Recording(call, graph, graph.inputs, ops, targets[0]), targets)
            with graph.as_default():
                ways = flow.ways()
            starts = [each.ref() for each in graph.inputs if is_float(each) or each.dtype in (tf.resource, tf.variant)]
            yield from ((way.rank, way.ops()) for start in starts for way in ways.get(start, {}).values() if way.last)
            for inner in filter(has_body, flow.ops):
                yield from ((rank, [inner, *deeper]) for rank, deeper in _ends_inside(inner, call, graphs))


def has_body(op: tf.Operation) -> bool:
    """Return whether `op` is a tf.cond, a loop or a function, with operations of its own inside."""
    if op.type not in _HAS_BODY:
        _HAS_BODY[op.type] = any("func" in attr.type for attr in op.op_def.attr)
    return _HAS_BODY[op.type]


def _root(tensor: tf.Tensor) -> tf.Tensor:
    """Return the tensor, or the handle of a variable, whose value operations like Identity hand on as `tensor`."""
    return _root(tensor.op.inputs[0]) if tensor.op.type in IDENTITIES and tensor.op.inputs else tensor


def own_gradient(op: tf.Operation) -> Any:
    """Return the name of the gradient that `tf.custom_gradient` registered for `op`, or an empty string."""
    try:
        return op.get_attr("_gradient_op_type").decode()
    except ValueError:
        return ""


def leading_to(tensors: Iterable[tf.Tensor]) -> set[str]:
    """Return the names of the operations of a graph that compute `tensors`."""
    todo, found = [x.op for x in tensors], set()
    while todo:
        op = todo.pop()
        if op.name not in found:
            found.add(op.name)
            todo += [x.op for x in op.inputs]
    return found
