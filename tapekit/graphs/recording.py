"""`Recording`: `fn` as a graph of symbolic tensors, with their gradients; `LeftTensorFlow`: there is no such graph."""

import dataclasses
import re
import traceback
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from tapekit._sources import Call, dense, is_float
from tapekit.graphs.answers import Answer
from tapekit.graphs.places import place

# operations that run Python code
PYTHON = {"PyFunc": "tf.numpy_function", "PyFuncStateless": "tf.numpy_function", "EagerPyFunc": "tf.py_function"}
IDENTITIES = {"Identity", "ReadVariableOp", "EnsureShape"}  # operations that return their input unchanged
# These operations read the shape of a tensor, not its values.
SHAPES = {"Shape", "ShapeN", "Size", "Rank", "VariableShape", "ZerosLike", "OnesLike", "BroadcastGradientArgs"}


class LeftTensorFlow(RuntimeError):
    """`fn` used the value of a tensor in Python, in the call with the stack ``frames``; no tape can follow it there."""

    def __init__(self, where: str, frames: traceback.StackSummary, error: BaseException | None = None) -> None:
        self.frames, at = frames, place(frames)
        told = f"{at.file}:{at.line}: `{at.code}`" if at else "a line that Python does not report"
        cause = f" ({type(error).__name__}: {reason(error)})" if error else ""
        super().__init__(
            f"{where}: fn leaves TensorFlow at {told}{cause}. Only TensorFlow operations can be followed. Write tf.* "
            "instead of np.* or math.*, keep tensors as they are (no .numpy(), float(), int(), tf.constant of a "
            "tensor), and make variables outside fn."
        )


def reason(error: BaseException) -> str:
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
    the result of `fn` or the sum of its parts. ``variables`` are those that `fn` made. ``answers`` are the values that
    `fn` used in Python, and ``asked`` the operations whose outputs they are.
    """

    call: Call
    graph: tf.Graph
    sources: list[tf.Tensor]
    ops: list[tf.Operation]
    target: tf.Tensor
    variables: list[tf.Variable] = dataclasses.field(default_factory=list)
    answers: list[Answer] = dataclasses.field(default_factory=list)
    asked: list[tf.Operation] = dataclasses.field(default_factory=list)
    no_gradient: list[tf.Operation] = dataclasses.field(default_factory=list)  # ops with no registered gradient

    def __post_init__(self) -> None:
        self.inputs = {op: list(op.inputs) for op in self.ops}

    def captured(self) -> list[tuple[tf.Tensor, Any]]:
        """Return ``(inside, outside)`` for each tensor or variable that existed before `fn` ran."""
        variables = {id(variable.handle): variable for variable in self.graph.variables}
        return [(inside, variables.get(id(outside), outside)) for outside, inside in self.graph.captures]

    def gradients(self, tensors: Iterable[tf.Tensor]) -> list:
        """Return the gradient of the (summed) target with respect to each of `tensors`; None where there is none."""
        return self.vjp([self.target], tensors)

    def vjp(self, outputs: list, inputs: Iterable, upstream: list | None = None, *, stop: Iterable = ()) -> list:
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
            except Exception as error:  # the function of a custom gradient may raise anything
                raise LeftTensorFlow(self.call.where, traceback.extract_tb(error.__traceback__), error) from error
            else:
                by_tensor = {tensor.ref(): gradient for tensor, gradient in zip(known, dense(found), strict=True)}
                return [by_tensor.get(tensor.ref()) for tensor in inputs]

    def copy(self, op: tf.Operation, inputs: Iterable[tf.Tensor] | None = None) -> tf.Operation:
        """Return an operation like `op` that nothing uses, with other `inputs`, or with copies of its own."""
        fresh = [tf.identity(tensor) for tensor in self.inputs[op]] if inputs is None else inputs
        kinds = [output.dtype for output in op.outputs]
        return self.graph.create_op(op.type, list(fresh), kinds, attrs=dict(op.node_def.attr))
