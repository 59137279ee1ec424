"""Why is my gradient None, zero or NaN? `explain` returns an `Explanation` with one `Finding` for each source.

`fn` is traced to a graph. TensorFlow is asked at each operation whether a gradient passes through it; the gradient
stops where none does. The first operation with a 0, NaN or infinity is found by the numbers in the graph. What was
measured is a `Fact`, and the words are chosen by the fact.

Files, in reading order:

    records      `Finding`, `Explanation`, their text and HTML; `Fact`, what was measured about one source
    explanation  `explain`: which facts are looked for, in which order
    facts        finds the facts in a graph and in its numbers
    ready_made   what `fn` reads besides its sources: tensors made before it ran, other variables
    inner        derivatives that `fn` takes itself
    words        the table of sentences, by cause, detail and operation
"""

from tapekit.explaining.explanation import explain
from tapekit.explaining.records import Explanation, Finding

__all__ = ["Explanation", "Finding", "explain"]
