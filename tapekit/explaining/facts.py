"""What is known about the gradient of one source: `Facts` finds a `Fact` in a graph and in its numbers."""

import re
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tapekit._names import some
from tapekit._sources import is_float
from tapekit.explaining import ready_made, words
from tapekit.explaining.records import Fact
from tapekit.graphs.calls import backward_place, called_by, left_at, spelled
from tapekit.graphs.capture import capture
from tapekit.graphs.flow import CUT, DECIDES, FLAT, NUMBER, SHAPE, Flow, Way, has_body, inside
from tapekit.graphs.places import Place, place
from tapekit.graphs.recording import IDENTITIES, PYTHON, Recording
from tapekit.tracing.signals import NOT_FINITE, ZERO, Signal, health, status
from tapekit.tracing.values import counts


class Facts:
    """What a graph tells about the gradients of its sources. Make an object while the graph is being made.

    `lacking` is True if a source has no gradient. `unsound` are the indices of the sources whose gradients are 0 or not
    finite: for them the numbers in the graph are asked for.
    """

    def __init__(self, recording: Recording, lacking: bool, unsound: Sequence[int] | None = None) -> None:
        self.recording = recording
        self.asked = dict(zip(recording.asked, recording.answers, strict=False))
        self.flow = Flow(recording, asked=self.asked)
        self.ways = self.flow.ways()
        self.losses = ready_made.added_losses(recording) if lacking else {}
        self.ready = ready_made.tensors(recording, self.flow) if lacking else []
        self.signal: Any = None
        if unsound is not None:
            sources = [recording.sources[index] for index in unsound]
            self.signal = Signal(self.flow, sources, ready_made.entries(recording))
        self._cuts: dict[tf.Operation, Fact] = {}
        self._ranks: dict[Place | None, int] = {}

    def of_target(self, infinite: bool) -> list[Fact]:
        """Return what is worth a note on the target; `infinite` if its value is not finite and its gradients are."""
        found = self._squares()
        if infinite:
            found.append(self.of_value([self.recording.target]) or Fact("nan", "given"))
        if others := self._others():
            found.append(Fact("others", other=some([each.name for each in others])))
        return found

    def _others(self) -> list:
        """Return the trainable variables from which a gradient arrives at the target, and that are no sources."""
        return ready_made.other_variables(self.recording, {ref for ref, ends in self.ways.items() if None in ends})

    def _squares(self) -> list[Fact]:
        """Return the element-wise operations that make ``[n, n]`` of ``[n]`` and ``[n, 1]``."""
        dependent = {tensor.ref() for tensor in self.flow.after(self.recording.sources)}
        found = []
        for op in self.flow.ops:
            shapes = [tuple(tensor.shape) for tensor in (*op.inputs, *op.outputs) if tensor.shape.rank is not None]
            n = max((length for shape in shapes for length in shape if length), default=0)
            squared = n > 1 and {*shapes[:-1]} == {(n,), (n, 1)} and shapes[-1] == (n, n)
            if squared and any(tensor.ref() in dependent for tensor in op.inputs):
                found.append(Fact("square", kind=op.type, op=spelled(op), at=place(op.traceback), other=str(n)))
        return found

    def of(self, index: int, found: str, by_tape: str) -> Fact | None:
        """Return the reason for the status `found` of a gradient, which is `by_tape` on an eager tape; None if ok."""
        if by_tape == "ok":  # the draws of a graph are others
            return None
        if found == "zero":
            return self.of_zero(index, by_tape)
        if found == "not_finite":
            return self.of_nan(index)
        return self.of_none(index) if found == "none" else None

    def of_cuts(self, index: int) -> list[Fact]:
        """Return a fact for each operation at which a part of the gradient of source `index` is lost.

        A part is lost where a number is made to which a gradient arrives. A loss inside a function of a library, or in
        a derivative that `fn` takes, is left out: it is intended.
        """
        ways = self.ways.get(self.recording.sources[index].ref(), {})
        lost = [way.last for way in ways.values() if way.last and self._rank(way) == NUMBER]
        for op in lost:
            if op not in self._cuts:  # most sources of a model share them
                self._cuts[op] = self._of_break([op])
        facts = [self._cuts[op] for op in lost if not _order(op)]
        return [fact for fact in facts if fact.at and fact.detail != "library"]

    def of_none(self, index: int) -> Fact:
        """Return what is known about source `index`, whose gradient is None."""
        call, entry = self.recording.call, self.recording.sources[index]
        source = call.sources[index]
        if not is_float(source):
            at, op = ready_made.first_use(self.recording, entry)
            if isinstance(source, tf.Variable):
                at = ready_made.made_at(call.leaves[index], call.fn) or at
            return Fact("integer_dtype", "source", op=spelled(op) if op else None, at=at, dtype=source.dtype.name)
        ways = list(self.ways.get(entry.ref(), {}).values())
        if not ways:
            return self._of_unread(index)
        best = max(ways, key=lambda way: (self._rank(way), way.position))
        if best.last is None:  # each operation by itself passes a gradient on
            return Fact("non_differentiable_op")
        if best.rank == SHAPE:
            return Fact("not_used", "shape", op=spelled(best.last), at=place(best.last.traceback))
        return self._of_break(best.ops())

    def _rank(self, way: Way) -> int:
        """Return how a way ends; a value that is used in Python may count as a number, or decide."""
        answer = self.asked.get(way.last)
        if answer is None or way.rank == CUT:
            return way.rank
        if answer.at not in self._ranks:
            self._ranks[answer.at] = NUMBER if counts(self.recording, answer) else DECIDES
        return self._ranks[answer.at]

    def _of_break(self, path: Sequence[tf.Operation]) -> Fact:
        """Return the fact that the gradient is None at the last operation of `path`."""
        if answer := self.asked.get(path[-1]):
            at, called = left_at(answer.frames)
            rewraps = called.rpartition(".")[2] in ("Variable", "constant", "convert_to_tensor")
            way = tuple(op for op in path if op.type not in IDENTITIES)
            cause = "rewrapped" if rewraps else "left_tensorflow"
            decides = self._ranks.get(answer.at) == DECIDES
            return Fact(cause, "decides" if decides else words.leaving(called), op=called, at=at, path=way)
        path = [*path[:-1], *inside(path[-1:], self.recording)]
        cause, detail, dtype = words.cause_of(path[-1])
        return _fact_at(path, cause, detail, dtype=dtype, other=called_by(path[-1]))

    def _of_unread(self, index: int) -> Fact:
        """Return what is known about a source on which the target does not depend."""
        entry, leaf = self.recording.sources[index], self.recording.call.leaves[index]
        at, op = ready_made.first_use(self.recording, entry)
        if at and op:
            owner = next((name for name, entries in self.losses.items() if entry.ref() in entries), "")
            return Fact("not_used", "losses" if owner else "unused", op=spelled(op), at=at, other=owner)
        ready, name = tuple(map(str, self.ready)), self.recording.call.names[index]
        for each in self.ready:  # of an object that also holds the source
            if any(value is leaf for value in getattr(each.holder, "__dict__", {}).values()):
                return Fact("outside_tape", at=each.line, other=each.name, ready=ready)
        reads_none = not any(each.ref() in self.flow.consumers for each in self.recording.sources)
        if reads_none and (others := self._others()):
            return Fact("wrong_tensor", at=others[0].read, other=some([each.name for each in others]), ready=ready)
        rebound = [each for each in self.ready if each.name == name or (each.made and each.made.variable)]
        if reads_none and rebound and isinstance(leaf, tf.Variable):
            named = some([each.name for each in rebound])
            return Fact("replaced_by_tensor", at=rebound[-1].line, other=named, ready=ready)
        if not self.ready:
            return Fact("not_used")
        cause = "outside_tape" if reads_none else "not_used"
        return Fact(cause, at=self.ready[0].line, other=self.ready[0].name, ready=ready)

    def of_zero(self, index: int, by_tape: str) -> Fact:
        """Return what is known about a gradient whose elements are all 0; an eager tape returns `by_tape` for it."""
        ends = self.signal.lost_at(self.recording.sources[index], ZERO)
        if not ends:
            return Fact("zero", "unseen")
        # a flat operation is preferred: another one multiplies by a factor that is 0
        path, cancels = next((end for end in reversed(ends) if _is_flat(end[0][-1])), ends[-1])
        last = path[-1]
        continued = inside(path, self.recording, CUT if by_tape == "none" else NUMBER)
        if continued != path:
            return _fact_at(continued, *words.cause_of(continued[-1])[:2])
        if by_tape == "none":
            return _fact_at(path, "not_used", "branch")
        cause, detail, _ = words.cause_of(last)
        if cause == "custom_gradient":
            return _fact_at(path, cause, at=backward_place(self.signal.arriving(last)))
        if cause == "left_tensorflow" or (last.type in FLAT and not _order(last)):
            return _fact_at(path, cause, detail)
        if (fact := self.of_value(self.flow.inputs[last], path)) and fact.detail == "overflow":
            return fact
        if not _is_flat(last) and (fact := self._of_factor(path)):
            return fact
        made = ready_made.layer_made_at(path, self.recording.call.fn)
        return _fact_at(path, "zero", "cancels" if cancels else "", at=made)

    def _of_factor(self, path: Sequence[tf.Operation]) -> Fact | None:
        """Return the fact that a factor is 0, with the operation that made it 0; None if no input is 0."""
        zero = self.signal.first(self.flow.inputs[path[-1]], ZERO, _is_flat)
        if zero is None:
            return None
        maker = zero.op
        if maker in self.flow.inputs and (_is_flat(maker) or _order(maker) > 1):
            way = path[: path.index(maker) + 1] if maker in path else [*path, maker]
            return _fact_at(way, "zero")
        named = self.signal.given.get(zero.ref())
        return _fact_at(path, "zero", other=named.name if named else spelled(maker))

    def of_nan(self, index: int) -> Fact:
        """Return what is known about a gradient with an element that is NaN or infinite."""
        ends = self.signal.lost_at(self.recording.sources[index], NOT_FINITE)
        if not ends:
            return Fact("nan", "unseen")
        path, _ = ends[-1]
        last = path[-1]
        if fact := self.of_value([*self.flow.inputs[last], *last.outputs], path):
            return fact
        if _is_closed(last):
            return _fact_of_body(path)
        if not _order(last) and self._alone(last)[0]:
            return _fact_at(path, "nan", "overflow", dtype=last.outputs[0].dtype.name)
        return self._of_slope(path)

    def of_value(self, tensors: Sequence[tf.Tensor], path: Sequence[tf.Operation] = ()) -> Fact | None:
        """Return what is known about the first value on the way to `tensors` that is NaN or infinite, if one is."""
        origin = self.signal.first(tensors, NOT_FINITE)
        if origin is None:
            return None
        op, at = origin.op, place(origin.op.traceback)
        if op not in self.flow.inputs or op.type == "ReadVariableOp" or origin.ref() in self.signal.given:
            return Fact("nan", "given", op.type, spelled(op), at, tuple(path))
        if op.type == "Const":
            return Fact("nan", "constant", op.type, spelled(op), at, tuple(path))
        if _is_closed(op):
            return _fact_of_body(path or [op])
        overflows = self.signal.values[origin.ref()] == "infinite" and self._alone(op)[1]
        if path and op is path[-1] and not overflows:
            return self._of_slope(path)
        fact = _fact_at([*path, op], "nan", "overflow" if overflows else "value", dtype=origin.dtype.name)
        return fact._replace(path=tuple(path))

    def _of_slope(self, path: Sequence[tf.Operation]) -> Fact:
        """Return the fact that the slope of the last operation of `path` is NaN or infinite."""
        behind = self.flow.after(path[-1].outputs)
        return _fact_at(path, "nan", "masked" if any(t.op.type.startswith("Select") for t in behind) else "slope")

    def _alone(self, op: tf.Operation) -> list[bool]:
        """Return whether the slope of `op` is finite, and whether its value is for inputs scaled to at most 1.

        With a finite slope, the product with the arriving gradient overflows. With a finite value, the inputs are too
        large.
        """
        position = self.recording.ops.index(op)

        def ask(again: Recording) -> list:
            same = again.ops[position]
            slopes = [each for each in Flow(again, same.outputs[:1]).backward(same, {0: None}) if each is not None]
            scaled = again.copy(same, map(_at_most_one, same.inputs))
            return [[health(each) for each in group] for group in (slopes, scaled.outputs[:1])]

        _, groups = capture(self.recording.call, ask, self.recording.answers)
        return [not any(status(row) in NOT_FINITE for row in rows) for rows in groups]


def _at_most_one(tensor: tf.Tensor) -> tf.Tensor:
    return tensor / tf.maximum(tf.reduce_max(tf.abs(tensor)), 1) if tensor.dtype.is_floating else tf.identity(tensor)


def _is_flat(op: tf.Operation) -> bool:
    return op.type in words.FLATTENING and not _order(op)


def _is_closed(op: tf.Operation) -> bool:
    """Return whether the numbers in `op` are not known: in a loop, a branch, Python code or a list of tensors."""
    return has_body(op) or op.type in PYTHON or any(tensor.dtype == tf.variant for tensor in op.inputs)


def _fact_of_body(path: Sequence[tf.Operation]) -> Fact:
    bodies = [count for count, op in enumerate(path, 1) if has_body(op)]
    return _fact_at(path[: bodies[-1]] if bodies else path, "nan", "body")


def _order(op: tf.Operation) -> int:
    """Return how often TensorFlow differentiated to make `op`: 0 for an operation that `fn` calls itself."""
    return op.name.count("gradient_tape/")


def _forward(op: tf.Operation) -> tf.Operation:
    """Return the operation whose derivative `op` belongs to, or `op` itself."""
    ops = op.graph.get_operations()
    # TensorFlow's function for the derivative of Sqrt is _SqrtGrad, and for the second derivative _SqrtGradGrad.
    names = [re.fullmatch(r"_(\w*?)(?:Grad)+(?:V\d|Helper)?", frame.name) for frame in op.traceback]
    kind = next((name[1] for name in reversed(names) if name), "")
    alike = [each for each in ops[: ops.index(op)] if kind and each.type == kind and _order(each) == 0]
    return (alike or [op])[-1]


def _fact_at(
    path: Sequence[tf.Operation], cause: str, detail: str = "", *, at: Place | None = None, **facts: Any
) -> Fact:
    """Return the fact that the gradient is lost at the last operation of `path`.

    A 0 or NaN in a derivative that `fn` takes itself is described by the operation that is differentiated there.
    """
    last = path[-1]
    if _order(last) and cause in ("zero", "nan"):
        last = _forward(last)
        if detail != "cancels":
            detail = "second" if detail in ("", "slope") else "slope"
    return Fact(cause, detail, last.type, spelled(last), at or place(last.traceback), tuple(path), **facts)
