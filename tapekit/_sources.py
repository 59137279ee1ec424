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
import contextlib
import dataclasses
import inspect
import itertools
import types
from collections.abc import Callable, Sequence
from operator import is_
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
        return self.fn(*vars) if _is_sequence(vars) else self.fn(vars)

    def pack(self, flat: Sequence) -> Any:
        """One result per source -> the structure of `vars`."""
        if type(self.vars) is list and len(self.vars) == len(self.leaves) and all(map(is_, self.vars, self.leaves)):
            return list(flat)  # the everyday list of variables, without the 10 µs of tf.nest
        return tf.nest.pack_sequence_as(self.vars, list(flat))

    @property
    def names(self) -> list[str]:
        """A readable, unique name for each source, in order."""
        return names(self.vars, self.fn if self.takes_vars else None)


def bind(where: str, fn: Callable, vars: Any, *, closure: bool = False, integers: bool = False) -> Call:
    """Apply the calling rule and check every member of `vars`; `where` begins the error messages.

    With `closure`, `fn` is for the caller to call: it closes over `vars`, whatever its parameters. With `integers`,
    sources pass that can have no gradient.
    """
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
    takes_vars = not closure and _takes_vars(where, fn, vars)
    leaves, sources = [], []
    for index, value in enumerate(flat):
        leaf, source = watchable(value)
        refused = source is None or not (integers or is_float(source))
        if refused or (leaf is not value and not takes_vars):
            name = names(vars, fn if takes_vars else None)[index]
            kind = TypeError if refused else ValueError
            raise kind(f"{where}: source {name!r} is {_refusal(value, source, where, closure)}")
        leaves.append(leaf)
        sources.append(source)
    return Call(where, fn, vars, leaves, sources, takes_vars)


def watchable(value: Any) -> tuple[Any, Any]:
    """``(leaf, source)``: what to compute with in the place of `value`, and what a tape can watch, if it can."""
    variable = as_variable(value)
    if variable is not None:
        return value, variable
    tensor = value if isinstance(value, tf.Tensor) else _as_tensor(value)
    return value if tensor is None else tensor, tensor


def values_of(source: Any) -> Any:
    """`source`, or of a ragged tensor its values, without its row splits."""
    return source.flat_values if isinstance(source, tf.RaggedTensor) else source


def dense(gradients: Sequence) -> list:
    """The same, with a tensor for each `tf.IndexedSlices`: repeated rows of an embedding add up."""
    return [tf.convert_to_tensor(g) if isinstance(g, tf.IndexedSlices) else g for g in gradients]


def watch_all(tape: tf.GradientTape, sources: Sequence) -> None:
    """Have `tape` watch the `sources`; of a ragged tensor its values, not its row splits."""
    tape.watch([values_of(source) for source in sources])


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
    unique: dict[str, None] = {}
    for name in found:
        free = itertools.chain([name], (f"{name}_{count}" for count in itertools.count(1)))
        unique[next(other for other in free if other not in unique)] = None
    return list(unique)


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
    variable = as_variable(value)
    if variable is not None or isinstance(value, tf.Tensor):
        kind, tensor = ("tensor", value) if variable is None else ("variable", variable)
        return f"{_article(tensor.dtype.name)} {kind} of shape {tensor.shape}"
    return _article(type(value).__name__)


def _article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiouAEIOU" else f"a {word}"


def _as_tensor(value: Any) -> Any:
    """A number or an array -> a tensor; a ragged tensor as it is; None for what no tape can watch."""
    if isinstance(value, tf.RaggedTensor):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, (bool, np.generic)):
        return tf.constant(value, tf.float32)
    if isinstance(value, (np.ndarray, np.generic, bool, complex, str, bytes)):
        with contextlib.suppress(TypeError, ValueError):  # arrays of objects, dates and other kinds
            return tf.convert_to_tensor(value)
    return None


def _refusal(value: Any, source: Any, where: str, closure: bool) -> str:
    """What arrived, what is needed and what to give instead of `value`, which cannot be a source."""
    if source is not None and not is_float(source):
        instead = "; use 3.0 instead of 3, or tf.cast(...) before the call" if source.dtype.is_integer else ""
        if isinstance(source, tf.Variable):
            instead += "; of a model, give its trainable_variables"
        return f"{source.dtype.name}. Only floating-point sources have gradients{instead}."
    if source is not None:
        take = "Close" if closure else f"Let fn take it, without a default, {where}(lambda x: ..., x), or close"
        return f"{describe(value)}, but fn is called without it. {take} over a tf.Variable or a tensor."
    if isinstance(value, tf.SparseTensor):
        need = "Only dense and ragged tensors can be watched; differentiate with respect to its .values"
    elif hasattr(value, "trainable_variables"):
        need = "Give its variables: model.trainable_variables"
    elif type(value).__name__ == "KerasTensor":
        need = "It stands for numbers to come: call the model on data, model(x), inside fn"
    elif tf.is_tensor(value) and hasattr(value, "path"):
        need = (
            "In the call of a mixed-precision layer it is a cast copy of itself; ask for the gradient outside the layer"
        )
    elif isinstance(value, collections.abc.Iterable) and not hasattr(value, "dtype"):
        need = "A structure is a list, tuple or dict: write list(...) around it"
    else:
        need = "Give a tf.Variable, a Keras variable, a tensor, a NumPy array or a number"
    return f"{describe(value)}. {need}."


def signature_of(fn: Callable) -> inspect.Signature | None:
    """None for some built-in callables, which have none to read."""
    with contextlib.suppress(ValueError, TypeError):
        return inspect.signature(fn)
    return None


def _takes_vars(where: str, fn: Callable, vars: Any) -> bool:
    """The one calling rule: does `fn` take `vars`, or nothing? A TypeError if neither fits."""
    code = fn.__code__ if isinstance(fn, types.FunctionType) and not hasattr(fn, "__wrapped__") else None
    if code and not (code.co_argcount or code.co_kwonlyargcount or code.co_flags & _VARIADIC):
        return False  # the everyday closure, without the 5 µs of inspect.signature
    signature = signature_of(fn)
    if signature is None:
        return True
    parameters = signature.parameters.values()
    by_name = isinstance(vars, collections.abc.Mapping)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    wanted = [p for p in parameters if p.default is p.empty and p.kind not in variadic]
    open_ended = variadic if by_name else variadic[:1]
    if not wanted and not any(p.kind in open_ended for p in parameters):
        return False
    args = () if by_name else vars if _is_sequence(vars) else (vars,)
    own = getattr(fn, "trainable_variables", ())
    if any(leaf is variable for leaf in tf.nest.flatten(vars) for variable in own):
        raise TypeError(
            f"{where}: fn is {describe(fn)} and vars are its own variables, which it does not take. Write the loss "
            f"as a function: {where}(lambda: loss(y, model(x)), model.trainable_variables)."
        )
    try:
        signature.bind(*args, **(vars if by_name else {}))
    except TypeError as error:
        how = f"fn(**vars) with the keys {sorted(vars)}" if by_name else f"fn with {len(args)} argument(s)"
        raise TypeError(
            f"{where}: fn{signature} cannot be called as {how}: {error}. vars is {_outline(vars)}. Let fn take one "
            "parameter for each member of vars; give np.array(vars) for one array, [vars] to hand it over whole; or "
            "let fn take nothing and close over variables."
        ) from None
    return True


def _is_sequence(vars: Any) -> bool:
    return tf.nest.is_nested(vars) and isinstance(vars, collections.abc.Iterable)


def _outline(vars: Any) -> str:
    """What `vars` looks like, in a line."""
    if isinstance(vars, collections.abc.Mapping):
        return "{" + ", ".join(f"{key!r}: {_outline(value)}" for key, value in vars.items()) + "}"
    if _is_sequence(vars):
        inner = ", ".join(_outline(value) for value in list(vars)[:4]) + (", ..." if len(vars) > 4 else "")
        return f"a {type(vars).__name__} of {len(vars)} ({inner})"
    return describe(vars)


def _parameters(fn: Callable | None, vars: Any) -> list[str]:
    """The names of the parameters of `fn` to which the members of `vars` go, as far as they can be known."""
    signature = None if fn is None or isinstance(vars, collections.abc.Mapping) else signature_of(fn)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in signature.parameters.values() if p.kind in positional] if signature else []


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
        members = [(given[i] if i < len(given) else f"vars[{i}]", value) for i, value in enumerate(_members(vars))]
    return [pair for name, value in members for pair in _inner_paths(name, value)]


def _inner_paths(name: str, value: Any) -> list[tuple[str, Any]]:
    if not tf.nest.is_nested(value):
        return [(name, value)]
    by_key = isinstance(value, collections.abc.Mapping)
    members = [(key, value[key]) for key in sorted(value)] if by_key else enumerate(_members(value))
    return [pair for key, member in members for pair in _inner_paths(f"{name}[{key!r}]", member)]


def _members(vars: Any) -> Any:
    return vars if _is_sequence(vars) else tf.nest.flatten(vars)  # attrs classes are structures too
