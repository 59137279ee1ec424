"""The positions of the boxes, edges and labels of a circuit: `layered`, in units of the font size.

Boxes are put into layers by their longest paths and ordered by barycentres (Sugiyama, Tagawa and Toda, 1981). Between
two layers of boxes is one of labels. An edge has a node in each layer that it passes, so that it crosses no box; the
last is its label. A long circuit is broken into lines, like text. A place is a pair (along, across) the arrows.
"""

import math
from collections import defaultdict
from itertools import groupby, pairwise
from typing import Any, NamedTuple

Point = tuple[float, float]
PAGE = 128  # the length of a line: 16 inches at 9 points
GAP = 1.3  # the distance between two layers
APART = 1.6  # the distance between two neighbours in a layer
LANE = 0.9  # the distance between two edges that go on in the next line
SWEEPS = 24  # after so many, the order of the nodes no longer changes


class Grid(NamedTuple):
    """The nodes of a circuit: its boxes, its labels, and the stops of its edges at other layers."""

    chains: dict[Any, list]  # the nodes through which each edge goes: its source, its stops, its label, its operation
    near: dict[Any, list]  # (node, 1) -> the nodes before it, (node, -1) -> the nodes after it
    layers: list[list]
    layer: dict[Any, int]  # an even number for boxes, an odd one for labels
    size: dict[Any, Point]  # along and across
    weight: dict[Any, float]  # chains of operations stay straight; leaves and long edges move aside


def layered(boxes: list, edges: list, sizes: dict, right: bool) -> tuple[dict[Any, Point], dict[Any, list[Point]]]:
    """Return the centre of each box and of each edge's label, and the points through which each edge goes.

    `boxes` are names in execution order. An edge begins with the names of its source and its operation, and has the
    size of its label. If not to the `right`, the arrows go down.
    """

    def turned(point: Point) -> Point:
        return (point[0], -point[1]) if right else (point[1], -point[0])

    grid = _grid(boxes, edges, {node: size if right else size[::-1] for node, size in sizes.items()})
    place, turns = _lines(grid, _coordinates(grid))
    routes = {edge: [turned(point) for point in route] for edge, route in _routes(grid, place, turns).items()}
    return {node: turned(place[node]) for node in sizes}, routes


def _grid(boxes: list, edges: list, sizes: dict[Any, Point]) -> Grid:
    """Put each box into the layer of its longest path, and a node of an edge into each layer that it passes."""
    layer: dict[Any, int] = {}
    for name in boxes:
        layer[name] = 2 + max((layer[source] for source, op, *_ in edges if op == name), default=-2)
    leaves = set(boxes) - {op for _, op, *_ in edges}
    for name in leaves:  # just before its first use
        layer[name] = min((layer[op] for source, op, *_ in edges if source == name), default=2) - 2
    thick = {number: max(sizes[name][0] for name in boxes if layer[name] == number) for number in layer.values()}
    weight: dict[Any, float] = {name: 0.02 if name in leaves else 1.0 for name in boxes}
    size, chains = dict(sizes), {}
    for edge in edges:
        source, op, *_ = edge
        stops = {(edge, step): step for step in range(layer[source] + 1, layer[op] - 1)}
        layer |= stops | {edge: layer[op] - 1}
        size |= {stop: (thick.get(step, 0.0), 1.0) for stop, step in stops.items()}
        weight |= dict.fromkeys([*stops, edge], weight[source] / (1 + len(stops)) ** 2)
        chains[edge] = [source, *stops, edge, op]
    near: dict[Any, list] = defaultdict(list)
    for before, after in (pair for chain in chains.values() for pair in pairwise(chain)):
        near[after, 1].append(before)
        near[before, -1].append(after)
    layers = [[node for node in layer if layer[node] == number] for number in range(max(layer.values()) + 1)]
    return Grid(chains, near, layers, layer, size, weight)


def _coordinates(grid: Grid) -> dict[Any, float]:
    """Return each node's place across the arrows: near the nodes it is joined to, and apart from its neighbours."""
    across = dict.fromkeys(grid.layer, 0.0)
    for sweep in range(SWEEPS):
        step = (-1) ** sweep
        for nodes in grid.layers[::step]:
            barycentre = {}
            for node in nodes:
                total = sum(grid.weight[other] for other in grid.near[node, step])
                moved = sum(grid.weight[other] * across[other] for other in grid.near[node, step])
                barycentre[node] = moved / total if total else across[node]
            nodes.sort(key=lambda node: barycentre[node])
            across |= _spaced(nodes, barycentre, grid)
    return across


def _spaced(nodes: list, barycentre: dict, grid: Grid) -> dict[Any, float]:
    """Return the places of nodes in this order: as near to their barycentres as their sizes allow, by their weights."""
    across = {nodes[0]: barycentre[nodes[0]]}
    for before, node in pairwise(nodes):
        across[node] = max(barycentre[node], across[before] + (grid.size[before][1] + grid.size[node][1]) / 2 + APART)
    missed = sum(grid.weight[node] * (barycentre[node] - across[node]) for node in nodes)
    shift = missed / sum(grid.weight[node] for node in nodes)
    return {node: at + shift for node, at in across.items()}


def _lines(grid: Grid, across: dict) -> tuple[dict[Any, Point], dict]:
    """Return the place of each node, and three places on the way of each edge to a node that begins a new line."""
    ends, middle = [0.0], []  # the places of the layers, if all stand in one line
    for nodes in grid.layers:
        thick = max(grid.size[node][0] for node in nodes)
        ends.append(ends[-1] + GAP + thick)
        middle.append(ends[-1] - thick / 2)
    lines = math.ceil(ends[-1] / PAGE)
    pairs = [pair for chain in grid.chains.values() for pair in pairwise(chain)]
    place: dict[Any, Point] = {}
    turns: dict[Any, tuple] = {}
    begin = bottom = 0.0
    for _, numbers in groupby(range(len(middle)), key=lambda number: int(lines * middle[number] / ends[-1])):
        line = list(numbers)
        broken = [pair for pair in pairs if grid.layer[pair[1]] == line[0] > 0]
        for left, pair in enumerate(sorted(broken, key=lambda pair: across[pair[0]])):  # so that none cross
            lane = (len(broken) - left) * LANE
            turns[pair] = (ends[line[0]] - begin + lane, bottom + 1 + lane, -left * LANE)
        begin = ends[line[0]]
        nodes = [node for number in line for node in grid.layers[number]]
        down = bottom + 2.5 + len(broken) * LANE - min(across[node] - grid.size[node][1] / 2 for node in nodes)
        place |= {node: (middle[grid.layer[node]] - begin, across[node] + down) for node in nodes}
        bottom = max(place[node][1] + grid.size[node][1] / 2 for node in nodes)
    return place, turns


def _routes(grid: Grid, place: dict[Any, Point], turns: dict) -> dict[Any, list[Point]]:
    """Return the points through which each edge goes; edges lie side by side at a box, in order of their next nodes."""
    port = {}
    for (node, _), others in grid.near.items():
        for number, other in enumerate(sorted(others, key=lambda other: place[other][1]), start=1):
            port[node, other] = place[node][1] + (number / (len(others) + 1) - 0.5) * grid.size[node][1]
    # an edge is straight beside a box, and may bend behind a label
    half = {node: 0.0 if grid.layer[node] % 2 else grid.size[node][0] / 2 for node in grid.layer}
    routes = {}
    for edge, chain in grid.chains.items():
        points = []
        for before, node in pairwise(chain):
            points.append((place[before][0] + half[before], port[before, node]))
            if turn := turns.get((before, node)):
                end, corridor, begin = turn
                points += [(end, port[before, node]), (end, corridor), (begin, corridor), (begin, port[node, before])]
            points.append((place[node][0] - half[node], port[node, before]))
        routes[edge] = list(dict.fromkeys(points))
    return routes
