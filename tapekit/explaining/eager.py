"""What can be measured about a `fn` that cannot be traced: eager gradients, and the target for moved sources."""

from collections.abc import Sequence
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
    before, after = _targets(call, index, (0.0, 0.1))
    return None if np.isnan([before, after]).any() else before != after


def is_partial(call: Call, index: int) -> bool:
    """Return whether the gradient of a source lacks a part of what the target does when the source is moved.

    Two differences with different steps must agree with each other, and differ from the gradient.
    """
    values = _targets(call, index, (-2e-2, -1e-2, 1e-2, 2e-2))
    if np.isnan(values).any():
        return False
    wide, narrow = (values[3] - values[0]) / 4e-2, (values[2] - values[1]) / 2e-2
    gradient = np.asarray(tf.convert_to_tensor(eager_gradients(call)[index]), np.float64)
    along = float(np.sum(gradient * _direction(call.sources[index])))
    scale = max(abs(wide), abs(narrow), abs(along), 1e-3 * abs(values[1]))
    return bool(abs(wide - narrow) < 2e-2 * scale and abs(along - narrow) > 1e-1 * scale)


def _targets(call: Call, index: int, steps: Sequence[float]) -> list[float]:
    """Return the sum of the target with source `index` moved by each step along `_direction`; NaN where `fn` fails."""
    source = call.sources[index]
    if isinstance(source, tf.RaggedTensor) or not (call.takes_vars or isinstance(source, tf.Variable)):
        return [np.nan for _ in steps]  # it cannot be moved
    found = []
    for step in steps:
        moved = tf.cast(np.asarray(source, np.float64) + step * _direction(source), source.dtype)
        leaves = [moved if at == index else leaf for at, leaf in enumerate(call.leaves)]
        with all_variables_kept(), draws_kept():
            if isinstance(source, tf.Variable):
                source.assign(moved)
                leaves = call.leaves
            try:
                found.append(float(sum(np.sum(np.asarray(part, np.float64)) for part in tf.nest.flatten(call(leaves)))))
            except Exception:  # fn may not accept the moved numbers
                found.append(np.nan)
    return found


def _direction(source: Any) -> np.ndarray:
    """Return a step of its own for each element: a common one leaves differences of elements as they are."""
    size = np.abs(np.asarray(source, np.float64))
    steps = np.modf(np.arange(1, size.size + 1) * 0.618)[0].reshape(size.shape)
    return (0.5 + steps) * np.maximum(size, 0.1)
