"""Compiled kernels, and calls of one for copy after copy of its data with no Python between them. No clocks here."""

from __future__ import annotations

import ctypes

import numpy as np
from limits import compiled

from neuc.backends.cpu.codegen import compile_object
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.runtime.native import llvm

_SWEEP = """
define void @sweep(ptr %kernel, ptr %slots, i64 %first, i64 %count, i64 %begin, i64 %end, ptr %scratch) {
entry:
  br label %loop
loop:
  %done = phi i64 [0, %entry], [%next, %loop]
  %number = add i64 %first, %done
  %copy = urem i64 %number, COPIES
  %at = mul i64 %copy, BYTES
  %own = getelementptr i8, ptr %slots, i64 %at
  call void %kernel(ptr %own, i64 %begin, i64 %end, ptr %scratch)
  %next = add i64 %done, 1
  %more = icmp ult i64 %next, %count
  br i1 %more, label %loop, label %end_of_sweep
end_of_sweep:
  ret void
}
"""
_WORD = ctypes.c_int64
_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


class Code:
    """A kernel in this process."""

    def __init__(self, kernel: KernelSpec, isa: Isa) -> None:
        function = kernel.build(isa)
        self._loaded = llvm.link_objects([compile_object(function, isa)], [function.sym_name.data])
        self.address = self._loaded.addresses[function.sym_name.data]
        self.call = _KERNEL(self.address)


class Sweep:
    """A kernel and the argument slots of each copy of its data.

    Args:
        code: the kernel.
        slots: int64 [copies, slots], one call's arguments a row.
        scratch: scratch memory of each thread.
    """

    def __init__(self, code: Code, slots: np.ndarray, scratch: list[np.ndarray]) -> None:
        self._code, self._slots, self._keep = code, np.ascontiguousarray(slots, np.int64), scratch
        self._scratch = [memory.ctypes.data for memory in scratch]
        text = _SWEEP.replace("COPIES", str(len(slots))).replace("BYTES", str(self._slots.strides[0]))
        self._loop = compiled(text, "sweep", ())
        self._call = ctypes.CFUNCTYPE(None, *[_WORD] * 7)(self._loop.addresses["sweep"])

    def calls(self, first: int, count: int, units: tuple[int, int], thread: int) -> None:
        """Work units units[0] to units[1] of `count` calls, from copy `first` on and around."""
        self._call(self._code.address, self._slots.ctypes.data, first, count, *units, self._scratch[thread])
