"""`fn` where it cannot be a graph: run eagerly instead, or with the variables that it makes made outside."""

import contextlib
import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, is_float, values_of, watch_all
from tapekit.graphs.state import all_variables_kept


def run_eagerly(call: Call) -> list[str]:
    """The status of each source's gradient, from a plain tape. Every variable is afterwards what it was."""
    floats = [source for source in call.sources if is_float(source)]
    with all_variables_kept():
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            watch_all(tape, floats)
            result = call()
        target = [t for t in tf.nest.flatten(result) if tf.is_tensor(t) and is_float(t)]
        return [status(_flags_of_gradient(tape, target, source), source) for source in call.sources]


def reaches(call: Call, index: int) -> bool:
    """Whether the target is another one if the numbers of source `index` are. True where this cannot be tried."""
    source = call.sources[index]
    if isinstance(source, tf.RaggedTensor) or not (call.takes_vars or isinstance(source, tf.Variable)):
        return True
    results = []
    for moved in (source, 1.25 * tf.convert_to_tensor(source) + 0.5):
        with all_variables_kept():
            leaves = list(call.leaves)
            if isinstance(source, tf.Variable):
                source.assign(moved)
            else:
                leaves[index] = moved
            try:
                results.append([np.asarray(each) for each in tf.nest.flatten(call(leaves))])
            except Exception:  # the moved numbers may be none that fn can take
                return True
    return not all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


def _flags_of_gradient(tape: tf.GradientTape, target: list, source: tf.Tensor) -> tf.Tensor | None:
    gradient = None
    if target and is_float(source):
        with contextlib.suppress(LookupError):  # an operation without a registered gradient
            gradient = tape.gradient(target, source)
    return None if gradient is None else flags(tf.convert_to_tensor(values_of(gradient)))


def flags(tensor: tf.Tensor) -> tf.Tensor:
    """``[all zero, all finite]``"""
    tensor = tf.reshape(tensor, [-1])  # the gradient of a py_function need not have the shape that it claims
    parts = [tf.math.real(tensor), tf.math.imag(tensor)] if tensor.dtype.is_complex else [tensor]
    finite = [tf.reduce_all(tf.math.is_finite(part)) for part in parts]
    return tf.stack([tf.reduce_all(tf.equal(tensor, 0)), tf.reduce_all(finite)])


def status(answer: Any, source: Any) -> str:
    """The word for the `flags` of a gradient, or for None."""
    if answer is None:
        return "none"
    zero, finite = answer
    if not finite:
        return "not_finite"
    return "zero" if zero and source.shape.num_elements() != 0 else "ok"


class Inside:
    """`call`, but a variable that `fn` makes is made outside of the graph, and filled inside it."""

    def __init__(self, call: Call) -> None:
        self.original = call
        self.made: list[tf.Variable] = []  # a handle is to live as long as the graph
        self.call = dataclasses.replace(call, fn=self._fn)
        self.failed = False  # whether fn, at its last run, did not give what a graph can add up to one dense target

    def _fn(self, *args: Any, **kwargs: Any) -> Any:
        self.failed = True
        with tf.variable_creator_scope(self._make):
            result = self.original.fn(*args, **kwargs)
        parts = [part for part in tf.nest.flatten(result) if tf.is_tensor(part)]
        ragged = any(isinstance(part, tf.RaggedTensor) for part in parts)
        self.failed = ragged or len({part.dtype for part in parts}) > 1
        return result

    def _make(self, next_creator: Callable, **kwargs: Any) -> tf.Variable:
        self.made.append(make_variable(**kwargs))
        return self.made[-1]


def make_variable(*, initial_value: Any, **kwargs: Any) -> tf.Variable:
    # tf.function forbids new variables in the thread that traces
    with ThreadPoolExecutor(1) as outside:
        if not any(tf.is_tensor(each) for each in tf.nest.flatten(initial_value)):
            with contextlib.suppress(Exception):  # numbers, or the initializer of a layer, which is built for good
                return outside.submit(tf.Variable, initial_value, **kwargs).result()
        value = tf.convert_to_tensor(initial_value() if callable(initial_value) else initial_value)
        zeros = np.zeros([size or 1 for size in value.shape], value.dtype.as_numpy_dtype)
        kwargs |= {"shape": value.shape, "dtype": value.dtype}
        variable = outside.submit(tf.Variable, zeros, **kwargs).result()
    variable.assign(value)
    return variable
