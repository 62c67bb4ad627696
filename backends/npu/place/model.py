"""The constraint program of a placement (OR-tools CP-SAT): what is legal, and the four figures of its score.

Order encoding: a boolean "x <= c" for each node and column, and the same for rows; a wire's length is the number of
cuts it crosses, which gives far better bounds than distances from one-hot places. Neighbours differ in the colour of a
chessboard, so that a circle of odd length is known to need a longer wire without search. How stages follow each other
stands in `exact.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from neuc.backends.npu.place.bounds import least_hops, star_bounds
from neuc.backends.npu.place.objective import crossing_row
from neuc.backends.npu.place.problem import Problem, Wire, can_share
from neuc.backends.npu.route.fabric import Arc
from neuc.runtime.npu.machine import Tile

if TYPE_CHECKING:
    from ortools.sat.python import cp_model, cp_model_helper

Literal: TypeAlias = "cp_model_helper.Literal | int"
"""A boolean of the program, or what it is known to be."""


class PlacementModel:
    """Places as booleans with the rules every placement keeps; figures are added one by one.

    With `assume`, each named rule can be taken out, to find out which are at fault.
    """

    def __init__(self, problem: Problem, cp, *, assume: bool = False) -> None:
        self.problem, self.model = problem, cp.CpModel()
        self.names: dict[int, str] = {}
        self.literals: dict[str, cp_model.IntVar] = {}
        self._assume = assume
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
        self._near: dict[str, cp_model.IntVar] = {}
        self._colours: dict[str, Literal] = {}
        self._halves: list[tuple[str, int]] = []
        self._capacities()
        self._must_share()
        self._below = {name: self._cuts(name) for name in self.at} if not assume else {}

    def _named(self, name: str, constraint) -> None:
        if not self._assume:
            return
        if name not in self.literals:
            literal = self.model.new_bool_var(name)
            self.literals[name] = literal
            self.names[literal.index] = name
        constraint.only_enforce_if(self.literals[name])

    def _capacities(self) -> None:
        problem, model = self.problem, self.model
        tiles = sorted({tile for at in self.at.values() for tile in at})
        for tile in tiles:
            here = [(name, at[tile]) for name, at in self.at.items() if tile in at]
            kernels = [var for name, var in here if problem.demands[name].kernel]
            if len(kernels) > 1 and not self._assume:
                model.add_at_most_one(kernels)
            elif len(kernels) > 1:
                count = sum(problem.demands[name].kernel for name in self.at)
                cores = len(problem.machine.tiles("core"))
                text = f"{count} kernels, one a core: {problem.machine.name} has {cores} cores"
                self._named(text, model.add(sum(kernels) <= 1))
            capacity = problem.capacity(tile)
            for field, unit in (("s2mm", "S2MM channels"), ("mm2s", "MM2S channels"), ("memory", "bytes of memory")):
                loads = [(getattr(problem.demands[name], field), var) for name, var in here]
                limit = getattr(capacity, field)
                heavy = [load for load, _ in loads if load]
                if sum(heavy) <= limit or (len(kernels) == len(here) and max(heavy) <= limit):
                    continue
                kind = problem.machine.tile_class(tile).kind
                what = f"{sum(heavy)} {unit} wanted of {kind} tiles, each has {limit}"
                self._named(what, model.add(sum(load * var for load, var in loads) <= limit))

    def _must_share(self) -> None:
        """Kernels with more ends than DMA channels stand beside enough of their neighbours in the graph."""
        for name, wanted in self.problem.must_share.items():
            demand = self.problem.demands[name]
            for direction, least, have in zip(("target", "source"), wanted, (demand.s2mm, demand.mm2s)):
                wires = [w for w in self.problem.wires if w.shareable and getattr(w, direction) == name]
                if least:
                    ends, way = ("inputs", "S2MM") if direction == "target" else ("outputs", "MM2S")
                    text = (
                        f"{have + least} {ends} of {name} need {have + least} {way} channels, its tile has {have}, "
                        f"unless {least} come{'s' * (least == 1)} from {'' if direction == 'target' else 'or goes to '}"
                        "a kernel beside it"
                    )
                    self._named(text, self.model.add(sum(self.near(wire) for wire in wires) >= least))

    def near(self, wire: Wire) -> cp_model.IntVar:
        """A boolean that can be true only if the wire's ends see one pool."""
        if wire.channel not in self._near:
            model, near = self.model, self.model.new_bool_var(f"{wire.channel} shared")
            for one, other in ((wire.source, wire.target), (wire.target, wire.source)):
                for tile, here in self.at[one].items():
                    beside = [v for t, v in self.at[other].items() if can_share(tile, t, self.problem.reach)]
                    model.add_bool_or([near.negated(), here.negated(), *beside])
            a, b = self._colour(wire.source), self._colour(wire.target)
            if wire.source != wire.target:
                self._clause(near.negated(), a, b)
                self._clause(near.negated(), _not(a), _not(b))
            self._near[wire.channel] = near
        return self._near[wire.channel]

    def _colour(self, name: str) -> Literal:
        if name not in self._colours:
            odd = [var for tile, var in self.at[name].items() if (tile[0] + tile[1]) % 2]
            self._colours[name] = self._any_of(odd, len(self.at[name]))
        return self._colours[name]

    def _any_of(self, chosen: list[cp_model.IntVar], every: int) -> Literal:
        """Whether a node stands on one of some of its tiles."""
        if len(chosen) in (0, every):
            return int(bool(chosen))
        found = self.model.new_bool_var("")
        self.model.add(sum(chosen) == found)
        return found

    def _clause(self, *literals: Literal) -> None:
        """At least one of these holds."""
        if not any(isinstance(literal, int) and literal for literal in literals):
            self.model.add_bool_or([literal for literal in literals if not isinstance(literal, int)])

    def _cuts(self, name: str) -> dict[tuple[int, int], Literal]:
        """For each cut (axis, position): whether the node is on the near side."""
        machine, found = self.problem.machine, dict[tuple[int, int], Literal]()
        for axis, size in enumerate((machine.cols, machine.rows)):
            for cut in range(size - 1):
                near = [var for tile, var in self.at[name].items() if tile[axis] <= cut]
                found[axis, cut] = self._any_of(near, len(self.at[name]))
                before = found.get((axis, cut - 1), 0)
                self._clause(_not(before), found[axis, cut])
        return found

    def _line(self, name: str, axis: int, place: int) -> Literal:
        """Whether a node is in this column (axis 0) or row (axis 1)."""
        return self._any_of([var for t, var in self.at[name].items() if t[axis] == place], len(self.at[name]))

    def minimise_interval(self, levels: list[float]) -> list[cp_model.IntVar]:
        """Booleans "at least this interval", one for each of `levels`, to be kept few."""
        reached = [self.model.new_bool_var(f"interval {level:g}") for level in levels]
        for lower, higher in pairwise(reached):
            self.model.add_implication(higher, lower)
        for wire in self.problem.wires:
            load = self.problem.loads.get(wire.channel, 0.0)
            if wire.shareable and load in levels:
                self._clause(self.near(wire), reached[levels.index(load)])
        self.model.minimize(sum(reached))
        return reached

    def minimise_congestion(self, most: int) -> cp_model.IntVar:
        """The most circuits on one arc, each channel going by dimension order."""
        uses: dict[Arc, dict[str, cp_model.IntVar]] = defaultdict(dict)
        lines: dict[tuple[str, int, int], Literal] = {}

        def line(name: str, axis: int, place: int) -> Literal:
            key = (name, axis, place)
            if key not in lines:
                lines[key] = self._line(*key)
            return lines[key]

        for wire in self.problem.wires:
            shared: Literal = self.near(wire) if wire.shareable else 0

            def taken(arc: Arc, *when: Literal, wire: Wire = wire, shared: Literal = shared) -> None:
                if any(isinstance(literal, int) and not literal for literal in when):
                    return
                if wire.channel not in uses[arc]:
                    uses[arc][wire.channel] = self.model.new_bool_var("")
                self._clause(*(_not(literal) for literal in when), shared, uses[arc][wire.channel])

            self._ways(wire, taken, line)
        worst = self.model.new_int_var(0, most, "congestion")
        for channels in uses.values():
            self.model.add(sum(channels.values()) <= worst)
        self.model.minimize(worst)
        return worst

    def _ways(self, wire: Wire, taken, line) -> None:
        """Every arc a wire may take, and when it does (`objective.dimension_ordered`)."""
        a, b, machine = wire.source, wire.target, self.problem.machine
        rows = [sorted({tile[1] for tile in self.at[name]}) for name in (a, b)]
        across = {crossing_row(r, s, machine) for r in rows[0] for s in rows[1]}
        turns = next((name for name, own in zip((a, b), rows) if across == set(own)), None)
        if turns is None and (len(across) > 1 or rows[0] != rows[1]):
            return  # several rows of memory tiles: such wires are not counted, and the bound stays one
        for cut in range(machine.cols - 1):
            west, east = self._below[a][0, cut], self._below[b][0, cut]
            for row in across:
                there = 1 if turns is None else line(turns, 1, row)
                taken(((cut, row), "East"), west, _not(east), there)
                taken(((cut + 1, row), "West"), _not(west), east, there)
        for col in range(machine.cols):
            if turns is None:
                for low in range(min(rows[0][0], *across), max(rows[0][0], *across)):
                    taken(((col, low), "North"), line(a, 0, col), _not(line(b, 0, col)))
                    taken(((col, low + 1), "South"), line(b, 0, col), _not(line(a, 0, col)))
                continue
            for cut in range(machine.rows - 1):
                below, above = self._below[a][1, cut], self._below[b][1, cut]
                there = line(b if turns == a else a, 0, col)
                taken(((col, cut), "North"), below, _not(above), there)
                taken(((col, cut + 1), "South"), _not(below), above, there)

    def minimise_hops(self) -> cp_model.LinearExprT:
        """Weight x length of all wires."""
        problem, model = self.problem, self.model
        lengths: dict[tuple[str, str], cp_model.LinearExpr | int] = {}
        for wire in problem.wires:
            pair = _pair(wire)
            if pair not in lengths:
                lengths[pair] = self._length(*pair)
            if wire.channel in self._near and pair[0] != pair[1]:
                model.add(lengths[pair] <= 1).only_enforce_if(self._near[wire.channel])
        costs = {wire: wire.weight * lengths[_pair(wire)] for wire in problem.wires}
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
        model.add(total >= least_hops(problem))
        model.minimize(total)
        return total

    def _length(self, a: str, b: str) -> cp_model.LinearExpr | int:
        if a == b:
            return 0
        crossed: list[Literal] = []
        for cut, near in self._below[a].items():
            far = self._below[b][cut]
            if isinstance(near, int) and isinstance(far, int):
                crossed.append(abs(near - far))
                continue
            cross = self.model.new_bool_var("")
            self.model.add(cross >= near - far)
            self.model.add(cross >= far - near)
            crossed.append(cross)
        length = sum(crossed)
        if self.problem.demands[a].kernel and self.problem.demands[b].kernel:
            one, other = self._colour(a), self._colour(b)
            same = self.model.new_bool_var("")
            self._clause(same, _not(one), _not(other))
            self._clause(same, one, other)
            self.model.add(length >= 1 + same)
        return length

    def minimise_tiles(self) -> cp_model.LinearExprT:
        """Tiles that anything stands on."""
        by_tile: dict[Tile, list[cp_model.IntVar]] = defaultdict(list)
        for at in self.at.values():
            for tile, var in at.items():
                by_tile[tile].append(var)
        used = {tile: self.model.new_bool_var("") for tile in by_tile}
        for tile, here in by_tile.items():
            for var in here:
                self.model.add_implication(var, used[tile])
        total = sum(used.values())
        self.model.minimize(total)
        return total

    def break_mirrors(self) -> None:
        """Columns are alike unless something is pinned: the node with most wires keeps to the left half.

        Rows are alike, too, where nothing is tied to a border.
        """
        if self.problem.pinned:
            return
        degrees = {name: sum(name in (w.source, w.target) for w in self.problem.wires) for name in self.at}
        name = max(sorted(degrees), key=lambda n: degrees[n])
        for axis in (0, 1) if all(demand.kernel for demand in self.problem.demands.values()) else (0,):
            low, high = _extent(self.at[name], axis)
            half = self._below[name].get((axis, (low + high) // 2))
            if half is not None and high > low:
                self._clause(half)
                self._halves.append((name, axis))

    def hint(self, places: Mapping[str, Tile]) -> None:
        """Start from this placement, mirrored where it stands in a half that was cut away."""
        self.model.clear_hints()
        for name, axis in self._halves:
            low, high = _extent(self.at[name], axis)
            if places[name][axis] > (low + high) // 2:
                flip = low + high
                places = {n: (flip - c, r) if axis == 0 else (c, flip - r) for n, (c, r) in places.items()}
        for name, tiles in self.at.items():
            for tile, var in tiles.items():
                self.model.add_hint(var, int(places[name] == tile))


def _extent(tiles: Iterable[Tile], axis: int) -> tuple[int, int]:
    places = [tile[axis] for tile in tiles]
    return min(places), max(places)


def _pair(wire: Wire) -> tuple[str, str]:
    return (min(wire.source, wire.target), max(wire.source, wire.target))


def _not(literal: Literal) -> Literal:
    return 1 - literal if isinstance(literal, int) else literal.negated()
