"""Placement with proof (OR-tools CP-SAT): exact for small arrays, bounds above that; and why nothing fits.

The four figures of a score are solved one after the other in one program that grows: what a stage reached is a rule of
the next, which begins from its placement and has what is left of the time. Bounds of later stages therefore hold for
placements as good as this one in all earlier ones.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import ceil

from neuc.backends.npu.place.baselines import Places, violations
from neuc.backends.npu.place.bounds import least_score
from neuc.backends.npu.place.model import PlacementModel
from neuc.backends.npu.place.objective import Score, score
from neuc.backends.npu.place.problem import Demand, Problem
from neuc.errors import Error
from neuc.runtime.npu.machine import Tile

_SHARES = (0.3, 0.4, 0.9, 1.0)
"""Of the time left, what each stage may take."""
_LEAST_SECONDS = 0.2


@dataclass(frozen=True)
class Solved:
    """A placement (None: none was found), the bounds of its score, and why none exists."""

    places: Places | None
    bounds: Score
    core: tuple[str, ...] = ()


def have_solver() -> bool:
    """Whether OR-tools is installed."""
    from importlib.util import find_spec

    return find_spec("ortools") is not None


def _solver():
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise Error("NEUC-E682", "proofs of placements need OR-tools", hint='pip install "neuc[npu]"') from error
    return cp_model


def solve(problem: Problem, start: Places | None, *, deadline: float, workers: int = 8) -> Solved:
    """Place `problem`, starting from `start` if that is legal. Eight strategies prove sooner than one, on one CPU, too.

    Args:
        problem: what to place.
        start: a placement to improve.
        deadline: when to stop, by `time.monotonic`.
        workers: strategies side by side.

    Raises:
        Error: NEUC-E682, OR-tools is not installed.
    """
    run = _Stages(problem, start, deadline, workers)
    for stage in (run.interval, run.congestion, run.hops, run.tiles):
        if not stage():
            return Solved(None, run.bounds, minimal_core(problem) if run.infeasible else ())
    return Solved(run.places, run.bounds)


class _Stages:
    """The program as far as it has grown, with the best placement and the bounds known so far."""

    def __init__(self, problem: Problem, start: Places | None, deadline: float, workers: int) -> None:
        self.cp = _solver()
        self.problem, self.deadline, self.workers = problem, deadline, workers
        self.places = start if start is not None and not violations(problem, start) else None
        self.bounds = least_score(problem)
        self.infeasible = False
        self.program = PlacementModel(problem, self.cp)
        self.program.break_mirrors()

    @property
    def best(self) -> Score | None:
        """The score of the best placement so far."""
        return None if self.places is None else score(self.problem, self.places)

    def interval(self) -> bool:
        """The first stage. As the others, false if there is no placement to go on with."""
        above = {self.problem.loads[w.channel] for w in self.problem.wires if w.shareable}
        levels = sorted(load for load in above if load > self.problem.floor)
        figures = [self.problem.floor, *levels]
        reached = self.program.minimise_interval(levels)
        bound = 0 if self.best is not None and self.best.interval == self.bounds.interval else self._solve(0)
        if self.places is None or self.best is None:
            return False
        self.bounds = self.bounds._replace(interval=min(max(figures[bound], self.bounds.interval), self.best.interval))
        for load, held in zip(levels, reached):
            if load > self.best.interval:
                self.program.model.add(held == 0)
        return True

    def congestion(self) -> bool:
        """Fewer circuits on the fullest way."""
        assert self.best is not None
        worst = self.program.minimise_congestion(self.best.congestion)
        if self.best.congestion > self.bounds.congestion:
            self.bounds = self.bounds._replace(congestion=self._between(1, self._solve(1)))
        self.program.model.add(worst <= self.best.congestion)
        return True

    def hops(self) -> bool:
        """Fewer bytes x hops."""
        total = self.program.minimise_hops()
        assert self.best is not None
        if self.best.hops > self.bounds.hops:
            self.bounds = self.bounds._replace(hops=self._between(2, self._solve(2) * self.problem.unit))
        self.program.model.add(total <= self.best.hops // self.problem.unit)
        return True

    def tiles(self) -> bool:
        """Fewer tiles; kernels have one each."""
        assert self.best is not None
        if self.best.tiles > self.bounds.tiles:
            self.program.minimise_tiles()
            self.bounds = self.bounds._replace(tiles=self._between(3, self._solve(3)))
        return True

    def _between(self, stage: int, proven: int) -> int:
        """A bound no weaker than what was known, and no stronger than what was reached."""
        assert self.best is not None
        return min(max(proven, int(self.bounds[stage])), int(self.best[stage]))

    def _solve(self, stage: int) -> int:
        """Improve the placement for the figure that is asked for now; a bound of the objective."""
        left = self.deadline - time.monotonic()
        if left < _LEAST_SECONDS and self.places is not None:
            return 0
        if self.places is not None:
            self.program.hint(self.places)
        solver = self.cp.CpSolver()
        solver.parameters.max_time_in_seconds = max(_LEAST_SECONDS, left * _SHARES[stage])
        solver.parameters.num_workers = self.workers
        solver.parameters.random_seed = 1
        status = solver.solve(self.program.model)
        self.infeasible = status == self.cp.INFEASIBLE
        if status in (self.cp.OPTIMAL, self.cp.FEASIBLE):
            found = {
                name: next(tile for tile, here in tiles.items() if solver.boolean_value(here))
                for name, tiles in self.program.at.items()
            }
            if self.best is None or score(self.problem, found) < self.best:
                self.places = found
        return max(0, ceil(solver.best_objective_bound - 1e-6))


def minimal_core(problem: Problem) -> tuple[str, ...]:
    """Named constraints that contradict each other, none of which could be left out."""
    cp = _solver()
    found = _core(PlacementModel(problem, cp, assume=True), cp)
    for name in list(found):
        fewer = [other for other in found if other != name]
        if fewer and _core(PlacementModel(problem, cp, assume=True), cp, fewer):
            found = fewer
    return tuple(found)


def _core(model: PlacementModel, cp, kept: list[str] | None = None) -> list[str]:
    """Names of rules that cannot hold together, out of `kept` (all, if None); empty if they can."""
    model.model.add_assumptions([var for name, var in model.literals.items() if kept is None or name in kept])
    solver = cp.CpSolver()
    solver.parameters.max_time_in_seconds = 10
    solver.parameters.num_workers = 1
    if solver.solve(model.model) != cp.INFEASIBLE:
        return []
    return [model.names[index] for index in solver.sufficient_assumptions_for_infeasibility() if index in model.names]


def excess_of(problem: Problem) -> tuple[str, ...]:
    """What a count alone shows to be too much, for machines without a solver."""
    found: list[str] = []
    for kind in ("core", "mem", "shim"):
        tiles = problem.machine.tiles(kind)
        names = [n for n, domain in problem.domains.items() if problem.machine.tile_class(domain[0]).kind == kind]
        if not names:
            continue
        each: Demand = problem.capacity(tiles[0])
        crowded = kind == "core" and len(names) > len(tiles)
        if crowded:
            found.append(f"{len(names)} kernels, one a core: {problem.machine.name} has {len(tiles)} cores")
        for field, unit in (("s2mm", "S2MM channels"), ("mm2s", "MM2S channels"), ("memory", "bytes of memory")):
            total = sum(getattr(problem.demands[name], field) for name in names)
            most = len(tiles) * getattr(each, field)
            if total > most and not crowded:
                found.append(f"{total} {unit} wanted of {kind} tiles, all {len(tiles)} together have {most}")
            for name in names:
                need = getattr(problem.demands[name], field)
                if need > getattr(each, field):
                    found.append(f"{name} needs {need} {unit}, a {kind} tile has {getattr(each, field)}")
    return tuple(found)


def crowded_pins(problem: Problem) -> list[str]:
    """Tiles that nodes pinned to them ask too much of, for machines without a solver."""
    found: list[str] = []
    pins: dict[Tile, list[str]] = {}
    for name in sorted(problem.pinned):
        pins.setdefault(problem.domains[name][0], []).append(name)
    for tile, names in pins.items():
        if len(names) < 2:
            continue
        kernels = [name for name in names if problem.demands[name].kernel]
        if len(kernels) > 1:
            found.append(f"{', '.join(kernels)} are pinned to tile {tile}, which holds one kernel")
            continue
        has = problem.capacity(tile)
        for field, unit in (("s2mm", "S2MM channels"), ("mm2s", "MM2S channels"), ("memory", "bytes of memory")):
            total = sum(getattr(problem.demands[name], field) for name in names)
            if total > getattr(has, field):
                what = f"{', '.join(names)}, pinned to tile {tile}, need {total} {unit}"
                found.append(f"{what}, the tile has {getattr(has, field)}")
    return found
