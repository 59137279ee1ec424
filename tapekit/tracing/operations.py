"""A `Recording` -> the named operations and edges that `trace` shows, and the tensors that answer it."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from tapekit._sources import is_float
from tapekit.graphs.capture import PLUMBING, SHAPES, Recording

# They hold a body of their own, which is not to be made a second time: edges from one input are one.
BODIES = {"StatelessWhile", "StatelessIf", "StatelessCase", "PartitionedCall"}


class Graph:
    """What leads from the sources to the target, without plumbing.

    ``inputs`` names, in execution order, what feeds each operation, ``edges`` holds the tensors along which its
    gradient flows back to them. ``tensors`` has the output of each, the sources (a variable's handle) and the
    ``constants``: floating-point data that depend on no source.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.tensors: dict[str, tf.Tensor] = dict(zip(recording.call.names, recording.sources, strict=True))
        self.names = {tensor.ref(): name for name, tensor in reversed(self.tensors.items())}
        self.constants: list[str] = []
        self.inputs: dict[str, list[str]] = {}
        self.edges: dict[str, list[tf.Tensor]] = {}
        self.scope_names, self.layers = _scopes(recording)
        self.dependent = _dependent(recording)
        needed = self._needed()
        for op in recording.ops:
            outputs = [output for output in op.outputs if output.ref() in needed]
            for output in outputs:
                self._add(output, single=len(outputs) == 1)
        self.target = self._name(self._root(recording.target))
        self.scopes = {name: self._scope(name) for name in self.inputs}

    def _root(self, tensor: tf.Tensor) -> tf.Tensor:
        """Where `tensor` comes from, before plumbing. A read of a variable that is no source is where it begins."""
        inputs = self.recording.inputs.get(tensor.op)
        if not inputs or tensor.op.type not in PLUMBING or tensor.ref() in self.names:
            return tensor
        if inputs[0].dtype == tf.resource and inputs[0].ref() not in self.dependent:
            return tensor
        return self._root(inputs[0])

    def _needed(self) -> set:
        """The outputs of operations on the way from the sources to the target; a list of tensors (variant) has no value
        to show, and is passed through."""
        needed, stack, seen = set(), [self._root(self.recording.target)], set()
        while stack:
            tensor = stack.pop()
            if tensor.ref() in self.dependent and tensor.ref() not in self.names and tensor.ref() not in seen:
                seen.add(tensor.ref())
                needed |= {tensor.ref()} if tensor.dtype != tf.variant else set()
                stack += [self._root(each) for each in self.recording.inputs[tensor.op]]
        return needed

    def _add(self, output: tf.Tensor, single: bool) -> None:
        op = output.op
        feeds = [(self._name(root), tensor, root) for tensor, root in self._feeds(op)]
        lists = any(tensor.dtype == tf.variant for tensor in self.recording.inputs[op])
        if lists or op.type in BODIES or op.op_def.is_stateful:
            feeds = list({feed: (feed, root, root) for feed, _, root in feeds}.values())
        name = self._name(output, single)
        self.inputs[name] = [feed for feed, _, _ in feeds]
        self.edges[name] = [tensor for _, tensor, _ in feeds]

    def _feeds(self, op: tf.Operation) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """The inputs of `op` that are shown, as they are and before plumbing."""
        for tensor in self.recording.inputs[op]:
            root = self._root(tensor)
            if root.dtype == tf.variant and root.op in self.recording.inputs:
                yield from ((each, each) for _, each in self._feeds(root.op))
            elif root.ref() in self.dependent or is_float(root):
                yield tensor, root

    def _name(self, tensor: tf.Tensor, single: bool = False) -> str:
        """The name of an operation's output, a source or a constant, which is met here for the first time."""
        if tensor.ref() not in self.names:
            op = tensor.op
            scope, slash, own = op.name.rpartition("/")
            name = self.scope_names.get(scope, scope) + slash + own
            name += f":{tensor.value_index}" if tensor.value_index and not single else ""
            if tensor.ref() not in self.dependent:
                handle = op.inputs[0].ref() if op.type == "ReadVariableOp" else tensor.ref()
                name = self.names.setdefault(handle, name)  # several reads of one variable are one constant
                self.constants += [name] if name not in self.constants else []
            elif name in self.tensors:
                name += ":op"
            self.names[tensor.ref()] = name
            self.tensors.setdefault(name, tensor)
        return self.names[tensor.ref()]

    def variable_names(self) -> dict[str, str]:
        """What to call the constants that are read from variables, known once the graph is made."""
        captured = self.recording.captured()
        names = {inside.ref(): each.name.split(":")[0] for inside, each in captured if isinstance(each, tf.Variable)}
        ops = {name: self.tensors[name].op for name in self.constants}
        found = {name: names.get(op.inputs[0].ref()) for name, op in ops.items() if op.type == "ReadVariableOp"}
        return {name: new for name, new in found.items() if new and new not in self.tensors}

    def _scope(self, name: str) -> str:
        """The innermost Keras layer, or, outside of any, the name scope."""
        scope = self.scope_names[self.tensors[name].op.name.rpartition("/")[0]]
        parts = scope.split("/")
        within = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
        return next((layer for layer in within if layer in self.layers), scope)

    def ask(self, shown: dict[str, Sequence[str]], edges: dict[str, list], keep: Callable) -> dict[str, dict]:
        """Of each operation in `shown` (with its inputs) the value, the gradient and what flows back along `edges`, and
        the values of constants, all made small by `keep`."""

        def small(tensor: tf.Tensor | None) -> tf.Tensor | None:
            return None if tensor is None else keep(tensor)

        names, sources = list(shown), self.recording.call.names
        uses = Counter(name for inputs in shown.values() for name in inputs)
        asked = [*self.recording.sources, *(self.tensors[name] for name in names)]
        gradients = dict(zip([*sources, *names], self.recording.gradients(asked), strict=True))
        contributions, local = {}, {}
        for name, inputs in shown.items():
            output, upstream = self.tensors[name], gradients[name]
            contributions[name] = local[name] = [None] * len(inputs)
            if upstream is not None and all(uses[source] == 1 for source in inputs):
                # the only use of each input: what flows along the edge is its whole gradient
                contributions[name] = [gradients.get(source) for source in inputs]
            elif upstream is not None:
                contributions[name] = self._flow_back(output, inputs, edges[name], upstream)
            if all(end.shape.rank == 0 and end.dtype != tf.resource for end in (output, *edges[name])):
                local[name] = self._flow_back(output, inputs, edges[name])
        constants = [name for name in self.constants if name in uses or name == self.target]
        values = {name: self.tensors[name] for name in [*names, *constants]}
        return {
            "shape": {name: tf.shape(value) for name, value in values.items()},
            "value": {name: keep(value) for name, value in values.items()},
            "gradient": {name: small(gradient) for name, gradient in gradients.items()},
            "contributions": {name: [small(flow) for flow in flows] for name, flows in contributions.items()},
            "local": local,
        }

    def _flow_back(
        self, output: tf.Tensor, inputs: Sequence[str], edges: list, upstream: tf.Tensor | None = None
    ) -> list:
        """`upstream` (or 1) through one operation, along each of its `edges`; None to a constant."""
        if len({edge.ref() for edge in edges}) < len(edges):  # x * x: a second operation tells its two edges apart
            op = output.op
            fresh = [(tensor, tf.identity(tensor)) for tensor in self.recording.inputs[op]]
            kinds = [each.dtype for each in op.outputs]
            copy = self.recording.graph.create_op(op.type, [b for _, b in fresh], kinds, attrs=dict(op.node_def.attr))
            output = copy.outputs[output.value_index]
            kept = {edge.ref() for edge in edges}
            edges = [b for a, b in fresh if a.ref() in kept]
        grad_ys = None if upstream is None else [upstream]
        flows = self.recording.vjp([output], edges, grad_ys, stop=[e for e in edges if e.dtype != tf.resource])
        return [None if name in self.constants else flow for name, flow in zip(inputs, flows, strict=True)]


def _dependent(recording: Recording) -> set:
    """Every tensor whose value depends on a source."""
    found = {entry.ref() for entry in recording.sources}
    for op in recording.ops:
        if op.type not in SHAPES and any(tensor.ref() in found for tensor in recording.inputs[op]):
            found.update(output.ref() for output in op.outputs)
    return found


def _scopes(recording: Recording) -> tuple[dict[str, str], set[str]]:
    """TensorFlow's name scopes -> what to call them, and which of those are Keras layers.

    Keras opens a layer's scope twice, once to build it and once to call it: what it calls ``dense`` is ``dense_1`` in
    the graph, and nothing is in ``dense``.
    """
    raw: dict[str, None] = {}  # in order of appearance
    for op in recording.ops:
        parts = op.name.split("/")[:-1]
        raw |= dict.fromkeys("/".join(parts[: end + 1]) for end in range(len(parts)))
    names, layers, calls = {"": ""}, set(), Counter[str]()
    for scope in raw:
        parent, _, own = scope.rpartition("/")
        if twice := re.fullmatch(r"(.+)_(\d+)", own):
            empty = twice[1] if twice[2] == "1" else f"{twice[1]}_{int(twice[2]) - 1}"
            empty = f"{parent}/{empty}" if parent else empty
            if empty not in raw and recording.graph.unique_name(empty, mark_as_used=False) != empty:
                own = twice[1]
        name = f"{names[parent]}/{own}" if parent else own
        calls[name] += 1
        names[scope] = f"{name} ({calls[name]})" if calls[name] > 1 else name
        if own != scope.rpartition("/")[2]:
            layers.add(names[scope])
    return names, layers
