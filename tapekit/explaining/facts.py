"""What is known about the gradient of one source: the one place in which facts are found.

`Links.fact_of_none`, `fact_of_zero` and `fact_of_nan` return a `Fact`, of which `words` makes sentences.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tapekit._sources import Call, is_float
from tapekit.explaining import signals, words
from tapekit.explaining.calls import backward_place, cause_of, spelled, stopped_inside
from tapekit.explaining.flow import SHAPE, Flow, has_body, takes_twice
from tapekit.explaining.ready_made import binding_of, first_use, other_variables, ready_made
from tapekit.explaining.records import Fact
from tapekit.explaining.signals import Signal
from tapekit.graphs.capture import Place, Recording, capture, place


class Links:
    """What a graph tells about sources from which no gradient can be computed.

    Make it while the graph of the recording is being made.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.flow = Flow(recording)
        self.ways = self.flow.ways()
        self.ready = ready_made(recording, self.flow)
        # whether the target depends on no source at all
        self.alone = not any(entry.ref() in self.flow.consumers for entry in recording.sources)

    def fact_of_none(self, index: int) -> Fact:
        """Return what is known about source `index`, whose gradient is None."""
        source, entry = self.recording.call.sources[index], self.recording.sources[index]
        way = self.ways.get(entry.ref())
        if not is_float(source):
            at, op = first_use(self.recording, entry)
            made = binding_of(self.recording.call.leaves[index], self.recording.call.fn)
            at = made.at if made and isinstance(source, tf.Variable) else at
            return Fact("integer_dtype", "source", op=spelled(op) if op else None, at=at, dtype=source.dtype.name)
        if way is None:
            return self._fact_of_unread(index)
        if way.last is None:  # each operation by itself passes a gradient on
            return Fact("non_differentiable_op")
        if way.rank == SHAPE:
            return Fact("not_used", "shape", op=spelled(way.last), at=place(way.last.traceback))
        cause, detail, dtype = cause_of(way.last, self.recording.inputs[way.last])
        if self.flow.writes(way.last):
            cause = "stateful"
        return _fact_at(way.ops(), cause, detail, dtype=dtype, other=stopped_inside(way.last))

    def _fact_of_unread(self, index: int) -> Fact:
        """Return what is known about a source on which the target does not depend."""
        at, op = first_use(self.recording, self.recording.sources[index])
        if at and op:
            return Fact("not_used", "unused", op=spelled(op), at=at)
        leaf, ready = self.recording.call.leaves[index], tuple(map(str, self.ready))
        for each in self.ready:
            if each.holder is not None and any(value is leaf for value in vars(each.holder).values()):
                return Fact("outside_tape", at=each.line(), other=each.name, ready=ready)
        if self.alone and (fact := self._fact_of_twin(self.recording.call.sources[index])):
            return fact._replace(ready=ready)
        if not self.ready:
            return Fact("not_used")
        last = self.ready[0]
        return Fact("outside_tape" if self.alone else "not_used", at=last.line(), other=last.name, ready=ready)

    def _fact_of_twin(self, source: Any) -> Fact | None:
        """Return the fact that `fn` reads another tensor or variable of the shape and dtype of `source`."""
        twins = [each for each in self.ready if (each.tensor.shape, each.tensor.dtype) == (source.shape, source.dtype)]
        if not isinstance(source, tf.Variable):
            return Fact("wrong_tensor", at=twins[0].read, other=twins[0].name) if twins else None
        for each in twins:
            if each.made and each.made.again:
                return Fact("replaced_by_tensor", at=each.made.at, other=each.name)
        for variable, read in other_variables(self.recording, self.flow):
            if (variable.name, variable.shape) == (source.name, source.shape):
                return Fact("wrong_tensor", at=read, other=variable.name.split(":")[0])
        return None


def hear(call: Call, statuses: Sequence[str]) -> Signal:
    """Return the sizes of what flows back to the sources whose gradient is zero or not finite."""
    heard: list[Signal] = []
    numbers = [index for index, word in enumerate(statuses) if word in ("zero", "not_finite")]

    def ask(recording: Recording) -> list:
        sources = [recording.sources[index] for index in numbers]
        heard.append(Signal(Flow(recording), sources, values="not_finite" in statuses))
        return heard[-1].question

    _, answer = capture(call, ask)
    heard[-1].answered(answer)
    return heard[-1]


def fact_of_zero(signal: Signal, index: int, status: str) -> Fact:
    """Return what is known about a gradient whose elements are all 0; an eager tape returns `status` for it."""
    recording = signal.flow.recording
    path, cancels = signal.zero_at(recording.sources[index])
    if not path:
        return Fact("zero")
    for op in reversed(path):
        if kind := _lost_inside(recording, op):
            cause = "stop_gradient" if kind == "StopGradient" else "non_differentiable_op"
            return Fact(cause, kind=kind, op=kind, at=place(path[-1].traceback), path=tuple(path))
    if status == "none":
        return _fact_at(path, "not_used", "branch")
    last = path[-1]
    cause, _, _ = cause_of(last, recording.inputs[last])
    if cause == "custom_gradient":
        return _fact_at(path, cause, at=backward_place(signal.gradients_into(last), signals.__file__))
    if cause == "left_tensorflow" or last.type in words.FLAT:
        return _fact_at(path, cause)
    return _fact_at(path, "zero", "cancels" if cancels or takes_twice(last) else "")


def _lost_inside(recording: Recording, op: tf.Operation) -> str:
    """Return the type of an operation that loses the gradient in the body of a tf.cond or a loop, or nothing."""
    if not has_body(op):
        return ""
    library = {each.signature.name: each for each in recording.graph.as_graph_def().library.function}
    functions = [attr.name for attr in op.op_def.attr if attr.type == "func" and attr.name != "cond"]
    types = [node.op for name in functions for node in library[op.get_attr(name).name].node_def]
    return next((each for each in types if each in words.LOSING), "")


def fact_of_nan(signal: Signal, index: int) -> Fact:
    """Return what is known about a gradient with an element that is NaN or infinite."""
    recording = signal.flow.recording
    path = signal.nan_at(recording.sources[index])
    if not path:
        return Fact("nan")
    origin = signal.origin(path[-1])
    if origin is None:
        behind = signal.flow.after(path[-1].outputs)
        masked = any(tensor.op.type.startswith("Select") for tensor in behind)
        return _fact_at(path, "nan", "masked" if masked else "slope")
    given = origin.op not in recording.inputs or origin.op.type in ("ReadVariableOp", "Const", "Placeholder")
    at, detail = place(origin.op.traceback), "given" if given else "value"
    return Fact("nan", detail, kind=origin.op.type, op=spelled(origin.op), at=at, path=tuple(path))


def _fact_at(
    path: Sequence[tf.Operation], cause: str, detail: str = "", *, at: Place | None = None, **facts: Any
) -> Fact:
    """Return the fact that the gradient is lost at the last operation of `path`."""
    last = path[-1]
    named = {"rewrapped": "tf.Variable", "custom_gradient": "tf.custom_gradient"}
    op = named.get(cause) or spelled(last)
    return Fact(cause, detail, kind=last.type, op=op, at=at or place(last.traceback), path=tuple(path), **facts)
