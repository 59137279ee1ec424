"""`fn` as a graph although it uses values of tensors in Python: `replay`, `recorded`, `matters`.

In a graph ``float(y)``, ``y.numpy()``, ``if y > 0`` and ``range(n)`` raise an error, as `y` has no value yet. The graph
up to that line exists, and is run for the value. Then `fn` is traced again with this answer, and goes on as in an eager
run.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, as_variable
from tapekit.explaining.calls import left_at
from tapekit.explaining.flow import Flow
from tapekit.graphs.capture import Place, Recording, capture
from tapekit.graphs.state import undisturbed

MOST = 50  # a program that asks more often, as a long loop does, is left to AutoGraph


class Answer(NamedTuple):
    """A value that `fn` took out of TensorFlow, with the call and the line that took it."""

    value: Any
    op: str | None
    at: Place | None


class _Question(BaseException):
    """The value of a tensor is needed to go on. No `fn` catches this error."""

    def __init__(self, tensor: tf.Tensor) -> None:
        self.tensor = tensor


@dataclasses.dataclass
class Replay(Call):
    """A `Call` whose `fn` receives the ``answers``, in the order in which it asks for values of tensors.

    ``asked`` has the operations of the latest graph whose values were asked for. ``ended`` has the question or the
    error at which the latest graph ends early. ``active``: whether symbolic tensors answer at all; ``failed`` has the
    errors that `fn` raises even then.
    """

    plain: Callable | None = None
    active: bool = False
    answers: list[Answer] = dataclasses.field(default_factory=list)
    asked: list[tf.Operation] = dataclasses.field(default_factory=list)
    ended: list[BaseException] = dataclasses.field(default_factory=list)
    failed: list[Exception] = dataclasses.field(default_factory=list)

    def __call__(self, leaves: Any = None) -> Any:
        self.asked.clear()
        self.ended.clear()
        with undisturbed():  # each run of fn draws the same numbers in Python
            if tf.executing_eagerly() or self.fn is not self.plain or not tf.config.functions_run_eagerly():
                return Call.__call__(self, leaves)  # an eager run, or a graph of AutoGraph
            return self._in_graph(leaves)

    def _in_graph(self, leaves: Any) -> Any:
        try:
            with _answering(self._value) if self.active else nullcontext():
                return Call.__call__(self, leaves)
        except _Question as question:
            self.ended.append(question)
            return question.tensor
        except Exception as error:
            if self.active:
                self.failed.append(error)
                raise
            self.ended.append(error)
            return tf.zeros([])

    def _value(self, tensor: tf.Tensor) -> Any:
        self.asked.append(tf.identity(tensor).op)
        if len(self.asked) > MOST:
            raise TypeError("symbolic tensors are asked too often")
        if len(self.asked) > len(self.answers):
            raise _Question(self.asked[-1].outputs[0])
        return self.answers[len(self.asked) - 1].value


@contextmanager
def _answering(value: Callable) -> Iterator[None]:
    """Let symbolic tensors and variables of this graph answer with ``value(tensor)``, and restore their classes."""
    graph = tf.compat.v1.get_default_graph()

    def length(tensor: tf.Tensor) -> int:
        return int(tensor.shape[0] or value(tf.shape(tensor)[0]))

    def make(next_creator: Callable, **kwargs: Any) -> tf.Variable:
        first = kwargs["initial_value"]
        if as_variable(first) is not None or (tf.is_tensor(first) and tf.is_symbolic_tensor(first)):
            kwargs["initial_value"] = value(tf.convert_to_tensor(first))
        return next_creator(**kwargs)

    answers: dict[str, Callable] = {
        "numpy": value,
        "__array__": lambda tensor, dtype=None, copy=None: np.asarray(value(tensor), dtype),
        "__format__": lambda tensor, how: format(value(tensor), how),
        "__len__": length,
        "__iter__": lambda tensor: iter(tf.unstack(tensor, length(tensor))),
        "__index__": lambda tensor: int(value(tensor)),
    }
    for kind in (bool, int, float, complex):
        answers[f"__{kind.__name__}__"] = lambda tensor, kind=kind: kind(value(tensor))
    kinds = [kind for kind in tf.Variable.__subclasses__() if "numpy" in vars(kind)]
    patches = [(tf.Tensor, name, answer) for name, answer in answers.items()]
    patches += [(kind, "numpy", lambda variable: value(variable.value())) for kind in kinds]
    before = [(kind, name, vars(kind).get(name)) for kind, name, _ in patches]
    try:
        for (kind, name, answer), (*_, original) in zip(patches, before, strict=True):
            setattr(kind, name, _only_in(graph, answer, original))
        with tf.variable_creator_scope(make):
            yield
    finally:
        for kind, name, original in before:
            delattr(kind, name) if original is None else setattr(kind, name, original)


def _only_in(graph: Any, answer: Callable, original: Callable | None) -> Callable:
    """Return a method that answers for tensors and variables of `graph`, and else does what it did before."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        inside = tf.compat.v1.get_default_graph() is graph and not tf.executing_eagerly()
        if inside and getattr(self, "graph", graph) is graph:
            return answer(self, *args, **kwargs)
        if original is None:
            raise TypeError("a symbolic tensor has no value here")
        return original(self, *args, **kwargs)

    return method


def replay(call: Call) -> Replay:
    """Return a `call` that can be recorded although `fn` uses values of tensors."""
    fields: dict[str, Any] = {field.name: getattr(call, field.name) for field in dataclasses.fields(call)}
    return Replay(**fields, plain=call.fn)


def recorded(call: Replay, ask: Callable[[Recording], Any]) -> tuple[Recording, Any]:
    """Return what `capture` returns; `fn` is traced once more for each value that it asks for."""
    while True:
        recording, answer = capture(call, lambda recording: recording.target if call.ended else ask(recording))
        if not call.ended:
            if call.failed:  # AutoGraph made the graph
                call.plain = None
                call.answers.clear()
            return recording, answer
        if isinstance(question := call.ended[0], _Question):
            error: Any = question
            at, op = left_at(error)
            call.answers.append(Answer(answer, op, at))
        call.active = True


def answered(recording: Recording) -> dict[tf.Operation, Answer]:
    """Return the operations of a recording whose values `fn` used in Python."""
    call = recording.call
    return dict(zip(call.asked, call.answers, strict=False)) if isinstance(call, Replay) else {}


def nearby(value: np.ndarray) -> np.ndarray:
    """Return numbers so near that no decision changes with them."""
    return value + np.asarray(1e-3 * np.abs(value) + 1e-6, value.dtype) if value.dtype.kind == "f" else value


def far_away(value: np.ndarray) -> np.ndarray:
    """Return numbers with which decisions change, and orders."""
    return ~value if value.dtype.kind == "b" else -value - 1


def matters(recording: Recording, answer: Answer, move: Callable) -> bool:
    """Return whether the graph of the target is another one if the answers of this line are moved."""
    call: Any = recording.call
    moved = [
        each._replace(value=move(np.asarray(each.value))) if each.at == answer.at else each for each in call.answers
    ]
    again: list[Recording] = []
    with suppress(Exception):  # fn may not accept the moved numbers: it uses them
        capture(dataclasses.replace(call, answers=moved, failed=[]), again.append)
    return not again or _numbers(again[-1]) != _numbers(recording)


def _numbers(recording: Recording) -> list[tuple]:
    """Return the operations on which the target depends with the numbers in their definitions, and new variables."""
    kinds = ("tensor", "f", "i")
    made = [(str(variable.numpy()),) for variable in recording.variables]
    return made + [
        (op.type, *(str(each) for _, each in sorted(op.node_def.attr.items()) if each.WhichOneof("value") in kinds))
        for op in Flow(recording).ops
    ]
