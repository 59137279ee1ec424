"""`fn` in float64: `in_float64` returns its values and its gradient as functions of float64 tensors.

`fn` and its gradient are traced to one graph, every float in it is made a float64 (of constants and of other variables
too), and the graph is imported. So a float32 Keras model is measured as finely as a function of float64 tensors, and
the same gradient in float64 tells rounding from a mistake.
"""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import tensorflow as tf

from tapekit._sources import Call, values_of
from tapekit.checking.dtypes import WIDE, epsilon, floats, wide
from tapekit.checking.tape import TapeGradient
from tapekit.graphs.capture import Recording, graph_of

# A variable's handle becomes its value, and what reads the one, what hands on the other: its name, its dtype's.
READS = {
    "ReadVariableOp": ("Identity", "T"),
    "ResourceGather": ("Gather", "Tparams"),
    "VariableShape": ("Shape", "T"),
}
WRITES = re.compile("Assign|Resource(?!Gather)")
RANDOM = re.compile("Random(?!Get)|TruncatedNormal|Multinomial")
# These draw the same numbers again only in the dtype in which `fn` draws them.
DRAWS = re.compile("Stateless(Random(Uniform|Normal)|TruncatedNormal)(V2)?$")
OUTSIDE = re.compile("PyFunc|LookupTable")  # they compute in the dtype that Python or a table has
SUFFIX = "_in_float64"  # of a function in the graph: TensorFlow knows the narrow one by its name
_WIDE = {narrow.as_datatype_enum: wide.as_datatype_enum for narrow, wide in (WIDE | {tf.resource: tf.float64}).items()}


class Float64(NamedTuple):
    """``call`` returns the values; ``gradient(leaves, cotangents)`` the gradients; ``largest(leaves)`` the largest
    number on the way. ``coarsest`` is the coarsest dtype that the sources pass."""

    call: Call
    gradient: Callable
    largest: Callable
    coarsest: tf.DType


class Traced(NamedTuple):
    """The graph of `fn` and its gradient; what it captured; the names of where sources and cotangents enter, of its
    outputs and gradients; the numbers of the sources from whose values a random operation draws (``samplers``)."""

    graph: Any
    captured: dict[str, Any]
    entries: list[str]
    cotangents: dict[str, tf.Tensor]
    outputs: list[str]
    gradients: list[str | None] | None
    samplers: set[int]


def trace(call: Call, tape: TapeGradient) -> Traced:
    """Trace `call` and its gradient under the cotangents of the `tape`."""
    outputs: list[tf.Tensor] = []
    upstream: list[tf.Tensor] = []
    gradients: list[list] = []

    def fn(*leaves: Any) -> tf.Tensor:
        outputs[:] = floats(call.fn(*leaves))
        return tf.zeros([])

    def ask(recording: Recording) -> list:
        upstream[:] = [tf.identity(cotangent).op.inputs[0] for cotangent in tape.cotangents]
        with contextlib.suppress(Exception):  # the values are of use without it
            gradients[:] = [recording.vjp(outputs, recording.sources, upstream)]
        return []

    concrete, recording = graph_of(dataclasses.replace(call, fn=fn), ask)
    return Traced(
        concrete.graph.as_graph_def(),
        {inside.op.name: outside for inside, outside in recording.captured()},
        [entry.op.name for entry in recording.sources],
        {inside.op.name: cotangent for inside, cotangent in zip(upstream, tape.cotangents, strict=True)},
        [y.name for y in outputs],
        [None if g is None else g.name for g in gradients[0]] if gradients else None,
        _samplers(recording),
    )


def in_float64(call: Call, traced: Traced) -> Float64:
    """Return `call` in float64; raise an error where its graph cannot be computed there."""
    graph, nodes = traced.graph, {node.name: node for node in traced.graph.node}
    inner = [node for function in graph.library.function for node in function.node_def]
    assigned = {node.input[0].split(":")[0] for node in graph.node if WRITES.match(node.op)}
    forward = _leading_to(nodes, traced.outputs)
    if forward & assigned or any(WRITES.match(node.op) for node in inner):
        raise ValueError("a variable is assigned in between")  # when, the graph does not tell without its control edges
    coarsest = _coarsest(nodes, forward, traced.entries)
    sources = dict(zip(traced.entries, map(values_of, call.sources), strict=True))
    given = {name: outside for name, outside in traced.captured.items() if name not in sources}

    def imported(names: list[str], fed: dict[str, Any], end: Callable = lambda tensors, found: found) -> Callable:
        """Return the part of the graph that leads to `names` as a function of wide tensors in the place of `fed`."""
        part = _part(graph, nodes, names)
        left = {node.name for node in part.node}

        def run(*tensors: tf.Tensor) -> Any:
            enter = {name: tf.cast(outside, wide(outside.dtype)) for name, outside in given.items() if name in left}
            enter |= dict(zip(fed, tensors, strict=True))
            enter = {f"{name}:0": tf.identity(tensor) for name, tensor in enter.items() if name in left}
            return end(tensors, tf.graph_util.import_graph_def(part, enter, names))

        specs = [tf.TensorSpec(x.shape, wide(x.dtype)) for x in fed.values()]
        return tf.compat.v1.wrap_function(run, specs)  # a tf.function would not find the functions in the graph

    known = [name for name in traced.gradients or () if name]
    backward = functools.cache(lambda: imported(known, sources | traced.cotangents))

    def gradient(leaves: list, cotangents: list) -> list:
        if traced.gradients is None:
            raise ValueError("the gradient cannot be traced")
        upstream = [tf.cast(c, wide(c.dtype)) for c in cotangents]
        found = iter(backward()(*map(values_of, leaves), *upstream) if known else ())
        return [next(found) if name else None for name in traced.gradients]

    def largest(leaves: list) -> float:
        return float(imported(traced.outputs, sources, _largest)(*map(values_of, leaves)))

    values = imported(traced.outputs, sources)
    moved = dataclasses.replace(
        call, fn=lambda *leaves: values(*map(values_of, leaves)), vars=list(call.leaves), takes_vars=True
    )
    return Float64(moved, gradient, largest, coarsest)


def _samplers(recording: Recording) -> set[int]:
    """Return the numbers of the sources from whose values (not only their shapes) a random operation draws."""
    todo = [op for op in recording.ops if RANDOM.search(op.type)]
    found: set[str] = set()
    while todo:
        for tensor in todo.pop().inputs:
            if (tensor.dtype.is_floating or tensor.dtype == tf.resource) and tensor.name not in found:
                found.add(tensor.name)
                todo.append(tensor.op)
    return {place for place, entry in enumerate(recording.sources) if entry.name in found}


def _leading_to(nodes: dict[str, Any], names: Iterable[str]) -> set[str]:
    """Return the names of the nodes that compute `names`, and take the control edges from them."""
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
    """Return the largest finite number on the way from `tensors` through the graph that is being made."""
    reached, found = {x.name for x in tensors}, [*tensors]
    for op in tf.compat.v1.get_default_graph().get_operations():
        if any(x.name in reached for x in op.inputs):
            reached.update(y.name for y in op.outputs)
            found += [y for y in op.outputs if y.dtype in (tf.float64, tf.complex128)]
    return tf.reduce_max([tf.reduce_max(tf.where(x < x.dtype.max, x, 0.0)) for x in map(tf.abs, found)])


def _part(graph: Any, nodes: dict[str, Any], names: list[str]) -> Any:
    """Return the part of `graph` that computes `names`, in float64; raise an error if it would be another function."""
    part = tf.compat.v1.GraphDef(versions=graph.versions)
    left = _leading_to(nodes, names)
    part.node.extend(node for name, node in nodes.items() if name in left)
    functions = {function.signature.name: function for function in graph.library.function}
    todo = list(part.node)
    while todo:
        node = todo.pop()
        if OUTSIDE.search(node.op) or (RANDOM.search(node.op) and not DRAWS.match(node.op)):
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
    for node in list(part.node):
        _widen(part.node, node, "")
    return part


def _widen_function(function: Any) -> None:
    # An operation in the place of another calls its output otherwise.
    names = {f"{node.name}:value:": f"{node.name}:output:" for node in function.node_def if node.op == "ReadVariableOp"}
    names |= {f"{node.name}:output:": f"{node.name}:y:" for node in function.node_def if DRAWS.match(node.op)}

    def renamed(name: str) -> str:
        old = name.rstrip("0123456789")
        return names.get(old, old) + name[len(old) :]

    function.signature.name += SUFFIX
    function.arg_attr.clear()  # shapes, which were those of handles
    function.control_ret.clear()
    del function.signature.control_output[:]
    for arg in (*function.signature.input_arg, *function.signature.output_arg):
        arg.type = _WIDE.get(arg.type, arg.type)
    for node in list(function.node_def):
        node.input[:] = map(renamed, node.input)
        _widen(function.node_def, node, ":output:0")
    for key, name in function.ret.items():
        function.ret[key] = renamed(name)


def _widen(nodes: Any, node: Any, output: str) -> None:
    """Make the dtypes and the constants of an operation wide, and let it call the wide functions."""
    node.attr["_class"].Clear()  # where to place it: beside an operation that may be gone
    del node.attr["_class"]
    if DRAWS.match(node.op):
        drawn = nodes.add()
        drawn.CopyFrom(node)
        drawn.name += "_drawn"
        node.op, node.input[:] = "Cast", [drawn.name + output]
        dtype = node.attr["dtype"].type
        node.attr.clear()
        node.attr["SrcT"].type, node.attr["DstT"].type = dtype, _WIDE.get(dtype, dtype)
        return
    if node.op in READS:
        node.op, dtype = READS[node.op]
        node.attr[dtype].type = node.attr["dtype"].type or tf.float64.as_datatype_enum
        for name in set(node.attr) - {dtype, "Tindices", "out_type"}:
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
