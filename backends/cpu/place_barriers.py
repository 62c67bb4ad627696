"""`place-barriers`: which launches of a `cpu.program` all threads must meet before, and which may overlap.

Only what launches read and write decides; where arena buffers lie comes later, and `plan-memory` keeps apart what
launches between two barriers use.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, UnitAttr
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from neuc.dialects.cpu import ProgramOp
from neuc.dialects.cpu_launch import BufferOp, LaunchOp


@dataclass(frozen=True)
class PlaceBarriers(ModulePass):
    """Let launches that do not depend on each other run without a barrier between them.

    1. A launch is `concurrent` if nothing it reads is written, and nothing it writes is read or written, by the
       launches since the last one that is not.
    2. A kernel whose writes are not known writes all its buffers but weights.
    3. An output over an input counts as the same buffer.
    4. The first launch of a loop is not concurrent, nor is the first one behind it.

    ``cpu.launch @k(%x, %w, out %q) …  cpu.launch @k(%x, %v, out %k) …`` becomes
    ``cpu.launch @k(%x, %w, out %q) …  cpu.launch @k(%x, %v, out %k) … concurrent``.
    """

    name = "place-barriers"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Mark the launches of every program of the module."""
        for program in op.ops:
            if isinstance(program, ProgramOp):
                place_barriers(program)


@dataclass
class _Stretch:
    """What the launches since the last barrier touch."""

    touched: set[SSAValue] = field(default_factory=set[SSAValue])
    written: set[SSAValue] = field(default_factory=set[SSAValue])

    def conflicts(self, touched: Set[SSAValue], written: Set[SSAValue]) -> bool:
        return not self.written.isdisjoint(touched) or not self.touched.isdisjoint(written)

    def add(self, touched: Set[SSAValue], written: Set[SSAValue]) -> None:
        self.touched.update(touched)
        self.written.update(written)


def place_barriers(program: ProgramOp) -> None:
    """Mark the launches of one program; replaces earlier marks, and asks for a new memory plan."""
    stretch, one, loop = _Stretch(), _in_place(program), None
    for index, launch in enumerate(op for op in program.body.block.ops if isinstance(op, LaunchOp)):
        touched = {one.get(buffer, buffer) for buffer in launch.buffers}
        written = {one.get(buffer, buffer) for buffer in launch.written()}
        launch.properties.pop("concurrent", None)
        if index and launch.loop == loop and not stretch.conflicts(touched, written):
            launch.properties["concurrent"] = UnitAttr()
        else:
            stretch = _Stretch()
        stretch.add(touched, written)
        loop = launch.loop


def _in_place(program: ProgramOp) -> dict[SSAValue, SSAValue]:
    """The input of each output that is over one."""
    buffers = [op for op in program.body.block.ops if isinstance(op, BufferOp) and op.index is not None]
    inputs = {op.index.value.data: op.result for op in buffers if op.index is not None and op.kind.data == "input"}
    return {op.result: inputs[op.over.value.data] for op in buffers if op.over is not None}
