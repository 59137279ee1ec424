"""`findings`: what is wrong in a `GradientLog`, in sentences with their thresholds; `table`: its last row, printed."""

from typing import Any

import numpy as np

from tapekit._names import is_bias, some

DEPTH = 100.0  # ratio of the gradients of the first and the last layer, either way
SPIKE, BEFORE = 10.0, 20  # ratio of the global norm to its median over so many rows before
DEAD = 0.9  # share of rows in which every element is 0
TABLE = (
    *(("norm", "norm", "10.4g"), ("mean", "mean", "10.3g"), ("std", "std", "10.3g"), ("max_abs", "max_abs", "10.4g")),
    *(("zero_fraction", "zeros", "10.0%"), ("nonfinite", "not finite", "12.0f"), ("update_ratio", "update", "10.1e")),
)
UPDATE = (1e-4, 1e-2)  # a factor of 10 below and above 1e-3, which trains most networks


def findings(log: Any) -> tuple[str, ...]:
    """Return one sentence for each thing that is wrong, with the first step and the variables."""
    found = [f"{log.lost} rows are lost: the ring of {log.capacity} was overrun between two reads."] if log.lost else []
    if not len(log) or not log.names:
        return tuple(found)
    return tuple(found + _nonfinite(log) + _missing(log) + _dead(log) + _depth(log) + _spikes(log) + _updates(log))


def table(log: Any) -> str:
    """Return the last row as text, one line for each variable."""
    if not len(log):
        return "GradientLog: no rows yet"
    width = max([8, *map(len, log.names)])
    lost = f", {log.lost} rows lost" if log.lost else ""
    last = np.array([getattr(log, field)[-1] for field, _, _ in TABLE[: 6 + log.updates]])
    lines = [
        f"step {log.steps[-1]} (row {len(log)}), loss {log.loss[-1]:.4g}, global norm {log.global_norm[-1]:.4g}{lost}",
        f"{'variable':<{width}}" + "".join(f"{head:>{form[:2]}}" for _, head, form in TABLE[: 6 + log.updates]),
    ]
    for name, missing, numbers in zip(log.names, log.missing[-1], last.T, strict=True):
        cells = "".join(f"{number:>{form}}" for number, (_, _, form) in zip(numbers, TABLE, strict=False))
        lines.append(f"{name:<{width}}" + (f"{'None':>10}" if missing else cells))
    return "\n".join(lines)


def _nonfinite(log: Any) -> list[str]:
    bad = log.nonfinite > 0
    if not bad.any():
        return []
    row = int(bad.any(1).argmax())
    first = int(bad[row].argmax())
    return [
        f"Not finite: {_those(log, bad.any(0))} had NaN or infinite elements in {bad.any(1).sum()} of {len(log)} rows, "
        f"first at step {log.steps[row]} ({log.nonfinite[row, first]} elements of {log.names[first]})."
    ]


def _missing(log: Any) -> list[str]:
    none = log.missing
    if not none.any():
        return []
    return [
        f"None: {_those(log, none.any(0))} had no gradient in {none.any(1).sum()} of {len(log)} rows, first at step "
        f"{log.steps[none.any(1).argmax()]}. Call tapekit.explain(fn, vars) to see where the gradient is lost."
    ]


def _dead(log: Any) -> list[str]:
    zero = (log.zero_fraction == 1) & (log.nonfinite == 0)
    dead = zero.mean(0) >= DEAD
    if not dead.any():
        return []
    return [
        f"All zero: every element of the gradient of {_those(log, dead)} is 0 in {DEAD:.0%} of the rows or more, "
        f"first at step {log.steps[zero[:, dead].any(1).argmax()]}."
    ]


def _depth(log: Any) -> list[str]:
    """Compare biases: their gradient is the sum of the back-propagated signal, which a kernel's is not."""
    layers = np.array([is_bias(name) for name in log.names])
    layers = layers if layers.sum() > 2 else ~layers
    names = np.array(log.names)[layers]
    sizes = np.hypot(log.mean[:, layers], log.std[:, layers]).astype(float)  # root mean square
    sizes[~(sizes > 0)] = np.nan
    if len(names) < 3 or np.isnan(sizes[:, [0, -1]]).any(1).all():
        return []
    fall = sizes[:, 0] / sizes[:, -1]
    middle = float(np.nanmedian(fall))
    if 1 / DEPTH <= middle <= DEPTH:
        return []
    word, off = ("Vanishing", fall < 1 / DEPTH) if middle < 1 else ("Exploding", fall > DEPTH)
    return [
        f"{word} towards the input: the gradient (root mean square) of {names[0]} is {middle:.2g} times that of "
        f"{names[-1]} in the median row, {middle ** (1 / (len(names) - 1)):.3g} a layer, first at step "
        f"{log.steps[off.argmax()]} (threshold {DEPTH:g} either way)."
    ]


def _spikes(log: Any) -> list[str]:
    norms = log.global_norm.astype(float)
    if len(norms) <= BEFORE:
        return []
    usual = np.median(np.lib.stride_tricks.sliding_window_view(norms[:-1], BEFORE), axis=1)
    times = norms[BEFORE:] / np.where(usual > 0, usual, np.inf)
    spikes = np.flatnonzero(times > SPIKE)
    if not len(spikes):
        return []
    return [
        f"Spikes: the global norm is more than {SPIKE:g} times the median of the {BEFORE} rows before it in "
        f"{len(spikes)} rows, first at step {log.steps[BEFORE + spikes[0]]} ({times[spikes[0]]:.3g} times)."
    ]


def _updates(log: Any) -> list[str]:
    half = len(log) // 2
    ratios = np.where(np.isfinite(log.update_ratio), log.update_ratio, np.nan)[half:]
    known = ~np.isnan(ratios).all(0) & np.array([not is_bias(name) for name in log.names])  # biases begin at 0
    middles = np.full(len(known), 1e-3)
    middles[known] = np.nanmedian(ratios[:, known], axis=0)
    found = []
    for word, off in (("small", middles < UPDATE[0]), ("large", middles > UPDATE[1])):
        if off.any():
            worst = middles[off].min() if word == "small" else middles[off].max()
            found.append(
                f"Updates too {word}: a step changes {_those(log, off)} by {worst:.1e} of its norm (worst median from "
                f"step {log.steps[half]} on). About 1e-3 is usual (thresholds {UPDATE[0]:g} and {UPDATE[1]:g})."
            )
    return found


def _those(log: Any, which: np.ndarray) -> str:
    return some([log.names[i] for i in np.flatnonzero(which)])
