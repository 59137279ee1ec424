"""Operations grouped by Keras layer or name scope: `fold` tells which of them stand for their group."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple


class Kept(NamedTuple):
    """An operation that stays in a folded trace: what it is called, what feeds it, and whom it stands for."""

    name: str
    feeds: Sequence[str]
    members: Sequence[str]  # empty for an operation outside of any scope


def fold(
    inputs: Mapping[str, Sequence[str]],
    scopes: Mapping[str, str],
    layers: Collection[str],
    constants: Collection[str],
    target: str,
    depth: int,
) -> dict[str, Kept]:
    """The operations whose output leaves their scope, standing for it. Constants inside scopes are left out."""
    models = {layer.rpartition("/")[0] for layer in layers} & set(layers)  # layers with layers inside
    groups = {}
    for name, scope in scopes.items():
        parts = scope.split("/")
        parts = parts[: depth + (parts[0] in models)]
        alone = not scope or (scope in models and len(parts) <= depth)
        groups[name] = name if alone else "/".join(parts)
    uses: dict[str, set[str]] = {name: set() for name in inputs}
    owner: dict[str, str] = {}  # by whom each is represented
    members: dict[str, list[str]] = {}
    for name in reversed(list(inputs)):
        users = {owner[user] if groups[user] == groups[name] else user for user in uses[name]}
        inside = len(users) == 1 and groups[owner[min(users)]] == groups[name] and name != target
        owner[name] = owner[min(users)] if inside else name
        members.setdefault(owner[name], []).insert(0, name)
        for feed in inputs[name]:
            uses.get(feed, set()).add(name)
    hidden = set(constants) - {feed for name, feeds in inputs.items() if groups[name] == name for feed in feeds}
    leaves = {feed for feeds in inputs.values() for feed in feeds} - set(inputs)
    outputs = Counter([*(groups[name] for name in members), *leaves])  # a scope may be called as a source is
    kept = {}
    for name in inputs:
        if name in members and groups[name] == name:
            kept[name] = Kept(name, inputs[name], ())
        elif name in members:
            fed = dict.fromkeys(feed for member in members[name] for feed in inputs[member])
            feeds = [feed for feed in fed if owner.get(feed) != name and feed not in hidden]
            kept[name] = Kept(groups[name] if outputs[groups[name]] == 1 else name, feeds, members[name])
    return kept


def check_depth(depth: Any) -> None:
    if type(depth) is not int or depth < 1:
        raise ValueError(
            f"trace: depth is {depth!r}. It is how many scopes deep to fold: 1, 2, ... Leave it out for none."
        )
