"""Which of the two is right: `judge` holds the gradient of the tape on one line against the measured slope."""

import math
from typing import Any, NamedTuple

import numpy as np

from tapekit.checking.differences import Slopes

CROWD = 1024  # of more elements, float32 cannot see one: a block of them is judged by its sum
SURE = 20.0  # the error estimate is an estimate: over 500 functions, 20 of it separated right from wrong best
RTOL = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 3e-4, "float64": 1e-7}  # right gradients are off by less


class Judgement(NamedTuple):
    """A verdict, and how far the gradient is from agreement, in units of what is allowed."""

    verdict: str
    doubt: float


def judge(found: Any, key: tuple[int, int], sure: bool = False) -> Judgement:
    """Return the verdict on one line of a `Comparison`.

    One wrong element must not drown in the sum over a block: a block is held to the size of one of its elements,
    and opened if it fails; unless it is to be `sure`, then to the size of all.
    """
    row, lines = found.rows[key], found.lines
    a, n, u = row.analytic, row.numeric, row.uncertainty
    low, high = np.sort([row.left, row.right])
    if row.diverges or kink(found, row):
        slack = 10 * found.rtol * max(abs(low), abs(high)) + found.atol + 2 * row.sides
        subgradient = low - slack <= a <= high + slack or row.diverges or not row.finite
        return Judgement("kink" if subgradient else "fail", math.inf)
    if not row.finite:
        return Judgement("fail" if abs(n) < found.huge else "inconclusive", math.inf)  # it may only have overflowed
    if not math.isfinite(u):
        return Judgement("inconclusive", 1e6)
    scale, error = max(abs(a), abs(n)), abs(a - n)
    held = scale if key[1] == 1 else max(scale, row.norm) if sure else row.norm / math.sqrt(key[1])
    allowed = found.rtol * held + found.atol + found.tiny  # a gradient that underflows is 0
    doubt = error / (allowed + 4 * u + 1e-300)
    zero = abs(n) <= SURE * u and abs(a) <= found.eps * found.peaks.max()
    seen = held if key[1] <= CROWD else scale
    explained = error <= 4 * u and SURE * u <= max(0.1 * seen, 0.01 * found.peaks[found.source_of(key)])
    right = right_in_float64(found, key)
    slope = lines.height / abs(lines.unit[key[0]])  # at which fn changes by its own size
    fine = found.fine[key[0]] if right and found.fine is not None else math.nan
    rounded = right and (
        error <= 10 * found.rtol * scale or abs(a - fine) <= 16 * found.eps * max(found.peaks.max(), slope)
    )
    if error <= allowed or zero or explained or rounded:
        return Judgement("pass", doubt)
    # an error below eps * slope shows in the values of fn at no step
    certain = error > max(SURE * u, lines.eps * slope) and not kink(found, row, 4.0) and not right
    return Judgement("fail" if certain else "inconclusive", 10 + doubt)


def kink(found: Any, row: Slopes, times: float = SURE) -> bool:
    """Whether the slopes of the two sides differ, by more than tolerance and uncertainty."""
    gap = abs(row.right - row.left)
    return gap > times * row.sides and gap > 10 * found.rtol * max(abs(row.left), abs(row.right))


def right_in_float64(found: Any, key: tuple[int, int]) -> bool:
    """Whether the tape in float64 gives the slope, so that only rounding in the caller's dtype is left."""
    if key[1] > 1 or found.tape.raw[found.source_of(key)] is None or found.fine is None:
        return False
    row = found.rows[key]
    allowed = SURE * row.uncertainty + RTOL["float64"] * abs(row.numeric)
    return abs(found.fine[key[0]] - row.numeric) <= allowed
