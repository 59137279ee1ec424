"""Names of sources and variables, as they are looked up and printed: `some`, `place_of`, `is_bias`."""

import re
from collections.abc import Sequence


def some(names: Sequence[str]) -> str:
    """At most four of the names, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def place_of(where: str, names: Sequence[str], name: str) -> int:
    """The place of the one among `names` that is `name`, or, of Keras paths, ends with it."""
    found = [place for place, each in enumerate(names) if isinstance(name, str) and f"/{each}".endswith(f"/{name}")]
    found = [place for place in found if names[place] == name] or found
    if len(found) != 1:
        many = f"{len(found)} are called" if found else "nothing is called"
        raise KeyError(f"{where}: {many} {name!r}. The names are {some(names)}.")
    return found[0]


def is_bias(name: str) -> bool:
    """Whether the gradient of a variable of this name is a sum of the back-propagated signal itself."""
    return re.fullmatch(r"(.*bias|beta|b)(_?\d+)?", name.split("/")[-1]) is not None
