"""`Float64`: `fn` and its gradient with every float of the graph made a float64, which tells rounding from mistakes."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from tapekit._sources import Call, is_float, values_of
from tapekit.checking.tape import TapeGradient, epsilon, floats, norm
from tapekit.graphs.capture import graph_of
from tapekit.graphs.recording import IDENTITIES, Recording

WRITES = re.compile("Assign|Resource(?!Gather)")
RANDOM = re.compile("Random(?!Get)|TruncatedNormal|Multinomial")
SUFFIX = "_in_float64"  # of the name of a function in the graph, which TensorFlow has already in its own dtype
WIDE = {tf.float16: tf.float64, tf.bfloat16: tf.float64, tf.float32: tf.float64, tf.complex64: tf.complex128}
_WIDE = {narrow.as_datatype_enum: wide.as_datatype_enum for narrow, wide in WIDE.items()}


class Float64:
    """The graph of `fn` and of its gradient, parts of which are imported in float64; an error if that is impossible.

    ``coarsest`` is the coarsest dtype between the sources and the outputs, ``largest`` the largest L2 norm of a tensor
    in `fn`; ``samplers`` are the indices of the sources that are parameters of a random operation.
    """

    def __init__(self, call: Call, tape: TapeGradient):
        outputs: list[tf.Tensor] = []
        gradients: list = []

        def fn(*leaves: Any) -> tf.Tensor:
            outputs[:] = floats(call.fn(*leaves))
            return tf.zeros([])

        def ask(recording: Recording) -> tf.Tensor:
            with contextlib.suppress(Exception):  # without a gradient, the values can still be measured
                gradients[:] = recording.vjp(outputs, recording.sources, tape.cotangents)
            made = (y for op in recording.ops for y in op.outputs if op.type not in IDENTITIES and is_float(y))
            return tf.reduce_max([tf.zeros([], tf.float64), *map(norm, made)])

        concrete, recording = graph_of(dataclasses.replace(call, fn=fn), ask)
        self.graph, self.outputs, self.gradients = concrete.graph, outputs, gradients
        self.largest = float(concrete())
        self.coarsest, self.samplers = _coarsest(recording, outputs), _samplers(recording)
        self.wide = _widened_graph(self.graph.as_graph_def())
        sources = [*map(_widened, call.sources)]
        self.entering = {inside.op.name: _widened(outside) for inside, outside in recording.captured()}
        self.entering |= {entry.op.name: source for entry, source in zip(recording.sources, sources, strict=True)}
        self.call = dataclasses.replace(call, vars=sources, leaves=sources, sources=sources, takes_vars=True)

    def values(self) -> Call:
        """Return the call as a function of float64 sources."""
        assigned = {op.inputs[0].op.name for op in self.graph.get_operations() if WRITES.match(op.type)}
        inner = (node for function in self.wide.library.function for node in function.node_def)
        if assigned & _leading_to(self.outputs) or any(WRITES.match(node.op) for node in inner):
            raise ValueError("a variable is assigned, and the graph without its control edges does not say when")
        return dataclasses.replace(self.call, fn=self._imported(self.outputs))

    def gradient(self, leaves: list) -> list:
        """Return the gradient of each source under the cotangents of the tape."""
        present = [x for x in self.gradients if x is not None]
        found = iter(self._imported(present)(*leaves))
        return [None if x is None else next(found) for x in self.gradients]

    def _imported(self, tensors: list[tf.Tensor]) -> Callable:
        """Return the part of the graph that computes `tensors` as a function of the sources in float64."""
        needed = _leading_to(tensors)
        part = tf.compat.v1.GraphDef(versions=self.wide.versions, library=self.wide.library)
        part.node.extend(node for node in self.wide.node if node.name in needed)
        entering = {f"{name}:0": x for name, x in self.entering.items() if name in needed}
        moved = [x for x in self.call.sources if not isinstance(x, tf.Variable)]

        def run(*given: tf.Tensor) -> Any:
            values = {id(x): value for x, value in zip(moved, given, strict=True)}
            enter = {name: tf.identity(values.get(id(x), getattr(x, "handle", x))) for name, x in entering.items()}
            return tf.graph_util.import_graph_def(part, enter, [x.name for x in tensors])

        # a tf.function would not find the functions in the graph
        imported = tf.compat.v1.wrap_function(run, [tf.TensorSpec(x.shape, x.dtype) for x in moved])
        return lambda *leaves: imported(*(leaf for leaf in leaves if not isinstance(leaf, tf.Variable)))


def _widened(value: Any) -> Any:
    """Return a tensor in float64, or a new variable with the value of a variable in float64; any other unchanged."""
    if not isinstance(value, tf.Variable):
        return tf.cast(values_of(value), WIDE.get(value.dtype, value.dtype))
    return tf.Variable(tf.cast(value, WIDE[value.dtype])) if value.dtype in WIDE else value


def _leading_to(tensors: Iterable[tf.Tensor], by_value: bool = False) -> set[str]:
    """Return the names of the operations that compute `tensors`; `by_value`, through inputs that hold floats only."""
    todo, found = [x.op for x in tensors], set()
    while todo:
        op = todo.pop()
        if op.name not in found:
            found.add(op.name)
            todo += [x.op for x in op.inputs if not by_value or is_float(x) or x.dtype == tf.resource]
    return found


def _samplers(recording: Recording) -> set[int]:
    """Return the indices of the sources whose values, and not only shapes, are parameters of a random operation."""
    parameters = [x for op in recording.ops if RANDOM.search(op.type) for x in op.inputs if is_float(x)]
    names = _leading_to(parameters, by_value=True)
    return {place for place, entry in enumerate(recording.sources) if entry.op.name in names}


def _coarsest(recording: Recording, outputs: list[tf.Tensor]) -> tf.DType:
    """Return the coarsest float dtype through which the sources pass on the way to the outputs."""
    needed, reached = _leading_to(outputs), {x.name: x.dtype for x in recording.sources}
    for op in recording.ops:
        if op.name in needed and any(x.name in reached for x in op.inputs):
            reached |= {y.name: y.dtype for y in op.outputs}
    return max(reached.values(), key=epsilon)


def _widened_graph(graph: Any) -> Any:
    """Return `graph` with every float type made float64, and without control edges between its operations."""
    for node in graph.node:
        node.input[:] = [each for each in node.input if not each.startswith("^")]
        _widen(node)
    for function in graph.library.function:
        function.signature.name += SUFFIX
        for arg in (*function.signature.input_arg, *function.signature.output_arg):
            arg.type = _WIDE.get(arg.type, arg.type)
        for node in function.node_def:
            _widen(node)
    return graph


def _widen(node: Any) -> None:
    """Change the dtypes and constants of an operation to float64, and the functions that it calls to the wide ones."""
    node.attr.pop("_class", None)  # it asks for the device of another operation, which may not be in this part
    if RANDOM.search(node.op):
        return  # it would draw other numbers: what uses it in float64 cannot be imported
    for attr in node.attr.values():
        kind = attr.WhichOneof("value")
        if kind == "type":
            attr.type = _WIDE.get(attr.type, attr.type)
        elif kind == "list":
            attr.list.type[:] = [_WIDE.get(each, each) for each in attr.list.type]
        elif kind == "tensor" and attr.tensor.dtype in _WIDE:
            numbers, dtype = tf.make_ndarray(attr.tensor), tf.as_dtype(_WIDE[attr.tensor.dtype])
            attr.tensor.CopyFrom(tf.make_tensor_proto(numbers, dtype))
        for function in {"func": [attr.func], "list": attr.list.func}.get(kind, ()):
            function.name += SUFFIX
