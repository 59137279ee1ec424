"""`fn` along lines through the point: `Lines`.

A *line* moves the coordinates ``[start, start + width)`` of the point, all sources as one long real vector (a complex
number is two coordinates): one element if the width is 1, else a random direction in a block of elements.
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
from tapekit.checking.dtypes import epsilon, floats, real, tiny
from tapekit.checking.float64 import Float64
from tapekit.checking.tape import TapeGradient

ROUNDINGS = 16  # of numbers that cancel may add up in one value
PATIENCE = 3.0  # seconds after which a reader at a terminal wants to know that something happens


class Values(NamedTuple):
    """The ``change`` of <cotangent, fn> at each step; the size of those outputs that move, ``there`` and at the point
    (``here``); the ``step`` that was taken."""

    change: np.ndarray
    there: np.ndarray
    here: np.ndarray
    step: np.ndarray


class Lines:
    """Evaluate `fn` on lines: in `float64`, or else in its own dtype, if not in a `graph` one value at a time.

    In its own dtype variables are assigned (the caller restores them). ``eps`` is the precision of the values,
    ``height`` the size of the outputs that move at all, ``still`` the cotangents of the others, ``depth`` the size of
    those and ``count`` the same if each is at most 1.
    """

    def __init__(
        self, call: Call, tape: TapeGradient, seed: int, progress: bool | None, eps: float, *,
        float64: Float64 | None = None, graph: bool = True,
    ):  # fmt: skip
        self.call, self.tape, self.float64, self.graph = call, tape, float64, graph
        self.eps = eps
        seen = sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")
        wait = PATIENCE if progress is None and seen else 0.0 if progress else math.inf
        self.shown = time.monotonic() + wait
        self.narrow = max((source.dtype.real_dtype for source in call.sources), key=epsilon)
        parts = [real(source) for source in call.sources]
        self.sizes = [int(x.shape[0]) for x in parts]
        self.ends = np.cumsum(self.sizes)
        self.point = tf.concat(parts, 0)
        outputs = floats(call(leaves_at(call, self.point)))
        self.outputs = [real(y) for y in outputs]
        self.tiny = max(tiny(tensor.dtype) for tensor in (*outputs, *call.sources))
        self.unit = self._directions(np.random.default_rng(seed))
        self.units = tf.constant(self.unit)
        pairs = list(zip(self._moves(outputs), tape.cotangents, strict=True))
        moving, self.still = ([tf.where(m == keep, c, tf.zeros_like(c)) for m, c in pairs] for keep in (True, False))
        self.weights = [real(c) / tape.scale for c in moving]
        self.height, self.depth = (self._size(each) / abs(tape.scale) for each in (moving, self.still))
        self.count = min(self.depth, float(sum(tf.reduce_sum(tf.abs(real(c))) for c in self.still)))
        loop = tf.function(lambda rows: tf.map_fn(self._at, rows, parallel_iterations=1), autograph=False)
        rows = tf.TensorSpec([None, 3], tf.float64)
        self.run = loop.get_concrete_function(rows) if graph else lambda rows: tf.stack([self._at(row) for row in rows])
        self.offset = np.array([self.run(tf.zeros([1, 3], tf.float64)).numpy()[0, 0], 0, 0, 0])

    def _size(self, cotangents: list) -> float:
        """Return the size of the outputs under `cotangents`; one that is infinite under 0 is 0."""
        pairs = zip(self.outputs, map(real, cotangents), strict=True)
        return float(sum(tf.reduce_sum(tf.math.multiply_no_nan(tf.abs(y), tf.abs(c))) for y, c in pairs))

    def _moves(self, outputs: list) -> list[tf.Tensor]:
        """Return which outputs move if all coordinates do; a single number always counts."""
        if sum(int(tf.size(y)) for y in outputs) <= 1:
            return [tf.ones_like(y, tf.bool) for y in outputs]
        moved = [tf.zeros_like(y, tf.bool) for y in outputs]
        for step in (0.1, self.eps ** (1 / 3), self.eps ** (1 / 2)):
            for sign in (1, -1):
                with contextlib.suppress(Exception):  # beyond its domain fn may raise
                    there = floats(self.call(leaves_at(self.call, self.point + sign * step * self.units)))
                    moved = [m | (y != y0) for m, y, y0 in zip(moved, there, outputs, strict=True)]
        return moved

    def _directions(self, rng: np.random.Generator) -> np.ndarray:
        """Return how far each coordinate moves at step 1: its own size, or what is typical of its source."""
        x = self.point.numpy()
        for part in np.split(x, self.ends[:-1]):
            np.maximum(np.abs(part), np.sqrt(np.mean(np.square(part))) if len(part) else 0.0, out=part)
        x[~((x > 0) & np.isfinite(x))] = 1.0
        signs = rng.choice(np.array([-1.0, 1.0], "float32"), len(x))
        if self.eps > 1e-8:  # a block's slope stands out of the rounding only if its elements pull together
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
            if time.monotonic() >= self.shown:
                end = "\n" if len(values) == len(rows) else ""
                print(f"\rcheck_gradient: {len(values)}/{len(rows)} values", end=end, file=sys.stderr, flush=True)
        return Values(*np.moveaxis(np.reshape(values, [*steps.shape, 4]), -1, 0))

    def agrees(self, eps: float) -> bool:
        """Whether this is the function that the tape saw: outputs that move are the same up to rounding by `eps`."""
        for y, y0, weight in zip(map(real, self.tape.outputs), self.outputs, self.weights, strict=True):
            if y.shape != y0.shape:
                return False
            same = (weight == 0) | (y == y0) | (tf.math.is_nan(y) & tf.math.is_nan(y0))
            off, size = (np.max(np.abs(x[~same]), initial=0.0) for x in (y - y0, y))
            if not (off <= np.sqrt(eps) * size or off <= ROUNDINGS * eps * self.largest):
                return False
        return not abs(self.offset[0]) > np.sqrt(eps) * self.height

    @functools.cached_property
    def largest(self) -> float:
        """The largest L2 norm of a tensor on the way, 1 at least; times eps it is the rounding of a sum on the way."""
        point = np.abs(self.point.numpy())
        size = max(1.0, self.height, np.max(point, initial=0.0, where=np.isfinite(point)))
        with contextlib.suppress(Exception):
            return max(size, self.float64.largest(leaves_at(self.call, self.point))) if self.float64 else size
        return size

    def _safely(self, rows: np.ndarray) -> np.ndarray:
        """Halve a batch that raises until the step that raises is alone: its values are NaN."""
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
        here, unit = x[start:stop], self.units[start:stop]
        there = tf.cast(tf.cast(here + step * unit, self.narrow), x.dtype)
        taken = tf.reduce_sum((there - here) * unit) / tf.reduce_sum(unit * unit)  # the step that is really taken
        moved = tf.ensure_shape(tf.concat([x[:start], there, x[stop:]], 0), x.shape)
        outputs = map(real, floats(self.call(leaves_at(self.call, moved))))
        sums = tf.zeros([3], tf.float64)
        for y, y0, c in zip(outputs, self.outputs, self.weights, strict=True):
            c = tf.where(y == y0, tf.zeros_like(c), c)
            y, y0 = (tf.where(c == 0, tf.zeros_like(c), each) for each in (y, y0))  # also where both are infinite
            sums += tf.stack([tf.reduce_sum(each) for each in (c * (y - y0), tf.abs(c * y), tf.abs(c * y0))])
        return tf.concat([sums, [taken]], 0)


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
