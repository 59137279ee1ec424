"""Checks of what `GradientLog.record` receives (gradients, variables, loss), and the sums over replicas."""

import contextlib
import re
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit import _sources
from tapekit._names import some


def names_of(variables: Any, known: tuple[str, ...], *, new: bool, updates: bool) -> tuple[str, ...]:
    """Return the names of `variables`. They must be the `known` names; in a `new` model, numbers may differ."""
    names, flat = tuple(_sources.names(variables)), tf.nest.flatten(variables)
    if not flat or not all(hasattr(v, "shape") for v in flat):
        what = some([_sources.describe(v) for v in flat]) or "nothing"
        needed = "Variables or tensors are needed. Give model.trainable_variables; build a Keras model before."
        raise TypeError(f"GradientLog.record: variables holds {what}. {needed}")
    for variable in flat:
        if _sources.watchable(variable)[1] is None:
            raise TypeError(f"GradientLog.record: variables holds {_sources.refusal(variable)}")
        if updates and _sources.as_variable(variable) is None:
            raise TypeError("GradientLog.record: updates=True follows the weights. Tensors have none; give variables.")
    # Keras numbers layers anew, and leaves the name of a Sequential out when it loads one
    own = [["/".join(re.sub(r"_\d+(?=/|$)", "", name).split("/")[-2:]) for name in each] for each in (names, known)]
    names = known if new and own[0] == own[1] else names
    if known and names != known:
        needed = "One log holds the same variables at every step. Make a GradientLog for each set of variables."
        raise ValueError(f"GradientLog.record: the variables are {some(names)}, and were {some(known)}. {needed}")
    return names


def as_gradient(gradient: Any, variable: Any, name: str) -> Any:
    """Return `gradient` as a tensor or slices. Raise an error if it cannot be the gradient of `variable`."""
    if gradient is None:
        return None
    if isinstance(gradient, tf.IndexedSlices) and gradient.dense_shape is None:
        gradient = tf.IndexedSlices(gradient.values, gradient.indices, tf.shape(variable))
    tensor = isinstance(gradient, (tf.Tensor, tf.IndexedSlices)) and _sources.is_float(gradient)
    if tensor and gradient.shape.is_compatible_with(variable.shape):
        return gradient
    what = f"GradientLog.record: the gradient of {name!r} is {_sources.describe(gradient)}"
    if tensor:
        raise ValueError(f"{what}; the variable has shape {variable.shape}. Give both lists in the same order.")
    raise TypeError(f"{what}. A float tensor of TensorFlow or None is needed. Write log.record(gradients, variables).")


def as_loss(loss: Any) -> tf.Tensor:
    """Return the loss as a float32 scalar, the sum of its elements; NaN for None."""
    if isinstance(loss, tf.Tensor) and loss.dtype == tf.float32 and loss.shape.rank == 0:
        return loss  # saves two eager operations
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        loss = np.nan if loss is None else loss
        tensor = tf.convert_to_tensor(np.float64(loss) if type(loss) in (int, float) else loss)  # also above float32
        if tensor.dtype.is_floating or tensor.dtype.is_integer:
            return tf.reduce_sum(tf.cast(tensor, tf.float32))
    what = _sources.describe(loss)
    raise TypeError(f"GradientLog.record: loss is {what}. A number or a tensor is needed. Write loss=None without one.")


def sum_over_replicas(gradients: list, loss: tf.Tensor) -> tuple[list, tf.Tensor, bool]:
    """Return the sums of gradients and losses, which an optimizer applies, and whether this replica writes them."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return gradients, loss, True
    present = _sources.dense([g for g in gradients if g is not None])
    loss, *summed = replica.all_reduce(tf.distribute.ReduceOp.SUM, [loss, *present])
    gradients = [None if g is None else summed.pop(0) for g in gradients]
    own = len(replica.strategy.extended.worker_devices)  # the replicas of this process
    return gradients, loss, tf.get_static_value(replica.replica_id_in_sync_group) % own == 0
