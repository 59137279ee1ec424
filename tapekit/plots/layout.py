"""The positions of the boxes, edges and labels of a circuit: `layered`, in units of the font size.

Boxes are put into layers by their longest paths and ordered by barycentres (Sugiyama, Tagawa and Toda, 1981). Between
two layers of boxes is one of labels. An edge has a node in each layer that it passes, so that it crosses no box; the
last is its label. A long circuit is broken into lines, like text. A place is a pair (along, across) the arrows.
"""

import math
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from tapekit.plots.shapes import Box, Edge

Point = tuple[float, float]
PAGE = 128  # the length of a line: 16 inches at 9 points
GAP = 1.3  # the distance between two layers
APART = 1.6  # the distance between two neighbours in a layer
LANE = 0.9  # the distance between two edges that go on in the next line
SWEEPS = 24  # after so many, the order of the nodes no longer changes


@dataclass(eq=False)
class Node:
    """A box, the label of an edge, or a stop of an edge in another layer."""

    layer: int  # an even number for a box, an odd one for a label
    size: Point  # along and across
    weight: float  # chains of operations stay straight; leaves and long edges move aside
    before: list["Node"] = field(default_factory=list)
    after: list["Node"] = field(default_factory=list)
    along: float = 0.0
    across: float = 0.0

    def port(self, other: "Node") -> float:
        """Return where the edge to or from `other` meets this node: side by side with other edges, in their order."""
        side = sorted(self.before if other in self.before else self.after, key=lambda node: node.across)
        return self.across + ((side.index(other) + 1) / (len(side) + 1) - 0.5) * self.size[1]


def layered(boxes: dict[str, Box], edges: list[Edge], right: bool) -> None:
    """Set the centres of the boxes and of the edges' labels, and the edges' curves, which go to the `right` or down."""

    def turned(along: float, across: float) -> Point:
        return (along, -across) if right else (across, -along)

    nodes, chains = _graph(boxes, edges, right)
    every = dict.fromkeys([*nodes.values(), *(node for chain in chains for node in chain)])
    layers = [list(layer) for _, layer in groupby(sorted(every, key=lambda node: node.layer), lambda node: node.layer)]
    for sweep in range(SWEEPS):
        for layer in layers[:: (-1) ** sweep]:
            _arrange(layer, forward=sweep % 2 == 0)
    turns = _lines(layers)
    for name, box in boxes.items():
        box.centre = turned(nodes[name].along, nodes[name].across)
    for edge, chain in zip(edges, chains, strict=True):
        edge.centre = turned(chain[-2].along, chain[-2].across)
        edge.curve = [turned(*point) for point in _route(chain, turns)]


def _graph(boxes: dict[str, Box], edges: list[Edge], right: bool) -> tuple[dict[str, Node], list[list[Node]]]:
    """Return the node of each box, in the layer of its longest path, and the nodes through which each edge goes."""
    nodes: dict[str, Node] = {}
    for name, box in boxes.items():
        inputs = [nodes[edge.source].layer for edge in edges if edge.op == name]
        nodes[name] = Node(2 + max(inputs, default=-2), box.size if right else box.size[::-1], 1.0 if inputs else 0.02)
    for name in boxes.keys() - {edge.op for edge in edges}:  # a leaf stands just before its first use
        nodes[name].layer = min((nodes[edge.op].layer for edge in edges if edge.source == name), default=2) - 2
    chains = []
    for edge in edges:
        source, op = nodes[edge.source], nodes[edge.op]
        passed = range(source.layer + 1, op.layer)
        stops = [Node(layer, (0.0, 0.0), source.weight / len(passed) ** 2) for layer in passed]
        stops[-1].size = edge.size if right else edge.size[::-1]
        chains.append([source, *stops, op])
        for before, after in pairwise(chains[-1]):
            before.after.append(after)
            after.before.append(before)
    return nodes, chains


def _arrange(layer: list[Node], forward: bool) -> None:
    """Order the nodes of a layer by their barycentres, and put them as near to these as their sizes allow."""
    barycentre = {}
    for node in layer:
        near = node.before if forward else node.after
        weights = [other.weight for other in near]
        barycentre[node] = np.average([other.across for other in near], weights=weights) if near else node.across
    layer.sort(key=lambda node: barycentre[node])
    layer[0].across = barycentre[layer[0]]
    for before, node in pairwise(layer):
        node.across = max(barycentre[node], before.across + (before.size[1] + node.size[1]) / 2 + APART)
    missed = [barycentre[node] - node.across for node in layer]
    shift = np.average(missed, weights=[node.weight for node in layer])
    for node in layer:
        node.across += shift


def _lines(layers: list[list[Node]]) -> dict[Any, tuple[float, float, float]]:
    """Place the layers in lines. Return, for each pair of nodes in two lines, the three places where its edge turns."""
    ends = [0.0]  # of the layers, if all stand in one line
    for layer in layers:
        thick = max(node.size[0] for node in layer)
        ends.append(ends[-1] + GAP + thick)
        for node in layer:
            node.along = ends[-1] - thick / 2
            node.size = (node.size[0] or thick, node.size[1])
    lines = math.ceil(ends[-1] / PAGE)
    turns = {}
    begin = bottom = 0.0
    for _, group in groupby(layers, key=lambda layer: int(lines * layer[0].along / ends[-1])):
        line = list(group)
        nodes, end = [node for layer in line for node in layer], ends[line[0][0].layer]
        broken = [(before, node) for node in line[0] for before in node.before]
        for left, pair in enumerate(sorted(broken, key=lambda pair: pair[0].across)):  # so that none cross
            lane = (len(broken) - left) * LANE
            turns[pair] = (end - begin + lane, bottom + 1 + lane, -left * LANE)
        begin = end
        down = bottom + 2.5 + len(broken) * LANE - min(node.across - node.size[1] / 2 for node in nodes)
        for node in nodes:
            node.along -= begin
            node.across += down
        bottom = max(node.across + node.size[1] / 2 for node in nodes)
    return turns


def _route(chain: list[Node], turns: dict) -> list[Point]:
    """Return the points of the curve of an edge, which is straight beside a box, and may bend behind a label."""
    points = []
    for before, node in pairwise(chain):
        half, other = (0.0 if each.layer % 2 else each.size[0] / 2 for each in (before, node))
        leaves, meets = before.port(node), node.port(before)
        points.append((before.along + half, leaves))
        if turn := turns.get((before, node)):
            end, corridor, begin = turn
            points += [(end, leaves), (end, corridor), (begin, corridor), (begin, meets)]
        points.append((node.along - other, meets))
    curve = points[:1]
    for (start, leaves), (stop, meets) in pairwise(points):  # an S-curve, which is straight along an axis
        curve += [((start + stop) / 2, leaves), ((start + stop) / 2, meets), (stop, meets)]
    return curve
