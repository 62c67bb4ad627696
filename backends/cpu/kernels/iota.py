"""Tensors made of nothing but integers known at launch: symbolic sizes written out, and 0, 1, 2 …"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, i64
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.strided import Args


@dataclass(frozen=True)
class DimsKernel(KernelSpec):
    """``target[k] = value k`` for `count` i64 values.

    Slots: target, then the values. Work: 1.
    """

    count: int

    family = "dims"
    written = (0,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Straight stores."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        target = args.ptr()
        with b.loop(b.begin, b.end):
            for k in range(self.count):
                b.store(args.int(), b.elem(target, k, i64))
        return b.finish()


@dataclass(frozen=True)
class IotaKernel(KernelSpec):
    """``target[i] = i``, i64.

    Slots: target. Work: elements.
    """

    family = "iota"
    written = (0,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """A loop of stores."""
        b = KernelBuilder(self.name, isa)
        target = Args(b).ptr()
        with b.loop(b.begin, b.end) as loop:
            b.store(loop.i, b.elem(target, loop.i, i64))
        return b.finish()
