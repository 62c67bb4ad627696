"""`route_design`: circuits for every channel: negotiated first, exactly where that fails.

Ways first have as many circuits as the fullest one needs when all channels go by dimension order: that is what the
placement was chosen for. Only if that is too narrow all circuits of the array are offered.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from neuc.backends.npu.place.exact import have_solver
from neuc.backends.npu.place.objective import dimension_ordered
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
    trees = negotiate(nets, machine, _planned(nets, arcs, machine)) or negotiate(nets, machine, arcs)
    if trees is None and have_solver():
        trees = solve_routes(nets, machine, arcs, seconds=_SECONDS)
    if trees is None:
        raise Error(
            "NEUC-E676",
            f"{design.name}: {_crowded(nets, arcs)}",
            hint="spread kernels, or join channels in memory tiles",
        )
    return replace(design, routes=circuits(nets, trees, machine))


def _planned(nets: list[Net], arcs: dict[Arc, int], machine: Machine) -> dict[Arc, int]:
    used: Counter[Arc] = Counter()
    for net in nets:
        used.update({arc for tile, _ in net.sinks for arc in dimension_ordered(net.source[0], tile, machine)})
    most = max(used.values(), default=0)
    return {arc: min(lanes, most) for arc, lanes in arcs.items()}


def _crowded(nets: list[Net], arcs: dict[Arc, int]) -> str:
    """Where the circuits run out, as far as counting shows."""
    leaving: Counter[tuple[int, int]] = Counter()
    for net in nets:
        for tile in {sink for sink, _ in net.sinks} | {net.source[0]}:
            leaving[tile] += 1
    tile, count = leaving.most_common(1)[0] if leaving else ((0, 0), 0)
    lanes = sum(lanes for arc, lanes in arcs.items() if arc[0] == tile)
    return f"no routes for {len(nets)} channels; most meet at tile {tile}: {count} channels, {lanes} circuits out of it"
