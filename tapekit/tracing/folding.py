"""Operations grouped by Keras layer or name scope: `fold` returns the records of a folded trace as `Group`s."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, count, takewhile
from typing import Any, NamedTuple

NEARLY_ALL = 0.9  # the share of the weights in one scope above which that scope is the whole model


class Group(NamedTuple):
    """One record of a folded trace. It shows the output of one operation.

    ``members`` are the operations of one scope whose results are used only through that output. There are none if the
    record is a single operation.
    """

    name: str
    inputs: Sequence[str]
    members: Sequence[str]
    scope: str


def fold(
    inputs: Mapping[str, Sequence[str]],
    scopes: Mapping[str, str],
    model: str,
    constants: Collection[str],
    target: str,
    depth: int | None,
) -> dict[str, Group]:
    """Return the operations that are shown at `depth` (all if None), each with its group.

    `inputs` and `scopes` are those of each operation, in execution order; `model` is the scope from which `depth`
    counts. Constants that only grouped operations use are left out. The output of `target` is always shown.
    """
    scope = _scopes_at(depth, scopes, model)
    exits = _exits(inputs, scope, target)
    members: dict[str, list[str]] = {name: [] for name in inputs if exits[name] == name}
    for name in inputs:
        members[exits[name]].append(name)

    labels = _labels(inputs, scope, members)
    shown_alone = {feed for name, feeds in inputs.items() if not scope[name] for feed in feeds}
    hidden = set(constants) - shown_alone
    groups = {}
    for name, inside in members.items():
        feeds = dict.fromkeys(feed for member in inside for feed in inputs[member])
        outer = [feed for feed in feeds if exits.get(feed) != name and feed not in hidden]
        grouped = Group(labels[name], outer, inside, scope[name])
        groups[name] = grouped if scope[name] else Group(name, inputs[name], (), scopes[name])
    return groups


def _labels(inputs: Mapping[str, Sequence[str]], scope: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """Return unique names of groups: "dense", then "dense (2)" for a further output of that scope (a second pass)."""
    alone = {feed for feeds in (*inputs.values(), names) for feed in feeds if not scope.get(feed)}
    labels: dict[str, str] = {}
    taken, scopes = set(), set(scope.values())
    for name in names:
        here = scope[name]
        numbered = (each for number in count(2) if (each := f"{here} ({number})") not in scopes)
        single = not here or here in alone  # a scope may have the name of a source
        labels[name] = name if single else next(each for each in chain([here], numbered) if each not in taken)
        taken.add(labels[name])
    return labels


def _scopes_at(depth: int | None, scopes: Mapping[str, str], model: str) -> dict[str, str]:
    """Return the scope by which each operation is grouped; "" for an operation that stays alone."""
    if depth is None:
        return dict.fromkeys(scopes, "")
    opened = outer_scopes(scopes.values())
    found = {}
    for name, scope in scopes.items():
        parts = scope.split("/")
        shared = takewhile(lambda pair: pair[0] == pair[1], zip(parts, model.split("/"), strict=False))
        level = len(list(shared)) + depth
        between = not scope or (len(parts) < level and scope in opened)  # the operations between the shown scopes
        found[name] = "" if between else "/".join(parts[:level])
    return found


def _exits(inputs: Mapping[str, Sequence[str]], scope: Mapping[str, str], target: str) -> dict[str, str]:
    """Return for each operation the one through which its result leaves the scope: itself, if it is used outside."""
    users: dict[str, list[str]] = {name: [] for name in inputs}
    exits: dict[str, str] = {}
    for name in reversed(list(inputs)):  # users come before what they use
        found = {exits[user] if scope[name] and scope[user] == scope[name] else name for user in users[name]}
        exits[name] = found.pop() if len(found) == 1 and name != target else name
        for feed in inputs[name]:
            users.get(feed, []).append(name)
    return exits


def outer_scopes(scopes: Iterable[str]) -> set[str]:
    """Return the scopes that hold other scopes."""
    parts = [scope.split("/") for scope in set(scopes)]
    return {"/".join(each[:end]) for each in parts for end in range(1, len(each))}


def model_scope(scopes: Iterable[str], weights: Sequence[str]) -> str:
    """Return the innermost scope that holds nearly all weights and has scopes inside it; "" if there is none.

    `scopes` are those of all operations, `weights` those in which weights are used, once for each use.
    """
    opened, model = outer_scopes(scopes), ""
    while True:
        level = model.count("/") + 1 if model else 0
        inside = [scope.split("/") for scope in weights if not model or scope.startswith(f"{model}/")]
        counts = Counter("/".join(parts[: level + 1]) for parts in inside)
        inner, uses = max(counts.items(), key=lambda item: item[1], default=("", 0))
        if inner not in opened or uses < NEARLY_ALL * len(weights):
            return model
        model = inner


def check_depth(depth: Any) -> None:
    """Raise an error unless `depth` is a positive integer."""
    if type(depth) is not int or depth < 1:
        raise ValueError(
            f"trace: depth is {depth!r}. It is the number of scopes to look into and must be 1, 2, ... Leave it out "
            "to see every operation."
        )
