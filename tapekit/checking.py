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
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit._differences import Lines, Slopes, dense, epsilon, float_outputs, ladder, real
from tapekit._sources import Call, as_variable, bind, describe

ONE_BY_ONE = 2048  # elements up to which each is checked by itself; more are checked in blocks, and a bad block opened
EVALUATED = 2e8  # coordinates that the blocks move in all: the larger the point, the fewer and wider the blocks
SURE = 20.0  # the error estimate is an estimate: over 500 functions, 20 of it separated right from wrong best
RTOL = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 3e-4, "float64": 1e-7}  # right gradients are off by less
ORDER = ("pass", "inconclusive", "kink", "fail", "nondeterministic")  # the last that occurs is the verdict of the whole


@dataclasses.dataclass(frozen=True)
class SourceCheck:
    """The verdict on one source, and the numbers at its worst element (or block: then ``index`` is where it begins)."""

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

    def __str__(self) -> str:
        at = "" if self.index is None else f"{list(self.index)}"
        numbers = f"{self.analytic:>13.6g} {self.numeric:>13.6g} {self.uncertainty:>8.1e} {self.rel_error:>8.1e}"
        return f"{self.name + at:<24} {self.verdict:<16} {numbers}  {self.checked}"


@dataclasses.dataclass(frozen=True)
class GradientCheck:
    """One `SourceCheck` per source, in order; true only if all of them pass."""

    sources: tuple[SourceCheck, ...]

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
        """Raises: AssertionError with the table, unless every source passed."""
        if not self:
            raise AssertionError(f"check_gradient: {self.verdict}\n{self}")

    def __str__(self) -> str:
        title = f"{'source':<24} {'verdict':<16} {'tape':>13} {'differences':>13} {'+-':>8} {'rel':>8}  checked"
        causes = [f"{source.name}: {source.cause}" for source in self.sources if source.cause]
        return "\n".join([title, *map(str, self.sources), *causes])


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
    """Compare the gradient of `fn` with differences of its values."""
    call = bind("check_gradient", fn, vars)
    if order not in (1, 2):
        raise ValueError(f"check_gradient: order is {order!r}. It is 1 (the gradient) or 2 (the gradient of it, too).")
    with _put_back(call):
        check = _Check(call, rtol, atol, seed, progress).result()
        if order == 1 or not check:
            return check
        return _Check(_differentiated(call, seed), rtol, atol, seed, progress).result()


class _Check:
    """One order of one function: the tape's side, then the lines, then the words."""

    def __init__(self, call: Call, rtol: float | None, atol: float | None, seed: int, progress: bool):
        self.call, self.atol, self.seed, self.progress = call, atol or 0.0, seed, progress
        self.raises = ""
        self.outputs, self.raw = self._tape(1.0)
        again, self.doubled = self._tape(-2.0)  # -2 is exact in binary: a linear gradient follows bit for bit
        self.random = not all(map(_same, self.outputs, again))
        self.linear = all(map(_same, [None if g is None else -2 * dense_gradient(g) for g in self.raw], self.doubled))
        if not self.linear:
            self.random |= not all(map(_same, self.raw, self._tape(1.0)[1]))
        self.gradients = [_vector(g, s) for g, s in zip(self.raw, call.sources, strict=True)]
        dtypes = [tensor.dtype for tensor in (*call.sources, *self.outputs)]
        self.eps = max(map(epsilon, dtypes))
        self.rtol = rtol if rtol is not None else max(RTOL[dtype.real_dtype.name] for dtype in dtypes)

    def _tape(self, factor: float | None) -> tuple[list, list]:
        """The outputs, and the gradients under factor * cotangent (None: under ones, which is the plain gradient)."""
        sources = [dense(source) for source in self.call.sources]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            outputs = float_outputs(self.call)
        if not outputs:
            raise TypeError("check_gradient: fn returned no float tensor. Return what is to be differentiated.")
        self.cotangents = _cotangents(outputs, self.seed)
        upstream = [tf.ones_like(c) if factor is None else tf.cast(factor, c.dtype) * c for c in self.cotangents]
        try:
            return outputs, tape.gradient(outputs, sources, upstream)
        except Exception as error:
            self.raises = f"the gradient raises {type(error).__name__}: {str(error).splitlines()[0][:160]}"
            return outputs, [None] * len(sources)

    def result(self) -> GradientCheck:
        names = self.call.names
        if self.random:
            cause = "the values or gradients differ from call to call: give fn a fixed seed, or freeze its state"
            return GradientCheck(tuple(SourceCheck(name, "nondeterministic", cause) for name in names))
        if self.raises:
            return GradientCheck(tuple(SourceCheck(name, "fail", self.raises) for name in names))
        self.flat = np.concatenate([g.numpy() for g in self.gradients])
        lines = _lines(self.call, self.outputs, self.cotangents, self.flat, self.seed)
        self.lines = lines
        total = int(lines.ends[-1])
        self.largest = float(np.max(np.abs(self.flat), initial=0.0, where=np.isfinite(self.flat)))
        starts, widths = self._plan(total)
        slopes = ladder(lines, starts, widths, quick=True) if total else None
        self.rows = {(a, w): row for a, w, row in zip(starts, widths, _rows(slopes), strict=True)} if slopes else {}
        self._refine()
        return GradientCheck(tuple(self._source(index, name) for index, name in enumerate(names)))

    def _plan(self, total: int) -> tuple[np.ndarray, np.ndarray]:
        """Starts and widths of the lines that together touch every coordinate."""
        if total <= ONE_BY_ONE:
            return np.arange(total), np.ones(total, int)
        count = int(min(total / 16, max(4, EVALUATED / total)))
        starts = np.linspace(0, total, count, endpoint=False).astype(int)
        if count >= 4 * len(self.lines.ends):
            starts = np.union1d(starts, self.lines.ends[:-1])
        return starts, np.diff(starts, append=total)

    def _refine(self) -> None:
        """All steps, where the quick look did not pass, the most doubtful first, and for the worst of each source."""
        doubtful = sorted((k for k in self.rows if self._judge(k)[0] != "pass"), key=lambda k: -self._judge(k)[1])
        worst = [max(mine, key=lambda k: self._judge(k)[1]) for i in range(len(self.call.names)) if (mine := self._of(i))]
        todo = list(dict.fromkeys([*doubtful, *(k for k in worst if k[1] == 1)]))
        for begin in range(0, min(len(todo), 4096), 256):
            batch = todo[begin : begin + 256]
            slopes = ladder(self.lines, *np.transpose(batch))
            self.rows.update(zip(batch, _rows(slopes), strict=True))
            if all(self._judge(k)[0] == "pass" for k in batch):
                break
        for key in doubtful:
            if key[1] > 1:
                self._open(key)

    def _open(self, key: tuple[int, int]) -> None:
        """Halve a block that disagrees, and its worst part again, until the wrong element is found."""
        parts = [key]
        for _ in range(64):
            start, width = key = max(parts, key=lambda k: self._judge(k)[1])
            if self._judge(key)[0] != "fail" or width == 1:
                return
            cuts = [int(end) for end in self.lines.ends if start < end < start + width] or [start + width // 2]
            edges = [start, *cuts, start + width]
            new = [(a, b - a) for a, b in zip(edges, edges[1:], strict=False)]
            parts = [*(k for k in parts if k != key), *new]
            del self.rows[key]
            self.rows.update(zip(new, _rows(ladder(self.lines, *np.transpose(new))), strict=True))

    def _of(self, index: int) -> list[tuple[int, int]]:
        """The lines that touch source number `index`."""
        low, high = np.append(0, self.lines.ends)[index : index + 2]
        return [(a, w) for a, w in self.rows if a < high and a + w > low]

    def _judge(self, key: tuple[int, int], sure: bool = False) -> tuple[str, float]:
        """The verdict on one line, and how far from agreement it is.

        One wrong element must not drown in the sum over a block: a block is held to the size of one of its elements,
        to be opened if it fails, unless it is to be `sure`, and held to the size of all.
        """
        row, (start, width) = self.rows[key], key
        gradient = self.flat[start : start + width]
        a, n, u = row.analytic, row.numeric, row.uncertainty
        bad = not np.isfinite(gradient).all()
        scale = held = max(abs(a), abs(n))
        if width > 1:
            norm = float(np.linalg.norm(self.lines.gradient[start : start + width] * self.lines.unit[start : start + width]))
            held = max(scale, norm) if sure else norm / math.sqrt(width)
        allowed = self.rtol * held + self.atol
        if row.kink or row.diverges:
            low, high = sorted((row.left, row.right))
            margin = allowed + SURE * u if np.isfinite(u) else allowed
            margin = 10 * self.rtol * max(abs(low), abs(high))
            between = low - margin <= a <= high + margin
            return ("kink" if between or bad or row.diverges else "fail"), math.inf
        if bad:
            return ("fail" if np.isfinite(n) else "inconclusive"), math.inf
        if not np.isfinite(u):
            return "inconclusive", 1e6
        error = abs(a - n)
        doubt = error / (allowed + 4 * u + 1e-300)
        zero = abs(n) <= SURE * u and abs(a) <= 8 * self.eps * self.largest
        explained = error <= 4 * u and SURE * u <= max(0.1 * scale, 1e-3 * self.largest)
        if error <= allowed or zero or explained:
            return "pass", doubt
        return ("fail" if error > SURE * u else "inconclusive"), 10 + doubt

    def _source(self, index: int, name: str) -> SourceCheck:
        source, raw = dense(self.call.sources[index]), self.raw[index]
        lines = self._of(index)
        offset = int(np.append(0, self.lines.ends)[index])
        size = int(self.lines.ends[index]) - offset
        parts = 2 if source.dtype.is_complex else 1
        what = "elements" if all(w == 1 for _, w in lines) else f"elements, in {len(lines)} directions"
        checked = f"{size // parts} of {size // parts} {what}"
        if raw is not None and tuple(dense_gradient(raw).shape) != tuple(source.shape):
            cause = f"wrong shape: the gradient is {tuple(dense_gradient(raw).shape)}, the source {tuple(source.shape)}"
            return SourceCheck(name, "fail", cause, checked=checked)
        if not lines:
            return SourceCheck(name, "pass", "", checked=checked)
        key = max(lines, key=lambda k: (ORDER.index(self._judge(k, sure=True)[0]), self._judge(k)[1]))
        row, (verdict, _) = self.rows[key], self._judge(key, sure=True)
        start, width = key
        at = max(start - offset, 0) // parts
        index_of = tuple(int(i) for i in np.unravel_index(at, source.shape)) if source.shape.rank else ()
        analytic = row.analytic if np.isfinite(self.flat[start : start + width]).all() else math.nan
        cause = "" if verdict == "pass" else self._cause(verdict, key, row, index, analytic)
        return SourceCheck(
            name, verdict, cause, index_of, float(analytic), float(row.numeric), float(row.uncertainty), checked,
            float(row.step), tuple(row.steps.tolist()), tuple(row.curve.tolist()),
        )  # fmt: skip

    def _cause(self, verdict: str, key: tuple, row: Slopes, index: int, analytic: float) -> str:
        return verdict


def _rows(slopes: Slopes) -> list[Slopes]:
    return [Slopes(*fields) for fields in zip(*slopes, strict=True)]


def _lines(call: Call, outputs: Sequence, cotangents: Sequence, gradient: np.ndarray, seed: int) -> Lines:
    """`fn` on lines, in float64 and in a graph if it is the same function there."""
    for wide, graph in ((True, True), (False, True), (True, False), (False, False)):
        if wide and not call.takes_vars:
            continue
        try:
            lines = Lines(call, outputs, cotangents, gradient, wide=wide, graph=graph, seed=seed)
        except Exception:
            if not wide and not graph:
                raise
            continue
        if lines.agrees(outputs):
            return lines
    return lines


def _differentiated(call: Call, seed: int) -> Call:
    """The gradient of `call` under a fixed cotangent, itself a function by the same calling rule."""

    def slope(*args, **kwargs):
        leaves = tf.nest.flatten(kwargs or args) if call.takes_vars else call.leaves
        sources = [dense(s if (v := as_variable(s)) is None else v) for s in leaves]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            outputs = float_outputs(call, leaves)
        gradients = tape.gradient(outputs, sources, _cotangents(outputs, seed + 1))
        return [tf.convert_to_tensor(g) for g in gradients if g is not None] or [tf.zeros([])]

    return dataclasses.replace(call, fn=slope)


@contextlib.contextmanager
def _put_back(call: Call) -> Iterator[None]:
    """Whatever happens inside, every variable that `fn` touches is afterwards bit for bit what it was."""

    def look() -> tf.Tensor:
        with contextlib.suppress(Exception):  # as far as a graph can follow
            call()
        return tf.zeros([])

    found = tf.function(look, autograph=False).get_concrete_function().variables
    saved = [(v, tf.identity(v)) for v in [*found, *(s for s in call.sources if isinstance(s, tf.Variable))]]
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


def dense_gradient(gradient: Any) -> tf.Tensor:
    return tf.convert_to_tensor(dense(gradient))


def _vector(gradient: Any, source: Any) -> tf.Tensor:
    """A gradient as a flat real vector; zeros where there is none, or none that fits."""
    like = tf.zeros_like(dense(source))
    fits = gradient is not None and dense_gradient(gradient).shape == like.shape
    return real(dense_gradient(gradient) if fits else like)


def _same(first: Any, second: Any) -> bool:
    """Whether two calls gave the same, but for the order in which threads add."""
    if first is None or second is None:
        return first is second
    a, b = (real(dense_gradient(t)).numpy() for t in (first, second))
    size = np.max(np.abs(a), initial=0.0, where=np.isfinite(a))
    return np.allclose(a, b, rtol=0, atol=16 * epsilon(first.dtype) * size, equal_nan=True)


__all__ = ["GradientCheck", "SourceCheck", "check_gradient", "describe"]
