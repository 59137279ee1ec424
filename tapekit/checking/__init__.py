"""Is this gradient right? `check_gradient` returns a `GradientCheck`: one verdict for each source.

The differences measure their own uncertainty, so that no tolerance has to be chosen: a gradient fails only if it
differs by more than they can be wrong. Files, in reading order:

    check        `check_gradient`: the arguments, and the order of the work
    results      `GradientCheck` and `SourceCheck`: the verdicts and the table
    tape         the gradient of the tape under a random cotangent, as a real vector
    float64      `fn` and its gradient as a graph in float64
    slopes       the values of `fn` along lines through the point, and slopes with their uncertainty
    comparison   the gradient beside the slopes: what is compared, and the verdict with its cause in words
"""

from tapekit.checking.check import check_gradient
from tapekit.checking.results import GradientCheck, SourceCheck

__all__ = ["GradientCheck", "SourceCheck", "check_gradient"]
