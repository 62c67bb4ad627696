"""Placement without a solver: two plain baselines, and simulated annealing from the better of them, seeded.

Annealing (Kirkpatrick et al. 1983) moves a node to another of its tiles, changing places with who stands there.
What does not fit costs a penalty above any wire, so that it goes away first. The same seed gives the same placement.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping

from neuc.backends.npu.place.problem import Demand, Problem, distance
from neuc.runtime.npu.machine import Tile

Places = dict[str, Tile]
_STEPS_A_NODE = 1000
_COOLING_TO = 1e-3


def row_major(problem: Problem) -> Places | None:
    """Nodes in their order onto tiles row by row from the bottom left: what a sequential placer does."""
    return _in_turn(problem, lambda tile: (tile[1], tile[0]))


def first_free(problem: Problem) -> Places | None:
    """Nodes in their order onto the first free tile, column by column: Riallto's rule."""
    return _in_turn(problem, lambda tile: tile)


def _in_turn(problem: Problem, order: Callable[[Tile], tuple[int, int]]) -> Places | None:
    places: Places = {}
    used: dict[Tile, Demand] = {}
    for name in sorted(problem.domains, key=lambda n: n not in problem.pinned):
        for tile in sorted(problem.domains[name], key=order):
            total = _add(used.get(tile), problem.demands[name])
            if _fits(total, problem.capacity(tile), tile in used and problem.demands[name].kernel):
                places[name], used[tile] = tile, total
                break
        else:
            return None
    return places if not violations(problem, places) else None


def _add(a: Demand | None, b: Demand) -> Demand:
    return b if a is None else Demand(a.s2mm + b.s2mm, a.mm2s + b.mm2s, a.memory + b.memory, b.kernel)


def _fits(total: Demand, capacity: Demand, occupied: bool) -> bool:
    within = total.s2mm <= capacity.s2mm and total.mm2s <= capacity.mm2s and total.memory <= capacity.memory
    return within and not occupied


def violations(problem: Problem, places: Mapping[str, Tile]) -> int:
    """How much of the placement does not fit: 0 if it is legal."""
    nodes: dict[Tile, list[str]] = defaultdict(list)
    for name, tile in places.items():
        nodes[tile].append(name)
    return sum(_tile_excess(problem, tile, names) for tile, names in nodes.items()) + sum(
        _unshared(problem, places, name) for name in problem.must_share
    )


def _tile_excess(problem: Problem, tile: Tile, names: list[str]) -> int:
    capacity, demands = problem.capacity(tile), [problem.demands[name] for name in names]
    kernels = max(0, sum(d.kernel for d in demands) - 1)
    s2mm = max(0, sum(d.s2mm for d in demands) - capacity.s2mm)
    mm2s = max(0, sum(d.mm2s for d in demands) - capacity.mm2s)
    return kernels + s2mm + mm2s + (sum(d.memory for d in demands) > capacity.memory)


def _unshared(problem: Problem, places: Mapping[str, Tile], name: str) -> int:
    """How many more of a kernel's wires would have to reach a neighbour's memory."""
    reach = problem.machine.classes["core"].shared_memory
    excess = 0
    for direction, wanted in zip(("target", "source"), problem.must_share[name]):
        near = 0
        for wire in problem.wires:
            if wire.shareable and getattr(wire, direction) == name:
                near += can_share(places[wire.source], places[wire.target], reach)
        excess += max(0, wanted - near)
    return excess


def can_share(a: Tile, b: Tile, reach: tuple[Tile, ...]) -> bool:
    """Whether a pool on one of two core tiles is visible to both."""
    step = (b[0] - a[0], b[1] - a[1])
    return step in reach or (-step[0], -step[1]) in reach


def anneal(problem: Problem, start: Places, *, seed: int = 0, steps: int | None = None) -> Places:
    """Improve `start`; the best legal placement seen (or `start`, if none was)."""
    rng = random.Random(seed)
    movable = [name for name in problem.domains if len(problem.domains[name]) > 1]
    if not movable:
        return dict(start)
    around: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for wire in problem.wires:
        around[wire.source].append((wire.target, wire.weight))
        around[wire.target].append((wire.source, wire.weight))
    at: dict[Tile, set[str]] = defaultdict(set)
    places = dict(start)
    for name, tile in places.items():
        at[tile].add(name)
    penalty = 1 + max((wire.weight for wire in problem.wires), default=1) * (
        problem.machine.cols + problem.machine.rows
    )

    def energy(names: tuple[str, ...], tiles: set[Tile]) -> int:
        wires = sum(weight * distance(places[name], places[other]) for name in names for other, weight in around[name])
        excess = sum(_tile_excess(problem, tile, list(at[tile])) for tile in tiles)
        shared = sum(_unshared(problem, places, name) for name in problem.must_share)
        return wires + penalty * (excess + shared)

    def put(name: str, tile: Tile) -> None:
        at[places[name]].discard(name)
        places[name] = tile
        at[tile].add(name)

    total = steps or _STEPS_A_NODE * len(movable)
    best, best_cost = dict(start), math.inf if violations(problem, start) else problem.cost(start)
    cost = problem.cost(places) + penalty * violations(problem, places)
    hot = max(1.0, cost / max(1, len(problem.wires)))
    cooling = (_COOLING_TO / 1.0) ** (1 / total)
    temperature = hot
    for _ in range(total):
        name = movable[rng.randrange(len(movable))]
        domain = problem.domains[name]
        tile, old = domain[rng.randrange(len(domain))], places[name]
        temperature *= cooling
        if tile == old:
            continue
        other = (
            next(iter(sorted(n for n in at[tile] if problem.demands[n].kernel)), None)
            if problem.demands[name].kernel
            else None
        )
        if other is not None and old not in problem.domains[other]:
            continue
        names = (name,) if other is None else (name, other)
        before = energy(names, {tile, old})
        put(name, tile)
        if other is not None:
            put(other, old)
        change = energy(names, {tile, old}) - before
        if change > 0 and rng.random() >= math.exp(-change / temperature):
            put(name, old)
            if other is not None:
                put(other, tile)
            continue
        cost += change
        if cost < best_cost:
            now = problem.cost(places)
            if now < best_cost and not violations(problem, places):
                best, best_cost = dict(places), now
    return best
