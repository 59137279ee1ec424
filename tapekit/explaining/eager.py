"""The status of each gradient from an eager tape, for a `fn` that cannot be traced."""

from typing import Any

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, values_of
from tapekit.graphs.eager import eager_gradients
from tapekit.graphs.state import all_variables_kept


def run_eagerly(call: Call) -> list[str]:
    """Return the status of the gradient of each source from an eager tape."""
    found = [None if g is None else flags(tf.convert_to_tensor(values_of(g))) for g in eager_gradients(call)]
    return [status(*pair) for pair in zip(found, call.sources, strict=True)]


def reaches(call: Call, index: int) -> bool:
    """Return whether the target changes with the numbers of source `index`; True where this cannot be tried."""
    source = call.sources[index]
    if isinstance(source, tf.RaggedTensor) or not (call.takes_vars or isinstance(source, tf.Variable)):
        return True
    results = []
    for moved in (source, 1.25 * tf.convert_to_tensor(source) + 0.5):
        with all_variables_kept():
            leaves = list(call.leaves)
            if isinstance(source, tf.Variable):
                source.assign(moved)
            else:
                leaves[index] = moved
            try:
                results.append([np.asarray(each) for each in tf.nest.flatten(call(leaves))])
            except Exception:  # fn may not accept the moved numbers
                return True
    return not all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


def flags(tensor: tf.Tensor) -> tf.Tensor:
    """Return ``[every element is 0, every element is finite]``."""
    tensor = tf.reshape(tensor, [-1])  # the gradient of a py_function need not have the shape that it claims
    parts = [tf.math.real(tensor), tf.math.imag(tensor)] if tensor.dtype.is_complex else [tensor]
    finite = [tf.reduce_all(tf.math.is_finite(part)) for part in parts]
    return tf.stack([tf.reduce_all(tf.equal(tensor, 0)), tf.reduce_all(finite)])


def status(answer: Any, source: Any) -> str:
    """Return the status that the `flags` of a gradient, or None, stand for."""
    if answer is None:
        return "none"
    zero, finite = answer
    if not finite:
        return "not_finite"
    return "zero" if zero and source.shape.num_elements() != 0 else "ok"
