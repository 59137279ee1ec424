"""The user's code in the call stack: `running_line`, `name_in_caller` of a value, and `is_own` for a file."""

import inspect
import re
import sysconfig
import traceback
from pathlib import Path
from typing import Any

import tensorflow as tf

PACKAGE = str(Path(__file__).parent)
LIBRARIES = (sysconfig.get_paths()["stdlib"], PACKAGE, "<frozen")
INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]")
AUTOGRAPH = "__autograph_generated_file"  # AutoGraph's copy of a function


def is_own(file: str) -> bool:
    """Return whether a file of code is the user's own, and not a library's."""
    return not file.startswith(LIBRARIES) and not INSTALLED.search(file) and AUTOGRAPH not in file


def running_line() -> tuple[str, int]:
    """Return the file and line of the user's code that is running, also while a `tf.function` is traced."""
    frames = traceback.extract_stack() if tf.executing_eagerly() else tf.no_op().traceback
    own = [(frame.filename, frame.lineno or 1) for frame in frames if is_own(frame.filename)]
    return own[-1] if own else ("<unknown>", 1)


def name_in_caller(value: Any) -> str | None:
    """Return the name of the local variable that holds `value` in the user's functions that are running."""
    frame = inspect.currentframe()
    while frame is not None:
        file, module = frame.f_code.co_filename, frame.f_globals.get("__name__", "")
        if is_own(file) or (AUTOGRAPH in file and not module.startswith("tapekit.")):
            for name, each in frame.f_locals.items():
                if each is value:
                    return name
        frame = frame.f_back
    return None
