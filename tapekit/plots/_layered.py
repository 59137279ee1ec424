"""Where the boxes of a circuit stand: longest-path layers, barycentre ordering, in units of the font size.

An edge that passes several layers has a place of its own in each, so that it never crosses a box.
"""

from collections import defaultdict
from itertools import pairwise
from typing import Any

Point = tuple[float, float]


def layered(
    edges: list[tuple[str, str]], gaps: list[float], sizes: dict[str, Point], right: bool
) -> tuple[dict[str, Point], list[list[Point]]]:
    """The centre of each box of `sizes`, and for each edge the points through which it goes: out of its source, into
    and out of each layer that it passes, into its operation. `gaps` is the room that each edge needs for its label.
    """
    names = list(sizes)
    feeds: dict[str, list[str]] = defaultdict(list)
    users: dict[str, list[str]] = defaultdict(list)
    for source, op in edges:
        feeds[op].append(source)
        users[source].append(op)
    layer: dict[Any, int] = {}
    for name in names:
        layer[name] = 1 + max((layer[feed] for feed in feeds[name]), default=-1)
    for name in names:
        if not feeds[name] and users[name]:  # a leaf stands just before its first use
            layer[name] = min(layer[user] for user in users[name]) - 1
    chains: list[list[Any]] = []
    for number, (source, op) in enumerate(edges):
        between = [(number, step) for step in range(layer[source] + 1, layer[op])]
        layer |= {stop: stop[1] for stop in between}
        chains.append([source, *between, op])
    rows: list[list] = [[] for _ in range(max(layer.values()) + 1)]
    for node in layer:
        rows[layer[node]].append(node)
    near: dict[Any, list] = defaultdict(list)
    for chain in chains:
        for one, other in pairwise(chain):
            near[one].append(other)
            near[other].append(one)

    along, across = (0, 1) if right else (1, 0)
    span = {node: sizes[node][across] if node in sizes else 1.0 for node in layer}
    apart = 1.6 if right else 9.0  # room for the labels between boxes side by side
    # chains of operations stay straight; leaves and passing edges give way
    weight = {node: 1.0 if feeds.get(node) else 0.02 for node in layer}
    seat: dict[Any, float] = {}
    for row in rows:
        _seat(row, [0.0] * len(row), span, apart, weight, seat)
    for sweep in range(24):
        step = 1 if sweep % 2 == 0 else -1
        for row in rows[::step]:
            wish = {}
            for node in row:
                others = [other for other in near[node] if sweep > 15 or (layer[other] - layer[node]) * step < 0]
                total = sum(weight[other] for other in others)
                wish[node] = sum(weight[other] * seat[other] for other in others) / total if others else seat[node]
            if sweep < 16:  # first the order, then only the distances
                row.sort(key=lambda node: wish[node])
            _seat(row, [wish[node] for node in row], span, apart, weight, seat)

    centre, depth, start = {}, {}, 0.0
    for number, row in enumerate(rows):
        gap = max((gap for gap, (_, op) in zip(gaps, edges, strict=True) if layer[op] == number), default=0.0)
        start += (gap + 3.2 if right else 4.5) if gap else 2.4
        depth[number] = max((sizes[node][along] for node in row if node in sizes), default=0.0)
        centre[number] = start + depth[number] / 2
        start += depth[number]

    def point(main: float, cross: float) -> Point:
        return (main, -cross) if right else (cross, -main)

    def port(chain: list, own: int, other: int) -> float:
        """Edges of a box leave and arrive side by side, in the order of where they lead."""
        all_here = sorted((each for each in chains if each[own] == chain[own]), key=lambda each: seat[each[other]])
        number = next(i for i, each in enumerate(all_here) if each is chain)
        return seat[chain[own]] + ((number + 1) / (len(all_here) + 1) - 0.5) * span[chain[own]]

    routes = []
    for chain in chains:
        source, op = chain[0], chain[-1]
        route = [point(centre[layer[source]] + sizes[source][along] / 2, port(chain, 0, 1))]
        for node in chain[1:-1]:
            edge_of_layer = depth[layer[node]] / 2
            route += [point(centre[layer[node]] + side, seat[node]) for side in (-edge_of_layer, edge_of_layer)]
        routes.append([*route, point(centre[layer[op]] - sizes[op][along] / 2, port(chain, -1, -2))])
    return {name: point(centre[layer[name]], seat[name]) for name in names}, routes


def _seat(row: list, wishes: list[float], span: dict, apart: float, weight: dict, seat: dict) -> None:
    """Put the nodes of `row`, in order, as near to their `wishes` as their sizes allow, the heavy ones nearest."""
    found: list[float] = []
    for node, wish in zip(row, wishes, strict=True):
        least = found[-1] + (span[row[len(found) - 1]] + span[node]) / 2 + apart if found else wish
        found.append(max(wish, least))
    missed = sum(weight[node] * (wish - at) for node, wish, at in zip(row, wishes, found, strict=True))
    shift = missed / sum(weight[node] for node in row)
    seat |= {node: at + shift for node, at in zip(row, found, strict=True)}
