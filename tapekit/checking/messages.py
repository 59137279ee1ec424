"""The verdict on a source in words: `source_check` returns a `SourceCheck` whose cause is a sentence."""

import math

import numpy as np

from tapekit._sources import values_of
from tapekit.checking.comparison import Comparison, Key
from tapekit.checking.differences import SURE
from tapekit.checking.dtypes import epsilon
from tapekit.checking.judgement import RTOL, Judgement, judge, kink
from tapekit.checking.results import VERDICTS, SourceCheck
from tapekit.checking.tape import tensor

SAMPLER = "a sampler: its gradient is that of the expected value, which differences of one draw do not show"


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
    judged = {key: judge(found, key, sure=True) for key in keys}
    # the gravest, of these the best measured, of these the most doubtful
    worst = max(keys, key=lambda k: (VERDICTS.index(judged[k].verdict), len(found.rows[k].steps), judged[k].doubt))
    verdict, cause = _verdict(found, index, worst, judged[worst])
    at = max(worst[0] - int(found.lines.ends[index]) + found.lines.sizes[index], 0) // parts
    place = tuple(map(int, np.unravel_index(at, source.shape))) if source.shape.rank else ()
    row, (analytic, _) = found.rows[worst], found.along(found.tape.vector, worst)
    numeric, uncertainty, step = map(float, (row.numeric, row.uncertainty, row.step))
    curve = tuple(row.steps.tolist()), tuple(row.curve.tolist())
    return SourceCheck(name, verdict, cause, place, analytic, numeric, uncertainty, checked, step, *curve)


def _verdict(found: Comparison, index: int, key: Key, judged: Judgement) -> tuple[str, str]:
    """Return the verdict on a source by its worst line `key`, and the cause."""
    if not found.tape.linear[index] and judged.verdict != "kink":
        return "fail", _upstream(found, key)
    if index in found.samplers and judged.verdict != "pass":
        return "inconclusive", SAMPLER
    return judged.verdict, _cause(found, index, key, judged)


def _cause(found: Comparison, index: int, key: Key, judged: Judgement) -> str:
    """Return what is wrong, in words, from the numbers on the line `key`."""
    row, verdict, (analytic, _) = found.rows[key], judged.verdict, found.along(found.tape.vector, key)
    if verdict == "pass":
        return "the slope is 0 up to rounding" if judged.reason == "zero" else ""
    if row.diverges:
        return "kink: the slope grows without bound as the step shrinks (a jump, or a vertical tangent)"
    if kink(found, row):
        return f"kink: the slope is {row.left + 0:.4g} on the left and {row.right + 0:.4g} on the right" + (
            "" if verdict == "kink" else f"; the gradient is not between them, it is {analytic:.4g}"
        )
    if not math.isfinite(row.numeric):
        return "fn is not finite here, or raises, on both sides: there is nothing to compare with"
    slope = f"the slope is {row.numeric:.6g}"
    if not math.isfinite(analytic):
        return f"the gradient is {found.tape.vector[key[0] : sum(key)].sum()}, {slope}"
    coarsest, used = (next(name for name in RTOL if epsilon(name) == eps) for eps in (found.eps, found.lines.eps))
    if judged.reason == "rounding":
        return f"right in float64, lost to rounding in {coarsest}: it is {analytic:.6g}, {slope}"
    if verdict == "inconclusive":
        return f"too noisy to tell in {used}: {slope}, give or take {SURE * row.uncertainty:.2g}"
    if found.tape.raw[index] is None:
        return f"missing: the gradient is None, {slope}"
    if not analytic:
        return f"missing: the gradient is 0 where {slope}"
    if abs(row.numeric) <= SURE * row.uncertainty:
        return f"the gradient is {analytic:.6g} where {slope}"
    factor = analytic / row.numeric
    digits = ".3f" if abs(factor - 1) > 2e-3 and abs(factor) > 0.01 else ".6g"
    return "sign flipped" if abs(factor + 1) < 1e-3 else f"off by a factor of {factor:{digits}}"


def _upstream(found: Comparison, key: Key) -> str:
    """Return how the gradient depends on the upstream gradient, if not linearly."""
    once, doubled = (g[key[0] : sum(key)] for g in (found.tape.vector, found.tape.doubled))
    for factor, words in ((1, "ignored"), (4, "applied twice")):
        if np.linalg.norm(doubled - factor * once) < 0.01 * np.linalg.norm(once):
            return f"the upstream gradient is {words}"
    return "the gradient is not linear in the upstream gradient"
