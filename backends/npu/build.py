"""From a logical graph to a checked program: depths, places, resources, routes, and the independent check of it all."""

from __future__ import annotations

from dataclasses import dataclass

from neuc.backends.npu.assign import assign_resources
from neuc.backends.npu.check.checker import check
from neuc.backends.npu.fastest_depths import fastest_depths
from neuc.backends.npu.graph_ir import checked
from neuc.backends.npu.interval import initiation_interval
from neuc.backends.npu.place.placer import Placement, place_design
from neuc.backends.npu.route.router import route_design
from neuc.errors import Error
from neuc.runtime.npu.deadlock import Verdict, diagnose_design
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import Design
from neuc.runtime.npu.simulator import with_depths


@dataclass(frozen=True)
class Built:
    """A program ready to run, how its placement was found, and what its depths had to become.

    ``interval`` is the initiation interval in cycles: how often an iteration can begin at most, and ``limiter`` what
    sets it. ``congestion`` is the largest share of the circuits between two tiles that is in use.
    """

    design: Design
    placement: Placement
    verdict: Verdict
    interval: float
    limiter: str
    congestion: float


def build(
    design: Design,
    machine: Machine,
    *,
    seconds: float | None = None,
    seed: int = 0,
    deepen: bool = True,
    fastest: bool = False,
) -> Built:
    """Place, route and check `design`.

    Args:
        design: a logical graph, with pins if the user wants any.
        machine: the array.
        seconds: time for the proof of the placement.
        seed: of annealing.
        deepen: enlarge depths where the graph would deadlock; else that is an error.
        fastest: choose depths with which the graph is as fast as memory permits, and no larger.

    Raises:
        Error: NEUC-E672 … E678, the graph is wrong or does not fit; NEUC-E679, it deadlocks.
    """
    verdict = diagnose_design(checked(design), machine) if design.sequence else Verdict(None, (), None)
    if verdict.hangs:
        if not deepen or verdict.cure is None:
            cure = "change rates: no depths cure it" if verdict.cure is None else "deepen the channels named"
            raise Error("NEUC-E679", f"{design.name} {verdict}", hint=cure)
        design = with_depths(design, verdict.cure)
    if fastest and design.sequence:
        design = with_depths(design, fastest_depths(design, machine).depths)
    placement = place_design(design, machine, seconds=seconds, seed=seed)
    routed = route_design(assign_resources(placement.design, machine), machine)
    check(routed, machine)
    interval, limiter = initiation_interval(routed, machine)
    return Built(routed, placement, verdict, interval, limiter, congestion(routed, machine))


def congestion(design: Design, machine: Machine) -> float:
    """The largest share of circuits in use between two neighbouring tiles."""
    used: dict[tuple[tuple[int, int], str], set[int]] = {}
    for route in design.routes:
        for c in route.connections:
            if c.target[0] in ("North", "South", "East", "West"):
                used.setdefault((c.tile, c.target[0]), set()).add(c.target[1])
    return max((len(lanes) / machine.lanes(*arc) for arc, lanes in used.items()), default=0.0)
