"""The records of a trace as plain NumPy data: `Op` and `Trace`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tapekit.graphs.capture import short
from tapekit.tracing.folding import check_depth, fold


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
        check_depth(depth)
        inputs = {op.name: op.inputs for op in self.ops}
        scopes = {op.name: op.scope for op in self.ops}
        kept = fold(inputs, scopes, self.layers, {op.name for op in self.constants}, self.target.name, depth)
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
