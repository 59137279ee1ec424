"""The rows of a `GradientLog`, as arrays and tables: `Records`, and for one variable `VariableLog` and `Histogram`."""

import dataclasses
from collections import namedtuple
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tapekit import _sources
from tapekit._names import place_of, some
from tapekit._tables import Html, block, html_table, text_table
from tapekit.logs.findings import findings
from tapekit.logs.ring import STATISTICS, Rows

KINDS = (*STATISTICS, "update_ratio")
FORMATS = {"mean": ".3g", "std": ".3g", "zero_fraction": ".0%", "nonfinite": "d", "update_ratio": ".1e"}
HEADS = {"zero_fraction": "zeros", "nonfinite": "not finite", "update_ratio": "update"}
SHOWN = 10  # the most variables in a notebook
MAGNITUDES = np.append(np.outer(2.0 ** np.arange(-126, 128), [1.0, 1.5]), 2.0**128)  # two bins an octave
EDGES = np.concatenate([-MAGNITUDES[::-1], MAGNITUDES])
Histogram = namedtuple("Histogram", "edges counts")


class VariableLog(namedtuple("_Rows", "steps norm mean std max_abs zero_fraction nonfinite missing update_ratio")):
    """The rows of one variable, as arrays `[rows]`."""

    def _repr_html_(self) -> Html:
        norms = np.sort(self.norm[~np.isnan(self.norm)])
        sizes = f"{norms[len(norms) // 2]:.4g} (median), {norms[0]:.4g} to {norms[-1]:.4g}" if len(norms) else "unknown"
        steps = f", steps {self.steps[0]} to {self.steps[-1]}" if len(self.steps) else ""
        none, bad = np.count_nonzero(self.missing), np.count_nonzero(self.nonfinite)
        return block(f"{len(self.steps)} rows{steps}: norm {sizes}; None in {none}, not finite in {bad}")


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
    nonfinite = property(lambda self: np.nan_to_num(self.column("nonfinite")).astype(int), doc="Count of NaN and inf.")
    missing = property(lambda self: np.isnan(self.column("nonfinite")), doc="Whether None, `[rows, variables]`.")
    update_ratio = property(lambda self: self.column("update_ratio"), doc="||update|| / ||w||, `[rows, variables]`.")
    histogram_steps = property(lambda self: self.rows.histogram_steps, doc="The steps with histograms.")
    kinds = property(lambda self: KINDS[: self.rows.table.shape[1]], doc="The statistics in the rows.")

    def column(self, name: str) -> np.ndarray:
        """Return one statistic of every variable, `[rows, variables]`; NaN if the rows do not hold it."""
        table, place = self.rows.table, KINDS.index(name)
        return table[:, place] if place < table.shape[1] else np.full_like(table[:, 0], np.nan)

    def read(self) -> "Records":
        """Return all rows at this moment, which stay the same while another thread goes on to record."""
        return Records(*(getattr(self, field.name) for field in dataclasses.fields(Records)))

    def index(self, variable: Any) -> int:
        """Return the index in `names` of a variable, given as itself, its name or the end of its name."""
        known = [index for index, each in enumerate(self.variables) if each is variable]
        name = variable if _sources.as_variable(variable) is None else _sources.names(variable)[0]
        if not known and name == "vars" and name is not variable:  # a variable without a name
            what = f"{_sources.describe(variable)} was not recorded"
            raise KeyError(f"GradientLog: {what}. The names are {some(self.names) or 'not known yet'}.")
        return known[0] if known else place_of("GradientLog", self.names, name)

    def __len__(self) -> int:
        return len(self.rows.steps)

    def __bool__(self) -> bool:
        return True  # also if it is empty: `if log:` asks whether there is a log

    def __getitem__(self, variable: Any) -> Any:
        """Return the `VariableLog` of a variable, given as itself, its name or the end of its name."""
        log, index = self.read(), self.index(variable)
        return VariableLog._make([log.steps, *(getattr(log, kind)[:, index] for kind in VariableLog._fields[1:])])

    def histogram(self, variable: Any, step: int = -1) -> Histogram:
        """Return the distribution of one gradient: how many of its finite elements lie between each edge and the next.

        Args:
            variable: the variable, its name or the end of its name.
            step: one of `histogram_steps`; a negative number counts from the end.

        Returns:
            ``(edges, counts)``, `[bins + 1]` and `[bins]`. The bin in the middle, -2⁻¹²⁶ to 2⁻¹²⁶, holds the zeros.

        Raises:
            KeyError, ValueError: there is no such variable, or that step has no histograms.
        """
        log, index = self.read(), self.index(variable)
        steps = log.histogram_steps.tolist()
        if step not in [*steps, *range(-len(steps), 0)]:
            have = f"log.histogram_steps has {some([*map(str, steps)])}" if steps else "The log has none"
            instead = "Give one of these, or record with GradientLog(histograms=100)"
            raise ValueError(f"GradientLog.histogram: step {step!r} has no histograms. {have}. {instead}.")
        place = step if step < 0 else steps.index(step)
        positive, negative = np.split(log.rows.counts[place, index], 2)
        codes = np.concatenate([negative[::-1], positive])  # from -NaN to NaN; two codes at each end are not finite
        return Histogram(EDGES, np.concatenate([codes[2:510], [codes[510:514].sum()], codes[514:-2]]))

    def to_dict(self) -> dict[str, np.ndarray]:
        """Return columns for `pandas.DataFrame`: step, loss, global_norm, ``dense/kernel.norm`` and so on."""
        log = self.read()
        columns = {"step": log.steps, "loss": log.loss, "global_norm": log.global_norm}
        for kind in (*log.kinds, "missing"):
            columns |= zip((f"{name}.{kind}" for name in log.names), getattr(log, kind).T, strict=True)
        return columns

    findings = findings  # the function is the method

    def __repr__(self) -> str:
        log = self.read()
        return log._title() + ("\n" + text_table(log._cells(range(len(log.names))), range(1, 9)) if len(log) else "")

    def _repr_html_(self) -> Html:
        """Return the last row, with a bar for each norm: of all variables, or of the ten farthest from the median."""
        log = self.read()
        if not len(log):
            return block(log._title())
        sizes = np.ma.masked_where(log.nonfinite[-1] > 0, np.ma.log10(log.norm[-1].astype(float)))
        distances = np.ma.filled(np.abs(sizes - np.ma.median(sizes)), np.inf)
        shown = np.sort(np.argsort(-distances, kind="stable")[:SHOWN])
        widths = np.ma.filled(4 + 96 * (sizes - sizes.min()) / (sizes.max() - sizes.min() or 1), 0)
        rows = log._cells(shown)
        rows[0].insert(2, "log scale")
        for row, width in zip(rows[1:], widths[shown], strict=True):
            row.insert(2, Html(f'<div style="background:#0072B2;height:0.7em;width:{width:.0f}px"></div>'))
        more = len(log.names) - SHOWN
        note = [f"and {more} more variables, whose norms are nearer to the median"] if more > 0 else []
        return block(log._title(), html_table(rows, (1, *range(3, 9))), *note)

    def _title(self) -> str:
        if not len(self):
            return "GradientLog: no rows yet"
        loss = f"{self.loss[-1]:.4g}" if self.has_loss else "not recorded"
        lost = f", {self.lost} rows lost" if self.lost else ""
        return f"step {self.steps[-1]} (row {len(self)}), loss {loss}, global norm {self.global_norm[-1]:.4g}{lost}"

    def _cells(self, indices: Iterable[int]) -> list[list[str]]:
        """Return the head of the table, and the cells of each of these variables in the last row."""
        rows = [["variable", *(HEADS.get(kind, kind) for kind in self.kinds)]]
        last, missing = {kind: getattr(self, kind)[-1] for kind in self.kinds}, self.missing[-1]
        for index in indices:
            cells = [f"{values[index]:{FORMATS.get(kind, '.4g')}}" for kind, values in last.items()]
            rows.append([self.names[index], *(["None", *[""] * (len(cells) - 1)] if missing[index] else cells)])
        return rows
