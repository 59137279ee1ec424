"""Names of sources and variables, as they are printed and looked up: `printable`, `some`, `place_of`, `is_bias`."""

import re
from collections.abc import Sequence


def printable(name: str) -> str:
    """Return the name in one line, with a space for each line break, tab and control character."""
    return "".join(each if each.isprintable() else " " for each in name)


def some(names: Sequence[str]) -> str:
    """Return at most four of the names in one line, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def place_of(where: str, names: Sequence[str], name: str) -> int:
    """Return the index in `names` of `name`, or of the only Keras path that ends with it; else raise KeyError."""
    text = printable(str(name))
    ends = [place for place, each in enumerate(names) if f"/{each}".endswith(f"/{text}")]
    found = [place for place in ends if names[place] == text] or ends
    if len(found) != 1:
        many = f"{len(found)} are called" if found else "nothing is called"
        raise KeyError(f"{where}: {many} {name!r}. The names are {some(names) or 'not known yet'}.")
    return found[0]


def is_bias(name: str) -> bool:
    """Return whether the name is that of a bias, whose gradient is the sum of the signal that arrives at its layer."""
    return re.fullmatch(r"(.*bias|beta|b)(_?\d+)?", name.split("/")[-1]) is not None
