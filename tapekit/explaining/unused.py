"""A source that the target does not depend on: what `fn` read in its place, and what the program says of that.

The graph tells which ready-made tensors `fn` reads; its closure tells their names; the text around it, as the last
witness, which of them was computed from the source.
"""

import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, as_variable, is_float
from tapekit.explaining.flow import Flow, Way
from tapekit.explaining.written import assigned, attribute
from tapekit.graphs.capture import Place, Recording, is_own, place


class ReadyMade(NamedTuple):
    """A tensor or array that was there before `fn` ran: its name, or nothing, what holds it, and where it is read."""

    name: str
    value: np.ndarray
    owner: Any
    at: Place | None
    outside: bool

    def __str__(self) -> str:
        return f"{self.name or 'a tensor without a name'} {self.value.shape}"


class Who(NamedTuple):
    """A source: its name, and what the user calls it."""

    source: str
    spoken: str


def first_use(recording: Recording, entry: tf.Tensor) -> tuple[Place | None, tf.Operation | None]:
    """Where `fn` first reads a source, and by which operation."""
    for op in recording.ops:
        if any(tensor is entry for tensor in recording.inputs[op]) and (at := place(op.traceback)):
            return at, op
    return None, None


def unread(recording: Recording, flow: Flow, call: Call, index: int, way: Way | None) -> dict[str, Any]:
    """The cause, the line and the facts for source `index`, of which no number reaches the target."""
    at, op = first_use(recording, recording.sources[index])
    if way is not None and way.last is not None:
        return {"cause": "not_used", "op": way.last, "at": place(way.last.traceback), "read": True}
    source, leaf = call.sources[index], call.leaves[index]
    ready = _ready_made(recording, flow, call)
    numbers = np.asarray(source)
    own_names = _names_of(leaf)
    for other in ready:
        # 1.0 and 2.0 may be the same by chance; 0.3071 is not
        telling = bool(np.any(other.value * 4 % 1)) or assigned(call.fn, other.name, own_names) is not None
        if telling and _holds(numbers, other.value):
            piece = "a copy" if other.value.size == numbers.size else "a piece"
            return {"cause": "wrong_tensor", "at": other.at, "other": str(other), "piece": piece}
    for other in ready:
        made = assigned(call.fn, other.name, own_names)
        if made and other.name in own_names and as_variable(leaf) is not None:
            return {"cause": "replaced_by_tensor", "at": made, "other": other.name}
        if other.owner is not None and _has(other.owner, leaf):
            made = attribute(call.fn, other.name.rpartition(".")[2]) or other.at
        if made:
            return {"cause": "outside_tape", "at": made, "ready": [str(each) for each in ready], "other": other.name}
    ready = [each for each in ready if each.outside]
    alone = not any(t.dtype == tf.resource for op in flow.ops for t in flow.inputs(op))
    if ready and alone and not any(entry.ref() in flow.consumers for entry in recording.sources):
        return {"cause": "outside_tape", "at": ready[0].at, "ready": [str(r) for r in ready]}
    return {"cause": "not_used", "op": op, "at": at, "read": at is not None, "ready": [str(r) for r in ready]}


def _ready_made(recording: Recording, flow: Flow, call: Call) -> list[ReadyMade]:
    """The float tensors and arrays from before `fn` on which the target depends."""
    named = [found for found in _reachable(call.fn) if as_variable(found[1]) is None]
    sources = {id(source) for source in call.sources}
    captured = [(outside, inside) for inside, outside in recording.captured()]
    read = [pair for pair in captured if pair[1].dtype != tf.resource]
    read += [(None, op.outputs[0]) for op in flow.ops if op.type == "Const"]  # also small tensors from outside
    found: dict = {}
    for outside, inside in read:
        uses = flow.consumers.get(inside.ref(), [])
        value = tf.get_static_value(inside) if outside is None else np.asarray(outside)
        if not uses or id(outside) in sources or value is None or not is_float(inside):
            continue
        match = [(name, owner) for name, each, owner in named if each is outside or _equal(value, each)]
        if match or outside is not None or value.size > 1:
            name, owner = match[0] if match else ("", None)
            known = bool(name) or outside is not None
            found.setdefault(name or id(inside), ReadyMade(name, value, owner, _first_place(uses), known))
    for other, inside in captured:
        uses = flow.consumers.get(inside.ref())
        if uses and isinstance(other, tf.Variable) and id(other) not in sources and is_float(other):
            # a clone of the source, perhaps
            found[id(other)] = ReadyMade(other.name.split(":")[0], np.asarray(other), None, _first_place(uses), False)
    return list(found.values())


def _first_place(uses: list[tuple[tf.Operation, int]]) -> Place | None:
    return next((at for op, _ in uses if (at := place(op.traceback))), None)


def _equal(value: np.ndarray, other: Any) -> bool:
    other = np.asarray(other)
    return value.shape == other.shape and np.array_equal(value, other)


def _holds(numbers: np.ndarray, part: np.ndarray) -> bool:
    """Whether `part` may be a copy or a piece of `numbers`."""
    return np.unique(part).size > 1 and part.size <= numbers.size and bool(np.isin(part, numbers).all())


def _reachable(value: Any, name: str = "", owner: Any = None, depth: int = 0) -> Iterator[tuple[str, Any, Any]]:
    """``(name, value, owner)`` of the variables, tensors and arrays around a function; the owner is what holds it."""
    if isinstance(value, (tf.Tensor, np.ndarray)) or as_variable(value) is not None:
        if as_variable(value) is not None or not tf.is_symbolic_tensor(value):
            yield name, value, owner
    elif depth > 4 or isinstance(value, (types.ModuleType, type)):
        return
    elif isinstance(value, functools.partial):
        yield from _reachable([value.func, *value.args, *value.keywords.values()], name, owner, depth + 1)
    elif isinstance(value, types.FunctionType):
        around = inspect.getclosurevars(value)
        for inner, each in {**around.globals, **around.nonlocals}.items():
            yield from _reachable(each, inner, None, depth + 1)
    elif isinstance(value, (list, tuple, dict)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in list(pairs)[:20]:
            yield from _reachable(each, f"{name}[{key!r}]", owner, depth + 1)
    elif hasattr(value, "__self__"):
        yield from _reachable(value.__self__, name, owner, depth + 1)
    elif hasattr(value, "__dict__"):
        for inner, each in list(vars(value).items()):
            if not inner.startswith("_") and not inspect.isroutine(each):
                yield from _reachable(each, f"{name}.{inner}" if name else inner, value, depth + 1)


def _has(owner: Any, leaf: Any) -> bool:
    """Whether an object holds `leaf` too: a layer its variable, beside what it computed from it."""
    return any(each is leaf or each is as_variable(leaf) for each in vars(owner).values())


def whom(call: Call) -> list[Who]:
    """What each source is called, and where that is only its place in `vars`, the user's name for it."""
    named: dict[int, list[str]] = {}
    for name, value in [*((n, v) for n, v, _ in _reachable(call.fn)), *_locals()]:
        named.setdefault(id(value), []).append(name)
    sources = zip(call.names, call.leaves, strict=True)
    return [Who(n, named.get(id(leaf), [n])[0] if n.startswith("vars") else n) for n, leaf in sources]


def _locals() -> Iterator[tuple[str, Any]]:
    """The variables of the user's functions that are running, innermost first."""
    frame = inspect.currentframe()
    while frame is not None:
        if is_own(frame.f_code.co_filename):
            yield from frame.f_locals.items()
        frame = frame.f_back


def _names_of(leaf: Any) -> set[str]:
    """All that the user calls `leaf`."""
    variable = as_variable(leaf)
    own = {variable.name.split(":")[0]} - {"Variable"} if variable is not None else set()
    return own | {name for name, value in _locals() if value is leaf}
