"""Several cells of a chip's grid for one spin: chains, found so that every coupling of a model has a wire.

Each spin in turn gets the cheapest tree of cells that reaches the chains of all its neighbours (Cai, Macready and Roy,
A practical heuristic for finding graph minors, 2014): cells that others have, too, cost more from pass to pass, until
none is shared. Plain data, no IR.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuc.backends.tsu.machines import Machine

Array = np.ndarray
Cell = tuple[int, int]

MOST_SPINS, MOST_COUPLINGS = 64, 100
"""Of a model that chains are tried for; the search finds complete graphs of 12 spins on z1, and of 8 on g12."""
PASSES = 24
SEED = 0
_FAR, _SHARED = 1e30, 1e12
_ROOM = 6
"""Cells of the window that is searched, for each cell that a complete graph would need on a grid of lines."""


def find_chains(count: int, pairs: Sequence[tuple[int, int]], machine: Machine) -> list[list[Cell]] | None:
    """Disjoint connected cells for each spin, with a wire for each pair; None where none were found."""
    near: list[list[int]] = [[] for _ in range(count)]
    for a, b in pairs:
        near[a].append(b)
        near[b].append(a)
    degree = 2 * len(pairs) / max(count, 1)
    side = int(np.ceil(np.sqrt(_ROOM * count * (1 + degree / 4)))) + 4
    rows, columns = min(machine.rows, side), min(machine.columns, side)
    search = _Search(rows, columns, machine, near)
    return search.run()


class _Search:
    def __init__(self, rows: int, columns: int, machine: Machine, near: list[list[int]]) -> None:
        self.shape, self.offsets, self.near = (rows, columns), machine.offsets, near
        self.chains: list[set[Cell]] = [set() for _ in near]
        self.use = np.zeros(self.shape)
        self.random = np.random.default_rng(SEED)
        self.middle = (rows - 1) / 2, (columns - 1) / 2

    def run(self) -> list[list[Cell]] | None:
        """Passes over all spins until no cell is shared; then some more, to shorten."""
        best: list[list[Cell]] | None = None
        order = sorted(range(len(self.near)), key=lambda v: -len(self.near[v]))
        for turn in range(PASSES):
            price = 2.0 ** min(turn + 1, 12)
            for v in order:
                self._place(v, price)
            if self.use.max() <= 1:
                size = sum(map(len, self.chains))
                if best is not None and size >= sum(map(len, best)):
                    break
                best = [sorted(chain) for chain in self.chains]
            order = self.random.permutation(len(self.near)).tolist()
        return best

    def _place(self, v: int, price: float) -> None:
        """A new chain for a spin: from the cell that is nearest to all its neighbours, a way to each."""
        for cell in self.chains[v]:
            self.use[cell] -= 1
        self.chains[v] = set()
        weight = np.minimum(price**self.use, _SHARED)
        others = [u for u in self.near[v] if self.chains[u]]
        if others:
            distance = self._distances(weight, others)
            # The root's own weight is in every way that leaves it, and counts once.
            root = self._least(distance.sum(0) - ((distance > 0).sum(0) - 1) * weight)
            self.chains[v] = {root}
            for number in range(len(others)):
                self._way(v, distance[number], root)
        else:
            r, c = np.indices(self.shape)
            away = np.hypot(r - self.middle[0], c - self.middle[1])
            self.chains[v] = {self._least(weight * (1e3 + away))}
        for cell in self.chains[v]:
            self.use[cell] += 1

    def _distances(self, weight: Array, others: list[int]) -> Array:
        """[others, rows, columns]: the least weight of a way to each one's chain, the cell's own included."""
        distance = np.full((len(others), *self.shape), _FAR)
        for number, u in enumerate(others):
            for cell in self.chains[u]:
                distance[(number, *cell)] = 0.0
        fixed = distance == 0
        while True:
            least = np.full_like(distance, _FAR)
            for r, c in self.offsets:
                here, there = _shifted(self.shape[0], r), _shifted(self.shape[1], c)
                target = least[:, here[0], there[0]]
                np.minimum(target, distance[:, here[1], there[1]], out=target)
            new = np.where(fixed, 0.0, np.minimum(distance, least + weight))
            if (new >= distance).all():
                return distance
            distance = new

    def _way(self, v: int, distance: Array, root: Cell) -> None:
        """Add the cells of a way from the root to a neighbour's chain, which it does not enter."""
        cell = root
        while distance[cell] > 0:
            self.chains[v].add(cell)
            steps = [(cell[0] + r, cell[1] + c) for r, c in self.offsets]
            inside = [s for s in steps if 0 <= s[0] < self.shape[0] and 0 <= s[1] < self.shape[1]]
            # What is this chain's already costs nothing more.
            cell = min(inside, key=lambda s: (distance[s], s not in self.chains[v]))

    def _least(self, cost: Array) -> Cell:
        """The cheapest cell; of several, one at random."""
        places = np.argwhere(cost <= cost.min() * (1 + 1e-9))
        row, column = places[self.random.integers(len(places))]
        return int(row), int(column)


def _shifted(size: int, step: int) -> tuple[slice, slice]:
    """Places of an axis, and those `step` further."""
    step = max(-size, min(size, step))
    return slice(max(0, -step), min(size, size - step)), slice(max(0, step), min(size, size + step))
