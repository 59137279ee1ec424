"""What a run of `fn` leaves as it was: variables, random state, and TensorFlow's variable scope."""

import gc
import random
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import tensorflow as tf


def variables_kept(concrete: Any, others: Iterable[tf.Variable]) -> AbstractContextManager:
    """Every variable that the graph reads or assigns, and `others`, are afterwards, bit for bit, what they were."""
    variables = [*concrete.graph.variables, *others]
    handles = {id(variable.handle): (variable.handle, variable.dtype) for variable in variables}
    for handle, inside in concrete.graph.captures:
        for op in inside.consumers():  # a variable that is assigned and never read TensorFlow does not list
            if inside.dtype == tf.resource and op.type.startswith(("Assign", "ResourceScatter")):
                handles[id(handle)] = (handle, op.get_attr("dtype"))
    return restored([(h, tf.raw_ops.ReadVariableOp(resource=h, dtype=dtype)) for h, dtype in handles.values()])


@contextmanager
def restored(values: Iterable[tuple[tf.Tensor, tf.Tensor]]) -> Iterator[None]:
    """Assign each value to its variable's handle again, whatever happens before."""
    try:
        yield
    finally:
        for handle, value in values:
            tf.raw_ops.AssignVariableOp(resource=handle, value=value)


def all_variables_kept() -> AbstractContextManager:
    """Every variable there is, is afterwards what it was: an eager run does not tell which ones it assigns."""
    before = []
    for found in gc.get_objects():
        if issubclass(type(found), tf.Variable):
            try:
                # shares the variable's memory until the variable is assigned
                before.append((found.handle, tf.raw_ops.ReadVariableOp(resource=found.handle, dtype=found.dtype)))
            except Exception:  # not initialised, or of a graph
                continue
    return restored(before)


@contextmanager
def draws_kept() -> Iterator[None]:
    """Eager draws that follow `tf.random.set_seed` go on afterwards where they were."""
    seed, following = tf.compat.v1.get_seed(None)  # draws one, if a seed was set
    if seed is None:
        yield
        return
    tf.random.set_seed(seed)
    count = next((n for n in range(1_000_000) if tf.compat.v1.get_seed(None)[1] == following), 0)
    try:
        yield
    finally:
        tf.random.set_seed(seed)
        for _ in range(count):
            tf.compat.v1.get_seed(None)


@contextmanager
def undisturbed() -> Iterator[None]:
    """The random state of Python and of NumPy is afterwards what it was; a graph does not touch TensorFlow's."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
