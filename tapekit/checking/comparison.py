"""The gradient of the tape beside measured slopes: a `Comparison`, with a `Judgement` for each line.

Each line is measured at few steps, and again at many where the two disagree. A block that fails is divided.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, values_of
from tapekit.checking.float64 import Float64
from tapekit.checking.results import VERDICTS, SourceCheck
from tapekit.checking.slopes import SURE, Lines, Slopes, measure_slopes
from tapekit.checking.tape import MANY, TINY, TapeGradient, as_vector, epsilon, floats, pull_back, real
from tapekit.graphs.capture import leaves_at

RTOL = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 3e-4, "float64": 1e-7}  # relative errors of right gradients
CLOSE = 4.0  # the tape and the differences agree if they differ by at most so many uncertainties
KNOWN = 0.02  # a slope that is known to this part of the largest gradient of its source tells right from wrong
WORN = 10.0  # rtols: the two sides of a kink differ by more; rounding may take so much from a right gradient
ONE_BY_ONE = 2048  # elements up to which each is checked by itself; more are checked in blocks
WIDTH = 256  # elements of a block, at least: one wrong element among so many is still visible
EVALUATED = 7e7  # coordinates that all blocks together may copy: the larger the point, the fewer and wider the blocks
OPENED = 16  # doubtful blocks that are divided: enough to name a wrong element of each source
SAMPLER = "a sampler: its gradient is that of the expected value, which differences of one draw do not show"
Key = tuple[int, int]  # a line: the first coordinate that it moves, and how many


class Comparison:
    """The gradient of the ``tape``, the judgements on the lines in ``rows``, and the ``coarsest`` dtype in `fn`."""

    def __init__(
        self, call: Call, tape: TapeGradient, rtol: float | None, atol: float | None, seed: int, progress: bool | None
    ) -> None:
        self.call, self.tape, self.rows = call, tape, dict[Key, Judgement]()
        self.coarsest = max((each.dtype.real_dtype for each in (*call.sources, *tape.outputs)), key=epsilon)
        self.samplers: set[int] = set()
        lines = None
        with contextlib.suppress(Exception):  # whatever keeps fn from being computed in float64
            float64 = Float64(call, tape)
            self.coarsest, self.samplers = max(self.coarsest, float64.coarsest, key=epsilon), float64.samplers
            wide = Lines(float64.values(), tape, tf.float64, float64, seed, progress)
            if self._is_same(wide):
                lines = wide
        self.lines = lines or Lines(call, tape, self.coarsest, None, seed, progress)
        self.rtol, self.atol = RTOL[self.coarsest.name] if rtol is None else rtol, atol or 0.0
        if len(tape.vector):
            self._measure()

    def _is_same(self, wide: Lines) -> bool:
        """Whether `fn` in float64 is the function that the tape saw: what moves is the same, up to rounding."""
        eps = epsilon(self.coarsest)
        pairs = [(tf.cast(y, y0.dtype), y0) for y, y0 in zip(self.tape.outputs, wide.outputs, strict=True)]
        if all(np.allclose(y, y0, np.sqrt(eps), 0.0, equal_nan=True) for y, y0 in pairs):
            return True
        near = (np.isclose(y, y0, np.sqrt(eps), eps * sum(wide.sizes), equal_nan=True) for y, y0 in pairs)
        moved = floats(wide.call(wide.leaves(0.1)))
        return all(np.all(close | (y0 == y1)) for close, y0, y1 in zip(near, wide.outputs, moved, strict=True))

    @functools.cached_property
    def exact(self) -> tuple[np.ndarray, np.ndarray]:
        """The gradient in float64 and the rounding of the tape; without it, that of the tape, and its change nearby."""
        lines, tape, call = self.lines, self.tape, self.call
        with contextlib.suppress(Exception):  # whatever keeps the gradient from being computed in float64
            if lines.float64 and epsilon(self.coarsest) > lines.eps:
                fine = as_vector(call, lines.float64.gradient(leaves_at(lines.call, lines.point)), tape.scale)
                return fine, tape.vector - fine
        near = [tape.vector]
        with contextlib.suppress(Exception):  # beyond its domain fn may raise
            for n in range(1, 10):  # other cotangents and points are rounded otherwise
                leaves = leaves_at(call, lines.point * (1 + MANY * (n - 5) * epsilon(lines.narrow)))
                gradients = pull_back(call, leaves)[1]([c * n for c in tape.cotangents])
                near.append(as_vector(call, gradients, n * tape.scale))
        return tape.vector, SURE * np.ptp(near, axis=0)

    def along(self, gradient: np.ndarray, key: Key) -> tuple[float, float]:
        """Return the slope that a gradient predicts on a line, and the norm of its part there."""
        moved = gradient[key[0] : sum(key)]
        moved = moved if key[1] == 1 else moved * self.lines.direction[key[0] : sum(key)].numpy()
        return float(moved.sum()), float(np.linalg.norm(moved))

    def _touching(self, index: int) -> list[Key]:
        """Return the lines that move a part of the source `index`, the gravest last."""
        low, high = (int(end) for end in np.append(0, self.lines.ends)[index : index + 2])
        touching = [key for key in self.rows if key[0] < high and sum(key) > low]
        return sorted(touching, key=lambda key: self.rows[key].gravity)

    def _measure(self) -> None:
        """Measure every line at few steps; the doubtful lines and the worst element of each source at all steps."""
        self._measure_lines(self._choose(), quick=True)
        doubtful = [key for key, judgement in self.rows.items() if judgement.verdict != "pass"]
        doubtful.sort(key=lambda key: self.rows[key].gravity, reverse=True)
        worst = [key for index in range(len(self.call.sources)) for key in self._touching(index)[-1:] if key[1] == 1]
        if doubtful or worst:
            self._measure_lines(dict.fromkeys([*doubtful, *worst]))
        for key in doubtful[:OPENED]:
            self._open(key)

    def _choose(self) -> Iterable[Key]:
        """Choose the lines: an element each, or, of many elements, blocks."""
        total, lines = len(self.tape.vector), self.lines
        if total <= (ONE_BY_ONE if lines.graph else ONE_BY_ONE // 8):
            return [(start, 1) for start in range(total)]
        count = min(total // WIDTH, max(3, int(EVALUATED / total))) if lines.graph else 32
        starts = np.linspace(0, total, count, endpoint=False).astype(int)
        return zip(starts.tolist(), np.diff(starts, append=total).tolist(), strict=True)

    def _measure_lines(self, keys: Iterable[Key], quick: bool = False) -> None:
        keys = list(keys)
        starts, widths = np.transpose(keys)
        for key, row in zip(keys, measure_slopes(self.lines, starts, widths, quick=quick), strict=True):
            self.rows[key] = Judgement(self, key, row)

    def _open(self, block: Key) -> None:
        """Divide a block that fails, at the ends of sources or in half, and again its worst part."""
        start, width = block
        if self.rows[block].verdict == "fail" and width > 1:
            cuts = [int(end) for end in self.lines.ends if start < end < start + width] or [start + width // 2]
            parts = [(a, b - a) for a, b in itertools.pairwise([start, *cuts, start + width])]
            del self.rows[block]
            self._measure_lines(parts)
            self._open(max(parts, key=lambda key: self.rows[key].gravity))

    def source_check(self, index: int, name: str) -> SourceCheck:
        """Return the verdict on source number `index`, with the numbers of its worst line."""
        source, raw, keys = values_of(self.call.sources[index]), self.tape.raw[index], self._touching(index)
        size, parts, blocks = source.shape.num_elements(), 1 + source.dtype.is_complex, sum(key[1] > 1 for key in keys)
        checked = f"{size} of {size} elements" + (f" in {blocks} blocks" if blocks else "")
        if raw is not None and raw.shape != source.shape:
            words = f"wrong shape: the gradient is {tuple(raw.shape)}, the source {tuple(source.shape)}"
            return SourceCheck(name, "fail", words, checked=checked)
        if not keys:
            return SourceCheck(name, "pass", "", checked=checked)
        start, judgement, row = keys[-1][0], self.rows[keys[-1]], self.rows[keys[-1]].row
        verdict, cause = judgement.verdict, judgement.cause
        if self.tape.upstream[index]:
            verdict, cause = "fail", self.tape.upstream[index]
        elif index in self.samplers and verdict != "pass":
            verdict, cause = "inconclusive", SAMPLER
        at = max((start - int(self.lines.ends[index])) // parts + size, 0)
        place = tuple(map(int, np.unravel_index(at, source.shape))) if source.shape.rank else ()
        numbers = judgement.gradient, float(row.numeric), float(row.uncertainty)
        curve = tuple(row.steps.tolist()), tuple(row.curve.tolist())
        return SourceCheck(name, verdict, cause, place, *numbers, checked, float(row.step), *curve)


class Judgement:
    """The ``verdict`` on one line with its ``cause``, and the ``gravity`` by which lines are sorted."""

    @np.errstate(all="ignore")  # what is not finite is judged by rules of its own
    def __init__(self, found: Comparison, key: Key, row: Slopes) -> None:
        self.found, self.key, self.row = found, key, row
        self.source = int(np.searchsorted(found.lines.ends, key[0], side="right"))
        self.peak = np.abs(np.nan_to_num(np.split(found.tape.vector, found.lines.ends[:-1])[self.source])).max()
        self.gradient, norm = found.along(found.tape.vector, key)
        self.error, self.gap = abs(self.gradient - row.numeric), abs(row.right - row.left)
        self.margin, self.bend = SURE * row.uncertainty, WORN * found.rtol * max(abs(row.left), abs(row.right))
        self.whole = max(abs(self.gradient), abs(row.numeric), norm)
        # A block is judged by a typical element: one wrong element has to show.
        self.reference = self.whole if key[1] == 1 else norm / math.sqrt(key[1])
        # A gradient below the smallest number of its dtype becomes 0, which is no mistake.
        self.allowed = found.rtol * self.reference + found.atol + TINY[found.coarsest.name]
        self.verdict, self.cause = self._judge(f"the slope is {row.numeric:.6g}")
        doubt = self.error / (self.allowed + CLOSE * row.uncertainty + 1e-300)
        self.gravity = VERDICTS.index(self.verdict), len(row.steps), doubt if math.isfinite(doubt) else math.inf

    def _judge(self, slope: str) -> tuple[str, str]:
        """Return the verdict of the first rule that applies, and the cause."""
        row, found = self.row, self.found
        if row.diverges:
            return "kink", "kink: the slope grows without bound as the step shrinks (a jump, or a vertical tangent)"
        if self.gap > max(SURE * row.sides, self.bend):
            kink = f"kink: the slope is {row.left + 0:.4g} on the left and {row.right + 0:.4g} on the right"
            far = max(min(row.left, row.right) - self.gradient, self.gradient - max(row.left, row.right))
            if far > self.bend + found.atol:
                return "fail", f"{kink}; the gradient is not between them, it is {self.gradient:.4g}"
            return "kink", kink
        if not math.isfinite(row.numeric):
            return "inconclusive", "fn is not finite here, or raises, on both sides: there is nothing to compare with"
        if not math.isfinite(self.gradient):
            fits = abs(row.numeric) < float(found.coarsest.max) / 2
            fits &= all(np.all(np.isfinite(real(y))) for y in found.tape.outputs)
            return "fail" if fits else "inconclusive", f"the gradient is {self.gradient}, {slope}"
        if self._agrees(self.error, self.allowed):
            return "pass", ""
        if math.isfinite(self.margin) and (opinion := self._second_opinion(slope)):
            return opinion
        return "inconclusive", f"too noisy to tell in {found.lines.dtype.name}: {slope}, give or take {self.margin:.2g}"

    def _agrees(self, error: float, allowed: float) -> bool:
        """Whether an error is allowed, or within the uncertainty of a slope that is known well enough."""
        near = error <= CLOSE * self.row.uncertainty and self.margin <= KNOWN * self.peak
        return bool(error <= allowed or near)

    def _second_opinion(self, slope: str) -> tuple[str, str] | None:
        """Judge by the tape in float64, or at neighbouring points: an error that is absent there is rounding."""
        found, lines, (exact, rounding) = self.found, self.found.lines, self.found.exact
        error = abs(found.along(exact, self.key)[0] - self.row.numeric)
        spread = found.along(rounding, self.key)[1]
        # only values in float64 show a slope of 0
        is_zero = lines.dtype == tf.float64 and abs(self.row.numeric) <= self.margin
        if is_zero and abs(self.gradient) <= SURE * spread:
            return "pass", "the slope is 0 up to rounding"
        if exact is not found.tape.vector and self._agrees(error, RTOL["float64"] * self.reference):
            lost = f"right in float64, lost to rounding in {found.coarsest.name}: it is {self.gradient:.6g}, {slope}"
            usual = max(WORN * found.rtol * self.whole, MANY * epsilon(found.coarsest) * self.peak)
            return ("pass", "") if spread <= usual else ("inconclusive", lost)
        if error > self.margin + spread and self.gap <= max(CLOSE * self.row.sides, self.bend):
            return "fail", self._mistake(slope)
        # Where rounding hides one wrong element of a block, the block is judged by its sum.
        return ("pass", "") if self.error <= found.rtol * self.whole else None

    def _mistake(self, slope: str) -> str:
        """Return in words how the gradient differs from the slope."""
        if self.found.tape.raw[self.source] is None:
            return f"missing: the gradient is None, {slope}"
        if not self.gradient:
            return f"missing: the gradient is 0 where {slope}"
        if abs(self.row.numeric) <= self.margin:
            return f"the gradient is {self.gradient:.6g} where {slope}"
        factor = self.gradient / self.row.numeric
        digits = ".3f" if abs(factor - 1) > 2e-3 and abs(factor) > 0.01 else ".6g"
        return "sign flipped" if abs(factor + 1) < 1e-3 else f"off by a factor of {factor:{digits}}"
