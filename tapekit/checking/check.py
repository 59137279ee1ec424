"""`check_gradient`: the arguments, and the order of the work."""

import dataclasses
from collections.abc import Callable
from numbers import Real
from typing import Any

import tensorflow as tf  # noqa: F401  (the example above)

from tapekit._sources import Call, bind
from tapekit.checking.comparison import compare
from tapekit.checking.messages import source_check
from tapekit.checking.results import GradientCheck
from tapekit.checking.tape import second_order
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

    The tape computes the gradient of the outputs' sum with random weights (a random cotangent), in the caller's dtype;
    the differences are taken in float64 where `fn` is the same function there. Up to 2,048 elements (256 if `fn` cannot
    be traced; a complex one counts twice), each is checked by itself. Of more, blocks of elements move together, and a
    block that fails is divided until the wrong element is found.

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
        A `GradientCheck`: print it. `fn` is traced, or, if it cannot be, called for every difference. Every variable
        has its value again afterwards.

    Raises:
        TypeError: if `fn` returns no float tensor, or a source is not one.
        ValueError: if `order`, `seed`, `rtol` or `atol` is out of range, or `vars` is empty; or if `fn` closes over a
            source that is a tensor, which only a graph can replace, and cannot be traced.
        RuntimeError: if called inside a `tf.function`, or a strategy's scope.

    Example:
        >>> check_gradient(lambda x: x * tf.stop_gradient(x), tf.constant([1.0, 2.0]))["x"].cause
        'off by a factor of 0.500'

    Source: Press et al., Numerical Recipes, section 5.7; the random cotangent as in autograd's `check_vjp`.
    """
    call = bind("check_gradient", fn, vars)
    _require_valid(order, rtol, atol, seed)
    require_eager(call)
    once, places = _once(call)
    weighted: list[str] = []
    with ONE_AT_A_TIME, variable_scope_kept(), draws_kept(), undisturbed(), all_variables_kept():
        for number, each in enumerate((once, second_order(once, seed))[: int(order)], 1):
            found = compare(each, rtol=rtol, atol=atol, seed=seed, progress=progress)
            checks = tuple(source_check(found, place, name) for place, name in zip(places, call.names, strict=True))
            if found.tape.weighted:
                weighted.append("the gradient" if number == 2 else "the result of fn")
            result = GradientCheck(checks, number, tuple(weighted))
            if not result:
                break
    return result


def _require_valid(order: int, rtol: float | None, atol: float | None, seed: int) -> None:
    """Raise a ValueError for an option that is out of range."""
    if order not in (1, 2):
        raise ValueError(f"check_gradient: order is {order!r}. It is 1 (the gradient) or 2 (its gradient as well).")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not (isinstance(value, Real) and value >= 0):
            raise ValueError(f"check_gradient: {name} is {value!r}. A number from 0 on is needed. Write {name}=1e-4.")
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"check_gradient: seed is {seed!r}. A whole number is needed, 0 or more. Write seed=0.")


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
