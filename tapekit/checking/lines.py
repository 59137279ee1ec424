"""`fn` along lines through the point: `Lines`.

A *line* moves the coordinates ``[start, start + width)`` of the point, all sources as one long real vector (a complex
number is two coordinates): one element if the width is 1, else a random direction in a block of elements.
"""

import sys
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, as_variable, values_of
from tapekit.checking.dtypes import epsilon, flat, floats, real, tiny
from tapekit.checking.tape import TapeGradient


class Values(NamedTuple):
    """What is known of `fn` at each step: an entry for each.

    The ``change`` of <cotangent, fn>, and of the sum of the outputs; the size of those outputs that move, ``there`` and
    at the point (``here``); the change that the gradient ``predicted``; the ``step`` that was taken.
    """

    change: np.ndarray
    of_sum: np.ndarray
    there: np.ndarray
    here: np.ndarray
    predicted: np.ndarray
    step: np.ndarray


class Lines:
    """Evaluate `fn` on lines: in one graph, or one value at a time where `fn` cannot be traced.

    With `wide`, `fn` gets float64 tensors in the place of its own arguments. Without it, tensors keep their dtype, and
    variables are assigned (the caller restores them). ``eps`` is that of the coarsest dtype of the values.
    """

    def __init__(self, call: Call, tape: TapeGradient, seed: int, *, wide: bool, graph: bool, progress: bool):
        self.call, self.wide, self.graph, self.progress = call, wide, graph, progress
        self.weights = [real(c) / tape.scale for c in tape.cotangents]
        parts = [real(source) if wide else flat(source) for source in call.sources]
        self.narrow = max((x.dtype for x in parts), key=epsilon)
        self.dtype = min((x.dtype for x in parts), key=epsilon)
        self.sizes = [int(x.shape[0]) for x in parts]
        self.ends = np.cumsum(self.sizes)
        self.point = tf.concat([tf.cast(x, self.dtype) for x in parts], 0)
        outputs = floats(call(self.leaves(self.point))) if wide else tape.outputs
        self.outputs = [real(y) for y in outputs]
        self.height = float(sum(tf.reduce_sum(tf.abs(c * y)) for c, y in zip(self.weights, self.outputs, strict=True)))
        self.eps = max(epsilon(tensor.dtype) for tensor in (*outputs, *parts))
        self.tiny = max(tiny(tensor.dtype) for tensor in (*outputs, *parts))
        self.finite = np.isfinite(tape.vector)
        self.gradient = np.where(self.finite, tape.vector, 0.0)
        self.unit = self._directions(np.random.default_rng(seed))
        self.units, self.gradients = tf.constant(self.unit, self.dtype), tf.constant(self.gradient)
        loop = tf.function(lambda rows: tf.map_fn(self._at, rows, parallel_iterations=1), autograph=False)
        rows = tf.TensorSpec([None, 3], tf.float64)
        self.run = loop.get_concrete_function(rows) if graph else lambda rows: tf.stack([self._at(row) for row in rows])
        self.offset = np.pad(self.run(tf.zeros([1, 3], tf.float64)).numpy()[0, :2], (0, 4))

    def _directions(self, rng: np.random.Generator) -> np.ndarray:
        """Return how far each coordinate moves at step 1: its own size, or what is typical of its source."""
        x = self.point.numpy().astype("float64")
        for part in np.split(x, self.ends[:-1]):
            np.maximum(np.abs(part), np.sqrt(np.mean(np.square(part))) if len(part) else 0.0, out=part)
        x[~((x > 0) & np.isfinite(x))] = 1.0
        signs = rng.choice(np.array([-1.0, 1.0], "float32"), len(x))
        if self.eps > 1e-8:  # a block's slope stands out of the rounding only if its elements pull together
            signs = np.where(self.gradient == 0, signs, np.sign(self.gradient))
        return x * signs * rng.uniform(0.5, 1.0, len(x))

    def __call__(self, starts: np.ndarray, widths: np.ndarray, steps: np.ndarray) -> Values:
        """Return `fn` at ``steps[i, j]`` on line i, for all i and j."""
        count = steps.shape[1]
        rows = np.stack([np.repeat(starts, count), np.repeat(widths, count), steps.ravel()], axis=1).astype("float64")
        values = []
        for chunk in np.array_split(rows, min(len(rows), 20) if self.progress else 1):
            values.append(self._safely(chunk))
            if self.progress:
                done = sum(map(len, values))
                end = "\n" if done == len(rows) else ""
                print(f"\rcheck_gradient [{'=' * (30 * done // len(rows)):<30}] {done}/{len(rows)} values", end=end)
                sys.stdout.flush()
        return Values(*np.moveaxis((np.concatenate(values) - self.offset).reshape(*steps.shape, 6), -1, 0))

    def agrees(self, tape: TapeGradient, coarsest: tf.DType) -> bool:
        """Whether this is the function that the tape saw: its values are the same up to rounding in `coarsest`."""
        eps = max(epsilon(dtype) for dtype in (coarsest, *(y.dtype for y in tape.outputs)))
        least = max((tiny(y.dtype) for y in tape.outputs), default=0.0)
        for y, y0 in zip(map(real, tape.outputs), self.outputs, strict=True):
            # eps alone: the rounding of numbers of size 1 on the way
            near = np.sqrt(eps) * np.max(np.abs(y), initial=0.0, where=np.isfinite(y)) + least + eps
            if y.shape != y0.shape or not np.allclose(y, y0, rtol=0, atol=near, equal_nan=True):
                return False
        return not abs(self.offset[0]) > np.sqrt(eps) * self.height

    def _safely(self, rows: np.ndarray) -> np.ndarray:
        """Halve a batch that raises until the step that raises is alone: its values are NaN."""
        try:
            return self.run(tf.constant(rows)).numpy()
        except Exception:
            if len(rows) == 1:
                return np.full([1, 6], np.nan)
        return np.concatenate([self._safely(half) for half in np.array_split(rows, 2)])

    def _at(self, row: tf.Tensor) -> tf.Tensor:
        """Return the `Values` of one row: the start and the width of a line, and a step."""
        start, width, step = tf.unstack(row)
        start, x = tf.cast(start, tf.int64), self.point
        stop = start + tf.cast(width, tf.int64)
        here, unit = x[start:stop], self.units[start:stop]
        there = tf.cast(tf.cast(here + tf.cast(step, x.dtype) * unit, self.narrow), x.dtype)
        done = tf.cast(there - here, tf.float64)  # the step that is really taken, fl(x + h) - x
        unit = tf.cast(unit, tf.float64)
        taken = tf.reduce_sum(done * unit) / tf.reduce_sum(unit * unit)
        predicted = tf.reduce_sum(self.gradients[start:stop] * done)
        moved = tf.ensure_shape(tf.concat([x[:start], there, x[stop:]], 0), x.shape)
        sums = tf.zeros([4], tf.float64)
        for y, y0, c in zip(map(real, self._values(moved)), self.outputs, self.weights, strict=True):
            moves = tf.cast(y != y0, y.dtype)
            sizes = (tf.math.multiply_no_nan(tf.abs(c * each), moves) for each in (y, y0))
            sums += tf.stack([tf.reduce_sum(each) for each in (c * (y - y0), y - y0, *sizes)])
        return tf.concat([sums, [predicted, taken]], 0)

    def leaves(self, point: tf.Tensor) -> list:
        """Return the arguments of `fn` at `point`, one flat real vector."""
        leaves = []
        for leaf, source, x in zip(self.call.leaves, self.call.sources, tf.split(point, self.sizes), strict=True):
            like = values_of(source)
            x = x if self.wide else tf.cast(x, like.dtype.real_dtype)
            if like.dtype.is_complex:
                x = tf.complex(*tf.unstack(tf.reshape(x, [-1, 2]), axis=-1))
            value = tf.reshape(x, like.shape)
            if not self.wide and (variable := as_variable(leaf)) is not None:
                variable.assign(value)
                value = leaf
            elif isinstance(leaf, tf.RaggedTensor):
                value = leaf.with_flat_values(value)
            leaves.append(value)
        return leaves

    def _values(self, point: tf.Tensor) -> list[tf.Tensor]:
        """Return `fn` at `point`. In a graph, ``eps`` becomes that of the coarsest dtype which the point passes."""
        if tf.executing_eagerly():
            return floats(self.call(self.leaves(point)))
        graph = tf.compat.v1.get_default_graph()
        before = len(graph.get_operations())
        values = floats(self.call(self.leaves(point)))
        reached = {point.name}
        for op in graph.get_operations()[before:]:
            if any(x.name in reached for x in op.inputs):
                reached.update(y.name for y in (*op.outputs, *(op.inputs[:1] if op.type == "AssignVariableOp" else ())))
                self.eps = max([self.eps, *(epsilon(y.dtype) for y in op.outputs)])
        return values
