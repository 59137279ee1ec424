"""The gradients of an eager tape: `eager_gradients`, for a `fn` whose graph may differ from its eager run."""

import contextlib
from typing import Any

import tensorflow as tf

from tapekit._sources import Call, is_float, watch_all
from tapekit.graphs.state import all_variables_kept, draws_kept, undisturbed


def eager_gradients(call: Call) -> list[Any]:
    """Return the gradient of each source, or None; variables and random state keep their values."""
    floats = [source for source in call.sources if is_float(source)]
    with all_variables_kept(), draws_kept(), undisturbed():
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            watch_all(tape, floats)
            result = call()
        target = [part for part in tf.nest.flatten(result) if tf.is_tensor(part) and is_float(part)]
        found: list[Any] = []
        for source in call.sources:
            found.append(None)
            if target and is_float(source):
                with contextlib.suppress(LookupError):  # an operation without a registered gradient
                    found[-1] = tape.gradient(target, source)
    return found
