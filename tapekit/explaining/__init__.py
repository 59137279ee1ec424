"""Why is my gradient None, zero or NaN? `explain` returns an `Explanation` with one `Finding` for each source.

`fn` is traced to a graph. TensorFlow is asked at each operation whether a gradient passes through it; the gradient
stops at the operation where none does. Zeros, NaN and infinities are followed back as numbers. What was measured is
kept in a `Fact`, and the words are chosen by the fact. A `fn` that cannot be traced is run eagerly, and the line at
which tracing failed is reported.

Files, in reading order:

    records      `Finding`, `Explanation`, and `Fact`, what was measured about one source
    explanation  `explain`: which facts are looked for, in which order
    flow         along which edges of the graph a gradient passes
    signals      the sizes of gradients and values in the graph: where they become 0, NaN or infinite
    calls        what an operation is called in the user's program
    ready_made   the tensors that `fn` reads and that were made before it ran
    eager        the status of each gradient where `fn` cannot be traced
    words        the table of sentences, by cause and operation, and the text of an explanation
    notebook     the explanation as a notebook shows it
"""

from tapekit.explaining.explanation import explain
from tapekit.explaining.records import Explanation, Finding

__all__ = ["Explanation", "Finding", "explain"]
