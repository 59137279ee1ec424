"""Which of the two is right: `judge` holds the gradient of the tape on one line against the measured slope."""

import math
from typing import Any, NamedTuple

import numpy as np

from tapekit.checking.differences import SURE, Slopes

CROWD = 1024  # of more elements, float32 cannot see one: a block of them is judged by its sum
RTOL = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 3e-4, "float64": 1e-7}  # right gradients are off by less
CLOSE = 4.0  # uncertainties within which the tape and the differences agree
SHRINKS = 1e-3  # an error that is a thousandth of itself in float64 is rounding: a mistake does not shrink
ROUNDINGS = 16.0  # of the largest gradient may add up in an element on the way back
FAR = 10.0  # the largest step moves a tenth of the scale
WORN = 10.0  # times the tolerance that rounding may wear off a gradient which is right in float64


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
    row, lines = found.rows[key], found.lines
    a, n, u = found.along(found.tape.vector, key), row.numeric, row.uncertainty
    if row.diverges or kink(found, row):
        low, high = sorted([row.left, row.right])
        slack = 10 * found.rtol * max(abs(low), abs(high)) + found.atol + 2 * row.sides
        subgradient = low - slack <= a <= high + slack or row.diverges or not math.isfinite(a)
        return Judgement("kink" if subgradient else "fail", math.inf)
    if not math.isfinite(a):  # it may only have overflowed
        return Judgement("fail" if abs(n) < found.huge else "inconclusive", math.inf)
    if not math.isfinite(u):
        return Judgement("inconclusive", 1e6, "noise")
    scale, error, size = max(abs(a), abs(n)), abs(a - n), found.size(found.tape.vector, key)
    peak, mean = found.peaks.max(), 1.0 if sure else math.sqrt(key[1])
    held = scale if key[1] == 1 else max(scale, size) if sure else size / mean
    allowed = found.rtol * held + found.atol + found.tiny  # a gradient that underflows is 0
    doubt = error / (allowed + CLOSE * u + 1e-300)
    seen = held if key[1] <= CROWD else scale
    plain = SURE * u <= max(0.1 * seen, 0.01 * found.peaks[found.source_of(key)], found.eps * found.peaks.max())
    explained = error <= CLOSE * u and plain
    if error <= allowed or explained:
        return Judgement("pass", doubt)
    unit, peak, fine = reach(found, key), found.peaks.max(), found.fine
    # An output that does not move counts where the tape says that it should, and as a number of size 1 otherwise.
    hidden = FAR * lines.eps * lines.depth / unit if found.size(found.still, key) else 0.0
    blind = SURE * u + hidden + lines.eps * (lines.height + lines.count) / unit
    if fine is None:
        rounding = SURE * found.size(np.ptp(found.neighbours, axis=0), key)
        near_point = SURE * found.size(np.max(np.abs(found.neighbours - found.tape.vector), axis=0), key)
    else:
        rounding = near_point = found.size(found.tape.vector - fine, key)
    small = lines.eps < 1e-15 or SURE * u <= 0.01 * peak
    zero = small and abs(n) <= SURE * u and abs(a) <= max(SURE * near_point, found.eps * peak)
    off = error
    if fine is not None:
        off, whole = abs(found.along(fine, key) - n), found.size(fine, key)
        near = RTOL["float64"] * (scale if key[1] == 1 else whole / mean)
        right = off <= max(near, SHRINKS * error) or (off <= SURE * u + hidden and plain)
        part = slice(key[0], sum(key))
        most = np.max(np.abs(found.tape.vector[part] - fine[part]))
        worn = rounding <= WORN * found.rtol * whole or most <= ROUNDINGS * found.eps * max(peak, lines.height / unit)
        if right and not zero:
            return Judgement("pass", doubt) if worn else Judgement("inconclusive", 10 + doubt, "rounding")
    if zero:
        return Judgement("pass", doubt, "zero")
    certain = min(error, off) > blind + rounding and not kink(found, row, CLOSE)
    return Judgement("fail" if certain else "inconclusive", 10 + doubt, "" if certain else "noise")


def reach(found: Any, key: tuple[int, int]) -> float:
    """Return the length of a line at step 1."""
    return abs(found.lines.unit[key[0]]) if key[1] == 1 else 1.0


def kink(found: Any, row: Slopes, times: float = SURE) -> bool:
    """Whether the slopes of the two sides differ, by more than tolerance and uncertainty."""
    gap = abs(row.right - row.left)
    return gap > times * row.sides and gap > 10 * found.rtol * max(abs(row.left), abs(row.right))
