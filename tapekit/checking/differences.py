"""Numbers with an uncertainty: the slopes of `fn` along many lines, from differences of its values.

A *line* moves the coordinates ``[start, start + width)`` of the point, all sources as one long real vector (a complex
number is two coordinates): one element if the width is 1, else a random direction in a block. `Lines` evaluates `fn`
on lines, in one graph where there is one; `ladder` turns the values at many steps into slopes that know their own
error.

Source: Press et al., Numerical Recipes, section 5.7 (step, rounding, Ridders' extrapolation).
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, as_variable, values_of
from tapekit.checking.float64 import epsilon, floats

RUNGS = 12  # steps per line, evenly in log h between a tenth of the scale and the square root of eps
AGREE = 2.0  # uncertainties of rounding within which a slope is the same as at smaller steps


class Slopes(NamedTuple):
    """What the values of `fn` say, an entry per line (``steps`` and ``curve``: a row per line).

    ``numeric`` +- ``uncertainty`` is the slope, measured best at ``step``; ``analytic`` what the gradient predicts on
    the line, ``norm`` its size there. ``for_sum`` is the slope of the plain sum of the outputs. ``left``
    and ``right`` are those of either side, their difference known to +- ``sides``. ``diverges``: no slope settles.
    """

    finite: np.ndarray
    norm: np.ndarray
    analytic: np.ndarray
    numeric: np.ndarray
    uncertainty: np.ndarray
    step: np.ndarray
    for_sum: np.ndarray
    left: np.ndarray
    right: np.ndarray
    sides: np.ndarray
    diverges: np.ndarray
    steps: np.ndarray
    curve: np.ndarray


class Lines:
    """`fn` along lines: every evaluation runs in one graph, or one by one where `fn` cannot be traced.

    With `wide`, `fn` gets float64 tensors in the place of its own arguments. Without it, tensors keep their dtype, and
    variables are assigned (who calls this puts them back).
    """

    def __init__(
        self, call: Call, outputs: Sequence, cotangents: Sequence, gradient: np.ndarray, *, coarsest: tf.DType,
        wide: bool, graph: bool, seed: int, progress: bool,
    ):  # fmt: skip
        self.call, self.coarsest, self.wide, self.graph, self.progress = call, coarsest, wide, graph, progress
        self.cotangents = [real(c) for c in cotangents]
        self.ones = [real(tf.ones_like(c)) for c in cotangents]
        parts = [real(source) if wide else flat(source) for source in call.sources]
        self.narrow = max((x.dtype for x in parts), key=epsilon)
        self.dtype = min((x.dtype for x in parts), key=epsilon)
        self.sizes = [int(x.shape[0]) for x in parts]
        self.ends = np.cumsum(self.sizes)
        self.point = tf.concat([tf.cast(x, self.dtype) for x in parts], 0)
        reference = floats(call(self.leaves(self.point))) if wide else outputs
        self.reference = [real(y) for y in reference]
        pairs = zip(self.cotangents, self.reference, strict=True)
        self.height = float(sum(tf.reduce_sum(tf.abs(c * y)) for c, y in pairs))
        self.eps = max(epsilon(tensor.dtype) for tensor in (*reference, *parts))
        self.tiny = max(tiny(tensor.dtype) for tensor in (*reference, *parts))
        self.finite = np.isfinite(gradient)
        self.gradient = np.where(self.finite, gradient, 0.0)
        self.unit = self._directions(np.random.default_rng(seed))
        self.units, self.gradients = tf.constant(self.unit, self.dtype), tf.constant(self.gradient)
        loop = tf.function(lambda rows: tf.map_fn(self._at, rows, parallel_iterations=1), autograph=False)
        rows = tf.TensorSpec([None, 3], tf.float64)
        self.run = loop.get_concrete_function(rows) if graph else lambda rows: tf.stack([self._at(row) for row in rows])
        self.offset = self.run(tf.zeros([1, 3], tf.float64)).numpy()[0, :2]

    def _directions(self, rng: np.random.Generator) -> np.ndarray:
        """How far each coordinate moves at step 1: its own size, or what is typical of its source."""
        x = self.point.numpy().astype("float64")
        for part in np.split(x, self.ends[:-1]):
            np.maximum(np.abs(part), np.sqrt(np.mean(np.square(part))) if len(part) else 0.0, out=part)
        x[~((x > 0) & np.isfinite(x))] = 1.0
        signs = rng.choice(np.array([-1.0, 1.0], "float32"), len(x))
        if self.eps > 1e-8:  # a block's slope stands out of the rounding only if its elements pull together
            signs = np.where(self.gradient == 0, signs, np.sign(self.gradient))
        return x * signs * rng.uniform(0.5, 1.0, len(x))

    def __call__(self, starts: np.ndarray, widths: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """``[lines, 6]``: change of <cotangent, fn> and of the sum; size of what moves of fn, there and at the point;
        the change that the gradient predicts; the step."""
        rows = np.stack([starts, widths, steps], axis=1).astype("float64")
        chunk = max(1, min(4096, len(rows) // 20) if self.progress else len(rows))
        bar, values = tf.keras.utils.Progbar(len(rows), unit_name="value") if self.progress else None, []
        for begin in range(0, len(rows), chunk):
            values.append(self._safely(rows[begin : begin + chunk]))
            if bar is not None:
                bar.update(min(begin + chunk, len(rows)))
        return np.concatenate(values) - np.pad(self.offset, (0, 4))

    def agrees(self, outputs: Sequence) -> bool:
        """Whether this is the function that gave `outputs`: its values are the same up to rounding."""
        eps = max(epsilon(dtype) for dtype in (self.coarsest, *(y.dtype for y in outputs)))
        least = max((tiny(y.dtype) for y in outputs), default=0.0)
        for y, y0 in zip(map(real, outputs), self.reference, strict=True):
            # eps alone: the rounding of numbers of size 1 on the way
            near = np.sqrt(eps) * np.max(np.abs(y), initial=0.0, where=np.isfinite(y)) + least + eps
            if y.shape != y0.shape or not np.allclose(y, y0, rtol=0, atol=near, equal_nan=True):
                return False
        return not abs(self.offset[0]) > np.sqrt(eps) * self.height

    def _safely(self, rows: np.ndarray) -> np.ndarray:
        """A batch that raises is halved until the line that raises is alone: its values are NaN."""
        try:
            return self.run(tf.constant(rows)).numpy()
        except Exception:
            if len(rows) == 1:
                return np.full([1, 6], np.nan)
        return np.concatenate([self._safely(half) for half in np.array_split(rows, 2)])

    def _at(self, row: tf.Tensor) -> tf.Tensor:
        """One evaluation of `fn`, at point + step * unit on the coordinates of the line."""
        start, width, step = tf.unstack(row)
        start, x = tf.cast(start, tf.int64), self.point
        stop = start + tf.cast(width, tf.int64)
        here, unit = x[start:stop], self.units[start:stop]
        there = tf.cast(tf.cast(here + tf.cast(step, x.dtype) * unit, self.narrow), x.dtype)
        done = tf.cast(there - here, tf.float64)  # the step really taken, fl(x + h) - x
        unit = tf.cast(unit, tf.float64)
        taken = tf.reduce_sum(done * unit) / tf.reduce_sum(unit * unit)
        predicted = tf.reduce_sum(self.gradients[start:stop] * done)
        moved = tf.ensure_shape(tf.concat([x[:start], there, x[stop:]], 0), x.shape)
        values = self._values(moved)
        change, for_sum, size, before = 0.0, 0.0, 0.0, 0.0
        for y, y0, cotangent, one in zip(map(real, values), self.reference, self.cotangents, self.ones, strict=True):
            change += tf.reduce_sum(cotangent * (y - y0))
            for_sum += tf.reduce_sum(one * (y - y0))
            moves = tf.cast(y != y0, y.dtype)
            size += tf.reduce_sum(tf.math.multiply_no_nan(tf.abs(cotangent * y), moves))
            before += tf.reduce_sum(tf.math.multiply_no_nan(tf.abs(cotangent * y0), moves))
        return tf.stack([tf.cast(v, tf.float64) for v in (change, for_sum, size, before, predicted, taken)])

    def leaves(self, point: tf.Tensor) -> list:
        """What `fn` is called with at `point`, one flat real vector."""
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
        """`fn` at `point`. In a graph, ``eps`` becomes that of the coarsest dtype through which the point passes."""
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


def ladder(lines: Lines, starts: np.ndarray, widths: np.ndarray, quick: bool = False) -> Slopes:
    """The slope of each line from differences at many steps, extrapolated, with its error estimate.

    `quick` takes three steps near eps^(1/3), where central differences are best as a rule; otherwise `RUNGS` steps
    cover every scale at which `fn` may live, and the rounding of `fn` is measured.
    """
    starts, widths = np.asarray(starts), np.asarray(widths)
    single = widths == 1
    scale, size = np.abs(lines.unit[starts]), np.abs(lines.point.numpy()[starts].astype("float64"))
    size = np.where(np.isfinite(size), size, 1.0)
    wide = np.where(single, np.maximum(1.0, size) / scale, 1.0)
    narrow = np.where(single & (size > 0), size / scale, 1.0)
    best = lines.eps ** (1 / 3) * wide
    parts = [slice(a, a + w) for a, w in zip(starts, widths, strict=True)]
    along = [lines.gradient[part] * lines.unit[part] for part in parts]
    if not single.all():  # many elements together: as far as changes fn by eps^(1/3) of itself
        slope = np.array([abs(each.sum()) for each in along])
        best = np.where(single, best, np.minimum(best, lines.eps ** (1 / 3) * lines.height / (slope + 1e-300)))
    top, low = (best, best / 16) if quick else (0.1 * wide, np.minimum(narrow * np.sqrt(lines.eps), 0.01 * wide))
    if not quick:
        top, low = np.where(single, top, 30 * best), np.where(single, low, best / 100)
    h = np.geomspace(top, low, 3 if quick else RUNGS, axis=1)
    steps = np.concatenate([h, -h], axis=1)
    values = lines(np.repeat(starts, steps.shape[1]), np.repeat(widths, steps.shape[1]), steps.ravel())
    up, down = np.split(values.reshape(*steps.shape, 6), 2, axis=1)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a line where fn is nowhere defined is all NaN
        # rounding: eps |f|, of the outputs that move, or how far the values at the smallest steps are from a line
        moved = np.fmax(up[..., 2], down[..., 2])
        ever = np.fmax.reduce(np.fmax(up[..., 3], down[..., 3]), axis=1, keepdims=True)  # what a larger step moves
        least = lines.eps * np.where(moved > 0, np.fmax(moved, ever), lines.height) + lines.tiny
        wobble = np.zeros(len(starts)) if quick else _wobble(up - down)  # in the odd part, curvature is none
        wobble = np.where(np.isfinite(wobble), wobble, np.fmax(_wobble(up), _wobble(down)))
        wobble[wobble > 0.05 * np.fmax(moved.max(1), lines.height)] = np.inf  # fn lives below the smallest step
        unit = np.where(single, lines.unit[starts], 1.0)
        finite, norm = [lines.finite[part].all() for part in parts], [np.linalg.norm(each) for each in along]
        return Slopes(np.array(finite), np.array(norm), *_slopes(up, down, least, wobble, unit))


def _slopes(up: np.ndarray, down: np.ndarray, least: np.ndarray, wobble: np.ndarray, unit: np.ndarray) -> tuple:
    """Differences on the way up and down -> slopes, per `unit` of the line."""
    h = up[..., 5] - down[..., 5]
    central = (up[..., 0] - down[..., 0]) / h
    right, left = up[..., 0] / up[..., 5], down[..., 0] / down[..., 5]
    least = 2 * least / h
    noise = np.fmax(least, 2 * wobble[:, None] / h)
    best = _extrapolate(central, h, noise, 2)
    sides = [_extrapolate(s, step, 2 * noise, 1) for s, step in ((left, -down[..., 5]), (right, up[..., 5]))]
    for side in reversed(sides):  # at the edge of a domain, one side is all there is
        best = np.where(np.isfinite(best[1]), best, side)
    value, error, at = best
    diverges = _diverges(right, 2 * least) | _diverges(left, 2 * least)
    analytic = np.nanmedian((up[..., 4] - down[..., 4]) / h, axis=1)
    for_sum = ((up[..., 1] - down[..., 1]) / h)[:, h.shape[1] // 2]
    flip = unit < 0
    left, right = sides[0][0] / unit, sides[1][0] / unit
    return (
        analytic / unit, value / unit, error / np.abs(unit), at / 2 * np.abs(unit), for_sum / unit,
        np.where(flip, right, left), np.where(flip, left, right), (sides[0][1] + sides[1][1]) / np.abs(unit), diverges,
        h / 2 * np.abs(unit)[:, None], central / unit[:, None],
    )  # fmt: skip


def _extrapolate(slope: np.ndarray, h: np.ndarray, noise: np.ndarray, power: int) -> np.ndarray:
    """``[value, uncertainty, step]`` per line: Richardson's extrapolation where two neighbours agree best.

    A slope has the error c h^power, so that S(h) and S(h/r) give S(h/r) + (S(h/r) - S(h)) / (r^power - 1).
    """
    ratio = (h[:, :-1] / h[:, 1:]) ** power
    better = slope[:, 1:] + (slope[:, 1:] - slope[:, :-1]) / (ratio - 1)
    spread = noise[:, 1:] * (ratio + 1) / (ratio - 1)
    # a large step can look perfect across a kink: what no smaller step confirms is as uncertain as it is far from them
    low = np.fmax.accumulate((better - AGREE * spread)[:, ::-1], axis=1)[:, ::-1]
    high = np.fmin.accumulate((better + AGREE * spread)[:, ::-1], axis=1)[:, ::-1]
    apart = np.fmax(np.fmax(low - better, better - high), 0.0)
    change = np.abs(np.diff(better, axis=1))
    change[:, :-1] = np.fmax(change[:, :-1], change[:, 1:])  # twice in a row
    error = change + spread[:, 1:] + apart[:, 1:]
    error = np.where(np.isfinite(error), error, np.inf)
    best, rows = np.argmin(error, axis=1), np.arange(len(error))
    return np.array([better[rows, best + 1], error[rows, best], h[rows, best + 2]])


def _wobble(side: np.ndarray) -> np.ndarray:
    """How far values at three neighbouring steps are from a line, at most, over the smallest steps."""
    slope = np.diff(side[..., 0], axis=1) / np.diff(side[..., 5], axis=1)
    return np.fmax.reduce(np.abs(np.diff(slope, axis=1) * side[:, 1:-1, 5])[:, -3:], axis=1)


def _diverges(slope: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Where the slope grows like a power of 1/h to the smallest readable step: a jump, or a vertical tangent."""
    readable = np.isfinite(slope) & (200 * noise <= np.abs(slope))
    last = readable.shape[1] - 1 - np.argmax(readable[:, ::-1], axis=1)  # the smallest readable step
    rows, rungs = np.arange(len(last)), np.maximum(last - np.arange(4)[:, None], 0)
    growth = slope[rows, rungs[:3]] / slope[rows, rungs[1:]]
    ends = (last >= 3) & readable[rows, rungs[0]] & readable[rows, rungs[3]]
    return ends & (growth.min(0) > 1.2) & (growth.max(0) < 1.5 * growth.min(0))


def tiny(dtype: tf.DType) -> float:
    """The smallest number of `dtype` that TensorFlow computes with: what is smaller becomes 0."""
    return {"float16": 2.0**-24, "float64": 2.0**-1022}.get(tf.as_dtype(dtype).real_dtype.name, 2.0**-126)


def flat(tensor: Any) -> tf.Tensor:
    """Any tensor as one real vector in its own precision; a complex number is two entries."""
    tensor = tf.convert_to_tensor(values_of(tensor))
    if tensor.dtype.is_complex:
        tensor = tf.stack([tf.math.real(tensor), tf.math.imag(tensor)], axis=-1)
    return tf.reshape(tensor, [-1])


def real(tensor: Any) -> tf.Tensor:
    """The same in float64."""
    return tf.cast(flat(tensor), tf.float64)
