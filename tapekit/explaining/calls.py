"""What an operation is called in the user's program: its word, its call, its line."""

import linecache
import re
import traceback
from collections.abc import Sequence

import tensorflow as tf

from tapekit._sources import is_float
from tapekit.explaining import messages
from tapekit.explaining.flow import own_gradient
from tapekit.graphs.capture import PLUMBING, Place, place

# What TensorFlow and Keras put between a call and its function.
_WRAPPERS = ("error_handler", "op_dispatch_handler", "wrapper", "wrapped", "decorated")


def cause_of(op: tf.Operation, inputs: list[tf.Tensor]) -> tuple[str, dict]:
    """The word for an operation that loses the gradient: wording only, that it does was measured."""
    if own_gradient(op):
        return "custom_gradient", {}
    if op.type in messages.PYTHON:
        return "left_tensorflow", {"python_function": True}
    if op.type == "StopGradient":
        return "stop_gradient", {"library": _library(op)}
    if any(tensor.dtype == tf.resource for tensor in inputs) and op.type != "ReadVariableOp":
        return "stateful", {}
    if op.type == "Cast" or not any(is_float(tensor) for tensor in inputs):
        kinds = [tensor.dtype.name for tensor in (*op.outputs, *inputs) if not is_float(tensor)]
        return "integer_dtype", {"dtype": (kinds or ["integer"])[0], "cast": True}
    return "non_differentiable_op", {}


def spelled(op: tf.Operation) -> str:
    """The call in the user's line of which `op` is only a part (`tf.norm`, not Sqrt), or else the type of `op`."""
    if op.type in messages.PYTHON:
        return messages.PYTHON[op.type]
    at = place(op.traceback)
    functions = {re.sub(r"_v\d$", "", name) for name in _callees(op)}
    plain = re.sub(r"(V\d+|Variable|Op)+$", "", op.type).lower()
    for called in re.findall(r"([A-Za-z_][\w.]*)\s*\(", at.code if at else ""):
        last = called.split(".")[-1]
        word = last.replace("_", "").lower()
        if last in functions and word not in plain and plain not in word:
            return called
    return op.type


def path_of(name: str, ops: Sequence[tf.Operation]) -> str:
    """``w -> Mul (line 7) -> ArgMax (line 8) x``"""
    steps = []
    for op in ops:
        if op.type not in PLUMBING or op is ops[-1]:
            at = place(op.traceback)
            steps.append(("custom gradient" if own_gradient(op) else op.type) + (f" (line {at.line})" if at else ""))
    if len(steps) > 6:
        steps = [*steps[:2], "...", *steps[-3:]]
    return " -> ".join([name, *steps]) + " x"


def left_at(error: Exception) -> tuple[Place | None, str | None]:
    """Where, and with which call, `fn` left TensorFlow."""
    if isinstance(error.__cause__, Exception):  # what a LeftTensorFlow was raised from
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    at = place(frames)
    if at is None:
        return None, None
    frame = next(f for f in reversed(frames) if (f.filename, f.lineno) == at[:2])
    start, end = getattr(frame, "colno", None), getattr(frame, "end_colno", None)
    whole = linecache.getline(at.file, at.line)
    part = whole[start:end] if start is not None and frame.end_lineno == at.line else at.code
    called = re.match(r"[A-Za-z_][\w.]*(?:\[[^\]]*\][\w.]*)*", part)
    return at, called[0] if called else part.strip()


def _library(op: tf.Operation) -> str | None:
    """The function, not of the user's, that called tf.stop_gradient."""
    names = _callees(op)
    names = names[: names.index("stop_gradient")] if "stop_gradient" in names else []
    return next((name for name in reversed(names) if name not in _WRAPPERS), None)


def _callees(op: tf.Operation) -> list[str]:
    """The functions that the user's line called on the way to `op`, by name."""
    frames, at = list(op.traceback), place(op.traceback)
    own = max((i for i, frame in enumerate(frames) if at and (frame.filename, frame.lineno) == at[:2]), default=-1)
    return [frame.name for frame in frames[own + 1 :]]
