"""`GradientTape`, for people who keep their own ``with`` block: it watches anything, and reports a missing gradient.

Use `tapekit.gradient` if one function computes the target, and this where a ``with`` block reads better.
"""

import warnings
from typing import Any

import tensorflow as tf

from tapekit._lines import running_line
from tapekit._names import some
from tapekit._sources import as_variable, describe, is_float, names, quoted, refusal, watchable

_REGISTRY: dict = {}  # the warnings that Python has shown, each once for a line


class MissingGradientWarning(UserWarning):
    """A source has no gradient: TensorFlow returned None."""


class GradientTape(tf.GradientTape):
    """A `tf.GradientTape` that can watch anything, and warns with the cause if a gradient is None.

    It takes the arguments of `tf.GradientTape` and does what that does. In addition, `watch` takes numbers, arrays,
    Keras variables and structures of them, and returns what to compute with.

    Example:
        >>> with GradientTape() as tape:
        ...     p = tape.watch({"a": 2.0, "b": 5.0})
        ...     y = p["a"] * p["b"]
        >>> {name: float(g) for name, g in tape.gradient(y, p).items()}
        {'a': 5.0, 'b': 2.0}
    """

    def __init__(self, persistent: bool = False, watch_accessed_variables: bool = True) -> None:
        super().__init__(persistent, watch_accessed_variables)
        self._accessed = watch_accessed_variables
        self._seen: list = []

    def watch(self, tensor: Any) -> Any:
        """Record what is computed from `tensor` from now on, and return what to compute with.

        Args:
            tensor: a tensor, variable, Keras variable, array or number, or a structure of them.

        Returns:
            The same structure: tensors and variables unchanged, numbers (float32) and arrays as tensors.

        Raises:
            TypeError: `tensor` holds what no tape can watch; RuntimeError: the ``with`` block has not begun.
        """
        pairs = [watchable(value) for value in tf.nest.flatten(tensor)]
        sources = [leaf if source is None else source for leaf, source in pairs]
        try:
            super().watch(sources)
        except AttributeError as error:
            raise RuntimeError(
                "GradientTape.watch: the tape is not recording yet. Call it inside the block: "
                "with tapekit.GradientTape() as tape: x = tape.watch(x)."
            ) from error
        except ValueError as error:
            wrong = next(leaf for leaf, source in pairs if source is None)
            raise TypeError(f"GradientTape.watch: a source is {refusal(wrong)}") from error
        self._seen += sources
        return tf.nest.pack_sequence_as(tensor, [leaf for leaf, _ in pairs])

    def gradient(self, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what `tf.GradientTape.gradient` returns, also for Keras variables; warn of a None with its cause."""
        flat = super().gradient(target, _flat(sources), *args, **kwargs)
        return self._reported("gradient", sources, flat)

    def jacobian(self, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what `tf.GradientTape.jacobian` returns, also for Keras variables; warn of a None with its cause."""
        with warnings.catch_warnings():  # it calls `gradient` for every row
            warnings.simplefilter("ignore", MissingGradientWarning)
            flat = super().jacobian(target, _flat(sources), *args, **kwargs)
        return self._reported("jacobian", sources, flat)

    def _reported(self, method: str, sources: Any, flat: list) -> Any:
        """Return `flat` in the structure of `sources`; issue one warning that lists the sources of each cause."""
        by_cause: dict[str, list[str]] = {}
        for name, leaf, gradient in zip(names(sources), tf.nest.flatten(sources), flat, strict=True):
            if gradient is None:
                by_cause.setdefault(self._cause(leaf), []).append(quoted(name, leaf))
        if by_cause:
            causes = "; ".join(f"{some(called)}: {cause}" for cause, called in by_cause.items())
            warn_missing(
                f"GradientTape.{method}: the result is None. {causes}. tapekit.explain(fn, vars) finds the line."
            )
        return tf.nest.pack_sequence_as(sources, flat)

    def _cause(self, source: Any) -> str:
        """Return why `source` has no gradient, as far as the tape knows."""
        variable = as_variable(source)
        if not is_float(source):
            return f"{tf.as_dtype(source.dtype).name}, and only floating-point sources have gradients"
        if any(source is seen or variable is seen for seen in self._seen):
            return "watched, but the target does not depend on it, or was computed before watch() or reset() was called"
        if any(variable is seen for seen in self.watched_variables()):
            return "read, but no gradient comes back from the target, or the tape did not record the target"
        if variable is None:
            return "a tensor that was never watched. Call tape.watch(...) before it is used"
        if not (variable.trainable and self._accessed):
            return "a variable that this tape does not watch by itself. Call tape.watch(...) before it is used"
        return "not read while the tape was recording (perhaps before a reset(), or under stop_recording())"


def warn_missing(message: str) -> None:
    """Issue a `MissingGradientWarning` at the line of the user's code that is running."""
    warnings.warn_explicit(message, MissingGradientWarning, *running_line(), registry=_REGISTRY)


def _flat(sources: Any) -> list:
    """Return the members of `sources` as a list, with a `tf.Variable` for each Keras variable."""
    flat = [value if as_variable(value) is None else as_variable(value) for value in tf.nest.flatten(sources)]
    for value in flat:
        if not tf.is_tensor(value):
            raise TypeError(f"GradientTape: a source is {describe(value)}. Give what watch returns: x = tape.watch(x).")
    return flat
