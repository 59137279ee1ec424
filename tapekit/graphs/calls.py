"""Calls in the user's lines: which one made an operation (`spelled`, `called_by`), or left TensorFlow (`left_at`)."""

import ast
import contextlib
import linecache
import re
import traceback
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tapekit._lines import PACKAGE
from tapekit.graphs import recording
from tapekit.graphs.flow import own_gradient
from tapekit.graphs.places import Place, place
from tapekit.graphs.recording import PYTHON

# TensorFlow and Keras put these functions between a call and the function that is called.
_WRAPPERS = ("wrapper", "wrapped", "error_handler", "op_dispatch_handler")


def spelled(op: tf.Operation) -> str:
    """Return the call in the user's line of which `op` is a part (`tf.norm` for Sqrt), or else the type of `op`."""
    if op.type in PYTHON:
        return PYTHON[op.type]
    if own_gradient(op):
        return "tf.custom_gradient"
    at = place(op.traceback)
    functions = {re.sub(r"(_v\d|_)$", "", name) for name in _callees(op)}
    plain = re.sub(r"(V\d+|Variable|Op)+$", "", op.type).lower()
    for called in re.findall(r"([A-Za-z_][\w.]*(?:\[[^\]]*\][\w.]*)*)\s*\(", at.code if at else ""):
        last = called.split(".")[-1]
        word = last.replace("_", "").lower()
        same = op.outputs and (word in plain or plain in word)  # tf.exp for Exp: the type says as much
        if last in functions and not same:
            return called
    return op.type


def left_at(frames: Sequence[traceback.FrameSummary]) -> tuple[Place | None, str]:
    """Return the line, and the call in it, at which `fn` left TensorFlow."""
    at = place(frames)
    if at is None:
        return None, ""
    frame = next(f for f in reversed(frames) if (f.filename, f.lineno) == at[:2])
    start, end = getattr(frame, "colno", None), getattr(frame, "end_colno", None)
    if start is not None and frame.end_lineno == at.line:
        code = linecache.getline(at.file, at.line)[start:end].strip()
        with contextlib.suppress(SyntaxError):  # of a part of a statement
            return at, _callee(ast.parse(code, mode="eval").body, code)
        return at, code
    # Python 3.10 does not tell the columns: take the call that is running, or the first that is not of tf
    code, below = at.code, {each.name for each in frames[frames.index(frame) + 1 :]}
    with contextlib.suppress(SyntaxError):
        tree = ast.parse(f"{code} pass" if code.endswith(":") else code)
        running = ast.Lambda if frame.name == "<lambda>" else ast.Module
        nodes = [each for node in ast.walk(tree) if isinstance(node, running) for each in ast.walk(node)]
        called = [_callee(node, code) for node in reversed(nodes) if isinstance(node, ast.Call)]
        called.sort(key=lambda name: (name.rpartition(".")[2] not in below, name.startswith("tf.")))
        return at, (called or [code])[0]
    return at, code


def _callee(node: Any, code: str) -> str:
    """Return the function that an expression of `code` calls: ``.numpy`` at the end of a chain of calls."""
    node = node.func if isinstance(node, ast.Call) else node
    if isinstance(node, ast.Attribute) and not isinstance(node.value, (ast.Name, ast.Attribute, ast.Subscript)):
        return f".{node.attr}"
    return ast.get_source_segment(code, node) or code


def called_by(op: tf.Operation) -> str:
    """Return the function of a library, called on the user's line, that calls `op` inside; or an empty string."""
    functions = [name for name in _callees(op) if name not in _WRAPPERS]
    own = functions[:1] in (["stop_gradient"], ["assign"]) or "decorated" in functions[:2]
    return functions[0] if functions and not own else ""


def _callees(op: tf.Operation) -> list[str]:
    """Return the names of the functions that the user's line called on the way to `op`."""
    frames, at = list(op.traceback), place(op.traceback)
    own = max((i for i, frame in enumerate(frames) if at and (frame.filename, frame.lineno) == at[:2]), default=-1)
    return [frame.name for frame in frames[own + 1 :] if not frame.filename.startswith(PACKAGE)]


def backward_place(gradients: Sequence[tf.Tensor]) -> Place | None:
    """Return the line of a custom gradient that made one of the `gradients`."""
    for gradient in gradients:
        frames = list(gradient.op.traceback)
        ours = max((i for i, frame in enumerate(frames) if frame.filename == recording.__file__), default=-1)
        if at := place(frames[ours + 1 :]):
            return at
    return None
