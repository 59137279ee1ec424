"""`trace`: run a calculation forward and backward once, and keep every operation on the way.

>>> circuit = trace(lambda x, y, z: (x + y) * z, [-2.0, 5.0, -4.0])
>>> {source.name: source.gradient.item() for source in circuit.sources}
{'x': -4.0, 'y': -4.0, 'z': 3.0}
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tapekit._sources import Call, bind
from tapekit.graphs.capture import Recording, capture, place
from tapekit.tracing.folding import Group, check_depth
from tapekit.tracing.operations import Graph
from tapekit.tracing.records import Op, Trace


def trace(fn: Callable, vars: Any, /, *, depth: int | None = None) -> Trace:
    """Run `fn` forward and backward once, and return every operation on the way from `vars` to the target.

    `fn` is traced to a graph. The bodies of nested `tf.function`s are part of it; `tf.while_loop` and `tf.cond` are one
    operation each. Reads, identities and shape arithmetic are not shown. Variables that `fn` assigns are restored.

    Args:
        fn: returns the target; called as `tapekit.gradient` calls it. The gradient is that of the sum of the target.
        vars: the sources: one or a list, tuple or dict of variables, tensors, arrays and numbers.
        depth: None for every operation; 1 for one record for each Keras layer or outermost name scope, with the
            gradient that arrives at its output; 2 for the layers inside layers; and so on. If one scope holds nearly
            all weights, as the scope of a model does, the depth counts from the scopes inside it.

    Returns:
        A `Trace`: NumPy data that can be printed, indexed, folded, drawn and pickled.

    Raises:
        RuntimeError: `fn` leaves TensorFlow (`.numpy()`, `np.*`, `float()`): the message tells the line and what to
            write instead. Or `trace` is called inside a `tf.function` or the scope of a strategy.
        TypeError, ValueError: `vars` holds something else, `fn` returns no tensor, or `depth` is below 1.

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
    asked: list[tuple[Graph, dict[str, Group]]] = []

    def ask(recording: Recording) -> dict[str, Any]:
        graph = Graph(recording, call.names)
        groups = graph.fold(depth)
        asked.append((graph, groups))
        return graph.ask(groups)

    _, answer = capture(call, ask)
    graph, groups = asked[-1]  # the last of the recordings that were tried
    values = [tf.convert_to_tensor(source).numpy() for source in call.sources]  # those before fn, which is undone
    return _trace_of(call, values, graph, groups, answer, folded=depth is not None)


def _trace_of(
    call: Call, values: list, graph: Graph, groups: dict[str, Group], answer: dict[str, dict], *, folded: bool
) -> Trace:
    """The records of the sources, the constants and the operations."""
    variables = graph.variable_names()
    names = variables | {old: group.name for old, group in groups.items()}

    def record(name: str, type: str, feeds: Sequence[str], scope: str) -> Op:
        tensor = graph.tensors[name]
        line = place(tensor.op.traceback) if name in groups else None
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
            scope=scope,
            **(line._asdict() if line else {}),
        )

    sources = [
        Op(name, "Source", (), value, answer["gradient"][name], (), (), tuple(source.shape), source.dtype.name)
        for name, source, value in zip(call.names, call.sources, values, strict=True)
    ]
    shown = [name for name in graph.constants if name in answer["value"]]
    constants = [record(name, "Variable" if name in variables else "Constant", (), "") for name in shown]
    ops = [
        record(old, "Scope" if len(group.members) > 1 else graph.tensors[old].op.type, group.inputs, group.scope)
        for old, group in groups.items()
    ]
    last = names.get(graph.target, graph.target)
    target = next(op for op in (*ops, *sources, *constants) if op.name == last)
    name = getattr(call.fn, "__name__", "").replace("<lambda>", "")
    return Trace(tuple(ops), tuple(sources), tuple(constants), target, name, graph.model, folded)
