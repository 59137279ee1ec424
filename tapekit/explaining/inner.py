"""Derivatives that `fn` takes itself: `inner_gradients` records the calls of ``tape.gradient`` that return None."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from tapekit import tape
from tapekit.explaining.records import Fact
from tapekit.graphs.places import place

_OURS = (__file__, tape.__file__)


@contextmanager
def inner_gradients() -> Iterator[list[Fact]]:
    """Record a `Fact` for each inner gradient that is None; `tf.GradientTape` is restored afterwards."""
    facts: list[Fact] = []
    watched: list[tuple[Any, Any]] = []
    gradient, watch = tf.GradientTape.gradient, tf.GradientTape.watch

    def recorded_watch(self: Any, tensor: Any) -> None:
        watch(self, tensor)
        watched.extend((self, each) for each in tf.nest.flatten(tensor))

    def recorded_gradient(self: Any, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
        result = gradient(self, target, sources, *args, **kwargs)
        known = [*self.watched_variables(), *(each for owner, each in watched if owner is self)]
        for source, found in zip(tf.nest.flatten(sources), tf.nest.flatten(result), strict=False):
            frames = [frame for frame in traceback.extract_stack() if frame.filename not in _OURS]
            if found is None and (at := place(frames[-1:])):
                called = re.search(r"[\w.]+\.(gradient|jacobian|batch_jacobian)\b", at.code)
                detail = _reason(target, source, any(each is source for each in known))
                facts.append(Fact(*detail, op=called[0] if called else "tape.gradient", at=at))
        return result

    tf.GradientTape.gradient, tf.GradientTape.watch = recorded_gradient, recorded_watch
    try:
        yield facts
    finally:
        tf.GradientTape.gradient, tf.GradientTape.watch = gradient, watch


def _reason(target: Any, source: Any, watched: bool) -> tuple[str, str]:
    """Return the cause and detail for a gradient that a tape inside `fn` does not have."""
    if not watched:
        return "not_watched", "inner"
    parts = [part for part in tf.nest.flatten(target) if isinstance(part, tf.Tensor)]
    symbolic = [part for part in parts if tf.is_symbolic_tensor(part)]
    if symbolic and tf.gradients(symbolic, [getattr(source, "handle", source)])[0] is not None:
        return "outside_tape", "inner"  # the graph has a way that the tape did not record
    return "not_used", "inner"
