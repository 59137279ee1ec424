"""The calling rule: `bind` makes a `Call` of `fn` and `vars`, with sources a tape can watch; words for messages."""

import contextlib
import dataclasses
import inspect
import itertools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import is_
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit._lines import name_in_caller
from tapekit._names import printable

_VARIADIC = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


@dataclasses.dataclass(slots=True)
class Call:
    """`fn` and `vars`, ready for a tape.

    ``leaves`` are the members of `vars` in the order of `tf.nest.flatten`, as `fn` gets them: the user's own objects,
    but numbers and arrays are tensors. ``sources`` are what a tape can watch: the same, but the `tf.Variable` behind a
    Keras variable. ``takes_vars`` is False if `fn` closes over them. ``unconnected`` says how a None is reported.
    """

    where: str
    fn: Callable
    vars: Any
    leaves: list
    sources: list
    takes_vars: bool
    unconnected: str

    def __call__(self, leaves: Sequence | None = None) -> Any:
        """Call `fn` by the calling rule. If `fn` takes the sources, `leaves` replace the call's own."""
        if not self.takes_vars:
            return self.fn()
        args, kwargs = _arguments(self.pack(self.leaves if leaves is None else leaves))
        return self.fn(*args, **kwargs)

    def pack(self, flat: Sequence) -> Any:
        """Return one result for each source in the structure of `vars`."""
        if type(self.vars) is list and len(self.vars) == len(self.leaves) and all(map(is_, self.vars, self.leaves)):
            return list(flat)  # for a plain list of variables, the usual case, this saves the 10 µs of tf.nest
        return tf.nest.pack_sequence_as(self.vars, list(flat))

    @property
    def names(self) -> list[str]:
        """A unique name for each source, in order."""
        return names(self.vars, self.fn if self.takes_vars else None)


def bind(
    where: str, fn: Callable, vars: Any, *, closure: bool = False, integers: bool = False, unconnected: Any = "warn"
) -> Call:
    """Apply the calling rule. With `closure`, `fn` does not take `vars`; with `integers`, any dtype is accepted."""
    if not callable(fn) or isinstance(fn, type):
        instead = f"{where}(lambda: loss(w), w), not {where}(loss(w), w)"
        raise TypeError(f"{where}: fn is {describe(fn)}, not a function. Write {instead}.")
    mode = getattr(unconnected, "value", unconnected)  # tf.UnconnectedGradients is an enum of "none" and "zero"
    if mode not in ("warn", "none", "zero", "raise"):
        raise ValueError(f"{where}: unconnected is {unconnected!r}. Write 'warn', 'none', 'zero' or 'raise'.")
    flat = tf.nest.flatten(vars)
    if not flat:
        raise ValueError(
            f"{where}: vars is empty ({vars!r}). At least one source is needed. A Keras model has no "
            "trainable variables before it is built (call it on a batch first), if trainable=False, or without weights."
        )
    takes_vars = not closure and _takes_vars(where, fn, vars)
    pairs = [watchable(value) for value in flat]
    call = Call(where, fn, vars, [leaf for leaf, _ in pairs], [source for _, source in pairs], takes_vars, mode)
    for index, (value, (leaf, source)) in enumerate(zip(flat, pairs, strict=True)):
        if source is None or not (integers or is_float(source)):
            raise TypeError(f"{where}: source {call.names[index]!r} is {refusal(value, source)}")
        if leaf is not value and not takes_vars:
            take = "Close" if closure else f"Let fn take it, without a default, {where}(lambda x: ..., x), or close"
            raise ValueError(
                f"{where}: source {call.names[index]!r} is {describe(value)}, but fn is called without it. {take} over "
                "a tf.Variable or a tensor."
            )
    return call


def watchable(value: Any) -> tuple[Any, Any]:
    """Return ``(leaf, source)``: what `fn` gets instead of `value`, and what a tape can watch (None if nothing)."""
    variable = as_variable(value)
    if variable is not None:
        return value, variable
    if isinstance(value, (tf.Tensor, tf.RaggedTensor)):
        return value, value
    tensor = None
    if isinstance(value, (int, float)) and not isinstance(value, (bool, np.generic)):
        tensor = tf.constant(value, tf.float32)
    elif isinstance(value, (np.ndarray, np.generic, bool, complex, str, bytes)):
        with contextlib.suppress(TypeError, ValueError):  # arrays of objects, dates and other kinds
            tensor = tf.convert_to_tensor(value)
    return value if tensor is None else tensor, tensor


def values_of(source: Any) -> Any:
    """Return `source`, or the values of a ragged tensor without its row splits."""
    return source.flat_values if isinstance(source, tf.RaggedTensor) else source


def dense(gradients: Sequence) -> list:
    """Return the gradients with a tensor for each `tf.IndexedSlices`; rows with the same index are added."""
    return [tf.convert_to_tensor(g) if isinstance(g, tf.IndexedSlices) else g for g in gradients]


def watch_all(tape: tf.GradientTape, sources: Sequence) -> None:
    """Let `tape` watch the `sources` (the values of a ragged tensor)."""
    tape.watch([values_of(source) for source in sources])


def as_variable(value: Any) -> tf.Variable | None:
    """Return the `tf.Variable` that `value` is, or that a Keras variable holds; None for anything else."""
    if isinstance(value, tf.Variable):
        return value
    inner = getattr(value, "value", None)
    return inner if isinstance(inner, tf.Variable) else None


def is_float(tensor: Any) -> bool:
    """Return whether `tensor` (anything with a dtype) is floating-point or complex, and so can have a gradient."""
    dtype = tf.as_dtype(tensor.dtype)
    return dtype.is_floating or dtype.is_complex


def names(vars: Any, fn: Callable | None = None) -> list[str]:
    """Return unique names of the members of `vars`.

    A name is the first of these that exists: key, Keras path, name of the variable, parameter of `fn`, `vars[2]`.
    """
    signature = None if fn is None else _signature(fn)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [p.name for p in signature.parameters.values() if p.kind in positional] if signature else []
    given = given or list(getattr(vars, "_fields", ()))
    if tf.nest.is_nested(vars):
        found = list(_paths(vars, given))
    else:
        found = [_own_name(vars) or (given[0] if given else "vars")]
    unique: dict[str, None] = {}
    for name in map(printable, found):
        numbered = (f"{name}_{count}" for count in itertools.count(1))
        unique[name if name not in unique else next(free for free in numbered if free not in unique)] = None
    return list(unique)


def quoted(name: str, leaf: Any) -> str:
    """Return the name of a source in quotes; for `vars[2]`, the local variable of the user that holds the source."""
    return repr(name_in_caller(leaf) or name if name.startswith("vars") else name)


def describe(value: Any) -> str:
    """Return kind, dtype and shape of anything, for an error message: ``a float32 tensor of shape (2, 3)``."""
    if value is None or isinstance(value, type):
        return "None" if value is None else f"the class {value.__name__}"
    if isinstance(value, (bool, int, float, complex, str)) and not isinstance(value, np.generic):
        return f"the Python {type(value).__name__} {value!r}"
    if isinstance(value, (np.ndarray, np.generic)):
        return f"a NumPy {value.dtype} array of shape {value.shape}"
    variable = as_variable(value)
    if variable is not None or isinstance(value, tf.Tensor):
        kind, tensor = ("tensor", value) if variable is None else ("variable", variable)
        return f"{_article(tensor.dtype.name)} {kind} of shape {tensor.shape}"
    return _article(type(value).__name__) + (f" of {len(value)}" if isinstance(value, (list, tuple, dict)) else "")


def _signature(fn: Callable) -> inspect.Signature | None:
    """Return the signature of `fn`; None for built-in callables that have none."""
    with contextlib.suppress(ValueError, TypeError):
        return inspect.signature(fn)
    return None


def _article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiouAEIOU" else f"a {word}"


def refusal(value: Any, source: Any = None) -> str:
    """Return what arrived, what is needed and what to write instead of `value`, which cannot be a source."""
    if source is not None:
        instead = "; use 3.0 instead of 3, or tf.cast(...) before the call" if source.dtype.is_integer else ""
        if isinstance(source, tf.Variable):
            instead += "; for a model, give its trainable_variables"
        return f"{source.dtype.name}. Only floating-point sources have gradients{instead}."
    if isinstance(value, tf.SparseTensor):
        need = "Give its .values"
    elif hasattr(value, "trainable_variables"):
        need = f"Give its variables: {name_in_caller(value) or getattr(value, 'name', 'it')}.trainable_variables"
    elif hasattr(value, "path") and hasattr(value, "value"):  # a Keras variable, and no tf.Variable behind it
        library = type(value.value).__module__.split(".")[0].removesuffix("lib")
        need = f"Keras runs on {library} here; tapekit reads TensorFlow's tape: set KERAS_BACKEND=tensorflow"
    elif isinstance(value, Iterable) and not hasattr(value, "dtype"):
        need = "A structure is a list, tuple or dict: write list(...) around it"
    else:
        need = "Give a tf.Variable, a Keras variable, a tensor, a NumPy array or a number"
    return f"{describe(value)}. {need}."


def _takes_vars(where: str, fn: Callable, vars: Any) -> bool:
    """Return whether `fn` takes `vars`. Raise TypeError if it can be called neither with them nor without arguments."""
    code = fn.__code__ if isinstance(fn, types.FunctionType) and not hasattr(fn, "__wrapped__") else None
    if code and not (code.co_argcount or code.co_kwonlyargcount or code.co_flags & _VARIADIC):
        return False  # for a plain closure, the usual case, this saves the 5 µs of inspect.signature
    signature = _signature(fn)
    if signature is None:
        return True
    args, kwargs = _arguments(vars)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = signature.parameters.values()
    required = any(p.default is p.empty and p.kind not in variadic for p in parameters)
    if not required and not any(p.kind in (variadic if kwargs else variadic[:1]) for p in parameters):
        return False
    own = getattr(fn, "trainable_variables", ())
    if any(leaf is variable for leaf in tf.nest.flatten(vars) for variable in own):
        raise TypeError(
            f"{where}: fn is {describe(fn)} and vars are its own variables, which it does not take. A function that "
            f"returns the loss is needed. Write {where}(lambda: loss(y, model(x)), model.trainable_variables)."
        )
    how = f"fn(**vars) with the keys {sorted(kwargs)}" if kwargs else f"fn with {len(args)} argument(s)"
    instead = "Let fn take one parameter for each member of vars (np.array(vars) is one), or close over variables."
    require_fit(where, fn, args, kwargs, how, f"vars is {describe(vars)}. {instead}")
    return True


def require_fit(where: str, fn: Callable, args: tuple, kwargs: dict, how: str, instead: str) -> None:
    """Raise TypeError if `fn` cannot be called with these arguments."""
    signature = _signature(fn)
    try:
        if signature is not None:
            signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{where}: fn{signature} cannot be called as {how}: {error}. {instead}") from None


def _arguments(vars: Any) -> tuple[tuple, dict]:
    """Return ``(args, kwargs)`` with which a `fn` that takes `vars` is called."""
    if isinstance(vars, Mapping):
        return (), dict(vars)
    return tuple(vars) if tf.nest.is_nested(vars) and isinstance(vars, Iterable) else (vars,), {}


def _own_name(leaf: Any) -> str | None:
    """Return a Keras path or a given variable name; None for tensors and for the default name of `tf.Variable`."""
    if as_variable(leaf) is None:
        return None
    name = getattr(leaf, "path", None) or leaf.name.split(":")[0]
    return None if name == "Variable" else name


def _paths(structure: Any, given: Sequence[str] = (), prefix: str = "") -> Iterator[str]:
    """Yield a name for each leaf in the order of `tf.nest.flatten`; the outermost members have the `given` names."""
    by_key = isinstance(structure, Mapping)
    if by_key:
        members = [(key, structure[key]) for key in sorted(structure)]
    else:  # attrs classes are structures too, but cannot be iterated over
        members = list(enumerate(structure if isinstance(structure, Iterable) else tf.nest.flatten(structure)))
    for key, value in members:
        if prefix:
            path = f"{prefix}[{key!r}]"
        else:
            path = str(key) if by_key else given[key] if key < len(given) else f"vars[{key}]"
        if tf.nest.is_nested(value):
            yield from _paths(value, prefix=path)
        else:
            yield path if by_key else _own_name(value) or path
