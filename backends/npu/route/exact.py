"""Routing as a constraint program: finds trees for all nets, or proves that there are none (OR-tools CP-SAT).

For each net and consumer a unit of flow over arcs; an arc a net uses counts once against its capacity, whatever passes
through for how many of the net's consumers.
"""

from __future__ import annotations

from collections.abc import Mapping

from neuc.backends.npu.route.fabric import Arc, Net, Tree, beyond
from neuc.errors import Error
from neuc.runtime.npu.machine import OPPOSITE, SIDES, Machine, Tile


def solve_routes(
    nets: list[Net], machine: Machine, arcs: Mapping[Arc, int], *, seconds: float
) -> dict[str, Tree] | None:
    """A tree for each net; None if it is proven that there are none.

    Raises:
        Error: NEUC-E682, OR-tools is not installed; NEUC-E676, the time was too short to find out.
    """
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise Error("NEUC-E682", "exact routing needs OR-tools", hint='pip install "neuc[npu]"') from error
    model = cp_model.CpModel()
    used = {(net.channel, arc): model.new_bool_var("") for net in nets for arc in arcs}
    for arc, capacity in arcs.items():
        model.add(sum(used[net.channel, arc] for net in nets) <= capacity)
    tiles = sorted({arc[0] for arc in arcs} | {beyond(arc) for arc in arcs})
    for net in nets:
        for sink in sorted({tile for tile, _ in net.sinks} - {net.source[0]}):
            flow = {arc: model.new_bool_var("") for arc in arcs}
            for arc, var in flow.items():
                model.add_implication(var, used[net.channel, arc])
            for tile in tiles:
                out = sum(var for arc, var in flow.items() if arc[0] == tile)
                into = sum(var for arc, var in flow.items() if beyond(arc) == tile)
                model.add(out - into == (tile == net.source[0]) - (tile == sink))
        _keep_tree(model, net, used, arcs, tiles, machine)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 2
    status = solver.solve(model)
    if status == cp_model.INFEASIBLE:
        return None
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        raise Error("NEUC-E676", f"no routes found in {seconds:g} s", hint="fewer or shorter channels")
    return {
        net.channel: _pruned(net, {arc for arc in arcs if solver.boolean_value(used[net.channel, arc])}) for net in nets
    }


def _keep_tree(model, net: Net, used, arcs: Mapping[Arc, int], tiles: list[Tile], machine: Machine) -> None:
    """A net enters a tile at most once, never turns back, and goes straight through memory tiles."""
    for tile in tiles:
        into = [arc for arc in arcs if beyond(arc) == tile]
        model.add(sum(used[net.channel, arc] for arc in into) <= (tile != net.source[0]))
        for arc in into:
            for side in SIDES:
                leave = (tile, side)
                if leave not in arcs:
                    continue
                back = side == OPPOSITE[arc[1]]
                turned = machine.tile_class(tile).straight_only and side != arc[1]
                if back or turned:
                    model.add(used[net.channel, arc] + used[net.channel, leave] <= 1)


def _pruned(net: Net, arcs: set[Arc]) -> Tree:
    """The arcs that lead to consumers: the solver may leave others on when its time is up."""
    into = {beyond(arc): arc for arc in arcs}
    kept: set[Arc] = set()
    for tile, _ in net.sinks:
        while tile != net.source[0]:
            arc = into[tile]
            kept.add(arc)
            tile = arc[0]
    return frozenset(kept)
