"""Which of the two is right: `judge` holds the gradient of the tape on one line against the measured slope.

The rules are asked in order, and the first that knows the answer gives it: a kink, a gradient that is not finite, a
slope that is not known, agreement, two zeros, and the second opinion: the tape in float64, or at neighbouring points.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from tapekit.checking.differences import SURE, Slopes
from tapekit.checking.dtypes import epsilon, tiny
from tapekit.checking.lines import ROUNDINGS

RTOL = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 3e-4, "float64": 1e-7}  # right gradients are off by less
CLOSE = 4.0  # uncertainties within which the tape and the differences agree
PLAIN = 0.1  # of a gradient: a slope that is known better tells right from wrong
MINOR = 0.01  # of the largest gradient of its source: what is smaller need not be known better
CROWD = 1024  # of more elements, float32 cannot see one: a block of them is judged by its sum
SHRINKS = 1e-3  # an error that is a thousandth of itself in float64 is rounding: a mistake does not shrink
WORN = 10.0  # tolerances that rounding may wear off a gradient which is right in float64, or two sides of a slope
FAR = 10.0  # the largest step moves a tenth of the scale


class Judgement(NamedTuple):
    """A verdict, how far the gradient is from agreement in units of what is allowed, and the reason (for the words)."""

    verdict: str
    doubt: float
    reason: str = ""


class Line:
    """What is known of one line of a `Comparison`.

    One wrong element must not drown in the sum over a block: a block is ``held`` to the size of one of its elements,
    and opened if it fails; unless it is to be `sure`, then to the size of all.
    """

    def __init__(self, found: Any, key: tuple[int, int], sure: bool) -> None:
        lines, width, tensors = found.lines, key[1], (*found.call.sources, *found.tape.outputs)
        self.found, self.key, self.row = found, key, found.rows[key]
        self.gradient, size = found.along(found.tape.vector, key)
        self.error = abs(self.gradient - self.row.numeric)
        self.scale = max(abs(self.gradient), abs(self.row.numeric))
        self.unit = abs(lines.unit[key[0]]) if width == 1 else 1.0
        self.known = SURE * self.row.uncertainty
        if width > 1 and found.fine is None and found.eps > lines.eps:
            sure = True  # without a second opinion, the rounding of a block hides one element
        self.share = 1.0 if sure else math.sqrt(width)  # typical elements to which a random sum amounts
        self.held = self.scale if width == 1 else max(self.scale, size) if sure else size / self.share
        # A gradient below the smallest number of its dtype is 0, which is no mistake.
        self.allowed = found.rtol * self.held + found.atol + max(tiny(each.dtype) for each in tensors)
        self.doubt = self.error / (self.allowed + CLOSE * self.row.uncertainty + 1e-300)
        own_peak = found.peaks[np.searchsorted(lines.ends, key[0], side="right")]
        self.plain = self.known <= max(PLAIN * (self.held if width <= CROWD else self.scale), MINOR * own_peak)
        # An output that does not move where the tape says that it should loses its rounding.
        moves = found.along(found.still, key)[1] > 0
        self.swallowed = FAR * lines.eps * lines.depth / self.unit if moves else 0.0

    def rounding(self, eps: float) -> float:
        """Return what the rounding of numbers that cancel on the way amounts to in the slope, in a dtype with `eps`."""
        return ROUNDINGS * eps * self.found.lines.largest / self.unit


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
    """Whether the slopes of the two sides differ, by more than tolerance and uncertainty."""
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
    """Ask the tape in float64: it tells rounding, which is lost there, from a mistake, which stays."""
    found, fine = line.found, line.found.fine
    exact, whole = found.along(fine, line.key)
    rounding = found.along(found.tape.vector - fine, line.key)[1]
    if zero := _zero(line, rounding):
        return zero
    off = abs(exact - line.row.numeric)
    right = off <= max(RTOL["float64"] * (line.scale if line.key[1] == 1 else whole / line.share), SHRINKS * line.error)
    if right or (off <= line.known + line.swallowed and line.plain):
        largest = max(found.peaks.max(), found.lines.height / line.unit)
        most = np.max(np.abs(found.tape.vector - fine)[line.key[0] : sum(line.key)])
        worn = rounding <= WORN * found.rtol * whole or most <= ROUNDINGS * found.eps * largest
        return Judgement("pass", line.doubt) if worn else Judgement("inconclusive", 10 + line.doubt, "rounding")
    return _beyond(line, min(line.error, off), rounding)


def _by_neighbours(line: Line) -> Judgement:
    """Ask the tape at points a few roundings away: an error may be as large as what they differ by."""
    found = line.found
    spread = SURE * found.along(np.ptp(found.neighbours, axis=0), line.key)[1]
    lost = line.rounding(found.eps) if found.eps > found.lines.eps else 0.0  # by a tape in a coarser dtype
    return _zero(line, spread) or _beyond(line, line.error, spread + lost)


def _zero(line: Line, rounding: float) -> Judgement | None:
    """Pass a gradient that is 0 up to its rounding, if the slope is; float64 alone shows that a slope is 0."""
    if line.found.lines.eps > epsilon("float64") or abs(line.row.numeric) > line.known:
        return None
    # Values that scatter by their rounding cancel, and so may the gradient. Those that never change may be too large.
    cancels = line.rounding(epsilon("float64")) if line.row.numeric else 0.0
    return Judgement("pass", line.doubt, "zero") if abs(line.gradient) <= SURE * rounding + cancels else None


def _beyond(line: Line, error: float, rounding: float) -> Judgement:
    """Fail an error that is larger than all that could explain it; a kink that is not certain explains any."""
    lines = line.found.lines
    unseen = line.known + line.swallowed + lines.eps * lines.count / line.unit
    certain = error > unseen + rounding and not kink(line.found, line.row, CLOSE)
    return Judgement("fail", 10 + line.doubt) if certain else Judgement("inconclusive", 10 + line.doubt, "noise")
