"""Restore everything that a run of `fn` may change: the values of variables, and random state."""

import gc
import random
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import numpy as np
import tensorflow as tf

ONE_AT_A_TIME = threading.RLock()  # a run of fn changes variables and settings that all threads share


def variables_kept(concrete: Any, others: Iterable[tf.Variable]) -> AbstractContextManager:
    """Restore, bit for bit, every variable that the graph reads or assigns, and `others`."""
    variables = [*concrete.graph.variables, *others]
    handles = {id(variable.handle): (variable.handle, variable.dtype) for variable in variables}
    for handle, inside in concrete.graph.captures:
        for op in inside.consumers():  # TensorFlow does not list a variable that is assigned and never read
            if inside.dtype == tf.resource and op.type.startswith(("Assign", "ResourceScatter", "ResourceStrided")):
                handles[id(handle)] = (handle, op.inputs[-1].dtype)
    return restored([(h, tf.raw_ops.ReadVariableOp(resource=h, dtype=dtype)) for h, dtype in handles.values()])


@contextmanager
def restored(values: Iterable[tuple[tf.Tensor, tf.Tensor]]) -> Iterator[None]:
    """Assign each value to the handle of its variable at the end, also after an exception."""
    try:
        yield
    finally:
        for handle, value in values:
            tf.raw_ops.AssignVariableOp(resource=handle, value=value)


def all_variables_kept() -> AbstractContextManager:
    """Restore every variable of the program: an eager run does not report which variables it assigns."""
    objects, before = gc.get_objects(), []
    kinds = {kind for kind in set(map(type, objects)) if issubclass(kind, tf.Variable)}  # a type each: it is slow
    for variable in (each for each in objects if type(each) in kinds):
        with suppress(Exception):  # a variable that is not initialized, or belongs to a graph
            # no copy: the tensor shares the memory of the variable until that is assigned
            before.append((variable.handle, tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)))
    return restored(before)


@contextmanager
def draws_kept() -> Iterator[None]:
    """Restore the position of eager random operations in the sequence that `tf.random.set_seed` began."""
    seed, following = tf.compat.v1.get_seed(None)  # takes one number of the sequence, if a seed was set
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
    """Restore the random state of Python and of NumPy; running a graph does not change that of TensorFlow."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
