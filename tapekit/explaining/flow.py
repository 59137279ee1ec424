"""Where a gradient stops: a `Recording` asked, edge by edge, whether TensorFlow sends a gradient back along it.

No list of operations decides here. An edge passes if `tf.gradients` of that one operation gives something; the break
of a source is the edge, on the way from it to the target, that does not.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import tensorflow as tf

from tapekit._sources import is_float
from tapekit.graphs.capture import SHAPES, Recording

# How near to the loss of a gradient a way leads: the best one is told.
SHAPE, CUT, CUT_FROM_TARGET, ARRIVES = range(4)


class Way(NamedTuple):
    """A way from a tensor towards the target: how it ends (`rank`), where (`last`), and its next operation."""

    rank: int
    position: float
    last: tf.Operation | None
    op: tf.Operation | None
    onward: "Way | None"

    def ops(self) -> list[tf.Operation]:
        """The operations up to the break, the broken one included."""
        found: list[tf.Operation] = []
        way: Way | None = self
        while way is not None and way.op is not None:
            found.append(way.op)
            way = way.onward
        return found


class Flow:
    """The operations of a recording that lead to its target, and along which of their edges gradients flow back."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.position = {op: index for index, op in enumerate(recording.ops)}
        self.writers = self._writers()
        self.ops = self._leading()
        self.consumers: dict = defaultdict(list)
        for op in self.ops:
            for index, tensor in enumerate(self.inputs(op)):
                self.consumers[tensor.ref()].append((op, index))
        self._passes: dict = {}

    def inputs(self, op: tf.Operation) -> list[tf.Tensor]:
        return self.recording.inputs[op]

    def _writers(self) -> dict:
        """Handle of a variable or table -> the operations that write it: what one writes, a later one reads."""
        found: dict = defaultdict(list)
        for op in filter(self.writes, self.recording.ops):
            found[self.inputs(op)[0].ref()].append(op)
        return found

    def writes(self, op: tf.Operation) -> bool:
        """Whether `op` puts a number into a variable or a table."""
        inputs = self.inputs(op)
        return not op.outputs and len(inputs) > 1 and inputs[0].dtype == tf.resource

    def _leading(self) -> list[tf.Operation]:
        """The operations that lead to the target, also through a variable's state, in execution order."""
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
        """Tensor (its ``ref()``) -> its best way towards the target; tensors that do not lead there are left out."""
        target = self.recording.target
        found = {target.ref(): Way(ARRIVES, math.inf, None, None, None)}
        tensors = [tensor for op in reversed(self.ops) for tensor in op.outputs]
        for tensor in dict.fromkeys(t.ref() for t in (*tensors, *self.recording.sources)):
            ways = [way for op, index in self.consumers[tensor] for way in self._through(op, index, found)]
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
        """Whether a gradient of output `number` reaches input `index`, through this operation alone."""
        before, after = self.inputs(op)[index], op.outputs[number]
        if tf.variant in (before.dtype, after.dtype):
            return True  # a list of tensors, which cannot be asked
        kinds = (after.dtype, *(tensor.dtype for tensor in self.inputs(op)))
        key = (op.name if has_body(op) else op.type, number, kinds, own_gradient(op))
        if key not in self._passes:
            found = self.recording.vjp([after], self.inputs(op), stop=self.stop(op))
            self._passes[key] = [gradient is not None for gradient in found]
        return self._passes[key][index]

    def stop(self, op: tf.Operation) -> list[tf.Tensor]:
        """What keeps a question about `op` to `op` alone."""
        return [tensor for tensor in self.inputs(op) if tensor.dtype != tf.resource]

    def after(self, tensors: Iterable[tf.Tensor]) -> list[tf.Tensor]:
        """The float tensors on the ways from `tensors` to the target, `tensors` included."""
        found = {tensor.ref() for tensor in tensors}
        for op in self.ops:
            if any(tensor.ref() in found for tensor in self.inputs(op)):
                found.update(output.ref() for output in op.outputs)
        return [ref.deref() for ref in found if ref in self.consumers or ref.deref() is self.recording.target]


def has_body(op: tf.Operation) -> bool:
    """Whether `op` is a tf.cond, a loop or a function, with operations of its own inside."""
    return any(attr.type == "func" for attr in op.op_def.attr)


def takes_twice(op: tf.Operation) -> bool:
    """Whether `op` takes one tensor twice, as in x - x."""
    return len({tensor.ref() for tensor in op.inputs}) < len(op.inputs)


def own_gradient(op: tf.Operation) -> str:
    """The name of the gradient that `op` was given by `tf.custom_gradient`, or nothing."""
    try:
        return op.get_attr("_gradient_op_type").decode()
    except ValueError:
        return ""


class Signal:
    """What flows back to some sources, as numbers: the sum of magnitudes at each tensor and on each edge.

    ``question`` goes into the graph, `hear` takes its answer; `zero_at` and `nan_at` then find the operation.
    """

    def __init__(self, flow: Flow, sources: list[tf.Tensor], *, values: bool) -> None:
        self.flow = flow
        tensors = flow.after(sources)
        gradients = flow.recording.gradients(tensors)
        self.known = {t.ref(): gradient for t, gradient in zip(tensors, gradients, strict=True) if gradient is not None}
        forks = [tensor for tensor in self.known if len(flow.consumers[tensor]) > 1]
        shares = {}
        if len(forks) < 50:  # each share costs TensorFlow a walk through the graph; in a large model the sum must do
            shares = {(op, index): self._share(tensor, op) for tensor in forks for op, index in flow.consumers[tensor]}
        inside = {t.ref(): t for op in flow.ops for t in (*flow.inputs(op), *op.outputs) if values and is_float(t)}
        self._asked = (self.known, {edge: share for edge, share in shares.items() if share is not None}, inside)
        self.question = [[_magnitude(tensor) for tensor in asked.values()] for asked in self._asked]

    def _share(self, tensor: Any, op: tf.Operation) -> tf.Tensor | None:
        """What flows back to `tensor` through `op` alone."""
        outputs = [output for output in op.outputs if output.ref() in self.known]
        upstream = [self.known[output.ref()] for output in outputs]
        return self.flow.recording.vjp(outputs, [tensor.deref()], upstream, stop=self.flow.stop(op))[0]

    def hear(self, answer: list) -> None:
        """Take the answer to `question`."""
        self.gradients, self.shares, self.values = (
            dict(zip(asked, magnitudes, strict=True)) for asked, magnitudes in zip(self._asked, answer, strict=True)
        )

    def zero_at(self, source: tf.Tensor) -> tuple[list[tf.Operation], bool]:
        """The operations from `source` to the one behind which the gradient is not zero; whether its parts cancel."""
        cancelled = set()

        def stops(op: tf.Operation, share: float) -> bool:
            if share:
                cancelled.add(op)
            return any(self.gradients[output] for output in self._heard(op))

        path = self._search(source, lambda share: True, stops)
        return path, bool(path) and path[-1] in cancelled

    def nan_at(self, source: tf.Tensor) -> list[tf.Operation]:
        """The operations from `source` to the one behind which the gradient is still finite."""
        return self._search(
            source,
            lambda share: not math.isfinite(share),
            lambda op, share: all(math.isfinite(self.gradients[output]) for output in self._heard(op)),
        )

    def origin(self, op: tf.Operation) -> tf.Tensor | None:
        """The first tensor, on the way to `op`, whose own value is not finite."""
        found = None
        while bad := [
            t for t in self.flow.recording.inputs.get(op, []) if not math.isfinite(self.values.get(t.ref(), 0))
        ]:
            found, op = bad[0], bad[0].op
        return found

    def _heard(self, op: tf.Operation) -> list:
        return [output.ref() for output in op.outputs if output.ref() in self.gradients]

    def _search(self, source: tf.Tensor, goes: Callable, stops: Callable) -> list[tf.Operation]:
        """The path to the last operation, in execution order, at which an edge that `goes` also `stops`."""
        came_by: dict = {source.ref(): None}
        end = None
        for op in self.flow.ops:
            for index, tensor in enumerate(self.flow.inputs(op)):
                if tensor.ref() not in came_by:
                    continue
                onward = self._heard(op)
                share = self.shares.get((op, index), self.gradients.get(tensor.ref()))
                if tensor.dtype == tf.variant:
                    share = 0.0 if goes(0.0) else math.nan  # a list of tensors, of which nothing is known
                if not onward:
                    onward = [output.ref() for output in op.outputs if output.dtype == tf.variant]
                elif share is None or not goes(share):
                    continue
                elif stops(op, share if (op, index) in self.shares else 0):
                    end = (op, tensor)
                    continue
                came_by |= {output: (op, tensor) for output in onward if output not in came_by}
        path = []
        while end is not None:
            path.append(end[0])
            end = came_by[end[1].ref()]
        return path[::-1]


def _magnitude(tensor: tf.Tensor) -> tf.Tensor:
    """One number that is 0, or not finite, as the whole tensor is."""
    size = tf.abs(tf.reshape(tensor, [-1]))
    return tf.reduce_sum(size if size.dtype.size > 2 else tf.cast(size, tf.float32))
