"""The rows of a `GradientLog` as arrays: `Records` of all variables, `VariableLog` and `Histogram` of one."""

import dataclasses
from collections import namedtuple
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tapekit import _sources
from tapekit._names import place_of, some
from tapekit.logs.findings import findings
from tapekit.logs.ring import CODES, STATISTICS
from tapekit.logs.tables import log_html, table, variable_html

FIELDS = ("names", "steps", "rows", "counts", "updates", "has_loss", "clipping", "lost")  # those that are saved
COLUMNS = (*STATISTICS, "update_ratio")
# Two bins an octave for each sign (the bit of 512). The codes below FINITE stand for 0 and for numbers below the
# smallest normal float32 number, those above for infinity and NaN.
FINITE = slice(2, 510)
MAGNITUDES = np.append(np.outer(2.0 ** np.arange(-126, 128), [1.0, 1.5]), 2.0**128)
EDGES = np.concatenate([-MAGNITUDES[::-1], MAGNITUDES])


class VariableLog(namedtuple("_Rows", "steps norm mean std max_abs zero_fraction nonfinite missing update_ratio")):
    """The rows of one variable, as arrays `[rows]`."""

    def _repr_html_(self) -> str:
        return variable_html(self)


class Histogram(NamedTuple):
    """The number of elements between each edge and the next. The middle bin, -2⁻¹²⁶ to 2⁻¹²⁶, holds the zeros."""

    edges: np.ndarray  # float64 `[bins + 1]`
    counts: np.ndarray  # int64 `[bins]`


@dataclasses.dataclass(eq=False, repr=False)
class Records:
    """The rows at one moment. A `GradientLog` may grow between two reads; what its `read` returns does not."""

    names: tuple[str, ...]
    steps: np.ndarray  # `[rows]`
    rows: np.ndarray  # `[rows, columns]`: loss, global norm, the norm of each variable, the mean of each, ...
    counts: np.ndarray  # `[4, bins]`: step, index of the variable, code of the bin, and how many elements it holds
    updates: bool = False  # whether the rows have update ratios
    has_loss: bool = False  # whether a loss was given
    clipping: Sequence | None = None  # the argument of the optimizer, its value, the first step
    lost: int = 0  # rows that were overwritten before they were fetched
    variables: Sequence = ()  # those that were recorded, if they are known

    loss = property(lambda self: self.read().rows[:, 0], doc="The loss, NaN if it was not given, `[rows]`.")
    global_norm = property(lambda self: self.read().rows[:, 1], doc="L2 norm of all gradients together, `[rows]`.")
    norm = property(lambda self: self.column("norm"), doc="L2 norms, `[rows, variables]`.")
    mean = property(lambda self: self.column("mean"), doc="Means, `[rows, variables]`.")
    std = property(lambda self: self.column("std"), doc="Standard deviations, `[rows, variables]`.")
    max_abs = property(lambda self: self.column("max_abs"), doc="Largest magnitudes, `[rows, variables]`.")
    zero_fraction = property(lambda self: self.column("zero_fraction"), doc="Share of zeros, `[rows, variables]`.")
    missing = property(lambda self: np.isnan(self.column("nonfinite")), doc="Whether None, `[rows, variables]`.")
    update_ratio = property(lambda self: self.column("update_ratio"), doc="||update|| / ||w||, `[rows, variables]`.")
    histogram_steps = property(lambda self: np.unique(self.read().counts[0]), doc="The steps with histograms.")
    kinds = property(lambda self: COLUMNS[: len(STATISTICS) + bool(self.updates)], doc="The statistics in the rows.")

    @property
    def nonfinite(self) -> np.ndarray:
        """Number of NaN and infinite elements, which the other statistics leave out, `[rows, variables]`."""
        return np.nan_to_num(self.column("nonfinite")).astype(np.int64)

    def read(self) -> "Records":
        """Return all rows at this moment."""
        return self

    def column(self, name: str) -> np.ndarray:
        """Return one statistic of every variable, `[rows, variables]`; NaN if the rows do not hold it."""
        rows, shape = self.read().rows, (len(self.kinds), len(self.names))
        if name not in self.kinds:
            return np.full([len(rows), len(self.names)], np.nan, np.float32)
        return rows[:, 2:].reshape(len(rows), *shape)[:, self.kinds.index(name)]

    def index(self, variable: Any) -> int:
        """Return the index in `names` of a variable, given as itself, its name or the end of its name."""
        known = [index for index, each in enumerate(self.variables) if each is variable]
        name = variable if _sources.as_variable(variable) is None else _sources.names(variable)[0]
        return known[0] if known else place_of("GradientLog", self.names, name)

    def __len__(self) -> int:
        return len(self.read().steps)

    def __bool__(self) -> bool:
        return True  # also if it is empty: `if log:` asks whether there is a log

    def __getitem__(self, variable: Any) -> Any:
        """Return the `VariableLog` of a variable, given as itself, its name or the end of its name."""
        log, index = self.read(), self.index(variable)
        return VariableLog._make([log.steps, *(getattr(log, kind)[:, index] for kind in VariableLog._fields[1:])])

    def histogram(self, variable: Any, step: int = -1) -> Histogram:
        """Return edges and counts of the distribution of one gradient. NaN and infinite elements are not counted.

        Args:
            variable: the variable, its name or the end of its name.
            step: one of `histogram_steps`; a negative number counts from the end.

        Raises:
            KeyError, ValueError: there is no such variable, or that step has no histograms.

        Example:
            >>> log = Records(("w",), np.array([7]), np.ones([1, 8]), np.array([[7, 7], [0, 0], [252, 0], [3, 1]]))
            >>> edges, counts = log.histogram("w")
            >>> edges[counts.nonzero()].tolist(), counts[counts.nonzero()].tolist()
            ([-1.1754943508222875e-38, 0.5], [1, 3])
        """
        log, index = self.read(), self.index(variable)
        steps = log.histogram_steps
        found = steps[step:][:1] if step in range(-len(steps), 0) else [each for each in steps.tolist() if each == step]
        if not len(found):
            have = f"log.histogram_steps has {some(steps.astype(str))}" if len(steps) else "The log has none"
            instead = "Give one of these, or record with GradientLog(histograms=100)"
            raise ValueError(f"GradientLog.histogram: step {step!r} has no histograms. {have}. {instead}.")
        codes, counts = log.counts[2:, (log.counts[0] == found[0]) & (log.counts[1] == index)]
        positive, negative = np.split(np.bincount(codes, counts, CODES).astype(np.int64), 2)
        zeros = positive[: FINITE.start].sum() + negative[: FINITE.start].sum()
        return Histogram(EDGES, np.concatenate([negative[FINITE][::-1], [zeros], positive[FINITE]]))

    def to_dict(self) -> dict[str, np.ndarray]:
        """Return columns for `pandas.DataFrame`: step, loss, global_norm, ``dense/kernel.norm`` and so on."""
        log = self.read()
        columns = {"step": log.steps, "loss": log.loss, "global_norm": log.global_norm}
        for index, name in enumerate(log.names):
            columns |= {f"{name}.{kind}": getattr(log, kind)[:, index] for kind in (*log.kinds, "missing")}
        return columns

    def __repr__(self) -> str:
        return table(self.read())

    def _repr_html_(self) -> str:
        return log_html(self.read())

    def findings(self) -> tuple[str, ...]:
        """Return what is wrong, in sentences that name the first step, the variable and the threshold."""
        return findings(self.read())
