"""Gradients -> their statistics, in one small graph: `summarize`, which `tapekit.GradientLog` runs every step.

`as_gradient`, `as_loss` and `dense` make what came fit for it.

The sums are a pass each over memory and fused with nothing, which was measured to be cheapest. Small gradients are
summed in float64. Large ones in float32, and again, with care, in the rare step whose sums cannot be trusted.
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
    present = [g for g in gradients if g is not None]
    if not present:
        return tf.fill([len(STATISTICS), len(gradients)], np.float32("nan")), tf.constant(0.0)
    sizes = np.array([g.shape.num_elements() or 0 for g in present], float)
    if not all(g.shape.is_fully_defined() for g in present):
        sizes = tf.stack([tf.cast(tf.size(g), tf.float64) for g in present])
    wide = [g.dtype == tf.float64 or (g.shape.num_elements() or 0) <= SMALL for g in present]
    quick = tf.stack([_sums(tf.cast(g, tf.float64 if w else tf.float32)) for g, w in zip(present, wide, strict=True)])
    quick = tf.pad(quick, [[0, 0], [0, 1]])
    sums = tf.cond(
        _trustworthy(quick, sizes, wide), lambda: quick, lambda: tf.stack([_finite_sums(g) for g in present])
    )
    squares, total, highest, lowest, nonzero, nonfinite = tf.unstack(sums, axis=1)
    squares, nonzero, largest = 2 * squares, 2 * nonzero, tf.maximum(tf.maximum(highest, -lowest), 0.0)
    count = sizes - nonfinite
    mean = total / count
    std = tf.sqrt(tf.maximum(squares / count - mean**2, 0.0))  # E[x²] - E[x]²: no pass of its own
    table = tf.stack([tf.sqrt(squares), mean, std, largest, 1 - nonzero / count, nonfinite])
    if len(present) < len(gradients):
        place = np.cumsum([g is not None for g in gradients]) * [g is not None for g in gradients]
        table = tf.gather(tf.pad(table, [[0, 0], [1, 0]], constant_values=np.nan), place, axis=1)
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
    """``[half the sum of x², sum of x, highest, lowest, half the number that is not 0]`` in float64."""
    halves = tf.nn.l2_loss(x), tf.nn.l2_loss(tf.sign(x))
    return tf.cast(tf.stack([halves[0], tf.reduce_sum(x), tf.reduce_max(x), tf.reduce_min(x), halves[1]]), tf.float64)


def _finite_sums(x: tf.Tensor) -> tf.Tensor:
    """`_sums` over the finite elements, and the number of the others."""
    finite = tf.math.is_finite(x)
    sums = _sums(tf.where(finite, tf.cast(x, tf.float64), 0.0))
    return tf.concat([sums, [tf.reduce_sum(tf.cast(~finite, tf.float64))]], 0)


def _trustworthy(sums: tf.Tensor, sizes: tf.Tensor, wide: Sequence[bool]) -> tf.Tensor:
    """No NaN, no infinity or overflow, and in float32 no underflow of x², and no E[x²] - E[x]² that cancels."""
    squares, nonzero, total = 2 * sums[:, 0], sums[:, 4], sums[:, 1]
    smallest, cancelled = np.where(wide, 0.0, 1e-30), np.where(wide, -1.0, 1e-4)
    spread = squares * sizes - total**2
    fine = (squares > smallest) | (nonzero == 0.0)
    return tf.reduce_all(tf.math.is_finite(squares) & fine & (spread >= cancelled * squares * sizes))
