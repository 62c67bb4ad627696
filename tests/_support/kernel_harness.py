"""Compile one kernel, load it and call it with numpy arrays; for tests only."""

from __future__ import annotations

import ctypes
import itertools
import struct
from collections.abc import Sequence
from functools import cache

import llvmlite.binding as llvmlite
import numpy as np
from xdsl.dialects import llvm

from neuc.backends.cpu.codegen import compile_object
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.runtime.native import amx

_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
_loaded: dict[tuple[KernelSpec, Isa], LoadedKernel] = {}


@cache
def host_features() -> frozenset[str]:
    """LLVM's names of what this CPU has and this process may use."""
    present = frozenset(name for name, present in llvmlite.get_host_cpu_features().items() if present)
    return present if amx.permit_tiles() else present - amx.FEATURES


def runnable(isa: Isa) -> bool:
    """Whether this machine runs code for an instruction set."""
    return host_features() >= set(isa.features)


@cache
def runnable_isas() -> tuple[Isa, ...]:
    """Every instruction set this machine runs, the widest first."""
    widest = Isa.select(host_features())
    all_of_them = [widest, Isa.avx2(), Isa.sse4(), Isa.portable(), Isa.scalar()]
    unique = {isa.name: isa for isa in reversed(all_of_them) if host_features() >= set(isa.features)}
    return tuple(reversed(unique.values()))


class LoadedKernel:
    """Machine code of one kernel in this process, for as long as the object lives."""

    def __init__(self, kernel: KernelSpec | llvm.FuncOp, isa: Isa) -> None:
        llvmlite.initialize_native_target()
        llvmlite.initialize_native_asmprinter()
        function = kernel.build(isa) if isinstance(kernel, KernelSpec) else kernel
        machine = llvmlite.Target.from_default_triple().create_target_machine(jit=True)
        self._engine = llvmlite.create_mcjit_compiler(llvmlite.parse_assembly(""), machine)
        self._engine.add_object_file(llvmlite.ObjectFileRef.from_data(compile_object(function, isa)))
        self._engine.finalize_object()
        self._call = _SIGNATURE(self._engine.get_function_address(function.sym_name.data))

    def __call__(
        self,
        args: Sequence[np.ndarray | int | float],
        work: int,
        *,
        threads_split: int = 1,
        scratch_bytes: int = 0,
    ) -> None:
        """Run units ``0 .. work-1``, cut into ``threads_split`` ranges called one after the other, last first."""
        slots = (ctypes.c_int64 * max(len(args), 1))(*(slot(arg) for arg in args))
        scratch = aligned(scratch_bytes + 64, np.uint8)
        cuts = [work * part // threads_split for part in range(threads_split + 1)]
        for begin, end in reversed(list(itertools.pairwise(cuts))):
            scratch[:] = 0xA5  # a kernel must not rely on what was in its scratch memory
            self._call(ctypes.addressof(slots), begin, end, scratch.ctypes.data)
        assert (scratch[scratch_bytes:] == 0xA5).all(), "kernel wrote past its scratch memory"


def run_kernel(
    kernel: KernelSpec | llvm.FuncOp,
    isa: Isa,
    args: Sequence[np.ndarray | int | float],
    work: int,
    *,
    threads_split: int = 1,
    scratch_bytes: int = 0,
) -> None:
    """Compile (specs once a process), load and run a kernel; arrays are passed by address and written in place.

    An ``int`` becomes an integer slot and a ``float`` an f32 slot.
    """
    if isinstance(kernel, KernelSpec):
        if (kernel, isa) not in _loaded:
            _loaded[kernel, isa] = LoadedKernel(kernel, isa)
        loaded = _loaded[kernel, isa]
    else:
        loaded = LoadedKernel(kernel, isa)
    loaded(args, work, threads_split=threads_split, scratch_bytes=scratch_bytes)


def aligned(count: int, dtype: np.typing.DTypeLike, alignment: int = 64) -> np.ndarray:
    """An uninitialised array of ``count`` elements whose address is a multiple of ``alignment``."""
    nbytes = count * np.dtype(dtype).itemsize
    raw = np.empty(nbytes + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + nbytes].view(dtype)


def guarded(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A contiguous copy inside a larger buffer of 0x5A bytes: (the copy, the whole buffer as bytes)."""
    margin = 256
    whole = np.full(array.nbytes + 2 * margin, 0x5A, np.uint8)
    inner = whole[margin : margin + array.nbytes].view(array.dtype).reshape(array.shape)
    inner[...] = array
    return inner, whole


def assert_guards(whole: np.ndarray) -> None:
    """The bytes around a `guarded` array are untouched."""
    assert (whole[:256] == 0x5A).all(), "kernel wrote before its buffer"
    assert (whole[-256:] == 0x5A).all(), "kernel wrote past its buffer"


def slot(arg: np.ndarray | int | float) -> int:
    """The 64 bits of one argument slot."""
    match arg:
        case np.ndarray():
            assert arg.flags.c_contiguous, "kernels see the memory, not the strides"
            return arg.ctypes.data
        case bool() | int() | np.integer():
            return int(arg)
        case _:
            return struct.unpack("<q", struct.pack("<fi", float(arg), 0))[0]
