"""`fn` in float64: `Float64` computes its values and its gradient with every float of its graph made a float64.

So a float32 Keras model is measured as precisely as a function of float64 tensors, and its gradient, computed in
float64, distinguishes rounding from a mistake.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from tapekit._sources import Call, values_of
from tapekit.checking.dtypes import WIDE, epsilon, floats, wide
from tapekit.checking.tape import TapeGradient
from tapekit.graphs.capture import Recording, graph_of

WRITES = re.compile("Assign|Resource(?!Gather)")
RANDOM = re.compile("Random(?!Get)|TruncatedNormal|Multinomial")
OUTSIDE = re.compile("PyFunc|LookupTable")  # the dtype of their results is fixed by Python or by the table
SUFFIX = "_in_float64"  # of the name of a function in the graph, which TensorFlow has already in its own dtype
_WIDE = {narrow.as_datatype_enum: wide.as_datatype_enum for narrow, wide in WIDE.items()}


class Float64:
    """The graph of `fn` and of its gradient, parts of which are imported in float64 when they are needed.

    ``coarsest`` is the coarsest dtype between the sources and the outputs; ``samplers`` are the indices of the sources
    that are parameters of a random operation. An error means that `fn` cannot be computed in float64.
    """

    def __init__(self, call: Call, tape: TapeGradient):
        outputs: list[tf.Tensor] = []
        gradients: list = []

        def fn(*leaves: Any) -> tf.Tensor:
            outputs[:] = floats(call.fn(*leaves))
            return tf.zeros([])

        def ask(recording: Recording) -> list:
            with contextlib.suppress(Exception):  # without a gradient, the values can still be measured
                gradients[:] = recording.vjp(outputs, recording.sources, tape.cotangents)
            return []

        concrete, recording = graph_of(dataclasses.replace(call, fn=fn), ask)
        self.graph = concrete.graph.as_graph_def()
        self.nodes = {node.name: node for node in self.graph.node}
        entries = [entry.op.name for entry in recording.sources]
        self.given = {inside.op.name: _widened(outside) for inside, outside in recording.captured()}
        self.sources = dict(zip(entries, map(_widened, call.sources), strict=True))
        self.outputs = [x.name for x in outputs]
        self.gradients = [None if x is None else x.name for x in gradients]
        self.forward = _leading_to(self.nodes, self.outputs)
        self.samplers, self.coarsest = _samplers(recording), _coarsest(self.nodes, self.forward, entries)
        sources = list(self.sources.values())
        self.call = dataclasses.replace(call, vars=sources, leaves=sources, sources=sources, takes_vars=True)

    def values(self) -> Call:
        """Return the call as a function of float64 sources."""
        inner = [node for function in self.graph.library.function for node in function.node_def]
        assigned = {node.input[0].split(":")[0] for node in self.graph.node if WRITES.match(node.op)}
        if self.forward & assigned or any(WRITES.match(node.op) for node in inner):
            raise ValueError("a variable is assigned, and the graph without its control edges does not say when")
        return dataclasses.replace(self.call, fn=self._imported(self.outputs))

    def gradient(self, leaves: list) -> list:
        """Return the gradient of each source under the cotangents of the tape."""
        if not self.gradients:
            raise ValueError("the gradient cannot be traced")
        names = [name for name in self.gradients if name]
        found = iter(self._imported(names)(*leaves) if names else ())
        return [next(found) if name else None for name in self.gradients]

    def largest(self, leaves: list) -> float:
        """Return the largest L2 norm, over finite numbers, of a tensor between the sources and the outputs."""
        return float(self._imported(self.outputs, _largest)(*leaves))

    def _imported(self, names: list[str], end: Callable = lambda entered, found: found) -> Callable:
        """Return the part of the graph that computes `names` as a function of the sources in float64."""
        part = _part(self.graph, self.nodes, names)
        left = {node.name for node in part.node}
        tensors = {name: x for name, x in self.sources.items() if not isinstance(x, tf.Variable)}

        def run(*given: tf.Tensor) -> Any:
            enter = self.given | self.sources | dict(zip(tensors, given, strict=True))
            enter = {f"{name}:0": getattr(x, "handle", x) for name, x in enter.items() if name in left}
            enter = {name: tf.identity(x) for name, x in enter.items()}
            return end([*enter.values()], tf.graph_util.import_graph_def(part, enter, names))

        specs = [tf.TensorSpec(x.shape, x.dtype) for x in tensors.values()]
        imported = tf.compat.v1.wrap_function(run, specs)  # a tf.function would not find the functions in the graph
        return lambda *leaves: imported(*(leaf for leaf in leaves if not isinstance(leaf, tf.Variable)))


def _widened(value: Any) -> Any:
    """Return a tensor in float64, or a new variable with the value of a variable in float64; any other unchanged."""
    if isinstance(value, tf.Variable):
        return tf.Variable(tf.cast(value, wide(value.dtype))) if value.dtype in WIDE else value
    return tf.cast(values_of(value), wide(value.dtype))


def _samplers(recording: Recording) -> set[int]:
    """Return the indices of the sources whose values, and not only shapes, are parameters of a random operation."""
    todo = [op for op in recording.ops if RANDOM.search(op.type)]
    found: set[str] = set()
    while todo:
        for tensor in todo.pop().inputs:
            if (tensor.dtype.is_floating or tensor.dtype == tf.resource) and tensor.name not in found:
                found.add(tensor.name)
                todo.append(tensor.op)
    return {place for place, entry in enumerate(recording.sources) if entry.name in found}


def _leading_to(nodes: dict[str, Any], names: Iterable[str]) -> set[str]:
    """Return the names of the nodes that compute `names`, and delete the control edges of these nodes."""
    todo, found = [name.split(":")[0] for name in names], set()
    while todo:
        name = todo.pop()
        if name in nodes and name not in found:
            found.add(name)
            nodes[name].input[:] = [each for each in nodes[name].input if not each.startswith("^")]
            todo += [each.split(":")[0] for each in nodes[name].input]
    return found


def _coarsest(nodes: dict[str, Any], names: set[str], entries: list[str]) -> tf.DType:
    """Return the coarsest float dtype through which the sources pass."""
    reached, found = set(entries), {tf.float64}
    for name, node in nodes.items():
        if name in names and any(each.split(":")[0] in reached for each in node.input):
            reached.add(name)
            found.update(dtype for dtype in WIDE for attr in node.attr.values() if attr.type == dtype.as_datatype_enum)
    return max(found, key=epsilon)


def _largest(tensors: Iterable[tf.Tensor], outputs: list) -> tf.Tensor:
    """Return the largest L2 norm of a tensor that depends on `tensors` in the current graph."""
    reached, found = {x.name for x in tensors}, [*tensors]
    for op in tf.compat.v1.get_default_graph().get_operations():
        if any(x.name in reached for x in op.inputs):
            reached.update(y.name for y in op.outputs)
            found += [y for y in op.outputs if y.dtype in (tf.float64, tf.complex128)]
    return tf.reduce_max([tf.norm(tf.where(x < x.dtype.max, x, 0.0)) for x in map(tf.abs, found)])


def _part(graph: Any, nodes: dict[str, Any], names: list[str]) -> Any:
    """Return the part of `graph` that computes `names`, in float64; raise an error if that changes its meaning."""
    part = tf.compat.v1.GraphDef(versions=graph.versions)
    left = _leading_to(nodes, names)
    part.node.extend(node for name, node in nodes.items() if name in left)
    functions = {function.signature.name: function for function in graph.library.function}
    todo = list(part.node)
    while todo:
        node = todo.pop()
        if OUTSIDE.search(node.op) or RANDOM.search(node.op):
            raise ValueError(f"{node.op} returns other numbers, or none, in float64")
        for called in (each for attr in node.attr.values() for each in (attr.func, *attr.list.func)):
            if function := functions.pop(called.name, None):
                body = {each.name: each for each in function.node_def}
                needed = _leading_to(body, function.ret.values())
                wider = part.library.function.add()
                wider.CopyFrom(function)
                del wider.node_def[:]
                wider.node_def.extend(each for name, each in body.items() if name in needed)
                todo += wider.node_def
    for function in part.library.function:
        _widen_function(function)
    for node in part.node:
        _widen(node)
    return part


def _widen_function(function: Any) -> None:
    function.signature.name += SUFFIX
    function.control_ret.clear()
    del function.signature.control_output[:]
    for arg in (*function.signature.input_arg, *function.signature.output_arg):
        arg.type = _WIDE.get(arg.type, arg.type)
    for node in function.node_def:
        _widen(node)


def _widen(node: Any) -> None:
    """Change the dtypes and constants of an operation to float64, and the functions that it calls to the wide ones."""
    node.attr.pop("_class", None)  # it asks for the device of another operation, which may not be in this part
    for attr in node.attr.values():
        kind = attr.WhichOneof("value")
        if kind == "type":
            attr.type = _WIDE.get(attr.type, attr.type)
        elif kind == "func":
            attr.func.name += SUFFIX
        elif kind == "list":
            attr.list.type[:] = [_WIDE.get(each, each) for each in attr.list.type]
            for function in attr.list.func:
                function.name += SUFFIX
        elif kind == "tensor" and attr.tensor.dtype in _WIDE:
            numbers, dtype = tf.make_ndarray(attr.tensor), tf.as_dtype(_WIDE[attr.tensor.dtype])
            attr.tensor.CopyFrom(tf.make_tensor_proto(numbers, dtype))
