"""What the user hands over -> what a tape can watch; names; structure in = structure out.

Every public function begins with ``bind(where, fn, vars)``, which applies the one calling rule of tapekit and gives
a `Call`: the flat ``sources`` that a `tf.GradientTape` can watch, and the function to run.

>>> call = bind("gradient", lambda x, y: x * y, [3.0, 2.0])
>>> call.names
['x', 'y']
>>> float(call())
6.0
"""

import collections.abc
import dataclasses
import inspect
import types
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_VARIADIC = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


@dataclasses.dataclass(slots=True)
class Call:
    """`fn` and `vars`, ready for a tape.

    ``leaves`` are the members of `vars`, flat, as `fn` is to see them: the user's own objects, but numbers and arrays
    are tensors. ``sources`` are the same, but a Keras variable is the `tf.Variable` behind it, which a tape can watch.
    ``takes_vars`` is False when `fn` closes over them.
    """

    where: str
    fn: Callable
    vars: Any
    leaves: list
    sources: list
    takes_vars: bool

    def __call__(self, leaves: Sequence | None = None) -> Any:
        """Call `fn` by the one rule, with `leaves` in the place of its own if it takes them."""
        if not self.takes_vars:
            return self.fn()
        vars = self.pack(self.leaves if leaves is None else leaves)
        if isinstance(vars, collections.abc.Mapping):
            return self.fn(**vars)
        return self.fn(*vars) if tf.nest.is_nested(vars) else self.fn(vars)

    def pack(self, flat: Sequence) -> Any:
        """One result per source -> the structure of `vars`."""
        return tf.nest.pack_sequence_as(self.vars, list(flat))

    @property
    def names(self) -> list[str]:
        """A readable, unique name for each source, in order."""
        return names(self.vars, self.fn if self.takes_vars else None)


def bind(where: str, fn: Callable, vars: Any, *, integers: bool = False) -> Call:
    """Apply the calling rule and check every member of `vars`; `where` begins the error messages. `integers` lets
    sources pass that can have no gradient."""
    if not callable(fn):
        raise TypeError(
            f"{where}: fn is {describe(fn)}, not a function. Give the calculation itself, to be run under the tape: "
            f"{where}(lambda: loss(w), w), not {where}(loss(w), w)."
        )
    flat = tf.nest.flatten(vars)
    if not flat:
        raise ValueError(
            f"{where}: vars is empty ({vars!r}). Give at least one variable, tensor, array or number; a Keras model "
            "has variables only once it is built: call it on a batch first."
        )
    takes_vars = _takes_vars(where, fn, vars)
    leaves, sources = [], []
    for index, value in enumerate(flat):
        leaf, source = watchable(value)
        if source is None:
            raise TypeError(
                f"{where}: source {_name(fn, vars, takes_vars, index)} is {describe(value)}. {_need(value)}."
            )
        if not integers and not is_float(source):
            raise TypeError(
                f"{where}: source {_name(fn, vars, takes_vars, index)} is {source.dtype.name}. Only floating-point "
                "sources have gradients; use 3.0 instead of 3, or tf.cast(...) before the call."
            )
        if leaf is not value and not takes_vars:
            raise ValueError(
                f"{where}: source {_name(fn, vars, takes_vars, index)} is {describe(value)}, but fn{_signature(fn)} "
                "has no required parameter, is called as fn() and cannot have used it. Let fn take it: "
                f"{where}(lambda x: ..., x), or close over a tf.Variable or a tensor."
            )
        leaves.append(leaf)
        sources.append(source)
    return Call(where, fn, vars, leaves, sources, takes_vars)


def watchable(value: Any) -> tuple[Any, Any]:
    """``(leaf, source)``: what to compute with in the place of `value`, and what a tape can watch, if it can."""
    variable = as_variable(value)
    if variable is not None:
        return value, variable
    tensor = value if isinstance(value, tf.Tensor) else _as_tensor(value)
    return tensor, tensor


def as_variable(value: Any) -> tf.Variable | None:
    """The `tf.Variable` that `value` is, or, for a Keras variable, stands for; None for anything else."""
    if isinstance(value, tf.Variable):
        return value
    inner = getattr(value, "value", None)
    return inner if isinstance(inner, tf.Variable) else None


def is_float(tensor: Any) -> bool:
    """Whether `tensor` (anything with a TensorFlow dtype) can have a gradient."""
    dtype = tensor.dtype if isinstance(tensor.dtype, tf.DType) else tf.as_dtype(tensor.dtype)
    return dtype.is_floating or dtype.is_complex


def names(vars: Any, fn: Callable | None = None) -> list[str]:
    """Unique names of the members of `vars`: a Keras path, a variable's name, the parameter of `fn`, or `vars[2]`.

    >>> names([tf.Variable(1.0, name="w"), tf.Variable(2.0, name="w")])
    ['w', 'w_1']
    """
    found = [_own_name(leaf) or path for path, leaf in _paths(vars, _parameters(fn, vars))]
    seen: Counter[str] = Counter()
    for index, name in enumerate(found):
        found[index] = f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1
    return found


def describe(value: Any) -> str:
    """Kind, dtype and shape of anything, for an error message.

    >>> describe(tf.zeros([2, 3])), describe(None), describe(np.ones(3))
    ('a float32 tensor of shape (2, 3)', 'None', 'a NumPy float64 array of shape (3,)')
    """
    if value is None:
        return "None"
    if isinstance(value, (bool, int, float, complex, str)) and not isinstance(value, np.generic):
        return f"the Python {type(value).__name__} {value!r}"
    if isinstance(value, (np.ndarray, np.generic)):
        return f"a NumPy {value.dtype} array of shape {value.shape}"
    if (variable := as_variable(value)) is not None:
        return f"a {variable.dtype.name} variable of shape {variable.shape}"
    if isinstance(value, tf.Tensor):
        return f"a {value.dtype.name} tensor of shape {value.shape}"
    return f"a {type(value).__name__}"


def _as_tensor(value: Any) -> Any:
    """A number or an array -> a tensor; a ragged tensor as it is; None for what no tape can watch."""
    if isinstance(value, (np.ndarray, np.generic)):
        return None if value.dtype == object else tf.convert_to_tensor(value)
    if isinstance(value, (bool, complex, str, bytes)):
        return tf.convert_to_tensor(value)
    if isinstance(value, (int, float)):
        return tf.constant(value, tf.float32)
    return value if isinstance(value, tf.RaggedTensor) else None


def _need(value: Any) -> str:
    """What to give instead of `value`, which no tape can watch."""
    if isinstance(value, tf.SparseTensor):
        return "Only dense and ragged tensors can be watched; differentiate with respect to its .values"
    if hasattr(value, "trainable_variables"):
        return "Give its variables: model.trainable_variables"
    if isinstance(value, collections.abc.Iterable) and not hasattr(value, "dtype"):
        return "A structure is a list, tuple or dict: write list(...) around it"
    return "Give a tf.Variable, a Keras variable, a tensor, a NumPy array or a number"


def _name(fn: Callable, vars: Any, takes_vars: bool, index: int) -> str:
    return repr(names(vars, fn if takes_vars else None)[index])


def _takes_vars(where: str, fn: Callable, vars: Any) -> bool:
    """The one calling rule: does `fn` take `vars`, or nothing? A TypeError if neither fits."""
    code = fn.__code__ if isinstance(fn, types.FunctionType) and not hasattr(fn, "__wrapped__") else None
    if code and not (code.co_argcount or code.co_kwonlyargcount or code.co_flags & _VARIADIC):
        return False  # the everyday closure, without the 5 µs of inspect.signature
    try:
        signature = inspect.signature(fn)
    except (ValueError, TypeError):  # some built-in callables have no signature to read
        return True
    parameters = signature.parameters.values()
    by_name = isinstance(vars, collections.abc.Mapping)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    wanted = [p for p in parameters if p.default is p.empty and p.kind not in variadic]
    open_ended = [p for p in parameters if p.kind is variadic[by_name]]
    if not wanted and not open_ended and not any(p.kind is variadic[0] for p in parameters):
        return False
    args = () if by_name else vars if tf.nest.is_nested(vars) else (vars,)
    try:
        signature.bind(*args, **(vars if by_name else {}))
    except TypeError as error:
        how = f"fn(**vars) with the keys {sorted(vars)}" if by_name else f"fn with {len(args)} argument(s)"
        raise TypeError(
            f"{where}: fn{signature} cannot be called as {how}: {error}. vars is {_outline(vars)}. Let fn take nothing "
            "and close over them, or take one parameter for each member of vars."
        ) from None
    return True


def _signature(fn: Callable) -> str:
    try:
        return str(inspect.signature(fn))
    except (ValueError, TypeError):
        return "(...)"


def _outline(vars: Any) -> str:
    """What `vars` looks like, in a line."""
    if isinstance(vars, collections.abc.Mapping):
        return "{" + ", ".join(f"{key!r}: {_outline(value)}" for key, value in vars.items()) + "}"
    if tf.nest.is_nested(vars):
        inner = ", ".join(_outline(value) for value in list(vars)[:4]) + (", ..." if len(vars) > 4 else "")
        return f"a {type(vars).__name__} of {len(vars)} ({inner})"
    return describe(vars)


def _parameters(fn: Callable | None, vars: Any) -> list[str]:
    """The names of the parameters of `fn` to which the members of `vars` go, as far as they can be known."""
    if fn is None or isinstance(vars, collections.abc.Mapping):
        return []
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (ValueError, TypeError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in positional]


def _own_name(leaf: Any) -> str | None:
    """A Keras path or a given variable name; None for tensors and for the name that every `tf.Variable` has."""
    if as_variable(leaf) is None:
        return None
    name = getattr(leaf, "path", None) or leaf.name.split(":")[0]
    return None if name == "Variable" else name


def _paths(vars: Any, parameters: list[str]) -> list[tuple[str, Any]]:
    """``(path, leaf)`` in the order of `tf.nest.flatten`; the outermost members are called by `parameters`."""
    if not tf.nest.is_nested(vars):
        return [(parameters[0] if parameters else "vars", vars)]
    if isinstance(vars, collections.abc.Mapping):
        members = [(str(key), vars[key]) for key in sorted(vars)]
    else:
        given = parameters or getattr(vars, "_fields", [])
        members = [(given[i] if i < len(given) else f"vars[{i}]", value) for i, value in enumerate(vars)]
    return [pair for name, value in members for pair in _inner_paths(name, value)]


def _inner_paths(name: str, value: Any) -> list[tuple[str, Any]]:
    if not tf.nest.is_nested(value):
        return [(name, value)]
    by_key = isinstance(value, collections.abc.Mapping)
    members = [(key, value[key]) for key in sorted(value)] if by_key else enumerate(value)
    return [pair for key, member in members for pair in _inner_paths(f"{name}[{key!r}]", member)]
