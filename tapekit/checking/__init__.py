"""Is this gradient right? `check_gradient` returns a `GradientCheck`: one verdict for each source.

The tape's gradient, under a random cotangent, is compared with differences of the function's own values, taken in
float64 where `fn` is the same function there. The differences measure their own uncertainty, so that no tolerance has
to be chosen: a gradient fails only if it differs by more than the differences can be wrong.

Files, in reading order:

    check         `check_gradient`, `GradientCheck`, `SourceCheck`, and the words of a verdict
    comparison    which elements and blocks are compared, and the judgement of each
    differences   slopes along a line, with their uncertainty
    float64       `fn` as a graph whose sources can be moved, in float64
"""

from tapekit.checking.check import GradientCheck, SourceCheck, check_gradient

__all__ = ["GradientCheck", "SourceCheck", "check_gradient"]
