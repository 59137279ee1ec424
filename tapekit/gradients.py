"""The derivatives: each is one call over `tf.GradientTape`, with the watching done and the missing explained.

===========================  ==========================================================================
`gradient`                   d target / d each source, in the structure of `vars`
`value_and_gradient`         the same, with the value that was computed on the way
`jacobian`, `hessian`        all first, all second derivatives, as whole arrays
`vjp`, `jvp`, `hvp`          products with a vector: cotangent J, J tangent, H vector; no array is formed
`per_example_gradient`       one gradient for each example of a batch
`GradientTape`               for people who keep their own ``with`` block
===========================  ==========================================================================

`fn` takes nothing and closes over `vars`, or it takes them: ``fn(vars)`` for one source, ``fn(*vars)`` for a list or
tuple, ``fn(**vars)`` for a dict. Only `vars` are differentiated. Shapes follow one law:
Jacobian shape = target.shape + source.shape.

>>> w = tf.Variable(5.0)
>>> float(gradient(lambda: tf.square(w), w))
10.0
>>> [float(g) for g in gradient(lambda x, y: x * y, [3.0, 2.0])]
[2.0, 3.0]
"""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, as_variable, bind, describe, is_float
from tapekit.tape import MissingGradientWarning, watch_all


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
    return _finish(call, flat, unconnected, log, target)


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
    return ValueAndGradient(value, _finish(call, flat, unconnected, log, target))


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
    return VJP(value, _finish(call, flat, unconnected))


def jvp(fn: Callable, vars: Any, tangents: Any, /) -> JVP:
    """Give Jacobian times tangent: the directional derivative, in one forward pass.

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
        Where TensorFlow lacks forward mode: two reverse passes, J v = d/du (J' u) v (J. Townsend, "A new trick for
        calculating Jacobian vector products", 2017).
    """
    call = bind("jvp", fn, vars)
    direction = _vectors(call, "tangents", tangents, call.vars, call.sources)
    try:
        with tf.autodiff.ForwardAccumulator(*_distinct(call.sources, direction)) as accumulator:
            target = _target(call, call())
        tangent = [accumulator.jvp(t) for t in tf.nest.flatten(target)]
    except (
        Exception
    ):  # TensorFlow lacks forward mode for some ops, tf.while_loop among them; fn's own errors come again
        target, tangent = _jvp_by_two_reverse_passes(call, direction)
    return JVP(target, tf.nest.pack_sequence_as(target, _zeros_for_none(tangent, tf.nest.flatten(target))))


def hvp(fn: Callable, vars: Any, vector: Any, /) -> Any:
    """Give Hessian times vector, without forming the Hessian: how the gradient changes along a direction.

    Args:
        fn, vars: as for `gradient`; a target that is not scalar is summed.
        vector: the direction, in the structure and shapes of `vars`.

    Returns:
        The structure and shapes of `vars`; zeros where the gradient does not depend on `vars`.

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
    direction = _vectors(call, "vector", vector, call.vars, call.sources)
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        watch_all(outer, call.sources)
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            watch_all(inner, call.sources)
            target = _target(call, call())
        grads = _dense(inner.gradient(target, call.sources))
    return call.pack(_zeros_for_none(_pull_back(outer, grads, call.sources, direction), call.sources))


def jacobian(fn: Callable, vars: Any, /, *, unconnected: str | tf.UnconnectedGradients = "warn") -> Any:
    """Give every derivative of every element of the target: the Jacobian.

    Args:
        fn: as for `gradient`, but returns one tensor, `[...target]`.
        vars, unconnected: as for `gradient`.

    Returns:
        The structure of `vars`, each `[...target, ...source]`: Jacobian shape = target.shape + source.shape.

    Raises:
        TypeError: `fn` returns a structure; TypeError, ValueError: as `gradient`.

    Example:
        >>> jacobian(lambda x: x**2, tf.constant([1.0, 2.0])).numpy().tolist()
        [[2.0, 0.0], [0.0, 4.0]]
    """
    call = bind("jacobian", fn, vars)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        watch_all(tape, call.sources)
        target = _one_target(call, call())
    return _finish(call, _rows(tape, target, call.sources), unconnected)


def hessian(fn: Callable, vars: Any, /) -> Any:
    """Give every second derivative of a scalar target: the Hessian, in blocks.

    Args:
        fn: as for `gradient`, but returns one scalar.
        vars: as for `gradient`.

    Returns:
        One tensor `[...source, ...source]` for one source; else blocks in the structure of `vars`, twice: ``[i][j]``
        is `[...source_i, ...source_j]`. Zeros where TensorFlow finds no dependence.

    Raises:
        ValueError: the target is not scalar; TypeError, ValueError: as `gradient`.

    Example:
        >>> hessian(lambda x: x[0] ** 2 * x[1], tf.constant([1.0, 2.0])).numpy().tolist()
        [[4.0, 2.0], [2.0, 0.0]]
    """
    call = bind("hessian", fn, vars)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as outer:
        watch_all(outer, call.sources)
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            watch_all(inner, call.sources)
            target = _one_target(call, call())
        if target.shape.rank != 0:
            raise ValueError(
                f"hessian: fn returned {describe(target)}. The Hessian is that of a scalar; reduce the target, with "
                "tf.reduce_sum for example, or take tapekit.jacobian of a gradient."
            )
        grads = _dense(inner.gradient(target, call.sources))
    blocks = []
    for grad, row in zip(grads, call.sources, strict=True):
        found = [None] * len(call.sources) if grad is None else _rows(outer, grad, call.sources)
        zeros = [tf.zeros(tf.concat([tf.shape(row), tf.shape(column)], 0), row.dtype) for column in call.sources]
        blocks.append(call.pack([z if b is None else b for b, z in zip(found, zeros, strict=True)]))
    return call.pack(blocks)


def per_example_gradient(
    fn: Callable, vars: Any, batch: Any, /, *, unconnected: str | tf.UnconnectedGradients = "warn"
) -> Any:
    """Give one gradient for each example of a batch, where an ordinary gradient gives their sum.

    Args:
        fn: ``fn(example)`` returns the loss of one example, and closes over `vars`. A Keras model wants a batch axis:
            ``model(x[None])``.
        vars: variables or tensors, as for `gradient`.
        batch: a structure of arrays with a common first axis, `[batch, ...]`; ``fn`` gets the same structure with
            that axis taken off.

    Returns:
        The structure of `vars`, each `[batch, ...source]`.

    Raises:
        ValueError: `batch` has no common first axis; TypeError, ValueError: as `gradient`.

    Example:
        >>> w = tf.Variable(2.0)
        >>> per_example_gradient(lambda x: (w * x) ** 2, w, tf.constant([1.0, 10.0])).numpy().tolist()
        [4.0, 400.0]
    """
    examples = _examples(batch)
    call = bind("per_example_gradient", lambda: fn(tf.nest.map_structure(lambda rows: rows[0], examples)), vars)
    connected: list[int] = []

    def one(example: Any) -> list:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            watch_all(tape, call.sources)
            target = _target(call, fn(example))
        grads = _dense(tape.gradient(target, call.sources))
        connected[:] = [i for i, g in enumerate(grads) if g is not None]
        return [grads[i] for i in connected]

    stacked = _vectorized(lambda: tf.vectorized_map(one, examples), lambda: _mapped(one, examples, call, connected))
    flat: list = [None] * len(call.sources)
    for index, grad in zip(connected, stacked, strict=True):
        flat[index] = grad
    return _finish(call, flat, unconnected)


def _differentiate(
    where: str, fn: Callable, vars: Any, output_gradients: Any, unconnected: Any, has_aux: bool = False
) -> tuple[Call, Any, Any, list]:
    """Run `fn` under a tape: the call, the target, the value to hand back, and the flat gradients."""
    _mode(where, unconnected)
    call = bind(where, fn, vars)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        watch_all(tape, call.sources)
        result = call()
        target, aux = _with_aux(call, result) if has_aux else (result, None)
        target = _target(call, target)
    if output_gradients is not None:
        flat = _vectors(call, "output_gradients", output_gradients, target, tf.nest.flatten(target))
        output_gradients = tf.nest.pack_sequence_as(target, flat)
    value = (target, aux) if has_aux else target
    return call, target, value, tape.gradient(target, call.sources, output_gradients=output_gradients)


def _finish(call: Call, flat: list, unconnected: Any, log: Any = None, target: Any = None) -> Any:
    """Record the flat gradients, deal with the missing ones, and give them the structure of `vars`."""
    if log is not None:
        log.record(flat, call.leaves, loss=sum(tf.reduce_sum(t) for t in tf.nest.flatten(target)))
    if any(g is None for g in flat):
        mode = _mode(call.where, unconnected)
        if mode == "zero":
            return call.pack(_zeros_for_none(flat, call.sources))
        missing = ", ".join(repr(name) for name, g in zip(call.names, flat, strict=True) if g is None)
        text = f"{call.where}: no gradient reaches {missing}: TensorFlow gives None."
        if mode == "raise":
            raise ValueError(text)
        if mode == "warn":
            advice = "tapekit.explain(fn, vars) says why and where; unconnected='zero' or 'none' silences this."
            warnings.warn(f"{text} {advice}", MissingGradientWarning, stacklevel=3)
    return call.pack(flat)


def _mode(where: str, unconnected: Any) -> str:
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


def _target(call: Call, result: Any) -> Any:
    """What `fn` returned, as float tensors in its structure; an error for anything that has no gradient."""
    if isinstance(result, tf.Tensor):
        return _tensor(call, result)
    flat = [_tensor(call, member) for member in tf.nest.flatten(result)]
    if not flat:
        raise TypeError(f"{call.where}: fn returned {result!r}. It must return the tensor to differentiate.")
    return tf.nest.pack_sequence_as(result, flat)


def _tensor(call: Call, member: Any) -> Any:
    if as_variable(member) is not None:
        member = tf.convert_to_tensor(member)
    if isinstance(member, (tf.Tensor, tf.RaggedTensor, tf.IndexedSlices)):
        if is_float(member):
            return member
        need = "Only a float or complex target has a gradient; return the loss, and other results with has_aux=True"
    elif member is None:
        need = "It must return the tensor to differentiate; is a return statement missing"
    elif tf.is_tensor(member) or not isinstance(member, (bool, int, float, complex, np.ndarray, np.generic)):
        need = "It must return a tensor; other results go with has_aux=True"
    else:
        need = (
            "It must return a tensor: the calculation left TensorFlow, where the tape cannot follow; use tf functions "
            "in the place of NumPy, .numpy(), float() and int()"
        )
    raise TypeError(f"{call.where}: fn returned {describe(member)}. {need}.")


def _one_target(call: Call, result: Any) -> tf.Tensor:
    if tf.nest.is_nested(result):
        raise TypeError(
            f"{call.where}: fn returned {describe(result)}. It must return one tensor; tf.stack or tf.concat."
        )
    return _target(call, result)


def _vectors(call: Call, what: str, vectors: Any, structure: Any, likes: Sequence) -> list:
    """The members of `vectors`, flat and as tensors, each held against the shape and dtype of its like."""
    flat = _flatten_up_to(structure, vectors)
    if flat is None:
        raise ValueError(
            f"{call.where}: {what} has another structure than what it belongs to. Give one array for each of "
            f"{len(likes)} tensor(s), nested in the same way."
        )
    return [_vector(call, what, vector, like) for vector, like in zip(flat, likes, strict=True)]


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


def _vector(call: Call, what: str, vector: Any, like: Any) -> Any:
    if not tf.is_tensor(vector):
        vector = tf.convert_to_tensor(vector, like.dtype)
    if vector.dtype != like.dtype or not vector.shape.is_compatible_with(like.shape):
        raise ValueError(
            f"{call.where}: {what} holds {describe(vector)}. It must be {like.dtype.name} of shape {like.shape}, as "
            "what it belongs to."
        )
    return vector


def _jvp_by_two_reverse_passes(call: Call, direction: list) -> tuple[Any, list]:
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            watch_all(inner, call.sources)
            target = _target(call, call())
        cotangents = [tf.zeros_like(t) for t in tf.nest.flatten(target)]
        watch_all(outer, cotangents)
        grads = inner.gradient(tf.nest.flatten(target), call.sources, output_gradients=cotangents)
        grads = _dense(grads)
    # J'u is linear in u, so its derivative along v is J v, whatever u is.
    return target, _pull_back(outer, grads, cotangents, direction)


def _pull_back(tape: tf.GradientTape, targets: list, sources: list, cotangents: list) -> list:
    """The gradient of those targets that are not None."""
    known = [(t, c) for t, c in zip(targets, cotangents, strict=True) if t is not None]
    if not known:
        return [None] * len(sources)
    return _dense(tape.gradient([t for t, _ in known], sources, output_gradients=[c for _, c in known]))


def _distinct(sources: list, direction: list) -> tuple[list, list]:
    """Each source once: an accumulator wants the tangents of a source that is given twice as their sum."""
    summed: dict[int, tuple] = {}
    for source, tangent in zip(sources, direction, strict=True):
        before = summed.get(id(source))
        summed[id(source)] = (source, tangent if before is None else before[1] + tangent)
    return [s for s, _ in summed.values()], [t for _, t in summed.values()]


def _dense(grads: list) -> list:
    return [tf.convert_to_tensor(g) if isinstance(g, tf.IndexedSlices) else g for g in grads]


def _zeros_for_none(grads: list, likes: Sequence) -> list:
    return [tf.zeros_like(like) if g is None else g for g, like in zip(grads, likes, strict=True)]


def _rows(tape: tf.GradientTape, target: tf.Tensor, sources: list) -> list:
    """The Jacobians of `target`, by a vectorized loop where TensorFlow can make one, else by an ordinary one."""
    return _vectorized(
        lambda: tape.jacobian(target, sources),
        lambda: tape.jacobian(target, sources, experimental_use_pfor=False),
    )


def _vectorized(fast: Callable, slow: Callable) -> Any:
    """``fast()``, or ``slow()`` where it cannot be vectorized, without TensorFlow's page of log lines about that."""
    logger, silence = tf.get_logger(), _Silence()
    logger.addFilter(silence)
    try:
        return fast()
    except Exception:  # vectorizing fails in many ways; an error of fn's own is raised again by slow()
        pass
    finally:
        logger.removeFilter(silence)
    return slow()


class _Silence(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.module != "pfor" and "pfor" not in record.getMessage()


def _mapped(one: Callable, examples: Any, call: Call, connected: list[int]) -> list:
    one(tf.nest.map_structure(lambda rows: rows[0], examples))  # finds which sources are connected
    specs = [tf.TensorSpec(call.sources[i].shape, call.sources[i].dtype) for i in connected]
    return tf.map_fn(one, examples, fn_output_signature=specs) if specs else []


def _examples(batch: Any) -> Any:
    """`batch` as tensors with a common first axis."""
    examples = tf.nest.map_structure(tf.convert_to_tensor, batch)
    flat = tf.nest.flatten(examples)
    if any(t.shape.rank == 0 for t in flat) or len({t.shape[0] for t in flat}) != 1:
        shapes = ", ".join(str(t.shape) for t in flat)
        raise ValueError(
            f"per_example_gradient: batch holds arrays of shapes {shapes}. They need a common first axis, "
            "[batch, ...]; give x[None] for a single example."
        )
    return examples
