"""`fn` along lines through the point: `Lines`.

The point is all sources as one real vector, in which a complex number is two coordinates. A *line* moves the
coordinates ``[start, start + width)`` of it and no other: a single element if the width is 1, else a *block* of
elements, which move together in a random direction.
"""

import contextlib
import functools
import math
import sys
import time
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, as_variable, values_of
from tapekit.checking.dtypes import epsilon, floats, real
from tapekit.checking.float64 import Float64
from tapekit.checking.tape import TapeGradient

ROUNDINGS = 16  # rounding errors of numbers that cancel may add up in one value
PATIENCE = 3.0  # seconds without a sign of progress that a reader at a terminal accepts


class Values(NamedTuple):
    """At each ``step``, as the dtype rounds it, the ``change`` of <cotangent, fn>; ``there`` and ``here`` are the sums
    of |cotangent * output| over the outputs that changed, after the step and before it."""

    change: np.ndarray
    there: np.ndarray
    here: np.ndarray
    step: np.ndarray


class Lines:
    """Evaluate `fn` on lines, in `float64` or else in its own dtype; without a `graph`, one value at a time.

    In its own dtype variables are assigned (the caller restores them). ``eps`` is the precision of the values. A step
    along a line adds ``step * direction`` to the coordinates that it moves.
    Some outputs are constant: the same at every point tried. ``moving_size`` is the sum of |cotangent * output| over
    the outputs that change, and ``constant_size`` that over the others, whose cotangents are ``constant``;
    ``constant_weight`` is the sum of |cotangent| over these, at most ``constant_size``.
    """

    def __init__(
        self, call: Call, tape: TapeGradient, seed: int, progress: bool | None, eps: float, *,
        float64: Float64 | None = None, graph: bool = True,
    ):  # fmt: skip
        self.call, self.tape, self.float64, self.graph, self.eps = call, tape, float64, graph, eps
        self.show_from = time.monotonic() + _wait(progress)
        self.narrow = max((source.dtype.real_dtype for source in call.sources), key=epsilon)
        parts = [real(source) for source in call.sources]
        self.sizes = [int(x.shape[0]) for x in parts]
        self.ends = np.cumsum(self.sizes)
        self.point = tf.concat(parts, 0)
        outputs = floats(call(leaves_at(call, self.point)))
        self.outputs = [real(y) for y in outputs]
        self.direction = self._direction(np.random.default_rng(seed))
        self.direction_tensor = tf.constant(self.direction)
        self._split(outputs)
        loop = tf.function(lambda rows: tf.map_fn(self._at, rows, parallel_iterations=1), autograph=False)
        rows = tf.TensorSpec([None, 3], tf.float64)
        self.run = loop.get_concrete_function(rows) if graph else lambda rows: tf.stack([self._at(row) for row in rows])
        self.offset = np.array([self.run(tf.zeros([1, 3], tf.float64)).numpy()[0, 0], 0, 0, 0])

    def _split(self, outputs: list) -> None:
        """Separate the outputs that change from those that are constant."""
        pairs = list(zip(self._moves(outputs), self.tape.cotangents, strict=True))
        moving, self.constant = ([tf.where(m == keep, c, tf.zeros_like(c)) for m, c in pairs] for keep in (True, False))
        self.weights = [real(c) / self.tape.scale for c in moving]
        self.moving_size, self.constant_size = map(self._size, (moving, self.constant))
        weight = sum(tf.reduce_sum(tf.abs(real(c))) for c in self.constant)
        self.constant_weight = min(self.constant_size, float(weight))

    def _size(self, cotangents: list) -> float:
        """Return the sum of |cotangent * output|, where 0 * infinity is 0."""
        pairs = zip(self.outputs, map(real, cotangents), strict=True)
        sums = [tf.reduce_sum(tf.math.multiply_no_nan(tf.abs(y), tf.abs(c))) for y, c in pairs]
        return float(sum(sums)) / abs(self.tape.scale)

    def _moves(self, outputs: list) -> list[tf.Tensor]:
        """Return which outputs change when all coordinates move; a single number counts as one that does."""
        if sum(int(tf.size(y)) for y in outputs) <= 1:
            return [tf.ones_like(y, tf.bool) for y in outputs]
        moved = [tf.zeros_like(y, tf.bool) for y in outputs]
        for step in np.outer((0.1, self.eps ** (1 / 3), self.eps ** (1 / 2)), (1, -1)).flat:
            with contextlib.suppress(Exception):  # beyond its domain fn may raise
                there = floats(self.call(leaves_at(self.call, self.point + step * self.direction)))
                moved = [m | (y != y0) for m, y, y0 in zip(moved, there, outputs, strict=True)]
        return moved

    def _direction(self, rng: np.random.Generator) -> np.ndarray:
        """Return how far each coordinate moves at step 1: about its own size or the RMS of its source, the larger."""
        x = self.point.numpy()
        for part in np.split(x, self.ends[:-1]):
            np.maximum(np.abs(part), np.sqrt(np.mean(np.square(part))) if len(part) else 0.0, out=part)
        x[~((x > 0) & np.isfinite(x))] = 1.0
        signs = rng.choice(np.array([-1.0, 1.0], "float32"), len(x))
        if self.eps > 1e-8:  # the slope of a block is above the rounding only if its terms all have the same sign
            gradient = np.nan_to_num(self.tape.vector)
            signs = np.where(gradient == 0, signs, np.sign(gradient))
        return x * signs * rng.uniform(0.5, 1.0, len(x))

    def __call__(self, starts: np.ndarray, widths: np.ndarray, steps: np.ndarray) -> Values:
        """Return `fn` at ``steps[i, j]`` on line i, for all i and j."""
        count = steps.shape[1]
        rows = np.stack([np.repeat(starts, count), np.repeat(widths, count), steps.ravel()], axis=1).astype("float64")
        values = []
        for chunk in np.array_split(rows, min(20, 1 + len(rows) // 16)):
            values.extend(self._safely(chunk) - self.offset)
            if time.monotonic() >= self.show_from:
                end = "\n" if len(values) == len(rows) else ""
                print(f"\rcheck_gradient: {len(values)}/{len(rows)} values", end=end, file=sys.stderr, flush=True)
        return Values(*np.moveaxis(np.reshape(values, [*steps.shape, 4]), -1, 0))

    def agrees(self, eps: float) -> bool:
        """Whether this is the function that the tape saw: the outputs that change agree up to rounding by `eps`."""
        for y, y0, weight in zip(map(real, self.tape.outputs), self.outputs, self.weights, strict=True):
            if y.shape != y0.shape:
                return False
            same = (weight == 0) | (y == y0) | (tf.math.is_nan(y) & tf.math.is_nan(y0))
            off, size = (np.max(np.abs(x[~same]), initial=0.0) for x in (y - y0, y))
            if not (off <= np.sqrt(eps) * size or off <= ROUNDINGS * eps * self.largest):
                return False
        return not abs(self.offset[0]) > np.sqrt(eps) * self.moving_size

    @functools.cached_property
    def largest(self) -> float:
        """The largest L2 norm of an intermediate tensor, at least 1; times eps, it is the rounding of a sum in `fn`."""
        point = np.abs(self.point.numpy())
        size = max(1.0, self.moving_size, np.max(point, initial=0.0, where=np.isfinite(point)))
        with contextlib.suppress(Exception):
            return max(size, self.float64.largest(leaves_at(self.call, self.point))) if self.float64 else size
        return size

    def _safely(self, rows: np.ndarray) -> np.ndarray:
        """Return the values of `rows`; NaN for a step at which `fn` raises, which is found by halving the batch."""
        try:
            return self.run(tf.constant(rows)).numpy()
        except Exception:
            if len(rows) == 1:
                return np.full([1, 4], np.nan)
        return np.concatenate([self._safely(half) for half in np.array_split(rows, 2)])

    def _at(self, row: tf.Tensor) -> tf.Tensor:
        """Return the `Values` of one row: the start and the width of a line, and a step."""
        start, width, step = tf.unstack(row)
        start, x = tf.cast(start, tf.int64), self.point
        stop = start + tf.cast(width, tf.int64)
        here, unit = x[start:stop], self.direction_tensor[start:stop]
        there = tf.cast(tf.cast(here + step * unit, self.narrow), x.dtype)
        taken = tf.reduce_sum((there - here) * unit) / tf.reduce_sum(unit * unit)  # the dtype rounds the step
        moved = tf.ensure_shape(tf.concat([x[:start], there, x[stop:]], 0), x.shape)
        outputs = map(real, floats(self.call(leaves_at(self.call, moved))))
        sums = tf.zeros([3], tf.float64)
        for y, y0, c in zip(outputs, self.outputs, self.weights, strict=True):
            c = tf.where(y == y0, tf.zeros_like(c), c)
            y, y0 = (tf.where(c == 0, tf.zeros_like(c), each) for each in (y, y0))  # also where both are infinite
            sums += tf.stack([tf.reduce_sum(each) for each in (c * (y - y0), tf.abs(c * y), tf.abs(c * y0))])
        return tf.concat([sums, [taken]], 0)


def _wait(progress: bool | None) -> float:
    """Return after how many seconds the progress is shown."""
    interactive = sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")
    return 0.0 if progress else PATIENCE if progress is None and interactive else math.inf


def leaves_at(call: Call, point: tf.Tensor) -> list:
    """Return the arguments of `fn` at `point`, one flat real vector; variables are assigned."""
    leaves, sources = [], [values_of(source) for source in call.sources]
    sizes = [x.shape.num_elements() * (1 + x.dtype.is_complex) for x in sources]
    for leaf, source, x in zip(call.leaves, sources, tf.split(point, sizes), strict=True):
        x = tf.cast(x, source.dtype.real_dtype)
        if source.dtype.is_complex:
            x = tf.complex(*tf.unstack(tf.reshape(x, [-1, 2]), axis=-1))
        value = tf.reshape(x, source.shape)
        if (variable := as_variable(leaf)) is not None:
            variable.assign(value)
            value = leaf
        elif isinstance(leaf, tf.RaggedTensor):
            value = leaf.with_flat_values(value)
        leaves.append(value)
    return leaves
