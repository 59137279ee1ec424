"""Slopes with an uncertainty: `measure_slopes` turns the values of `fn` at many steps along lines into `Slopes`.

Central differences at several steps are extrapolated to step 0 (Richardson), and the step at which neighbours agree
best is chosen. The rounding of the values, divided by the step, is part of the uncertainty.

Source: Press et al., Numerical Recipes, section 5.7 (step, rounding, Ridders' extrapolation).
"""

import warnings
from typing import NamedTuple

import numpy as np

from tapekit.checking.lines import ROUNDINGS, Lines, Values

STEPS = 12  # per line, evenly in log h between a tenth of the scale and the square root of eps
NEAREST = 64  # one more step, of so many roundings of the point: it shows a jump that is very near
COARSE = 4 * NEAREST  # a smooth fn changes by fewer roundings at the nearest step: if by more, larger numbers cancel
WILD = 0.05  # if values scatter by more than this part of their size at the smallest steps, fn varies below these
READABLE = 200  # a slope of so many times its rounding shows how it grows as the step shrinks
SURE = 20.0  # the uncertainty is an estimate: over 500 functions, 20 times it separated right from wrong best
AGREE = 2.0  # slopes at two steps are the same if they differ by at most so many uncertainties of rounding


class Slopes(NamedTuple):
    """The slopes of `fn`: an entry per line (``steps`` and ``curve``: a row per line).

    ``numeric`` +- ``uncertainty`` is the slope, measured best at ``step``. ``left`` and ``right`` are those of either
    side, their difference known to +- ``sides``. ``diverges``: no slope settles.
    """

    numeric: np.ndarray
    uncertainty: np.ndarray
    step: np.ndarray
    left: np.ndarray
    right: np.ndarray
    sides: np.ndarray
    diverges: np.ndarray
    steps: np.ndarray
    curve: np.ndarray


def measure_slopes(lines: Lines, starts: np.ndarray, widths: np.ndarray, quick: bool = False) -> Slopes:
    """Return the slope of each line from differences at many steps, extrapolated, with its uncertainty.

    `quick` takes three steps near eps^(1/3), where central differences are usually best; otherwise `STEPS` steps
    cover every scale at which `fn` may vary, and the rounding of `fn` is measured too.
    """
    starts, widths = np.asarray(starts), np.asarray(widths)
    h = _steps(lines, starts, widths, quick)
    values = lines(starts, widths, np.concatenate([h, -h], axis=1))
    up, down = (Values(*sides) for sides in zip(*(np.split(each, 2, axis=1) for each in values), strict=True))
    unit = np.where(widths == 1, lines.direction[starts], 1.0)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a line where fn is nowhere defined is all NaN
        return _slopes(up, down, *_rounding(lines, up, down, quick), unit)


def _rounding(lines: Lines, up: Values, down: Values, quick: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the rounding of the values, `[lines, steps]`, and their noise, `[lines]`, measured at the smallest steps.

    Values change by multiples of their rounding. It is eps times the outputs that change, or, where larger
    intermediate numbers cancel, at most eps times the largest of these; but not more than the smallest change.
    """
    moved = np.fmax(up.there, down.there)
    ever = np.fmax.reduce(np.fmax(up.here, down.here), axis=1, keepdims=True)  # also what only a larger step changes
    rounding = lines.eps * np.fmax(moved, ever)
    if quick:
        return rounding, np.zeros(len(rounding))
    changes = np.abs(np.concatenate([up.change, down.change], axis=1))
    smallest = np.fmin.reduce(np.where(changes > 0, changes, np.inf), axis=1, keepdims=True)
    if (smallest > COARSE * rounding).any():
        smallest = np.minimum(smallest, lines.eps * lines.largest)
    noise = _noise(up.change - down.change, up.step - down.step)  # the odd part has no curvature
    wild = noise > WILD * np.fmax(moved.max(1), lines.moving_size)
    if wild.any():  # if by more than rounding explains, fn varies below the smallest step
        noise[wild & (noise > AGREE * ROUNDINGS * lines.eps * lines.largest)] = np.inf
    return np.fmax(rounding, smallest), noise


def _steps(lines: Lines, starts: np.ndarray, widths: np.ndarray, quick: bool) -> np.ndarray:
    """Return the steps on each line, `[lines, steps]`, from large to small, in units of the line."""
    single = widths == 1
    scale, size = np.abs(lines.direction[starts]), np.abs(lines.point.numpy()[starts])
    size = np.where(np.isfinite(size), size, 1.0)
    wide = np.where(single, np.maximum(1.0, size) / scale, 1.0)
    narrow = np.where(single & (size > 0), size / scale, 1.0)
    best = lines.eps ** (1 / 3) * wide
    if not single.all():  # the step of a block changes fn by eps^(1/3) of its size
        parts = [slice(a, a + w) for a, w in zip(starts, widths, strict=True)]
        gradient = np.nan_to_num(lines.tape.vector)
        slope = np.array([abs(np.dot(gradient[part], lines.direction[part])) for part in parts])
        reach = lines.eps ** (1 / 3) * max(lines.moving_size, np.sqrt(lines.eps) * lines.largest) / (slope + 1e-300)
        best = np.where(single, best, np.minimum(best, reach))
    if quick:
        return np.geomspace(best, best / 16, 3, axis=1)
    top, low = 0.1 * wide, np.minimum(narrow * np.sqrt(lines.eps), 0.01 * wide)
    h = np.geomspace(np.where(single, top, 30 * best), np.where(single, low, best / 100), STEPS, axis=1)
    return np.concatenate([h, np.minimum(h[:, -1:] / 16, NEAREST * lines.eps * narrow[:, None])], axis=1)


def _slopes(up: Values, down: Values, rounding: np.ndarray, noise: np.ndarray, unit: np.ndarray) -> Slopes:
    """Return the slopes per `unit` of the line, from the values on the way up and down."""
    h = up.step - down.step
    central = (up.change - down.change) / h
    right, left = up.change / up.step, down.change / down.step
    rounding = 2 * rounding / h
    noise = np.fmax(rounding, 2 * noise[:, None] / h)
    best = _extrapolate(central, h, noise, 2)
    sides = [_extrapolate(s, step, 2 * noise, 1) for s, step in ((left, -down.step), (right, up.step))]
    for side in reversed(sides):  # at the edge of a domain, one side is all there is
        best = np.where(np.isfinite(best[1]), best, side)
    value, error, at = best
    size, flip = np.abs(unit), unit < 0
    lower, upper = sides[0][0] / unit, sides[1][0] / unit
    return Slopes(
        numeric=value / unit,
        uncertainty=error / size,
        step=at / 2 * size,
        left=np.where(flip, upper, lower),
        right=np.where(flip, lower, upper),
        sides=(sides[0][1] + sides[1][1]) / size,
        diverges=_diverges(right, 2 * rounding, h) | _diverges(left, 2 * rounding, h),
        steps=h / 2 * size[:, None],
        curve=central / unit[:, None],
    )


def _extrapolate(slope: np.ndarray, h: np.ndarray, noise: np.ndarray, power: int) -> np.ndarray:
    """Return ``[value, uncertainty, step]`` per line: Richardson's extrapolation where two neighbours agree best.

    A slope has the error c h^power, so that S(h) and S(h/r) give S(h/r) + (S(h/r) - S(h)) / (r^power - 1).
    """
    ratio = (h[:, :-1] / h[:, 1:]) ** power
    better = slope[:, 1:] + (slope[:, 1:] - slope[:, :-1]) / (ratio - 1)
    spread = noise[:, 1:] * (ratio + 1) / (ratio - 1)
    # Large steps across a kink can agree. The distance from the slopes at smaller steps is uncertainty too.
    low = np.fmax.accumulate((better - AGREE * spread)[:, ::-1], axis=1)[:, ::-1]
    high = np.fmin.accumulate((better + AGREE * spread)[:, ::-1], axis=1)[:, ::-1]
    apart = np.fmax(np.fmax(low - better, better - high), 0.0)
    change = np.abs(np.diff(better, axis=1))
    change[:, :-1] = np.fmax(change[:, :-1], change[:, 1:])  # two may agree by chance, three hardly
    error = change + spread[:, 1:] + apart[:, 1:]
    error = np.where(np.isfinite(error), error, np.inf)
    best, rows = np.argmin(error, axis=1), np.arange(len(error))
    return np.array([better[rows, best + 1], error[rows, best], h[rows, best + 2]])


def _noise(change: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return how far the changes at the smallest steps are from a straight line: the median, which ignores a jump."""
    slope = np.diff(change, axis=1) / np.diff(step, axis=1)
    return np.nanmedian(np.abs(np.diff(slope, axis=1) * step[:, 1:-1])[:, -3:], axis=1)


def _diverges(slope: np.ndarray, noise: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Return whether the slope grows like a power of 1/h to the smallest readable step: a jump, a vertical tangent.

    If the slope is certainly smaller at an even smaller step, the jump is near the point and not at it.
    """
    readable = np.isfinite(slope) & (READABLE * noise <= np.abs(slope))
    count = slope.shape[1]
    many = min(count, 4)
    last = count - 1 - np.argmax(readable[:, ::-1], axis=1)  # the smallest readable step
    rows, places = np.arange(len(last)), np.maximum(last - np.arange(many)[:, None], 0)
    power = -np.diff(np.log(np.abs(slope[rows, places])), axis=0) / np.diff(np.log(h[rows, places]), axis=0)
    ends = (last >= many - 1) & readable[rows, places[0]] & readable[rows, places[-1]]
    below = np.abs(slope) + SURE * noise < np.abs(slope[rows, last])[:, None]
    beside = (below & (np.arange(count) > last[:, None])).any(axis=1)
    return ends & ~beside & (power.min(0) > 0.1) & (np.ptp(power, axis=0) < 0.3)
