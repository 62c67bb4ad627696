"""`note-spike-code`: which code each loop of a spiking network gets, and why, for the report.

Nothing is chosen here: `lowerings/spike_plan.py` does, when `lower-to-cpu` asks it, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from neuc.backends.cpu.lowerings.spike_plan import (
    Fire,
    Gather,
    LoopPlan,
    ReadOut,
    Scatter,
    Stacked,
    Stage,
    plan_loop,
)
from neuc.backends.cpu.lowerings.spike_windows import choose_conv
from neuc.dialects import spike
from neuc.dialects.locations import node_names
from neuc.passes.module_facts import add_notes


@dataclass(frozen=True)
class NoteSpikeCode(ModulePass):
    """Say how each `spike.loop` will run.

    1. A loop without feedback: each of its layers, with the kernel it gets and the rate that decides for convolutions
       (the attribute `spike.rate`, or 0.15 where there is none).
    2. Any other: that it runs step by step, and what feeds back.

    Before and after::

        module { … spike.loop … }
        module attributes {neuc.notes = ["4 time steps layer by layer: neurons if; …"]} { … spike.loop … }
    """

    name = "note-spike-code"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Add the notes to the module."""
        add_notes(op, *(_note(loop) for loop in op.walk() if isinstance(loop, spike.LoopOp)))


def _note(loop: spike.LoopOp) -> str:
    plan = plan_loop(loop)
    steps = f"{loop.step_count} time step{'s' if loop.step_count != 1 else ''}"
    if not isinstance(plan, LoopPlan):
        return f"{steps} one after the other, as {plan}"
    said = [text for stage in plan.stages if (text := _stage(stage)) is not None]
    return f"{steps} layer by layer: {'; '.join(said)}"


def _stage(stage: Stage) -> str | None:
    """What a stage does; None of those that only prepare."""
    match stage:
        case Fire(cell):
            return f"{_named(cell.op)} neurons over all steps"
        case Gather(op):
            return f"{_named(op)} by rows of active neurons"
        case ReadOut(op):
            return f"{_named(op)} once, on sums over time"
        case Scatter(op):
            return f"{_named(op)} {choose_conv(op).why}"
        case Stacked(op):
            why = f" {choose_conv(op).why}" if isinstance(op, spike.ConvOp) else ""
            return f"{_named(op)}{why}, steps as samples"
        case _:
            return None


def _named(op: Operation) -> str:
    names = " + ".join(node_names(op))
    return f"{names} ({op.name})" if names else op.name
