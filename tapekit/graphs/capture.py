"""`fn` as a TensorFlow graph that is queried and run once: `capture`, `Recording`, `Place`.

Python cannot read an eager tape, but it can read a graph. `capture` traces a `Call` inside a `tf.function`, whose
automatic control dependencies keep reads and assignments of variables in the order in which they were written. Values
and gradients are computed by one run of one graph, so that both belong to the same random draw.
"""

import dataclasses
import linecache
import re
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tapekit._lines import is_own
from tapekit._sources import Call, dense, describe, is_float, values_of
from tapekit.graphs.eager import eager_gradients
from tapekit.graphs.state import ONE_AT_A_TIME, variables_kept
from tapekit.graphs.variables import variables_made_once
from tapekit.jacobians import variable_scope_kept

# Words in the errors that TensorFlow, Keras, NumPy and Python raise for a tensor that has no value yet.
REFUSAL = re.compile(
    r"symbolic|to a numpy array|attribute .numpy|eager|singleton tf.Variable|unable to lift|non-tensor", re.IGNORECASE
)

PLUMBING = {"Identity", "ReadVariableOp", "EnsureShape"}  # operations that return their input unchanged
# These operations read the shape of a tensor, not its values.
SHAPES = {"Shape", "ShapeN", "Size", "Rank", "VariableShape", "ZerosLike", "OnesLike", "BroadcastGradientArgs"}


class Place(NamedTuple):
    """One line of the user's code."""

    file: str
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def short(file: str) -> str:
    """Return the name of a file as it is printed; the file of a notebook cell has only a number for its name."""
    return "notebook cell" if re.search(r"ipykernel_\d|ipython-input", file) else Path(file).name


class LeftTensorFlow(RuntimeError):
    """`fn` used the value of a tensor in Python while it was traced; no tape can follow the value there."""

    def __init__(self, where: str, place: Place | None, error: Exception) -> None:
        at = f"{place}: `{place.code}`" if place else "a line that Python does not report"
        cause = reason(error)
        misfit = " Or an array does not fit a tensor's shape, which raises the same error." if "numpy" in cause else ""
        super().__init__(
            f"{where}: fn leaves TensorFlow at {at} ({type(error).__name__}: {cause}). Only TensorFlow operations can "
            "be followed. Write tf.* instead of np.* or math.*, tf.where or tf.cond instead of an if in a lambda, keep "
            "tensors as they are (no .numpy(), float(), int(), tf.constant of a tensor), and make variables outside fn."
            + misfit
        )


def reason(error: Exception) -> str:
    """Return the first sentence of an error, without the line with the layer's name that Keras puts before it."""
    lines = [re.sub(r"\x1b\[\d*m", "", line).strip() for line in str(error).split("\n")]
    told = [line for line in lines if line and not line.startswith("Exception encountered when calling")]
    return (told or [""])[0].split(". ")[0]


@dataclasses.dataclass(eq=False)
class Recording:
    """`fn` as a graph of symbolic tensors; the `ask` of `capture` chooses which of them are computed.

    ``sources[i]`` is the tensor by which source i enters the graph: the tensor itself, or the handle of a variable
    (dtype resource), whose consumers are the reads. ``ops`` are the operations that `fn` made, in execution order, and
    ``inputs`` their inputs: TensorFlow adds inputs to a while loop when it makes gradients. ``target`` is one tensor,
    the result of `fn` or the sum of its parts. ``variables`` are those that `fn` made.
    """

    call: Call
    graph: tf.Graph
    sources: list[tf.Tensor]
    ops: list[tf.Operation]
    inputs: dict[tf.Operation, list[tf.Tensor]]
    target: tf.Tensor
    variables: list[tf.Variable] = dataclasses.field(default_factory=list)
    no_gradient: list[tf.Operation] = dataclasses.field(default_factory=list)  # ops with no registered gradient

    def captured(self) -> list[tuple[tf.Tensor, Any]]:
        """Return ``(inside, outside)`` for each tensor or variable that existed before `fn` ran."""
        variables = {id(variable.handle): variable for variable in self.graph.variables}
        return [(inside, variables.get(id(outside), outside)) for outside, inside in self.graph.captures]

    def gradients(self, tensors: Iterable[tf.Tensor]) -> list:
        """Return the gradient of the (summed) target with respect to each of `tensors`; None where there is none."""
        return self.vjp([self.target], tensors)

    def vjp(
        self, outputs: list, inputs: Iterable[tf.Tensor], upstream: list | None = None, *, stop: Iterable = ()
    ) -> list:
        """Return `upstream` (or ones) times the Jacobian of `outputs` with respect to each of `inputs`.

        The gradient does not pass through the tensors `stop`, nor through operations without a registered gradient,
        which are collected in ``no_gradient``.
        """
        inputs = list(inputs)
        known = [tensor for tensor in inputs if tensor.dtype == tf.resource or is_float(tensor)]
        if not known or not all(is_float(output) for output in outputs):
            return [None] * len(inputs)
        if upstream is None and any(output.dtype.is_complex for output in outputs):  # as a tape does
            upstream = [tf.ones_like(output) for output in outputs]
        while True:
            dead_ends = [output for op in self.no_gradient for output in op.outputs]
            try:
                found = tf.gradients(outputs, known, grad_ys=upstream, stop_gradients=[*stop, *dead_ends])
            except LookupError as error:
                if not (name := re.search(r"operation ?'([^']+)'", str(error))):
                    raise
                self.no_gradient.append(self.graph.get_operation_by_name(name[1]))
            else:
                by_tensor = {tensor.ref(): gradient for tensor, gradient in zip(known, dense(found), strict=True)}
                return [by_tensor.get(tensor.ref()) for tensor in inputs]


def capture(call: Call, ask: Callable[[Recording], Any]) -> tuple[Recording, Any]:
    """Trace `call`, and run once the tensors that `ask(recording)` returns.

    Returns the recording, and the structure that `ask` returned with NumPy arrays in the place of its tensors (None
    stays None). Every variable keeps its value.
    """
    outside_of_graphs(call.where)
    outside_of_scopes(call)
    for name, source in zip(call.names, call.sources, strict=True):
        if isinstance(source, tf.RaggedTensor):
            raise TypeError(f"{call.where}: source {name!r} is ragged. A dense one is needed. Give its .flat_values.")
    with ONE_AT_A_TIME, variable_scope_kept():
        concrete, recording = graph_of(call, ask)
        with variables_kept(concrete, (source for source in call.sources if isinstance(source, tf.Variable))):
            answers = concrete()
    return recording, tf.nest.map_structure(lambda tensor: None if tensor is None else tensor.numpy(), answers)


def outside_of_graphs(where: str) -> None:
    """Raise an error if a `tf.function` is being traced."""
    if not tf.executing_eagerly():
        raise RuntimeError(
            f"{where}: called inside a tf.function. It runs fn itself, and needs numbers. Call it outside; fn may be "
            "the tf.function."
        )


def outside_of_scopes(call: Call) -> None:
    """Raise an error if a source has one value on each replica, and it is not known which one is meant."""
    for name, source in zip(call.names, call.sources, strict=True):
        if isinstance(source, tf.distribute.DistributedValues) and tf.distribute.in_cross_replica_context():
            raise RuntimeError(
                f"{call.where}: source {name!r} has a value on each replica, and a strategy's scope selects none of "
                "them. Call it outside of the scope, or inside strategy.run."
            )


def place(frames: Iterable[traceback.FrameSummary]) -> Place | None:
    """Return the innermost line of a stack (of ``op.traceback`` or of an exception) that is in the user's code."""
    for frame in reversed(list(frames)):
        if is_own(frame.filename):
            return place_at(frame.filename, frame.lineno or 0)
    return None


def place_at(file: str, line: int) -> Place:
    """Return the place of a line of a file."""
    return Place(file, line, linecache.getline(file, line).strip())


def graph_of(call: Call, ask: Callable) -> tuple[Any, Recording]:
    """Return the concrete function that computes the answer of `ask`, and the recording."""
    errors: list[Exception] = []
    # The bodies of nested tf.functions are put in line. If Python code (if, for, len, range) needs the value of a
    # tensor, AutoGraph converts it as it does in a tf.function: the code of fn, of the nested functions, or of both.
    for autograph, inline in ((False, True), (True, True), (False, False), (True, False)):
        try:
            if not autograph:
                return _trace(call, call.fn, ask, inline=inline)
            converted = _converted(call.fn)
            concrete, recording = _trace(call, converted, ask, inline=inline)
            if _same_gradients(call, converted, inline):
                return concrete, recording
        except Exception as error:  # also of AutoGraph, which cannot read the source code of every callable
            errors.append(error)
    if not REFUSAL.search(str(errors[0])):
        raise errors[0]  # fn is wrong in another way
    raise LeftTensorFlow(call.where, place(traceback.extract_tb(errors[0].__traceback__)), errors[0]) from errors[0]


def _converted(fn: Callable) -> Callable:
    """Return `fn` as AutoGraph converts it: called by a converted function, it keeps its own lines in tracebacks."""
    plain = getattr(fn, "python_function", fn)
    return tf.autograph.to_graph(lambda *args, **kwargs: plain(*args, **kwargs))


def _same_gradients(call: Call, converted: Callable, inline: bool) -> bool:
    """Return whether the gradients are those of an eager tape: AutoGraph makes a cast of float(), and so a gradient."""
    concrete, _ = _trace(call, converted, lambda made: made.gradients(made.sources), inline=inline)
    with variables_kept(concrete, []):
        in_graph = concrete()
    for eager, graph in zip(eager_gradients(call), in_graph, strict=True):
        if eager is None and graph is not None and np.any(graph):  # a loop that loses the gradient returns zeros
            return False
        if None not in (eager, graph):
            one, other = (np.where(np.isfinite(each), each, np.nan) for each in (dense([eager])[0], graph))
            if not np.allclose(one, other, 1e-3, equal_nan=True):
                return False
    return True


def _trace(call: Call, fn: Callable, ask: Callable, *, inline: bool) -> tuple[Any, Recording]:
    """Return what `graph_of` returns, with `fn` in place of the call's own, and nested functions `inline` or not."""
    recordings: list[Recording] = []
    made: list[tf.Variable] = []

    def body() -> Any:
        graph = tf.compat.v1.get_default_graph()
        # A captured tensor enters a graph once: the input of an Identity of it is the tensor that fn reads, also where
        # TensorFlow embeds a small tensor as a Const.
        handles = [s.handle if isinstance(s, tf.Variable) else values_of(s) for s in call.sources]
        entries = [tf.identity(each).op.inputs[0] for each in handles]
        leaves = [_in_graph(*each) for each in zip(call.leaves, call.sources, entries, strict=True)]
        start = len(graph.get_operations())
        with _functions_run_eagerly(inline), variables_made_once(made, entries):
            target = _target(call, dataclasses.replace(call, fn=fn)(leaves))
        ops = graph.get_operations()[start:]
        recording = Recording(call, graph, entries, ops, {op: list(op.inputs) for op in ops}, target, made)
        recordings.append(recording)
        return ask(recording)

    return tf.function(body, autograph=False).get_concrete_function(), recordings[-1]


def _in_graph(leaf: Any, source: Any, entry: tf.Tensor) -> Any:
    """Return `leaf` as `fn` receives it: a variable, or the tensor by which it enters the graph."""
    if isinstance(source, tf.Variable):
        return leaf
    return source.with_flat_values(entry) if isinstance(source, tf.RaggedTensor) else entry


def _target(call: Call, result: Any) -> tf.Tensor:
    """Return the result of `fn` as one tensor; several tensors are added, and so are their gradients."""
    flat = tf.nest.flatten(result, expand_composites=True)
    try:
        if len(flat) == 1:
            only = tf.convert_to_tensor(flat[0])
            return only if tf.is_symbolic_tensor(only) else tf.identity(only)
        parts = [tf.convert_to_tensor(part) for part in flat]
        if isinstance(result, tf.RaggedTensor):
            parts = [part for part in parts if is_float(part)]
        if len({part.dtype for part in parts}) > 1 and all(is_float(part) for part in parts):
            wide = tf.complex128 if any(part.dtype.is_complex for part in parts) else tf.float64
            parts = [tf.cast(part, wide) for part in parts]
        return tf.add_n([tf.reduce_sum(part) for part in parts], name="target")
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{call.where}: fn returned {describe(result)}. It must return the target, a float tensor. Let it return "
            "the loss."
        ) from error


@contextmanager
def _functions_run_eagerly(value: bool) -> Iterator[None]:
    """With True, put the bodies of nested tf.functions in line, also if they are compiled by XLA."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(value)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Even though the `tf.config.experimental_run_functions_eagerly`")
            yield
    finally:
        tf.config.run_functions_eagerly(before)
