"""`place_design`: the best placement to be had in the time, and how far from the best possible it can be at most.

Baselines first, then annealing, then proofs by OR-tools where that is installed. The result's score is never worse than
a row-major or a first-free placement's, because both are among the candidates.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from neuc.backends.npu.place import exact
from neuc.backends.npu.place.annealing import anneal
from neuc.backends.npu.place.baselines import Places, first_free, row_major, violations
from neuc.backends.npu.place.bounds import least_score
from neuc.backends.npu.place.objective import Score, score
from neuc.backends.npu.place.problem import Problem, can_share, problem_of
from neuc.errors import Error
from neuc.runtime.npu.machine import Machine, Tile
from neuc.runtime.npu.program import Design

EXACT_TILES = 16
_SECONDS_SMALL = 5.0
_SECONDS_LARGE = 20.0
_OVERHEAD = 0.93
"""Of the time, what solvers are told: they look at the clock now and then only."""
_MOVES_A_NODE = 500
_RESTARTS = 2
_MOVES_BEFORE_PROOF = 600
_ANNEALING = 0.25
"""Of the time before a proof, what annealing has at most: a machine may be busy."""


@dataclass(frozen=True)
class Placement:
    """A placed design with its score: interval, congestion, bytes x hops of one iteration, and tiles.

    ``bounds``: no placement that is as good in all earlier figures has less of one. ``row_major`` and ``first_free``
    are the scores of the two baselines (None: they find none).
    """

    design: Design
    score: Score
    bounds: Score
    row_major: Score | None
    first_free: Score | None
    method: str

    @property
    def gaps(self) -> tuple[float, ...]:
        """For each figure of the score, the share of it that is not proven necessary."""
        return tuple((had - least) / had if had else 0.0 for had, least in zip(self.score, self.bounds))

    @property
    def optimal(self) -> bool:
        """Whether no placement has a better score, with proof."""
        return self.score == self.bounds

    def summary(self) -> str:
        """One line for reports."""
        units = ("cycles an iteration", "circuits on a way", "bytes x hops", "tiles")
        figures = [
            f"{had:g} {unit}" + ("" if had == least else f" (at least {least:g}, gap {gap:.1%})")
            for had, least, gap, unit in zip(self.score, self.bounds, self.gaps, units)
        ]
        proof = ", optimal" if self.optimal else ""
        others = [
            f"{name} {other.interval:g}, {other.congestion}, {other.hops}, {other.tiles}"
            for name, other in (("row-major", self.row_major), ("first-free", self.first_free))
            if other is not None
        ]
        return "; ".join([", ".join(figures) + proof, self.method, *others])


def place_design(
    design: Design, machine: Machine, *, seconds: float | None = None, seed: int = 0, prove: bool = True
) -> Placement:
    """Give every node of `design` a tile.

    Args:
        design: a checked design; pinned nodes stay where they are.
        machine: the array.
        seconds: for all of it, if OR-tools is used; 5 by default for up to 16 cores, 20 above.
        seed: of annealing.
        prove: use OR-tools if it is there.

    Raises:
        Error: NEUC-E674, a pin is impossible; NEUC-E675, nothing fits, with the constraints that contradict each other.
    """
    limit = seconds or (_SECONDS_SMALL if len(machine.tiles("core")) <= EXACT_TILES else _SECONDS_LARGE)
    began = time.monotonic()
    problem = problem_of(design, machine)
    excess = exact.excess_of(problem)
    if excess:
        raise _infeasible(design, "; ".join(excess), "take a larger array, or less of what is named")
    baselines = [row_major(problem), first_free(problem)]
    legal = [places for places in baselines if places is not None]
    start = min(legal, key=lambda places: score(problem, places)) if legal else _anywhere(problem)
    proving = prove and exact.have_solver()
    moves = (_MOVES_BEFORE_PROOF if proving else _MOVES_A_NODE) * len(problem.domains)
    until = began + _ANNEALING * limit if proving else math.inf
    count = 1 if proving else _RESTARTS
    tries = [anneal(problem, start, seed=seed + i, steps=moves, deadline=until) for i in range(count)]
    best = min(tries, key=lambda places: (violations(problem, places) > 0, score(problem, places)))
    bounds, method, misfits = least_score(problem), "annealing", violations(problem, best) > 0
    if misfits and not proving:
        why = "; ".join(exact.crowded_pins(problem)) or "annealing found no placement"
        raise _infeasible(design, why, 'change that, or pip install "neuc[npu]" for a proof')
    if not misfits and all(len(tiles) == 1 for tiles in problem.domains.values()):
        bounds, method = score(problem, best), "all pinned"
    elif proving and (misfits or score(problem, best) > bounds):
        solved = exact.solve(problem, best, deadline=began + _OVERHEAD * limit)
        if solved.places is None:
            raise _infeasible_core(problem, solved.core)
        best, bounds, method = solved.places, solved.bounds, "CP-SAT"
    scores = [None if places is None else score(problem, places) for places in baselines]
    placed = _with_tiles(design, best, machine)
    return Placement(placed, score(problem, best), bounds, scores[0], scores[1], method)


def _infeasible_core(problem: Problem, core: tuple[str, ...]) -> Error:
    reasons = core or ("no placement was found in the time",)
    return Error(
        "NEUC-E675",
        f"nothing fits {problem.machine.name}: {'; '.join(reasons)}",
        hint="these cannot hold together: change one",
    )


def _infeasible(design: Design, why: str, hint: str) -> Error:
    return Error("NEUC-E675", f"{design.name} does not fit: {why}", hint=hint)


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
