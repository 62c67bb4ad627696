"""A plain copy of bytes: outputs that are inputs, constants or other outputs, caches that are not updated in place."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder
from neuc.backends.cpu.irtypes import i8, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec

BYTES_PER_UNIT = 4096


@dataclass(frozen=True)
class CopyBytesKernel(KernelSpec):
    """Copy ``args[2]`` bytes from ``args[0]`` to ``args[1]``; a work unit is `BYTES_PER_UNIT` bytes.

    To where they are already nothing is copied.
    """

    family = "copy_bytes"
    written = (1,)
    in_place = (0, 1)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Vectors, then the last bytes one by one."""
        b = KernelBuilder(self.name, isa)
        source, target, size = b.arg_ptr(0), b.arg_ptr(1), b.arg_int(2)
        start, stop = b.begin * BYTES_PER_UNIT, b.min(b.end * BYTES_PER_UNIT, size)
        whole = start + b.udiv(b.max(stop - start, 0), isa.vector_bytes) * isa.vector_bytes
        with b.if_(b.icmp("ne", b.arg_int(0), b.arg_int(1))):
            for lanes, lo, hi in ((isa.vector_bytes, start, whole), (1, whole, stop)):
                with b.loop(lo, hi, lanes) as loop:
                    b.store(b.load(b.ptr(source, loop.i), vec(i8, lanes)), b.ptr(target, loop.i))
        return b.finish()
