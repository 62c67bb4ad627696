"""The fabric routes run on: arcs between neighbouring tiles, and how trees of arcs become circuits in switches.

Circuits between two tiles are alike, so trees are searched over arcs with capacities. Only memory tiles tell them
apart, passing North and South at equal numbers: what passes through gets its number first, which always works out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from neuc.runtime.npu.machine import OPPOSITE, SIDES, Machine, Tile
from neuc.runtime.npu.program import Connection, Design, Route

Arc: TypeAlias = tuple[Tile, str]
"""Out of a tile towards a side."""
Tree: TypeAlias = frozenset[Arc]


@dataclass(frozen=True)
class Net:
    """What has to be connected for one channel: DMA ends as (tile, channel number)."""

    channel: str
    source: tuple[Tile, int]
    sinks: tuple[tuple[Tile, int], ...]


def nets_of(design: Design) -> list[Net]:
    """The nets of a design with DMA ends; channels in shared memory have none."""
    nets: list[Net] = []
    for channel in design.channels:
        ends = [end for end in design.dmas if end.channel == channel.name]
        source = [(end.tile, end.index) for end in ends if end.direction == "mm2s"]
        if source:
            nets.append(Net(channel.name, source[0], tuple((e.tile, e.index) for e in ends if e.direction == "s2mm")))
    return nets


def beyond(arc: Arc) -> Tile:
    """The tile an arc leads to."""
    (col, row), side = arc
    return (col + SIDES[side][0], row + SIDES[side][1])


def arcs_of(machine: Machine) -> dict[Arc, int]:
    """Every arc of the array with the circuits it has."""
    tiles = [(c, r) for c in range(machine.cols) for r in range(machine.rows)]
    found = {(tile, side): machine.lanes(tile, side) for tile in tiles for side in SIDES}
    return {arc: lanes for arc, lanes in found.items() if lanes}


def circuits(nets: list[Net], trees: Mapping[str, Tree], machine: Machine) -> tuple[Route, ...]:
    """Number the circuits of every tree and write down each switch's connections."""
    numbers = _number(nets, trees, machine)
    routes: list[Route] = []
    for net in nets:
        tree = trees[net.channel]
        into = {beyond(arc): arc for arc in tree}
        out: dict[Tile, list[tuple[str, int]]] = defaultdict(list)
        for arc in sorted(tree):
            out[arc[0]].append((arc[1], numbers[net.channel, arc]))
        for tile, index in net.sinks:
            out[tile].append(("DMA", index))
        connections: list[Connection] = []
        for tile in sorted(out):
            arc = into.get(tile)
            source = ("DMA", net.source[1]) if arc is None else (OPPOSITE[arc[1]], numbers[net.channel, arc])
            connections += [Connection(tile, source, target) for target in out[tile]]
        routes.append(Route(net.channel, tuple(connections)))
    return tuple(routes)


def _number(nets: list[Net], trees: Mapping[str, Tree], machine: Machine) -> dict[tuple[str, Arc], int]:
    numbers: dict[tuple[str, Arc], int] = {}
    used: dict[Arc, set[int]] = defaultdict(set)

    def give(channel: str, arcs: list[Arc]) -> None:
        index = next(i for i in range(64) if all(i not in used[arc] for arc in arcs))
        for arc in arcs:
            used[arc].add(index)
            numbers[channel, arc] = index

    for net in nets:
        tree = trees[net.channel]
        for tile in sorted({beyond(arc) for arc in tree}):
            if not machine.tile_class(tile).straight_only:
                continue
            arrives = [arc for arc in tree if beyond(arc) == tile]
            leaves = [arc for arc in tree if arc[0] == tile]
            if leaves:
                give(net.channel, [*arrives, *leaves])
    for net in nets:
        for arc in sorted(trees[net.channel]):
            if (net.channel, arc) not in numbers:
                give(net.channel, [arc])
    return numbers


def passes(machine: Machine, tile: Tile, arrived: str | None, leaves: str) -> bool:
    """Whether a circuit that came in from side `arrived` (None: it starts here) may leave towards `leaves`."""
    if arrived is None:
        return True
    if arrived == leaves:
        return False
    return not machine.tile_class(tile).straight_only or leaves == OPPOSITE[arrived]
