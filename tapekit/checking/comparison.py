"""The gradient of the tape beside measured slopes: `compare` returns a `Comparison`.

`compare` computes the gradient with the tape, chooses the lines on which it is compared with differences, measures
their slopes at few steps, and again at many steps where the two disagree. A block of elements that fails is divided
until the wrong element is found.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Collection, Iterable

import numpy as np
import tensorflow as tf

from tapekit._sources import Call, describe
from tapekit.checking.differences import Slopes, measure_slopes
from tapekit.checking.dtypes import epsilon
from tapekit.checking.float64 import Float64
from tapekit.checking.judgement import RTOL, judge
from tapekit.checking.lines import Lines, leaves_at
from tapekit.checking.tape import TapeGradient, as_vector, pull_back, tape_gradient

ONE_BY_ONE = 2048  # elements up to which each is checked by itself; more are checked in blocks
WIDTH = 256  # elements of a block, at least: one wrong element among so many is still visible
EVALUATED = 7e7  # coordinates that all blocks together may copy: the larger the point, the fewer and wider the blocks
OPENED = 16  # doubtful blocks that are divided: enough to name a wrong element of each source
NEIGHBOURS = 8  # points a few roundings away: all of them agree by chance once in a million times

Key = tuple[int, int]  # a line: the first coordinate that it moves, and how many


@dataclasses.dataclass
class Comparison:
    """One order of one function: the gradient of the ``tape``, and the measured slopes of its lines, in ``rows``.

    ``lines`` is None if nothing was measured, because the gradient raises or changes from call to call. ``eps`` is that
    of the coarsest dtype in `fn`, and ``peaks`` are the largest gradients of the sources. ``samplers`` are the indices
    of the sources that are parameters of a random operation.
    """

    call: Call
    tape: TapeGradient
    lines: Lines = None  # type: ignore[assignment]  # without lines there are no rows, and nothing asks for them
    eps: float = 0.0
    rtol: float = 0.0
    atol: float = 0.0
    samplers: Collection[int] = ()
    peaks: np.ndarray = None  # type: ignore[assignment]
    rows: dict[Key, Slopes] = dataclasses.field(default_factory=dict)

    def gradient(self, point: tf.Tensor, cotangents: list) -> np.ndarray:
        """Return the gradient of the tape at another point, under other cotangents, in the dtype of the caller."""
        _, back = pull_back(self.call, leaves_at(self.call, point))
        return as_vector(self.call, back(cotangents), self.tape.scale)

    @functools.cached_property
    def fine(self) -> np.ndarray | None:
        """The gradient of the tape in float64, if `fn` is coarser and can be differentiated there."""
        lines = self.lines
        with contextlib.suppress(Exception):
            if self.eps > lines.eps and lines.float64:
                return as_vector(self.call, lines.float64.gradient(leaves_at(lines.call, lines.point)), self.tape.scale)
        return None

    @functools.cached_property
    def neighbours(self) -> np.ndarray:
        """The gradients of the tape at points a few roundings away: their differences are rounding."""
        point, rng = self.lines.point.numpy(), np.random.default_rng(0)
        eps = max(epsilon(source.dtype) for source in self.call.sources)
        moves = [rng.integers(1, 64, len(point)) * rng.choice([-1, 1], len(point)) * eps for _ in range(NEIGHBOURS)]
        with contextlib.suppress(Exception):
            return np.array([self.gradient(tf.constant(point * (1 + move)), self.tape.cotangents) for move in moves])
        return self.tape.vector[None]

    @functools.cached_property
    def constant(self) -> np.ndarray:
        """The gradient of those outputs that are constant."""
        with contextlib.suppress(Exception):
            if self.lines.constant_size:
                return self.gradient(self.lines.point, self.lines.constant)
        return np.zeros_like(self.tape.vector)

    def along(self, gradient: np.ndarray, key: Key) -> tuple[float, float]:
        """Return the slope that a gradient predicts on a line, and the norm of its part there."""
        moved = gradient[key[0] : sum(key)]
        moved = moved if key[1] == 1 else moved * self.lines.direction[key[0] : sum(key)]
        return float(moved.sum()), float(np.linalg.norm(moved))

    def touching(self, index: int) -> list[Key]:
        """Return the lines that move a part of the source `index`."""
        low, high = (int(end) for end in np.append(0, self.lines.ends)[index : index + 2])
        return [key for key in self.rows if key[0] < high and sum(key) > low]


def compare(call: Call, *, rtol: float | None, atol: float | None, seed: int, progress: bool | None) -> Comparison:
    """Compare the gradient of `call` with differences, element by element or in blocks."""
    tape = tape_gradient(call, seed)
    if tape.random or tape.raises:
        return Comparison(call, tape)
    lines, eps, samplers = _lines(call, tape, seed, progress)
    if rtol is None:
        rtol = max(allowed for name, allowed in RTOL.items() if epsilon(name) <= eps)
    parts = np.split(np.abs(np.nan_to_num(tape.vector)), lines.ends[:-1])
    peaks = np.array([part.max(initial=0.0) for part in parts])
    found = Comparison(call, tape, lines, eps, rtol, atol or 0.0, samplers, peaks)
    if len(tape.vector):
        _measure(found)
    return found


def _lines(call: Call, tape: TapeGradient, seed: int, progress: bool | None) -> tuple[Lines, float, Collection[int]]:
    """Return `fn` on lines, in float64 if it is the same function there; its coarsest eps; the samplers."""
    lines_of = functools.partial(Lines, tape=tape, seed=seed, progress=progress)
    eps, samplers = max(epsilon(each.dtype) for each in (*call.sources, *tape.outputs)), set()
    with contextlib.suppress(Exception):  # whatever keeps fn from being computed in float64
        float64 = Float64(call, tape)
        eps, samplers = max(eps, epsilon(float64.coarsest)), float64.samplers
        lines = lines_of(float64.values(), float64=float64, eps=epsilon("float64"))
        if lines.agrees(eps):
            return lines, eps, samplers
    variables = [isinstance(source, tf.Variable) for source in call.sources]
    if not call.takes_vars and not all(variables):
        name, source = call.names[variables.index(False)], call.sources[variables.index(False)]
        raise ValueError(
            f"check_gradient: source {name!r} is {describe(source)} that fn closes over, and fn cannot be traced to a "
            "float64 graph in which to move it. Let fn take it: check_gradient(lambda x: ..., x), or make it a "
            "tf.Variable."
        )
    with contextlib.suppress(Exception):  # whatever keeps fn from being a graph
        lines = lines_of(call, eps=eps)
        if lines.agrees(eps):
            return lines, eps, samplers
    return lines_of(call, eps=eps, graph=False), eps, samplers


def _measure(found: Comparison) -> None:
    """Measure every line at few steps; then at all steps the doubtful lines and the worst element of each source."""
    _measure_lines(found, _choose(found), quick=True)
    judged = {key: judge(found, key) for key in found.rows}
    doubtful = [key for key in judged if judged[key].verdict != "pass" or judged[key].reason]
    doubtful.sort(key=lambda key: -judged[key].doubt)
    mine = filter(None, map(found.touching, range(len(found.tape.raw))))
    worst = [max(keys, key=lambda key: judged[key].doubt) for keys in mine]
    todo = list(dict.fromkeys([*doubtful, *(key for key in worst if key[1] == 1)]))
    if todo:
        _measure_lines(found, todo)
    for key in doubtful[:OPENED]:
        _open(found, key)


def _choose(found: Comparison) -> Iterable[Key]:
    """Choose the lines: an element each, or, of many elements, blocks."""
    total, lines = len(found.tape.vector), found.lines
    if total <= (ONE_BY_ONE if lines.graph else ONE_BY_ONE // 8):
        return [(start, 1) for start in range(total)]
    count = min(total // WIDTH, max(3, int(EVALUATED / total))) if lines.graph else 32
    starts = np.linspace(0, total, count, endpoint=False).astype(int)
    if count >= 4 * len(found.call.sources):
        starts = np.union1d(starts, lines.ends[:-1])
    return zip(starts.tolist(), np.diff(starts, append=total).tolist(), strict=True)


def _measure_lines(found: Comparison, keys: Iterable[Key], quick: bool = False) -> None:
    """Measure the slopes of the lines `keys`."""
    keys = list(keys)
    starts, widths = np.transpose(keys)
    slopes = measure_slopes(found.lines, starts, widths, quick=quick)
    found.rows.update((key, Slopes(*row)) for key, row in zip(keys, zip(*slopes, strict=True), strict=True))


def _open(found: Comparison, block: Key) -> None:
    """Divide a block that fails, at the ends of sources or in half, and its worst part again, down to one element."""
    parts = {block: judge(found, block)}
    for _ in range(64):
        start, width = worst = max(parts, key=lambda key: parts[key].doubt)
        if parts.pop(worst).verdict != "fail" or width == 1:
            return
        cuts = [int(end) for end in found.lines.ends if start < end < start + width] or [start + width // 2]
        halves = [(a, b - a) for a, b in itertools.pairwise([start, *cuts, start + width])]
        _measure_lines(found, halves)
        del found.rows[worst]
        parts |= {half: judge(found, half) for half in halves}
