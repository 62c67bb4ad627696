"""`plan-memory`: gives every arena buffer of a `cpu.program` an offset, by liveness.

Buffers that are never live at the same time share a slot; launches without a barrier between them are one time. Sizes
are dim expressions, so offsets are too: a slot is as large as the largest of its buffers, and slots follow one another.
Which buffers share is decided at nominal symbol values; the result is right for all values.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass

from neuc.dialects.cpu import ProgramOp
from neuc.dialects.cpu_launch import BufferOp, LaunchOp
from neuc.dialects.dims import Dim

ALIGNMENT = 64
_NOMINAL = 48


@dataclass
class _Lifetime:
    buffer: BufferOp
    size: Dim
    nominal: int
    first: int
    last: int


@dataclass
class _Slot:
    size: Dim
    members: list[_Lifetime] = field(default_factory=list[_Lifetime])

    def is_free(self, wanted: _Lifetime) -> bool:
        return all(wanted.last < m.first or m.last < wanted.first for m in self.members)


@dataclass(frozen=True)
class PlanMemory(ModulePass):
    """Place arena buffers.

    1. A buffer is live from the first launch that names it to the last, and as long as launches concurrent with those.
       A loop is one time: what it writes in one step it may read in the next.
    2. Largest first (at nominal sizes), each goes into the first slot whose buffers it never meets, else a new slot.
    3. Slot offsets are the running sum of slot sizes, rounded up to 64 bytes; the program's `arena` is their total.

    ``%0 = cpu.buffer "arena" bytes "4*B"`` becomes ``%0 = cpu.buffer "arena" bytes "4*B" offset "0"``.
    """

    name = "plan-memory"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Place the buffers of every program of the module."""
        for program in op.ops:
            if isinstance(program, ProgramOp):
                plan_program(program)


def plan_program(program: ProgramOp) -> None:
    """Place the arena buffers of one program; replaces any earlier plan."""
    slots: list[_Slot] = []
    for lifetime in sorted(_lifetimes(program), key=lambda x: (-x.nominal, x.first)):
        slot = next((s for s in slots if s.is_free(lifetime)), None)
        if slot is None:
            slot = _Slot(lifetime.size)
            slots.append(slot)
        else:
            slot.size = slot.size.maximum(lifetime.size)
        slot.members.append(lifetime)
    offset = Dim.of(0)
    for slot in slots:
        for member in slot.members:
            member.buffer.properties["offset"] = StringAttr(str(offset))
        offset = offset + slot.size.ceildiv(ALIGNMENT) * ALIGNMENT
    program.properties["arena"] = StringAttr(str(offset))


def _lifetimes(program: ProgramOp) -> list[_Lifetime]:
    found: dict[BufferOp, _Lifetime] = {}
    time, loop = 0, None
    for launch in program.body.block.ops:
        if not isinstance(launch, LaunchOp):
            continue
        time += launch.loop != loop if launch.loop is not None else launch.concurrent is None
        loop = launch.loop
        for value in launch.buffers:
            buffer = value.owner
            if not isinstance(buffer, BufferOp) or buffer.kind.data != "arena":
                continue
            if buffer in found:
                found[buffer].last = time
                continue
            size = Dim.parse(buffer.nbytes.data)
            nominal = size.evaluate(dict.fromkeys(size.symbols, _NOMINAL))
            found[buffer] = _Lifetime(buffer, size, nominal, time, time)
    for op in program.body.block.ops:
        if isinstance(op, BufferOp) and op.kind.data == "arena" and op not in found:
            op.properties["offset"] = StringAttr("0")
    return list(found.values())
