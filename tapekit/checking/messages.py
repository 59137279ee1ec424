"""The verdict on a source in words: `source_check` returns a `SourceCheck` whose cause is a sentence."""

import math

import numpy as np
import tensorflow as tf

from tapekit._sources import values_of
from tapekit.checking.comparison import Comparison, Key
from tapekit.checking.dtypes import epsilon
from tapekit.checking.judgement import RTOL, SURE, kink, right_in_float64
from tapekit.checking.results import VERDICTS, SourceCheck
from tapekit.checking.tape import as_vector, pull_back, tensor


def source_check(found: Comparison, index: int, name: str) -> SourceCheck:
    """Return the verdict on source number `index`, with its cause in words."""
    if found.tape.random:
        cause = "random: fn returns another value or gradient at every call; fix its seed, or freeze its state"
        return SourceCheck(name, "nondeterministic", cause)
    if found.tape.raises:
        return SourceCheck(name, "fail", found.tape.raises)
    source, raw, keys = values_of(found.call.sources[index]), found.tape.raw[index], found.touching(index)
    parts = 2 if source.dtype.is_complex else 1
    size, blocks = found.lines.sizes[index] // parts, sum(key[1] > 1 for key in keys)
    checked = f"{size} of {size} elements" + (f" in {blocks} blocks" if blocks else "")
    if raw is not None and tensor(raw).shape != source.shape:
        cause = f"wrong shape: the gradient is {tuple(tensor(raw).shape)}, the source {tuple(source.shape)}"
        return SourceCheck(name, "fail", cause, checked=checked)
    if not keys:
        return SourceCheck(name, "pass", "", checked=checked)
    judged = {key: found.judge(key, sure=True) for key in keys}
    # the gravest, of these the best measured, of these the most doubtful
    worst = max(keys, key=lambda k: (VERDICTS.index(judged[k].verdict), len(found.rows[k].steps), judged[k].doubt))
    verdict, row = judged[worst].verdict, found.rows[worst]
    cause = "" if verdict == "pass" else _cause(found, index, worst, verdict)
    if verdict in ("pass", "inconclusive") and not found.tape.linear[index]:
        verdict, cause = "fail", _upstream(found, worst)
    at = max(worst[0] - int(found.lines.ends[index]) + found.lines.sizes[index], 0) // parts
    return SourceCheck(
        name,
        verdict,
        cause,
        index=tuple(map(int, np.unravel_index(at, source.shape))) if source.shape.rank else (),
        analytic=float(row.analytic if row.finite else found.tape.vector[worst[0] : sum(worst)].sum()),
        numeric=float(row.numeric),
        uncertainty=float(row.uncertainty),
        checked=checked,
        step=float(row.step),
        steps=tuple(row.steps.tolist()),
        differences=tuple(row.curve.tolist()),
    )


def _cause(found: Comparison, index: int, key: Key, verdict: str) -> str:
    """Return what is wrong, in words, from the numbers on the line `key`."""
    row = found.rows[key]
    if row.diverges:
        return "kink: the slope grows without bound as the step shrinks (a jump, or a vertical tangent)"
    if kink(found, row):
        return f"kink: the slope is {row.left + 0:.4g} on the left and {row.right + 0:.4g} on the right" + (
            "" if verdict == "kink" else f"; the gradient is not between them, it is {row.analytic:.4g}"
        )
    if not math.isfinite(row.numeric):
        return "fn is not finite here, or raises, on both sides: there is nothing to compare with"
    slope = f"the slope is {row.numeric:.6g}"
    if not row.finite:
        return f"the gradient is {found.tape.vector[key[0] : sum(key)].sum()}, {slope}"
    if verdict == "inconclusive" and right_in_float64(found, key):
        return f"right in float64, lost to rounding in the dtype of the source: it is {row.analytic:.6g}, {slope}"
    if verdict == "inconclusive":
        dtype = next(name for name in RTOL if epsilon(name) == found.lines.eps)
        return f"too noisy to tell in {dtype}: {slope}, give or take {SURE * row.uncertainty:.2g}"
    if found.tape.raw[index] is None:
        return f"missing: the gradient is None, {slope}"
    if not found.tape.linear[index]:
        return _upstream(found, key)
    if not row.analytic:
        return f"missing: the gradient is 0 where {slope}"
    if found.call.sources[index].dtype.is_complex and _conjugated(found, index, key):
        return "right in size, wrong in phase: a conjugate is missing"
    if key[1] == 1 and sum(int(tf.size(y)) for y in found.tape.outputs) > 1 and _right_for_sum(found, key):
        return "right for the sum of the outputs, wrong per output: the upstream gradient is mixed up"
    return _off_by(found, index, key)


def _off_by(found: Comparison, index: int, key: Key) -> str:
    """Return the factor by which a gradient is wrong, if one factor fits all that is wrong; else the relative error."""
    row = found.rows[key]
    failing = [found.rows[k] for k in found.touching(index) if found.judge(k, sure=True).verdict == "fail"]
    ratios = [float(each.analytic / each.numeric) for each in failing if each.numeric and not kink(found, each)]
    if not ratios or max(ratios) - min(ratios) > 0.01 * abs(ratios[0]):
        return f"off by {abs(row.analytic - row.numeric) / max(abs(row.analytic), abs(row.numeric)):.2%}"
    factor = float(np.median(ratios))
    if abs(factor + 1) < 1e-3:
        return "sign flipped"
    return "off by a factor of " + (
        f"{factor:.3f}" if abs(factor - 1) > 2e-3 and abs(factor) > 0.01 else f"{factor:.6g}"
    )


def _right_for_sum(found: Comparison, key: Key) -> bool:
    """Whether the gradient of the plain sum of the outputs is right."""
    outputs, back = pull_back(found.call)
    summed = as_vector(found.call, back([tf.ones_like(y) for y in outputs]), found.tape.scale)[key[0]]
    return abs(summed - found.rows[key].for_sum) <= found.rtol * abs(summed)


def _conjugated(found: Comparison, index: int, key: Key) -> bool:
    """Whether a complex element, of which `key` is one part, has the right absolute value and another phase."""
    start = key[0] - int(found.lines.ends[index] - key[0]) % 2
    parts = [found.rows[each] for each in ((start, 1), (start + 1, 1)) if each in found.rows]
    tape, slope = ([getattr(part, side) for part in parts] for side in ("analytic", "numeric"))
    flipped = np.allclose(tape, np.negative(slope), rtol=1e-2)
    return len(parts) == 2 and not flipped and math.isclose(math.hypot(*tape), math.hypot(*slope), rel_tol=found.rtol)


def _upstream(found: Comparison, key: Key) -> str:
    """Return how the gradient depends on the one from above, where it is not linear in it."""
    once, doubled = (g[key[0] : sum(key)] for g in (found.tape.vector, found.tape.doubled))
    for factor, words in ((1, "ignored"), (4, "applied twice")):
        if np.linalg.norm(doubled - factor * once) < 0.01 * np.linalg.norm(once):
            return f"the upstream gradient is {words}"
    return "the gradient is not linear in the upstream gradient"
