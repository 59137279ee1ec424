"""What the tape recorded: every operation with its value, its gradient and the line that made it.

- `trace` runs a calculation forward and backward once, and keeps both as plain NumPy data.
- `Trace` is what it gives: print it, index it by name, fold it by layer, draw it with `tapekit.plot_trace`.
- `Op` is one record of it.

>>> circuit = trace(lambda x, y, z: (x + y) * z, [-2.0, 5.0, -4.0])
>>> circuit["add"].value.item(), circuit["add"].gradient.item()
(3.0, -4.0)
>>> {source.name: source.gradient.item() for source in circuit.sources}
{'x': -4.0, 'y': -4.0, 'z': 3.0}
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tapekit._capture import Recording, capture, place, short
from tapekit._graph import Graph
from tapekit._sources import bind


@dataclasses.dataclass(frozen=True, eq=False)
class Op:
    """One operation (one of its outputs, if several are used), or a source or constant that feeds operations.

    Attributes:
        name: TensorFlow's name of the operation, the name of the source, or the layer's of a folded trace.
        type: TensorFlow's op type (`"MatMul"`); `"Scope"` for a folded layer, `"Source"` for a source, `"Constant"`
            and `"Variable"` for data that are no source.
        inputs: names of the records that feed it, in the order of its arguments.
        value: its output, `shape`. With `values=False` the L2 norm, unless it is a scalar; likewise the next two.
        gradient: of the target with respect to the output, `shape`; None where none arrives.
        contributions: for each input, the gradient that flows back along that edge, in the shape of the input.
        local: for each input, d output / d input where both are scalars, else None.
        shape, dtype: of the output.
        file, line, code: the user's source line that made it; None for leaves.
        scope: the Keras layer or name scope, `""` outside of any.
    """

    name: str
    type: str
    inputs: tuple[str, ...]
    value: Any
    gradient: Any
    contributions: tuple
    local: tuple
    shape: tuple[int, ...]
    dtype: str
    file: str | None = None
    line: int | None = None
    code: str | None = None
    scope: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """A calculation as the tape saw it: `sources` and `constants` feed `ops`, in execution order, up to `target`."""

    ops: tuple[Op, ...]
    sources: tuple[Op, ...]
    constants: tuple[Op, ...]
    target: Op
    layers: frozenset[str] = frozenset()  # the scopes that are Keras layers
    folded: bool = False
    __iter__ = None  # nor `in`: Python would ask for trace[0]

    def __getitem__(self, name: str) -> Op:
        """The record of that name."""
        for op in (*self.ops, *self.sources, *self.constants):
            if op.name == name:
                return op
        raise KeyError(f"trace: no record is called {name!r}. print(trace) shows the names, as {self.target.name!r}.")

    def fold(self, depth: int = 1) -> "Trace":
        """The same with one record for each Keras layer or outermost name scope (1), layer inside a layer (2), ..."""
        _check_depth(depth)
        inputs = {op.name: op.inputs for op in self.ops}
        scopes = {op.name: op.scope for op in self.ops}
        kept = _fold(inputs, scopes, self.layers, {op.name for op in self.constants}, self.target.name, depth)
        ops = []
        for old, (new, feeds, members) in kept.items():
            names = tuple(kept[name].name if name in kept else name for name in feeds)
            op = dataclasses.replace(self[old], name=new, inputs=names)
            if members:
                flows = tuple(_total([self[member] for member in members], self[name]) for name in feeds)
                kind = op.type if len(members) == 1 else "Scope"
                op = dataclasses.replace(op, type=kind, contributions=flows, local=(None,) * len(feeds))
            ops.append(op)
        used = {name for op in ops for name in op.inputs} | {self.target.name}
        constants = [op for op in self.constants if op.name in used]
        return Trace(tuple(ops), self.sources, tuple(constants), ops[-1] if ops else self.target, self.layers, True)

    def to_dot(self) -> str:
        """The trace in Graphviz's language: write it to a file and call ``dot -Tsvg``."""
        lines = ["digraph trace {", "  rankdir=LR; node [shape=box];"]
        for op in (*self.sources, *self.constants, *self.ops):
            numbers = f"{_summary(op.value, op.shape)} | {_summary(op.gradient, op.shape)}"
            lines.append(f"  {_quoted(op.name)} [label={_quoted(op.name, numbers)}];")
            for name, flow in zip(op.inputs, op.contributions, strict=True):
                lines.append(f"  {_quoted(name)} -> {_quoted(op.name)}{' [style=dashed]' if flow is None else ''};")
        return "\n".join([*lines, "}"])

    def __repr__(self) -> str:
        rows = [("op", "from", "value", "gradient", "source line")]
        for op in (*self.sources, *self.constants, *self.ops):
            line = f"{short(op.file)}:{op.line}  {op.code}" if op.file else op.type.lower()
            feeds = ", ".join(op.inputs)
            feeds = feeds if len(feeds) <= 48 else "..." + feeds[-45:]
            line = line if len(line) <= 80 else line[:77] + "..."
            rows.append((op.name, feeds, _summary(op.value, op.shape), _summary(op.gradient, op.shape), line))
        widths = [max(len(row[column]) for row in rows) for column in range(4)] + [0]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def trace(fn: Callable, vars: Any, /, *, depth: int | None = None, values: bool = True) -> Trace:
    """Run `fn` forward and backward once, and keep every operation on the way from `vars` to the target.

    `fn` is traced to a graph, with the bodies of nested `tf.function`s in line; `tf.while_loop` and `tf.cond` are one
    operation each. Reads, identities and shape arithmetic are folded away. Variables that `fn` assigns are put back.

    Args:
        fn: returns the target; called as `tapekit.gradient` calls it. The gradient is of the sum of the target.
        vars: the sources: variables, tensors, arrays, numbers, in a list, tuple or dict, or one alone.
        depth: None for every operation; 1 for one record for each Keras layer or outermost name scope, with the
            gradient that arrives at its output; 2 for the layers inside layers; and so on.
        values: False keeps only the L2 norms of tensors, for large models.

    Returns:
        A `Trace`: plain NumPy data, which can be printed, indexed, folded, drawn and pickled.

    Raises:
        RuntimeError: `fn` leaves TensorFlow (`.numpy()`, `np.*`, `float()`): at which file and line, and what to write;
            or `trace` is called inside a `tf.function` or a strategy's scope.
        TypeError, ValueError: what is no source, a `fn` that returns no tensor, a `depth` below 1.

    Example:
        >>> import tapekit
        >>> square = tapekit.trace(lambda x: (3 * x + 1) ** 2, 2.0)
        >>> [(op.type, op.value.item(), op.gradient.item()) for op in square.ops]
        [('Mul', 6.0, 14.0), ('AddV2', 7.0, 14.0), ('Pow', 49.0, 1.0)]
        >>> square["mul"].local[1].item()
        3.0

    Source: the circuit diagrams of CS231n, https://cs231n.github.io/optimization-2/
    """
    if depth is not None:
        _check_depth(depth)
    call = bind("trace", fn, vars)
    keep = tf.identity if values else _norm
    graphs: list[tuple[Graph, dict[str, _Kept]]] = []

    def ask(recording: Recording) -> dict[str, Any]:
        graph = Graph(recording)
        kept = {name: _Kept(name, feeds, ()) for name, feeds in graph.inputs.items()}
        if depth is not None:
            kept = _fold(graph.inputs, graph.scopes, graph.layers, graph.constants, graph.target, depth)
        graphs.append((graph, kept))
        edges = {
            old: [graph.tensors[name] for name in feeds] if members else graph.edges[old]
            for old, (_, feeds, members) in kept.items()
        }
        return graph.ask({old: feeds for old, (_, feeds, _) in kept.items()}, edges, keep)

    _, answer = capture(call, ask)
    graph, kept = graphs[-1]
    variables = graph.variable_names()
    names = variables | {old: new for old, (new, *_) in kept.items()}
    values_before = [keep(tf.convert_to_tensor(source)).numpy() for source in call.sources]  # fn may have assigned them

    def record(name: str, type: str, feeds: Sequence[str] = ()) -> Op:
        tensor = graph.tensors[name]
        line = place(tensor.op.traceback) if name in kept else None
        return Op(
            name=names.get(name, name),
            type=type,
            inputs=tuple(names.get(feed, feed) for feed in feeds),
            value=answer["value"][name],
            gradient=answer["gradient"].get(name),
            contributions=tuple(answer["contributions"].get(name, ())),
            local=tuple(answer["local"].get(name, ())),
            shape=tuple(answer["shape"][name].tolist()),
            dtype=tensor.dtype.name,
            scope=graph.scopes.get(name, ""),
            **(line._asdict() if line else {}),
        )

    sources = [
        Op(name, "Source", (), value, answer["gradient"][name], (), (), tuple(source.shape), source.dtype.name)
        for name, source, value in zip(call.names, call.sources, values_before, strict=True)
    ]
    shown = [name for name in graph.constants if name in answer["value"]]
    constants = [record(name, "Variable" if name in variables else "Constant") for name in shown]
    types = {name: "Scope" if len(kept[name].members) > 1 else graph.tensors[name].op.type for name in kept}
    ops = [record(name, types[name], kept[name].feeds) for name in kept]
    last = names.get(graph.target, graph.target)
    target = next(op for op in (*ops, *sources, *constants) if op.name == last)
    return Trace(tuple(ops), tuple(sources), tuple(constants), target, frozenset(graph.layers), depth is not None)


def _check_depth(depth: Any) -> None:
    if type(depth) is not int or depth < 1:
        raise ValueError(
            f"trace: depth is {depth!r}. It is how many scopes deep to fold: 1, 2, ... Leave it out for none."
        )


class _Kept(NamedTuple):
    """An operation that stays in a folded trace: what it is called, what feeds it, and whom it stands for."""

    name: str
    feeds: Sequence[str]
    members: Sequence[str]  # empty for an operation outside of any scope


def _fold(
    inputs: Mapping[str, Sequence[str]],
    scopes: Mapping[str, str],
    layers: Collection[str],
    constants: Collection[str],
    target: str,
    depth: int,
) -> dict[str, _Kept]:
    """The operations whose output leaves their scope, standing for it. Constants inside scopes are left out."""
    models = {layer.rpartition("/")[0] for layer in layers} & set(layers)  # layers with layers inside
    groups = {}
    for name, scope in scopes.items():
        parts = scope.split("/")
        parts = parts[: depth + (parts[0] in models)]
        alone = not scope or (scope in models and len(parts) <= depth)
        groups[name] = name if alone else "/".join(parts)
    uses: dict[str, set[str]] = {name: set() for name in inputs}
    owner: dict[str, str] = {}  # by whom each is represented
    members: dict[str, list[str]] = {}
    for name in reversed(list(inputs)):
        users = {owner[user] if groups[user] == groups[name] else user for user in uses[name]}
        inside = len(users) == 1 and groups[owner[min(users)]] == groups[name] and name != target
        owner[name] = owner[min(users)] if inside else name
        members.setdefault(owner[name], []).insert(0, name)
        for feed in inputs[name]:
            uses.get(feed, set()).add(name)
    hidden = set(constants) - {feed for name, feeds in inputs.items() if groups[name] == name for feed in feeds}
    leaves = {feed for feeds in inputs.values() for feed in feeds} - set(inputs)
    outputs = Counter([*(groups[name] for name in members), *leaves])  # a scope may be called as a source is
    kept = {}
    for name in inputs:
        if name in members and groups[name] == name:
            kept[name] = _Kept(name, inputs[name], ())
        elif name in members:
            fed = dict.fromkeys(feed for member in members[name] for feed in inputs[member])
            feeds = [feed for feed in fed if owner.get(feed) != name and feed not in hidden]
            kept[name] = _Kept(groups[name] if outputs[groups[name]] == 1 else name, feeds, members[name])
    return kept


def _total(members: Sequence[Op], source: Op) -> Any:
    """What flows back to `source` from all `members`; None if nothing does."""
    flows = [
        flow
        for op in members
        for name, flow in zip(op.inputs, op.contributions, strict=True)
        if name == source.name and flow is not None
    ]
    if len(flows) > 1 and np.shape(flows[0]) != source.shape:
        return np.float32(np.nan)  # norms do not add up
    return sum(flows[1:], flows[0]) if flows else None


def _norm(tensor: tf.Tensor) -> tf.Tensor:
    """The L2 norm; a scalar stays what it is."""
    if tensor.shape.rank == 0 or tensor.dtype == tf.string:
        return tensor
    return tf.norm(tf.cast(tensor, tf.complex128 if tensor.dtype.is_complex else tf.float64))  # no square overflows


def _quoted(*lines: str) -> str:
    """A string of Graphviz's language."""
    return '"' + "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'


def _summary(value: Any, shape: tuple[int, ...]) -> str:
    """A scalar with four digits, or shape, mean, min, max and norm of a tensor."""
    if value is None:
        return "none"
    value = np.asarray(value)
    if value.dtype.kind not in "fcV" or value.size == 0:
        return f"{list(shape)} {value.dtype}" if shape else str(value.item())
    real = value.dtype.kind != "c"
    value = value.astype(np.float64 if real else np.complex128)  # no square overflows
    if not shape:
        return f"{value:.4g}"
    with np.errstate(all="ignore"):  # inf - inf is a nan to show
        norm = f"norm {value if value.ndim == 0 else np.linalg.norm(value):.4g}"
        if value.ndim and real:
            norm = f"mean {value.mean():.4g} min {value.min():.4g} max {value.max():.4g} {norm}"
    return f"{list(shape)} {norm}"
