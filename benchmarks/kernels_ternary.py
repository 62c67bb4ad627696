"""GOPS of the ternary product kernels on one core: encoding x instruction set x batch, checked against numpy.

One multiply-add counts as two operations. A figure is the 10th percentile of many calls, in time the thread was on the
CPU and less the time of a call with no work; variants take turns, so that a busy machine hurts them alike. ``build`` is
the table building a look-up product needs first, in percent of both together.

    python benchmarks/kernels_ternary.py [--shapes 2560x2560,384x1536] [--batches 1,16,128] [--seconds 1.0]
        [--encodings tl2,i2] [--isas avx512,avx2]
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Iterator
from dataclasses import dataclass

import llvmlite.binding as llvmlite
import numpy as np

from neuc.backends.cpu.codegen import compile_object
from neuc.backends.cpu.encodings import CPU_ENCODINGS, Matrix
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.packing.lut import TABLE_BYTES
from neuc.dialects.dims import Dim
from neuc.dialects.ternary_encodings import ENCODINGS

BM, BK = 128, 768
LEVEL_SETS = {"ternary": (-1, 0, 1), "binary": (-1, 1), "2-bit": (-2, -1, 0, 1), "4-bit": tuple(range(-8, 8))}
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
        start = time.thread_time_ns()
        self._call(ctypes.addressof(self._slots), 0, units, self._scratch.ctypes.data)
        return (time.thread_time_ns() - start) * 1e-9


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


@dataclass(frozen=True)
class Case:
    """Activations and weights of one line, and what they give."""

    q: np.ndarray
    weights: np.ndarray
    levels: tuple[int, ...]

    def bits(self, encoding: str) -> float:
        """Bits a weight takes in an encoding."""
        rule = ENCODINGS[encoding]
        return rule.bits(self.levels, rule.largest_group(self.levels, None))

    def variant(self, encoding: str, isa: Isa, label: str) -> Variant | None:
        """The kernels of one encoding, having computed the right answer once; None if it cannot hold the weights."""
        (tokens, columns), rule, cpu = self.q.shape, ENCODINGS[encoding], CPU_ENCODINGS[encoding]
        g = rule.largest_group(self.levels, None)
        matrix = Matrix(self.levels, g, len(self.weights), columns, columns, BM, BK if rule.lookup else 1 << 20)
        if rule.reason_against(self.levels, g) or cpu.reason_against(matrix):
            return None
        layout = cpu.layout(isa, matrix)
        packed, start = cpu.pack(self.weights, layout)
        out = aligned(4 * tokens * len(self.weights)).view(np.int32).reshape(tokens, -1)
        out[...] = -1
        activations, groups, build = self.q, 0, None
        if cpu.tables is not None:
            tables = cpu.tables(isa, layout)
            groups, activations = tables.per_token, aligned(tokens * tables.per_token * TABLE_BYTES)
            builder = tables.build(groups)
            work = tokens * builder.units_per_token
            build = Launch(builder, isa, [self.q, activations, tokens], work, builder.scratch)
            build()
        product = cpu.product(isa, layout)
        args = [activations, placed(packed), out, tokens, 0 if start is None else placed(start), groups]
        run = Launch(product.kernel, isa, args, product.units(Dim.of(tokens)).value, product.scratch)
        run()
        expected = self.q.astype(np.int32) @ self.weights.astype(np.int32).T
        assert (out == expected).all(), f"{encoding} on {isa.name} is wrong"
        return Variant(f"{encoding:10}{label}", run, build)


def variants(
    options: argparse.Namespace, isas: dict[str, Isa], rows: int, columns: int, tokens: int
) -> Iterator[Variant]:
    """Encodings x instruction sets x sets of levels, of those an encoding is meant for the largest only."""
    random = np.random.default_rng(0)
    q = placed(random.integers(-128, 128, (tokens, columns)).astype(np.int8))
    chosen = options.encodings.split(",") if options.encodings else [name for name in CPU_ENCODINGS if name != "i8"]
    for name, levels in LEVEL_SETS.items():
        if name in options.levels.split(","):
            case = Case(q, random.choice(np.array(levels, np.int8), (rows, columns)), levels)
            for label, isa in isas.items():
                for encoding in chosen:
                    if made := case.variant(encoding, isa, f"{name:8}{label}"):
                        yield made


def measured(lines: list[Variant], seconds: float) -> list[tuple[float, float]]:
    """Seconds of the product and of the table building of each line, in turns, `seconds` for each."""
    samples: list[list[tuple[float, float]]] = [[] for _ in lines]
    end = time.perf_counter() + seconds * len(lines)
    while time.perf_counter() < end or len(samples[0]) < 5:
        for line, taken in zip(lines, samples, strict=True):
            taken.append(line.measure())
    runs, builds = (np.percentile(np.array(samples)[:, :, part], 10, axis=1) for part in range(2))
    return list(zip(runs.tolist(), builds.tolist(), strict=True))


def report(options: argparse.Namespace, rows: int, columns: int, tokens: int, isas: dict[str, Isa]) -> None:
    """Measure one shape and print its lines."""
    lines = list(variants(options, isas, rows, columns, tokens))
    operations = 2.0 * rows * columns * tokens
    print(f"{rows}x{columns}, batch {tokens}")
    for line, (run, build) in zip(lines, measured(lines, options.seconds), strict=True):
        share = f"   build {100 * build / (run + build):4.1f} %" if line.build is not None else ""
        print(f"  {line.name:32} {operations / run * 1e-9:7.1f} GOPS {run * 1e6:10.1f} us{share}", flush=True)


def here_isas() -> dict[str, Isa]:
    """Instruction sets of this CPU to measure, the widest first."""
    llvmlite.initialize_native_target()
    llvmlite.initialize_native_asmprinter()
    features = {name for name, present in llvmlite.get_host_cpu_features().items() if present}
    candidates = {"avx512": Isa.select(features), "avx512 no gfni": Isa.select(features - {"gfni"}), "avx2": Isa.avx2()}
    candidates |= {"avx2 with vnni": Isa.avx2(("avxvnni",)), "sse4": Isa.sse4(), "portable": Isa.portable()}
    return {name: isa for name, isa in candidates.items() if features >= set(isa.features) and isa.name in name}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="GOPS of the ternary product kernels on one core")
    parser.add_argument("--shapes", default="2560x2560,6912x2560")
    parser.add_argument("--batches", default="1,4,16")
    parser.add_argument("--encodings", default="")
    parser.add_argument("--levels", default="ternary")
    parser.add_argument("--isas", default="")
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    isas = {n: isa for n, isa in here_isas().items() if not options.isas or n in options.isas.split(",")}
    for shape in options.shapes.split(","):
        rows, columns = (int(part) for part in shape.split("x"))
        for tokens in options.batches.split(","):
            report(options, rows, columns, int(tokens), isas)


if __name__ == "__main__":
    main()
