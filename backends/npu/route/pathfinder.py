"""Routing by negotiated congestion (McMurchie and Ebeling, PathFinder, 1995).

Every net takes its cheapest tree; arcs that too many want become dearer, round by round, until all agree. Trees grow
from the producer to the nearest consumer first (Takahashi and Matsuyama's Steiner heuristic).
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping

from neuc.backends.npu.route.fabric import Arc, Net, Tree, beyond, passes
from neuc.runtime.npu.machine import OPPOSITE, SIDES, Machine, Tile

_ROUNDS = 60
_HISTORY = 0.5
_PRESSURE = 1.5


def negotiate(nets: list[Net], machine: Machine, arcs: Mapping[Arc, int]) -> dict[str, Tree] | None:
    """A tree for each net such that no arc has more circuits than it holds; None if the rounds do not suffice."""
    history: dict[Arc, float] = defaultdict(float)
    load: dict[Arc, int] = defaultdict(int)
    trees: dict[str, Tree] = {}
    pressure = 0.5
    for _ in range(_ROUNDS):
        for net in nets:
            for arc in trees.pop(net.channel, frozenset()):
                load[arc] -= 1
            tree = _grow(net, machine, arcs, history, load, pressure)
            if tree is None:
                return None
            trees[net.channel] = tree
            for arc in tree:
                load[arc] += 1
        over = [arc for arc, count in load.items() if count > arcs[arc]]
        if not over:
            return trees
        for arc in over:
            history[arc] += _HISTORY * (load[arc] - arcs[arc])
        pressure *= _PRESSURE
    return None


def _grow(
    net: Net,
    machine: Machine,
    arcs: Mapping[Arc, int],
    history: Mapping[Arc, float],
    load: Mapping[Arc, int],
    pressure: float,
) -> Tree | None:
    tree: set[Arc] = set()
    arrived: dict[Tile, str | None] = {net.source[0]: None}
    goals = {tile for tile, _ in net.sinks} - {net.source[0]}
    while goals:
        found = _nearest(arrived, goals, machine, arcs, history, load, pressure)
        if found is None:
            return None
        for arc in found:
            tree.add(arc)
            arrived[beyond(arc)] = OPPOSITE[arc[1]]
        goals.discard(beyond(found[-1]))
    return frozenset(tree)


def _nearest(
    start: Mapping[Tile, str | None],
    goals: set[Tile],
    machine: Machine,
    arcs: Mapping[Arc, int],
    history: Mapping[Arc, float],
    load: Mapping[Arc, int],
    pressure: float,
) -> list[Arc] | None:
    """The cheapest way from what is connected to any goal; never through a tile that is connected already."""
    queue: list[tuple[float, Tile, str, tuple[Arc, ...]]] = [
        (0.0, tile, side or "", ()) for tile, side in start.items()
    ]
    heapq.heapify(queue)
    best: dict[tuple[Tile, str], float] = {}
    while queue:
        cost, tile, side, path = heapq.heappop(queue)
        if tile in goals and path:
            return list(path)
        if best.get((tile, side), cost) < cost:
            continue
        for towards in SIDES:
            arc = (tile, towards)
            if arc not in arcs or not passes(machine, tile, side or None, towards):
                continue
            other = beyond(arc)
            if other in start or any(beyond(step) == other for step in path):
                continue
            over = max(0, load.get(arc, 0) + 1 - arcs[arc])
            dearer = cost + (1 + history.get(arc, 0.0)) * (1 + pressure * over) + 0.02 * load.get(arc, 0)
            state = (other, OPPOSITE[towards])
            if dearer < best.get(state, float("inf")):
                best[state] = dearer
                heapq.heappush(queue, (dearer, other, OPPOSITE[towards], (*path, arc)))
    return None
