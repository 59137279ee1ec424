"""`GradientTape`, for people who keep their own ``with`` block: watching that cannot go wrong silently.

Use `tapekit.gradient` where one function gives the target; use this where a ``with`` block reads better.

>>> with GradientTape() as tape:
...     x = tape.watch(3.0)
...     y = x * x
>>> float(tape.gradient(y, x))
6.0
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tapekit._sources import as_variable, describe, is_float, names, watchable


class MissingGradientWarning(UserWarning):
    """Some source has no gradient: TensorFlow gave None."""


class GradientTape(tf.GradientTape):
    """A `tf.GradientTape` that can watch anything, and says why a gradient is None where it can see it.

    All that a `tf.GradientTape` does, it does in the same way. Besides, `watch` takes numbers, arrays, Keras variables
    and structures of them, and returns what to compute with; `gradient`, `jacobian` and `batch_jacobian` take Keras
    variables; a missing gradient is a `MissingGradientWarning` with the cause.

    Args:
        persistent: whether gradients can be asked for more than once.
        watch_accessed_variables: whether every trainable variable that is read is watched.

    Example:
        >>> with GradientTape() as tape:
        ...     p = tape.watch({"a": 2.0, "b": 5.0})
        ...     y = p["a"] * p["b"]
        >>> {name: float(g) for name, g in tape.gradient(y, p).items()}
        {'a': 5.0, 'b': 2.0}
    """

    def __init__(self, persistent: bool = False, watch_accessed_variables: bool = True) -> None:
        super().__init__(persistent, watch_accessed_variables)
        self._seen: list = []
        self._accessed = watch_accessed_variables
        self._paused = self._emptied = self._quiet = False
        self._start = 0

    def __enter__(self) -> "GradientTape":
        """Begin to record."""
        if not tf.executing_eagerly():
            self._start = len(tf.compat.v1.get_default_graph().get_operations())
        return super().__enter__()

    def watch(self, tensor: Any) -> Any:
        """Record what is computed from `tensor` from now on; give what to compute with.

        Args:
            tensor: a tensor, variable, Keras variable, array or number, or a structure of them.

        Returns:
            The same structure: tensors and variables as they came, numbers (float32) and arrays as tensors. Compute
            with these: a number itself cannot be watched.

        Raises:
            ValueError: something in `tensor` is no tensor and cannot be made one.
        """
        leaves = []
        for value in tf.nest.flatten(tensor):
            leaf, source = watchable(value)
            super().watch(value if source is None else source)
            if not any(source is seen for seen in self._seen) and self._used(source):
                warnings.warn(
                    f"GradientTape.watch: {source.name!r} was used before it is watched; what was computed from it "
                    "until now has no gradient. Watch it first.",
                    MissingGradientWarning,
                    stacklevel=2,
                )
            self._seen.append(source)
            leaves.append(leaf)
        return tf.nest.pack_sequence_as(tensor, leaves)

    @contextlib.contextmanager
    def stop_recording(self) -> Iterator[None]:
        """As `tf.GradientTape.stop_recording`."""
        self._paused = True
        with super().stop_recording():
            yield

    def reset(self) -> None:
        """As `tf.GradientTape.reset`."""
        super().reset()
        self._emptied = True

    def gradient(
        self,
        target: Any,
        sources: Any,
        output_gradients: Any = None,
        unconnected_gradients: tf.UnconnectedGradients = tf.UnconnectedGradients.NONE,
    ) -> Any:
        """As `tf.GradientTape.gradient`; Keras variables are taken, and a None is warned of, with its cause.

        Args, Returns, Raises: as `tf.GradientTape.gradient`.
        """
        flat = super().gradient(target, _watchable(sources), output_gradients, unconnected_gradients)
        if not self._quiet:
            self._warn_of_none("gradient", sources, flat)
        return tf.nest.pack_sequence_as(sources, flat)

    def jacobian(self, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
        """As `tf.GradientTape.jacobian`; Keras variables are taken, and a None is warned of, with its cause."""
        self._quiet = True  # it calls `gradient` for every row
        try:
            flat = super().jacobian(target, _watchable(sources), *args, **kwargs)
        finally:
            self._quiet = False
        self._warn_of_none("jacobian", sources, flat)
        return tf.nest.pack_sequence_as(sources, flat)

    def batch_jacobian(self, target: Any, source: Any, *args: Any, **kwargs: Any) -> Any:
        """As `tf.GradientTape.batch_jacobian`; a Keras variable is taken."""
        variable = as_variable(source)
        return super().batch_jacobian(target, source if variable is None else variable, *args, **kwargs)

    def _warn_of_none(self, method: str, sources: Any, flat: list) -> None:
        missing = [index for index, gradient in enumerate(flat) if gradient is None]
        if missing:
            leaves, shown = tf.nest.flatten(sources), names(sources)
            causes = "; ".join(f"{shown[i]!r} {self._cause(leaves[i])}" for i in missing)
            warnings.warn(
                f"GradientTape.{method}: the result is None: {causes}. tapekit.explain(fn, vars) finds the line.",
                MissingGradientWarning,
                stacklevel=3,
            )

    def _used(self, source: Any) -> bool:
        """Whether an op has read `source` since the tape began: a graph knows, an eager tensor does not."""
        if not tf.is_symbolic_tensor(source) or not source.consumers():
            return False
        since = {op.name for op in source.graph.get_operations()[self._start :]}
        return any(op.name in since for op in source.consumers())

    def _cause(self, source: Any) -> str:
        """What can be seen from here of why `source` has no gradient."""
        variable = as_variable(source)
        emptied = ", or was computed before reset()" if self._emptied else ""
        if not is_float(source):
            return f"is {tf.as_dtype(source.dtype).name}, and only floating-point sources have gradients"
        if any(source is w or variable is w for w in self._seen if w is not None):
            early = emptied or ", or was computed before watch() was called"
            return f"was watched, but the target does not depend on it{early}"
        if variable is None:
            return "is a tensor that was never watched: call tape.watch(...) before it is used"
        if any(variable is seen for seen in self.watched_variables()):
            return (
                "was read, but no gradient comes back to it from the target, or the target was computed after the with "
                f"block{emptied}"
            )
        if not self._accessed:
            return "was not watched: with watch_accessed_variables=False, call tape.watch(variable)"
        if not variable.trainable:
            return "is not trainable, and such a variable is recorded only after tape.watch(variable)"
        if self._paused:
            return "was not read while the tape was recording: only under stop_recording(), or not at all"
        return f"was not read while the tape was recording: the target does not depend on it{emptied}"


def _watchable(sources: Any) -> list:
    """The members of `sources`, flat, with the `tf.Variable` in the place of a Keras variable."""
    flat = [value if as_variable(value) is None else as_variable(value) for value in tf.nest.flatten(sources)]
    for value in flat:
        if not tf.is_tensor(value):
            raise TypeError(
                f"GradientTape: a source is {describe(value)}. It must be a tensor or a variable. Compute with, and "
                "ask for, what watch gives: x = tape.watch(x)."
            )
    return flat
