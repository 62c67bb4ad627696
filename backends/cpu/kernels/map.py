"""Element-wise kernels, generated from a scalar body."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.map_body import F32_EMITTERS, Instr, emit_body
from neuc.backends.cpu.kernels.strided import Args, chunks, chunks_wide, load_elements, rows, store_elements

WIDE_BODY = 8
"""Instructions up to which a body is run on four vectors at a time: all loads before the stores, and less counting."""


@dataclass(frozen=True)
class MapKernel(KernelSpec):
    """``target[i] = body(operand 0 at i, …)`` over a space of `rank` dims; the target is contiguous.

    Slots: the operands, target, `rank` dims, then for each operand its `rank` strides (elements). Work: the elements.

    Attributes:
        inputs: dtypes of the operands.
        output: dtype of the target.
        body: the instructions.
        result: number of the value that is stored.
        rank: dims of the (collapsed) space.
        inner: each operand's innermost stride: ``unit``, ``zero`` or ``any``.
    """

    inputs: tuple[str, ...]
    output: str
    body: tuple[Instr, ...]
    result: int
    rank: int
    inner: tuple[str, ...]

    family = "map"

    @property
    def name(self) -> str:
        """The first few operations for the reader, and a hash of everything."""
        said = [instr.op.partition(".")[2] for instr in self.body if instr.op != "arith.constant"]
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:12]
        return "_".join([self.family, *said[:3], digest])

    def writes(self) -> tuple[int, ...]:
        return (len(self.inputs),)

    @property
    def in_place(self) -> tuple[int, int] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The first operand, where every element is read before it is written and at the same place."""
        same = self.rank == 1 and self.inner[:1] == ("unit",) and self.inputs[0] == self.output
        return (0, len(self.inputs)) if same else None

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Vectors along the innermost dim; one element at a time if an operand has an odd stride there."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        sources, target = [args.ptr() for _ in self.inputs], args.ptr()
        dims = args.ints(self.rank)
        strides = [args.ints(self.rank) for _ in self.inputs]
        lanes = 1 if "any" in self.inner else isa.f32_lanes
        with rows(b, dims, [own[:-1] for own in strides]) as row:
            start = row.index * dims[-1]
            # What does not change along the row is read once.
            fixed = {
                k: load_elements(b, source, offset, dtype, 1)
                for k, (source, offset, dtype) in enumerate(zip(sources, row.offsets, self.inputs))
                if self.inner[k] == "zero"
            }

            def step(j: Val, _: list[Val], mask: Val | None, width: int) -> list[Val]:
                values: list[Val] = []
                for k, (source, offset, dtype) in enumerate(zip(sources, row.offsets, self.inputs)):
                    if k in fixed:
                        values.append(b.splat(fixed[k], width))
                        continue
                    column = j * strides[k][-1] if self.inner[k] == "any" else j
                    values.append(load_elements(b, source, offset + column, dtype, width, mask))
                result = emit_body(b, self.body, self.result, values, width)
                store_elements(b, result, target, start + j, self.output, mask)
                return []

            if lanes > 1 and len(self.body) <= WIDE_BODY and not any(instr.op in F32_EMITTERS for instr in self.body):
                chunks_wide(b, row.lo, row.hi, lanes, step)
            else:
                chunks(b, row.lo, row.hi, lanes, step)
        return b.finish()
