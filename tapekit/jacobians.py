"""Derivatives as whole arrays: `jacobian`, `hessian`, and `per_example_gradient` for a batch.

One law gives the shapes: Jacobian shape = target.shape + source.shape. `tapekit.vjp`, `tapekit.jvp` and `tapekit.hvp`
compute a product with a vector without the array.
"""

import contextlib
import dataclasses
import logging
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from tapekit._sources import Call, bind, dense, describe, require_fit, values_of, watch_all
from tapekit._targets import taped
from tapekit.gradients import Unconnected, finish, warn_of_none, zeros_for_none


def jacobian(fn: Callable, vars: Any, /, *, unconnected: Unconnected = "warn") -> Any:
    """Return the Jacobian: the derivative of every element of the target.

    Args:
        fn: as for `gradient`, but it returns one tensor, `[...target]`.
        vars, unconnected: as for `gradient`.

    Returns:
        The structure of `vars`, each `[...target, ...source]`: Jacobian shape = target.shape + source.shape.

    Raises:
        TypeError: `fn` returns a structure; TypeError, ValueError: as `gradient`.

    Example:
        >>> jacobian(lambda x: x**2, tf.constant([1.0, 2.0])).numpy().tolist()
        [[2.0, 0.0], [0.0, 4.0]]
    """
    call = bind("jacobian", fn, vars, unconnected=unconnected)
    tape, target, _ = taped(call, persistent=True, one=True)
    return finish(call, _jacobians(call, tape, target), leading=tf.shape(target))


def hessian(fn: Callable, vars: Any, /) -> Any:
    """Return the Hessian: every second derivative of a scalar target, in blocks.

    Args:
        fn: as for `gradient`, but it returns one scalar.
        vars: as for `gradient`.

    Returns:
        One tensor `[...source, ...source]` for one source; else blocks in the structure of `vars`, twice: ``[i][j]``
        is `[...source_i, ...source_j]`. Zeros where there is no second derivative. Warns if there is no first one.

    Raises:
        ValueError: the target is not a scalar; TypeError, ValueError: as `gradient`.

    Example:
        >>> hessian(lambda x: x[0] ** 2 * x[1], tf.constant([1.0, 2.0])).numpy().tolist()
        [[4.0, 2.0], [2.0, 0.0]]
    """
    call = bind("hessian", fn, vars)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as outer:
        watch_all(outer, call.sources)
        inner, target, _ = taped(call, one=True)
        if target.shape.rank not in (0, None):
            raise ValueError(f"hessian: fn returned {describe(target)}. A scalar is needed. Write tf.reduce_sum(...).")
        grads = dense(inner.gradient(target, call.sources))
    warn_of_none(call, grads)
    blocks = []
    for grad, source in zip(grads, call.sources, strict=True):
        row = [None] * len(call.sources) if grad is None else _jacobians(call, outer, grad)
        blocks.append(call.pack(zeros_for_none(row, call.sources, tf.shape(source))))
    return call.pack(blocks)


def per_example_gradient(fn: Callable, vars: Any, batch: Any, /, *, unconnected: Unconnected = "warn") -> Any:
    """Return one gradient for each example of a batch; an ordinary gradient is their sum.

    Args:
        fn: ``fn(example)`` returns the loss of one example, and closes over `vars`; a Keras model needs `x[None]`.
        vars: variables or tensors, as for `gradient`.
        batch: a structure of arrays with a common first axis, `[batch, ...]`. ``fn`` gets the same structure without
            that axis.

    Returns:
        The structure of `vars`, each `[batch, ...source]`.

    Raises:
        TypeError, ValueError: `batch` is not a structure of arrays with a common first axis. Otherwise as `gradient`.

    Example:
        >>> w = tf.Variable(2.0)
        >>> per_example_gradient(lambda x: (w * x) ** 2, w, tf.constant([1.0, 10.0])).numpy().tolist()
        [4.0, 400.0]
    """
    call = bind("per_example_gradient", fn, vars, closure=True, unconnected=unconnected)
    instead = "An example is one structure, like the batch. Let fn take it whole: def fn(example): x, y = example."
    require_fit("per_example_gradient", fn, (None,), {}, "fn(example)", instead)
    examples = _examples(batch)
    connected: set[int] = set()  # by any example: each may take another branch

    def one(example: Any) -> list:
        tape, target, _ = taped(dataclasses.replace(call, fn=lambda: fn(example)))
        grads = dense(tape.gradient(target, call.sources))
        connected.update(i for i, g in enumerate(grads) if g is not None)
        return zeros_for_none(grads, call.sources)

    specs = [tf.TensorSpec(source.shape, source.dtype) for source in call.sources]
    stacked = _vectorized(
        lambda: tf.vectorized_map(one, examples), lambda: tf.map_fn(one, examples, fn_output_signature=specs)
    )
    flat = [g if i in connected else None for i, g in enumerate(stacked)]
    return finish(call, flat, leading=tf.shape(tf.nest.flatten(examples)[0])[:1])


@contextlib.contextmanager
def variable_scope_kept() -> Iterator[None]:
    """Restore the caching device, which a failed `tf.map_fn` leaves set in a graph: `strategy.scope()` would fail."""
    scope = tf.compat.v1.get_variable_scope()
    before = scope.caching_device
    try:
        yield
    finally:
        if scope.caching_device is not before:
            with tf.Graph().as_default():  # it cannot be set eagerly
                scope.set_caching_device(before)


def _jacobians(call: Call, tape: tf.GradientTape, target: tf.Tensor) -> list:
    """Return the Jacobian of `target` for each source, by a vectorized loop if possible, else by an ordinary one."""
    inputs = sum(values_of(source).shape.num_elements() or 0 for source in call.sources)
    size = (target.shape.num_elements() or 0) * inputs * target.dtype.size
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf
    if size > memory:
        raise ValueError(
            f"{call.where}: {target.shape.num_elements():,} outputs by {inputs:,} inputs in {target.dtype.name} take "
            f"{size / 2**30:,.0f} GiB. The array must fit in the memory of this machine, {memory / 2**30:,.0f} GiB. "
            "Write tapekit.vjp, tapekit.jvp or tapekit.hvp, which return its product with a vector."
        )
    slow = {"experimental_use_pfor": False}
    return _vectorized(lambda: tape.jacobian(target, call.sources), lambda: tape.jacobian(target, call.sources, **slow))


def _vectorized(fast: Callable, slow: Callable) -> Any:
    """Return ``fast()``, or ``slow()`` if it cannot be vectorized; hide TensorFlow's log lines about that."""

    def is_other(record: logging.LogRecord) -> bool:
        return record.module != "pfor" and "pfor" not in record.getMessage()

    logger = tf.get_logger()
    logger.addFilter(is_other)
    try:
        # vectorizing fails in many ways; an error of fn's own is raised again by slow()
        with variable_scope_kept(), contextlib.suppress(Exception):
            return fast()
    finally:
        logger.removeFilter(is_other)
    return slow()


def _examples(batch: Any) -> Any:
    """Return `batch` as tensors with a common first axis."""
    try:
        examples = tf.nest.map_structure(tf.convert_to_tensor, batch)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"per_example_gradient: batch is {describe(batch)}. A structure of arrays is needed, [batch, ...]. For a "
            "tf.data.Dataset, give next(iter(dataset))."
        ) from error
    shapes = [t.shape for t in tf.nest.flatten(examples)]
    if not shapes or any(s.rank == 0 for s in shapes) or len({s[0] for s in shapes if s.rank} - {None}) > 1:
        raise ValueError(
            f"per_example_gradient: batch holds arrays of shapes {', '.join(map(str, shapes)) or 'none'}. "
            "They need a common first axis, [batch, ...]. Give x[None] for a single example, and np.array(rows) for "
            "rows of numbers: a list is a structure of arrays."
        )
    return examples
