"""Passes on `npu.graph`: depths, places, resources, routes, the check; each step visible in IR and editable between.

The algorithms work on designs (`graph_ir.py`); a pass reads a graph, runs one, and puts the new graph in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from neuc.backends.npu.assign import assign_resources
from neuc.backends.npu.check.checker import check
from neuc.backends.npu.fastest_depths import fastest_depths
from neuc.backends.npu.graph_ir import design_of, graph_of
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.place.placer import place_design
from neuc.backends.npu.route.router import route_design
from neuc.dialects.npu import GraphOp
from neuc.errors import Error
from neuc.passes.module_facts import add_notes
from neuc.runtime.npu.deadlock import diagnose_design
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import Design
from neuc.runtime.npu.simulator import with_depths


def _each_graph(module: ModuleOp, change: Callable[[Design, Machine], Design]) -> None:
    """Replace every graph of the module by what `change` makes of it."""
    for graph in [op for op in module.walk() if isinstance(op, GraphOp)]:
        design = change(design_of(graph), find_machine(graph.machine.data))
        replaced = graph_of(design)
        replaced.location = graph.location
        Rewriter.replace_op(graph, replaced, [])


@dataclass(frozen=True)
class SizeBuffers(ModulePass):
    """Deepen channels and links until tokens no longer get stuck (cyclo-static dataflow, run without values).

    The fewest added buffers that do, searched in the circle of waiting; a graph without a host sequence stays as it is.

    Options:
        fastest: then make depths such that no others are faster, as far as memory goes, and none is larger than needed.
    """

    name = "size-buffers"
    fastest: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""

        def change(design: Design, machine: Machine) -> Design:
            verdict = diagnose_design(design, machine) if design.sequence else None
            if verdict is None:
                return design
            if verdict.hangs and verdict.cure is None:
                raise Error("NEUC-E679", f"{design.name} {verdict}", hint="change rates: no depths cure it")
            if verdict.cure:
                add_notes(op, f"{design.name}: {', '.join(f'{k} deepened to {v}' for k, v in verdict.cure.items())}")
                design = with_depths(design, verdict.cure)
            if not self.fastest:
                return design
            found = fastest_depths(design, machine)
            changed = ", ".join(f"{name} {depth}" for name, depth in found.depths.items()) or "none changes"
            add_notes(op, f"{design.name}: depths for speed: {changed}; {found.before:g} to {found.after:g} cycles")
            return with_depths(design, found.depths)

        _each_graph(op, change)


@dataclass(frozen=True)
class PlaceDataflow(ModulePass):
    """Give every kernel, link and port a tile, with a bound on what is possible.

    Least initiation interval, then congestion, then bytes x hops, then tiles. Exact (OR-tools CP-SAT) where the time
    allows; annealing from the better of two plain placements otherwise.

    Options:
        seconds: time for placement and proof; 0 lets the size of the array decide.
        seed: of annealing.
        prove: use OR-tools if it is installed.
    """

    name = "place-dataflow"
    seconds: int = 0
    seed: int = 0
    prove: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""

        def change(design: Design, machine: Machine) -> Design:
            placed = place_design(design, machine, seconds=self.seconds or None, seed=self.seed, prove=self.prove)
            add_notes(op, f"{design.name}: {placed.summary()}")
            return placed.design

        _each_graph(op, change)


@dataclass(frozen=True)
class AssignDataflow(ModulePass):
    """Give a placed graph's pools addresses and locks, and its channels DMA channels and buffer descriptors."""

    name = "assign-dataflow"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        _each_graph(op, assign_resources)


@dataclass(frozen=True)
class RouteDataflow(ModulePass):
    """Give every channel circuits through the switches: negotiated, or exact where negotiation fails."""

    name = "route-dataflow"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        _each_graph(op, route_design)


@dataclass(frozen=True)
class CheckDataflow(ModulePass):
    """Refuse a graph that breaks a rule of its machine; the checker shares no code with the passes before it."""

    name = "check-dataflow"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        for graph in [part for part in op.walk() if isinstance(part, GraphOp)]:
            check(design_of(graph), find_machine(graph.machine.data))
