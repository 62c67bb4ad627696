"""Placement without a solver: simulated annealing from a plain placement, seeded.

Annealing (Kirkpatrick et al. 1983) moves a node to another of its tiles, changing places with who stands there. Energy
is a smooth stand-in for the score, whose first figures are maxima: channels that hold the interval up pay for not being
shared, circuits that meet on one way pay for each other, and what does not fit pays most. The best placement is kept by
its true score. The same seed gives the same placement.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable

from neuc.backends.npu.place.baselines import Places, tile_excess, unshared, violations
from neuc.backends.npu.place.objective import dimension_ordered, score
from neuc.backends.npu.place.problem import Problem, Wire, can_share, distance
from neuc.backends.npu.route.fabric import Arc
from neuc.runtime.npu.machine import Tile

_COOLING_TO = 1e-3
_LOOKS_AT_CLOCK = 256


class _State:
    """A placement with the energies of its channels and the circuits on every arc, kept up to date move by move."""

    def __init__(self, problem: Problem, start: Places) -> None:
        self.problem, self.places = problem, dict(start)
        self.at: dict[Tile, set[str]] = defaultdict(set)
        self.wires: dict[str, list[Wire]] = defaultdict(list)
        self.channels: dict[str, set[str]] = defaultdict(set)
        for name, tile in start.items():
            self.at[tile].add(name)
        for wire in problem.wires:
            self.wires[wire.channel].append(wire)
            self.channels[wire.source].add(wire.channel)
            self.channels[wire.target].add(wire.channel)
        heaviest = max((wire.weight for wire in problem.wires), default=1)
        self.crowd = heaviest  # for two circuits on one way
        levels = sorted({load for load in problem.loads.values() if load > problem.floor})
        ranks = {load: rank for rank, load in enumerate(levels, start=2)}
        self.alone = {name: heaviest * ranks[load] for name, load in problem.loads.items() if load in ranks}
        self.penalty = heaviest * (2 + len(levels)) * (problem.machine.cols + problem.machine.rows)
        self.circuits: Counter[Arc] = Counter()
        self._between: dict[tuple[Tile, Tile], tuple[int, bool, list[Arc]]] = {}
        self._now: dict[str, tuple[float, Collection[Arc]]] = {}
        self._fits = {
            name: not any(tile_excess(problem, tile, [name]) for tile in tiles)
            for name, tiles in problem.domains.items()
        }
        self.energy = self._laid(self.wires) + self._misfit(list(self.at))

    def move(self, name: str, tile: Tile) -> float:
        """Put a node on another tile, and whose kernel's place it takes on its own; what that changes in energy."""
        problem, old = self.problem, self.places[name]
        other = None
        if problem.demands[name].kernel:
            other = min((n for n in self.at[tile] if problem.demands[n].kernel), default=None)
        if other is not None and old not in problem.domains[other]:
            return math.inf
        moved = {name: tile} if other is None else {name: tile, other: old}
        # Sorted: the order of a set of names differs from process to process, and with it the sums' last bits.
        touched = sorted({channel for node in moved for channel in self.channels[node]})
        before = self._lifted(touched) + self._misfit((tile, old))
        for node, to in moved.items():
            self.at[self.places[node]].discard(node)
            self.places[node] = to
            self.at[to].add(node)
        change = self._laid(touched) + self._misfit((tile, old)) - before
        self.energy += change
        return change

    def _misfit(self, tiles: Iterable[Tile]) -> float:
        excess = 0
        for tile in tiles:
            here = list(self.at[tile])
            if len(here) > 1 or (here and not self._fits[here[0]]):
                excess += tile_excess(self.problem, tile, here)
        apart = sum(unshared(self.problem, self.places, name) for name in self.problem.must_share)
        return self.penalty * (excess + apart)

    def _ways(self, channel: str) -> tuple[float, Collection[Arc]]:
        """What a channel costs but for circuits it meets, and its arcs."""
        length, arcs, alone = 0.0, list[Arc](), self.alone.get(channel, 0)
        for wire in self.wires[channel]:
            ends = (self.places[wire.source], self.places[wire.target])
            found = self._between.get(ends)
            if found is None:
                shared = can_share(*ends, self.problem.reach)
                found = (distance(*ends), shared, dimension_ordered(*ends, self.problem.machine))
                self._between[ends] = found
            hops, shared, way = found
            length += wire.weight * hops
            if not (shared and wire.shareable):
                length += alone
                arcs = way if not arcs else [*arcs, *way]
        return length, arcs if len(self.wires[channel]) == 1 else set(arcs)

    def _laid(self, channels: Iterable[str]) -> float:
        total, circuits = 0.0, self.circuits
        for channel in channels:
            length, arcs = self._now[channel] = self._ways(channel)
            met = 0
            for arc in arcs:
                met += circuits[arc]
                circuits[arc] += 1
            total += length + self.crowd * met
        return total

    def _lifted(self, channels: Iterable[str]) -> float:
        total, circuits = 0.0, self.circuits
        for channel in channels:
            length, arcs = self._now[channel]
            met = 0
            for arc in arcs:
                circuits[arc] -= 1
                met += circuits[arc]
            total += length + self.crowd * met
        return total


def anneal(problem: Problem, start: Places, *, seed: int = 0, steps: int, deadline: float = math.inf) -> Places:
    """Improve `start` in so many trial moves; the best legal placement seen (or `start`, if none was).

    A `deadline` by `time.monotonic` ends it early, after which a seed no longer says what comes out.
    """
    rng = random.Random(seed)
    movable = [name for name in problem.domains if len(problem.domains[name]) > 1]
    if not movable:
        return dict(start)
    state = _State(problem, start)
    best, best_score, least = dict(start), None, math.inf
    if not violations(problem, start):
        best_score, least = score(problem, start), state.energy
    temperature = max(1.0, state.energy / max(1, len(problem.wires)))
    cooling = _COOLING_TO ** (1 / steps)
    for step in range(steps):
        if step % _LOOKS_AT_CLOCK == 0 and time.monotonic() > deadline:
            break
        temperature *= cooling
        name = movable[rng.randrange(len(movable))]
        domain = problem.domains[name]
        tile, old = domain[rng.randrange(len(domain))], state.places[name]
        if tile == old:
            continue
        change = state.move(name, tile)
        if change == math.inf:
            continue
        if change > 0 and rng.random() >= math.exp(-change / temperature):
            state.move(name, old)
            continue
        if state.energy < least and not violations(problem, state.places):
            least, now = state.energy, score(problem, state.places)
            if best_score is None or now < best_score:
                best, best_score = dict(state.places), now
    return best
