"""What can be measured about a `fn` that cannot be traced: eager gradients, and the target for moved sources."""

from typing import Any

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, values_of
from tapekit.explaining.signals import NOT_FINITE, health, status
from tapekit.graphs.eager import eager_gradients
from tapekit.graphs.state import all_variables_kept, draws_kept


def run_eagerly(call: Call) -> list[str]:
    """Return the status of the gradient of each source from an eager tape."""
    gradients = [None if g is None else tf.convert_to_tensor(values_of(g)) for g in eager_gradients(call)]
    return [in_words(None if gradient is None else health(gradient).numpy()) for gradient in gradients]


def in_words(row: Any) -> str:
    """Return the status of a gradient, as a finding has it."""
    found = status(row)
    return "not_finite" if found in NOT_FINITE else found


def depends(call: Call, index: int) -> bool | None:
    """Return whether the target changes with the numbers of source `index`; None if that cannot be tried."""
    before, after = _target(call, index, 0.0), _target(call, index, 0.1)
    return None if before is None or after is None else before != after


def is_partial(call: Call, index: int) -> bool:
    """Return whether the gradient of a source lacks a part of what the target does when the source is moved.

    Two differences with different steps must agree with each other, and differ from the gradient.
    """
    steps = (-2e-2, -1e-2, 0.0, 0.0, 1e-2, 2e-2)
    values = np.array([_target(call, index, step) for step in steps], np.float64)  # None becomes NaN
    gradient = eager_gradients(call)[index]
    if gradient is None or not np.isfinite(values).all() or values[2] != values[3]:
        return False
    wide, narrow = (values[5] - values[0]) / 4e-2, (values[4] - values[1]) / 2e-2
    along = float(np.sum(np.asarray(tf.convert_to_tensor(gradient), np.float64) * _direction(call.sources[index])))
    scale = max(abs(wide), abs(narrow), abs(along), 1e-3 * abs(values[2]))
    return bool(abs(wide - narrow) < 2e-2 * scale and abs(along - narrow) > 1e-1 * scale)


def _direction(source: Any) -> np.ndarray:
    """Return a step of its own for each element: a common one leaves differences of elements as they are."""
    size = np.abs(np.asarray(source, np.float64))
    steps = np.modf(np.arange(1, size.size + 1) * 0.618)[0].reshape(size.shape)
    return (0.5 + steps) * np.maximum(size, 0.1)


def _target(call: Call, index: int, step: float) -> float | None:
    """Return the sum of the target with source `index` moved by `step` along `_direction`; None if `fn` fails."""
    source = call.sources[index]
    if isinstance(source, tf.RaggedTensor) or not (call.takes_vars or isinstance(source, tf.Variable)):
        return None
    moved = tf.cast(np.asarray(source, np.float64) + step * _direction(source), source.dtype)
    leaves = [moved if at == index else leaf for at, leaf in enumerate(call.leaves)]
    with all_variables_kept(), draws_kept():
        if isinstance(source, tf.Variable):
            source.assign(moved)
            leaves = call.leaves
        try:
            return float(sum(np.sum(np.asarray(part, np.float64)) for part in tf.nest.flatten(call(leaves))))
        except Exception:  # fn may not accept the moved numbers
            return None
