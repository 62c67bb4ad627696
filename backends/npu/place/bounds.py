"""Lower bounds of a placement's score that need no search; of bytes x hops: what each node's wires cost at least.

On a grid a tile has 4 others at distance 1, 8 at distance 2 …: the heaviest wires of a kernel take the nearest. Summed
over all nodes every wire counts twice. Wires to links and ports cost at least the rows between them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import ceil

from neuc.backends.npu.place.objective import Score
from neuc.backends.npu.place.problem import Problem, Wire


def _distances() -> Iterator[int]:
    hops = 1
    while True:
        yield from [hops] * (4 * hops)
        hops += 1


def star_bounds(problem: Problem) -> dict[str, int]:
    """For each kernel, the least its wires to other kernels can cost together."""
    found: dict[str, int] = {}
    for name, demand in problem.demands.items():
        if not demand.kernel:
            continue
        others: dict[str, int] = {}
        for wire in problem.wires:
            if name in (wire.source, wire.target):
                other = wire.target if wire.source == name else wire.source
                if problem.demands[other].kernel and other != name:
                    others[other] = others.get(other, 0) + wire.weight
        heavy = sorted(others.values(), reverse=True)
        found[name] = sum(weight * hops for weight, hops in zip(heavy, _distances()))
    return found


def least_score(problem: Problem) -> Score:
    """No placement has less of any of the figures."""
    wires = [wire for wire in problem.wires if wire.source != wire.target]
    apart = any(not wire.shareable and _never_together(problem, wire) for wire in wires) or _odd_circle(wires)
    interval = problem.floor
    for load in sorted(load for load in problem.loads.values() if load > problem.floor):
        if not _odd_circle([w for w in wires if w.shareable and problem.loads[w.channel] >= load]):
            break
        interval = load
    return Score(interval, int(apart), least_hops(problem) * problem.unit, _least_tiles(problem))


def _never_together(problem: Problem, wire: Wire) -> bool:
    """Whether its ends need two tiles: a core holds one kernel, and others may have no tile in common."""
    ends = (wire.source, wire.target)
    return any(problem.demands[end].kernel for end in ends) or not set.intersection(
        *(set(problem.domains[end]) for end in ends)
    )


def _odd_circle(wires: Sequence[Wire]) -> bool:
    """Whether some of these cannot all join neighbours: neighbours differ in the colour of a chessboard."""
    beside: dict[str, list[str]] = defaultdict(list)
    for wire in wires:
        beside[wire.source].append(wire.target)
        beside[wire.target].append(wire.source)
    colours: dict[str, bool] = {}
    for start in beside:
        todo = [start] if colours.setdefault(start, True) else []
        while todo:
            name = todo.pop()
            for other in beside[name]:
                if other not in colours:
                    colours[other] = not colours[name]
                    todo.append(other)
                elif colours[other] == colours[name]:
                    return True
    return False


def least_hops(problem: Problem) -> int:
    """No placement has less weight x hops."""
    inner = -(-sum(star_bounds(problem).values()) // 2)
    outer = 0
    for wire in problem.wires:
        if problem.demands[wire.source].kernel and problem.demands[wire.target].kernel:
            continue
        rows_a = {tile[1] for tile in problem.domains[wire.source]}
        rows_b = {tile[1] for tile in problem.domains[wire.target]}
        outer += wire.weight * min(abs(a - b) for a in rows_a for b in rows_b)
    return inner + outer


def _least_tiles(problem: Problem) -> int:
    """One for each kernel; of the others as many as their DMA channels and buffers fill."""
    total = sum(demand.kernel for demand in problem.demands.values())
    for kind in ("mem", "shim"):
        names = [n for n, tiles in problem.domains.items() if problem.machine.tile_class(tiles[0]).kind == kind]
        if not names:
            continue
        each = problem.capacity(problem.domains[names[0]][0])
        full = [
            ceil(sum(getattr(problem.demands[n], field) for n in names) / most)
            for field in ("s2mm", "mm2s", "memory")
            if (most := getattr(each, field)) > 0
        ]
        total += max(1, *full)
    return total
