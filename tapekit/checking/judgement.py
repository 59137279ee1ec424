"""Which of the two is right: `judge` holds the gradient of the tape on one line against the measured slope."""

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


def judge(found: Any, key: tuple[int, int], sure: bool = False) -> Judgement:
    """Return the verdict on one line of a `Comparison`.

    One wrong element must not drown in the sum over a block: a block is held to the size of one of its elements,
    and opened if it fails; unless it is to be `sure`, then to the size of all.
    """
    row, lines, tape, width = found.rows[key], found.lines, found.tape, key[1]
    (a, size), n, u = found.along(tape.vector, key), row.numeric, row.uncertainty
    if row.diverges or kink(found, row):  # a gradient at a kink is to lie between the slopes of the two sides
        low, high = sorted([row.left, row.right])
        slack = WORN * found.rtol * max(abs(low), abs(high)) + found.atol + 2 * row.sides
        between = low - slack <= a <= high + slack or row.diverges or not math.isfinite(a)
        return Judgement("kink" if between else "fail", math.inf)
    if not math.isfinite(a):  # a slope that the dtype can hold: the gradient should be finite
        huge = min(float(each.dtype.real_dtype.max) for each in (*found.call.sources, *tape.outputs)) / 2
        return Judgement("fail" if abs(n) < huge else "inconclusive", math.inf)
    if not math.isfinite(u):
        return Judgement("inconclusive", 1e6, "noise")

    # Agreement: an error within the tolerance, or within an uncertainty that is small.
    error, scale, peak = abs(a - n), max(abs(a), abs(n)), found.peaks.max()
    own_peak = found.peaks[np.searchsorted(lines.ends, key[0], side="right")]
    if width > 1 and found.fine is None and found.eps > lines.eps:
        sure = True  # without a second opinion, the rounding of a block hides one element
    share = 1.0 if sure else math.sqrt(width)
    held = scale if width == 1 else max(scale, size) if sure else size / share
    underflow = max(tiny(each.dtype) for each in (*found.call.sources, *tape.outputs))
    allowed = found.rtol * held + found.atol + underflow
    doubt = error / (allowed + CLOSE * u + 1e-300)
    plain = SURE * u <= max(PLAIN * (held if width <= CROWD else scale), MINOR * own_peak, found.eps * peak)
    if error <= allowed or (error <= CLOSE * u and plain):
        return Judgement("pass", doubt)

    # What the values cannot show: less than eps times the outputs that move. An output that does not move counts where
    # the tape says that it should, and as a number of size 1 otherwise.
    unit = abs(lines.unit[key[0]]) if width == 1 else 1.0
    swallowed = FAR * lines.eps * lines.depth / unit if found.along(found.still, key)[1] else 0.0
    unseen = SURE * u + swallowed + lines.eps * (lines.height + lines.count) / unit

    # The second opinion on rounding: the tape in float64, or at points a few roundings away.
    fine, off = found.fine, error
    if fine is not None:
        rounding = noise = found.along(tape.vector - fine, key)[1]
        w, whole = found.along(fine, key)
        off = abs(w - n)
        right = off <= max(RTOL["float64"] * (scale if width == 1 else whole / share), SHRINKS * error)
        right |= off <= SURE * u + swallowed and plain
        most = np.max(np.abs(tape.vector - fine)[key[0] : sum(key)])
        worn = rounding <= WORN * found.rtol * whole or most <= ROUNDINGS * found.eps * max(peak, lines.height / unit)
    else:
        rounding = SURE * found.along(np.ptp(found.neighbours, axis=0), key)[1]
        noise = SURE * found.along(np.max(np.abs(found.neighbours - tape.vector), axis=0), key)[1]
        right = worn = False
    # The slope is 0, and so is the gradient, up to its own rounding or beside the largest gradient. Only float64 shows
    # that a slope is 0; in a coarser dtype it may be too small to be seen.
    sharp = lines.eps == epsilon("float64") or SURE * u <= MINOR * peak
    if sharp and abs(n) <= SURE * u and abs(a) <= max(SURE * noise, found.eps * peak):
        return Judgement("pass", doubt, "zero")
    if right:
        return Judgement("pass", doubt) if worn else Judgement("inconclusive", 10 + doubt, "rounding")
    certain = min(error, off) > unseen + rounding and not kink(found, row, CLOSE)
    return Judgement("fail", 10 + doubt) if certain else Judgement("inconclusive", 10 + doubt, "noise")


def kink(found: Any, row: Slopes, times: float = SURE) -> bool:
    """Whether the slopes of the two sides differ, by more than tolerance and uncertainty."""
    gap = abs(row.right - row.left)
    return gap > times * row.sides and gap > WORN * found.rtol * max(abs(row.left), abs(row.right))
