"""`fn` as a function of tensors in the place of its sources, also of those that it closes over: its graph, imported.

`movable` keeps every dtype. `in_float64` makes every float of the graph a float64, of constants and of other variables
too: so a float32 Keras model is moved as finely as a function of float64 tensors.
"""

import dataclasses
import re
from typing import Any

import tensorflow as tf

from tapekit._sources import Call, values_of
from tapekit.checking.dtypes import WIDE, epsilon, floats, wide
from tapekit.graphs.capture import graph_of

# A variable's handle becomes its value, and what reads the one, what hands on the other: its name, its dtype's.
READS = {"ReadVariableOp": ("Identity", "T"), "ResourceGather": ("Gather", "Tparams")}
WRITES = re.compile("Assign|Resource(?!Gather)")
# They draw other numbers in float64, or cannot give any.
OTHERWISE = re.compile("Random|Multinomial|PyFunc|LookupTable")
SUFFIX = "_in_float64"  # of a function in the graph: TensorFlow knows the narrow one by its name
_WIDE = {narrow.as_datatype_enum: wide.as_datatype_enum for narrow, wide in (WIDE | {tf.resource: tf.float64}).items()}


def in_float64(call: Call) -> tuple[Call, tf.DType]:
    """`call` as a function of float64 tensors; an error where its graph cannot be made one."""
    captured, entries, graph, outputs = _traced(call)
    inner = [node for function in graph.library.function for node in function.node_def]
    if found := next((node.op for node in (*graph.node, *inner) if OTHERWISE.search(node.op)), None):
        raise ValueError(f"{found} gives other numbers, or none, in float64")
    assigned = {node.input[0].split(":")[0] for node in graph.node if WRITES.match(node.op)}
    coarsest = _coarsest(graph, entries)
    for function in graph.library.function:
        _widen_function(function)
    for node in graph.node:
        _widen(node)
    graph = _leading_to(graph, [name.split(":")[0] for name in outputs])
    left = {node.name for node in graph.node}
    if left & assigned or any(WRITES.match(node.op) for node in inner):
        raise ValueError("a variable is assigned in between")  # when, the graph does not tell without its control edges
    given = {
        name: tf.cast(outside, wide(outside.dtype))
        for name, outside in captured.items()
        if name in left.difference(entries)
    }
    moved = {name: place for place, name in enumerate(entries)}
    return _imported(call, graph, given, moved, outputs), coarsest


def _coarsest(graph: Any, entries: list[str]) -> tf.DType:
    """The coarsest float dtype through which the sources pass."""
    reached, found = set(entries), {tf.float64}
    for node in graph.node:
        if any(name.split(":")[0] in reached for name in node.input if not name.startswith("^")):
            reached.add(node.name)
            found.update(dtype for dtype in WIDE for attr in node.attr.values() if attr.type == dtype.as_datatype_enum)
    return max(found, key=epsilon)


def _traced(call: Call) -> tuple[dict[str, tf.Tensor], list[str], Any, list[str]]:
    """The graph of `call`: names of what it captured, of where each source enters, itself, and of its float outputs."""
    outputs: list[str] = []

    def fn(*leaves: Any) -> tf.Tensor:
        outputs[:] = [y.name for y in floats(call.fn(*leaves))]
        return tf.zeros([])

    concrete, recording = graph_of(dataclasses.replace(call, fn=fn), lambda recording: [])
    captured = {inside.op.name: outside for inside, outside in recording.captured()}
    return captured, [entry.op.name for entry in recording.sources], concrete.graph.as_graph_def(), outputs


def _imported(call: Call, graph: Any, given: dict[str, Any], moved: dict[str, int], outputs: list[str]) -> Call:
    """`graph` as a function of the sources that are `moved`, each by its place, with all else as it is `given`."""
    left = {node.name for node in graph.node}
    places = sorted(set(moved.values()))

    def run(*tensors: tf.Tensor) -> list:
        at = dict(zip(places, tensors, strict=True))
        fed = {name: tf.identity(getattr(outside, "handle", outside)) for name, outside in given.items()}
        fed |= {name: at[place] for name, place in moved.items()}
        fed = {f"{name}:0": tensor for name, tensor in fed.items() if name in left}
        return tf.graph_util.import_graph_def(graph, fed, outputs)

    sources = [values_of(call.sources[place]) for place in places]
    specs = [tf.TensorSpec(x.shape, wide(x.dtype)) for x in sources]
    concrete = tf.compat.v1.wrap_function(run, specs)  # a tf.function would not find the functions in the graph

    def fn(*leaves: Any) -> list:
        return concrete(*(values_of(leaves[place]) for place in places))

    return dataclasses.replace(call, fn=fn, vars=list(call.leaves), takes_vars=True)


def _leading_to(graph: Any, names: list[str]) -> Any:
    """The part of `graph` that computes the operations of these names."""
    nodes, found = {node.name: node for node in graph.node}, set()
    for node in graph.node:
        node.input[:] = [name for name in node.input if not name.startswith("^")]  # what is only to be run before
    while names:
        name = names.pop()
        if name not in found:
            found.add(name)
            names += [each.split(":")[0] for each in nodes[name].input]
    part = tf.compat.v1.GraphDef(library=graph.library, versions=graph.versions)
    part.node.extend(node for name, node in nodes.items() if name in found)
    return part


def _widen_function(function: Any) -> None:
    reads = tuple(f"{node.name}:value:" for node in function.node_def if node.op == "ReadVariableOp")

    def renamed(name: str) -> str:  # an Identity calls its output so
        return name.replace(":value:", ":output:") if name.startswith(reads) else name

    function.signature.name += SUFFIX
    function.arg_attr.clear()  # shapes, which were those of handles
    for arg in (*function.signature.input_arg, *function.signature.output_arg):
        arg.type = _WIDE.get(arg.type, arg.type)
    for node in function.node_def:
        node.input[:] = map(renamed, node.input)
        _widen(node)
    for key, name in function.ret.items():
        function.ret[key] = renamed(name)


def _widen(node: Any) -> None:
    """Make the dtypes and the constants of an operation wide, and let it call the wide functions."""
    if node.op in READS:
        node.op, dtype = READS[node.op]
        node.attr[dtype].type = node.attr["dtype"].type
        for name in set(node.attr) - {dtype, "Tindices"}:
            del node.attr[name]
    if node.op.endswith("While"):  # in which handles had shapes of their own
        for kind, shape in zip(node.attr["T"].list.type, node.attr["output_shapes"].list.shape, strict=True):
            shape.unknown_rank |= kind == tf.resource.as_datatype_enum
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
