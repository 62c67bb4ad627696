"""A lower bound of a placement's cost that needs no search: what each node's wires must cost around it at least.

On a grid a tile has 4 others at distance 1, 8 at distance 2 …: the heaviest wires of a kernel take the nearest. Summed
over all nodes every wire counts twice. Wires to links and ports cost at least the rows between them.
"""

from __future__ import annotations

from collections.abc import Iterator

from neuc.backends.npu.place.problem import Problem


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


def lower_bound(problem: Problem) -> int:
    """No placement costs less."""
    inner = -(-sum(star_bounds(problem).values()) // 2)
    outer = 0
    for wire in problem.wires:
        if problem.demands[wire.source].kernel and problem.demands[wire.target].kernel:
            continue
        rows_a = {tile[1] for tile in problem.domains[wire.source]}
        rows_b = {tile[1] for tile in problem.domains[wire.target]}
        outer += wire.weight * min(abs(a - b) for a in rows_a for b in rows_b)
    return inner + outer
