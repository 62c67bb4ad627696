"""Placement as a constraint program: exact for small arrays, a bound above that (OR-tools CP-SAT).

Order encoding: a boolean "x <= c" for each node and column, and the same for rows; a wire's length is the number of
cuts it crosses, which gives far better bounds than distances from one-hot places. Each kernel's wires also cost at
least what `bounds.star_bounds` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuc.backends.npu.place.annealing import Places, can_share
from neuc.backends.npu.place.bounds import lower_bound, star_bounds
from neuc.backends.npu.place.problem import Demand, Problem
from neuc.errors import Error
from neuc.runtime.npu.machine import Tile

if TYPE_CHECKING:
    from ortools.sat.python import cp_model


@dataclass(frozen=True)
class Solved:
    """A placement (None: none exists), the bound its cost is proven against, and why none exists."""

    places: Places | None
    bound: int
    core: tuple[str, ...] = ()


def have_solver() -> bool:
    """Whether OR-tools is installed."""
    from importlib.util import find_spec

    return find_spec("ortools") is not None


def solve(problem: Problem, hint: Mapping[str, Tile] | None, *, seconds: float, workers: int = 8) -> Solved:
    """Place `problem`, starting from `hint`, within `seconds`. Eight strategies prove sooner than one, even on one CPU.

    Raises:
        Error: NEUC-E682, OR-tools is not installed.
    """
    cp = _solver()
    model = _Model(problem, cp)
    model.minimise()
    if hint is not None:
        model.hint(hint)
    solver = cp.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = 1
    status = solver.solve(model.model)
    if status == cp.INFEASIBLE:
        return Solved(None, 0, minimal_core(problem))
    if status not in (cp.OPTIMAL, cp.FEASIBLE):
        return Solved(dict(hint) if hint is not None else None, lower_bound(problem))
    places = {
        name: next(tile for tile, here in tiles.items() if solver.boolean_value(here))
        for name, tiles in model.at.items()
    }
    bound = max(lower_bound(problem), round(solver.best_objective_bound))
    return Solved(places, problem.cost(places) if status == cp.OPTIMAL else bound)


def _solver():
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise Error("NEUC-E682", "proofs of placements need OR-tools", hint='pip install "neuc[npu]"') from error
    return cp_model


class _Model:
    """The constraint program. With `assume`, each named constraint can be taken out, to find out which are at fault."""

    def __init__(self, problem: Problem, cp, *, assume: bool = False) -> None:
        self.problem, self.model = problem, cp.CpModel()
        self.names: dict[int, str] = {}
        self._assume = assume
        self._literals: dict[str, cp_model.IntVar] = {}
        self.at: dict[str, dict[Tile, cp_model.IntVar]] = {}
        for name, tiles in problem.domains.items():
            every = tiles
            if assume and name in problem.pinned:
                kind = problem.machine.tile_class(tiles[0]).kind
                every = tuple(problem.machine.tiles(kind))
            self.at[name] = {tile: self.model.new_bool_var(f"{name}@{tile}") for tile in every}
            self.model.add_exactly_one(self.at[name].values())
            if len(every) > len(tiles):
                self._named(f"{name} is pinned to {tiles[0]}", self.model.add(self.at[name][tiles[0]] == 1))
        self._capacities()
        self._shared()

    def _named(self, name: str, constraint) -> None:
        if not self._assume:
            return
        if name not in self._literals:
            literal = self.model.new_bool_var(name)
            self._literals[name] = literal
            self.names[literal.index] = name
        constraint.only_enforce_if(self._literals[name])

    def _capacities(self) -> None:
        problem, model = self.problem, self.model
        tiles = sorted({tile for at in self.at.values() for tile in at})
        for tile in tiles:
            here = [(name, at[tile]) for name, at in self.at.items() if tile in at]
            kernels = [var for name, var in here if problem.demands[name].kernel]
            if len(kernels) > 1:
                count = sum(problem.demands[name].kernel for name in self.at)
                cores = len(problem.machine.tiles("core"))
                text = f"{count} kernels, one a core: {problem.machine.name} has {cores} cores"
                self._named(text, model.add(sum(kernels) <= 1))
            capacity = problem.capacity(tile)
            for field, unit in (("s2mm", "S2MM channels"), ("mm2s", "MM2S channels"), ("memory", "bytes of memory")):
                loads = [(getattr(problem.demands[name], field), var) for name, var in here]
                limit = getattr(capacity, field)
                if sum(load for load, _ in loads) <= limit:
                    continue
                kind = problem.machine.tile_class(tile).kind
                total = sum(load for load, _ in loads)
                what = f"{total} {unit} wanted of {kind} tiles, each has {limit}"
                self._named(what, model.add(sum(load * var for load, var in loads) <= limit))

    def _shared(self) -> None:
        """Kernels with more ends than DMA channels stand beside enough of their neighbours in the graph."""
        problem, reach = self.problem, self.problem.machine.classes["core"].shared_memory
        for name, wanted in problem.must_share.items():
            for direction, least in zip(("target", "source"), wanted):
                near = [
                    self._near(wire.source, wire.target, reach)
                    for wire in problem.wires
                    if wire.shareable and getattr(wire, direction) == name
                ]
                if least:
                    ends = "inputs" if direction == "target" else "outputs"
                    text = f"{least} {ends} of {name} beyond its DMA channels, to be shared with neighbours"
                    self._named(text, self.model.add(sum(near) >= least))

    def _near(self, a: str, b: str, reach: tuple[Tile, ...]) -> cp_model.IntVar:
        pairs: list[cp_model.IntVar] = []
        for tile, here in self.at[a].items():
            for other, there in self.at[b].items():
                if tile != other and can_share(tile, other, reach):
                    both = self.model.new_bool_var("")
                    self.model.add_implication(both, here)
                    self.model.add_implication(both, there)
                    pairs.append(both)
        near = self.model.new_bool_var("")
        self.model.add(sum(pairs) >= 1).only_enforce_if(near)
        return near

    def minimise(self) -> None:
        """Ask for the least cost."""
        problem, model = self.problem, self.model
        below = {name: self._cuts(name) for name in self.at}
        lengths: dict[tuple[str, str], cp_model.LinearExpr | int] = {}
        for wire in problem.wires:
            pair = (min(wire.source, wire.target), max(wire.source, wire.target))
            if pair in lengths or pair[0] == pair[1]:
                continue
            crossed: list[cp_model.IntVar] = []
            for cut, a in below[pair[0]].items():
                b = below[pair[1]][cut]
                if isinstance(a, int) and isinstance(b, int) and a == b:
                    continue
                cross = model.new_bool_var("")
                model.add(cross >= a - b)
                model.add(cross >= b - a)
                crossed.append(cross)
            lengths[pair] = sum(crossed)
        costs = {
            wire: wire.weight * lengths.get((min(wire.source, wire.target), max(wire.source, wire.target)), 0)
            for wire in problem.wires
        }
        for name, least in star_bounds(problem).items():
            own = [
                cost
                for wire, cost in costs.items()
                if name in (wire.source, wire.target)
                and problem.demands[wire.source].kernel
                and problem.demands[wire.target].kernel
            ]
            if own:
                model.add(sum(own) >= least)
        total = sum(costs.values())
        model.add(total >= lower_bound(problem))
        self._break_mirror(below)
        model.minimize(total)

    def _cuts(self, name: str) -> dict[tuple[int, int], cp_model.IntVar | int]:
        """For each cut (axis, position): whether the node is on the near side."""
        machine, found = self.problem.machine, dict[tuple[int, int], "cp_model.IntVar | int"]()
        for axis, size in enumerate((machine.cols, machine.rows)):
            for cut in range(size - 1):
                near = [var for tile, var in self.at[name].items() if tile[axis] <= cut]
                if len(near) in (0, len(self.at[name])):
                    found[axis, cut] = int(bool(near))
                    continue
                below = self.model.new_bool_var("")
                self.model.add(sum(near) == below)
                found[axis, cut] = below
                if (axis, cut - 1) in found:
                    self.model.add(found[axis, cut - 1] <= below)
        return found

    def _break_mirror(self, below: dict[str, dict[tuple[int, int], cp_model.IntVar | int]]) -> None:
        """Columns are alike unless something is pinned: the node with most wires may keep to the left half."""
        if self.problem.pinned:
            return
        degrees = {name: sum(name in (w.source, w.target) for w in self.problem.wires) for name in self.at}
        name = max(sorted(degrees), key=lambda n: degrees[n])
        rows = [tile[1] for tile in self.at[name]]
        middles = [(0, (self.problem.machine.cols - 1) // 2)]
        if all(demand.kernel for demand in self.problem.demands.values()):
            middles.append((1, (min(rows) + max(rows)) // 2))  # rows are alike, too, where nothing is tied to a border
        for cut in middles:
            half = below[name].get(cut)
            if half is not None and not isinstance(half, int):
                self.model.add(half == 1)

    def hint(self, places: Mapping[str, Tile]) -> None:
        """Start from this placement (mirrored, if it is in the half that was cut away)."""
        for name, tiles in self.at.items():
            for tile, var in tiles.items():
                self.model.add_hint(var, int(places[name] == tile))

    def core(self, cp) -> list[str]:
        """Names of constraints that cannot hold together; empty if all can."""
        self.model.add_assumptions(list(self._literals.values()))
        solver = cp.CpSolver()
        solver.parameters.max_time_in_seconds = 10
        solver.parameters.num_workers = 1
        if solver.solve(self.model) != cp.INFEASIBLE:
            return []
        return [self.names[index] for index in solver.sufficient_assumptions_for_infeasibility() if index in self.names]


def minimal_core(problem: Problem) -> tuple[str, ...]:
    """Named constraints that contradict each other, none of which could be left out."""
    cp = _solver()
    found = _Model(problem, cp, assume=True).core(cp)
    for name in list(found):
        fewer = [other for other in found if other != name]
        trial = _Model(problem, cp, assume=True)
        trial._literals = {key: var for key, var in trial._literals.items() if key in fewer}
        if fewer and trial.core(cp):
            found = fewer
    return tuple(found)


def excess_of(problem: Problem) -> tuple[str, ...]:
    """What a count alone shows to be too much, for machines without a solver."""
    found: list[str] = []
    for kind in ("core", "mem", "shim"):
        tiles = problem.machine.tiles(kind)
        names = [n for n, domain in problem.domains.items() if problem.machine.tile_class(domain[0]).kind == kind]
        if not names:
            continue
        each: Demand = problem.capacity(tiles[0])
        if kind == "core" and len(names) > len(tiles):
            found.append(f"{len(names)} kernels, one a core: {problem.machine.name} has {len(tiles)} cores")
        for field, unit in (("s2mm", "S2MM channels"), ("mm2s", "MM2S channels"), ("memory", "bytes of memory")):
            total = sum(getattr(problem.demands[name], field) for name in names)
            most = len(tiles) * getattr(each, field)
            if total > most:
                found.append(f"{total} {unit} wanted of {kind} tiles, all {len(tiles)} together have {most}")
            for name in names:
                need = getattr(problem.demands[name], field)
                if need > getattr(each, field):
                    found.append(f"{name} needs {need} {unit}, a {kind} tile has {getattr(each, field)}")
    return tuple(found)
