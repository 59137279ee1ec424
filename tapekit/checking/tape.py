"""The gradient of the tape under a random cotangent, as one real vector: `tape_gradient`, `pull_back`, `second_order`.

A cotangent whose entries are never 1 finds a backward pass that ignores the upstream gradient; a second one, -2 times
the first, finds a backward pass that is not linear in it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, describe, values_of, watchable
from tapekit.checking.dtypes import epsilon, floats, real


@dataclasses.dataclass(frozen=True)
class TapeGradient:
    """The ``outputs`` of `fn` and the gradients of their sum, weighted by ``cotangents``.

    ``raw`` are the gradients as the tape returned them. ``vector`` is the same as one real vector, divided by
    ``scale``, and ``doubled`` that under -2 times the cotangents; ``linear``: it is -2 times as large, for each source.
    ``random``: `fn` or its gradient changes from call to call. ``raises``: the error of the backward pass.
    """

    outputs: list[tf.Tensor]
    cotangents: list[tf.Tensor]
    scale: float
    raw: list
    vector: np.ndarray
    doubled: np.ndarray
    linear: list[bool]
    random: bool
    raises: str

    @property
    def weighted(self) -> bool:
        """Whether the cotangents weigh several numbers."""
        return not _single(self.outputs)


def tape_gradient(call: Call, seed: int) -> TapeGradient:
    """Run `fn` twice under the tape, three times if the two disagree."""
    outputs, raw, raises = _run(call, seed, 1.0)
    again, doubled, _ = _run(call, seed, -2.0)  # -2 is exact in binary: a linear gradient follows exactly
    linear = [_same(None if g is None else -2 * tensor(g), h) for g, h in zip(raw, doubled, strict=True)]
    random = not all(map(_same, outputs, again))
    if not all(linear):
        random |= not all(map(_same, raw, _run(call, seed, 1.0)[1]))
    weights = cotangents(outputs, seed)
    # The weight of a single number is divided out again, so that a reader can compute what is printed.
    scale = float(tf.reshape(weights[0], [])) if _single(outputs) else 1.0
    parts = (as_vector(call, raw, scale), as_vector(call, doubled, scale))
    return TapeGradient(outputs, weights, scale, raw, *parts, linear, random, raises)


def _run(call: Call, seed: int, factor: float) -> tuple[list, list, str]:
    """Return the outputs, the gradients under factor * cotangent, and the error of the backward pass, if any."""
    outputs, back = pull_back(call)
    if not outputs:
        raise TypeError(
            f"check_gradient: fn returned {describe(call())}. Only float and complex tensors have gradients. "
            "Return the tensor to differentiate: end fn with return loss."
        )
    try:
        return outputs, back([tf.cast(factor, c.dtype) * c for c in cotangents(outputs, seed)]), ""
    except Exception as error:
        words = f"the gradient raises {type(error).__name__}: {error}".splitlines()[0][:200]
        return outputs, [None] * len(call.sources), words


def pull_back(call: Call, leaves: Sequence | None = None) -> tuple[list[tf.Tensor], Callable]:
    """Return the outputs of `call`, and the function that carries their cotangents back to its sources."""
    sources = [values_of(watchable(leaf)[1]) for leaf in (call.leaves if leaves is None else leaves)]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(sources)
        outputs = floats(call(leaves))
    return outputs, lambda upstream: tape.gradient(outputs, sources, upstream)


def second_order(call: Call, seed: int) -> Call:
    """Return the gradient of `call` as a `Call`; of several numbers, that of their sum with random weights."""

    def slope(*leaves: Any) -> list[tf.Tensor]:
        outputs, back = pull_back(call, leaves or None)
        gradients = back([tf.ones_like(y) for y in outputs] if _single(outputs) else cotangents(outputs, seed + 1))
        return [tensor(g) for g in gradients if g is not None] or [tf.zeros([])]

    return dataclasses.replace(call, fn=slope)


def _single(outputs: list[tf.Tensor]) -> bool:
    """Whether `fn` returns one real number."""
    return len(outputs) == 1 and outputs[0].shape.num_elements() == 1 and not outputs[0].dtype.is_complex


def cotangents(outputs: Sequence, seed: int) -> list[tf.Tensor]:
    """Return random weights in the dtype of the outputs, of both signs and of sizes from 0.5 to 1.5, never 1."""
    rng, drawn = np.random.default_rng(seed), []
    for y in outputs:
        shape = tuple(y.shape)
        draw = [rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape) for _ in range(2)]
        drawn.append(tf.cast(draw[0] + 1j * draw[1] if y.dtype.is_complex else draw[0], y.dtype))
    return drawn


def as_vector(call: Call, gradients: Sequence, scale: float) -> np.ndarray:
    """Return all gradients / `scale` as one real vector, with zeros for one that is None or of another shape."""
    parts = []
    for gradient, source in zip(gradients, call.sources, strict=True):
        like = values_of(source)
        fits = gradient is not None and tensor(gradient).shape == like.shape
        parts.append(real(tensor(gradient) if fits else tf.zeros_like(like)))
    return (tf.concat(parts, 0) / scale).numpy()


def tensor(gradient: Any) -> tf.Tensor:
    """Return a gradient as a dense tensor, in which the repeated rows of `tf.IndexedSlices` are added."""
    return tf.convert_to_tensor(values_of(gradient))


def _same(first: Any, second: Any) -> bool:
    """Whether two calls returned the same, up to the rounding of sums whose order depends on threads."""
    if first is None or second is None:
        return first is second
    a, b = (real(tensor(each)).numpy() for each in (first, second))
    size = np.max(np.abs(a), initial=0.0, where=np.isfinite(a))
    return a.shape == b.shape and np.allclose(a, b, rtol=0, atol=16 * epsilon(first.dtype) * size, equal_nan=True)
