"""`route_design`: circuits for every channel: negotiated first, exactly where that fails."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from neuc.backends.npu.place.exact import have_solver
from neuc.backends.npu.route.exact import solve_routes
from neuc.backends.npu.route.fabric import Arc, Net, arcs_of, circuits, nets_of
from neuc.backends.npu.route.pathfinder import negotiate
from neuc.errors import Error
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import Design

_SECONDS = 20.0


def route_design(design: Design, machine: Machine) -> Design:
    """`design`, whose DMA ends are assigned, with a tree of circuits for each channel.

    Raises:
        Error: NEUC-E676, there are no routes; the message names the arcs that too many channels would need.
    """
    nets, arcs = nets_of(design), arcs_of(machine)
    trees = negotiate(nets, machine, arcs)
    if trees is None and have_solver():
        trees = solve_routes(nets, machine, arcs, seconds=_SECONDS)
    if trees is None:
        raise Error(
            "NEUC-E676",
            f"{design.name}: {_crowded(nets, arcs)}",
            hint="spread kernels, or join channels in memory tiles",
        )
    return replace(design, routes=circuits(nets, trees, machine))


def _crowded(nets: list[Net], arcs: dict[Arc, int]) -> str:
    """Where the circuits run out, as far as counting shows."""
    leaving: Counter[tuple[int, int]] = Counter()
    for net in nets:
        for tile in {sink for sink, _ in net.sinks} | {net.source[0]}:
            leaving[tile] += 1
    tile, count = leaving.most_common(1)[0] if leaving else ((0, 0), 0)
    lanes = sum(lanes for arc, lanes in arcs.items() if arc[0] == tile)
    return f"no routes for {len(nets)} channels; most meet at tile {tile}: {count} channels, {lanes} circuits out of it"
