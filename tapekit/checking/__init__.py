"""Is this gradient right? `check_gradient` returns a `GradientCheck`: one verdict for each source.

The differences measure their own uncertainty, so that no tolerance has to be chosen: a gradient fails only if it
differs by more than they can be wrong. Files, in reading order:

    check        `check_gradient`: the arguments, and the order of the work
    results      `GradientCheck` and `SourceCheck`: the verdicts and the table
    dtypes       the precision of a dtype, and tensors as real vectors
    tape         the gradient of the tape under a random cotangent
    float64      `fn` and its gradient as a graph in float64
    lines        the values of `fn` along lines through the point
    differences  slopes along a line, with their uncertainty
    comparison   which elements and blocks are compared, and how the wrong one is found
    judgement    the verdict on one line: each rule, with its reason
    messages     the verdict on a source in words
"""

from tapekit.checking.check import check_gradient
from tapekit.checking.results import GradientCheck, SourceCheck

__all__ = ["GradientCheck", "SourceCheck", "check_gradient"]
