"""A plain copy of bytes: outputs that are inputs, constants or other outputs."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder
from neuc.backends.cpu.irtypes import i8
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec

BYTES_PER_UNIT = 4096


@dataclass(frozen=True)
class CopyBytesKernel(KernelSpec):
    """Copy ``args[2]`` bytes from ``args[0]`` to ``args[1]``; a work unit is `BYTES_PER_UNIT` bytes."""

    family = "copy_bytes"
    written = (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """One byte loop; LLVM makes vectors of it."""
        b = KernelBuilder(self.name, isa)
        source, target, size = b.arg_ptr(0), b.arg_ptr(1), b.arg_int(2)
        stop = b.min(b.end * BYTES_PER_UNIT, size)
        with b.loop(b.begin * BYTES_PER_UNIT, stop) as loop:
            b.store(b.load(b.ptr(source, loop.i), i8), b.ptr(target, loop.i))
        return b.finish()
