"""Is this gradient right? The tape against differences of the function's own values, with a verdict per source.

`check_gradient` asks `tf.GradientTape` for the gradient under a random cotangent, measures the slopes of `fn` with
their uncertainty (`_differences`), and says which of five things is true:

- ``pass``: they agree;
- ``fail``: they differ by more than the tolerance and more than the uncertainty;
- ``kink``: there is no slope to agree with, left and right differ;
- ``nondeterministic``: `fn` gives something else every time;
- ``inconclusive``: the uncertainty hides the answer.

>>> x = tf.constant([1.0, 2.0])
>>> check_gradient(lambda x: tf.reduce_sum(x**3), x).verdict
'pass'
>>> check_gradient(lambda x: x * tf.stop_gradient(x), x)["x"].cause
'off by a factor of 0.500'
"""

import contextlib
import dataclasses
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit._differences import Lines, Slopes, dense, epsilon, float_outputs, ladder, real
from tapekit._sources import Call, as_variable, bind, describe

ONE_BY_ONE = 2048  # elements up to which each is checked by itself; more are checked in blocks, and a bad block opened
WIDTH = 128  # elements of a block, at least: one wrong among so many is still plain
CROWD = 1024  # of more elements, float32 cannot see one: a block of them is judged by its sum
EVALUATED = 1e8  # coordinates that all blocks together may copy: the larger the point, the fewer and wider the blocks
BATCH = 256  # doubtful lines looked at again at a time
OPENED = 16  # doubtful blocks opened: enough to name a wrong element of each source
SURE = 20.0  # the error estimate is an estimate: over 500 functions, 20 of it separated right from wrong best
RTOL = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 3e-4, "float64": 1e-7}  # right gradients are off by less
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
    steps: tuple = ()
    differences: tuple = ()

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
        return {source.name: source for source in self.sources}[name]

    def raise_if_failed(self) -> None:
        """Raise an AssertionError with the table unless every source passed."""
        if not self:
            raise AssertionError(f"check_gradient: {self.verdict}\n{self}")

    def __str__(self) -> str:
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
        return "\n".join([*lines, *(f"{each.name}{order}: {each.cause}" for each in self if each.cause)])


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

    The tape gives the gradient under a random cotangent, in the caller's dtype. The differences are taken in float64
    where `fn` is the same function there, and know their own uncertainty. Up to 2,048 elements (a complex one counts
    twice) each is checked by itself; beyond that, blocks of elements move together, and a block that fails is opened
    until the wrong element is found.

    Args:
        fn: the function, called by the one rule of tapekit; it returns any float or complex tensors.
        vars: what to differentiate by: tensors, variables, arrays, numbers, of any shape, in any structure.
        order: 2 checks the gradient of the gradient as well.
        rtol: relative error allowed; default by dtype: 1e-7 (float64), 3e-4 (float32), 2e-2 (float16), 1e-1 (bfloat16).
        atol: absolute error allowed on top, default 0: what is small is checked as strictly as what is large.
        seed: of the cotangent and the directions.
        progress: show a progress bar.

    Returns:
        A `GradientCheck`: print it. `fn` is called a few times, and every variable is left as it was.

    Raises:
        TypeError: if `fn` returns no float tensor, or a source is not one.
        ValueError: if `fn` takes nothing and closes over a tensor, which cannot be moved.
        RuntimeError: inside a `tf.function`.

    Example:
        >>> print(check_gradient(lambda x: tf.reduce_sum(tf.abs(x)), tf.constant([0.0, 2.0]))["x"].cause)
        kink: the slope is -1 on the left and 1 on the right

    Source: Press et al., Numerical Recipes, section 5.7; the random cotangent as in autograd's `check_vjp`.
    """
    call = bind("check_gradient", fn, vars)
    if order not in (1, 2):
        raise ValueError(f"check_gradient: order is {order!r}. It is 1 (the gradient) or 2 (its gradient as well).")
    if not tf.executing_eagerly():
        raise RuntimeError(
            "check_gradient: called inside a tf.function. It needs numbers, not a graph. Call it outside; fn may be "
            "the tf.function."
        )
    for name, source in zip(call.names, call.sources, strict=True):
        if not call.takes_vars and not isinstance(source, tf.Variable):
            raise ValueError(
                f"check_gradient: source {name!r} is {describe(source)} that fn closes over. To be checked it must be "
                "moved. Let fn take it: check_gradient(lambda x: ..., x), or make it a tf.Variable."
            )
    if call.takes_vars:  # one tensor given twice is two sources here: each of its gradients is one partial derivative
        apart = [tf.identity(leaf) if isinstance(leaf, tf.Tensor) else leaf for leaf in call.leaves]
        sources = [
            new if old is source else source for new, old, source in zip(apart, call.leaves, call.sources, strict=True)
        ]
        call = dataclasses.replace(call, leaves=apart, sources=sources)
    with _put_back(call):
        for number, each in enumerate((call, _differentiated(call, seed))[:order], 1):
            check = _Check(each, rtol, atol or 0.0, seed, progress)
            result = GradientCheck(tuple(check.source(i, name) for i, name in enumerate(call.names)), number)
            if not result:
                break
    return result


class _Check:
    """One order of one function: the tape's side, the lines, the verdict on each line, the words for each source.

    ``rows`` holds what is known so far: (start, width) of a line -> its slopes.
    """

    def __init__(self, call: Call, rtol: float | None, atol: float, seed: int, progress: bool):
        self.call, self.atol, self.seed, self.raises = call, atol, seed, ""
        self.outputs, self.raw = self._tape(1.0)
        again, doubled = self._tape(-2.0)  # -2 is exact in binary: a gradient linear in its cotangent follows exactly
        self.linear = [_same(None if g is None else -2 * tensor(g), h) for g, h in zip(self.raw, doubled, strict=True)]
        self.random = not all(map(_same, self.outputs, again))
        if not all(self.linear):
            self.random |= not all(map(_same, self.raw, self._tape(1.0)[1]))
        # the cotangent of a scalar is divided out again: the numbers are those that one expects to read
        scalar = len(self.outputs) == 1 and not self.outputs[0].shape.rank and not self.outputs[0].dtype.is_complex
        self.scale = self.cotangents[0] if scalar else 1.0
        self.gradient, self.doubled = self._vector(self.raw), self._vector(doubled)
        self.eps = max(epsilon(each.dtype) for each in (*call.sources, *self.outputs))
        self.rows: dict[tuple[int, int], Slopes] = {}
        if not (self.random or self.raises):
            self.lines = self._lines(progress)
            self.eps = max(self.eps, self.lines.eps)
            self.rtol = max(r for name, r in RTOL.items() if epsilon(name) <= self.eps) if rtol is None else rtol
            parts = np.split(np.abs(self.lines.gradient), self.lines.ends[:-1])
            self.peaks = np.array([part.max(initial=0.0) for part in parts])
            self._measure()

    def _tape(self, factor: float | None) -> tuple[list, list]:
        """The outputs, and the gradients under factor * cotangent, or (None) of the plain sum of the outputs."""
        sources = [dense(source) for source in self.call.sources]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            outputs = float_outputs(self.call)
        if not outputs:
            raise TypeError(
                f"check_gradient: fn returned {describe(self.call())}. Only float and complex tensors have gradients. "
                "Return the tensor to differentiate: end fn with return loss."
            )
        self.cotangents = _cotangents(outputs, self.seed)
        upstream = [tf.ones_like(c) if factor is None else tf.cast(factor, c.dtype) * c for c in self.cotangents]
        try:
            return outputs, tape.gradient(outputs, sources, upstream)
        except Exception as error:
            self.raises = f"the gradient raises {type(error).__name__}: {str(error).splitlines()[0][:160]}"
            return outputs, [None] * len(sources)

    def _vector(self, gradients: Sequence) -> np.ndarray:
        """All gradients as one real vector; zeros where there is none, or none that fits."""
        parts = []
        for gradient, source in zip(gradients, self.call.sources, strict=True):
            like = dense(source)
            fits = gradient is not None and tensor(gradient).shape == like.shape
            parts.append(real(tensor(gradient) if fits else tf.zeros_like(like)))
        return (tf.concat(parts, 0) / tf.cast(self.scale, tf.float64)).numpy()

    def _lines(self, progress: bool) -> Lines:
        """`fn` on lines: in float64 and in a graph, as far as it is the same function there."""
        for wide, graph in ((True, True), (False, True), (True, False), (False, False)):
            if wide and not self.call.takes_vars:
                continue
            with contextlib.suppress(*(() if (wide, graph) == (False, False) else (Exception,))):
                lines = Lines(
                    self.call, self.outputs, [c / self.scale for c in self.cotangents], self.gradient,
                    wide=wide, graph=graph, seed=self.seed, progress=progress,
                )  # fmt: skip
                self.fine = self._gradient_in(lines) if wide else None
                if lines.agrees(self.outputs) and (not wide or self._used()):
                    return lines
        return lines

    def _gradient_in(self, lines: Lines) -> list | None:
        """The tape's gradients in float64; None where it cannot go there."""
        leaves = lines.leaves(lines.point)
        with contextlib.suppress(Exception), tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([dense(leaf) for leaf in leaves])
            outputs = float_outputs(self.call, leaves)
            upstream = [tf.cast(c, y.dtype) for c, y in zip(self.cotangents, outputs, strict=True)]
            with tape.stop_recording():
                return tape.gradient(outputs, [dense(leaf) for leaf in leaves], upstream)
        return None

    def _used(self) -> bool:
        """Whether `fn` uses the float64 tensors given to it, and not the variables that they stand for."""
        if all(as_variable(leaf) is None for leaf in self.call.leaves):
            return True
        return self.fine is not None and all(
            a is not None for a, b in zip(self.fine, self.raw, strict=True) if b is not None
        )

    def _measure(self) -> None:
        """A quick look along every line; all steps where it leaves a doubt, and at each source's worst element."""
        total = len(self.gradient)
        starts, widths = np.arange(total), np.ones(total, int)
        if total > (ONE_BY_ONE if self.lines.graph else ONE_BY_ONE // 8):
            count = min(total // WIDTH, max(4, int(EVALUATED / total))) if self.lines.graph else 32
            starts = np.linspace(0, total, count, endpoint=False).astype(int)
            if count >= 4 * len(self.call.sources):
                starts = np.union1d(starts, self.lines.ends[:-1])
            widths = np.diff(starts, append=total)
        if total == 0:
            return
        self._look(list(zip(starts.tolist(), widths.tolist(), strict=True)), quick=True)
        doubtful = [key for key in self.rows if self._judge(key)[0] != "pass"]
        doubtful.sort(key=lambda key: -self._judge(key)[1])
        worst = [
            max(mine, key=lambda k: self._judge(k)[1]) for i in range(len(self.raw)) if (mine := self._touching(i))
        ]
        todo = list(dict.fromkeys([*doubtful, *(key for key in worst if key[1] == 1)]))
        for begin in range(0, min(len(todo), 16 * BATCH), BATCH):
            batch = todo[begin : begin + BATCH]
            self._look(batch)
            if all(self._judge(key)[0] == "pass" for key in batch):
                break  # what follows was in less doubt
        for key in doubtful[:OPENED]:
            self._open(key)

    def _look(self, keys: list[tuple[int, int]], quick: bool = False) -> None:
        starts, widths = np.transpose(keys)
        slopes = ladder(self.lines, starts, widths, quick=quick)
        self.rows.update((key, Slopes(*row)) for key, row in zip(keys, zip(*slopes, strict=True), strict=True))

    def _open(self, block: tuple[int, int]) -> None:
        """Halve a block that fails, and its worst part again, until the wrong element is found."""
        parts = [block]
        for _ in range(64):
            start, width = worst = max(parts, key=lambda key: self._judge(key)[1])
            if self._judge(worst)[0] != "fail" or width == 1:
                return
            cuts = [int(end) for end in self.lines.ends if start < end < start + width] or [start + width // 2]
            edges = [start, *cuts, start + width]
            halves = [(a, b - a) for a, b in itertools.pairwise(edges)]
            self._look(halves)
            del self.rows[worst]
            parts = [*(key for key in parts if key != worst), *halves]

    def _judge(self, key: tuple[int, int], sure: bool = False) -> tuple[str, float]:
        """The verdict on one line, and how far from agreement it is.

        One wrong element must not drown in the sum over a block: a block is held to the size of one of its elements,
        and opened if it fails; unless it is to be `sure`, then to the size of all.
        """
        row = self.rows[key]
        a, n, u = row.analytic, row.numeric, row.uncertainty
        if row.kink or row.diverges:
            low, high = np.sort([row.left, row.right])
            slack = 10 * self.rtol * max(abs(low), abs(high)) + self.atol
            subgradient = low - slack <= a <= high + slack or row.diverges or not row.finite
            return ("kink" if subgradient else "fail"), math.inf
        if not row.finite:
            return ("fail" if math.isfinite(n) else "inconclusive"), math.inf
        if not math.isfinite(u):
            return "inconclusive", 1e6
        scale, error = max(abs(a), abs(n)), abs(a - n)
        held = scale if key[1] == 1 else max(scale, row.norm) if sure else row.norm / math.sqrt(key[1])
        allowed = self.rtol * held + self.atol
        doubt = error / (allowed + 4 * u + 1e-300)
        zero = abs(n) <= SURE * u and abs(a) <= self.eps * self.peaks.max()
        seen = held if key[1] <= CROWD else scale
        explained = error <= 4 * u and SURE * u <= max(
            0.1 * seen, 0.01 * self.peaks[np.searchsorted(self.lines.ends, key[0], side="right")]
        )
        if error <= allowed or zero or explained or self._rounded(key, row):
            return "pass", doubt
        return ("fail" if error > SURE * u else "inconclusive"), 10 + doubt

    def _rounded(self, key: tuple[int, int], row: Slopes) -> bool:
        """Whether the tape is right in float64, and off by its own rounding in the caller's dtype."""
        if self.fine is None or key[1] > 1:
            return False
        fine = self._vector(self.fine)[key[0]]
        right = abs(fine - row.numeric) <= SURE * row.uncertainty + RTOL["float64"] * abs(row.numeric)
        size = max(self.peaks.max(), self.lines.height / abs(self.lines.unit[key[0]]))
        return right and abs(row.analytic - fine) <= 16 * self.eps * size

    def _touching(self, index: int) -> list[tuple[int, int]]:
        """The lines that touch source number `index`."""
        low, high = (int(end) for end in np.append(0, self.lines.ends)[index : index + 2])
        return [key for key in self.rows if key[0] < high and sum(key) > low]

    def source(self, index: int, name: str) -> SourceCheck:
        """The verdict on source number `index`, with the words."""
        if self.random:
            cause = "random: fn gives another value or gradient at every call; fix its seed, or freeze its state"
            return SourceCheck(name, "nondeterministic", cause)
        if self.raises:
            return SourceCheck(name, "fail", self.raises)
        source, raw, keys = dense(self.call.sources[index]), self.raw[index], self._touching(index)
        parts = 2 if source.dtype.is_complex else 1
        size = self.lines.sizes[index] // parts
        blocks = sum(key[1] > 1 for key in keys)
        checked = f"{size} of {size} elements" + (f" in {blocks} blocks" if blocks else "")
        if raw is not None and tensor(raw).shape != source.shape:
            cause = f"wrong shape: the gradient is {tuple(tensor(raw).shape)}, the source {tuple(source.shape)}"
            return SourceCheck(name, "fail", cause, checked=checked)
        if not keys:
            return SourceCheck(name, "pass", "", checked=checked)
        verdicts = {key: self._judge(key, sure=True) for key in keys}
        # the gravest, of these the best measured, of these the most doubtful
        worst = max(keys, key=lambda k: (ORDER.index(verdicts[k][0]), len(self.rows[k].steps), verdicts[k][1]))
        verdict, row = verdicts[worst][0], self.rows[worst]
        cause = "" if verdict == "pass" else self._cause(index, worst, verdict)
        if verdict in ("pass", "inconclusive") and not self.linear[index]:
            verdict, cause = "fail", self._upstream(worst)
        at = max(worst[0] - int(self.lines.ends[index]) + self.lines.sizes[index], 0) // parts
        return SourceCheck(
            name, verdict, cause, tuple(map(int, np.unravel_index(at, source.shape))) if source.shape.rank else (),
            float(row.analytic) if row.finite else float(np.sum(self.gradient[worst[0] : sum(worst)])),
            float(row.numeric), float(row.uncertainty), checked, float(row.step),
            tuple(row.steps.tolist()), tuple(row.curve.tolist()),
        )  # fmt: skip

    def _cause(self, index: int, key: tuple[int, int], verdict: str) -> str:
        """What is wrong, in words, from the numbers on the line `key`."""
        row = self.rows[key]
        if row.diverges:
            return "kink: the slope grows without bound as the step shrinks (a jump, or a vertical tangent)"
        if row.kink:
            return f"kink: the slope is {row.left + 0:.4g} on the left and {row.right + 0:.4g} on the right" + (
                "" if verdict == "kink" else f"; the gradient is not between them, it is {row.analytic:.4g}"
            )
        if not math.isfinite(row.numeric):
            return "fn is not finite here, or raises, on both sides: there is nothing to compare with"
        slope = f"the slope is {row.numeric:.6g}"
        if verdict == "inconclusive":
            dtype = next(name for name in RTOL if epsilon(name) == self.lines.eps)
            return f"too noisy to tell in {dtype}: {slope}, give or take {SURE * row.uncertainty:.2g}"
        if self.raw[index] is None:
            return f"missing: the gradient is None, {slope}"
        if not row.finite:
            return f"the gradient is {self.gradient[key[0] : sum(key)].sum()}, {slope}"
        if not self.linear[index]:
            return self._upstream(key)
        failing = [k for k in self._touching(index) if self._judge(k, sure=True)[0] == "fail" and not self.rows[k].kink]
        ratios = [float(self.rows[k].analytic / self.rows[k].numeric) for k in failing if self.rows[k].numeric]
        if not row.analytic:
            return f"missing: the gradient is 0 where {slope}"
        if key[1] == 1 and sum(int(tf.size(y)) for y in self.outputs) > 1:
            summed = self._vector(self._tape(None)[1])[key[0]]
            if abs(summed - row.for_sum) <= self.rtol * abs(summed):
                return "right for the sum of the outputs, wrong per output: the upstream gradient is mixed up"
        if ratios and max(ratios) - min(ratios) <= 0.01 * abs(ratios[0]):
            factor = float(np.median(ratios))
            return "sign flipped" if abs(factor + 1) < 1e-3 else f"off by a factor of {_factor(factor)}"
        return f"off by {abs(row.analytic - row.numeric) / max(abs(row.analytic), abs(row.numeric)):.2%}"

    def _upstream(self, key: tuple[int, int]) -> str:
        once, doubled = (g[key[0] : sum(key)] for g in (self.gradient, self.doubled))
        for factor, words in ((1, "ignored"), (4, "applied twice")):
            if np.linalg.norm(doubled - factor * once) < 0.01 * np.linalg.norm(once):
                return f"the upstream gradient is {words}"
        return "the gradient is not linear in the upstream gradient"


def _factor(factor: float) -> str:
    return f"{factor:.3f}" if abs(factor - 1) > 2e-3 and abs(factor) > 0.01 else f"{factor:.6g}"


def _differentiated(call: Call, seed: int) -> Call:
    """The gradient of `call` under a fixed cotangent, itself a function by the same calling rule."""

    def slope(*args, **kwargs):
        leaves = tf.nest.flatten(kwargs or args) if call.takes_vars else call.leaves
        sources = [dense(leaf if (variable := as_variable(leaf)) is None else variable) for leaf in leaves]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            outputs = float_outputs(call, leaves)
        gradients = tape.gradient(outputs, sources, _cotangents(outputs, seed + 1))
        return [tensor(g) for g in gradients if g is not None] or [tf.zeros([])]

    return dataclasses.replace(call, fn=slope)


@contextlib.contextmanager
def _put_back(call: Call) -> Iterator[None]:
    """Whatever happens inside, every variable that `fn` touches is afterwards bit for bit what it was."""

    def look() -> tf.Tensor:
        with contextlib.suppress(Exception):  # as far as a graph can follow
            call()
        return tf.zeros([])

    found = list(tf.function(look, autograph=False).get_concrete_function().variables)
    with contextlib.suppress(TypeError):  # and what a Python function closes over, where it cannot
        held = inspect.getclosurevars(call.fn)
        for value in (*held.nonlocals.values(), *held.globals.values()):
            found += [value] if isinstance(value, tf.Variable) else getattr(value, "variables", None) or []
    variables = [as_variable(each) for each in (*found, *call.leaves)]
    saved = [(variable, tf.identity(variable)) for variable in variables if variable is not None]
    try:
        yield
    finally:
        for variable, value in saved:
            variable.assign(value)


def _cotangents(outputs: Sequence, seed: int) -> list[tf.Tensor]:
    """Random and never 1: of both signs, of sizes from 0.5 to 1.5, in the dtype of the outputs."""
    rng, cotangents = np.random.default_rng(seed), []
    for y in outputs:
        shape = tuple(y.shape)
        draw = [rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape) for _ in range(2)]
        cotangents.append(tf.cast(draw[0] + 1j * draw[1] if y.dtype.is_complex else draw[0], y.dtype))
    return cotangents


def tensor(gradient: Any) -> tf.Tensor:
    """A gradient as one dense tensor: repeated rows of `tf.IndexedSlices` added, a ragged one by its values."""
    return tf.convert_to_tensor(dense(gradient))


def _same(first: Any, second: Any) -> bool:
    """Whether two calls gave the same, but for the order in which threads add."""
    if first is None or second is None:
        return first is second
    a, b = (real(tensor(each)).numpy() for each in (first, second))
    size = np.max(np.abs(a), initial=0.0, where=np.isfinite(a))
    return a.shape == b.shape and np.allclose(a, b, rtol=0, atol=16 * epsilon(first.dtype) * size, equal_nan=True)
