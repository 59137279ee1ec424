"""The records of a trace as NumPy data: `Op` and `Trace`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tapekit._tables import text_table
from tapekit.graphs.places import short
from tapekit.tracing.folding import check_depth, fold
from tapekit.tracing.notebook import trace_html
from tapekit.tracing.reduction import reduced


@dataclasses.dataclass(frozen=True, eq=False)
class Op:
    """One operation (one of its outputs, if several are used), or a source or constant that feeds operations.

    Attributes:
        name: TensorFlow's name of the operation, the name of the source, or that of the layer in a folded trace.
        type: TensorFlow's op type (`"MatMul"`); `"Scope"` for a folded layer, `"Source"` for a source, `"Constant"`
            and `"Variable"` for data that are no source.
        inputs: names of the records that feed it, in the order of its arguments.
        value: its output, of shape `shape`.
        gradient: of the target with respect to the output, of shape `shape`; None where no gradient arrives.
        contributions: for each input, the gradient that flows back along that edge, in the shape of the input.
        local: for each input, d output / d input where both are scalars, else None.
        shape, dtype: of the output.
        file, line, code: the user's source line that made it; None for sources and constants.
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

    def numbers(self) -> tuple[str, str]:
        """Return value and gradient as a picture shows them: scalars, or the L2 norms of tensors."""
        return number(self.value), number(self.gradient)

    def gradient_norm(self) -> float | None:
        """Return the L2 norm of the gradient; None if there is no gradient."""
        return None if self.gradient is None else norm(self.gradient)


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """A calculation as the tape saw it: `sources` and `constants` feed `ops`, in execution order, up to `target`.

    `name` is that of the function, `model` the scope from which the depth of a folded trace counts.
    """

    ops: tuple[Op, ...]
    sources: tuple[Op, ...]
    constants: tuple[Op, ...]
    target: Op
    name: str = ""
    model: str = ""
    __iter__ = None  # iteration and `in` would call trace[0]

    def __getitem__(self, name: str) -> Op:
        """Return the record of that name."""
        for op in (*self.ops, *self.sources, *self.constants):
            if op.name == name:
                return op
        raise KeyError(
            f"trace: no record is called {name!r}. Give a name that print(trace) shows, such as {self.target.name!r}."
        )

    def fold(self, depth: int = 1) -> "Trace":
        """Return the trace with one record for each layer or scope, as `tapekit.trace(fn, vars, depth=depth)` does."""
        check_depth(depth)
        records = {op.name: op for op in (*self.sources, *self.constants, *self.ops)}
        inputs = {op.name: op.inputs for op in self.ops}
        scopes = {op.name: op.scope for op in self.ops}
        constants = {op.name for op in self.constants}
        groups = fold(inputs, scopes, self.model, constants, self.target.name, depth)
        names = {old: group.name for old, group in groups.items()}
        ops = {}
        for old, group in groups.items():
            feeds = tuple(names.get(feed, feed) for feed in group.inputs)
            new: dict[str, Any] = {"name": group.name, "inputs": feeds, "scope": group.scope}
            if group.members:
                members = [records[member] for member in group.members]
                new["type"] = "Scope" if len(members) > 1 else records[old].type
                new["contributions"] = tuple(_flow_back(members, feed) for feed in group.inputs)
                new["local"] = (None,) * len(feeds)
            ops[old] = dataclasses.replace(records[old], **new)
        used = {name for op in ops.values() for name in op.inputs} | {self.target.name}
        kept = tuple(op for op in self.constants if op.name in used)
        target = ops.get(self.target.name, self.target)
        return dataclasses.replace(self, ops=tuple(ops.values()), constants=kept, target=target)

    def fold_to(self, boxes: int) -> "tuple[Trace, dict[str, list[Op]]]":
        """Return the trace folded to at most `boxes` boxes, and the sources that stand inside each box, by its name."""
        return reduced(self, boxes)

    def __repr__(self) -> str:
        return text_table(self.rows())

    def _repr_html_(self) -> str:
        return trace_html(self)

    def rows(self) -> Sequence[tuple[str, ...]]:
        """Return the cells of the table; the first row is its head."""
        rows = [("op", "from", "value", "gradient", "source line")]
        for op in (*self.sources, *self.constants, *self.ops):
            line = f"{short(op.file)}:{op.line}  {op.code}" if op.file else op.type.lower()
            feeds = ", ".join(op.inputs)
            feeds = feeds if len(feeds) <= 48 else "..." + feeds[-45:]
            line = line if len(line) <= 80 else line[:77] + "..."
            rows.append((op.name, feeds, _summary(op.value, op.shape), _summary(op.gradient, op.shape), line))
        return rows


def _flow_back(members: Sequence[Op], source: str) -> Any:
    """Return the sum of what flows back from the operations to `source`; None if nothing does."""
    edges = [edge for op in members for edge in zip(op.inputs, op.contributions, strict=True)]
    flows = [flow for name, flow in edges if name == source and flow is not None]
    return sum(flows[1:], flows[0]) if flows else None


def number(value: Any) -> str:
    """Return a scalar with four digits, or the L2 norm of a tensor with three."""
    if value is None:
        return "none"
    value = np.asarray(value)
    if value.dtype.kind in "SUO" or (value.dtype.kind in "iub" and not value.shape):
        return "text" if value.shape else str(value.item())[:24]
    return f"{norm(value):.3g}" if value.shape else f"{_wide(value) + 0:.4g}"  # -0.0 + 0 is 0


def norm(value: Any) -> float:
    """Return the L2 norm, which may be inf or nan."""
    with np.errstate(all="ignore"):
        return float(np.linalg.norm(_wide(np.asarray(value)).ravel()))


def _wide(value: np.ndarray) -> np.ndarray:
    """Return the value in float64 or complex128, in which the squares do not overflow."""
    return value.astype(np.complex128 if value.dtype.kind == "c" else np.float64)


def _summary(value: Any, shape: tuple[int, ...]) -> str:
    """Return a scalar, or shape, mean, min, max and norm of a tensor."""
    if value is None or not shape:
        return number(value)
    value = np.asarray(value)
    if value.dtype.kind not in "fcV" or value.size == 0:
        return f"{list(shape)} {value.dtype}"
    text, value = f"norm {norm(value):.4g}", _wide(value)
    if value.dtype.kind == "f":
        with np.errstate(all="ignore"):  # inf - inf is shown as nan
            text = f"mean {value.mean():.4g} min {value.min():.4g} max {value.max():.4g} {text}"
    return f"{list(shape)} {text}"
