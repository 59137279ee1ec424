"""`explain`: why a gradient is None, zero or not finite, at which operation, on which line, and the repair.

>>> w = tf.Variable(0.3, name="w")
>>> print(explain(lambda: tf.round(w * 4.0), w))
w: the gradient is None (non_differentiable_op).
    ...
    w -> Mul (line 1) -> Round (line 1) x
    ...
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from tapekit._names import place_of
from tapekit._sources import Call, bind, is_float
from tapekit.explaining import flow, messages
from tapekit.explaining.calls import cause_of, left_at, path_of, spelled
from tapekit.explaining.eager import Inside, flags, make_variable, reaches, run_eagerly, status
from tapekit.explaining.flow import SHAPE, Flow, Signal, has_body, takes_twice
from tapekit.explaining.unused import Who, first_use, unread, whom
from tapekit.explaining.written import configured, made_as_integer, python_body
from tapekit.graphs.capture import LeftTensorFlow, Place, Recording, capture, outside_of_graphs, place
from tapekit.graphs.state import draws_kept, undisturbed
from tapekit.tracing import Trace, trace


@dataclasses.dataclass(frozen=True)
class Finding:
    """What became of the gradient of one source.

    ``status`` is "ok", "none", "zero" (every element is 0) or "not_finite" (NaN or inf somewhere); ``cause`` one word,
    None when ok; ``op`` TensorFlow's type of operation, or the Python call, at fault; ``file``, ``line`` and ``code``
    where it happened; ``path`` the way that the value took up to there; ``why`` and ``advice`` sentences; ``called`` is
    ``source``, or the name of the Python variable where that is only a place in `vars`.
    """

    source: str
    status: str
    cause: str | None = None
    op: str | None = None
    file: str | None = None
    line: int | None = None
    code: str | None = None
    path: str = ""
    why: str = ""
    advice: str = ""
    called: str = ""

    def __str__(self) -> str:
        return messages.text([self])


@dataclasses.dataclass(frozen=True)
class Explanation:
    """One `Finding` for each source, in order, and the trace where one could be made. True if every source is ok."""

    findings: tuple[Finding, ...]
    trace: Trace | None = dataclasses.field(default=None, repr=False)

    def __bool__(self) -> bool:
        return all(finding.status == "ok" for finding in self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __getitem__(self, which: int | str) -> Finding:
        """The finding of that place, or of the source of that name."""
        if isinstance(which, str):
            sources = [finding.source for finding in self.findings]
            spoken = [finding.called for finding in self.findings]
            which = place_of("Explanation", sources if which in sources else spoken, which)
        return self.findings[which]

    def __repr__(self) -> str:
        return messages.text(self.findings)


def explain(fn: Callable, vars: Any, /) -> Explanation:
    """Say for each source whether its gradient is fine, or why not, where, and what to write instead.

    `fn` is traced to a graph, and TensorFlow is asked at each operation whether a gradient passes: the break is where
    it does not. Where `fn` cannot be traced it is run eagerly, and the line at which the trace failed is the finding.
    Variables and random state are afterwards what they were.

    Args:
        fn: returns the target; called as `tapekit.gradient` calls it.
        vars: the sources, as for `tapekit.gradient`; integer ones too, which get a finding.

    Returns:
        An `Explanation`: iterate over it for one `Finding` per source, print it to read it.

    Raises:
        RuntimeError: called while a `tf.function` is traced.
        TypeError, ValueError: `fn` or `vars` do not fit, as for `tapekit.gradient`.

    Example:
        >>> w = tf.Variable([0.2, 0.9])
        >>> finding, = explain(lambda: tf.argmax(w), w)
        >>> finding.status, finding.cause, finding.op
        ('none', 'non_differentiable_op', 'ArgMax')
    """
    call = bind("explain", fn, vars, integers=True)
    outside_of_graphs("explain")
    with undisturbed():
        return Explanation(*_explained(call))


def _explained(call: Call) -> tuple[tuple[Finding, ...], Trace | None]:
    """The findings for a `Call`, in order, and the trace where one can be made."""
    inside = Inside(call)
    try:
        findings = _Graph(inside).findings()
    except Exception as error:
        ragged = any(isinstance(source, tf.RaggedTensor) for source in call.sources)
        if not (inside.failed or ragged or isinstance(error, (tf.errors.OpError, LeftTensorFlow))):
            raise  # it did not come out of fn
        with draws_kept():  # what keeps fn from being a graph; a mistake in fn comes again
            return tuple(_without_graph(call, error)), None
    whole = not inside.made and all(is_float(source) for source in call.sources)
    return tuple(findings), trace(call.fn, call.vars) if whole else None


class _Graph:
    """`fn` as a graph, and what it tells of each source."""

    def __init__(self, inside: Inside) -> None:
        call = inside.original
        self.call, self.who = call, whom(call)
        self.recording, answer = capture(inside.call, self._ask)
        self.statuses = [status(*pair) for pair in zip(answer, call.sources, strict=True)]
        self.by_tape = self.statuses
        if "zero" in self.statuses and any(has_body(op) for op in self.recording.ops):
            with draws_kept():  # a graph gives zeros for what tf.cond and loops lose inside, an eager tape None
                self.by_tape = run_eagerly(call)
        numbers = [i for i, word in enumerate(self.statuses) if word in ("zero", "not_finite")]
        if numbers:
            self.heard, answer = capture(inside.call, lambda recording: self._listen(recording, numbers))
            self.signal.hear(answer)

    def _ask(self, recording: Recording) -> list:
        gradients = recording.gradients(recording.sources)
        if any(gradient is None for gradient in gradients):
            self.flow = Flow(recording)
            self.ways = self.flow.ways()
        return [None if gradient is None else flags(gradient) for gradient in gradients]

    def _listen(self, recording: Recording, numbers: list[int]) -> list:
        values = "not_finite" in self.statuses
        self.signal = Signal(Flow(recording), [recording.sources[i] for i in numbers], values=values)
        return self.signal.question

    def findings(self) -> list[Finding]:
        explained = {"ok": self._ok, "none": self._none, "zero": self._zero, "not_finite": self._nan}
        return [explained[word](index) for index, word in enumerate(self.statuses)]

    def _ok(self, index: int) -> Finding:
        return _ok(self.call, self.who[index], index)

    def _none(self, index: int) -> Finding:
        entry = self.recording.sources[index]
        way = self.ways.get(entry.ref())
        if not is_float(self.call.sources[index]):
            at, op = first_use(self.recording, entry)
            if isinstance(self.call.sources[index], tf.Variable):
                at = made_as_integer(self.call.fn) or at
            kind = self.call.sources[index].dtype.name
            return _finding(self.who[index], "none", "integer_dtype", op=spelled(op) if op else None, at=at, dtype=kind)
        if way is None or way.rank == SHAPE:
            facts = unread(self.recording, self.flow, self.call, index, way)
            op = facts.pop("op", None)
            return _finding(self.who[index], "none", op=spelled(op) if op else None, **facts)
        if way.last is None:  # every single operation passes a gradient on
            return _finding(self.who[index], "none", "non_differentiable_op")
        return self._broken(index, "none", way.ops(), *self._cause(way.last))

    def _cause(self, op: tf.Operation) -> tuple[str, dict]:
        """The word for what `op` does to a gradient."""
        inputs = self.recording.inputs[op]
        if self.flow.writes(op):
            born = any(frame.name == make_variable.__name__ for frame in op.traceback)
            return ("rewrapped" if born else "stateful"), {}
        return cause_of(op, inputs)

    def _zero(self, index: int) -> Finding:
        status = self.by_tape[index]
        path, cancels = self.signal.zero_at(self.heard.sources[index])
        if not path:
            return _finding(self.who[index], status, "zero")
        inner = next((lost for op in reversed(path) if (lost := self._lost_inside(op))), None)
        if inner:
            cause = "stop_gradient" if inner == "StopGradient" else "non_differentiable_op"
            at = place(path[-1].traceback)
            return _finding(self.who[index], status, cause, op=inner, at=at, path=path, kind=inner)
        if status == "none":  # only a branch that is not taken would use it
            return self._broken(index, status, path, "not_used", {"branch": True})
        cause, facts = cause_of(path[-1], self.heard.inputs[path[-1]])
        if cause == "custom_gradient":
            facts["at"] = self._backward_place(path[-1])
        elif cause != "left_tensorflow" and path[-1].type not in messages.FLAT:
            cause = "zero"
        return self._broken(index, status, path, cause, facts | {"cancels": cancels or takes_twice(path[-1])})

    def _lost_inside(self, op: tf.Operation) -> str | None:
        """The type of operation that loses the gradient in the body of a tf.cond or a loop."""
        if not has_body(op):
            return None
        library = {each.signature.name: each for each in self.heard.graph.as_graph_def().library.function}
        functions = [attr.name for attr in op.op_def.attr if attr.type == "func" and attr.name != "cond"]
        bodies = [op.get_attr(name) for name in functions]
        types = [node.op for body in bodies for node in library[body.name].node_def]
        return next((each for each in types if each in messages.LOSING), None)

    def _nan(self, index: int) -> Finding:
        path = self.signal.nan_at(self.heard.sources[index])
        if not path:
            return _finding(self.who[index], "not_finite", "nan")
        origin = self.signal.origin(path[-1])
        if origin is None:
            behind = self.signal.flow.after(path[-1].outputs)
            masked = any(t.op.type.startswith("Select") for t in behind)
            return self._broken(index, "not_finite", path, "nan", {"masked": masked})
        at, op = place(origin.op.traceback), spelled(origin.op)
        given = origin.op not in self.heard.inputs or origin.op.type in ("ReadVariableOp", "Const", "Placeholder")
        facts = {"forward": True, "given": given, "kind": origin.op.type}
        return _finding(self.who[index], "not_finite", "nan", op=op, at=at, path=path, **facts)

    def _backward_place(self, op: tf.Operation) -> Place | None:
        """The line of a custom gradient that gave what flows back from `op`."""
        for tensor in self.heard.inputs[op]:
            if (gradient := self.signal.known.get(tensor.ref())) is not None:
                frames = list(gradient.op.traceback)
                ours = max((i for i, frame in enumerate(frames) if frame.filename == flow.__file__), default=-1)
                if at := place(frames[ours + 1 :]):
                    return at
        return None

    def _broken(self, index: int, status: str, path: list[tf.Operation], cause: str, facts: dict) -> Finding:
        at, op = facts.pop("at", None) or place(path[-1].traceback), spelled(path[-1])
        if cause in ("rewrapped", "custom_gradient"):
            op = "tf.Variable" if cause == "rewrapped" else "tf.custom_gradient"
        elif at and op == "tf.py_function":
            at = python_body(self.call.fn, at.code) or at
        elif at and op.lower() not in at.code.lower():  # an activation that a layer was made with
            at = configured(self.call.fn, op.lower()) or at
        return _finding(self.who[index], status, cause, op=op, at=at, path=path, **facts)


def _finding(
    who: Who, status: str, cause: str, *, op: str | None = None, at: Place | None = None,
    path: Sequence[tf.Operation] = (), **facts: Any,
) -> Finding:  # fmt: skip
    file, line, code = at or (None, None, None)
    told: dict[str, Any] = {"kind": path[-1].type if path else "", "code": code} | facts
    why, advice = messages.words(cause, who.spoken, op=op, **told)
    shown = path_of(who.spoken, path) if path else ""
    return Finding(who.source, status, cause, op, file, line, code, shown, why, advice, who.spoken)


def _ok(call: Call, who: Who, index: int) -> Finding:
    source, advice = call.sources[index], ""
    if not call.takes_vars and not (isinstance(source, tf.Variable) and source.trainable):
        advice = messages.UNWATCHED[isinstance(source, tf.Variable)].format(who.spoken)
    return Finding(who.source, "ok", advice=advice, called=who.spoken)


def _without_graph(call: Call, error: Exception) -> list[Finding]:
    """The findings where `fn` cannot be traced: the numbers of an eager run, and the line at which tracing failed."""
    at, op = left_at(error)
    found = []
    for index, (word, who, source) in enumerate(zip(run_eagerly(call), whom(call), call.sources, strict=True)):
        if word == "ok":
            found.append(_ok(call, who, index))
        elif word != "none":
            found.append(_finding(who, word, "zero" if word == "zero" else "nan"))
        elif not is_float(source):
            found.append(_finding(who, word, "integer_dtype", dtype=source.dtype.name))
        elif (op or "").split(".")[-1] in ("Variable", "constant", "convert_to_tensor"):
            found.append(_finding(who, word, "rewrapped", op=op, at=at))
        elif not reaches(call, index):
            found.append(_finding(who, word, "not_used"))
        else:
            left = at or isinstance(error, LeftTensorFlow)
            found.append(_finding(who, word, "left_tensorflow" if left else "non_differentiable_op", op=op, at=at))
    return found
