"""The derivatives, each one call over `tf.GradientTape`: the watching is done, and what is missing is named.

========================  ============================================================================
`gradient`                d target / d each source, in the structure of `vars`
`value_and_gradient`      the same, with the value that was computed on the way
`vjp`, `jvp`, `hvp`       products with a vector: cotangent J, J tangent, H vector; no array is formed
========================  ============================================================================

`fn` takes nothing and closes over `vars`, or it takes them: ``fn(vars)`` for one source, ``fn(*vars)`` for a list or
tuple, ``fn(**vars)`` for a dict. Only `vars` are differentiated. Whole arrays (`jacobian`, `hessian`, one gradient per
example) are in `tapekit.jacobians`.

>>> w = tf.Variable(5.0)
>>> float(gradient(lambda: tf.square(w), w))
10.0
>>> [float(g) for g in gradient(lambda x, y: x * y, [3.0, 2.0])]
[2.0, 3.0]
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tapekit._names import some
from tapekit._sources import Call, bind, dense, describe, watch_all
from tapekit._targets import target_of, vectors_like
from tapekit.tape import MissingGradientWarning


class ValueAndGradient(NamedTuple):
    """The value of the target, and its gradient in the structure of `vars`."""

    value: Any
    gradient: Any


class VJP(NamedTuple):
    """The value of the target, and cotangent times Jacobian in the structure of `vars`."""

    value: Any
    cotangents: Any


class JVP(NamedTuple):
    """The value of the target, and Jacobian times tangent in its structure."""

    value: Any
    tangent: Any


def gradient(
    fn: Callable,
    vars: Any,
    /,
    *,
    output_gradients: Any = None,
    unconnected: str | tf.UnconnectedGradients = "warn",
    log: Any = None,
) -> Any:
    """Give the gradient of what `fn` returns with respect to each of `vars`.

    The numbers are those of a correctly written `tf.GradientTape`, bit for bit. A target that is not scalar gives the
    gradient of the *sum* of its elements, as the tape does.

    Args:
        fn: the calculation; returns a float or complex tensor, `[...target]`, or a structure of them (summed).
        vars: a `tf.Variable`, Keras variable, tensor, array or number, or a list, tuple or dict of them.
        output_gradients: the cotangent: weights of the elements of the target, in its shape; ones if None.
        unconnected: for a source that the target does not depend on: ``"warn"`` (None, and a
            `MissingGradientWarning`), ``"none"``, ``"zero"`` (dense zeros), or ``"raise"``.
        log: a `GradientLog` to record the gradients in.

    Returns:
        The structure of `vars`, each member in its source's shape and dtype; a `tf.IndexedSlices` where TensorFlow
        gives one (an embedding).

    Raises:
        TypeError: a source, or what `fn` returns, is not floating-point; `fn` does not fit `vars`.
        ValueError: `vars` is empty, a shape does not match, or a gradient is missing and `unconnected` is "raise".

    Example:
        >>> gradient(lambda p: p["a"] * tf.sin(p["b"]), [{"a": 2.0, "b": 0.0}])
        [{'a': <tf.Tensor: ... numpy=0.0>, 'b': <tf.Tensor: ... numpy=2.0>}]
    """
    call, target, _, flat = _differentiate("gradient", fn, vars, output_gradients, unconnected)
    return finish(call, flat, unconnected, log, target)


def value_and_gradient(
    fn: Callable,
    vars: Any,
    /,
    *,
    output_gradients: Any = None,
    unconnected: str | tf.UnconnectedGradients = "warn",
    has_aux: bool = False,
    log: Any = None,
) -> ValueAndGradient:
    """Give what `fn` returns together with its `gradient`, from one run.

    Args:
        fn, vars, output_gradients, unconnected, log: as for `gradient`.
        has_aux: `fn` returns ``(target, aux)``; only the target is differentiated, and the value is ``(target, aux)``.

    Returns:
        ``(value, gradient)``.

    Raises:
        TypeError, ValueError: as `gradient`; TypeError where `has_aux` and `fn` returns no pair.

    Example:
        >>> value, grad = value_and_gradient(lambda x: x**3, 2.0)
        >>> float(value), float(grad)
        (8.0, 12.0)
    """
    call, target, value, flat = _differentiate("value_and_gradient", fn, vars, output_gradients, unconnected, has_aux)
    return ValueAndGradient(value, finish(call, flat, unconnected, log, target))


def vjp(fn: Callable, vars: Any, cotangents: Any, /, *, unconnected: str | tf.UnconnectedGradients = "warn") -> VJP:
    """Give cotangent times Jacobian: one reverse pass.

    Args:
        fn, vars, unconnected: as for `gradient`.
        cotangents: one number for each element of the target, in its structure and shape.

    Returns:
        ``(value, cotangents)``, the cotangents in the structure and shapes of `vars`.

    Raises:
        ValueError: `cotangents` are not in the target's shape; TypeError, ValueError: as `gradient`.

    Example:
        >>> vjp(lambda x: x * [1.0, 10.0], tf.constant([1.0, 1.0]), [3.0, 1.0]).cotangents.numpy().tolist()
        [3.0, 10.0]
    """
    call, _, value, flat = _differentiate("vjp", fn, vars, cotangents, unconnected)
    return VJP(value, finish(call, flat, unconnected))


def jvp(fn: Callable, vars: Any, tangents: Any, /) -> JVP:
    """Give Jacobian times tangent: the directional derivative.

    Args:
        fn, vars: as for `gradient`.
        tangents: the direction, in the structure and shapes of `vars`.

    Returns:
        ``(value, tangent)``, both in the structure and shape of the target; zeros where the target does not depend on
        `vars`.

    Raises:
        ValueError: `tangents` are not in the shapes of `vars`; TypeError, ValueError: as `gradient`.

    Example:
        >>> jvp(lambda x: x**2, tf.constant([1.0, 2.0]), [1.0, 10.0]).tangent.numpy().tolist()
        [2.0, 40.0]

    Source:
        J. Townsend, "A new trick for calculating Jacobian vector products", 2017: two reverse passes. TensorFlow's
        forward mode is no faster, overlooks a `tf.custom_gradient` and cannot follow a `tf.while_loop`.
    """
    call = bind("jvp", fn, vars)
    direction = vectors_like(call, "tangents", tangents, call.vars, call.sources)
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            watch_all(inner, call.sources)
            target = target_of(call, call())
        flat = tf.nest.flatten(target)
        cotangents = [tf.ones_like(t) for t in flat]
        watch_all(outer, cotangents)
        grads = dense(inner.gradient(flat, call.sources, output_gradients=cotangents))
    warn_of_none(call, grads)
    # J'u is linear in u, so its derivative along v is J v, whatever u is.
    tangent = _pull_back(outer, grads, cotangents, direction)
    return JVP(target, tf.nest.pack_sequence_as(target, zeros_for_none(tangent, flat)))


def hvp(fn: Callable, vars: Any, vector: Any, /) -> Any:
    """Give Hessian times vector, without forming the Hessian: how the gradient changes along a direction.

    Args:
        fn, vars: as for `gradient`; a target that is not scalar is summed.
        vector: the direction, in the structure and shapes of `vars`.

    Returns:
        The structure and shapes of `vars`; zeros where the gradient does not depend on `vars`, and, with a
        `MissingGradientWarning`, where there is none.

    Raises:
        ValueError: `vector` is not in the shapes of `vars`; TypeError, ValueError: as `gradient`.

    Example:
        >>> float(hvp(lambda x: x**3, 2.0, 1.0))
        12.0

    Source:
        B. Pearlmutter, "Fast exact multiplication by the Hessian", 1994; here by reverse over reverse, which in
        TensorFlow takes 0.75 (in a graph) and 0.25 (eagerly) of the time of forward over reverse.
    """
    call = bind("hvp", fn, vars)
    direction = vectors_like(call, "vector", vector, call.vars, call.sources)
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        watch_all(outer, call.sources)
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            watch_all(inner, call.sources)
            target = target_of(call, call())
        grads = dense(inner.gradient(target, call.sources))
    warn_of_none(call, grads)
    return call.pack(zeros_for_none(_pull_back(outer, grads, call.sources, direction), call.sources))


def _differentiate(
    where: str, fn: Callable, vars: Any, output_gradients: Any, unconnected: Any, has_aux: bool = False
) -> tuple[Call, Any, Any, list]:
    """Run `fn` under a tape: the call, the target, the value to hand back, and the flat gradients."""
    mode_of(where, unconnected)
    call = bind(where, fn, vars)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        watch_all(tape, call.sources)
        result = call()
        target, aux = _with_aux(call, result) if has_aux else (result, None)
        target = target_of(call, target)
    if output_gradients is not None or where == "vjp":
        what = "cotangents" if where == "vjp" else "output_gradients"
        flat = vectors_like(call, what, output_gradients, target, tf.nest.flatten(target))
        output_gradients = tf.nest.pack_sequence_as(target, flat)
    value = (target, aux) if has_aux else target
    return call, target, value, tape.gradient(target, call.sources, output_gradients=output_gradients)


def finish(
    call: Call, flat: list, unconnected: Any, log: Any = None, target: Any = None, *, leading: Any = None
) -> Any:
    """Record the flat gradients, deal with the missing ones, and give them the structure of `vars`.

    `leading` is the shape that stands before the source's in each, as that of the target does in a Jacobian.
    """
    if log is not None:
        if isinstance(log, type) or not hasattr(log, "record"):
            raise TypeError(
                f"{call.where}: log is {describe(log)}. Give a GradientLog, made once before the loop: "
                "log=tapekit.GradientLog()."
            )
        losses = tf.nest.flatten(target)
        loss = losses[0] if len(losses) == 1 else tf.add_n([tf.cast(tf.reduce_sum(t), tf.float32) for t in losses])
        log.record(call.pack(flat), call.pack(call.leaves), loss=loss)
    if any(g is None for g in flat):
        mode = mode_of(call.where, unconnected)
        if mode == "zero":
            return call.pack(zeros_for_none(flat, call.sources, leading))
        if mode == "raise":
            raise ValueError(f"{_missing(call, flat)} Call tapekit.explain(fn, vars) to see why and on which line.")
        if mode == "warn":
            warn_of_none(call, flat, "; unconnected='zero' or 'none' silences this", level=4)
    return call.pack(flat)


def warn_of_none(call: Call, flat: list, otherwise: str = "; zeros stand in its place", *, level: int = 3) -> None:
    """A `MissingGradientWarning`, at the line of the user, if a gradient is None."""
    if any(g is None for g in flat):
        advice = f"tapekit.explain(fn, vars) says why and where{otherwise}."
        warnings.warn(f"{_missing(call, flat)} {advice}", MissingGradientWarning, stacklevel=level)


def _missing(call: Call, flat: list) -> str:
    missing = some([repr(name) for name, g in zip(call.names, flat, strict=True) if g is None])
    return f"{call.where}: no gradient reaches {missing}: TensorFlow gives None."


def mode_of(where: str, unconnected: Any) -> str:
    mode = getattr(unconnected, "value", unconnected)  # tf.UnconnectedGradients is an enum of "none" and "zero"
    if mode not in ("warn", "none", "zero", "raise"):
        raise ValueError(f"{where}: unconnected is {unconnected!r}. Write 'warn', 'none', 'zero' or 'raise'.")
    return mode


def _with_aux(call: Call, result: Any) -> tuple:
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(
            f"{call.where}: fn returned {describe(result)}, but has_aux=True wants a pair. Return (target, aux)."
        )
    return result


def _pull_back(tape: tf.GradientTape, targets: list, sources: list, cotangents: list) -> list:
    """The gradient of those targets that are not None."""
    known = [(t, c) for t, c in zip(targets, cotangents, strict=True) if t is not None]
    if not known:
        return [None] * len(sources)
    return dense(tape.gradient([t for t, _ in known], sources, output_gradients=[c for _, c in known]))


def zeros_for_none(grads: list, likes: Sequence, leading: Any = None) -> list:
    """The `grads`, with zeros of the shape `[...leading, ...like]` for those that are None."""

    def zeros(like: Any) -> Any:
        return tf.zeros_like(like) if leading is None else tf.zeros(tf.concat([leading, tf.shape(like)], 0), like.dtype)

    return [zeros(like) if g is None else g for g, like in zip(grads, likes, strict=True)]
