"""Short names for ticks, legends and boxes that still tell everything apart: `labels`.

>>> labels(["net/block_0/dense/kernel", "net/block_1/dense/kernel", "net/head/kernel"])
['block_0/dense/kernel', 'block_1/dense/kernel', 'head/kernel']
"""

from collections.abc import Sequence


def labels(names: Sequence[str], *, most: int = 40, shortest: bool = False) -> list[str]:
    """Return a label for each of the unique `names`, unique as well, without what the names share.

    The scopes with which all names begin are left out. Of a name that is longer than `most` characters those scopes
    are left out that are not needed to tell it from the others, but for the last; with `shortest`, of every name.
    """
    last, long = (1, 0) if shortest else (2, most)
    scopes = [name.split("/") for name in names]
    while all(len(parts) > last for parts in scopes) and len({parts[0] for parts in scopes}) == 1:
        scopes = [parts[1:] for parts in scopes]
    found = []
    for parts in scopes:
        kept = list(range(len(parts)))
        others = [other for other in scopes if other is not parts and other[-1] == parts[-1]]
        for place in range(len(parts) - last):
            fewer = [each for each in kept if each != place]
            alike = any(_is_within([parts[each] for each in fewer], other) for other in others)
            kept = fewer if len(_joined(parts, kept)) > long and not alike else kept
        found.append(_joined(parts, kept))
    ends = [label if len(label) <= most else f"…{label[1 - most :]}" for label in found]
    return ends if len(set(ends)) == len(ends) else found


def _joined(parts: Sequence[str], kept: Sequence[int]) -> str:
    """The kept parts, with an ellipsis in the place of others between them."""
    gaps = [number > before + 1 for before, number in zip([kept[0], *kept], kept, strict=False)]
    return "/".join(f"…/{parts[number]}" if gap else parts[number] for number, gap in zip(kept, gaps, strict=True))


def _is_within(few: Sequence[str], many: Sequence[str]) -> bool:
    """Whether `few` are among `many` in the same order."""
    rest = iter(many)
    return all(part in rest for part in few)
