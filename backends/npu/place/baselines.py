"""Two plain placements to be measured against, and what of a placement does not fit.

Row by row is what a sequential placer does, the first free tile is Riallto's rule. Nothing is improved here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TypeAlias

from neuc.backends.npu.place.problem import Demand, Problem, can_share
from neuc.runtime.npu.machine import Tile

Places: TypeAlias = dict[str, Tile]
"""Nodes and their tiles."""


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
    return sum(tile_excess(problem, tile, names) for tile, names in nodes.items()) + sum(
        unshared(problem, places, name) for name in problem.must_share
    )


def tile_excess(problem: Problem, tile: Tile, names: list[str]) -> int:
    """How much more nodes want of a tile than it has: cores and channels beyond it, and one for memory."""
    capacity, demands = problem.capacity(tile), [problem.demands[name] for name in names]
    kernels = max(0, sum(d.kernel for d in demands) - 1)
    s2mm = max(0, sum(d.s2mm for d in demands) - capacity.s2mm)
    mm2s = max(0, sum(d.mm2s for d in demands) - capacity.mm2s)
    return kernels + s2mm + mm2s + (sum(d.memory for d in demands) > capacity.memory)


def unshared(problem: Problem, places: Mapping[str, Tile], name: str) -> int:
    """How many more of a kernel's wires would have to reach a neighbour's memory."""
    excess = 0
    for direction, wanted in zip(("target", "source"), problem.must_share[name]):
        near = 0
        for wire in problem.wires:
            if wire.shareable and getattr(wire, direction) == name:
                near += can_share(places[wire.source], places[wire.target], problem.reach)
        excess += max(0, wanted - near)
    return excess
