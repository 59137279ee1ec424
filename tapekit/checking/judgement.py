"""Which of the two is right: `judge` holds the gradient of the tape on one line against the measured slope.

The rules are tried in order, and the first that applies decides: a kink, a gradient that is not finite, a slope that
is not known, agreement, and at last whether the tape in float64, or at neighbouring points, shows mere rounding.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from tapekit.checking.differences import SURE, Slopes
from tapekit.checking.dtypes import epsilon, tiny
from tapekit.checking.lines import ROUNDINGS

RTOL = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 3e-4, "float64": 1e-7}  # relative errors of right gradients
CLOSE = 4.0  # the tape and the differences agree if they differ by at most so many uncertainties
PLAIN = 0.1  # a slope that is known to this part of the gradient tells a right gradient from a wrong one
MINOR = 0.01  # so does a slope that is known to this part of the largest gradient of its source
CROWD = 1024  # the rounding of float32 hides one element among more than these: a larger block is judged by its sum
SHRINKS = 1e-3  # an error that is a thousandth of its size in float64 is rounding: a mistake does not shrink
WORN = 10.0  # rtols that rounding may take from a gradient that is right in float64, or the two sides of a slope differ
FAR = 10.0  # the largest step is a tenth of the scale, so that a slope is at most 10 times the change it causes


class Judgement(NamedTuple):
    """A verdict, how far the gradient is from agreement in units of what is allowed, and the reason (for the words)."""

    verdict: str
    doubt: float
    reason: str = ""


class Line:
    """The numbers that the rules compare, for one line of a `Comparison`.

    The tolerance is relative to ``reference``: for an element, its slope; for a block, the gradient of a typical
    element, so that one wrong element fails it, or, if the verdict has to be `sure`, the norm of its whole gradient.
    """

    def __init__(self, found: Any, key: tuple[int, int], sure: bool) -> None:
        lines, width, tensors = found.lines, key[1], (*found.call.sources, *found.tape.outputs)
        self.found, self.key, self.row = found, key, found.rows[key]
        self.gradient, size = found.along(found.tape.vector, key)
        self.error = abs(self.gradient - self.row.numeric)
        self.scale = max(abs(self.gradient), abs(self.row.numeric))
        self.length = abs(lines.direction[key[0]]) if width == 1 else 1.0
        self.margin = SURE * self.row.uncertainty
        if width > 1 and found.fine is None and found.eps > lines.eps:
            sure = True  # without a second opinion, the rounding of a block hides one element
        self.terms = 1.0 if sure else math.sqrt(width)  # a sum of n terms of random sign is about sqrt(n) of them
        self.reference = self.scale if width == 1 else max(self.scale, size) if sure else size / self.terms
        # A gradient below the smallest number of its dtype becomes 0, which is no mistake.
        self.allowed = found.rtol * self.reference + found.atol + max(tiny(each.dtype) for each in tensors)
        self.doubt = self.error / (self.allowed + CLOSE * self.row.uncertainty + 1e-300)
        own_peak = found.peaks[np.searchsorted(lines.ends, key[0], side="right")]
        self.plain = self.margin <= max(PLAIN * (self.reference if width <= CROWD else self.scale), MINOR * own_peak)
        # A large constant output absorbs a change below its rounding, which the gradient of the tape contains.
        absorbs = found.along(found.constant, key)[1] > 0
        self.absorbed = FAR * lines.eps * lines.constant_size / self.length if absorbs else 0.0

    def rounding(self, eps: float) -> float:
        """Return the rounding of the slope, in a dtype with `eps`, where intermediate numbers cancel."""
        return ROUNDINGS * eps * self.found.lines.largest / self.length


@np.errstate(all="ignore")  # what is not finite is judged by rules of its own
def judge(found: Any, key: tuple[int, int], sure: bool = False) -> Judgement:
    """Return the verdict on one line of a `Comparison`."""
    line = Line(found, key, sure)
    if line.row.diverges or kink(found, line.row):
        return Judgement("kink" if _between(line) else "fail", math.inf)
    if not math.isfinite(line.gradient):
        return Judgement("fail" if _fits(line) else "inconclusive", math.inf)
    if not math.isfinite(line.row.uncertainty):
        return Judgement("inconclusive", 1e6, "noise")
    if line.error <= line.allowed or (line.error <= CLOSE * line.row.uncertainty and line.plain):
        return Judgement("pass", line.doubt)
    return _by_neighbours(line) if found.fine is None else _by_float64(line)


def kink(found: Any, row: Slopes, times: float = SURE) -> bool:
    """Whether the slopes of the two sides differ by more than the tolerance and `times` their uncertainty."""
    gap = abs(row.right - row.left)
    return gap > times * row.sides and gap > WORN * found.rtol * max(abs(row.left), abs(row.right))


def _between(line: Line) -> bool:
    """Whether the gradient lies between the slopes of the two sides, as a subgradient does."""
    row, found = line.row, line.found
    low, high = sorted([row.left, row.right])
    slack = WORN * found.rtol * max(abs(low), abs(high)) + found.atol + 2 * row.sides
    return bool(low - slack <= line.gradient <= high + slack or row.diverges or not math.isfinite(line.gradient))


def _fits(line: Line) -> bool:
    """Whether the dtype can hold the slope, so that the gradient should be finite."""
    tensors = (*line.found.call.sources, *line.found.tape.outputs)
    return bool(abs(line.row.numeric) < min(float(each.dtype.real_dtype.max) for each in tensors) / 2)


def _by_float64(line: Line) -> Judgement:
    """Judge by the tape in float64: an error that is absent there is rounding, one that remains is a mistake."""
    found, fine = line.found, line.found.fine
    exact, whole = found.along(fine, line.key)
    rounding = found.along(found.tape.vector - fine, line.key)[1]
    if zero := _zero(line, rounding):
        return zero
    off = abs(exact - line.row.numeric)
    right = off <= max(RTOL["float64"] * (line.scale if line.key[1] == 1 else whole / line.terms), SHRINKS * line.error)
    if right or (off <= line.margin + line.absorbed and line.plain):
        largest = max(found.peaks.max(), found.lines.moving_size / line.length)
        most = np.max(np.abs(found.tape.vector - fine)[line.key[0] : sum(line.key)])
        worn = rounding <= WORN * found.rtol * whole or most <= ROUNDINGS * found.eps * largest
        return Judgement("pass", line.doubt) if worn else Judgement("inconclusive", 10 + line.doubt, "rounding")
    return _beyond(line, off, rounding)


def _by_neighbours(line: Line) -> Judgement:
    """Judge by the tape at points a few roundings away: rounding explains an error as large as their differences."""
    found = line.found
    spread = SURE * found.along(np.ptp(found.neighbours, axis=0), line.key)[1]
    lost = line.rounding(found.eps) if found.eps > found.lines.eps else 0.0  # the tape is coarser than the values
    return _zero(line, spread) or _beyond(line, line.error, spread + lost)


def _zero(line: Line, rounding: float) -> Judgement | None:
    """Pass a gradient that is 0 up to rounding if the slope is 0 too, which only values in float64 can show."""
    if line.found.lines.eps > epsilon("float64") or abs(line.row.numeric) > line.margin:
        return None
    # Values that change by rounding alone come from numbers that cancel, and the gradient may cancel likewise.
    cancels = line.rounding(epsilon("float64")) if line.row.numeric else 0.0
    return Judgement("pass", line.doubt, "zero") if abs(line.gradient) <= SURE * rounding + cancels else None


def _beyond(line: Line, error: float, rounding: float) -> Judgement:
    """Fail an error that is larger than everything that could explain it; a possible kink explains any error."""
    unseen = line.margin + line.absorbed + line.found.lines.eps * line.found.lines.constant_weight / line.length
    certain = error > unseen + rounding and not kink(line.found, line.row, CLOSE)
    return Judgement("fail", 10 + line.doubt) if certain else Judgement("inconclusive", 10 + line.doubt, "noise")
