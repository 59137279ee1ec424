"""Derivatives as whole arrays: `jacobian`, `hessian`, and `per_example_gradient` for a batch.

One law gives the shapes: Jacobian shape = target.shape + source.shape. Where only a product with a vector is wanted,
`tapekit.vjp`, `tapekit.jvp` and `tapekit.hvp` give it without the array.

>>> jacobian(lambda x: x**2, tf.constant([1.0, 2.0])).numpy().tolist()
[[2.0, 0.0], [0.0, 4.0]]
"""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from tapekit._sources import Call, bind, dense, describe, signature_of, values_of, watch_all
from tapekit._targets import one_target, target_of
from tapekit.gradients import finish, mode_of, warn_of_none, zeros_for_none


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
    mode_of("jacobian", unconnected)
    call = bind("jacobian", fn, vars)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        watch_all(tape, call.sources)
        target = one_target(call, call())
    return finish(call, _rows(call, tape, target), unconnected, leading=tf.shape(target))


def hessian(fn: Callable, vars: Any, /) -> Any:
    """Give every second derivative of a scalar target: the Hessian, in blocks.

    Args:
        fn: as for `gradient`, but returns one scalar.
        vars: as for `gradient`.

    Returns:
        One tensor `[...source, ...source]` for one source; else blocks in the structure of `vars`, twice: ``[i][j]``
        is `[...source_i, ...source_j]`. Zeros where TensorFlow finds no dependence, with a
        `MissingGradientWarning` where the first gradient is missing already.

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
            target = one_target(call, call())
        if target.shape.rank not in (0, None):
            raise ValueError(
                f"hessian: fn returned {describe(target)}. The Hessian is that of a scalar; reduce the target, with "
                "tf.reduce_sum for example, or take tapekit.jacobian of a gradient."
            )
        grads = dense(inner.gradient(target, call.sources))
    warn_of_none(call, grads)
    blocks = []
    for grad, source in zip(grads, call.sources, strict=True):
        row = [None] * len(call.sources) if grad is None else _rows(call, outer, grad)
        blocks.append(call.pack(zeros_for_none(row, call.sources, tf.shape(source))))
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
    mode_of("per_example_gradient", unconnected)
    call = bind("per_example_gradient", fn, vars, closure=True)
    _check_takes_one(fn)
    examples = _examples(batch)
    call = dataclasses.replace(call, fn=lambda: fn(tf.nest.map_structure(lambda rows: rows[0], examples)))
    connected: set[int] = set()  # by any example: each may take another branch

    def one(example: Any) -> list:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            watch_all(tape, call.sources)
            target = target_of(call, fn(example))
        grads = dense(tape.gradient(target, call.sources))
        connected.update(i for i, g in enumerate(grads) if g is not None)
        return zeros_for_none(grads, call.sources)

    specs = [tf.TensorSpec(source.shape, source.dtype) for source in call.sources]
    stacked = _vectorized(
        lambda: tf.vectorized_map(one, examples), lambda: tf.map_fn(one, examples, fn_output_signature=specs)
    )
    flat = [g if i in connected else None for i, g in enumerate(stacked)]
    return finish(call, flat, unconnected, leading=tf.shape(tf.nest.flatten(examples)[0])[:1])


def _rows(call: Call, tape: tf.GradientTape, target: tf.Tensor) -> list:
    """The Jacobians of `target`, by a vectorized loop where TensorFlow can make one, else by an ordinary one."""
    outputs = target.shape.num_elements() or 0
    inputs = sum(values_of(source).shape.num_elements() or 0 for source in call.sources)
    size, memory = outputs * inputs * target.dtype.size, float("inf")
    if hasattr(os, "sysconf"):  # not on Windows
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise ValueError(
            f"{call.where}: {outputs:,} outputs by {inputs:,} inputs in {target.dtype.name} take {size / 2**30:,.0f} "
            f"GiB. The array must fit in the memory of this machine, {memory / 2**30:,.0f} GiB. Write tapekit.vjp, "
            "tapekit.jvp or tapekit.hvp, which return its product with a vector."
        )
    return _vectorized(
        lambda: tape.jacobian(target, call.sources),
        lambda: tape.jacobian(target, call.sources, experimental_use_pfor=False),
    )


def _vectorized(fast: Callable, slow: Callable) -> Any:
    """``fast()``, or ``slow()`` where it cannot be vectorized, without TensorFlow's page of log lines about that."""

    def elsewhere(record: logging.LogRecord) -> bool:
        return record.module != "pfor" and "pfor" not in record.getMessage()

    logger = tf.get_logger()
    logger.addFilter(elsewhere)
    try:
        # vectorizing fails in many ways; an error of fn's own is raised again by slow()
        with variable_scope_kept(), contextlib.suppress(Exception):
            return fast()
    finally:
        logger.removeFilter(elsewhere)
    return slow()


@contextlib.contextmanager
def variable_scope_kept() -> Iterator[None]:
    """Undo what TensorFlow leaves behind when the body of a `tf.map_fn` raises in a graph.

    It is a caching device on the global variable scope, which keeps every later `strategy.scope()` from opening.
    """
    scope = tf.compat.v1.get_variable_scope()
    before = scope.caching_device
    try:
        yield
    finally:
        if scope.caching_device is not before:
            with tf.Graph().as_default():  # it cannot be set eagerly
                scope.set_caching_device(before)


def _check_takes_one(fn: Callable) -> None:
    signature = signature_of(fn)
    try:
        if signature is not None:
            signature.bind(None)
    except TypeError as error:
        raise TypeError(
            f"per_example_gradient: fn{signature} cannot be called as fn(example): {error}. An example is one "
            "structure, like the batch. Let fn take it whole: def fn(example): x, y = example."
        ) from None


def _examples(batch: Any) -> Any:
    """`batch` as tensors with a common first axis."""
    examples = tf.nest.map_structure(tf.convert_to_tensor, batch)
    flat = tf.nest.flatten(examples)
    known = {t.shape[0] for t in flat if t.shape.rank} - {None}
    if not flat or any(t.shape.rank == 0 for t in flat) or len(known) > 1:
        shapes = ", ".join(str(t.shape) for t in flat) or "none"
        raise ValueError(
            f"per_example_gradient: batch holds arrays of shapes {shapes}. They need a common first axis, "
            "[batch, ...]. Give x[None] for a single example, and np.array(rows) for rows of numbers: a list is a "
            "structure of arrays."
        )
    return examples
