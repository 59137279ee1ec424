"""What tapekit costs, each row side by side with what it stands beside, in one run: ``make bench``.

A benchmark is a module ``bench_<module>.py`` with a function ``rows()`` that yields `Row`s.
"""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table: the measured `figure` and the `reach` it is held against (both in `unit`)."""

    what: str
    against: str
    figure: float
    reach: float
    unit: str = "x"
    at_least: bool = False


def interleaved(first: Callable, second: Callable, *, repeats: int = 15, number: int = 1) -> tuple[float, float]:
    """Median seconds a call of `first` and of `second`, timed in turn (A B A B ...) after one warm-up call of each."""
    times: tuple[list[float], list[float]] = ([], [])
    first(), second()
    for _ in range(repeats):
        for call, taken in zip((first, second), times, strict=True):
            start = time.perf_counter()
            for _ in range(number):
                call()
            taken.append((time.perf_counter() - start) / number)
    return statistics.median(times[0]), statistics.median(times[1])


def ratio(first: Callable, second: Callable, *, repeats: int = 15, number: int = 1) -> float:
    """Median time of `first` over that of `second`."""
    a, b = interleaved(first, second, repeats=repeats, number=number)
    return a / b
