"""`findings`: what is wrong in a `GradientLog`, in sentences with their thresholds; `table`: its last row, printed."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from tapekit._names import is_bias, some

DEPTH = 100.0  # ratio of the gradients of the first and the last layer, either way
SPIKE, BEFORE = 10.0, 20  # ratio of the global norm to its median over so many rows before
FADED, FELL = 1e-4, 0.1  # ratio of the global norm at the end to that at the start; relative fall of a loss that learns
DEAD = 0.9  # share of rows in which every element is 0
TABLE = (
    *(("norm", "norm", "10.4g"), ("mean", "mean", "10.3g"), ("std", "std", "10.3g"), ("max_abs", "max_abs", "10.4g")),
    *(("zero_fraction", "zeros", "10.0%"), ("nonfinite", "not finite", "12.0f"), ("update_ratio", "update", "10.1e")),
)
UPDATE = (1e-4, 1e-2)  # a factor of 10 below and above 1e-3, which trains most networks


def findings(log: Any) -> tuple[str, ...]:
    """Return one sentence for each thing that is wrong, with the first step and the variables."""
    kinds = (_lost, _nonfinite, _missing, _dead, _depth, _spikes, _fading, _clipping, _updates)
    return tuple(sentence for kind in kinds if len(log) for sentence in kind(log))


def table(log: Any) -> str:
    """Return the last row as text, one line for each variable."""
    if not len(log):
        return "GradientLog: no rows yet"
    width = max([8, *map(len, log.names)])
    lost = f", {log.lost} rows lost" if log.lost else ""
    loss = f"{log.loss[-1]:.4g}" if log.has_loss else "not recorded"
    last = np.array([getattr(log, field)[-1] for field, _, _ in TABLE[: 6 + log.updates]])
    lines = [
        f"step {log.steps[-1]} (row {len(log)}), loss {loss}, global norm {log.global_norm[-1]:.4g}{lost}",
        f"{'variable':<{width}}" + "".join(f"{head:>{form[:2]}}" for _, head, form in TABLE[: 6 + log.updates]),
    ]
    for name, missing, numbers in zip(log.names, log.missing[-1], last.T, strict=True):
        cells = "".join(f"{number:>{form}}" for number, (_, _, form) in zip(numbers, TABLE, strict=False))
        lines.append(f"{name:<{width}}" + (f"{'None':>10}" if missing else cells))
    return "\n".join(lines)


def _lost(log: Any) -> Iterator[str]:
    if log.lost:
        yield f"{log.lost} rows are lost: they were overwritten before the log was read."


def _nonfinite(log: Any) -> Iterator[str]:
    bad = log.nonfinite > 0
    if not bad.any():
        return
    row, begin = int(bad.any(1).argmax()), _explosion(log)
    first = int(bad[row].argmax())
    story = "Not finite: "
    if begin < row:
        story = (
            f"Explosion: the global norm rose from {log.global_norm[begin - 1]:.3g} at step {log.steps[begin - 1]}, "
            f"first at step {log.steps[begin]}, to {log.global_norm[row - 1]:.3g} at step {log.steps[row - 1]}; then "
        )
    yield (
        f"{story}{_counts(log, bad, 'had NaN or infinite elements')} ({log.nonfinite[row, first]} elements of "
        f"{log.names[first]})."
    )


def _explosion(log: Any) -> int:
    """Return the row from which on every row is a spike, until elements are not finite; the last if there is none."""
    norms = log.global_norm[: (log.nonfinite > 0).any(1).argmax()]
    lowest = np.fmin.accumulate(norms[::-1])[::-1]  # from this row on
    begins = np.flatnonzero(lowest > SPIKE * _usual(norms))
    return int(begins[0]) if len(begins) else len(log)


def _usual(norms: np.ndarray) -> np.ndarray:
    """Return the median of the rows before each row; NaN where there is none, or where it is 0."""
    padded = np.concatenate([np.full(BEFORE, np.nan), norms[:-1].astype(float)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the median of nothing is NaN
        usual = np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, BEFORE), axis=1)
    return np.where(usual > 0, usual, np.nan)[: len(norms)]


def _missing(log: Any) -> Iterator[str]:
    if log.missing.any():
        counts = _counts(log, log.missing, "had no gradient")
        yield f"None: {counts}. Call tapekit.explain(fn, vars) to see where the gradient is lost."


def _dead(log: Any) -> Iterator[str]:
    zero = (log.zero_fraction == 1) & (log.nonfinite == 0)
    zero &= zero.mean(0) >= DEAD
    if zero.any():
        yield f"All zero: {_counts(log, zero, 'had a gradient of zeros')}."


def _depth(log: Any) -> Iterator[str]:
    """Compare biases: their gradient is the sum of the back-propagated signal, which a kernel's is not."""
    layers = np.array([is_bias(name) for name in log.names])
    layers = layers if layers.sum() > 2 else ~layers
    names = np.array(log.names)[layers]
    sizes = np.hypot(log.mean[:, layers], log.std[:, layers]).astype(float)  # root mean square
    sizes[~(sizes > 0)] = np.nan
    if len(names) < 3 or np.isnan(sizes[:, [0, -1]]).any(1).all():
        return
    fall = sizes[:, 0] / sizes[:, -1]
    middle = float(np.nanmedian(fall))
    if 1 / DEPTH <= middle <= DEPTH:
        return
    word, off = ("Vanishing", fall < 1 / DEPTH) if middle < 1 else ("Exploding", fall > DEPTH)
    yield (
        f"{word} towards the input: the gradient (root mean square) of {names[0]} is {middle:.2g} times that of "
        f"{names[-1]} in the median row, {middle ** (1 / (len(names) - 1)):.3g} a layer, first at step "
        f"{log.steps[off.argmax()]} (threshold {DEPTH:g} either way)."
    )


def _spikes(log: Any) -> Iterator[str]:
    times = log.global_norm / _usual(log.global_norm)
    times[:BEFORE] = 0  # a training may begin with large gradients
    times[_explosion(log) :] = 0  # that story is told already
    spikes = np.flatnonzero(times > SPIKE)
    if len(spikes):
        yield (
            f"Spikes: the global norm is more than {SPIKE:g} times the median of the {BEFORE} rows before it in "
            f"{len(spikes)} rows, first at step {log.steps[spikes[0]]} ({times[spikes[0]]:.3g} times)."
        )


def _fading(log: Any) -> Iterator[str]:
    tenth = len(log) // 10
    if len(log) < BEFORE:
        return
    (first, last), (loss, end) = (
        (float(np.median(x[:tenth])), float(np.median(x[-tenth:]))) for x in (log.global_norm, log.loss)
    )
    if not 0 < last < FADED * first or loss - end > FELL * abs(loss):
        return
    low = log.global_norm < FADED * first
    loss_is = f"is {end:.3g}, after {loss:.3g}" if log.has_loss else "is not recorded"
    yield (
        f"Fading: the global norm fell from {first:.3g} to {last:.3g} (medians of the first and last {tenth} rows), "
        f"first below {FADED:g} of it at step {log.steps[low.argmax()]}. The loss {loss_is}."
    )


def _clipping(log: Any) -> Iterator[str]:
    if log.clipping is None:
        return
    argument, limit, begin = log.clipping
    sizes = {"clipnorm": log.norm, "clipvalue": log.max_abs, "global_clipnorm": log.global_norm[:, np.newaxis]}
    rows = log.steps >= begin
    clipped = (sizes[argument] > limit).any(1) & rows
    if clipped.any():
        yield (
            f"Clipping: {argument}={limit:g} made gradients smaller in {clipped.sum()} of {rows.sum()} rows, first at "
            f"step {log.steps[clipped.argmax()]}. The log has them as they were before."
        )


def _updates(log: Any) -> Iterator[str]:
    begin = len(log) // 2
    ratios = np.where(np.isfinite(log.update_ratio), log.update_ratio, np.nan)[begin:]
    moved = (ratios > 0).any(1)
    ratios = ratios[moved] if moved.any() else ratios  # with gradient accumulation, most steps update nothing
    known = ~np.isnan(ratios).all(0) & np.array([not is_bias(name) for name in log.names])  # biases begin at 0
    middles = np.full(len(known), 1e-3)
    middles[known] = np.nanmedian(ratios[:, known], axis=0)
    for word, sign, off in (("small", 1, middles < UPDATE[0]), ("large", -1, middles > UPDATE[1])):
        order = [int(v) for v in np.argsort(sign * middles) if off[v]]
        if order:
            others = (
                f" Updates of {some([log.names[v] for v in order[1:]])} are too {word} as well." if order[1:] else ""
            )
            yield (
                f"Updates too {word}: a step changes {log.names[order[0]]} by {middles[order[0]]:.1e} of its norm (the "
                f"median from step {log.steps[begin]} on).{others} About 1e-3 is usual (thresholds {UPDATE[0]:g} and "
                f"{UPDATE[1]:g})."
            )


def _counts(log: Any, which: np.ndarray, what: str) -> str:
    """Return in how many rows, and at which step first, it holds for each variable; those alike are told together."""
    alike: dict[tuple, list[str]] = {}
    for v in np.flatnonzero(which.any(0)):
        alike.setdefault((log.steps[which[:, v].argmax()], which[:, v].sum()), []).append(log.names[v])
    parts = [
        f"{some(names)} {what} in {count} of {len(log)} rows, first at step {step}"
        for (step, count), names in sorted(alike.items())
    ]
    return "; ".join(parts[:4]) + (
        f"; and {sum(map(len, list(alike.values())[4:]))} more variables" if parts[4:] else ""
    )
