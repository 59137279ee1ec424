"""Short unique names for ticks, legends and boxes: `labels`.

>>> labels(["net/block_0/dense/kernel", "net/block_1/dense/kernel", "net/head/kernel"])
['block_0/dense/kernel', 'block_1/dense/kernel', 'head/kernel']
"""

from collections.abc import Sequence


def labels(names: Sequence[str], *, most: int = 40, shortest: bool = False) -> list[str]:
    """Return a short unique label for each of the unique `names`.

    The scopes with which all names begin are left out. A name that is longer than `most` characters also loses the
    scopes that do not tell it from the others, except the last scope. With `shortest`, every name loses all of these.
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
    """Return the parts that are kept, with an ellipsis for those between them that are not."""
    steps = zip([kept[0] - 1, *kept], kept, strict=False)
    return "/".join(parts[place] if place == before + 1 else f"…/{parts[place]}" for before, place in steps)


def _is_within(few: Sequence[str], many: Sequence[str]) -> bool:
    """Return whether `few` are among `many` in the same order."""
    rest = iter(many)
    return all(part in rest for part in few)
