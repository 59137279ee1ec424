"""`Float64`: `fn` and its gradient with every float of the graph made a float64, which tells rounding from mistakes."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, is_float, values_of
from tapekit.checking.tape import TapeGradient, epsilon, floats
from tapekit.graphs.capture import graph_of
from tapekit.graphs.flow import Flow, leading_to
from tapekit.graphs.recording import Recording

WRITES = re.compile("Assign|Resource(?!Gather)")
RANDOM = re.compile("Random(?!Get)|TruncatedNormal|Multinomial")
SAMPLER = re.compile("Random.*Grad$")  # the gradient of the expected value of a draw
SUFFIX = "_in_float64"  # of the name of a function in the graph, which TensorFlow has already in its own dtype
WIDE = {tf.float16: tf.float64, tf.bfloat16: tf.float64, tf.float32: tf.float64, tf.complex64: tf.complex128}
_WIDE = {narrow.as_datatype_enum: wide.as_datatype_enum for narrow, wide in WIDE.items()}


class Float64:
    """The graph of `fn` and of its gradient, parts of which are imported in float64; an error if that is impossible.

    ``coarsest`` is the coarsest dtype between the sources and the outputs; ``samplers`` are the indices of the sources
    whose gradient is that of a sampler.
    """

    def __init__(self, call: Call, tape: TapeGradient):
        outputs, gradients, draws = list[tf.Tensor](), list[tf.Tensor](), list[tf.Tensor]()
        self.numbers = list[tf.Tensor]()

        def fn(*leaves: Any) -> tf.Tensor:
            outputs[:] = floats(call.fn(*leaves))
            return tf.zeros([])

        def ask(recording: Recording) -> tuple[list, list]:
            moving = Flow(recording, outputs).after(recording.sources)
            self.coarsest = max((x.dtype for x in moving), key=epsilon, default=tf.float64)
            self.numbers[:] = filter(is_float, moving)
            names = {x.name for x in moving}
            random = (op for op in recording.ops if RANDOM.search(op.type))
            draws[:] = (op.outputs[0] for op in random if op.outputs[0].name not in names)
            weights = [None] * len(self.numbers)
            with contextlib.suppress(Exception):  # without a gradient, the values can still be measured
                found = recording.vjp(outputs, [*recording.sources, *self.numbers], tape.cotangents)
                weights = found[len(recording.sources) :]
                gradients[:] = (tf.zeros([]) if g is None else g for g in found[: len(recording.sources)])
            pairs = zip(self.numbers, weights, strict=True)
            return [0.0 if g is None or g.shape != x.shape else tf.abs(g) for x, g in pairs], draws

        self.computed, recording = graph_of(dataclasses.replace(call, fn=fn), ask)
        self.outputs, self.gradients, self.wide = outputs, gradients, self.computed.graph.as_graph_def()
        self.samplers = _samplers(self.wide, self.gradients)
        _widen_graph(self.wide)
        sources = [*map(_widened, call.sources)]
        self.entering = {inside.op.name: _widened(outside) for inside, outside in recording.captured()}
        self.entering |= {entry.op.name: source for entry, source in zip(recording.sources, sources, strict=True)}
        self.drawn = {draw.op.name: _widened(y) for draw, y in zip(draws, draws and self.computed()[1], strict=True)}
        self.call = dataclasses.replace(call, vars=sources, leaves=sources, sources=sources, takes_vars=True)

    def values(self) -> Call:
        """Return the call as a function of float64 sources."""
        assigned = {op.inputs[0].op.name for op in self.computed.graph.get_operations() if WRITES.match(op.type)}
        inner = (node for function in self.wide.library.function for node in function.node_def)
        if assigned & leading_to(self.outputs) or any(WRITES.match(node.op) for node in inner):
            raise ValueError("a variable is assigned, and the graph without its control edges does not say when")
        return dataclasses.replace(self.call, fn=self._imported(self.outputs))

    def sizes(self, leaves: Iterator[list]) -> tuple[float, float]:
        """Return what bounds the rounding of the weighted sum of the outputs, in units of eps.

        A number x in `fn` with the gradient g is rounded by about eps * |x|, which changes the sum by eps * |g * x|. An
        operation may compute with numbers as large as any that it returns. Returned are the sum over the numbers that
        change from the first of the points `leaves` to another, and the largest sum, without g, of one operation.

        Source: Higham, Accuracy and Stability of Numerical Algorithms, section 3.3 (running error analysis).
        """
        numbers, differ = self._imported(self.numbers), []
        here = numbers(*next(leaves))
        for each in leaves:
            with contextlib.suppress(Exception):  # beyond its domain fn may raise
                differ.append([x.shape != y.shape or x != y for x, y in zip(here, numbers(*each), strict=True)])
        visible = hidden = 0.0
        for weight, x, *changes in zip(self.computed()[0], here, *differ, strict=True):
            moves = np.any(np.broadcast_arrays(*changes), axis=0) if changes else np.True_
            weight, x = (np.nan_to_num(abs(each.numpy()).astype("float64"), posinf=0.0) for each in (weight, x))
            moved = x[moves]
            visible += np.linalg.norm((weight * x)[moves]) + weight.max(initial=0.0) * moved.max(initial=0.0)
            hidden = max(hidden, moved.sum())
        return visible, hidden

    def gradient(self, leaves: list) -> list:
        """Return the gradient of each source under the cotangents of the tape."""
        return self._imported(self.gradients)(*leaves)

    def _imported(self, tensors: list[tf.Tensor]) -> Callable:
        """Return the part of the graph that computes `tensors` as a function of the sources in float64."""
        needed = leading_to(tensors)
        part = tf.compat.v1.GraphDef(versions=self.wide.versions, library=self.wide.library)
        part.node.extend(node for node in self.wide.node if node.name in needed and node.name not in self.drawn)
        entering = {f"{name}:0": x for name, x in (self.entering | self.drawn).items() if name in needed}
        moved = [x for x in self.call.sources if not isinstance(x, tf.Variable)]

        def run(*given: tf.Tensor) -> Any:
            values = {id(x): value for x, value in zip(moved, given, strict=True)}
            enter = {name: tf.identity(values.get(id(x), getattr(x, "handle", x))) for name, x in entering.items()}
            return tf.graph_util.import_graph_def(part, enter, [x.name for x in tensors])

        # a tf.function would not find the functions in the graph
        imported = tf.compat.v1.wrap_function(run, [tf.TensorSpec(x.shape, x.dtype) for x in moved])
        if any(y.dtype in WIDE for op in imported.graph.get_operations() for y in op.outputs):
            raise TypeError("an operation returns a float32 of any input")
        return lambda *leaves: imported(*(leaf for leaf in leaves if not isinstance(leaf, tf.Variable)))


def _widened(value: Any) -> Any:
    """Return a tensor in float64, or a new variable with the value of a variable in float64; any other unchanged."""
    if not isinstance(value, tf.Variable):
        return tf.cast(values_of(value), WIDE.get(value.dtype, value.dtype))
    return tf.Variable(tf.cast(value, WIDE[value.dtype])) if value.dtype in WIDE else value


def _samplers(definition: Any, gradients: list) -> set[int]:
    """Return the indices of the sources whose gradient is computed by that of a sampler, also inside of a function."""
    functions = {each.signature.name: each for each in definition.library.function}

    def samples(node: Any) -> bool:
        called = (function.name for attr in node.attr.values() for function in (attr.func, *attr.list.func))
        bodies = [functions[name] for name in (node.op, *called) if name in functions]
        return bool(SAMPLER.search(node.op)) or any(samples(inner) for body in bodies for inner in body.node_def)

    names = {node.name for node in definition.node if samples(node)}
    return {place for place, g in enumerate(gradients) if names & leading_to([g])}


def _widen_graph(graph: Any) -> None:
    """Make every float type float64, and remove the control edges between operations."""
    for node in graph.node:
        node.input[:] = [each for each in node.input if not each.startswith("^")]
        _widen(node)
    for function in graph.library.function:
        function.signature.name += SUFFIX
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
        elif kind == "list":
            attr.list.type[:] = [_WIDE.get(each, each) for each in attr.list.type]
        elif kind == "tensor" and attr.tensor.dtype in _WIDE:
            numbers, dtype = tf.make_ndarray(attr.tensor), tf.as_dtype(_WIDE[attr.tensor.dtype])
            attr.tensor.CopyFrom(tf.make_tensor_proto(numbers, dtype))
        for function in {"func": [attr.func], "list": attr.list.func}.get(kind, ()):
            function.name += SUFFIX
