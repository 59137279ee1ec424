"""How can the tape be read? `fn` becomes a TensorFlow graph that is queried and run; then all state is restored.

An eager tape cannot be read from Python, but a graph can. `capture` traces `fn` inside a `tf.function`, asks
`tf.gradients` for the gradients in it, and runs both.

Files, in reading order:

    capture    `capture`: a call -> a `Recording` and the answers to questions about it
    recording  `Recording`: the graph of `fn`, and the gradients in it
    answers    the values that `fn` uses in Python while it is traced
    flow       along which edges of the graph a gradient passes
    places     `Place`: a line of the user's code
    calls      the calls in that line: which one made an operation, which one left TensorFlow
    bindings   the line of the user's program that last bound a name
    state      restore variables and random state after a run of `fn`
"""

from tapekit.graphs.capture import capture
from tapekit.graphs.places import Place
from tapekit.graphs.recording import LeftTensorFlow, Recording

__all__ = ["LeftTensorFlow", "Place", "Recording", "capture"]
