"""The rows of a `GradientLog` as arrays: `Records` of all variables, `VariableLog` and `Histogram` of one."""

import dataclasses
from collections import namedtuple
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tapekit import _sources
from tapekit._names import place_of, some
from tapekit.logs.findings import findings
from tapekit.logs.ring import STATISTICS, Rows
from tapekit.logs.tables import log_html, table, variable_html

KINDS = (*STATISTICS, "update_ratio")
# Two bins an octave for each sign (the bit of 512). The codes below FINITE stand for 0 and for numbers below the
# smallest normal float32 number, those above for infinity and NaN.
FINITE = slice(2, 510)
MAGNITUDES = np.append(np.outer(2.0 ** np.arange(-126, 128), [1.0, 1.5]), 2.0**128)
EDGES = np.concatenate([-MAGNITUDES[::-1], MAGNITUDES])


class VariableLog(namedtuple("_Rows", "steps norm mean std max_abs zero_fraction nonfinite missing update_ratio")):
    """The rows of one variable, as arrays `[rows]`."""

    _repr_html_ = variable_html


class Histogram(NamedTuple):
    """The number of elements between each edge and the next. The middle bin, -2⁻¹²⁶ to 2⁻¹²⁶, holds the zeros."""

    edges: np.ndarray  # float64 `[bins + 1]`
    counts: np.ndarray  # int64 `[bins]`


@dataclasses.dataclass(eq=False, repr=False)
class Records:
    """The rows at one moment. A `GradientLog` may grow between two reads; what its `read` returns does not."""

    names: tuple[str, ...] = ()
    rows: Rows = dataclasses.field(default_factory=Rows)
    has_loss: bool = False  # whether a loss was given
    clipping: Sequence | None = None  # the argument of the optimizer, its value, the first step
    lost: int = 0  # rows that were overwritten before they were fetched
    variables: Sequence = ()  # those that were recorded, if they are known

    steps = property(lambda self: self.rows.steps, doc="The step of each row, `[rows]`.")
    loss = property(lambda self: self.rows.loss, doc="The loss, NaN if it was not given, `[rows]`.")
    global_norm = property(lambda self: self.rows.global_norm, doc="L2 norm of all gradients together, `[rows]`.")
    norm = property(lambda self: self.column("norm"), doc="L2 norms, `[rows, variables]`.")
    mean = property(lambda self: self.column("mean"), doc="Means, `[rows, variables]`.")
    std = property(lambda self: self.column("std"), doc="Standard deviations, `[rows, variables]`.")
    max_abs = property(lambda self: self.column("max_abs"), doc="Largest magnitudes, `[rows, variables]`.")
    zero_fraction = property(lambda self: self.column("zero_fraction"), doc="Share of zeros, `[rows, variables]`.")
    missing = property(lambda self: np.isnan(self.column("nonfinite")), doc="Whether None, `[rows, variables]`.")
    update_ratio = property(lambda self: self.column("update_ratio"), doc="||update|| / ||w||, `[rows, variables]`.")
    histogram_steps = property(lambda self: self.rows.histogram_steps, doc="The steps with histograms.")

    kinds = property(lambda self: KINDS[: self.rows.table.shape[1]], doc="The statistics in the rows.")

    @property
    def nonfinite(self) -> np.ndarray:
        """Number of NaN and infinite elements, which the other statistics leave out, `[rows, variables]`."""
        return np.nan_to_num(self.column("nonfinite")).astype(np.int64)

    def column(self, name: str) -> np.ndarray:
        """Return one statistic of every variable, `[rows, variables]`; NaN if the rows do not hold it."""
        table, place = self.rows.table, KINDS.index(name)
        return table[:, place] if place < table.shape[1] else np.full_like(table[:, 0], np.nan)

    def read(self) -> "Records":
        """Return all rows at this moment, which stay the same while another thread goes on to record."""
        return Records(*(getattr(self, field.name) for field in dataclasses.fields(Records)))

    def index(self, variable: Any) -> int:
        """Return the index in `names` of a variable, given as itself, its name or the end of its name."""
        if _sources.as_variable(variable) is None:
            return place_of("GradientLog", self.names, variable)
        for index, each in enumerate(self.variables):
            if each is variable:
                return index
        (name,) = _sources.names(variable)
        if name == "vars":  # which has no name
            what = f"{_sources.describe(variable)} was not recorded"
            raise KeyError(f"GradientLog: {what}. The names are {some(self.names) or 'not known yet'}.")
        return place_of("GradientLog", self.names, name)

    def __len__(self) -> int:
        return len(self.rows.steps)

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
            >>> import tensorflow as tf
            >>> from tapekit import GradientLog
            >>> w, log = tf.Variable([1.0, 2.0], name="w"), GradientLog(histograms=1)
            >>> log.record([tf.constant([0.0, 0.6])], [w])
            >>> edges, counts = log.histogram("w")
            >>> edges[counts.nonzero()].tolist(), counts[counts.nonzero()].tolist()
            ([-1.1754943508222875e-38, 0.5], [1, 1])
        """
        log, index = self.read(), self.index(variable)
        steps = log.histogram_steps.tolist()
        if step not in [*steps, *range(-len(steps), 0)]:
            have = f"log.histogram_steps has {some([*map(str, steps)])}" if steps else "The log has none"
            instead = "Give one of these, or record with GradientLog(histograms=100)"
            raise ValueError(f"GradientLog.histogram: step {step!r} has no histograms. {have}. {instead}.")
        place = step if step < 0 else steps.index(step)
        positive, negative = np.split(log.rows.counts[place, index], 2)
        zeros = positive[: FINITE.start].sum() + negative[: FINITE.start].sum()
        return Histogram(EDGES, np.concatenate([negative[FINITE][::-1], [zeros], positive[FINITE]]))

    def to_dict(self) -> dict[str, np.ndarray]:
        """Return columns for `pandas.DataFrame`: step, loss, global_norm, ``dense/kernel.norm`` and so on."""
        log = self.read()
        columns = {"step": log.steps, "loss": log.loss, "global_norm": log.global_norm}
        for kind in (*log.kinds, "missing"):
            columns |= zip((f"{name}.{kind}" for name in log.names), getattr(log, kind).T, strict=True)
        return columns

    findings = findings
    __repr__ = table
    _repr_html_ = log_html
