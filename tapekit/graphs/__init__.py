"""How can the tape be read? `fn` becomes a TensorFlow graph that is queried and run once; then all state is restored.

An eager tape cannot be read from Python, but a graph can. `capture` traces `fn` inside a `tf.function`, asks
`tf.gradients` for what is wanted, and runs values and gradients as one graph. Everything that a run of `fn` may change
(variables, random state) is restored afterwards. `tracing`, `explaining` and `checking` are built on this room.

Files, in reading order:

    capture    `capture`: a call -> a `Recording` and the answers to questions about it; source lines (`place`)
    variables  the variables that `fn` makes while it is traced
    eager      `eager_gradients`: the gradients of an eager tape
    state      restore variables and random state after a run of `fn`
"""

from tapekit.graphs.capture import LeftTensorFlow, Place, Recording, capture

__all__ = ["LeftTensorFlow", "Place", "Recording", "capture"]
