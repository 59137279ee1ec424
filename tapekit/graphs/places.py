"""Lines of the user's code: `Place`, and how to find it in a stack."""

import linecache
import re
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tapekit._lines import is_own


class Place(NamedTuple):
    """One line of the user's code."""

    file: str
    line: int
    code: str


def place(frames: Iterable[traceback.FrameSummary]) -> Place | None:
    """Return the innermost line of a stack (of ``op.traceback`` or of an exception) that is in the user's code."""
    for frame in reversed(list(frames)):
        if is_own(frame.filename):
            return place_at(frame.filename, frame.lineno or 0)
    return None


def place_at(file: str, line: int) -> Place:
    """Return the place of a line of a file."""
    return Place(file, line, linecache.getline(file, line).strip())


def short(file: str) -> str:
    """Return the name of a file as it is printed; the file of a notebook cell has only a number for its name."""
    return "notebook cell" if re.search(r"ipykernel_\d|ipython-input", file) else Path(file).name
