"""`place_design`: the best placement to be had in the time, and how far from the best possible it can be at most.

Baselines first, then annealing, then a proof by OR-tools where that is installed. The result never costs more than a
row-major or a first-free placement, because both are among the candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from neuc.backends.npu.place import exact
from neuc.backends.npu.place.annealing import Places, anneal, can_share, first_free, row_major, violations
from neuc.backends.npu.place.bounds import lower_bound
from neuc.backends.npu.place.problem import Problem, problem_of
from neuc.errors import Error
from neuc.runtime.npu.machine import Machine, Tile
from neuc.runtime.npu.program import Design

EXACT_TILES = 16
_SECONDS_SMALL = 5.0
_SECONDS_LARGE = 20.0
_RESTARTS = 3


@dataclass(frozen=True)
class Placement:
    """A placed design with what it costs: bytes x hops of one iteration.

    ``bound``: no placement costs less. ``row_major`` and ``first_free`` are what the two baselines cost (None: they
    find none).
    """

    design: Design
    cost: int
    bound: int
    row_major: int | None
    first_free: int | None
    method: str

    @property
    def gap(self) -> float:
        """How much of the cost is not proven necessary; 0 if the placement is optimal."""
        return (self.cost - self.bound) / self.cost if self.cost else 0.0

    def summary(self) -> str:
        """One line for reports."""
        proof = (
            "optimal" if self.cost <= self.bound else f"at most {self.gap:.1%} above the optimum (bound {self.bound})"
        )
        others = ", ".join(
            f"{name} {cost}"
            for name, cost in (("row-major", self.row_major), ("first-free", self.first_free))
            if cost is not None
        )
        return f"{self.cost} bytes x hops, {proof}; {self.method}" + (f"; {others}" if others else "")


def place_design(
    design: Design, machine: Machine, *, seconds: float | None = None, seed: int = 0, prove: bool = True
) -> Placement:
    """Give every node of `design` a tile.

    Args:
        design: a checked design; pinned nodes stay where they are.
        machine: the array.
        seconds: for the proof; 5 by default for up to 16 cores, 20 above.
        seed: of annealing.
        prove: use OR-tools if it is there.

    Raises:
        Error: NEUC-E674, a pin is impossible; NEUC-E675, nothing fits, with the constraints that contradict each other.
    """
    problem = problem_of(design, machine)
    baselines = [row_major(problem), first_free(problem)]
    legal = [places for places in baselines if places is not None]
    start = min(legal, key=problem.cost) if legal else _anywhere(problem)
    tries = [anneal(problem, start, seed=seed + i) for i in range(_RESTARTS)]
    best = min(tries, key=lambda places: (violations(problem, places) > 0, problem.cost(places)))
    bound, method = lower_bound(problem), "annealing"
    if problem.cost(best) > bound or violations(problem, best):
        if prove and exact.have_solver():
            limit = seconds or (_SECONDS_SMALL if len(machine.tiles("core")) <= EXACT_TILES else _SECONDS_LARGE)
            best, bound = _proven(problem, best, limit)
            method = "CP-SAT"
        elif violations(problem, best):
            raise _infeasible(design, exact.excess_of(problem))
    costs = [None if places is None else problem.cost(places) * problem.unit for places in baselines]
    placed = _with_tiles(design, best, machine)
    return Placement(placed, problem.cost(best) * problem.unit, bound * problem.unit, costs[0], costs[1], method)


def _proven(problem: Problem, best: Places, seconds: float) -> tuple[Places, int]:
    legal = not violations(problem, best)
    solved = exact.solve(problem, best if legal else None, seconds=seconds)
    if solved.places is None:
        if legal:
            return best, lower_bound(problem)
        raise _infeasible_core(problem, solved.core)
    if legal and problem.cost(best) <= problem.cost(solved.places):
        return best, min(solved.bound, problem.cost(best))
    return solved.places, solved.bound


def _infeasible_core(problem: Problem, core: tuple[str, ...]) -> Error:
    reasons = exact.excess_of(problem) or core or ("no placement was found in the time",)
    return Error(
        "NEUC-E675",
        f"nothing fits {problem.machine.name}: {'; '.join(reasons)}",
        hint="these cannot hold together: change one",
    )


def _infeasible(design: Design, reasons: tuple[str, ...]) -> Error:
    why = "; ".join(reasons) or "annealing found no placement"
    return Error(
        "NEUC-E675",
        f"{design.name} does not fit: {why}",
        hint='use fewer kernels, or pip install "neuc[npu]" for a proof',
    )


def _anywhere(problem: Problem) -> Places:
    """A start that need not be legal."""
    return {name: tiles[i % len(tiles)] for i, (name, tiles) in enumerate(problem.domains.items())}


def _with_tiles(design: Design, places: Places, machine: Machine) -> Design:
    placed = replace(
        design,
        kernels=tuple(replace(kernel, tile=places[kernel.name]) for kernel in design.kernels),
        links=tuple(replace(link, tile=places[link.name]) for link in design.links),
        ports=tuple(replace(port, tile=places[port.name]) for port in design.ports),
        pools=(),
        dmas=(),
        routes=(),
    )
    return replace(placed, shared=shared_pools(placed, machine))


def shared_pools(design: Design, machine: Machine) -> dict[str, Tile]:
    """Channels between neighbouring cores whose two ends see one pool, and the tile it stands on: no DMA is needed.

    The pool stands with the consumer if the producer reaches it there, else with the producer. Either tile needs less
    memory than with a pool at each end.
    """
    kernels = {kernel.name: kernel for kernel in design.kernels}
    reach = machine.classes["core"].shared_memory if "core" in machine.classes else ()
    found: dict[str, Tile] = {}
    for channel in design.channels:
        if len(channel.consumers) != 1 or channel.layout:
            continue
        producer, consumer = kernels.get(channel.producer), kernels.get(channel.consumers[0])
        if producer is None or consumer is None or producer.tile is None or consumer.tile is None:
            continue
        if not can_share(producer.tile, consumer.tile, reach):
            continue
        to_consumer = (consumer.tile[0] - producer.tile[0], consumer.tile[1] - producer.tile[1])
        found[channel.name] = consumer.tile if to_consumer in reach else producer.tile
    return found
