"""The slopes of `fn` along lines through the point: `Lines` evaluates `fn`, and `measure_slopes` returns `Slopes`.

The point is all sources as one real vector, in which a complex number is two coordinates. A *line* moves the
coordinates ``[start, start + width)`` of it and no other: a single element if the width is 1, else a *block* of
elements, which move together in a random direction.

Source: Press et al., Numerical Recipes, section 5.7 (step, rounding, Ridders' extrapolation).
"""

import functools
import math
import sys
import time
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tapekit._sources import Call
from tapekit.checking.float64 import Float64
from tapekit.checking.tape import TapeGradient, epsilon, floats, real
from tapekit.graphs.capture import leaves_at

PATIENCE = 3.0  # seconds without a sign of progress that a reader at a terminal accepts
STEPS = 12  # per line, evenly in log h between a tenth of the scale and eps^FINEST of it
FINEST = 0.6  # there, a block of a network is within its many kinks, and rounding does not hide the slope yet
ELEMENT = 1 / 3, 0.41  # powers of eps: quick steps of an element, near eps^(1/3), where differences are usually best
BLOCK = 0.4, 0.5  # and of a block, which has more kinks
WILD = 0.05  # if values scatter by more than this part of their size at the smallest steps, fn varies below these
GROWS, STEADY = 0.1, 0.3  # the least power of 1 / h by which a slope grows without bound, and how far it may vary
FAR = 2.0  # times the size of each coordinate: a step that moves also what saturates
READABLE = 200  # a slope of so many times its rounding shows how it grows as the step shrinks
SURE = 20.0  # the uncertainty is an estimate: over 500 functions, 20 times it separated right from wrong best
ROUNDINGS = 4.0  # that many rounding errors may add up in one value
AGREE = 2.0  # slopes at two steps are the same if they differ by at most so many uncertainties of rounding


class Lines:
    """Evaluate `fn` on lines in `dtype`: in `float64` or else as it is, as a ``graph`` or, with None, eagerly.

    A step moves an element by itself, and a block by ``step * direction``. The caller restores the variables.
    """

    def __init__(
        self, call: Call, tape: TapeGradient, dtype: tf.DType, float64: Float64 | None, seed: int, progress: bool | None
    ) -> None:
        self.call, self.tape, self.dtype, self.float64, self.eps = call, tape, dtype, float64, epsilon(dtype)
        interactive = sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")
        wait = 0.0 if progress else PATIENCE if progress is None and interactive else math.inf
        self.show_from = time.monotonic() + wait
        self.narrow = max((source.dtype.real_dtype for source in call.sources), key=epsilon)
        parts = [real(source) for source in call.sources]
        self.ends = np.cumsum([int(x.shape[0]) for x in parts])
        self.point = tf.concat(parts, 0)
        self.direction = tf.constant(self._direction(np.random.default_rng(seed)))
        self.outputs = floats(call(self.leaves(0.0)))
        rows = tf.TensorSpec([None, 3], tf.float64)
        self.run = tf.function(lambda rows: tf.map_fn(self._at, rows, parallel_iterations=1), [rows], autograph=False)
        try:
            self.graph = self.run.get_concrete_function()
        except Exception:  # fn cannot be traced
            self.graph, self.run = None, lambda rows: tf.stack([self._at(row) for row in rows])
        self.offset = np.array([self.run(tf.zeros([1, 3], tf.float64)).numpy()[0, 0], 0, 0])

    @functools.cached_property
    @np.errstate(all="ignore")  # sums may overflow
    def sizes(self) -> tuple[float, float]:
        """What `Float64.sizes` returns; if it cannot, nothing is known but the sources and the outputs."""
        size = np.nan_to_num(np.abs(tf.concat([self.point, *map(real, self.outputs)], 0)), posinf=0.0).sum()
        if not self.float64:
            return 0.0, ROUNDINGS * size
        swallowed = FAR + 10 * self.eps * size  # a step that moves also what an output swallows, but not a mask
        visible, hidden = self.float64.sizes(map(self.leaves, (0.0, 0.1, swallowed, -swallowed)))
        return visible / abs(self.tape.scale), ROUNDINGS * hidden

    def leaves(self, step: float) -> list:
        """Return the arguments of `fn` where each coordinate is moved by a step times 1 and its size."""
        return leaves_at(self.call, self.point + step * (tf.sign(self.direction) + self.direction))

    def _direction(self, rng: np.random.Generator) -> np.ndarray:
        """Return how far each element of a block moves at step 1: its own size or the RMS of its source, the larger."""
        x = self.point.numpy()
        for part in np.split(x, self.ends[:-1]):
            np.maximum(np.abs(part), np.sqrt(np.mean(np.square(part))) if len(part) else 0.0, out=part)
        x[~((x > 0) & np.isfinite(x))] = 1.0
        signed = rng.uniform(-1.0, 1.0, len(x))
        return x * np.copysign(0.5 + np.abs(signed) / 2, signed)

    def __call__(self, starts: np.ndarray, widths: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Return what `_at` returns at ``steps[i, j]`` on line i, `[3, lines, steps]`."""
        count = steps.shape[1]
        rows = np.stack([np.repeat(starts, count), np.repeat(widths, count), steps.ravel()], axis=1).astype("float64")
        values = []
        for chunk in np.array_split(rows, min(20, 1 + len(rows) // 16)):
            values.extend(self._safely(chunk) - self.offset)
            if time.monotonic() >= self.show_from:
                end = "\n" if len(values) == len(rows) else ""
                print(f"\rcheck_gradient: {len(values)}/{len(rows)} values", end=end, file=sys.stderr, flush=True)
        return np.moveaxis(np.reshape(values, [*steps.shape, 3]), -1, 0)

    def _safely(self, rows: np.ndarray) -> np.ndarray:
        """Return the values of `rows`; NaN for a step at which `fn` raises, which is found by halving the batch."""
        try:
            return self.run(tf.constant(rows)).numpy()
        except Exception:
            halves = np.array_split(rows, 2) if len(rows) > 1 else []
            return np.concatenate([self._safely(half) for half in halves]) if halves else np.full([1, 3], np.nan)

    def _at(self, row: tf.Tensor) -> tf.Tensor:
        """Return for ``[start, width, step]`` the change of <cotangent, fn>, the sum of |cotangent * output| over the
        outputs that change, and the step as the dtype rounds it."""
        start, width, step = tf.unstack(row)
        start, x = tf.cast(start, tf.int64), self.point
        stop = start + tf.cast(width, tf.int64)
        here, unit = x[start:stop], tf.where(width > 1, self.direction[start:stop], 1.0)
        there = tf.cast(tf.cast(here + step * unit, self.narrow), x.dtype)
        taken = tf.reduce_sum((there - here) * unit) / tf.reduce_sum(unit * unit)
        moved = tf.ensure_shape(tf.concat([x[:start], there, x[stop:]], 0), x.shape)
        outputs, sums = floats(self.call(leaves_at(self.call, moved))), tf.zeros([2], tf.float64)
        for y, y0, c in zip(map(real, outputs), map(real, self.outputs), map(real, self.tape.cotangents), strict=True):
            c = tf.where(y == y0, tf.zeros_like(c), c / self.tape.scale)
            y, y0 = (tf.where(c == 0, tf.zeros_like(c), each) for each in (y, y0))  # also where both are infinite
            sums += tf.stack([tf.reduce_sum(each) for each in (c * (y - y0), tf.abs(c * y))])
        return tf.concat([sums, [taken]], 0)


class Slopes(NamedTuple):
    """The slope of `fn` on a line: ``numeric`` +- ``uncertainty``, measured best at ``step``, unless it ``diverges``.

    The difference of ``left`` and ``right`` is known to +- ``sides``. ``curve`` are the differences at the ``steps``.
    """

    numeric: float
    uncertainty: float
    step: float
    left: float
    right: float
    sides: float
    diverges: bool
    steps: np.ndarray
    curve: np.ndarray


@np.errstate(all="ignore")  # fn may be undefined on a part of a line, or on all of it
def measure_slopes(lines: Lines, starts: np.ndarray, widths: np.ndarray, quick: bool = False) -> list[Slopes]:
    """Return the slope of each line from central differences, extrapolated to step 0, with its uncertainty.

    `quick` takes three steps where differences are usually best, and does not measure the rounding.
    """
    h = _steps(lines, starts, widths, quick)
    values = lines(starts, widths, np.concatenate([h, -h], axis=1))
    (up, size_up, ahead), (down, size_down, back) = np.split(values, 2, axis=2)
    h, change, size = ahead - back, up - down, np.fmax(size_up, size_down)
    central, left, right = change / h, down / back, up / ahead
    rounding = noise = 2 * lines.eps * size / h
    if not quick:
        rounding, noise = _rounding(lines, values[0], change, h, size)
    lower, upper = _extrapolate(left, -back, 2 * noise, 1), _extrapolate(right, ahead, 2 * noise, 1)
    best = _extrapolate(central, h, np.where(_is_large(left, right, noise), np.inf, noise), 2)
    for side in (upper, lower):  # at the edge of a domain, one side is all there is
        best = np.where(np.isfinite(best[1]), best, side)
    diverges = _diverges(right, 2 * rounding, h) | _diverges(left, 2 * rounding, h)
    sides = lower[0], upper[0], lower[1] + upper[1]
    return [*map(Slopes, *best[:2], best[2] / 2, *sides, diverges, h / 2, central)]


def _is_large(left: np.ndarray, right: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return whether `fn` varies within a step: at a smaller one, its sides differ by more, and not by noise alone."""
    gap = np.abs(right - left)  # each side has twice the noise of the central difference
    grows = gap[:, 1:] - 4 * noise[:, 1:] > AGREE * gap[:, :-1]
    larger = np.logical_or.accumulate(grows[:, ::-1], axis=1)[:, ::-1]
    return np.pad(larger, [(0, 0), (0, 1)])


def _steps(lines: Lines, starts: np.ndarray, widths: np.ndarray, quick: bool) -> np.ndarray:
    """Return the steps on each line, `[lines, steps]`, from large to small."""
    size = np.abs(lines.point.numpy()[starts])
    narrow = np.where((widths == 1) & (size > 0) & np.isfinite(size), size, 1.0)  # a block moves by about its own size
    wide = np.maximum(narrow, 1.0)
    if quick:
        coarse, fine = BLOCK if widths[0] > 1 else ELEMENT
        return np.geomspace(lines.eps**coarse * wide, lines.eps**fine * wide, 3, axis=1)
    return np.geomspace(0.1 * wide, np.minimum(narrow * lines.eps**FINEST, 0.01 * wide), STEPS, axis=1)


def _rounding(lines: Lines, changes: np.ndarray, change: np.ndarray, h: np.ndarray, size: np.ndarray) -> tuple:
    """Return the uncertainty of the central differences by rounding, and by all noise, `[lines, steps]`.

    A value is rounded by eps times the outputs that change, and by the rounding of the numbers on the way to them; what
    is hidden in an operation is at most the least change of a value. Noise is how far the changes at the smallest steps
    are from a straight line.
    """
    visible, hidden = (lines.eps * bound for bound in lines.sizes)
    least = np.fmin.reduce(np.where(changes == 0, np.inf, np.abs(changes)), axis=1, keepdims=True)
    rounding = 2 * np.fmax(np.fmax(lines.eps * size, visible), np.minimum(least, hidden)) / h
    slope = np.diff(change, axis=1) / np.diff(h, axis=1)  # the odd part of fn has no curvature
    noise = np.abs(np.diff(slope, axis=1) * h[:, 1:-1])[:, -3:]
    noise = np.median(noise, axis=1, keepdims=True)  # the median ignores a jump
    wild = (noise > WILD * size.max(1, keepdims=True)) & (noise > AGREE * max(visible, hidden))
    noise[wild] = np.inf  # by more than rounding explains: fn varies below the smallest step
    return rounding, np.fmax(rounding, 2 * noise / h)


def _extrapolate(slope: np.ndarray, h: np.ndarray, noise: np.ndarray, power: int) -> np.ndarray:
    """Return ``[value, uncertainty, step]`` per line: Richardson's extrapolation where two neighbours agree best.

    A slope has the error c h^power, so that S(h) and S(h/r) give S(h/r) + (S(h/r) - S(h)) / (r^power - 1).
    """
    ratio = (h[:, :-1] / h[:, 1:]) ** power
    better = slope[:, 1:] + (slope[:, 1:] - slope[:, :-1]) / (ratio - 1)
    spread = noise[:, 1:] * (ratio + 1) / (ratio - 1)
    # Large steps across a kink can agree. The distance from the slopes at smaller steps is uncertainty too.
    low = np.fmax.accumulate((better - AGREE * spread)[:, ::-1], axis=1)[:, ::-1]
    high = np.fmin.accumulate((better + AGREE * spread)[:, ::-1], axis=1)[:, ::-1]
    apart = np.fmax(np.fmax(low - better, better - high), 0.0)
    change = np.abs(np.diff(better, axis=1))
    change[:, :-1] = np.fmax(change[:, :-1], change[:, 1:])  # two may agree by chance, three hardly
    error = np.nan_to_num(change + spread[:, 1:] + apart[:, 1:], nan=np.inf, posinf=np.inf)
    best, rows = np.argmin(error, axis=1), np.arange(len(error))
    return np.array([better[rows, best + 1], error[rows, best], h[rows, best + 2]])


def _diverges(slope: np.ndarray, noise: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Return whether the slope grows like a power of 1/h to the smallest steps: a jump, or a vertical tangent."""
    slope, noise, h = (each[:, -4:] for each in (np.abs(slope), noise, h))
    power = -np.diff(np.log(slope), axis=1) / np.diff(np.log(h), axis=1)
    readable = (READABLE * noise <= slope).all(axis=1)
    return readable & (power.min(axis=1) > GROWS) & (np.ptp(power, axis=1) < STEADY)
