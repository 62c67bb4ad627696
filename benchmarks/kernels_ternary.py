"""GOPS of the ternary product kernels on one core: encoding x instruction set x batch, checked against numpy.

One multiply-add counts as two operations. A figure is the 10th percentile of many calls, less the time of a call with
no work; variants take turns, so that a busy machine hurts them alike. ``build`` is the table building a `tl2` product
needs first, in percent of both together.

    python benchmarks/kernels_ternary.py [--shapes 2560x2560,384x1536] [--batches 1,16,128] [--seconds 1.0]
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import llvmlite.binding as llvmlite
import numpy as np

from neuc.backends.cpu.codegen import compile_object
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.direct_i2 import DirectI2Kernel
from neuc.backends.cpu.kernels.lut_accumulate import LutAccumulateKernel
from neuc.backends.cpu.kernels.lut_build import LutBuildKernel
from neuc.backends.cpu.packing.i2 import I2Layout, pack_i2
from neuc.backends.cpu.packing.tl2 import TABLE_BYTES, Tl2Layout, pack_tl2, table_kind

BM, BK = 128, 768
_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


def aligned(nbytes: int) -> np.ndarray:
    """Uninitialised bytes at a multiple of 64."""
    raw = np.empty(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes]


def placed(array: np.ndarray) -> np.ndarray:
    """A copy at a multiple of 64."""
    copy = aligned(array.nbytes).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class Launch:
    """One kernel in this process with its arguments."""

    def __init__(self, kernel: KernelSpec, isa: Isa, args: list[np.ndarray | int], work: int, scratch: int) -> None:
        machine = llvmlite.Target.from_default_triple().create_target_machine(jit=True)
        self._engine = llvmlite.create_mcjit_compiler(llvmlite.parse_assembly(""), machine)
        function = kernel.build(isa)
        self._engine.add_object_file(llvmlite.ObjectFileRef.from_data(compile_object(function, isa)))
        self._engine.finalize_object()
        self._call = _SIGNATURE(self._engine.get_function_address(function.sym_name.data))
        self._keep = args
        slots = [arg.ctypes.data if isinstance(arg, np.ndarray) else arg for arg in args]
        self._slots = (ctypes.c_int64 * len(slots))(*slots)
        self._scratch = aligned(scratch)
        self._work = work

    def __call__(self, work: int | None = None) -> float:
        """Run, and say how many seconds it took."""
        units = self._work if work is None else work
        start = time.perf_counter_ns()
        self._call(ctypes.addressof(self._slots), 0, units, self._scratch.ctypes.data)
        return (time.perf_counter_ns() - start) * 1e-9


@dataclass
class Variant:
    """One line of the table."""

    name: str
    run: Launch
    build: Launch | None = None

    def measure(self) -> tuple[float, float]:
        """Net seconds of the product and of the table building, weights and activations as far in cache as they go."""
        self.run()
        net = self.run() - self.run(0)
        return net, self.build() - self.build(0) if self.build is not None else 0.0


def tl2(isa: Isa, q: np.ndarray, trits: np.ndarray, out: np.ndarray) -> tuple[Launch, Launch]:
    """Table building and look-ups."""
    (tokens, columns), rows = q.shape, trits.shape[0]
    layout = Tl2Layout.of(isa, 3, rows, columns, columns, BM, BK)
    packed, start = pack_tl2(trits, layout)
    tables = aligned(tokens * layout.table_groups * TABLE_BYTES)
    builder = LutBuildKernel(table_kind(isa), columns, 3, layout.table_groups)
    build = Launch(builder, isa, [q, tables, tokens], tokens * builder.units_per_token, builder.scratch)
    kernel = LutAccumulateKernel(table_kind(isa), layout)
    work = layout.tiling.row_blocks * -(-tokens // kernel.token_block)
    args = [tables, placed(packed), out, tokens, 0 if start is None else placed(start), layout.table_groups]
    return build, Launch(kernel, isa, args, work, kernel.scratch)


def i2(isa: Isa, q: np.ndarray, trits: np.ndarray, out: np.ndarray) -> Launch:
    """The direct product."""
    (tokens, columns), rows = q.shape, trits.shape[0]
    layout = I2Layout.of((-1, 0, 1), rows, columns, columns, BM, 1 << 20)
    kernel = DirectI2Kernel(layout)
    work = layout.tiling.row_blocks * -(-tokens // kernel.token_block)
    return Launch(kernel, isa, [q, placed(pack_i2(trits, layout)), out, tokens], work, kernel.scratch)


def variants(isas: dict[str, Isa], q: np.ndarray, trits: np.ndarray) -> Iterator[Variant]:
    """All variants, each having computed the right answer once."""
    expected = q.astype(np.int32) @ trits.astype(np.int32).T
    for label, isa in isas.items():
        out = aligned(expected.nbytes).view(np.int32).reshape(expected.shape)
        build, run = tl2(isa, q, trits, out)
        made: list[tuple[str, Launch, Launch | None]] = [("tl2", run, build), ("i2", i2(isa, q, trits, out), None)]
        for encoding, launch, first in made:
            out[...] = -1
            if first is not None:
                first()
            launch()
            assert (out == expected).all(), f"{encoding} on {label} is wrong"
            yield Variant(f"{encoding:4}{label}", launch, first)


def report(rows: int, columns: int, tokens: int, isas: dict[str, Isa], seconds: float) -> None:
    """Measure one shape and print its lines."""
    random = np.random.default_rng(0)
    trits = random.integers(-1, 2, (rows, columns)).astype(np.int8)
    q = placed(random.integers(-128, 128, (tokens, columns)).astype(np.int8))
    lines = list(variants(isas, q, trits))
    samples: list[list[tuple[float, float]]] = [[] for _ in lines]
    end = time.perf_counter() + seconds * len(lines)
    while time.perf_counter() < end or len(samples[0]) < 5:
        for line, taken in zip(lines, samples, strict=True):
            taken.append(line.measure())
    operations = 2.0 * rows * columns * tokens
    print(f"{rows}x{columns}, batch {tokens}")
    tenth: Callable[[list[float]], float] = lambda values: float(np.percentile(values, 10))  # noqa: E731
    for line, taken in zip(lines, samples, strict=True):
        run, build = tenth([t[0] for t in taken]), tenth([t[1] for t in taken])
        share = f"   build {100 * build / (run + build):4.1f} %" if line.build is not None else ""
        print(f"  {line.name:20} {operations / run * 1e-9:7.1f} GOPS {run * 1e6:10.1f} us{share}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="GOPS of the ternary product kernels on one core")
    parser.add_argument("--shapes", default="2560x2560,384x1536")
    parser.add_argument("--batches", default="1,16,128")
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    llvmlite.initialize_native_target()
    llvmlite.initialize_native_asmprinter()
    features = {name for name, present in llvmlite.get_host_cpu_features().items() if present}
    candidates = {"avx512": Isa.select(features), "avx512 no gfni": Isa.select(features - {"gfni"}), "avx2": Isa.avx2()}
    candidates["portable"] = Isa.portable()
    isas = {name: isa for name, isa in candidates.items() if features >= set(isa.features) and isa.name in name}
    for shape in options.shapes.split(","):
        rows, columns = (int(part) for part in shape.split("x"))
        for tokens in options.batches.split(","):
            report(rows, columns, int(tokens), isas, options.seconds)


if __name__ == "__main__":
    main()
