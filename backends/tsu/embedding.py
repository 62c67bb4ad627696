"""Which cell of a chip's grid each spin of a model takes, such that every coupling is a wire; or why there is none.

Each spin takes one cell; `chains.py` has several cells stand for one. Plain data, no IR.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from neuc.backends.tsu.machines import Machine
from neuc.errors import Error

Array = np.ndarray
Cell = tuple[int, int]

SEARCH_STEPS = 40_000
"""Cells tried before a search gives up; such a model may still have a placement."""
_SHOWN = 8


def embed(count: int, edges: Array, machine: Machine, name: Callable[[int], str], start: Array | None = None) -> Array:
    """Cells i32 [count, 2] of the spins, row and column.

    Args:
        count: spins.
        edges: pairs of coupled spins [E, 2].
        machine: the chip.
        name: what to call a spin in a message.
        start: cells to try first, such as the places of a grid.

    Raises:
        Error: NEUC-E637, with the spins that do not fit.
    """
    pairs = np.unique(np.sort(edges, 1), axis=0) if len(edges) else np.empty((0, 2), np.int64)
    near: list[list[int]] = [[] for _ in range(count)]
    for a, b in pairs.tolist():
        near[a].append(b)
        near[b].append(a)
    _check(count, near, machine, name)
    if start is not None and _fits(start, pairs, machine):
        return start.astype(np.int32)
    return _search(near, machine, name)


def _check(count: int, near: Sequence[Sequence[int]], machine: Machine, name: Callable[[int], str]) -> None:
    """What no placement can help: too many spins, too many neighbours, odd cycles."""
    cells = machine.rows * machine.columns
    if count > cells:
        raise _refusal(f"{count} spins for {cells} cells", "a larger grid, or fewer spins")
    wide = [spin for spin in range(count) if len(near[spin]) > machine.degree]
    if wide:
        shown = ", ".join(f"{name(s)} has {len(near[s])}" for s in wide[:_SHOWN])
        more = f", and {len(wide) - _SHOWN} more" if len(wide) > _SHOWN else ""
        what = f"spins have more neighbours than the {machine.degree} that {machine.name} wires: {shown}{more}"
        raise _refusal(what, "couple fewer spins: chains of cells stand for those of small models alone")
    cycle = odd_cycle(near)
    if cycle:
        shown = ", ".join(map(name, cycle[:_SHOWN])) + (" …" if len(cycle) > _SHOWN else "")
        what = f"the grid is bipartite and the model is not: {shown} are an odd cycle of {len(cycle)}"
        raise _refusal(what, "cut one coupling of every odd cycle, or use target cpu-relax")


def odd_cycle(near: Sequence[Sequence[int]]) -> list[int]:
    """A cycle of odd length, spin by spin; empty if the graph is bipartite."""
    color, parent = [-1] * len(near), [-1] * len(near)
    for root in range(len(near)):
        if color[root] >= 0:
            continue
        color[root], queue = 0, [root]
        for spin in queue:
            for other in near[spin]:
                if color[other] < 0:
                    color[other], parent[other] = 1 - color[spin], spin
                    queue.append(other)
                elif color[other] == color[spin]:
                    return _joined(_ancestors(spin, parent), _ancestors(other, parent))
    return []


def _ancestors(spin: int, parent: Sequence[int]) -> list[int]:
    found = [spin]
    while parent[found[-1]] >= 0:
        found.append(parent[found[-1]])
    return found


def _joined(first: list[int], second: list[int]) -> list[int]:
    """Two ways up to a common ancestor as one cycle."""
    common = next(spin for spin in first if spin in set(second))
    return first[: first.index(common) + 1] + second[: second.index(common)][::-1]


def _fits(cells: Array, pairs: Array, machine: Machine) -> bool:
    inside = ((cells >= 0) & (cells < (machine.rows, machine.columns))).all()
    wires = set(machine.offsets)
    steps = cells[pairs[:, 1]] - cells[pairs[:, 0]]
    return bool(inside) and all((int(r), int(c)) in wires for r, c in np.unique(steps, axis=0))


def _search(near: Sequence[Sequence[int]], machine: Machine, name: Callable[[int], str]) -> Array:
    """Spin after spin, each next to those that are placed, with steps back where nothing is left.

    Next comes who has most placed neighbours; its cells are those wired to all of them, nearest to the middle first.
    """
    order = _connected_order(near)
    taken: dict[Cell, int] = {}
    cells: dict[int, Cell] = {}
    middle = (machine.rows // 2, machine.columns // 2)
    choices: list[list[Cell]] = [_candidates(order[0], near, cells, taken, machine, middle)]
    steps, deepest = 0, 0
    while choices:
        at = len(choices) - 1
        deepest, steps = max(deepest, at), steps + 1
        if steps > SEARCH_STEPS + len(order):
            break
        if not choices[at]:
            choices.pop()
            if at:
                del taken[cells.pop(order[at - 1])]
            continue
        cell = choices[at].pop()
        cells[order[at]], taken[cell] = cell, order[at]
        if len(cells) == len(order):
            return np.array([cells[spin] for spin in range(len(order))], np.int32)
        choices.append(_candidates(order[at + 1], near, cells, taken, machine, middle))
    proven = "there is none" if not choices else f"none was found in {SEARCH_STEPS} steps, which proves nothing"
    stuck = order[min(deepest, len(order) - 1)]
    neighbours = ", ".join(name(spin) for spin in near[stuck][:_SHOWN])
    what = f"no cells of {machine.name} for the model: {proven}; {name(stuck)} beside {neighbours} was the last placed"
    raise _refusal(what, "give the model the grid's own shape (Model.grid with open borders), or use target cpu-relax")


def _connected_order(near: Sequence[Sequence[int]]) -> list[int]:
    """All spins, each with as many as possible of its neighbours before it."""
    import heapq

    placed, before, order = [False] * len(near), [0] * len(near), list[int]()
    for root in sorted(range(len(near)), key=lambda s: -len(near[s])):
        heap = [] if placed[root] else [(0, -len(near[root]), root)]
        while heap:
            _, _, spin = heapq.heappop(heap)
            if placed[spin]:
                continue
            placed[spin] = True
            order.append(spin)
            for other in near[spin]:
                before[other] += 1
                if not placed[other]:
                    heapq.heappush(heap, (-before[other], -len(near[other]), other))
    return order


def _candidates(
    spin: int,
    near: Sequence[Sequence[int]],
    cells: dict[int, Cell],
    taken: dict[Cell, int],
    machine: Machine,
    middle: Cell,
) -> list[Cell]:
    """Free cells wired to those of all placed neighbours, the best last."""
    anchors = [cells[other] for other in near[spin] if other in cells]
    if anchors:
        found = {(anchors[0][0] + r, anchors[0][1] + c) for r, c in machine.offsets}
        for row, column in anchors[1:]:
            found &= {(row + r, column + c) for r, c in machine.offsets}
        inside = [c for c in found if 0 <= c[0] < machine.rows and 0 <= c[1] < machine.columns and c not in taken]
    else:
        # A part of its own goes to the free cell nearest the middle; one of each colour is choice enough.
        inside = _nearest_free(taken, machine, middle)
    return sorted(inside, key=lambda c: (-abs(c[0] - middle[0]) - abs(c[1] - middle[1]), c))


def _nearest_free(taken: dict[Cell, int], machine: Machine, middle: Cell) -> list[Cell]:
    for radius in range(machine.rows + machine.columns):
        ring = {
            (middle[0] + r, middle[1] + sign * (radius - abs(r)))
            for r in range(-radius, radius + 1)
            for sign in (1, -1)
        }
        free = [c for c in ring if 0 <= c[0] < machine.rows and 0 <= c[1] < machine.columns and c not in taken]
        if free:
            return free[:1]
    return []


def _refusal(what: str, hint: str) -> Error:
    return Error("NEUC-E637", what, hint=hint)
