"""The values of tensors that `fn` uses in Python while it is traced: `Answers`.

In a graph ``float(y)``, ``y.numpy()``, ``if y > 0`` and ``range(n)`` raise an error, as `y` has no value yet. The graph
up to that line exists, and is run for the value. Then `fn` is traced again with this answer, and goes on as in an eager
run.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import tensorflow as tf

from tapekit._lines import is_own
from tapekit._sources import as_variable
from tapekit.graphs.places import Place, place

MOST = 50  # the values that fn may use: it is traced once more for each
NO_VALUE = "a symbolic tensor has no value here"


class Answer(NamedTuple):
    """A value that `fn` took out of TensorFlow, and the stack of the call that took it."""

    value: Any
    frames: traceback.StackSummary

    @property
    def at(self) -> Place | None:
        """The line of the user that took it."""
        return place(self.frames)


class Question(BaseException):
    """Stop `fn`, which needs the value of a tensor to go on."""

    def __init__(self, tensor: tf.Tensor) -> None:
        self.tensor = tensor


class Answers:
    """Tell `fn` the values that it asks for, in its order; at the first one that is not known, raise a `Question`.

    ``asked`` are the operations whose values were asked for; ``variables`` are those that `fn` made.
    """

    def __init__(self, given: list[Answer] | None) -> None:
        self.given = given  # None: symbolic tensors have no value, as in TensorFlow
        self.question: Question | None = None
        self.asked: list[tf.Operation] = []
        self.variables: list[tf.Variable] = []

    def value(self, tensor: tf.Tensor) -> Any:
        """Return the value of a symbolic tensor."""
        if self.given is None or len(self.asked) == MOST:
            raise TypeError(NO_VALUE)
        self.asked.append(tf.identity(tensor).op)
        if len(self.asked) > len(self.given):
            self.question = self.question or Question(self.asked[-1].outputs[0])
            raise self.question
        return self.given[len(self.asked) - 1].value

    @contextmanager
    def told(self) -> Iterator[None]:
        """Let tensors and variables of the current graph return values in Python; make each variable of `fn` once."""
        self.asked.clear()
        self.question = None
        made = iter(list(self.variables))  # TensorFlow may trace fn again

        def make(next_creator: Callable, **kwargs: Any) -> tf.Variable:
            first = kwargs["initial_value"]
            if as_variable(first) is not None or (tf.is_tensor(first) and tf.is_symbolic_tensor(first)):
                kwargs["initial_value"] = self.value(tf.convert_to_tensor(first))
            if (variable := next(made, None)) is not None:
                return variable
            with tf.init_scope():
                self.variables.append(next_creator(**kwargs))
            return self.variables[-1]

        graph = tf.compat.v1.get_default_graph()
        with ExitStack() as stack:
            for kind, name, answer in [] if self.given is None else self._patches():
                method = _only_in(graph, name, answer, getattr(kind, name, None))
                stack.enter_context(mock.patch.object(kind, name, method, create=True))
            stack.enter_context(tf.variable_creator_scope(make))
            yield

    def _patches(self) -> list[tuple[type, str, Callable]]:
        """Return the methods that need a value: class, name, and the function that takes their place."""
        value = self.value

        def length(tensor: tf.Tensor) -> int:
            return int(tensor.shape[0] or value(tf.shape(tensor)[0]))

        answers: dict[str, Callable] = {
            "numpy": value,
            "__array__": lambda tensor, dtype=None, copy=None: np.asarray(value(tensor), dtype),
            "__format__": lambda tensor, how: format(value(tensor), how),
            "__len__": length,
            "__iter__": lambda tensor: iter(tf.unstack(tensor, length(tensor))),
            "__index__": lambda tensor: int(value(tensor)),
        }
        for kind in (bool, int, float, complex):
            answers[f"__{kind.__name__}__"] = lambda tensor, kind=kind: kind(value(tensor))
        variables = [kind for kind in tf.Variable.__subclasses__() if "numpy" in vars(kind)]
        of_variables = [(kind, "numpy", lambda variable: value(variable.value())) for kind in variables]
        return [*((tf.Tensor, name, answer) for name, answer in answers.items()), *of_variables]


def _only_in(graph: Any, name: str, answer: Callable, original: Callable | None) -> Callable:
    """Return a method that calls `answer` for tensors and variables of `graph`, and `original` for others.

    TensorFlow tries to take an index of any tensor, and goes on without it: only the user's own code gets one.
    """

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        inside = tf.compat.v1.get_default_graph() is graph and not tf.executing_eagerly()
        tries = name == "__index__" and not is_own(traceback.extract_stack(limit=2)[0].filename)
        if inside and not tries and getattr(self, "graph", graph) is graph:
            return answer(self, *args, **kwargs)
        if original is None:
            raise TypeError(NO_VALUE)
        return original(self, *args, **kwargs)

    return method
