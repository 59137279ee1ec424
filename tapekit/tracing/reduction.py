"""A trace folded until it has few enough records to be drawn: `reduced`."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

ALL_SCOPES = 1000  # a depth at which every scope is looked into


def reduced(trace: Any, boxes: int) -> tuple[Any, dict[str, list]]:
    """Return the trace, folded no more than needed to have at most `boxes` boxes, and the weights inside each box.

    Scopes are folded, the innermost first, until depth 1. If there are still too many boxes, neighbours whose names
    begin with the same words are joined; then stretches of operations that end with a result on which all that follows
    depends; at last the user's own sources go into the boxes. A trace with nothing to join stays larger.
    """
    for own in (False, True):
        for folded in _coarser(trace, boxes):
            inside = _weights(folded, own)
            held = {source.name for sources in inside.values() for source in sources}
            count = len(folded.ops) + len(folded.constants) + len(folded.sources) - len(held)
            if count <= boxes:
                return folded, inside
    return folded, inside


def _weights(trace: Any, own: bool) -> dict[str, list]:
    """Return the sources that belong to the layers of a folded trace, by the name of the record that uses them.

    A source belongs to a layer if only this layer uses it, in one pass or several, and if its name has a scope (such
    as "dense/kernel") or `own` is True.
    """
    inside: dict[str, list] = {}
    for source in trace.sources:
        users = [op for op in trace.ops if source.name in op.inputs]
        layers = {_layer(op) for op in users}
        if len(layers) == 1 and None not in layers and source is not trace.target and (own or "/" in source.name):
            for op in users:
                inside.setdefault(op.name, []).append(source)
    return inside


def _layer(op: Any) -> str | None:
    """Return the layer or scope that a record shows, the same for every pass; None for a single operation."""
    name, scope = (re.sub(r" \(\d+\)", "", each) for each in (op.name, op.scope))
    return scope or name if op.type == "Scope" or name == scope else None


def _coarser(trace: Any, boxes: int) -> Iterator[Any]:
    """Yield the trace, then the trace with more and more operations joined."""
    yield trace
    deepest = max((op.scope.count("/") + 1 for op in trace.ops), default=0)
    for depth in range(deepest, 0, -1):
        trace = trace.fold(depth)
        yield trace
    for words in (3, 2, 1):  # conv2_block1_1_conv belongs to conv2_block1_1, then to conv2_block1, then to conv2
        trace = _regrouped(trace, {op.name: _first_words(op.scope, words) for op in trace.ops})
        yield trace
    for most in (boxes, boxes * 3 // 4, boxes // 2, boxes // 4):
        yield _regrouped(trace, _stretches({op.name: op.inputs for op in trace.ops}, max(most, 1)))


def _first_words(scope: str, words: int) -> str:
    """Return the scope with only the first words of its innermost name."""
    outer, slash, own = scope.rpartition("/")
    return outer + slash + "_".join(own.split("_")[:words])


def _regrouped(trace: Any, scopes: Mapping[str, str]) -> Any:
    """Return the trace, folded by other scopes; "" leaves a record as it is."""
    own = {op.name: op.scope if _layer(op) else "" for op in trace.ops}
    ops = tuple(dataclasses.replace(op, scope=scopes[op.name] or own[op.name]) for op in trace.ops)
    return dataclasses.replace(trace, ops=ops, model="").fold(ALL_SCOPES)


def _stretches(inputs: Mapping[str, Sequence[str]], most: int) -> dict[str, str]:
    """Return for each operation one of at most `most` stretches, which end where a single result is passed on."""
    last = {feed: name for name, feeds in inputs.items() for feed in feeds if feed in inputs}  # the last use of each
    stretches: list[list[str]] = [[]]
    used_later: set[str] = set()
    for name, feeds in inputs.items():
        if len(used_later) == 1:
            stretches.append([])
        stretches[-1].append(name)
        used_later -= {feed for feed in feeds if last.get(feed) == name}
        used_later |= {name} if name in last else set()
    size = math.ceil(len(stretches) / most)
    titles: dict[str, str] = {}
    for number, start in enumerate(range(0, len(stretches), size), start=1):
        names = list(chain(*stretches[start : start + size]))
        first, end = (name.rpartition("/")[2] for name in (names[0], names[-1]))
        titles |= dict.fromkeys(names, f"{number}: {first} … {end}" if len(names) > 1 else "")
    return titles
