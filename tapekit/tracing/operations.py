"""The operations of a recorded graph that a trace shows: `Graph`.

Reads of variables, identities and shape arithmetic are left out: the operations before and after them are shown as
joined directly. An operation with several outputs is shown once for each output that is used.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import tensorflow as tf

from tapekit._sources import is_float
from tapekit.graphs.recording import IDENTITIES, SHAPES, Recording
from tapekit.tracing.folding import Group, fold, model_scope, outer_scopes

# Operations with a body, which is too large to be copied: several edges from one input are shown as one.
BODIES = {"StatelessWhile", "StatelessIf", "StatelessCase", "PartitionedCall"}


class Graph:
    """The operations on the way from the sources to the target, and the tensors that hold their values.

    Attributes:
        inputs: the names of the inputs of each operation, in execution order.
        edges: for each of those inputs, the tensor whose gradient flows back along that edge.
        tensors: the output of each operation, the constants, and the sources (for a variable, its handle).
        constants: the names of floating-point data that depend on no source.
        scopes: the scope of each operation.
        model: the scope from which the depth of a folded trace counts.
    """

    def __init__(self, recording: Recording, sources: Sequence[str]) -> None:
        self.recording = recording
        self.sources = sources  # their names
        self.tensors: dict[str, tf.Tensor] = dict(zip(sources, recording.sources, strict=True))
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
        self.target = self._name(self._origin(recording.target))
        parents = {self.tensors[name].op.name.rpartition("/")[0] for name in self.inputs}
        occupied = parents | outer_scopes(parents)
        self.scopes = {name: self._scope(self.tensors[name].op.name, occupied) for name in self.inputs}
        uses = [self.scopes[name] for name, feeds in self.inputs.items() for feed in feeds if self._is_variable(feed)]
        self.model = model_scope(self.scopes.values(), uses or list(self.scopes.values()))

    def fold(self, depth: int | None) -> dict[str, Group]:
        """Return the operations that are shown at `depth`, each with its group."""
        return fold(self.inputs, self.scopes, self.model, self.constants, self.target, depth)

    def variable_names(self) -> dict[str, str]:
        """Return the names of the variables that the constants are read from; complete once gradients are asked for."""
        captured = self.recording.captured()
        names = {inside.ref(): each.name.split(":")[0] for inside, each in captured if isinstance(each, tf.Variable)}
        reads = {name: self.tensors[name].op for name in self.constants if self._is_variable(name)}
        found = {name: names.get(op.inputs[0].ref()) for name, op in reads.items()}
        return {name: new for name, new in found.items() if new and new not in self.tensors}

    def ask(self, groups: Mapping[str, Group]) -> dict[str, dict]:
        """Return the tensors of shape, value and gradient of each group, and of what flows back along its edges."""
        uses = Counter(name for group in groups.values() for name in group.inputs)
        asked = [*self.sources, *groups]
        found = self.recording.gradients([self.tensors[name] for name in asked])
        gradients = dict(zip(asked, found, strict=True))
        contributions, local = {}, {}
        for name, group in groups.items():
            upstream, edges = gradients[name], self.edges[name]
            if group.members:
                edges = [self.tensors[feed] for feed in group.inputs]
            contributions[name] = local[name] = [None] * len(edges)
            if upstream is not None:
                # If this is the only use of each input, its whole gradient flows along the edge.
                alone = all(uses[feed] == 1 for feed in group.inputs)
                whole = [gradients.get(feed) for feed in group.inputs]
                contributions[name] = whole if alone else self._flow_back(name, group.inputs, edges, upstream)
            if all(end.shape.rank == 0 and end.dtype != tf.resource for end in (self.tensors[name], *edges)):
                local[name] = self._flow_back(name, group.inputs, edges)
        constants = [name for name in self.constants if name in uses or name == self.target]
        values = {name: self.tensors[name] for name in [*groups, *constants]}
        return {
            "shape": {name: tf.shape(value) for name, value in values.items()},
            "value": values,
            "gradient": gradients,
            "contributions": contributions,
            "local": local,
        }

    def _flow_back(self, name: str, feeds: Sequence[str], edges: list, upstream: tf.Tensor | None = None) -> list:
        """Return `upstream` (or 1) times the derivative of one operation along each edge; None to a constant."""
        output = self.tensors[name]
        if len({edge.ref() for edge in edges}) < len(edges):  # x * x: a copy of the operation has two separate inputs
            copy, inputs = self.recording.copy(output.op), self.recording.inputs[output.op]
            output, shown = copy.outputs[output.value_index], {edge.ref() for edge in edges}
            edges = [fresh for tensor, fresh in zip(inputs, copy.inputs, strict=True) if tensor.ref() in shown]
        grad_ys = None if upstream is None else [upstream]
        flows = self.recording.vjp([output], edges, grad_ys, stop=[e for e in edges if e.dtype != tf.resource])
        return [None if feed in self.constants else flow for feed, flow in zip(feeds, flows, strict=True)]

    def _origin(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the tensor that identities and reads pass on as `tensor`. Stop at the read of a constant variable."""
        inputs = self.recording.inputs.get(tensor.op)
        if not inputs or tensor.op.type not in IDENTITIES or tensor.ref() in self.names:
            return tensor
        if inputs[0].dtype == tf.resource and inputs[0].ref() not in self.dependent:
            return tensor
        return self._origin(inputs[0])

    def _needed(self) -> set:
        """Return the outputs of the operations on the way to the target, without lists of tensors (tf.variant)."""
        needed, stack, seen = set(), [self._origin(self.recording.target)], set()
        while stack:
            tensor = stack.pop()
            if tensor.ref() in self.dependent and tensor.ref() not in self.names and tensor.ref() not in seen:
                seen.add(tensor.ref())
                needed |= {tensor.ref()} if tensor.dtype != tf.variant else set()
                stack += [self._origin(each) for each in self.recording.inputs[tensor.op]]
        return needed

    def _add(self, output: tf.Tensor, single: bool) -> None:
        """Add one output of an operation, with its inputs."""
        op = output.op
        feeds = [(self._name(origin), tensor, origin) for tensor, origin in self._feeds(op)]
        lists = any(tensor.dtype == tf.variant for tensor in self.recording.inputs[op])
        if lists or op.type in BODIES or op.op_def.is_stateful:
            feeds = list({feed: (feed, origin, origin) for feed, _, origin in feeds}.values())
        name = self._name(output, single)
        self.inputs[name] = [feed for feed, _, _ in feeds]
        self.edges[name] = [tensor for _, tensor, _ in feeds]

    def _feeds(self, op: tf.Operation) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """Yield the inputs of `op` that are shown, each with its origin; for a list of tensors, its members."""
        for tensor in self.recording.inputs[op]:
            origin = self._origin(tensor)
            if origin.dtype == tf.variant and origin.op in self.recording.inputs:
                yield from ((each, each) for _, each in self._feeds(origin.op))
            elif origin.ref() in self.dependent or is_float(origin):
                yield tensor, origin

    def _name(self, tensor: tf.Tensor, single: bool = False) -> str:
        """Return the unique name of an operation's output, a source or a constant. The first call adds it."""
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

    def _is_variable(self, name: str) -> bool:
        """Return whether a source or constant is a variable."""
        tensor = self.tensors[name]
        return tensor.dtype == tf.resource or (name in self.constants and tensor.op.type == "ReadVariableOp")

    def _scope(self, op_name: str, occupied: set[str]) -> str:
        """Return the innermost Keras layer of an operation, or its name scope if it is in no layer.

        An operation with the name of a scope is the result of that scope (`tf.name_scope(name) as scope`).
        """
        scope = self.scope_names[op_name if op_name in occupied else op_name.rpartition("/")[0]]
        parts = scope.split("/")
        within = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
        return next((layer for layer in within if layer in self.layers), scope)


def _dependent(recording: Recording) -> set:
    """Return every tensor whose value depends on a source."""
    found = {entry.ref() for entry in recording.sources}
    for op in recording.ops:
        if op.type not in SHAPES and any(tensor.ref() in found for tensor in recording.inputs[op]):
            found.update(output.ref() for output in op.outputs)
    return found


def _scopes(recording: Recording) -> tuple[dict[str, str], set[str]]:
    """Return the names under which TensorFlow's name scopes are shown, and those that belong to Keras layers.

    Keras opens a layer's scope twice, to build it and to call it. The layer ``dense`` is ``dense_1`` in the graph, and
    no operation is in ``dense``.
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
