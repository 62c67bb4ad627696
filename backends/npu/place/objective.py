"""What a placement is judged by, in this order: initiation interval, congestion, bytes x hops, tiles.

Congestion is the most circuits on one way between two tiles when every channel goes by dimension order: along the row,
then along the column. Routes are chosen later (`route`), which begins with what this rule needs. Channels between
neighbours that see one pool need neither DMA nor circuit, which is why places change the interval.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from neuc.backends.npu.place.problem import Problem, can_share
from neuc.backends.npu.route.fabric import Arc
from neuc.runtime.npu.machine import Machine, Tile


class Score(NamedTuple):
    """Figures of a placement, or bounds of them, the most important first; smaller is better, compared in order.

    ``interval`` in cycles an iteration, ``congestion`` in circuits, ``hops`` in bytes x tiles an iteration.
    """

    interval: float
    congestion: int
    hops: int
    tiles: int


def score(problem: Problem, places: Mapping[str, Tile]) -> Score:
    """The figures of a placement, legal or not."""
    return Score(
        interval(problem, places),
        max(circuits_by_arc(problem, places).values(), default=0),
        problem.cost(places) * problem.unit,
        len(set(places.values())),
    )


def interval(problem: Problem, places: Mapping[str, Tile]) -> float:
    """Cycles between iterations: the busiest core, host memory, or DMA of a channel that is not shared."""
    loads = [problem.loads[w.channel] for w in problem.wires if w.channel in problem.loads]
    if not loads or max(loads) <= problem.floor:
        return problem.floor
    reach = problem.reach
    return max(
        [
            problem.floor,
            *(
                problem.loads[w.channel]
                for w in problem.wires
                if w.shareable and not can_share(places[w.source], places[w.target], reach)
            ),
        ]
    )


def circuits_by_arc(problem: Problem, places: Mapping[str, Tile]) -> Counter[Arc]:
    """How many channels leave each tile on each side; a broadcast counts once where its ways are the same."""
    ways: dict[str, set[Arc]] = defaultdict(set)
    for wire in problem.wires:
        a, b = places[wire.source], places[wire.target]
        if not (wire.shareable and can_share(a, b, problem.reach)):
            ways[wire.channel].update(dimension_ordered(a, b, problem.machine))
    return Counter(arc for arcs in ways.values() for arc in arcs)


def crossing_row(a: int, b: int, machine: Machine) -> int:
    """The row in which a circuit from a tile of row `a` to one of row `b` changes columns.

    The first row, if its switches have ways to the side; memory tiles have none, so that the circuit turns where it
    arrives, or in the row above if both ends are memory tiles.
    """
    return next((row for row in (a, b, min(a, b) + 1) if row < machine.rows and _has_sides(row, machine)), min(a, b))


def _has_sides(row: int, machine: Machine) -> bool:
    cls = machine.classes[machine.row_classes[row]]
    return not cls.straight_only and cls.ports.get("East", (0, 0))[0] > 0


def dimension_ordered(a: Tile, b: Tile, machine: Machine) -> list[Arc]:
    """The arcs of a circuit from `a` to `b`."""
    across = a[1] if a[0] == b[0] else crossing_row(a[1], b[1], machine)
    found: list[Arc] = _column(a[0], a[1], across)
    side, step = ("East", 1) if a[0] < b[0] else ("West", -1)
    found += [((col, across), side) for col in range(a[0], b[0], step)]
    return found + _column(b[0], across, b[1])


def _column(col: int, start: int, stop: int) -> list[Arc]:
    side, step = ("North", 1) if start < stop else ("South", -1)
    return [((col, row), side) for row in range(start, stop, step)]
