"""`Histogram`: the distribution of a gradient in logarithmic bins, which `count` fills on the device.

The code of a bin is the first ten bits of a float32: the sign, the exponent and one bit of the mantissa. So there are
two bins an octave for each sign, [2ⁿ, 1.5·2ⁿ) and [1.5·2ⁿ, 2ⁿ⁺¹), from 2⁻¹²⁶ to 2¹²⁸.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

CODES, SIGN = 1024, 512
NORMAL, INFINITE = 2, 510  # codes of the smallest normal number and of infinity
_MAGNITUDES = np.append(np.outer(2.0 ** np.arange(-126, 128), [1.0, 1.5]), 2.0**128)
EDGES = np.concatenate([-_MAGNITUDES[::-1], _MAGNITUDES])


class Histogram(NamedTuple):
    """The number of elements of a gradient between each edge and the next.

    The bin in the middle, from -2⁻¹²⁶ to 2⁻¹²⁶, holds the zeros. NaN and infinite elements are in no bin.
    """

    edges: np.ndarray  # float64 `[bins + 1]`
    counts: np.ndarray  # int64 `[bins]`

    @property
    def zeros(self) -> int:
        """The number of elements that are 0 (or less than 1.2e-38, the smallest normal float32 number)."""
        return int(self.counts[len(self.counts) // 2])


def count(gradients: Sequence[tf.Tensor | None]) -> tf.Tensor:
    """Return how many elements of each dense gradient have each code, `[gradients, 1024]` int64; zeros for None."""
    return tf.stack([tf.zeros([CODES], tf.int64) if g is None else _count(g) for g in gradients])


def _count(gradient: tf.Tensor) -> tf.Tensor:
    bits = tf.bitcast(tf.cast(tf.reshape(gradient, [-1]), tf.float32), tf.uint32)
    codes = tf.cast(tf.bitwise.right_shift(bits, tf.constant(22, tf.uint32)), tf.int32)
    # tf.math.bincount computes its size, which XLA does not allow
    counts = tf.raw_ops.DenseBincount(input=codes, size=CODES, weights=tf.zeros([0], tf.int32), binary_output=False)
    return tf.cast(counts, tf.int64)


def histogram_of(codes: np.ndarray, counts: np.ndarray) -> Histogram:
    """Return the histogram of the bins with these codes and counts."""
    dense = np.zeros(CODES, np.int64)
    dense[codes] = counts
    positive, negative = np.split(dense, [SIGN])
    zeros = positive[:NORMAL].sum() + negative[:NORMAL].sum()
    inner = slice(NORMAL, INFINITE)
    return Histogram(EDGES, np.concatenate([negative[inner][::-1], [zeros], positive[inner]]))
