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

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tapekit._sources import bind
from tapekit.graphs.capture import Recording, capture, place
from tapekit.tracing.folding import Kept, check_depth, fold
from tapekit.tracing.operations import Graph
from tapekit.tracing.records import Op, Trace


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
        check_depth(depth)
    call = bind("trace", fn, vars)
    keep = tf.identity if values else _norm
    graphs: list[tuple[Graph, dict[str, Kept]]] = []

    def ask(recording: Recording) -> dict[str, Any]:
        graph = Graph(recording)
        kept = {name: Kept(name, feeds, ()) for name, feeds in graph.inputs.items()}
        if depth is not None:
            kept = fold(graph.inputs, graph.scopes, graph.layers, graph.constants, graph.target, depth)
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


def _norm(tensor: tf.Tensor) -> tf.Tensor:
    """The L2 norm; a scalar stays what it is."""
    if tensor.shape.rank == 0 or tensor.dtype == tf.string:
        return tensor
    return tf.norm(tf.cast(tensor, tf.complex128 if tensor.dtype.is_complex else tf.float64))  # no square overflows
