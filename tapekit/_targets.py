"""What `fn` returned, and the vectors that go with it: checked, as tensors, in their structure."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, as_variable, describe, is_float

_AUX = "results besides the loss go second: return loss, rest, in tapekit.value_and_gradient(..., has_aux=True)"


def target_of(call: Call, result: Any) -> Any:
    """What `fn` returned, as float tensors in its structure; an error for anything that has no gradient."""
    if isinstance(result, tf.Tensor) and is_float(result):
        return result
    flat = [_tensor(call, member, alone=not tf.nest.is_nested(result)) for member in tf.nest.flatten(result)]
    if not flat:
        raise TypeError(f"{call.where}: fn returned {result!r}. It must return the tensor to differentiate.")
    return tf.nest.pack_sequence_as(result, flat)


def one_target(call: Call, result: Any) -> tf.Tensor:
    if tf.nest.is_nested(result):
        raise TypeError(
            f"{call.where}: fn returned {describe(result)}. It must return one tensor; tf.stack or tf.concat."
        )
    return target_of(call, result)


def vectors_like(call: Call, what: str, vectors: Any, structure: Any, likes: Sequence) -> list:
    """The members of `vectors`, flat and as tensors, each held against the shape and dtype of its like."""
    flat = _flatten_up_to(structure, vectors)
    if flat is None:
        raise ValueError(
            f"{call.where}: {what} has another structure than what it belongs to. Give one array for each of "
            f"{len(likes)} tensor(s), nested in the same way."
        )
    return [_vector(call, what, vector, like) for vector, like in zip(flat, likes, strict=True)]


def _tensor(call: Call, member: Any, *, alone: bool) -> Any:
    if as_variable(member) is not None:
        member = tf.convert_to_tensor(member)
    if isinstance(member, (tf.Tensor, tf.RaggedTensor, tf.IndexedSlices)):
        if is_float(member):
            return member
        need = f"Only a float or complex target has a gradient; {_AUX}"
    elif member is None:
        need = (
            "It must return the tensor to differentiate; perhaps a return statement is missing, or a gradient "
            "inside fn is None"
        )
    elif alone and isinstance(member, (bool, int, float, complex, np.ndarray, np.generic)):
        need = (
            "It must return a tensor: the calculation left TensorFlow, where the tape cannot follow; use tf functions "
            "in the place of NumPy, .numpy(), float() and int()"
        )
    else:
        need = f"It must return a tensor; {_AUX}"
    raise TypeError(f"{call.where}: fn returned {describe(member)}. {need}.")


def _vector(call: Call, what: str, vector: Any, like: Any) -> Any:
    # NumPy would drop the imaginary part of a complex vector.
    with contextlib.suppress(TypeError, ValueError):  # as of rows of different lengths
        if not tf.is_tensor(vector) and (like.dtype.is_complex or not np.iscomplexobj(vector)):
            vector = tf.convert_to_tensor(vector, like.dtype)
    if not tf.is_tensor(vector) or vector.dtype != like.dtype or not vector.shape.is_compatible_with(like.shape):
        raise ValueError(
            f"{call.where}: {what} holds {describe(vector)}. It must be {like.dtype.name} of shape {like.shape}, as "
            "what it belongs to."
        )
    return vector


def _flatten_up_to(structure: Any, vectors: Any) -> list | None:
    """One member of `vectors` for each leaf of `structure` (a list can be an array's numbers); None if they differ."""
    if not tf.nest.is_nested(structure):
        return [vectors]
    by_key = isinstance(structure, Mapping)
    if not tf.nest.is_nested(vectors) or isinstance(vectors, Mapping) is not by_key:
        return None
    places = sorted(structure) if by_key else list(range(len(structure)))
    if places != (sorted(vectors) if by_key else list(range(len(vectors)))):
        return None
    flat: list = []
    for place in places:
        member = _flatten_up_to(structure[place], vectors[place])
        if member is None:
            return None
        flat += member
    return flat
