"""Checks of what `GradientLog.record` receives: `names_of` the variables, `as_gradients` and `as_loss`."""

import contextlib
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tapekit import _sources
from tapekit._names import some


def names_of(variables: Any, known: tuple[str, ...], *, new: bool, updates: bool) -> tuple[str, ...]:
    """Return the names of `variables`, which are those of a log whose names are `known`, if it has any.

    Keras numbers its models and layers, so the numbers of another model (`new`) may differ.
    """
    names, flat = tuple(_sources.names(variables)), tf.nest.flatten(variables)
    if not flat or not all(hasattr(v, "shape") for v in flat):
        raise TypeError(
            f"GradientLog.record: variables holds {some([_sources.describe(v) for v in flat]) or 'nothing'}. "
            "Variables or tensors are needed. Write log.record(gradients, variables); build a Keras model before."
        )
    if new and _unnumbered(names) == _unnumbered(known):
        names = known
    if known and names != known:
        raise ValueError(
            f"GradientLog.record: the variables are {some(names)}, and were {some(known)}. One log holds the "
            "same variables at every step. Make a GradientLog for each set of variables."
        )
    if updates and any(_sources.as_variable(v) is None for v in flat):
        raise TypeError("GradientLog.record: updates=True follows the weights. Tensors have none; give variables.")
    return names


def as_gradients(gradients: Sequence, variables: Sequence, names: Sequence[str]) -> list:
    """Return the gradients, after a check that each one can be the gradient of its variable."""
    return [_as_gradient(*each) for each in zip(gradients, variables, names, strict=True)]


def as_loss(loss: Any) -> tf.Tensor:
    """Return the loss as a float32 scalar, the sum of its elements; NaN for None."""
    if isinstance(loss, tf.Tensor) and loss.dtype == tf.float32 and loss.shape.rank == 0:
        return loss  # saves two eager operations
    if loss is None:
        return tf.constant(np.nan)
    with contextlib.suppress(TypeError, ValueError):
        tensor = tf.convert_to_tensor(loss)
        if tensor.dtype.is_floating or tensor.dtype.is_integer:
            return tf.reduce_sum(tf.cast(tensor, tf.float32))
    raise TypeError(
        f"GradientLog.record: loss is {_sources.describe(loss)}. A number or a tensor is needed. Write loss=None if "
        "there is none."
    )


def other_backend() -> str:
    """Return what to do if Keras does not run on TensorFlow; nothing if it does."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return ""
    return (
        f"Keras runs on {backend} here; tapekit reads TensorFlow's tape. Set the environment variable "
        "KERAS_BACKEND=tensorflow before Keras is imported."
    )


def _as_gradient(gradient: Any, variable: Any, name: str) -> Any:
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
    need = "A float tensor or None is needed. Write log.record(gradients, variables), in this order."
    raise TypeError(f"{what}. {other_backend() or need}")


def _unnumbered(names: tuple[str, ...]) -> list[str]:
    """``sequential_1/dense/kernel`` -> ``dense/kernel``: a Sequential that Keras loads leaves its own name out."""
    return ["/".join(re.sub(r"_\d+(?=/|$)", "", name).split("/")[-2:]) for name in names]
