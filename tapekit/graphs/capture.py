"""`fn` -> a TensorFlow graph, asked questions and run once: what `trace`, `explain` and `check_gradient` stand on.

An eager tape cannot be read from Python, a graph can. `capture` traces a `Call` inside a `tf.function`, whose automatic
control dependencies keep reads and assignments of variables in the order in which they were written, and runs values
and gradients as one graph, so that both belong to the same random draw.
"""

import dataclasses
import linecache
import re
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from tapekit._sources import Call, dense, describe, is_float, values_of
from tapekit.graphs.state import variables_kept
from tapekit.jacobians import variable_scope_kept

LIBRARIES = (sysconfig.get_paths()["stdlib"], str(Path(__file__).parent.parent), "<frozen")
INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]|__autograph_generated_file")
# How TensorFlow, Keras, NumPy and Python word their refusal of a tensor that has no value yet.
REFUSAL = re.compile(
    r"symbolic|to a numpy array|attribute .numpy|eager|singleton tf.Variable|unable to lift|non-tensor", re.IGNORECASE
)

# They hand on what they get.
PLUMBING = {"Identity", "ReadVariableOp", "EnsureShape"}
# They read the shape of a tensor, not its numbers.
SHAPES = {"Shape", "ShapeN", "Size", "Rank", "VariableShape", "ZerosLike", "OnesLike", "BroadcastGradientArgs"}


class Place(NamedTuple):
    """A line of the user's code."""

    file: str
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def short(file: str) -> str:
    """The name of a file to print; the cell of a notebook has only a number for a name."""
    return "notebook cell" if re.search(r"ipykernel_\d|ipython-input", file) else Path(file).name


class LeftTensorFlow(RuntimeError):
    """`fn` needed a tensor's number in Python while it was traced: what it did there no tape can follow."""

    def __init__(self, where: str, place: Place | None, error: Exception) -> None:
        at = f"{place}: `{place.code}`" if place else "a line that Python does not tell"
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        misfit = " Or an array does not fit a tensor's shape, which reads the same." if "numpy array" in reason else ""
        super().__init__(
            f"{where}: fn leaves TensorFlow at {at} ({type(error).__name__}: {reason}). Only TensorFlow operations can "
            "be followed. Write tf.* instead of np.* or math.*, tf.where or tf.cond instead of an if in a lambda, keep "
            "tensors as they are (no .numpy(), float(), int(), tf.constant of a tensor), and make variables outside fn."
            + misfit
        )


@dataclasses.dataclass(eq=False)
class Recording:
    """`fn` as a graph of symbolic tensors, to be asked about inside `ask` (see `capture`).

    ``sources[i]`` is where source i enters the graph: the tensor itself, or a variable's handle (dtype resource), whose
    consumers are the reads. ``ops`` are those that `fn` made, in execution order, ``inputs`` their inputs: a while loop
    gets more of them when gradients are asked for. ``target`` is one tensor made of what `fn` returned.
    """

    call: Call
    graph: tf.Graph
    sources: list[tf.Tensor]
    ops: list[tf.Operation]
    inputs: dict[tf.Operation, list[tf.Tensor]]
    target: tf.Tensor
    no_gradient: list[tf.Operation] = dataclasses.field(default_factory=list)  # ops with no registered gradient

    def captured(self) -> list[tuple[tf.Tensor, Any]]:
        """``(inside, outside)`` for all that was there before `fn` ran; a variable in the place of its handle."""
        variables = {id(variable.handle): variable for variable in self.graph.variables}
        return [(inside, variables.get(id(outside), outside)) for outside, inside in self.graph.captures]

    def gradients(self, tensors: Iterable[tf.Tensor]) -> list:
        """Of the target (its sum) with respect to each of `tensors`; None where no gradient arrives."""
        return self.vjp([self.target], tensors)

    def vjp(
        self, outputs: list, inputs: Iterable[tf.Tensor], upstream: list | None = None, *, stop: Iterable = ()
    ) -> list:
        """`upstream` (or ones) carried back from `outputs` to `inputs`, not through `stop`. It gives up only at ops
        without a registered gradient, and keeps those in ``no_gradient``."""
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
    """Trace `call`, let `ask(recording)` answer with a structure of tensors of the graph, run it once: the same
    structure as NumPy arrays (None stays None). Every variable is afterwards what it was."""
    outside_of_graphs(call.where)
    outside_of_scopes(call)
    for name, source in zip(call.names, call.sources, strict=True):
        if isinstance(source, tf.RaggedTensor):
            raise TypeError(f"{call.where}: source {name!r} is ragged. A dense one is needed. Give its .flat_values.")
    with variable_scope_kept():
        concrete, recording = graph_of(call, ask)
    with variables_kept(concrete, (source for source in call.sources if isinstance(source, tf.Variable))):
        answers = concrete()
    return recording, tf.nest.map_structure(lambda tensor: None if tensor is None else tensor.numpy(), answers)


def outside_of_graphs(where: str) -> None:
    """An error while a `tf.function` is traced."""
    if not tf.executing_eagerly():
        raise RuntimeError(
            f"{where}: called inside a tf.function. It runs fn itself, and needs numbers. Call it outside; fn may be "
            "the tf.function."
        )


def outside_of_scopes(call: Call) -> None:
    """An error where a source has a value on each replica, and none of them is meant."""
    for name, source in zip(call.names, call.sources, strict=True):
        if isinstance(source, tf.distribute.DistributedValues) and tf.distribute.in_cross_replica_context():
            raise RuntimeError(
                f"{call.where}: source {name!r} has a value on each replica. In a strategy's scope none of them is "
                "meant. Call it outside of the scope, or inside strategy.run."
            )


def place(frames: Iterable[traceback.FrameSummary]) -> Place | None:
    """The innermost line of a stack (of ``op.traceback``, of an exception) that is the user's own."""
    for frame in reversed(list(frames)):
        file, line = frame.filename, frame.lineno or 0
        if is_own(file):
            return Place(file, line, linecache.getline(file, line).strip())
    return None


def is_own(file: str) -> bool:
    """Whether a file of code is the user's, and of no library."""
    return not file.startswith(LIBRARIES) and not INSTALLED.search(file)


def graph_of(call: Call, ask: Callable) -> tuple[Any, Recording]:
    """The concrete function that answers `ask`, and the recording."""
    errors: list[Exception] = []
    # Nested tf.functions inline; if a Python `if` or `for` needs a tensor's value, AutoGraph makes it tf.cond or
    # tf.while_loop, as it does in a tf.function: in the nested ones, in fn, in both.
    for autograph, inline in ((False, True), (False, False), (True, True), (True, False)):
        try:
            fn = tf.autograph.to_graph(call.fn) if autograph else call.fn
            return _trace(dataclasses.replace(call, fn=fn), ask, inline=inline)
        except tf.errors.OperatorNotAllowedInGraphError as error:
            errors.append(error)
        except Exception as error:  # also AutoGraph's, which cannot read the source code of every callable
            if not errors and not REFUSAL.search(str(error)):
                raise  # a mistake of another kind
            errors.append(error)
            break
    raise LeftTensorFlow(call.where, place(traceback.extract_tb(errors[0].__traceback__)), errors[0]) from errors[0]


def _trace(call: Call, ask: Callable, *, inline: bool) -> tuple[Any, Recording]:
    recordings = []

    def body() -> Any:
        graph = tf.compat.v1.get_default_graph()
        # A captured tensor enters a graph once: what an Identity of it reads is what fn reads, also where TensorFlow
        # embeds a small tensor as a Const.
        handles = [s.handle if isinstance(s, tf.Variable) else values_of(s) for s in call.sources]
        entries = [tf.identity(each).op.inputs[0] for each in handles]
        leaves = [_with(*each) for each in zip(call.leaves, call.sources, entries, strict=True)]
        start = len(graph.get_operations())
        with _functions_run_eagerly(inline):
            target = _target(call, call(leaves))
        ops = graph.get_operations()[start:]
        recording = Recording(call, graph, entries, ops, {op: list(op.inputs) for op in ops}, target)
        recordings.append(recording)
        return ask(recording)

    return tf.function(body, autograph=False).get_concrete_function(), recordings[-1]


def _with(leaf: Any, source: Any, entry: tf.Tensor) -> Any:
    """`leaf` as `fn` is to get it: a tensor by where it enters the graph."""
    if isinstance(source, tf.Variable):
        return leaf
    return source.with_flat_values(entry) if isinstance(source, tf.RaggedTensor) else entry


def _target(call: Call, result: Any) -> tf.Tensor:
    """What `fn` returned as one tensor: the sum, if it is a structure of tensors, as the gradient is of the sum."""
    flat = tf.nest.flatten(result)
    try:
        if len(flat) == 1:
            return tf.convert_to_tensor(flat[0])
        return tf.add_n([tf.reduce_sum(member) for member in flat], name="target")
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{call.where}: fn returned {describe(result)}. It must return the target, a float tensor. Let it return "
            "the loss."
        ) from error


@contextmanager
def _functions_run_eagerly(value: bool) -> Iterator[None]:
    """With True, the bodies of nested tf.functions (jit-compiled ones too) are traced in line."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(value)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Even though the `tf.config.experimental_run_functions_eagerly`")
            yield
    finally:
        tf.config.run_functions_eagerly(before)
