"""Where the boxes of a circuit stand: longest-path layers, barycentre ordering, in units of the font size.

An edge that passes several layers has a stop in each, so that it never crosses a box. A long circuit is broken into
lines, like text. Places are (along, across) the direction of the arrows.
"""

import math
from collections import defaultdict
from itertools import groupby, pairwise
from typing import Any

Point = tuple[float, float]
PAGE = 128  # the length of a line: 16 inches at 9 points
LANE = 0.9  # between two edges that go on in the next line


def layered(
    edges: list[tuple[str, str]], gaps: list[float], sizes: dict[str, Point], right: bool
) -> tuple[dict[str, Point], list[list[Point]]]:
    """Return the centre of each box of `sizes` (in execution order), and the points through which each edge goes.

    `gaps` is the room that each edge needs for its label.
    """
    along, across = (0, 1) if right else (1, 0)
    chains, layers = _layers(edges, list(sizes))
    layer = {node: number for number, nodes in enumerate(layers) for node in nodes}
    span = {node: sizes[node][across] if node in sizes else 1.0 for node in layer}
    seat = _seats(chains, layers, layer, span, 1.6 if right else 9.0)  # room for the labels between boxes side by side

    start, middle, depth = [0.0], [], []  # of each layer, in one line: where its gap begins, its middle, its thickness
    for number, nodes in enumerate(layers):
        gap = max((gap for gap, (_, op) in zip(gaps, edges, strict=True) if layer[op] == number), default=0.0)
        depth.append(max((sizes[node][along] for node in nodes if node in sizes), default=0.0))
        middle.append(start[-1] + (gap + 3.2 if gap else 2.4) + depth[-1] / 2)
        start.append(middle[-1] + depth[-1] / 2)

    lines = math.ceil(start[-1] / PAGE)
    place: dict[Any, Point] = {}
    turns: dict[Any, list[Point]] = {}  # (edge, node in which it arrives in a new line) -> the way there
    first = bottom = 0.0
    for _, numbers in groupby(range(len(layers)), key=lambda number: int(lines * middle[number] / start[-1])):
        line = list(numbers)
        pairs = [(seat[a], edge, b) for edge, chain in enumerate(chains) for a, b in pairwise(chain)]
        pairs = sorted((pair for pair in pairs if line[0] and layer[pair[2]] == line[0]), key=lambda pair: pair[0])
        for left, (_, edge, node) in enumerate(pairs):  # nested, so that they do not cross
            lane, out = bottom + 1 + (len(pairs) - left) * LANE, start[line[0]] - first + (len(pairs) - left) * LANE
            turns[edge, node] = [(out, lane), (-left * LANE, lane)]
        first = start[line[0]]
        nodes = [node for number in line for node in layers[number]]
        down = bottom + 2.5 + len(pairs) * LANE - min(seat[node] - span[node] / 2 for node in nodes)
        place |= {node: (middle[layer[node]] - first, seat[node] + down) for node in nodes}
        bottom = max(place[node][1] + span[node] / 2 for node in nodes)

    def port(chain: list, own: int, other: int) -> float:
        """Edges of a box leave and arrive side by side, in the order of where they lead."""
        here = sorted((each for each in chains if each[own] == chain[own]), key=lambda each: place[each[other]][1])
        number = next(i for i, each in enumerate(here) if each is chain)
        return place[chain[own]][1] + ((number + 1) / (len(here) + 1) - 0.5) * span[chain[own]]

    def route(edge: int, chain: list) -> list[Point]:
        points = [(place[chain[0]][0] + sizes[chain[0]][along] / 2, port(chain, 0, 1))]
        for node in chain[1:]:
            at, into = place[node][0], port(chain, -1, -2) if node in sizes else place[node][1]
            if turn := turns.get((edge, node)):
                points += [(turn[0][0], points[-1][1]), *turn, (turn[1][0], into)]
            half = sizes[node][along] / 2 if node in sizes else depth[layer[node]] / 2
            points += [(at - half, into)] if node in sizes else [(at - half, into), (at + half, into)]
        return points

    def turned(point: Point) -> Point:
        return (point[0], -point[1]) if right else (point[1], -point[0])

    routes = [[turned(point) for point in route(edge, chain)] for edge, chain in enumerate(chains)]
    return {name: turned(place[name]) for name in sizes}, routes


def _layers(edges: list[tuple[str, str]], names: list[str]) -> tuple[list[list], list[list]]:
    """Each edge as the nodes through which it goes (its source, its stops, its operation), and the nodes by layer."""
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
    chains: list[list] = []
    for number, (source, op) in enumerate(edges):
        stops = {(number, step): step for step in range(layer[source] + 1, layer[op])}
        layer |= stops
        chains.append([source, *stops, op])
    return chains, [[node for node in layer if layer[node] == number] for number in range(max(layer.values()) + 1)]


def _seats(chains: list[list], layers: list[list], layer: dict, span: dict, apart: float) -> dict[Any, float]:
    """Where each node stands across: near what it is joined to, and `apart` from its neighbours."""
    near: dict[Any, list] = defaultdict(list)
    for chain in chains:
        for one, other in pairwise(chain):
            near[one].append(other)
            near[other].append(one)
    # chains of operations stay straight; leaves and passing edges give way
    weight = dict.fromkeys(layer, 0.02) | {chain[-1]: 1.0 for chain in chains}
    seat: dict[Any, float] = {}

    def sit(nodes: list, wishes: list[float]) -> None:
        """In this order, as near to their wishes as their sizes allow, the heavy ones nearest."""
        found: list[float] = []
        for number, (node, wish) in enumerate(zip(nodes, wishes, strict=True)):
            found.append(max(wish, found[-1] + (span[nodes[number - 1]] + span[node]) / 2 + apart) if found else wish)
        missed = sum(weight[node] * (wish - at) for node, wish, at in zip(nodes, wishes, found, strict=True))
        shift = missed / sum(weight[node] for node in nodes)
        seat.update({node: at + shift for node, at in zip(nodes, found, strict=True)})

    for nodes in layers:
        sit(nodes, [0.0] * len(nodes))
    for sweep in range(24):
        step = 1 if sweep % 2 == 0 else -1
        for nodes in layers[::step]:
            wish = {}
            for node in nodes:
                others = [other for other in near[node] if sweep > 15 or (layer[other] - layer[node]) * step < 0]
                total = sum(weight[other] for other in others)
                wish[node] = sum(weight[other] * seat[other] for other in others) / total if others else seat[node]
            if sweep < 16:  # first the order, then only the distances
                nodes.sort(key=lambda node: wish[node])
            sit(nodes, [wish[node] for node in nodes])
    return seat
