"""The tape against the differences, line by line: what `check_gradient` measures, and which of the two is right.

A `Comparison` asks the tape for the gradient under a random cotangent, chooses the lines (`_differences`) along which
it is held against differences, looks again where they disagree, and judges each line. `checking` says it in words.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, as_variable, describe, values_of, watchable
from tapekit.checking.differences import Lines, Slopes, ladder, real, tiny
from tapekit.checking.float64 import epsilon, floats, in_float64, movable

ONE_BY_ONE = 2048  # elements up to which each is checked by itself; more are checked in blocks, and a bad block opened
WIDTH = 256  # elements of a block, at least: one wrong among so many is still plain
CROWD = 1024  # of more elements, float32 cannot see one: a block of them is judged by its sum
EVALUATED = 7e7  # coordinates that all blocks together may copy: the larger the point, the fewer and wider the blocks
BATCH = 256  # doubtful lines looked at again at a time
OPENED = 16  # doubtful blocks opened: enough to name a wrong element of each source
SURE = 20.0  # the error estimate is an estimate: over 500 functions, 20 of it separated right from wrong best
RTOL = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 3e-4, "float64": 1e-7}  # right gradients are off by less


class Comparison:
    """One order of one function. ``rows`` holds what is known of its lines: (start, width) -> slopes."""

    def __init__(self, call: Call, *, rtol: float | None, atol: float | None, seed: int, progress: bool):
        self.call, self.atol, self.seed, self.raises = call, atol or 0.0, seed, ""
        self.outputs, self.raw = self._tape(1.0)
        again, doubled = self._tape(-2.0)  # -2 is exact in binary: a gradient linear in its cotangent follows exactly
        self.linear = [_same(None if g is None else -2 * tensor(g), h) for g, h in zip(self.raw, doubled, strict=True)]
        self.random = not all(map(_same, self.outputs, again))
        if not all(self.linear):
            self.random |= not all(map(_same, self.raw, self._tape(1.0)[1]))
        # the cotangent of a scalar is divided out again: the numbers are those that one expects to read
        scalar = len(self.outputs) == 1 and not self.outputs[0].shape.rank and not self.outputs[0].dtype.is_complex
        self.scale, self.weighted = self.cotangents[0] if scalar else 1.0, not scalar
        self.gradient, self.doubled = self.vector(self.raw), self.vector(doubled)
        self.eps = max(epsilon(each.dtype) for each in (*call.sources, *self.outputs))
        self.tiny = max(tiny(each.dtype) for each in (*call.sources, *self.outputs))
        self.huge = min(float(each.dtype.real_dtype.max) for each in (*call.sources, *self.outputs)) / 2
        self.rows: dict[tuple[int, int], Slopes] = {}
        if not (self.random or self.raises):
            self.lines = self._lines(progress)
            self.eps = max(self.eps, self.lines.eps, epsilon(self.lines.coarsest))
            self.rtol = max(r for name, r in RTOL.items() if epsilon(name) <= self.eps) if rtol is None else rtol
            parts = np.split(np.abs(self.lines.gradient), self.lines.ends[:-1])
            self.peaks = np.array([part.max(initial=0.0) for part in parts])
            if len(self.gradient):
                self._measure()

    def _tape(self, factor: float | None) -> tuple[list, list]:
        """The outputs, and the gradients under factor * cotangent, or (None) of the plain sum of the outputs."""
        outputs, back = pull_back(self.call)
        if not outputs:
            raise TypeError(
                f"check_gradient: fn returned {describe(self.call())}. Only float and complex tensors have gradients. "
                "Return the tensor to differentiate: end fn with return loss."
            )
        self.cotangents = cotangents(outputs, self.seed)
        upstream = [tf.ones_like(c) if factor is None else tf.cast(factor, c.dtype) * c for c in self.cotangents]
        try:
            return outputs, back(upstream)
        except Exception as error:
            self.raises = f"the gradient raises {type(error).__name__}: {error}".splitlines()[0][:200]
            return outputs, [None] * len(self.call.sources)

    def sum_gradient(self) -> np.ndarray:
        """The gradient of the plain sum of the outputs."""
        return self.vector(self._tape(None)[1])

    def vector(self, gradients: Sequence) -> np.ndarray:
        """All gradients as one real vector; zeros where there is none, or none that fits."""
        parts = []
        for gradient, source in zip(gradients, self.call.sources, strict=True):
            like = values_of(source)
            fits = gradient is not None and tensor(gradient).shape == like.shape
            parts.append(real(tensor(gradient) if fits else tf.zeros_like(like)))
        return (tf.concat(parts, 0) / tf.cast(self.scale, tf.float64)).numpy()

    def _lines(self, progress: bool) -> Lines:
        """`fn` on lines: in float64 and in a graph, as far as it is the same function there."""
        for make, wide, graph in ((in_float64, True, True), (movable, False, True), (movable, True, False)):
            if not (graph or self.call.takes_vars):
                continue
            with contextlib.suppress(Exception):  # whatever keeps fn from being called so
                lines = self._lines_of(*make(self.call), wide, graph, progress)
                if lines.agrees(self.outputs) and (graph or self._used(lines)):
                    return lines
        return self._lines_of(*movable(self.call), False, False, progress)

    def _lines_of(self, call: Call, coarsest: tf.DType, wide: bool, graph: bool, progress: bool) -> Lines:
        weights = [c / self.scale for c in self.cotangents]
        return Lines(
            call,
            self.outputs,
            weights,
            self.gradient,
            coarsest=coarsest,
            wide=wide,
            graph=graph,
            seed=self.seed,
            progress=progress,
        )

    @functools.cached_property
    def fine(self) -> np.ndarray | None:
        """The tape's gradient in float64; None where it cannot go there."""
        with contextlib.suppress(Exception):
            return self.vector(self._gradient_in(self.lines)) if self.lines.wide else None
        return None

    def _gradient_in(self, lines: Lines) -> list:
        outputs, back = pull_back(lines.call, lines.leaves(lines.point))
        return back([tf.cast(c, y.dtype) for c, y in zip(self.cotangents, outputs, strict=True)])

    def _used(self, lines: Lines) -> bool:
        """Whether `fn` uses the float64 tensors given to it, and not the variables that they stand for."""
        if all(as_variable(leaf) is None for leaf in self.call.leaves):
            return True
        return all(a is not None or b is None for a, b in zip(self._gradient_in(lines), self.raw, strict=True))

    def _measure(self) -> None:
        """A quick look along every line; all steps where it leaves a doubt, and at each source's worst element."""
        total = len(self.gradient)
        starts, widths = np.arange(total), np.ones(total, int)
        if total > (ONE_BY_ONE if self.lines.graph else ONE_BY_ONE // 8):
            count = min(total // WIDTH, max(3, int(EVALUATED / total))) if self.lines.graph else 32
            starts = np.linspace(0, total, count, endpoint=False).astype(int)
            if count >= 4 * len(self.call.sources):
                starts = np.union1d(starts, self.lines.ends[:-1])
            widths = np.diff(starts, append=total)
        self._look(list(zip(starts.tolist(), widths.tolist(), strict=True)), quick=True)
        doubt = {key: self.judge(key) for key in self.rows}
        doubtful = sorted((key for key in doubt if doubt[key][0] != "pass"), key=lambda key: -doubt[key][1])
        mine = filter(None, map(self.touching, range(len(self.raw))))
        worst = [max(keys, key=lambda key: doubt[key][1]) for keys in mine]
        todo = list(dict.fromkeys([*doubtful, *(key for key in worst if key[1] == 1)]))
        for begin in range(0, min(len(todo), 16 * BATCH), BATCH):
            batch = todo[begin : begin + BATCH]
            self._look(batch)
            if all(self.judge(key)[0] == "pass" for key in batch):
                break  # what follows was in less doubt
        for key in doubtful[:OPENED]:
            self._open(key)

    def _look(self, keys: list[tuple[int, int]], quick: bool = False) -> None:
        starts, widths = np.transpose(keys)
        slopes = ladder(self.lines, starts, widths, quick=quick)
        self.rows.update((key, Slopes(*row)) for key, row in zip(keys, zip(*slopes, strict=True), strict=True))

    def _open(self, block: tuple[int, int]) -> None:
        """Halve a block that fails, and its worst part again, until the wrong element is found."""
        parts = [block]
        for _ in range(64):
            start, width = worst = max(parts, key=lambda key: self.judge(key)[1])
            if self.judge(worst)[0] != "fail" or width == 1:
                return
            cuts = [int(end) for end in self.lines.ends if start < end < start + width] or [start + width // 2]
            edges = [start, *cuts, start + width]
            halves = [(a, b - a) for a, b in itertools.pairwise(edges)]
            self._look(halves)
            del self.rows[worst]
            parts = [*(key for key in parts if key != worst), *halves]

    def judge(self, key: tuple[int, int], sure: bool = False) -> tuple[str, float]:
        """The verdict on one line, and how far from agreement it is.

        One wrong element must not drown in the sum over a block: a block is held to the size of one of its elements,
        and opened if it fails; unless it is to be `sure`, then to the size of all.
        """
        row = self.rows[key]
        a, n, u = row.analytic, row.numeric, row.uncertainty
        low, high = np.sort([row.left, row.right])
        if row.diverges or self.kink(row):
            slack = 10 * self.rtol * max(abs(low), abs(high)) + self.atol + 2 * row.sides
            subgradient = low - slack <= a <= high + slack or row.diverges or not row.finite
            return ("kink" if subgradient else "fail"), math.inf
        if not row.finite:
            return ("fail" if abs(n) < self.huge else "inconclusive"), math.inf  # it may only have overflowed
        if not math.isfinite(u):
            return "inconclusive", 1e6
        scale, error = max(abs(a), abs(n)), abs(a - n)
        held = scale if key[1] == 1 else max(scale, row.norm) if sure else row.norm / math.sqrt(key[1])
        allowed = self.rtol * held + self.atol + self.tiny  # a gradient that underflows is 0
        doubt = error / (allowed + 4 * u + 1e-300)
        zero = abs(n) <= SURE * u and abs(a) <= self.eps * self.peaks.max()
        seen = held if key[1] <= CROWD else scale
        explained = error <= 4 * u and SURE * u <= max(
            0.1 * seen, 0.01 * self.peaks[np.searchsorted(self.lines.ends, key[0], side="right")]
        )
        right = self.right_in_float64(key)
        slope = self.lines.height / abs(self.lines.unit[key[0]])  # at which fn changes by its own size
        fine = self.fine[key[0]] if right and self.fine is not None else math.nan
        rounded = right and (
            error <= 10 * self.rtol * scale or abs(a - fine) <= 16 * self.eps * max(self.peaks.max(), slope)
        )
        if error <= allowed or zero or explained or rounded:
            return "pass", doubt
        # an error below eps * slope shows in the values of fn at no step
        certain = error > max(SURE * u, self.lines.eps * slope) and not self.kink(row, 4.0) and not right
        return ("fail" if certain else "inconclusive"), 10 + doubt

    def kink(self, row: Slopes, times: float = SURE) -> bool:
        """Whether the slopes of the two sides differ, by more than tolerance and uncertainty."""
        gap = abs(row.right - row.left)
        return gap > times * row.sides and gap > 10 * self.rtol * max(abs(row.left), abs(row.right))

    def right_in_float64(self, key: tuple[int, int]) -> bool:
        """Whether the tape in float64 gives the slope, so that only rounding in the caller's dtype is left."""
        source = int(np.searchsorted(self.lines.ends, key[0], side="right"))
        if key[1] > 1 or self.raw[source] is None or self.fine is None:
            return False
        row = self.rows[key]
        allowed = SURE * row.uncertainty + RTOL["float64"] * abs(row.numeric)
        return abs(self.fine[key[0]] - row.numeric) <= allowed

    def touching(self, index: int) -> list[tuple[int, int]]:
        """The lines that touch source number `index`."""
        low, high = (int(end) for end in np.append(0, self.lines.ends)[index : index + 2])
        return [key for key in self.rows if key[0] < high and sum(key) > low]


def pull_back(call: Call, leaves: Sequence | None = None) -> tuple[list[tf.Tensor], Callable]:
    """The outputs of `call`, and the function that carries their cotangents back to its sources."""
    sources = [values_of(watchable(leaf)[1]) for leaf in (call.leaves if leaves is None else leaves)]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(sources)
        outputs = floats(call(leaves))
    return outputs, lambda upstream: tape.gradient(outputs, sources, upstream)


def differentiated(call: Call, seed: int) -> Call:
    """The gradient of `call` under a fixed cotangent, itself a function by the same calling rule."""

    def slope(*leaves: Any) -> list[tf.Tensor]:
        outputs, back = pull_back(call, leaves or None)
        gradients = back(cotangents(outputs, seed + 1))
        return [tensor(g) for g in gradients if g is not None] or [tf.zeros([])]

    return dataclasses.replace(call, fn=slope)


def cotangents(outputs: Sequence, seed: int) -> list[tf.Tensor]:
    """Random and never 1: of both signs, of sizes from 0.5 to 1.5, in the dtype of the outputs."""
    rng, drawn = np.random.default_rng(seed), []
    for y in outputs:
        shape = tuple(y.shape)
        draw = [rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape) for _ in range(2)]
        drawn.append(tf.cast(draw[0] + 1j * draw[1] if y.dtype.is_complex else draw[0], y.dtype))
    return drawn


def tensor(gradient: Any) -> tf.Tensor:
    """A gradient as one dense tensor: repeated rows of `tf.IndexedSlices` added, a ragged one by its values."""
    return tf.convert_to_tensor(values_of(gradient))


def _same(first: Any, second: Any) -> bool:
    """Whether two calls gave the same, but for the order in which threads add."""
    if first is None or second is None:
        return first is second
    a, b = (real(tensor(each)).numpy() for each in (first, second))
    size = np.max(np.abs(a), initial=0.0, where=np.isfinite(a))
    return a.shape == b.shape and np.allclose(a, b, rtol=0, atol=16 * epsilon(first.dtype) * size, equal_nan=True)
