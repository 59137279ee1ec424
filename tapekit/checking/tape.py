"""The gradient of the tape under a random cotangent, as one real vector: `tape_gradient`, `pull_back`, `second_order`.

A cotangent whose entries are never 1 finds a backward pass that ignores the upstream gradient; a second one, -2 times
the first, finds a backward pass that is not linear in it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, dense, describe, is_float, values_of, watchable

EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}  # the spacing at 1
TINY = dict.fromkeys(EPSILON, 2.0**-126) | {"float16": 2.0**-24, "float64": 2.0**-1022}  # less is replaced by 0

MANY = 16  # roundings that may add up in a number
FLUSHED = 1000  # numbers of this many TINY may depend on one that is replaced by 0


@dataclasses.dataclass(frozen=True)
class TapeGradient:
    """The ``outputs`` of `fn` and the gradients of their sum, weighted by ``cotangents``.

    ``raw`` are the gradients as the tape returned them, ``vector`` the same as one real vector, divided by ``scale``.
    ``upstream`` says for each source how its gradient depends on the cotangents, if not linearly. ``problem`` is the
    verdict and the cause if the gradient raises or changes from call to call; ``weighted``: there are several numbers.
    """

    outputs: list[tf.Tensor]
    cotangents: list[tf.Tensor]
    scale: float
    raw: list
    vector: np.ndarray
    upstream: list[str]
    weighted: bool
    problem: tuple[str, str] | None


def tape_gradient(call: Call, seed: int) -> TapeGradient:
    """Run `fn` twice under the tape, three times if the two disagree."""
    outputs, back = pull_back(call)
    if not outputs:
        need = "Only float and complex tensors have gradients. End fn with return loss"
        raise TypeError(f"check_gradient: fn returned {describe(call())}. {need}.")
    weights, raw, upstream, problem = cotangents(outputs, seed), [None] * len(call.sources), [], None
    again, back_again = pull_back(call)
    random = not all(map(_same, outputs, again))
    try:
        raw = back(weights)
        doubled = back_again([-2 * c for c in weights])  # -2 is exact in binary: a linear gradient follows exactly
        upstream = [*map(_upstream, raw, doubled)]
        random |= any(upstream) and not all(map(_same, raw, pull_back(call)[1](weights)))
    except Exception as error:
        problem = "fail", f"the gradient raises {type(error).__name__}: {error}".splitlines()[0][:200]
    if random:
        words = "fn returns another value or gradient at every call; fix its seed, or freeze its state"
        problem = "nondeterministic", f"random: {words}"
    weighted = not _single(outputs)
    # The weight of a single number is divided out again, so that a reader can compute what is printed.
    scale = 1.0 if weighted else float(tf.reshape(weights[0], []))
    return TapeGradient(outputs, weights, scale, raw, as_vector(call, raw, scale), upstream, weighted, problem)


def pull_back(call: Call, leaves: Sequence | None = None) -> tuple[list[tf.Tensor], Callable]:
    """Return the outputs of `call`, and the function that carries their cotangents back to its sources."""
    sources = [values_of(watchable(leaf)[1]) for leaf in (call.leaves if leaves is None else leaves)]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(sources)
        outputs = floats(call(leaves))
    return outputs, lambda upstream: dense(tape.gradient(outputs, sources, upstream))


def second_order(call: Call, seed: int) -> Call:
    """Return the gradient of `call` as a `Call`; of several numbers, that of their sum with random weights."""

    def slope(*leaves: Any) -> list[tf.Tensor]:
        outputs, back = pull_back(call, leaves or None)
        gradients = back([tf.ones_like(y) for y in outputs] if _single(outputs) else cotangents(outputs, seed + 1))
        return [g for g in gradients if g is not None] or [tf.zeros([])]

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
    likes = [values_of(source) for source in call.sources]
    pairs = zip(gradients, likes, strict=True)
    parts = [real(g if g is not None and g.shape == like.shape else tf.zeros_like(like)) for g, like in pairs]
    return (tf.concat(parts, 0) / scale).numpy()


def floats(result: Any) -> list[tf.Tensor]:
    """Return the float and complex tensors in what `fn` returned."""
    found = tf.nest.flatten(result, expand_composites=True)
    return [y for y in map(tf.convert_to_tensor, (y for y in found if y is not None)) if is_float(y)]


def real(tensor: Any) -> tf.Tensor:
    """Return a tensor of any dtype as a real vector in float64, in which a complex number is two entries."""
    tensor = tf.convert_to_tensor(values_of(tensor))
    if tensor.dtype.is_complex:
        tensor = tf.stack([tf.math.real(tensor), tf.math.imag(tensor)], axis=-1)
    return tf.cast(tf.reshape(tensor, [-1]), tf.float64)


def epsilon(dtype: Any) -> float:
    """Return the spacing of the numbers of `dtype` at 1; 0 for an integer."""
    return EPSILON.get(tf.as_dtype(dtype).real_dtype.name, 0.0)


def _upstream(once: Any, doubled: Any) -> str:
    """Return how a gradient depends on the upstream gradient, if not linearly, from that under -2 times as much."""
    ways = {-2: "", 1: "the upstream gradient is ignored", 4: "the upstream gradient is applied twice"}
    found = (words for factor, words in ways.items() if _same(once, doubled, factor))
    return next(found, "the gradient is not linear in the upstream gradient")


@np.errstate(all="ignore")  # the product may overflow
def _same(first: Any, second: Any, factor: int = 1) -> bool:
    """Whether `second` is `factor * first`, up to overflow, underflow, and the order in which threads add."""
    if first is None or second is None or first.shape != second.shape:
        return first is second
    a, b = factor * real(first).numpy(), real(second).numpy()
    overflow = (factor != 1) & np.isfinite(a) & ~np.isfinite(b)  # by the larger cotangent
    size = np.max(np.abs(a), initial=0.0, where=np.isfinite(a))
    atol = MANY * epsilon(first.dtype) * size + FLUSHED * TINY[first.dtype.real_dtype.name]
    return np.allclose(np.where(overflow, b, a), b, rtol=0, atol=atol, equal_nan=True)
