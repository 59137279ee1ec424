"""Gradients by one call: a `tf.GradientTape` watches the sources, and a missing gradient is reported.

`gradient` and `value_and_gradient` return d target / d source for each source. `vjp`, `jvp` and `hvp` return the
products cotangent J, J tangent and H vector, without forming J or H. `fn` takes nothing and closes over `vars`, or it
takes them: ``fn(vars)`` for one source, ``fn(*vars)`` for a list or tuple, ``fn(**vars)`` for a dict.
"""

from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from tapekit._names import some
from tapekit._sources import Call, bind, dense, describe, quoted, watch_all
from tapekit._targets import taped, vectors_like
from tapekit.tape import warn_missing

Unconnected: TypeAlias = str | tf.UnconnectedGradients

# The value of the target, and the derivative: in the structure of `vars`, or, for a tangent, of the target.
ValueAndGradient = namedtuple("ValueAndGradient", "value gradient")
VJP = namedtuple("VJP", "value cotangents")
JVP = namedtuple("JVP", "value tangent")


def gradient(
    fn: Callable, vars: Any, /, *, output_gradients: Any = None, unconnected: Unconnected = "warn", log: Any = None
) -> Any:
    """Return the gradient of the result of `fn` with respect to each of `vars`.

    The numbers are those of a correctly written `tf.GradientTape`, bit for bit. If the target is not a scalar, the
    result is the gradient of the *sum* of its elements, as for the tape.

    Args:
        fn: the calculation. It returns a float or complex tensor, `[...target]`, or a structure of them (summed).
        vars: a `tf.Variable`, Keras variable, tensor, array or number, or a list, tuple or dict of them.
        output_gradients: the cotangent, a weight for each element of the target, in its shape; ones if None.
        unconnected: what is returned for a source that the target does not depend on: ``"warn"`` (None, and a
            `MissingGradientWarning`), ``"none"``, ``"zero"`` (dense zeros), or ``"raise"``.
        log: a `GradientLog` that records the gradients.

    Returns:
        The structure of `vars`, each member in its source's shape and dtype; a `tf.IndexedSlices` where TensorFlow
        returns one (an embedding).

    Raises:
        TypeError: a source, or the result of `fn`, is not floating-point; `fn` does not fit `vars`.
        ValueError: `vars` is empty, a shape does not match, or a gradient is missing and `unconnected` is "raise".

    Example:
        >>> gradient(lambda p: p["a"] * tf.sin(p["b"]), [{"a": 2.0, "b": 0.0}])
        [{'a': <tf.Tensor: ... numpy=0.0>, 'b': <tf.Tensor: ... numpy=2.0>}]
    """
    return _differentiate("gradient", fn, vars, output_gradients, unconnected, False, log).gradient


def value_and_gradient(
    fn: Callable, vars: Any, /, *, output_gradients: Any = None, unconnected: Unconnected = "warn",
    has_aux: bool = False, log: Any = None,
) -> ValueAndGradient:  # fmt: skip
    """Return the result of `fn` and its `gradient`, from one run.

    Args:
        fn, vars, output_gradients, unconnected, log: as for `gradient`.
        has_aux: `fn` returns ``(target, aux)``. Only the target is differentiated, and the value is ``(target, aux)``.

    Returns:
        ``(value, gradient)``.

    Raises:
        TypeError: `has_aux` is True and `fn` returns no pair. Otherwise as `gradient`.

    Example:
        >>> value, grad = value_and_gradient(lambda x: x**3, 2.0)
        >>> float(value), float(grad)
        (8.0, 12.0)
    """
    return _differentiate("value_and_gradient", fn, vars, output_gradients, unconnected, has_aux, log)


def vjp(fn: Callable, vars: Any, cotangents: Any, /, *, unconnected: Unconnected = "warn") -> VJP:
    """Return cotangent times Jacobian, computed by one reverse pass.

    Args:
        fn, vars, unconnected: as for `gradient`.
        cotangents: one number for each element of the target, in the target's structure and shape.

    Returns:
        ``(value, cotangents)``, the cotangents in the structure and shapes of `vars`.

    Raises:
        ValueError: `cotangents` are not in the target's shape. Otherwise as `gradient`.

    Example:
        >>> vjp(lambda x: x * [1.0, 10.0], tf.constant([1.0, 1.0]), [3.0, 1.0]).cotangents.numpy().tolist()
        [3.0, 10.0]
    """
    call = bind("vjp", fn, vars, unconnected=unconnected)
    tape, target, _ = taped(call)
    targets = tf.nest.flatten(target)
    vectors = vectors_like(call, "cotangents", cotangents, target, targets)
    return VJP(target, finish(call, tape.gradient(targets, call.sources, output_gradients=vectors)))


def jvp(fn: Callable, vars: Any, tangents: Any, /) -> JVP:
    """Return Jacobian times tangent: the directional derivative.

    Args:
        fn, vars: as for `gradient`.
        tangents: the direction, in the structure and shapes of `vars`.

    Returns:
        ``(value, tangent)``, both in the structure and shape of the target; zeros where it does not depend on `vars`.

    Raises:
        ValueError: `tangents` are not in the shapes of `vars`. Otherwise as `gradient`.

    Example:
        >>> jvp(lambda x: x**2, tf.constant([1.0, 2.0]), [1.0, 10.0]).tangent.numpy().tolist()
        [2.0, 40.0]

    Source: J. Townsend, "A new trick for calculating Jacobian vector products", 2017: two reverse passes, as
        TensorFlow's forward mode ignores `tf.custom_gradient` and cannot follow loops.
    """
    call = bind("jvp", fn, vars)
    direction = vectors_like(call, "tangents", tangents, call.vars, call.sources)
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        inner, target, _ = taped(call)
        flat = tf.nest.flatten(target)
        cotangents = [tf.ones_like(t) for t in flat]
        watch_all(outer, cotangents)
        grads = dense(inner.gradient(flat, call.sources, output_gradients=cotangents))
    warn_of_none(call, grads)
    # J'u is linear in u, so its derivative along v is J v, whatever u is.
    tangent = _product(outer, grads, cotangents, direction)
    return JVP(target, tf.nest.pack_sequence_as(target, zeros_for_none(tangent, flat)))


def hvp(fn: Callable, vars: Any, vector: Any, /) -> Any:
    """Return Hessian times vector, without forming the Hessian: how the gradient changes along a direction.

    Args:
        fn, vars: as for `gradient`; a target that is not a scalar is summed.
        vector: the direction, in the structure and shapes of `vars`.

    Returns:
        The structure and shapes of `vars`; zeros where there is no second derivative. Warns if there is no first one.

    Raises:
        ValueError: `vector` is not in the shapes of `vars`. Otherwise as `gradient`.

    Example:
        >>> float(hvp(lambda x: x**3, 2.0, 1.0))
        12.0

    Source: B. Pearlmutter, "Fast exact multiplication by the Hessian", 1994; here by reverse over reverse, which takes
        0.75 (in a graph) and 0.25 (eagerly) times as long as forward over reverse in TensorFlow.
    """
    call = bind("hvp", fn, vars)
    direction = vectors_like(call, "vector", vector, call.vars, call.sources)
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        watch_all(outer, call.sources)
        inner, target, _ = taped(call)
        grads = dense(inner.gradient(target, call.sources))
    warn_of_none(call, grads)
    return call.pack(zeros_for_none(_product(outer, grads, call.sources, direction), call.sources))


def finish(call: Call, flat: list, *, leading: Any = None) -> Any:
    """Report missing gradients, and return all gradients in the structure of `vars`; see `zeros_for_none`."""
    if any(g is None for g in flat):
        if call.unconnected == "zero":
            return call.pack(zeros_for_none(flat, call.sources, leading))
        if call.unconnected == "raise":
            raise ValueError(f"{_missing(call, flat)} Call tapekit.explain(fn, vars) to see why and on which line.")
        if call.unconnected == "warn":
            warn_of_none(call, flat, "; unconnected='zero' or 'none' silences this")
    return call.pack(flat)


def warn_of_none(call: Call, flat: list, otherwise: str = "; the result has zeros there") -> None:
    """Issue a `MissingGradientWarning` at the user's line if a gradient is None."""
    if any(g is None for g in flat):
        warn_missing(f"{_missing(call, flat)} tapekit.explain(fn, vars) says why and on which line{otherwise}.")


def zeros_for_none(grads: list, likes: Sequence, leading: Any = None) -> list:
    """Return the `grads`, with zeros of the shape `[...leading, ...like]` instead of None."""

    def zeros(like: Any) -> Any:
        return tf.zeros_like(like) if leading is None else tf.zeros(tf.concat([leading, tf.shape(like)], 0), like.dtype)

    return [zeros(like) if g is None else g for g, like in zip(grads, likes, strict=True)]


def _differentiate(
    where: str, fn: Callable, vars: Any, output_gradients: Any, unconnected: Any, has_aux: bool, log: Any
) -> ValueAndGradient:
    call = bind(where, fn, vars, unconnected=unconnected)
    tape, target, aux = taped(call, has_aux=has_aux)
    targets = tf.nest.flatten(target)
    if output_gradients is not None:
        output_gradients = vectors_like(call, "output_gradients", output_gradients, target, targets)
    flat = tape.gradient(targets, call.sources, output_gradients=output_gradients)
    if log is not None:
        if isinstance(log, type) or not hasattr(log, "record"):
            raise TypeError(f"{where}: log is {describe(log)}. Give a GradientLog that was made before the loop.")
        loss = targets[0] if len(targets) == 1 else tf.add_n([tf.cast(tf.reduce_sum(t), tf.float32) for t in targets])
        log.record(call.pack(flat), call.pack(call.leaves), loss=loss)
    return ValueAndGradient((target, aux) if has_aux else target, finish(call, flat))


def _product(tape: tf.GradientTape, targets: list, sources: list, cotangents: list) -> list:
    """Return the gradient of the `targets` that are not None, weighted by their `cotangents`."""
    known = [(t, c) for t, c in zip(targets, cotangents, strict=True) if t is not None]
    if not known:
        return [None] * len(sources)
    return dense(tape.gradient([t for t, _ in known], sources, output_gradients=[c for _, c in known]))


def _missing(call: Call, flat: list) -> str:
    sources = zip(call.names, call.leaves, flat, strict=True)
    missing = some([quoted(name, leaf) for name, leaf, gradient in sources if gradient is None])
    return f"{call.where}: no gradient reaches {missing}: TensorFlow returned None."
