"""What `fn` reads besides its sources: the tensors that were made before it ran, and other variables."""

import contextlib
import itertools
import types
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, as_variable, is_float
from tapekit.graphs.bindings import Binding, last_binding
from tapekit.graphs.calls import called_by
from tapekit.graphs.capture import entry
from tapekit.graphs.flow import Flow
from tapekit.graphs.places import Place, place, place_at
from tapekit.graphs.recording import Recording

# What a tf.function, a model or layer of Keras, and a functools.partial hold.
_HELD = ("python_function", "layers", "variables", "func", "args", "keywords")


class Reached(NamedTuple):
    """A value within reach of `fn`: its name, the code that uses this name, and the object that holds it, if any.

    ``read`` is the line at which `fn` reads a tensor that was made before it ran.
    """

    name: str
    value: Any
    code: types.CodeType | None
    holder: Any = None
    read: Place | None = None

    @property
    def made(self) -> Binding | None:
        """Where the name was last bound."""
        return last_binding(self.name, self.code, self.holder) if self.name and self.code else None

    @property
    def line(self) -> Place | None:
        """The line that made the value, or else the line that reads it."""
        return self.made.at if self.made else self.read

    def __str__(self) -> str:
        told = [("made", self.made and self.made.at), ("read", self.read)]
        lines = [f"{word} on line {at.line}" for word, at in told if at]
        shown = f"{self.name or 'a tensor without a name'} {tuple(self.value.shape)}"
        return f"{shown} ({', '.join(lines)})" if lines else shown


def entries(recording: Recording) -> dict[Any, Reached]:
    """Return what was made before `fn` ran, by the ``ref()`` of the tensor by which it enters the graph."""
    found: dict[Any, Reached] = {}
    arrays = []
    for reached in reachable(recording.call.fn):
        if isinstance(reached.value, tf.Tensor):
            found.setdefault(entry(reached.value).ref(), reached)
        elif isinstance(reached.value, np.ndarray):
            arrays.append(reached)
    for inside, outside in recording.captured():
        if isinstance(outside, tf.Tensor) and inside.dtype != tf.resource:
            found.setdefault(inside.ref(), Reached("", outside, None))
    for constant in (op.outputs[0] for op in recording.ops if op.type == "Const"):
        kind = (tuple(constant.shape), constant.dtype.as_numpy_dtype)
        alike = [each for each in arrays if each.value.size > 1 and (each.value.shape, each.value.dtype) == kind]
        if len(alike) == 1:  # an array has no identity in a graph: the only one of that shape and dtype
            found.setdefault(constant.ref(), alike[0])
    return found


def tensors(recording: Recording, flow: Flow) -> list[Reached]:
    """Return the floating-point tensors from before `fn` on which the target depends, the last made first.

    The sources are left out. Call it while the graph of the recording is being made.
    """
    found: dict[Any, Reached] = {}
    for ref, reached in entries(recording).items():
        tensor, code = ref.deref(), reached.code
        if flow.leads(tensor) and is_float(tensor) and not any(tensor is source for source in recording.sources):
            read, _ = first_use(recording, tensor)
            if not read and code:  # a tensor that is returned as it is
                read = place_at(code.co_filename, max(line for *_, line in code.co_lines() if line))
            found.setdefault(reached.name or ref, reached._replace(value=tensor, read=read))
    return sorted(found.values(), key=lambda each: -each.made.at.line if each.made else 0)


def made_at(value: Any, fn: Any) -> Place | None:
    """Return the line on which the name by which `fn` reaches `value` was last bound."""
    reached = named(fn).get(id(value))
    return reached.line if reached else None


def other_variables(recording: Recording, arriving: Collection) -> list[Reached]:
    """Return the trainable variables that are no sources and whose ``ref()`` is in `arriving`, with their lines."""
    found, names = [], named(recording.call.fn)
    for inside, variable in recording.captured():
        held = names.get(id(variable), Reached("", variable, None))
        own = not held.name and any(variable is each for each in recording.variables)  # fn makes it for itself
        known = own or any(inside is entry for entry in recording.sources)
        # a frozen layer of Keras leaves its tf.Variables trainable
        trains = all(getattr(each, "trainable", each is not variable) for each in (variable, held.value))
        if trains and inside.ref() in arriving and not known:
            full = getattr(held.value, "path", variable.name.split(":")[0])
            name = held.name if full == "Variable" and held.name else full
            found.append(Reached(name, variable, None, read=first_use(recording, inside)[0]))
    return found


def added_losses(recording: Recording) -> dict[str, set]:
    """Return, for each object with ``losses`` within reach, the sources on which a loss made by `fn` depends."""
    found: dict[str, set] = {}
    for name, owner in owners(recording.call.fn):
        made = [each for each in tf.nest.flatten(owner.losses) if tf.is_tensor(each) and tf.is_symbolic_tensor(each)]
        gradients = recording.vjp(made, recording.sources)
        found[name] = {s.ref() for s, each in zip(recording.sources, gradients, strict=True) if each is not None}
    return found


def first_use(recording: Recording, tensor: tf.Tensor) -> tuple[Place | None, tf.Operation | None]:
    """Return the line of the user, and the operation, that first reads a tensor."""
    for op in tensor.consumers():
        if op in recording.inputs and (at := place(op.traceback)):
            return at, op
    return None, None


def named(fn: Any) -> dict[int, Reached]:
    """Return a `Reached` for the id of each variable, tensor and array that a function can reach by names."""
    found: dict[int, Reached] = {}
    for reached in reachable(fn):
        for value in (reached.value, as_variable(reached.value)):
            found.setdefault(id(value), reached)
    return found


def reachable(fn: Any) -> Iterator[Reached]:
    """Yield a `Reached` for each variable, tensor and array that a function can reach by names, the nearest first."""
    pending = deque([Reached("", fn, None)])
    seen: dict[int, Any] = {}  # keeps the values alive, and so their ids their own
    while pending and len(seen) < 5000:  # limits the time in a large program
        reached = pending.popleft()
        value = reached.value
        if seen.setdefault(id(value), reached) is not reached:
            continue
        with contextlib.suppress(Exception):  # an attribute, a key or a class of the user may raise anything
            if as_variable(value) is not None or isinstance(value, (np.ndarray, tf.Tensor)):
                if not (isinstance(value, tf.Tensor) and tf.is_symbolic_tensor(value)):
                    yield reached
            elif not isinstance(value, (types.ModuleType, type, str, int, float)):
                pending.extend(_members(reached.name, value, reached.code))


def _members(name: str, value: Any, code: Any) -> Iterator[Reached]:
    """Yield what a function, a container or an object holds."""
    if isinstance(value, types.FunctionType):
        yield from (Reached(inner, each, value.__code__) for inner, each in _names(value))
    elif isinstance(value, types.MethodType):
        yield Reached("self", value.__self__, _held(value.__func__, "__code__"))
        yield Reached(name, value.__func__, code)
    elif isinstance(value, (list, tuple, dict)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        yield from (Reached(f"{name}[{key!r}]", each, code) for key, each in itertools.islice(pairs, 50))
    elif isinstance(value, (tf.SparseTensor, tf.RaggedTensor, tf.IndexedSlices)):
        yield Reached(f"{name}.values", value.values, code)
    else:
        shared = [pair for kind in type(value).__mro__ for pair in vars(kind).items() if isinstance(pair[1], tf.Tensor)]
        held = {key: each for key, each in (_held(value, "__dict__") or {}).items() if not key.startswith("_")}
        held = {key: _held(value, key) for key in _HELD} | dict(shared) | held
        yield from (Reached(f"{name}.{key}" if name else key, each, code, value) for key, each in held.items())


def _held(value: Any, key: str) -> Any:
    """Return an attribute; None if there is none, or if it cannot be read: a property may raise anything."""
    with contextlib.suppress(Exception):
        return getattr(value, key)
    return None


def _names(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the names, with their values, that a function takes from around it, and its default arguments."""
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if (inner := _held(cell, "cell_contents")) is not None:  # an empty cell: a name that is not bound yet
            yield name, inner
    yield from ((name, function.__globals__[name]) for name in _global_names(code) if name in function.__globals__)
    defaults, count = function.__defaults__ or (), code.co_argcount
    yield from zip(code.co_varnames[count - len(defaults) : count], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()


def _global_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _global_names(inner)


def owners(fn: Any) -> list[tuple[str, Any]]:
    """Return the objects with ``losses`` (models and layers of Keras) that a function can reach directly."""
    found = [*_names(fn)] if isinstance(fn, types.FunctionType) else []
    return [(name, each) for name, each in found if isinstance(_held(each, "losses"), list)]


def layer_made_at(path: Sequence[tf.Operation], fn: Any) -> Place | None:
    """Return the line that made the layer in which the last operation of `path` is, if a layer calls it."""
    if not path or called_by(path[-1]) != "__call__":
        return None
    scope = path[-1].name.split("/")[0]  # Keras opens the scope of a layer twice: the second is called dense_1
    called = [name for name, each in owners(fn) if _held(each, "name") in (scope, scope.rpartition("_")[0])]
    return Reached(called[0], None, fn.__code__).line if called else None


def spoken_names(call: Call) -> list[str]:
    """Return the name of each source; where that is only a place in `vars`, the user's name of the variable."""
    found, sources = named(call.fn), zip(call.names, call.leaves, strict=True)
    return [found[id(leaf)].name if name.startswith("vars") and id(leaf) in found else name for name, leaf in sources]
