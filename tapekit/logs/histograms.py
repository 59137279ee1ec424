"""`Histogram`: the distribution of a gradient in logarithmic bins, which `count` fills on the device.

The code of a bin is the first ten bits of a float32: the sign, the exponent and one bit of the mantissa. So there are
two bins an octave for each sign, [2ⁿ, 1.5·2ⁿ) and [1.5·2ⁿ, 2ⁿ⁺¹), from 2⁻¹²⁶ to 2¹²⁸.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

CODES, SIGN = 1024, 512
FINITE = slice(2, 510)  # codes of the normal numbers; those below stand for 0, those above for infinity and NaN
MAGNITUDES = np.append(np.outer(2.0 ** np.arange(-126, 128), [1.0, 1.5]), 2.0**128)
EDGES = np.concatenate([-MAGNITUDES[::-1], MAGNITUDES])


class Histogram(NamedTuple):
    """The number of elements between each edge and the next.

    The bin in the middle, from -2⁻¹²⁶ to 2⁻¹²⁶, holds the zeros. NaN and infinite elements are in no bin.
    """

    edges: np.ndarray  # float64 `[bins + 1]`
    counts: np.ndarray  # int64 `[bins]`


def count(gradients: Sequence[tf.Tensor | None]) -> tf.Tensor:
    """Return how many elements of each dense gradient have each code, `[gradients, codes]` int64; zeros for None."""
    rows = []
    for gradient in gradients:
        elements = tf.cast(tf.reshape([] if gradient is None else gradient, [-1]), tf.float32)
        codes = tf.bitwise.right_shift(tf.bitcast(elements, tf.uint32), tf.constant(22, tf.uint32))
        # tf.math.bincount computes its size, which XLA does not allow
        options = {"size": CODES, "weights": tf.zeros([0], tf.int32), "binary_output": False}
        rows.append(tf.raw_ops.DenseBincount(input=tf.cast(codes, tf.int32), **options))
    return tf.cast(tf.stack(rows), tf.int64)


def histogram_of(codes: np.ndarray, counts: np.ndarray) -> Histogram:
    """Return the histogram of the bins with these codes and counts."""
    positive, negative = np.split(np.bincount(codes, counts, CODES).astype(np.int64), [SIGN])
    zeros = positive[: FINITE.start].sum() + negative[: FINITE.start].sum()
    return Histogram(EDGES, np.concatenate([negative[FINITE][::-1], [zeros], positive[FINITE]]))
