"""The result of `fn` (`taped`) and the vectors that its derivatives are multiplied with (`vectors_like`), checked."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, as_variable, describe, is_float, watch_all

_AUX = "to return more than the loss, write return loss, rest in tapekit.value_and_gradient(..., has_aux=True)"


def taped(
    call: Call, *, has_aux: bool = False, one: bool = False, persistent: bool = False
) -> tuple[tf.GradientTape, Any, Any]:
    """Run `call` under a tape that watches its sources; return ``(tape, target, aux)``. With `one`, no structures."""
    with tf.GradientTape(persistent, watch_accessed_variables=False) as tape:
        watch_all(tape, call.sources)
        result, aux = call(), None
        if has_aux:
            if not (isinstance(result, tuple) and len(result) == 2):
                raise TypeError(f"{call.where}: fn returned {describe(result)}. has_aux=True needs (target, aux).")
            result, aux = result
        if one and tf.nest.is_nested(result):
            raise TypeError(f"{call.where}: fn returned {describe(result)}. It must return one tensor: use tf.stack.")
        target = target_of(call, result)
    return tape, target, aux


def target_of(call: Call, result: Any) -> Any:
    """Return the result of `fn` as float tensors in its structure; raise TypeError for what has no gradient."""
    if isinstance(result, tf.Tensor) and is_float(result):
        return result
    flat = [_tensor(call, member, alone=not tf.nest.is_nested(result)) for member in tf.nest.flatten(result)]
    if not flat:
        raise TypeError(f"{call.where}: fn returned {result!r}. It must return the tensor to differentiate.")
    return tf.nest.pack_sequence_as(result, flat)


def vectors_like(call: Call, what: str, vectors: Any, structure: Any, likes: Sequence) -> list:
    """Return the members of `vectors` as a list of tensors with the shapes and dtypes of `likes`."""
    try:
        flat = _members(structure, vectors)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{call.where}: the structure of {what} is not that of the tensors in the product. Give one array for each "
            f"of {len(likes)} tensor(s), nested in the same way."
        ) from error
    return [_vector(call, what, vector, like) for vector, like in zip(flat, likes, strict=True)]


def _tensor(call: Call, member: Any, *, alone: bool) -> Any:
    if as_variable(member) is not None:
        member = tf.convert_to_tensor(member)
    if isinstance(member, (tf.Tensor, tf.RaggedTensor, tf.IndexedSlices)):
        if is_float(member):
            return member
        need = f"Only a float or complex target has a gradient; {_AUX}"
    elif member is None:
        need = "It must return a tensor; perhaps a return statement is missing, or a gradient inside fn is None"
    elif alone and isinstance(member, (bool, int, float, complex, np.ndarray, np.generic)):
        need = "The calculation left TensorFlow: use tf functions instead of NumPy, .numpy(), float() and int()"
    else:
        need = f"It must return a tensor; {_AUX}"
    raise TypeError(f"{call.where}: fn returned {describe(member)}. {need}.")


def _vector(call: Call, what: str, vector: Any, like: Any) -> Any:
    with contextlib.suppress(TypeError, ValueError):  # rows of different lengths, for example
        # NumPy would drop the imaginary part of a complex vector.
        if not tf.is_tensor(vector) and (like.dtype.is_complex or not np.iscomplexobj(vector)):
            vector = tf.convert_to_tensor(vector, like.dtype)
    if not tf.is_tensor(vector) or vector.dtype != like.dtype or not vector.shape.is_compatible_with(like.shape):
        raise ValueError(
            f"{call.where}: {what} holds {describe(vector)}. It must be {like.dtype.name} of shape {like.shape}, like "
            "the tensor that it is multiplied with."
        )
    return vector


def _members(structure: Any, vectors: Any) -> list:
    """Return one member of `vectors` for each leaf of `structure`: a list of numbers may stand for one array."""
    if not tf.nest.is_nested(structure):
        return [vectors]
    if isinstance(structure, Mapping):
        keys = sorted(structure)
        if keys != sorted(vectors):
            raise KeyError(vectors)
        structure, vectors = [structure[key] for key in keys], [vectors[key] for key in keys]
    return [member for pair in zip(structure, vectors, strict=True) for member in _members(*pair)]
