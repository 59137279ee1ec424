"""`findings`: what is wrong in a `GradientLog`, in sentences with their thresholds."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from tapekit._names import is_bias, some

DEPTH = 100.0  # the ratio of the gradients of the first and the last layer, or its inverse
SPIKE, BEFORE = 10.0, 20  # the ratio of the global norm to its median over the BEFORE rows before
FADED = 1e-4  # the ratio of the global norm at the end to that at the start
FELL = 0.1  # the relative fall of a loss that learns
DEAD = 0.9  # the share of rows in which every element is 0
UPDATE = (1e-4, 1e-2)  # a factor of 10 below and above 1e-3, which trains most networks


def findings(log: Any) -> tuple[str, ...]:
    """Return what is wrong, in sentences that name the first step, the variables and the threshold."""
    log = log.read()
    kinds = (_nonfinite, _missing, _depth, _spikes, _fading, _clipping, _updates) if len(log) else ()
    lost = [f"{log.lost} rows are lost: they were overwritten before the log was read."] if log.lost else []
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the median of nothing is NaN
        return (*lost, *(sentence for kind in kinds for sentence in kind(log)))


def _nonfinite(log: Any) -> Iterator[str]:
    bad, begin = log.nonfinite > 0, _explosion(log)
    if not bad.any():
        return
    row = int(bad.any(1).argmax())
    first = int(bad[row].argmax())
    story = "Not finite: "
    if begin < row:
        low, high = (f"{log.global_norm[r]:.3g} at step {log.steps[r]}" for r in (begin - 1, row - 1))
        story = f"Explosion: the global norm rose from {low} to {high}, beginning at step {log.steps[begin]}; then "
    counts = _counts(log, bad, "had NaN or infinite elements")
    yield f"{story}{counts} ({log.nonfinite[row, first]} elements of {log.names[first]})."


def _explosion(log: Any) -> int:
    """Return the first row of the spikes that lead up to the first nonfinite row; the number of rows if none do."""
    norms = log.global_norm[: (log.nonfinite > 0).any(1).argmax()]
    lowest = np.fmin.accumulate(norms[::-1])[::-1]  # the least norm from each row on
    return int(min(np.flatnonzero(lowest > SPIKE * _usual(norms)), default=len(log)))


def _usual(norms: np.ndarray) -> np.ndarray:
    """Return the median of the rows before each row; NaN where there is none, or where it is 0."""
    padded = np.concatenate([np.full(BEFORE, np.nan), norms[:-1].astype(float)])
    usual = np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, BEFORE), axis=1)
    return np.where(usual > 0, usual, np.nan)[: len(norms)]


def _missing(log: Any) -> Iterator[str]:
    if log.missing.any():
        counts = _counts(log, log.missing, "had no gradient")
        yield f"None: {counts}. Call tapekit.explain(fn, vars) to see where the gradient is lost."
    zero = (log.zero_fraction == 1) & (log.nonfinite == 0)
    zero &= zero.mean(0) >= DEAD
    if zero.any():
        yield f"All zero: {_counts(log, zero, 'had a gradient of zeros')}."


def _depth(log: Any) -> Iterator[str]:
    """Compare the layers by their biases, whose gradient is the sum of the back-propagated signal."""
    biases = np.array([is_bias(name) for name in log.names])
    layers = np.flatnonzero(biases if biases.sum() > 2 else ~biases)
    if len(layers) < 3:
        return
    sizes = np.hypot(log.mean[:, layers], log.std[:, layers], dtype=float)  # root mean square
    sizes[~(sizes > 0)] = np.nan
    logs, (i, j) = np.log(np.nanmedian(sizes, 0)), np.triu_indices(len(layers), 1)
    slope = np.nanmedian((logs[j] - logs[i]) / (j - i))  # the Theil-Sen estimator: a single layer does not change it
    falls = np.log(sizes[:, 0] / sizes[:, -1])
    middle = np.nanmedian(falls)
    word, sign = ("Vanishing", -1) if middle < 0 else ("Exploding", 1)
    if sign * middle > np.log(DEPTH) and -sign * slope * len(layers) > np.log(DEPTH):
        first, last = (log.names[layers[end]] for end in (0, -1))
        what = f"the gradient (root mean square) of {first} is {np.exp(middle):.2g} times that of {last}"
        each = f"{np.exp(middle / (len(layers) - 1)):.3g} times per layer"
        begin = f"first at step {log.steps[(sign * falls > np.log(DEPTH)).argmax()]} (threshold: {DEPTH:g})"
        yield f"{word} towards the input: {what} in the median row, or {each}, {begin}."


def _spikes(log: Any) -> Iterator[str]:
    times = log.global_norm / _usual(log.global_norm)
    times[:BEFORE] = 0  # a training may begin with large gradients
    times[_explosion(log) :] = 0  # the sentence about the explosion tells of these
    spikes = np.flatnonzero(times > SPIKE)
    if len(spikes):
        rows = f"in {len(spikes)} rows, first at step {log.steps[spikes[0]]} ({times[spikes[0]]:.3g} times)"
        yield f"Spikes: the global norm is more than {SPIKE:g} times the median of the {BEFORE} rows before it {rows}."


def _fading(log: Any) -> Iterator[str]:
    tenth = len(log) // 10
    norm, loss = ((np.median(x[:tenth]), np.median(x[-tenth:])) for x in (log.global_norm, log.loss))
    if len(log) >= BEFORE and 0 < norm[1] < FADED * norm[0] and not loss[0] - loss[1] > FELL * abs(loss[0]):
        step = log.steps[(log.global_norm < FADED * norm[0]).argmax()]
        fall = f"from {norm[0]:.3g} to {norm[1]:.3g} (medians of the first and last {tenth} rows)"
        first = f"first below {FADED:g} times the former at step {step}"
        losses = f"went from {loss[0]:.3g} to {loss[1]:.3g}" if log.has_loss else "is not recorded"
        yield f"Fading: the global norm fell {fall}, {first}. The loss {losses}."


def _clipping(log: Any) -> Iterator[str]:
    argument, limit, begin = log.clipping or ("clipnorm", np.inf, 0)
    sizes = {"clipnorm": log.norm, "clipvalue": log.max_abs, "global_clipnorm": log.global_norm[:, np.newaxis]}
    rows = log.steps >= begin
    clipped = (sizes[argument] > limit).any(1) & rows
    if clipped.any():
        what = f"{argument}={limit:g} made gradients smaller in {clipped.sum()} of {rows.sum()} rows"
        step = log.steps[clipped.argmax()]
        yield f"Clipping: {what}, first at step {step}. The log holds the gradients before clipping."


def _updates(log: Any) -> Iterator[str]:
    begin = len(log) // 2
    ratios = np.where(np.isfinite(log.update_ratio), log.update_ratio, np.nan)[begin:]
    moved = (ratios > 0).any(1)
    ratios = ratios[moved] if moved.any() else ratios  # with gradient accumulation, most steps update nothing
    middles = np.where([is_bias(name) for name in log.names], np.nan, np.nanmedian(ratios, 0))  # biases begin at 0
    for word, off in (("small", middles < UPDATE[0]), ("large", middles > UPDATE[1])):
        far = sorted(np.flatnonzero(off), key=lambda v: -abs(np.log(middles[v] / 1e-3 + 1e-30)))
        if far:
            names, usual = [log.names[v] for v in far], f"(thresholds {UPDATE[0]:g} and {UPDATE[1]:g})"
            change = f"{middles[far[0]]:.1e} of its norm (the median from step {log.steps[begin]} on)"
            also = f" Updates of {some(names[1:])} are too {word} as well." if names[1:] else ""
            yield f"Updates too {word}: a step changes {names[0]} by {change}.{also} About 1e-3 is usual {usual}."


def _counts(log: Any, which: np.ndarray, what: str) -> str:
    """Return the variables for which `which` holds, the number of rows and the first step; the same ones together."""
    alike: dict[tuple, list[str]] = {}
    for v in np.flatnonzero(which.any(0)):
        alike.setdefault((log.steps[which[:, v].argmax()], which[:, v].sum()), []).append(log.names[v])
    groups = sorted(alike.items())
    rest = sum(len(names) for _, names in groups[4:])
    found = [f"{some(names)} {what} in {n} of {len(log)} rows, first at step {step}" for (step, n), names in groups]
    return "; ".join(found[:4]) + (f"; and {rest} more variables" if rest else "")
