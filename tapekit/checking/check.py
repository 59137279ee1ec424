"""`check_gradient`: the arguments, and the order of the work."""

import dataclasses
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import tensorflow as tf  # noqa: F401  (of the example)

from tapekit._sources import Call, bind
from tapekit.checking.comparison import Comparison
from tapekit.checking.results import GradientCheck, SourceCheck
from tapekit.checking.tape import second_order, tape_gradient
from tapekit.graphs.capture import require_eager
from tapekit.graphs.state import ONE_AT_A_TIME, all_variables_kept, draws_kept, undisturbed
from tapekit.jacobians import variable_scope_kept


def check_gradient(
    fn: Callable,
    vars: Any,
    /,
    *,
    order: int = 1,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> GradientCheck:
    """Compare the gradient of `fn` with differences of its own values, and return a verdict for each source.

    The tape computes the gradient of the sum of the outputs, weighted by a random cotangent, in the caller's dtype; the
    differences are taken in float64 where `fn` is the same function there. Up to 2,048 elements (256 if `fn` cannot be
    traced; a complex one counts twice) are checked one by one, more in blocks, of which those that fail are divided.

    The verdict on a source is ``pass`` (they agree), ``fail`` (they differ by more than tolerance and uncertainty),
    ``kink`` (there is no slope: left and right differ, or it grows without bound), ``nondeterministic`` (`fn` returns
    another value every time) or ``inconclusive`` (the uncertainty hides the answer).

    Args:
        fn: the function; called as `tapekit.gradient` calls it. It returns any float or complex tensors.
        vars: what to differentiate by: tensors, variables, arrays, numbers, of any shape, in any structure.
        order: 2 checks the gradient of the gradient as well.
        rtol: relative error allowed; default by dtype: 1e-7 (float64), 3e-4 (float32), 2e-2 (float16), 1e-1 (bfloat16).
        atol: absolute error allowed on top, default 0: what is small is checked as strictly as what is large.
        seed: of the cotangent and the directions.
        progress: show how much is done, on stderr; with None, in a terminal or a notebook after a few seconds.

    Returns:
        A `GradientCheck`: print it. Every variable has its value again afterwards.

    Raises:
        TypeError: if `fn` returns no float tensor, or a source is not one.
        ValueError: if an option is out of range, `vars` is empty, or `fn` closes over a tensor and cannot be traced.
        RuntimeError: if called inside a `tf.function`, or a strategy's scope.

    Example:
        >>> check_gradient(lambda x: x * tf.stop_gradient(x), tf.constant([1.0, 2.0]))["x"].cause
        'off by a factor of 0.500'

    Source: Press et al., Numerical Recipes, section 5.7; the random cotangent as in autograd's `check_vjp`.
    """
    _require_valid(order, rtol, atol, seed, progress)
    call = bind("check_gradient", fn, vars)
    require_eager(call)
    once, places = _once(call)
    weighted: list[str] = []
    with ONE_AT_A_TIME, variable_scope_kept(), draws_kept(), undisturbed(), all_variables_kept():
        for number, each in enumerate((once, second_order(once, seed))[: int(order)], 1):
            tape = tape_gradient(each, seed)
            if tape.weighted:
                weighted.append("the gradient" if number == 2 else "the result of fn")
            if tape.problem:
                checks = [SourceCheck(name, *tape.problem) for name in call.names]
            else:
                found = Comparison(each, tape, rtol, atol, seed, progress)
                checks = [found.source_check(place, name) for place, name in zip(places, call.names, strict=True)]
            result = GradientCheck(tuple(checks), number, tuple(weighted))
            if not result:
                break
    return result


def _require_valid(order: Any, rtol: Any, atol: Any, seed: Any, progress: Any) -> None:
    """Raise a ValueError for an option that is out of range, or that is a bool and should be a number."""
    number = "A number from 0 on is needed"
    for name, value, valid, need, example in (
        ("order", order, isinstance(order, Integral) and order in (1, 2), "It is 1, or 2 for the second order", 2),
        ("rtol", rtol, rtol is None or (isinstance(rtol, Real) and float(rtol) >= 0), number, 1e-4),
        ("atol", atol, atol is None or (isinstance(atol, Real) and float(atol) >= 0), number, 1e-4),
        ("seed", seed, isinstance(seed, Integral) and int(seed) >= 0, "A whole number is needed, 0 or more", 0),
        ("progress", progress, progress is None or isinstance(progress, bool), "It is True, False or None", True),
    ):
        if not valid or (isinstance(value, bool) and name != "progress"):
            raise ValueError(f"check_gradient: {name} is {value!r}. {need}. Write {name}={example}.")


def _once(call: Call) -> tuple[Call, list[int]]:
    """Return `call` with equal sources given once, so that they move together, and the index of each source there."""
    keys = [id(source) for source in call.sources]
    order = list(dict.fromkeys(keys))
    places = [order.index(key) for key in keys]
    leaves, sources = ([given[keys.index(key)] for key in order] for given in (call.leaves, call.sources))
    once = dataclasses.replace(call, leaves=leaves, sources=sources)
    if call.takes_vars:
        once.fn, once.vars = lambda *given: call([given[place] for place in places]), leaves
    return once, places
