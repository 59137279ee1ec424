"""Why is my gradient None, zero or NaN? `explain` returns an `Explanation`: one `Finding` for each source.

`fn` is traced to a graph, and TensorFlow is asked at each operation whether a gradient passes: the break is where it
does not. Zeros and values that are not finite are followed back as numbers. The facts that were measured choose the
words. A `fn` that cannot be traced is run eagerly, and the line at which tracing failed is the finding.

Files, in reading order:

    explanation   `explain`, `Explanation`, `Finding`
    flow          along which edges of the graph a gradient passes, and what arrives
    calls         what an operation is called in the user's program
    unused        a source that the target does not depend on: what `fn` read instead
    eager         `fn` where it cannot be traced
    messages      the words: why a gradient is missing, and what to write instead
"""

from tapekit.explaining.explanation import Explanation, Finding, explain

__all__ = ["Explanation", "Finding", "explain"]
