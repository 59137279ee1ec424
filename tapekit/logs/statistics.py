"""What is computed of gradients on their device: their statistics (`summarize`), and their distributions (`count`).

Each sum is one pass over memory, which was measured to be cheaper than fused passes. Small gradients are summed in
float64. Large ones are summed in float32, and again in float64 in the rare step in which that is inaccurate.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit import _sources

STATISTICS = ("norm", "mean", "std", "max_abs", "zero_fraction", "nonfinite")
SMALL = 1 << 16  # elements up to which float64 costs nothing that can be measured
CODES = 1 << 10  # of the bins of a distribution


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
    small: dict[Any, list[int]] = {}  # those of one size are the rows of one matrix, to save operations
    for i, g in enumerate(gradients):
        if g is not None:
            size = g.shape.num_elements()
            small.setdefault((g.dtype, size) if size and size <= SMALL else i, []).append(i)
    if not small:
        return tf.fill([len(STATISTICS), len(gradients)], np.float32("nan")), tf.constant(np.float32("nan"))
    groups = list(small.values())
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


def count(gradients: Sequence[tf.Tensor | None]) -> tf.Tensor:
    """Return how many elements of each dense gradient have each code, `[gradients, codes]` int64; zeros for None.

    The code of an element is the first ten bits of the float32: the sign, the exponent and one bit of the mantissa.
    """
    rows = []
    for gradient in gradients:
        elements = tf.cast(tf.reshape([] if gradient is None else gradient, [-1]), tf.float32)
        codes = tf.bitwise.right_shift(tf.bitcast(elements, tf.uint32), tf.constant(22, tf.uint32))
        # tf.math.bincount computes its size, which XLA does not allow
        options = {"size": CODES, "weights": tf.zeros([0], tf.int32), "binary_output": False}
        rows.append(tf.raw_ops.DenseBincount(input=tf.cast(codes, tf.int32), **options))
    return tf.cast(tf.stack(rows), tf.int64)


def _accurate_sums(matrices: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the number of elements of each row, and `_finite_sums`, for which `_sums` suffice at most steps."""
    sizes = tf.concat([tf.fill([x.shape[0]], tf.cast(tf.shape(x, tf.int64)[1], tf.float64)) for x in matrices], 0)
    wide = [x.dtype == tf.float64 or (x.shape[1] or 0) <= SMALL for x in matrices]
    quick = [_sums(tf.cast(x, tf.float64 if w else tf.float32)) for x, w in zip(matrices, wide, strict=True)]
    quick = tf.pad(tf.concat(quick, 1), [[0, 1], [0, 0]])
    squares, total, nonzero, each = quick[0], quick[1], quick[4], np.repeat(wide, [x.shape[0] for x in matrices])
    # accurate are finite sums without underflow of x², or cancellation: total² <= squares * sizes, by Cauchy-Schwarz
    whole = (squares > np.where(each, 0.0, 1e-30)) | (nonzero == 0.0)
    cancels = total**2 > np.where(each, 2.0, 0.5) * squares * sizes
    accurate = tf.reduce_all(tf.math.is_finite(squares) & whole & ~cancels)
    return sizes, tf.cond(accurate, lambda: quick, lambda: tf.concat([_finite_sums(x) for x in matrices], 1))


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
