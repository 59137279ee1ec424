"""Is this gradient right? The tape against differences of the function's own values, with a verdict per source.

`check_gradient` holds `tf.GradientTape` under a random cotangent against measured slopes and their uncertainty. Either
they agree (``pass``), or differ by more than tolerance and uncertainty (``fail``), or there is no slope, for left and
right differ, or it grows without bound (``kink``), or `fn` gives something else every time (``nondeterministic``), or
the uncertainty hides the answer (``inconclusive``).

>>> x = tf.constant([1.0, 2.0])
>>> check_gradient(lambda x: tf.reduce_sum(x**3), x).verdict
'pass'
>>> check_gradient(lambda x: x * tf.stop_gradient(x), x)["x"].cause
'off by a factor of 0.500'
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit._names import place_of
from tapekit._sources import Call, bind, values_of
from tapekit.checking.comparison import RTOL, SURE, Comparison, differentiated, tensor
from tapekit.checking.float64 import epsilon
from tapekit.graphs.capture import outside_of_graphs, outside_of_scopes
from tapekit.graphs.state import all_variables_kept, draws_kept, undisturbed, variables_kept
from tapekit.jacobians import variable_scope_kept

ORDER = ("pass", "inconclusive", "kink", "fail", "nondeterministic")  # the last that occurs is the verdict of the whole


@dataclasses.dataclass(frozen=True)
class SourceCheck:
    """The verdict on one source, and the numbers at its worst element.

    ``index`` is that element (of a block, its first; a complex one is two, real and imaginary part). ``analytic`` is
    the tape's gradient, of a `fn` that is not scalar under the random cotangent; ``numeric`` +- ``uncertainty`` is that
    of the differences, measured best at ``step``. ``differences`` are the central ones at each of ``steps``, for
    `tapekit.plot_check`.
    """

    name: str
    verdict: str
    cause: str
    index: tuple | None = None
    analytic: float = math.nan
    numeric: float = math.nan
    uncertainty: float = math.nan
    checked: str = "nothing"
    step: float = math.nan
    steps: tuple = dataclasses.field(default=(), repr=False)
    differences: tuple = dataclasses.field(default=(), repr=False)

    @property
    def abs_error(self) -> float:
        return abs(self.analytic - self.numeric)

    @property
    def rel_error(self) -> float:
        """|a - n| / max(|a|, |n|), and 0 if both are 0."""
        return self.abs_error / (max(abs(self.analytic), abs(self.numeric)) or 1.0)


@dataclasses.dataclass(frozen=True)
class GradientCheck:
    """One `SourceCheck` per source, in order; true only if all of them pass."""

    sources: tuple[SourceCheck, ...]
    order: int = 1
    weighted: bool = False  # by a random cotangent, as fn gives more than one number

    @property
    def verdict(self) -> str:
        return max((source.verdict for source in self.sources), key=ORDER.index)

    def __bool__(self) -> bool:
        return self.verdict == "pass"

    def __iter__(self) -> Iterator[SourceCheck]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, name: str) -> SourceCheck:
        """The check of the source of that name, or whose Keras path ends with it."""
        return self.sources[place_of("GradientCheck", [source.name for source in self.sources], name)]

    def raise_if_failed(self) -> None:
        """Raise an AssertionError with the table unless every source passed."""
        if not self:
            raise AssertionError(f"check_gradient: {self.verdict}\n{self}")

    def __repr__(self) -> str:
        """The table: a line per source with its worst element, then every cause in words."""
        wide = max(len(each.verdict) for each in [*self, self]) + 2
        labels = [each.name + (f"{list(each.index)}" if each.index else "") for each in self]
        width = max(len(label) for label in [*labels, "source"])
        title = f"{'tape':>13} {'differences':>13} {'+-':>8} {'rel. error':>10}  checked"
        lines = [f"{'source':<{width}}  {'verdict':<{wide}}{title}"]
        for label, each in zip(labels, self, strict=True):
            numbers = f"{each.analytic:>13.6g} {each.numeric:>13.6g} {each.uncertainty:>8.1e} {each.rel_error:>10.1e}"
            lines.append(f"{label:<{width}}  {each.verdict:<{wide}}{numbers}  {each.checked}")
        order = "" if self.order == 1 else ", second order"
        lines += [f"{each.name}{order}: {each.cause}" for each in self if each.cause]
        what = "the gradient has" if self.order == 2 else "fn gives"
        note = f"({what} several numbers: the slopes are those of their sum with random weights.)"
        return "\n".join([*lines, note] if self.weighted else lines)


def check_gradient(
    fn: Callable,
    vars: Any,
    /,
    *,
    order: int = 1,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> GradientCheck:
    """Compare the gradient of `fn` with differences of its own values, and say which is right.

    The tape gives the gradient of the outputs' sum with random weights (a random cotangent), in the caller's dtype; the
    differences are taken in float64 where `fn` is the same function there. Up to 2,048 elements (256 where `fn` cannot
    be a graph; a complex one counts twice) each is checked by itself; beyond that blocks of elements move together, and
    a block that fails is opened until the wrong element is found.

    Args:
        fn: the function; called as `tapekit.gradient` calls it. It returns any float or complex tensors.
        vars: what to differentiate by: tensors, variables, arrays, numbers, of any shape, in any structure.
        order: 2 checks the gradient of the gradient as well.
        rtol: relative error allowed; default by dtype: 1e-7 (float64), 3e-4 (float32), 2e-2 (float16), 1e-1 (bfloat16).
        atol: absolute error allowed on top, default 0: what is small is checked as strictly as what is large.
        seed: of the cotangent and the directions.
        progress: show a progress bar.

    Returns:
        A `GradientCheck`: print it. `fn` is traced, and where it cannot be, called for every difference; every variable
        is left as it was.

    Raises:
        TypeError: if `fn` returns no float tensor, or a source is not one.
        ValueError: `order`, `seed`, `rtol` or `atol` is out of range, or `vars` empty; or `fn` closes over a tensor and
            cannot be traced to a graph, in which alone it can be moved.
        RuntimeError: inside a `tf.function`, or a strategy's scope.

    Example:
        >>> print(check_gradient(lambda x: tf.reduce_sum(tf.abs(x)), tf.constant([0.0, 2.0]))["x"].cause)
        kink: the slope is -1 on the left and 1 on the right

    Source: Press et al., Numerical Recipes, section 5.7; the random cotangent as in autograd's `check_vjp`.
    """
    call = bind("check_gradient", fn, vars)
    if order not in (1, 2):
        raise ValueError(f"check_gradient: order is {order!r}. It is 1 (the gradient) or 2 (its gradient as well).")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not value >= 0:
            raise ValueError(f"check_gradient: {name} is {value!r}. A number from 0 on is needed. Write {name}=1e-4.")
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"check_gradient: seed is {seed!r}. A whole number is needed, 0 or more. Write seed=0.")
    outside_of_graphs("check_gradient")
    outside_of_scopes(call)
    once, places = _once(call)
    with variable_scope_kept(), draws_kept(), undisturbed(), _put_back(call):
        for number, each in enumerate((once, differentiated(once, seed))[: int(order)], 1):
            found = Comparison(each, rtol=rtol, atol=atol, seed=seed, progress=progress)
            checks = tuple(map(_source, [found] * len(places), places, call.names))
            result = GradientCheck(checks, number, found.weighted)
            if not result:
                break
    return result


def _once(call: Call) -> tuple[Call, list[int]]:
    """`call` with every source once, and the place of each there: given twice, it moves in both places together."""
    few = {id(source): (leaf, source) for leaf, source in zip(call.leaves, call.sources, strict=True)}
    leaves, sources = map(list, zip(*few.values(), strict=True))
    order = {key: place for place, key in enumerate(few)}
    places = [order[id(source)] for source in call.sources]

    def fn(*given: Any) -> Any:
        return call([given[place] for place in places])

    if not call.takes_vars:
        return dataclasses.replace(call, leaves=leaves, sources=sources), places
    return dataclasses.replace(call, fn=fn, vars=leaves, leaves=leaves, sources=sources), places


def _source(found: Comparison, index: int, name: str) -> SourceCheck:
    """The verdict on source number `index`, with the words."""
    if found.random:
        cause = "random: fn gives another value or gradient at every call; fix its seed, or freeze its state"
        return SourceCheck(name, "nondeterministic", cause)
    if found.raises:
        return SourceCheck(name, "fail", found.raises)
    source, raw, keys = values_of(found.call.sources[index]), found.raw[index], found.touching(index)
    parts = 2 if source.dtype.is_complex else 1
    size = found.lines.sizes[index] // parts
    blocks = sum(key[1] > 1 for key in keys)
    checked = f"{size} of {size} elements" + (f" in {blocks} blocks" if blocks else "")
    if raw is not None and tensor(raw).shape != source.shape:
        cause = f"wrong shape: the gradient is {tuple(tensor(raw).shape)}, the source {tuple(source.shape)}"
        return SourceCheck(name, "fail", cause, checked=checked)
    if not keys:
        return SourceCheck(name, "pass", "", checked=checked)
    verdicts = {key: found.judge(key, sure=True) for key in keys}
    # the gravest, of these the best measured, of these the most doubtful
    worst = max(keys, key=lambda k: (ORDER.index(verdicts[k][0]), len(found.rows[k].steps), verdicts[k][1]))
    verdict, row = verdicts[worst][0], found.rows[worst]
    cause = "" if verdict == "pass" else _cause(found, index, worst, verdict)
    if verdict in ("pass", "inconclusive") and not found.linear[index]:
        verdict, cause = "fail", _upstream(found, worst)
    at = max(worst[0] - int(found.lines.ends[index]) + found.lines.sizes[index], 0) // parts
    return SourceCheck(
        name, verdict, cause, tuple(map(int, np.unravel_index(at, source.shape))) if source.shape.rank else (),
        float(row.analytic) if row.finite else float(np.sum(found.gradient[worst[0] : sum(worst)])),
        float(row.numeric), float(row.uncertainty), checked, float(row.step),
        tuple(row.steps.tolist()), tuple(row.curve.tolist()),
    )  # fmt: skip


def _cause(found: Comparison, index: int, key: tuple[int, int], verdict: str) -> str:
    """What is wrong, in words, from the numbers on the line `key`."""
    row = found.rows[key]
    if row.diverges:
        return "kink: the slope grows without bound as the step shrinks (a jump, or a vertical tangent)"
    if found.kink(row):
        return f"kink: the slope is {row.left + 0:.4g} on the left and {row.right + 0:.4g} on the right" + (
            "" if verdict == "kink" else f"; the gradient is not between them, it is {row.analytic:.4g}"
        )
    if not math.isfinite(row.numeric):
        return "fn is not finite here, or raises, on both sides: there is nothing to compare with"
    slope = f"the slope is {row.numeric:.6g}"
    if not row.finite:
        return f"the gradient is {found.gradient[key[0] : sum(key)].sum()}, {slope}"
    if verdict == "inconclusive" and found.right_in_float64(key):
        return f"right in float64, lost to rounding in the dtype of the source: it is {row.analytic:.6g}, {slope}"
    if verdict == "inconclusive":
        dtype = next(name for name in RTOL if epsilon(name) == found.lines.eps)
        return f"too noisy to tell in {dtype}: {slope}, give or take {SURE * row.uncertainty:.2g}"
    if found.raw[index] is None:
        return f"missing: the gradient is None, {slope}"
    if not found.linear[index]:
        return _upstream(found, key)
    if not row.analytic:
        return f"missing: the gradient is 0 where {slope}"
    if found.call.sources[index].dtype.is_complex and _conjugated(found, index, key):
        return "right in size, wrong in phase: a conjugate is missing"
    if key[1] == 1 and sum(int(tf.size(y)) for y in found.outputs) > 1:
        summed = found.sum_gradient()[key[0]]
        if abs(summed - row.for_sum) <= found.rtol * abs(summed):
            return "right for the sum of the outputs, wrong per output: the upstream gradient is mixed up"
    failing = [found.rows[k] for k in found.touching(index) if found.judge(k, sure=True)[0] == "fail"]
    ratios = [float(each.analytic / each.numeric) for each in failing if each.numeric and not found.kink(each)]
    if ratios and max(ratios) - min(ratios) <= 0.01 * abs(ratios[0]):
        factor = float(np.median(ratios))
        shown = f"{factor:.3f}" if abs(factor - 1) > 2e-3 and abs(factor) > 0.01 else f"{factor:.6g}"
        return "sign flipped" if abs(factor + 1) < 1e-3 else f"off by a factor of {shown}"
    return f"off by {abs(row.analytic - row.numeric) / max(abs(row.analytic), abs(row.numeric)):.2%}"


def _conjugated(found: Comparison, index: int, key: tuple[int, int]) -> bool:
    """Whether a complex element, of which `key` is one part, has the right absolute value and another phase."""
    start = key[0] - int(found.lines.ends[index] - key[0]) % 2
    parts = [found.rows[each] for each in ((start, 1), (start + 1, 1)) if each in found.rows]
    tape, slope = ([getattr(part, side) for part in parts] for side in ("analytic", "numeric"))
    flipped = np.allclose(tape, np.negative(slope), rtol=1e-2)
    return len(parts) == 2 and not flipped and math.isclose(math.hypot(*tape), math.hypot(*slope), rel_tol=found.rtol)


def _upstream(found: Comparison, key: tuple[int, int]) -> str:
    once, doubled = (g[key[0] : sum(key)] for g in (found.gradient, found.doubled))
    for factor, words in ((1, "ignored"), (4, "applied twice")):
        if np.linalg.norm(doubled - factor * once) < 0.01 * np.linalg.norm(once):
            return f"the upstream gradient is {words}"
    return "the gradient is not linear in the upstream gradient"


@contextlib.contextmanager
def _put_back(call: Call) -> Iterator[None]:
    """Whatever happens inside, every variable that `fn` touches is afterwards bit for bit what it was."""

    lost: list[Exception] = []

    def look() -> tf.Tensor:
        try:  # as far as a graph can follow
            call()
        except Exception as error:
            lost.append(error)
        return tf.zeros([])

    sources = [source for source in call.sources if isinstance(source, tf.Variable)]
    graph = tf.function(look, autograph=False).get_concrete_function()
    with variables_kept(graph, sources), all_variables_kept() if lost else contextlib.nullcontext():
        yield
