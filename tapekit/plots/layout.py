"""The positions of the boxes and edges of a circuit: `layered`, in units of the font size.

Boxes are put into layers by their longest paths and ordered by barycentres (Sugiyama, Tagawa and Toda, 1981). An edge
that passes several layers has a stop in each, so that it never crosses a box. A long circuit is broken into lines, like
text. A place is a pair (along, across) the direction of the arrows.
"""

import math
from collections import defaultdict
from itertools import groupby, pairwise
from typing import Any, NamedTuple

Point = tuple[float, float]
PAGE = 128  # the length of a line: 16 inches at 9 points
LANE = 0.9  # the distance between two edges that go on in the next line
SWEEPS = 24  # after so many, the order of the nodes no longer changes


class Grid(NamedTuple):
    """The nodes of a circuit: its boxes, and the stops of its edges."""

    chains: list[list]  # the nodes through which each edge goes: its source, its stops, its operation
    layers: list[list]
    layer: dict[Any, int]
    size: dict[Any, Point]  # along and across


def layered(
    edges: list[tuple[str, str]], gaps: list[float], sizes: dict[str, Point], right: bool
) -> tuple[dict[str, Point], list[list[Point]]]:
    """Return the centre of each box in `sizes` (in execution order), and the points through which each edge goes.

    `gaps` is the room that each edge needs for its label.
    """
    grid = _grid(edges, {name: size if right else size[::-1] for name, size in sizes.items()})
    across = _coordinates(grid, 1.6 if right else 9.0)  # room for the labels between boxes side by side
    place, turns = _lines(grid, across, gaps)

    def turned(point: Point) -> Point:
        return (point[0], -point[1]) if right else (point[1], -point[0])

    routes = [[turned(point) for point in route] for route in _routes(grid, place, turns)]
    return {name: turned(place[name]) for name in sizes}, routes


def _grid(edges: list[tuple[str, str]], sizes: dict[str, Point]) -> Grid:
    """Put each box into the layer of its longest path, and a stop of an edge into each layer that it passes."""
    layer: dict[Any, int] = {}
    for name in sizes:
        layer[name] = 1 + max((layer[source] for source, op in edges if op == name), default=-1)
    for name in sizes.keys() - {op for _, op in edges}:  # a leaf stands just before its first use
        layer[name] = min((layer[op] for source, op in edges if source == name), default=1) - 1
    chains: list[list] = []
    for number, (source, op) in enumerate(edges):
        stops = {(number, step): step for step in range(layer[source] + 1, layer[op])}
        layer |= stops
        chains.append([source, *stops, op])
    layers = [[node for node in layer if layer[node] == number] for number in range(max(layer.values()) + 1)]
    thick = [max((sizes[node][0] for node in nodes if node in sizes), default=0.0) for nodes in layers]
    return Grid(chains, layers, layer, {node: (thick[layer[node]], 1.0) for node in layer} | sizes)


def _coordinates(grid: Grid, apart: float) -> dict[Any, float]:
    """Return each node's place across the arrows: near the nodes it is joined to, `apart` or more from neighbours."""
    near: dict[Any, list] = defaultdict(list)  # (node, 1 or -1) -> those that it is joined to in the layers before it
    for before, after in (pair for chain in grid.chains for pair in pairwise(chain)):
        near[after, 1].append(before)
        near[before, -1].append(after)
    # chains of operations stay straight; leaves and the stops of edges move aside
    weight = dict.fromkeys(grid.layer, 0.02) | {chain[-1]: 1.0 for chain in grid.chains}
    across = dict.fromkeys(grid.layer, 0.0)
    for sweep in range(SWEEPS):
        step = (-1) ** sweep
        for nodes in grid.layers[::step]:
            barycentre = {}
            for node in nodes:
                total = sum(weight[other] for other in near[node, step])
                moved = sum(weight[other] * across[other] for other in near[node, step])
                barycentre[node] = moved / total if total else across[node]
            nodes.sort(key=lambda node: barycentre[node])
            across |= _spaced(nodes, barycentre, weight, grid, apart)
    return across


def _spaced(nodes: list, barycentre: dict, weight: dict, grid: Grid, apart: float) -> dict[Any, float]:
    """Return the places of nodes in this order: as near to their barycentres as their sizes allow, by their weights."""
    across = {nodes[0]: barycentre[nodes[0]]}
    for before, node in pairwise(nodes):
        across[node] = max(barycentre[node], across[before] + (grid.size[before][1] + grid.size[node][1]) / 2 + apart)
    missed = sum(weight[node] * (barycentre[node] - across[node]) for node in nodes)
    shift = missed / sum(weight[node] for node in nodes)
    return {node: at + shift for node, at in across.items()}


def _lines(grid: Grid, across: dict, gaps: list[float]) -> tuple[dict[Any, Point], dict]:
    """Return the place of each node, and two points on the way of each edge to a node that begins a new line."""
    ends, middle = [0.0], []  # the places of the layers, if all stand in one line
    for nodes in grid.layers:
        thick = max(grid.size[node][0] for node in nodes)
        gap = max((gap for gap, chain in zip(gaps, grid.chains, strict=True) if chain[-1] in nodes), default=0.0)
        ends.append(ends[-1] + (gap + 3.2 if gap else 2.4) + thick)
        middle.append(ends[-1] - thick / 2)
    lines = math.ceil(ends[-1] / PAGE)
    steps = [(edge, *pair) for edge, chain in enumerate(grid.chains) for pair in pairwise(chain)]
    place: dict[Any, Point] = {}
    turns: dict[Any, list[Point]] = {}
    begin = bottom = 0.0
    for _, numbers in groupby(range(len(middle)), key=lambda number: int(lines * middle[number] / ends[-1])):
        line = list(numbers)
        broken = [step for step in steps if grid.layer[step[2]] == line[0] > 0]
        for left, (edge, _, node) in enumerate(sorted(broken, key=lambda step: across[step[1]])):  # so that none cross
            lane = (len(broken) - left) * LANE
            turns[edge, node] = [(ends[line[0]] - begin + lane, bottom + 1 + lane), (-left * LANE, bottom + 1 + lane)]
        begin = ends[line[0]]
        nodes = [node for number in line for node in grid.layers[number]]
        down = bottom + 2.5 + len(broken) * LANE - min(across[node] - grid.size[node][1] / 2 for node in nodes)
        place |= {node: (middle[grid.layer[node]] - begin, across[node] + down) for node in nodes}
        bottom = max(place[node][1] + grid.size[node][1] / 2 for node in nodes)
    return place, turns


def _routes(grid: Grid, place: dict[Any, Point], turns: dict) -> list[list[Point]]:
    """Return the points through which each edge goes; edges lie side by side at a box, in order of their far ends."""
    sides: dict[Any, list] = defaultdict(list)
    for edge, chain in enumerate(grid.chains):
        for own, other in ((0, 1), (-1, -2)):
            sides[chain[own], own].append((place[chain[other]][1], edge))
    port = {}
    for (box, own), found in sides.items():
        for number, (_, edge) in enumerate(sorted(found), start=1):
            port[edge, own] = place[box][1] + (number / (len(found) + 1) - 0.5) * grid.size[box][1]
    routes = []
    for edge, (source, *stops) in enumerate(grid.chains):
        points = [(place[source][0] + grid.size[source][0] / 2, port[edge, 0])]
        for node in stops:
            last, half = node is stops[-1], grid.size[node][0] / 2
            at, across = place[node][0], port[edge, -1] if last else place[node][1]
            if turn := turns.get((edge, node)):
                points += [(turn[0][0], points[-1][1]), *turn, (turn[1][0], across)]
            points += [(at - half, across)] if last else [(at - half, across), (at + half, across)]
        routes.append(points)
    return routes
