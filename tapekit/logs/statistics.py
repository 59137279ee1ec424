"""Gradients -> their statistics, in one small graph: `summarize`, which `tapekit.GradientLog` runs every step.

`as_gradient`, `as_loss` and `dense` make what came fit for it.

The sums are a pass each over memory and fused with nothing, which was measured to be cheapest. Small gradients are
summed in float64, those of one size together. Large ones in float32, and again, with care, in the rare step whose sums
cannot be trusted.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit import _sources

STATISTICS = ("norm", "mean", "std", "max_abs", "zero_fraction", "nonfinite")
SMALL = 1 << 16  # elements up to which float64 costs nothing that can be measured


def summarize(gradients: Sequence[tf.Tensor | None]) -> tuple[tf.Tensor, tf.Tensor]:
    """The `STATISTICS` of dense gradients, `[statistics, gradients]` float32, and their global norm, a scalar.

    All but ``nonfinite``, the count of the others, are over the finite elements. Where a gradient is None, every
    statistic is NaN, ``nonfinite`` too.

    >>> table, global_norm = summarize([tf.constant([3.0, -4.0]), None])
    >>> table.numpy()[:, 0].tolist(), float(global_norm)
    ([5.0, -0.5, 3.5, 4.0, 0.0, 0.0], 5.0)
    """
    groups: dict[Any, list[int]] = {}  # small gradients of one size are the rows of one matrix: fewer operations
    for i, g in enumerate(gradients):
        if g is not None:
            size = g.shape.num_elements()
            groups.setdefault((g.dtype, size) if size and size <= SMALL else i, []).append(i)
    if not groups:
        return tf.fill([len(STATISTICS), len(gradients)], np.float32("nan")), tf.constant(0.0)
    rows = [tf.stack([tf.reshape(gradients[i], [-1]) for i in group]) for group in groups.values()]
    sizes = tf.concat([tf.fill([x.shape[0]], tf.cast(tf.shape(x, tf.int64)[1], tf.float64)) for x in rows], 0)
    wide = [x.dtype == tf.float64 or (x.shape[1] or 0) <= SMALL for x in rows]
    quick = [_sums(tf.cast(x, tf.float64 if w else tf.float32)) for x, w in zip(rows, wide, strict=True)]
    quick = tf.pad(tf.concat(quick, 1), [[0, 1], [0, 0]])
    trusted = _trustworthy(quick, sizes, np.repeat(wide, [x.shape[0] for x in rows]))
    sums = tf.cond(trusted, lambda: quick, lambda: tf.concat([_finite_sums(x) for x in rows], 1))
    squares, total, highest, lowest, nonzero, nonfinite = tf.unstack(sums)
    largest = tf.maximum(tf.maximum(highest, -lowest), 0.0)
    count = sizes - nonfinite
    mean = total / count
    std = tf.sqrt(tf.maximum(squares / count - mean**2, 0.0))  # E[x²] - E[x]²: no pass of its own
    table = tf.stack([tf.sqrt(squares), mean, std, largest, 1 - nonzero / count, nonfinite])
    places = np.zeros(len(gradients), int)  # column 0 is for None
    places[[i for group in groups.values() for i in group]] = np.arange(sum(map(len, groups.values()))) + 1
    table = tf.gather(tf.pad(table, [[0, 0], [1, 0]], constant_values=np.nan), places, axis=1)
    return tf.cast(table, tf.float32), tf.cast(tf.sqrt(tf.reduce_sum(squares)), tf.float32)


def dense(gradient: Any) -> tf.Tensor | None:
    """`tf.IndexedSlices` as a tensor, rows with the same index added; complex numbers as their two parts."""
    if isinstance(gradient, tf.IndexedSlices):
        rows = gradient.shape[0] or gradient.dense_shape[0]
        gradient = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, rows)
    if gradient is not None and gradient.dtype.is_complex:
        return tf.stack([tf.math.real(gradient), tf.math.imag(gradient)])
    return gradient


def as_gradient(name: str, gradient: Any, variable: Any) -> Any:
    """`gradient`, if it can be one of `variable`."""
    if gradient is None:
        return None
    if isinstance(gradient, np.ndarray):
        gradient = tf.convert_to_tensor(gradient)
    tensor = isinstance(gradient, (tf.Tensor, tf.IndexedSlices)) and _sources.is_float(gradient)
    if tensor and gradient.shape.is_compatible_with(variable.shape):
        return gradient
    what = f"GradientLog.record: the gradient of {name!r} is {_sources.describe(gradient)}"
    if tensor:
        raise ValueError(f"{what}; the variable has shape {variable.shape}. Give both lists in the same order.")
    raise TypeError(f"{what}. A float tensor or None is needed. Write log.record(gradients, variables), in this order.")


def as_loss(loss: Any) -> tf.Tensor:
    """A float32 scalar; NaN for None."""
    if isinstance(loss, tf.Tensor) and loss.dtype == tf.float32 and loss.shape.rank == 0:
        return loss  # two eager operations saved
    return tf.constant(np.nan) if loss is None else tf.reduce_sum(tf.cast(loss, tf.float32))


def _sums(x: tf.Tensor) -> tf.Tensor:
    """``[sum of x², sum of x, highest, lowest, number that is not 0]`` of each row, `[sums, rows]` float64."""

    def squares(x: tf.Tensor) -> tf.Tensor:
        return 2 * tf.nn.l2_loss(x)[tf.newaxis] if x.shape[0] == 1 else tf.reduce_sum(x * x, 1)  # in place

    sums = [squares(x), tf.reduce_sum(x, 1), tf.reduce_max(x, 1), tf.reduce_min(x, 1), squares(tf.sign(x))]
    return tf.cast(tf.stack(sums), tf.float64)


def _finite_sums(x: tf.Tensor) -> tf.Tensor:
    """`_sums` over the finite elements, and the number of the others."""
    x = tf.cast(x, tf.float64)
    finite = tf.math.is_finite(x)
    return tf.concat([_sums(tf.where(finite, x, 0.0)), [tf.reduce_sum(tf.cast(~finite, tf.float64), 1)]], 0)


def _trustworthy(sums: tf.Tensor, sizes: tf.Tensor, wide: np.ndarray) -> tf.Tensor:
    """No NaN, no infinity or overflow, and in float32 no underflow of x², and no E[x²] - E[x]² that cancels."""
    squares, total, nonzero = sums[0], sums[1], sums[4]
    fine = (squares > np.where(wide, 0.0, 1e-30)) | (nonzero == 0.0)
    cancels = total**2 > np.where(wide, 2.0, 0.5) * squares * sizes  # at most 1, by Cauchy and Schwarz
    return tf.reduce_all(tf.math.is_finite(squares) & fine & ~cancels)
