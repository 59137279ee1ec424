"""`trace`: run a calculation forward and backward once, and keep every operation on the way."""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tapekit._sources import Call, bind
from tapekit.graphs.capture import capture
from tapekit.graphs.places import place
from tapekit.graphs.recording import Recording
from tapekit.tracing.folding import Group, check_depth
from tapekit.tracing.operations import Graph
from tapekit.tracing.records import Op, Trace
from tapekit.tracing.values import require_followed


def trace(fn: Callable, vars: Any, /, *, depth: int | None = None) -> Trace:
    """Run `fn` forward and backward once, and return every operation on the way from `vars` to the target.

    `fn` is traced to a graph. The bodies of nested `tf.function`s are part of it; `tf.while_loop` and `tf.cond` are one
    operation each. Reads, identities and shape arithmetic are not shown. Variables that `fn` assigns are restored.
    `fn` may use the value of a tensor in Python to choose a branch or a number of steps.

    Args:
        fn: returns the target; called as `tapekit.gradient` calls it. The gradient is that of the sum of the target.
        vars: the sources: one or a list, tuple or dict of variables, tensors, arrays and numbers.
        depth: None for every operation; 1 for one record for each Keras layer or outermost name scope, with the
            gradient that arrives at its output; 2 for the layers inside layers; and so on. If one scope holds nearly
            all weights, as the scope of a model does, the depth counts from the scopes inside it.

    Returns:
        A `Trace`: NumPy data that can be printed, indexed, folded, drawn and pickled.

    Raises:
        RuntimeError: the target is computed from a value that `fn` takes out of TensorFlow (`.numpy()`, `np.*`,
            `float()`): the message tells the line and what to write instead. Or `trace` is called inside a
            `tf.function` or the scope of a strategy.
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
    for name, source in zip(call.names, call.sources, strict=True):
        if isinstance(source, tf.RaggedTensor):
            raise TypeError(f"trace: source {name!r} is ragged. A dense one is needed. Give its .flat_values.")
    asked: list[tuple[Graph, dict[str, Group]]] = []

    def ask(recording: Recording) -> dict[str, Any]:
        graph = Graph(recording, call.names)
        groups = graph.fold(depth)
        asked.append((graph, groups))
        return graph.ask(groups)

    recording, answer = capture(call, ask)
    require_followed(recording)
    graph, groups = asked[-1]  # the last of several, if fn was traced again
    values = [tf.convert_to_tensor(source).numpy() for source in call.sources]  # as before fn ran
    return _trace_of(call, values, graph, groups, answer)


def _trace_of(call: Call, values: list, graph: Graph, groups: dict[str, Group], answer: dict[str, dict]) -> Trace:
    """Return the records of the sources, the constants and the operations as a `Trace`."""
    variables = graph.variable_names()
    names = variables | {old: group.name for old, group in groups.items()}
    sources = [
        Op(name, "Source", (), value, answer["gradient"][name], (), (), tuple(source.shape), source.dtype.name)
        for name, source, value in zip(call.names, call.sources, values, strict=True)
    ]
    shown = [name for name in graph.constants if name in answer["value"]]
    constants = [_record(graph, name, "Variable" if name in variables else "Constant", names, answer) for name in shown]
    ops = []
    for old, group in groups.items():
        op = graph.tensors[old].op
        found = _record(graph, old, "Scope" if len(group.members) > 1 else op.type, names, answer)
        feeds, at = tuple(names.get(feed, feed) for feed in group.inputs), place(op.traceback)
        ops.append(dataclasses.replace(found, inputs=feeds, scope=group.scope, **(at._asdict() if at else {})))
    last = names.get(graph.target, graph.target)
    target = next(op for op in (*ops, *sources, *constants) if op.name == last)
    name = getattr(call.fn, "__name__", "").replace("<lambda>", "")
    return Trace(tuple(ops), tuple(sources), tuple(constants), target, name, graph.model)


def _record(graph: Graph, name: str, type: str, names: dict[str, str], answer: dict[str, dict]) -> Op:
    """Return the record of an operation or a constant, with the numbers of the run."""
    return Op(
        name=names.get(name, name),
        type=type,
        inputs=(),
        value=answer["value"][name],
        gradient=answer["gradient"].get(name),
        contributions=tuple(answer["contributions"].get(name, ())),
        local=tuple(answer["local"].get(name, ())),
        shape=tuple(answer["shape"][name].tolist()),
        dtype=graph.tensors[name].dtype.name,
    )
