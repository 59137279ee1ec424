"""A progress bar of one line on the standard output."""

import sys
import time
from collections.abc import Iterator

import numpy as np

PATIENCE = 3.0  # seconds after which a reader at a terminal wants to know that something happens
CHUNKS = 20  # times that the bar moves


class Progress:
    """Hand out the work in chunks and show how much is done: if `shown`, never if False.

    If it is None, the bar appears in a terminal or a notebook, `PATIENCE` seconds after the check began.
    """

    def __init__(self, shown: bool | None):
        interactive = sys.stdout.isatty() or type(sys.stdout).__module__.startswith("ipykernel")
        self.begin = time.monotonic() + (0.0 if shown else PATIENCE)
        self.silent = not interactive if shown is None else not shown

    def chunks(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Return parts of `rows` in turn, and write the line again after each."""
        done = 0
        for chunk in np.array_split(rows, 1 if self.silent else min(len(rows), CHUNKS)):
            yield chunk
            done += len(chunk)
            if not self.silent and time.monotonic() >= self.begin:
                bar, end = "=" * (30 * done // len(rows)), "\n" if done == len(rows) else ""
                sys.stdout.write(f"\rcheck_gradient [{bar:<30}] {done}/{len(rows)} values{end}")
                sys.stdout.flush()
