"""A graph drawn beside its list of nodes, one row a node: values are rails that run down to their last reader.

Where a rail lies is found here, and each row's piece of the drawing is made as SVG; the list is `page.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from neuc.compiler.inspection.graph import Graph

LANE, ROW = 11, 24
"""Pixels between two rails, and from row to row."""
MOST_LANES = 24
"""Rails that are drawn; what lies further right is left out."""
COLOURS = 6
"""How many colours rails take turns in (classes `r0` … of the style sheet)."""


@dataclass(frozen=True)
class Row:
    """What passes through one row.

    Attributes:
        lane: the node's own rail.
        passing: rails that go on below, whatever happens here.
        joining: rails that the node reads from.
        below: rails that go on below the row.
    """

    lane: int
    passing: tuple[int, ...]
    joining: tuple[int, ...]
    below: tuple[int, ...]


def lay_out(graph: Graph) -> list[Row]:
    """A row for each node, in order; a rail is free again below its last reader."""
    index = {node.id: i for i, node in enumerate(graph.nodes)}
    last = {node: max((index[reader] for reader in readers), default=-1) for node, readers in graph.consumers().items()}
    lanes: dict[str, int] = {}
    rows: list[Row] = []
    for i, node in enumerate(graph.nodes):
        joining = tuple(lanes[producer] for producer in node.producers)
        ending = [producer for producer in node.producers if last[producer] == i]
        passing = tuple(lane for producer, lane in lanes.items() if last[producer] != i)
        own = lanes[ending[0]] if ending else _free(lanes.values())
        for producer in ending:
            del lanes[producer]
        if last[node.id] >= 0:
            lanes[node.id] = own
        rows.append(Row(own, passing, joining, tuple(lanes.values())))
    return rows


def _free(taken: Iterable[int]) -> int:
    used = set(taken)
    return next(lane for lane in range(len(used) + 1) if lane not in used)


def width(rows: Sequence[Row]) -> int:
    """Pixels the widest row takes."""
    widest = max((max((row.lane, *row.below), default=0) for row in rows), default=0)
    return (min(widest + 1, MOST_LANES) + 1) * LANE


def row_svg(row: Row, pixels: int) -> str:
    """The drawing of one row."""
    middle, x = ROW // 2, _x(row.lane)
    lines: dict[int, list[str]] = {}
    for lane in row.passing:
        _draw(lines, lane, f"M{_x(lane)} 0V{ROW}")
    for lane in row.joining:
        curve = f"V{middle}" if lane == row.lane else f"C{_x(lane)} {middle} {_x(lane)} {middle} {x} {middle}"
        _draw(lines, lane, f"M{_x(lane)} 0{curve}")
    if row.lane in row.below:
        _draw(lines, row.lane, f"M{x} {middle}V{ROW}")
    dot = f'<circle class="r{row.lane % COLOURS}" cx="{x}" cy="{middle}" r="4"/>' if row.lane < MOST_LANES else ""
    return f'<svg class="rails" width="{pixels}" height="{ROW}">{_paths(lines)}{dot}</svg>'


def stretched_svg(row: Row, pixels: int) -> str:
    """The rails below a row, for a box of any height."""
    lines: dict[int, list[str]] = {}
    for lane in row.below:
        _draw(lines, lane, f"M{_x(lane)} 0V9")
    return (
        f'<svg class="rails" width="{pixels}" height="100%" viewBox="0 0 {pixels} 9" preserveAspectRatio="none">'
        f"{_paths(lines)}</svg>"
    )


def _x(lane: int) -> int:
    return LANE * (lane + 1)


def _draw(lines: dict[int, list[str]], lane: int, path: str) -> None:
    if lane < MOST_LANES:
        lines.setdefault(lane % COLOURS, []).append(path)


def _paths(lines: dict[int, list[str]]) -> str:
    return "".join(f'<path class="r{colour}" d="{"".join(paths)}"/>' for colour, paths in sorted(lines.items()))
