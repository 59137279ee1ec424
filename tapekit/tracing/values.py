"""Values that `fn` uses in Python: whether the target is computed from them (`counts`), or they only decide."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from typing import Any

import numpy as np

from tapekit.graphs.answers import Answer
from tapekit.graphs.capture import capture
from tapekit.graphs.flow import Flow
from tapekit.graphs.recording import LeftTensorFlow, Recording


def require_followed(recording: Recording) -> None:
    """Raise an error that tells the line where `fn` computes the target from a value that depends on a source."""
    dependent = {tensor.ref() for tensor in Flow(recording, asked=recording.asked).after(recording.sources)}
    for op, answer in zip(recording.asked, recording.answers, strict=False):
        if op.inputs[0].ref() in dependent and counts(recording, answer):
            raise LeftTensorFlow(recording.call.where, answer.frames)


def _nearby(value: Any) -> Any:
    """Return a float or complex number that is so near to `value` that a decision stays the same; no other changes."""
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "fcV":  # V is the kind of bfloat16
        return value
    part = 1e-3 if numbers.dtype.itemsize > 2 else 2e-2  # a few roundings of a half
    return (numbers + (part * np.abs(numbers) + 1e-6)).astype(numbers.dtype)[()]


def counts(recording: Recording, answer: Answer) -> bool:
    """Return whether the target is computed from the values that this line of `fn` uses in Python.

    They count if the graph of the target changes with numbers nearby, and only decide if it stays the same.

    The result is also False for a `fn` whose graph changes by itself, as with a counter or a generator.
    """
    known, given = _definition(recording), recording.answers
    moved = [each._replace(value=_nearby(each.value)) if each.at == answer.at else each for each in given]
    return _again(recording, moved) != known and _again(recording, given) == known


def _again(recording: Recording, answers: Sequence[Answer]) -> list | None:
    """Return the definition of the graph with other `answers`; None if `fn` raises an error, as it uses them."""
    again: list[Recording] = []
    with suppress(Exception), redirect_stdout(io.StringIO()):
        capture(recording.call, again.append, answers)
    return _definition(again[-1]) if again else None


def _definition(recording: Recording) -> list:
    """Return the operations on which the target depends, with the numbers in them, and the variables that fn made."""
    kinds = ("tensor", "f", "i")  # names and functions are new in each graph
    found: list = [variable.numpy().tobytes() for variable in recording.variables]
    for op in Flow(recording).ops:
        attrs = sorted(op.node_def.attr.items())
        found.append((op.type, *(each.SerializeToString() for _, each in attrs if each.WhichOneof("value") in kinds)))
    return found
