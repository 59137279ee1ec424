"""Statistics of gradients: `summarize`, which `GradientLog` runs at every recorded step.

Each sum is one pass over memory, which was measured to be cheaper than fused passes. Small gradients are summed in
float64, and those of one size together. Large gradients are summed in float32, and again in float64 in the rare step
in which a float32 sum is inaccurate.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit import _sources

STATISTICS = ("norm", "mean", "std", "max_abs", "zero_fraction", "nonfinite")
SMALL = 1 << 16  # elements up to which float64 costs nothing that can be measured


def real_and_dense(gradients: Sequence) -> list:
    """Return each gradient as one real tensor: repeated rows of `tf.IndexedSlices` added, complex numbers as two."""
    flat = _sources.dense(gradients)
    complexes = [g is not None and g.dtype.is_complex for g in flat]
    return [tf.stack([tf.math.real(g), tf.math.imag(g)]) if c else g for c, g in zip(complexes, flat, strict=True)]


def summarize(gradients: Sequence[tf.Tensor | None]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the `STATISTICS` of dense gradients, `[statistics, gradients]` float32, and their global norm, a scalar.

    ``nonfinite`` counts the NaN and infinite elements; the other statistics are over the finite elements, and NaN if
    there are none. Where a gradient is None, every statistic is NaN, including ``nonfinite``.

    >>> table, global_norm = summarize([tf.constant([3.0, -4.0]), None])
    >>> table.numpy()[:, 0].tolist(), float(global_norm)
    ([5.0, -0.5, 3.5, 4.0, 0.0, 0.0], 5.0)
    """
    groups = _groups(gradients)
    if not groups:
        return tf.fill([len(STATISTICS), len(gradients)], np.float32("nan")), tf.constant(np.float32("nan"))
    sizes, sums = _accurate_sums([tf.stack([tf.reshape(gradients[i], [-1]) for i in group]) for group in groups])
    squares, total, highest, lowest, nonzero, nonfinite = tf.unstack(sums)
    count = sizes - nonfinite
    mean = total / count
    std = tf.sqrt(tf.maximum(squares / count - mean**2, 0.0))  # sqrt(E[x²] - E[x]²)
    largest = tf.maximum(tf.maximum(highest, -lowest), 0.0)
    norm, largest = (tf.where(count > 0, x, np.nan) for x in (tf.sqrt(squares), largest))
    table = tf.stack([norm, mean, std, largest, 1 - nonzero / count, nonfinite])
    places = np.zeros(len(gradients), int)  # column 0 is that of None
    places[np.concatenate(groups)] = np.arange(table.shape[1]) + 1
    table = tf.gather(tf.pad(table, [[0, 0], [1, 0]], constant_values=np.nan), places, axis=1)
    global_norm = tf.sqrt(tf.where(tf.reduce_any(count > 0), tf.reduce_sum(squares), np.nan))
    return tf.cast(table, tf.float32), tf.cast(global_norm, tf.float32)


def _groups(gradients: Sequence[tf.Tensor | None]) -> list[list[int]]:
    """Return the places of the gradients. Small ones of one size are the rows of one matrix, to save operations."""
    groups: dict[Any, list[int]] = {}
    for i, g in enumerate(gradients):
        if g is not None:
            size = g.shape.num_elements()
            groups.setdefault((g.dtype, size) if size and size <= SMALL else i, []).append(i)
    return list(groups.values())


def _accurate_sums(matrices: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the number of elements of each row, and `_finite_sums`, for which `_sums` suffice at most steps."""
    sizes = tf.concat([tf.fill([x.shape[0]], tf.cast(tf.shape(x, tf.int64)[1], tf.float64)) for x in matrices], 0)
    wide = [x.dtype == tf.float64 or (x.shape[1] or 0) <= SMALL for x in matrices]
    quick = [_sums(tf.cast(x, tf.float64 if w else tf.float32)) for x, w in zip(matrices, wide, strict=True)]
    quick = tf.pad(tf.concat(quick, 1), [[0, 1], [0, 0]])
    trusted = _trustworthy(quick, sizes, np.repeat(wide, [x.shape[0] for x in matrices]))
    return sizes, tf.cond(trusted, lambda: quick, lambda: tf.concat([_finite_sums(x) for x in matrices], 1))


def _sums(x: tf.Tensor) -> tf.Tensor:
    """Return ``[sum of x², sum of x, maximum, minimum, number of nonzero elements]`` of each row, `[sums, rows]`."""

    def squares(x: tf.Tensor) -> tf.Tensor:
        return 2 * tf.nn.l2_loss(x)[tf.newaxis] if x.shape[0] == 1 else tf.reduce_sum(x * x, 1)  # without a copy

    sums = [squares(x), tf.reduce_sum(x, 1), tf.reduce_max(x, 1), tf.reduce_min(x, 1), squares(tf.sign(x))]
    return tf.cast(tf.stack(sums), tf.float64)


def _finite_sums(x: tf.Tensor) -> tf.Tensor:
    """Return `_sums` over the finite elements, and the number of the other elements."""
    x = tf.cast(x, tf.float64)
    finite = tf.math.is_finite(x)
    return tf.concat([_sums(tf.where(finite, x, 0.0)), [tf.reduce_sum(tf.cast(~finite, tf.float64), 1)]], 0)


def _trustworthy(sums: tf.Tensor, sizes: tf.Tensor, wide: np.ndarray) -> tf.Tensor:
    """Return whether all sums are accurate: finite, without underflow of x² or cancellation in E[x²] - E[x]²."""
    squares, total, nonzero = sums[0], sums[1], sums[4]
    fine = (squares > np.where(wide, 0.0, 1e-30)) | (nonzero == 0.0)
    cancels = total**2 > np.where(wide, 2.0, 0.5) * squares * sizes  # total² <= squares * sizes, by Cauchy-Schwarz
    return tf.reduce_all(tf.math.is_finite(squares) & fine & ~cancels)
