"""The sizes of gradients and values in a graph: `Signal` finds where they become 0, NaN or infinite."""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tapekit._sources import is_float
from tapekit.explaining.flow import Flow


class Signal:
    """The sizes of the gradients that flow back to some sources, at each tensor and along each edge, and of values.

    ``question`` is a structure of tensors of the graph; `answered` takes their values. `zero_at`, `nan_at` and `origin`
    then find the operation at fault.
    """

    def __init__(self, flow: Flow, sources: list[tf.Tensor], *, values: bool) -> None:
        self.flow = flow
        tensors = flow.after(sources)
        gradients = flow.recording.gradients(tensors)
        self.known = {t.ref(): gradient for t, gradient in zip(tensors, gradients, strict=True) if gradient is not None}
        forks = [tensor for tensor in self.known if len(flow.consumers.get(tensor, ())) > 1]
        shares = {}
        if len(forks) < 50:  # each share costs TensorFlow a walk through the graph
            shares = {(op, index): self._share(tensor, op) for tensor in forks for op, index in flow.consumers[tensor]}
        inside = {t.ref(): t for op in flow.ops for t in (*flow.inputs(op), *op.outputs) if values and is_float(t)}
        self._asked = (self.known, {edge: share for edge, share in shares.items() if share is not None}, inside)
        self.question = [[_magnitude(tensor) for tensor in asked.values()] for asked in self._asked]

    def _share(self, tensor: Any, op: tf.Operation) -> tf.Tensor | None:
        """Return the part of the gradient of `tensor` that flows back through `op`."""
        outputs = [output for output in op.outputs if output.ref() in self.known]
        upstream = [self.known[output.ref()] for output in outputs]
        return self.flow.recording.vjp(outputs, [tensor.deref()], upstream, stop=self.flow.stop(op))[0]

    def answered(self, answer: list) -> None:
        """Store the values of `question`."""
        self.gradients, self.shares, self.values = (
            dict(zip(asked, magnitudes, strict=True)) for asked, magnitudes in zip(self._asked, answer, strict=True)
        )

    def gradients_into(self, op: tf.Operation) -> list[tf.Tensor]:
        """Return the gradients, as tensors of the graph, of the inputs of `op`."""
        inputs = self.flow.inputs(op)
        return [self.known[tensor.ref()] for tensor in inputs if tensor.ref() in self.known]

    def zero_at(self, source: tf.Tensor) -> tuple[list[tf.Operation], bool]:
        """Return the operations from `source` to the one whose outputs have a gradient that is not 0.

        The second result is whether the parts that arrive at `source` are not 0 themselves, but cancel.
        """
        cancelled = set()

        def stops(op: tf.Operation, share: float) -> bool:
            if share:
                cancelled.add(op)
            return any(self.gradients[output] for output in self._known_outputs(op))

        path = self._search(source, lambda share: True, stops)
        return path, bool(path) and path[-1] in cancelled

    def nan_at(self, source: tf.Tensor) -> list[tf.Operation]:
        """Return the operations from `source` to the one whose outputs have a finite gradient."""
        return self._search(
            source,
            lambda share: not math.isfinite(share),
            lambda op, share: all(math.isfinite(self.gradients[output]) for output in self._known_outputs(op)),
        )

    def origin(self, op: tf.Operation) -> tf.Tensor | None:
        """Return the first tensor, on the way to `op`, whose value is not finite."""
        found = None
        while bad := [
            t for t in self.flow.recording.inputs.get(op, []) if not math.isfinite(self.values.get(t.ref(), 0))
        ]:
            found, op = bad[0], bad[0].op
        return found

    def _known_outputs(self, op: tf.Operation) -> list:
        return [output.ref() for output in op.outputs if output.ref() in self.gradients]

    def _search(self, source: tf.Tensor, goes: Callable, stops: Callable) -> list[tf.Operation]:
        """Return the path to the last operation, in execution order, at which an edge that `goes` also `stops`."""
        came_by: dict = {source.ref(): None}
        end = None
        for op in self.flow.ops:
            for index, tensor in enumerate(self.flow.inputs(op)):
                if tensor.ref() not in came_by:
                    continue
                onward = self._known_outputs(op)
                share = self.shares.get((op, index), self.gradients.get(tensor.ref()))
                if tensor.dtype == tf.variant:
                    share = 0.0 if goes(0.0) else math.nan  # a list of tensors, whose gradient is not known
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
    """Return the sum of magnitudes: 0 if every element is 0, not finite if an element is not."""
    size = tf.abs(tf.reshape(tensor, [-1]))
    return tf.reduce_sum(size if size.dtype.size > 2 else tf.cast(size, tf.float32))
