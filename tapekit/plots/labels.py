"""Short names for ticks, legends and boxes that still tell everything apart: `labels`.

>>> labels(["net/block_0/dense/kernel", "net/block_1/dense/kernel", "net/head/kernel"])
['block_0/dense/kernel', 'block_1/dense/kernel', 'head/kernel']
"""

import re
from collections.abc import Sequence


def labels(names: Sequence[str], *, most: int = 40, last: int = 2, shortest: bool = False) -> list[str]:
    """Return a label for each of the unique `names`, unique as well, without what the names share.

    The scopes with which all names begin are left out. Of a longer name than `most` characters those parts are left
    out, from the front, that are not needed to tell it from the others; with `shortest`, of every name. The `last`
    parts of a name always stay.
    """
    scopes = [name.split("/") for name in names]
    while all(len(parts) > last for parts in scopes) and len({parts[0] for parts in scopes}) == 1:
        scopes = [parts[1:] for parts in scopes]
    shorter = [_told_apart(scopes, place, last, 0 if shortest else most, "/") for place in range(len(names))]
    words = [re.split(r"(?<=[_./ ])", label) for label in shorter]
    shorter = [_told_apart(words, place, 1, most, "") for place in range(len(names))]
    ends = [label if len(label) <= most else f"…{label[1 - most :]}" for label in shorter]
    return ends if len(set(ends)) == len(ends) else shorter


def _told_apart(names: Sequence[Sequence[str]], place: int, last: int, most: int, separator: str) -> str:
    """Join the parts of one name, without those that are not needed to tell it apart, until it is short enough."""
    parts, others = names[place], [other for number, other in enumerate(names) if number != place]
    others = [other for other in others if other[-1] == parts[-1]]
    kept = list(range(len(parts)))
    for part in range(len(parts) - last):
        if len(_joined(parts, kept, separator)) <= most:
            break
        fewer = [number for number in kept if number != part]
        if not any(_is_within([parts[number] for number in fewer], other) for other in others):
            kept = fewer
    return _joined(parts, kept, separator)


def _joined(parts: Sequence[str], kept: Sequence[int], separator: str) -> str:
    """The kept parts, with an ellipsis in the place of others; not for scopes at the front."""
    shown = []
    for before, number in zip([-1, *kept], kept, strict=False):
        shown += ["…"] if number > before + 1 and (before >= 0 or not separator) else []
        shown.append(parts[number])
    return separator.join(shown)


def _is_within(few: Sequence[str], many: Sequence[str]) -> bool:
    """Whether `few` are among `many` in the same order."""
    rest = iter(many)
    return all(part in rest for part in few)
