"""The results of a check: one `SourceCheck` for each source, together a `GradientCheck`, and the table it prints."""

import dataclasses
import math
from collections.abc import Iterator

from tapekit._names import place_of, some
from tapekit._tables import Html, block, html_table, status, text_table

VERDICTS = ("pass", "inconclusive", "kink", "fail", "nondeterministic")  # the last that occurs is that of the check
NUMBERS = range(2, 6)  # the columns that hold numbers


@dataclasses.dataclass(frozen=True)
class SourceCheck:
    """The verdict on one source, and the numbers at its worst element.

    ``index`` is that element, or the first of a block; None if nothing was measured. ``analytic`` is the gradient of
    the tape, under the random cotangent if `fn` is not scalar; ``numeric`` +- ``uncertainty`` is the slope, measured
    best at ``step``. ``differences`` are the central differences at each of ``steps``.
    """

    name: str
    verdict: str
    cause: str
    index: tuple | None = None
    analytic: float = math.nan
    numeric: float = math.nan
    uncertainty: float = math.nan
    checked: str = "nothing"
    step: float = math.nan
    steps: tuple = dataclasses.field(default=(), repr=False)
    differences: tuple = dataclasses.field(default=(), repr=False)

    @property
    def abs_error(self) -> float:
        return abs(self.analytic - self.numeric)

    @property
    def rel_error(self) -> float:
        """|a - n| / max(|a|, |n|), and 0 if both are 0."""
        return self.abs_error / (max(abs(self.analytic), abs(self.numeric)) or 1.0)


@dataclasses.dataclass(frozen=True)
class GradientCheck:
    """One `SourceCheck` per source, in order; true only if all of them pass."""

    sources: tuple[SourceCheck, ...]
    order: int = 1
    weighted: tuple[str, ...] = ()  # what has several numbers, of which a sum with random weights was checked

    @property
    def verdict(self) -> str:
        return max((source.verdict for source in self.sources), key=VERDICTS.index)

    def __bool__(self) -> bool:
        return self.verdict == "pass"

    def __iter__(self) -> Iterator[SourceCheck]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, which: int | str) -> SourceCheck:
        """Return the check at an index, or of the source with that name, or with a Keras path that ends with it."""
        if isinstance(which, str):
            which = place_of("GradientCheck", [source.name for source in self.sources], which)
        if not -len(self) <= which < len(self):
            raise IndexError(f"GradientCheck: there is no source {which}; there are {len(self)}. Write check[0].")
        return self.sources[which]

    def raise_if_failed(self) -> None:
        """Raise an AssertionError with the table unless every source passed."""
        if not self:
            raise AssertionError(f"check_gradient: {self.verdict}\n{self}")

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the verdict, the table and the causes."""
        head, *rows = self._rows()
        coloured = [(name, status(verdict), *numbers) for name, verdict, *numbers in rows]
        return block(Html(f"gradient: {status(self.verdict)}"), html_table([head, *coloured], NUMBERS), *self._causes())

    def __repr__(self) -> str:
        """Return the table: a line per source with its worst element, then every cause in words."""
        return "\n".join([text_table(self._rows(), NUMBERS), *self._causes()])

    def _rows(self) -> list:
        rows: list = [("source", "verdict", "tape", "differences", "+-", "rel. error", "checked")]
        for each in self:
            label = each.name + (f"{list(each.index)}" if each.index else "")
            cells = [f"{each.analytic:.6g}", f"{each.numeric:.6g}", f"{each.uncertainty:.1e}", f"{each.rel_error:.1e}"]
            rows.append((label, each.verdict, *(cells if each.index is not None else ["-"] * 4), each.checked))
        return rows

    def _causes(self) -> list[str]:
        """Return each cause once, after the names of its sources; then what the numbers are weighted by."""
        named: dict[str, list[str]] = {}
        for each in self:
            named.setdefault(each.cause, []).append(each.name)
        order = "" if self.order == 1 else ", second order"
        causes = [f"{some(names)}{order}: {cause}" for cause, names in named.items() if cause]
        if self.weighted:
            have = " and ".join(self.weighted) + (" has" if len(self.weighted) == 1 else " have")
            causes.append(f"({have} several numbers: the slopes are those of their sum with random weights.)")
        return causes
