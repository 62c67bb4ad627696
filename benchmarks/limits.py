"""What this machine's memory and multipliers give at most: generated kernels that only read, or only multiply.

Benchmarks run these in turns with what they measure, so that a share "of the limit" is of the same minute on the same
busy machine. Nothing of a model is in here. Threads are pinned, one to a processor; a burst is timed from the first
thread's start to the last one's end.

    python benchmarks/limits.py [--threads 1,2] [--seconds 2]
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import llvmlite.binding as llvmlite
import numpy as np
from team import Team

from neuc.runtime.cpu_features import host_features
from neuc.runtime.native import llvm
from neuc.runtime.native.amx import permit_tiles

POOL_BYTES = 1 << 30
"""Larger than any last-level cache: what a burst reads was last read a gigabyte ago."""

BURST_BYTES = 1 << 28
READ_STREAMS = (1, 8)
"""Regions a thread walks through at once: some processors fetch ahead further in one, some in several."""

_STEP = 1024
_PEAK_LOOPS = 1_000_000
_TILE_LOOPS = 50_000
_HUGE_PAGE = 1 << 21

_READ = """
define i64 @read(ptr %data, i64 %steps) {{
entry:
  %region = mul i64 %steps, {step}
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
{phis}
  %base = mul i64 %i, {step}
{loads}
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %steps
  br i1 %more, label %loop, label %done
done:
{fold}
  %sum = call i64 @llvm.vector.reduce.or.v8i64(<8 x i64> %total)
  ret i64 %sum
}}
"""

_PEAK = """
define i64 @peak(i64 %loops) {{
entry:
  %byte = trunc i64 %loops to i8
  %first = insertelement <{b} x i8> poison, i8 %byte, i32 0
  %x = shufflevector <{b} x i8> %first, <{b} x i8> poison, <{b} x i32> zeroinitializer
  %y = xor <{b} x i8> %x, splat (i8 5)
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
{phis}
{products}
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %loops
  br i1 %more, label %loop, label %done
done:
{fold}
  %word = extractelement <{n} x i32> %total, i32 0
  %sum = zext i32 %word to i64
  ret i64 %sum
}}
"""

_TILE_PEAK = """
declare void @llvm.x86.ldtilecfg(ptr)
declare void @llvm.x86.tilezero(i8)
declare void @llvm.x86.tdpbsud(i8, i8, i8)
declare void @llvm.x86.tilerelease()
define i64 @peak(i64 %loops) {{
entry:
  %shape = alloca [64 x i8], align 64
  store <64 x i8> <i8 1, {fill}>, ptr %shape, align 64
  call void @llvm.x86.ldtilecfg(ptr %shape)
{zeros}
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
{products}
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %loops
  br i1 %more, label %loop, label %done
done:
  call void @llvm.x86.tilerelease()
  ret i64 %next
}}
"""


@dataclass(frozen=True)
class Spread:
    """Median and the 10th and 90th percentile of one figure."""

    median: float
    p10: float
    p90: float

    @staticmethod
    def of(samples: list[float]) -> Spread:
        """Of at least one sample."""
        p10, median, p90 = np.percentile(samples, [10, 50, 90]).tolist()
        return Spread(median, p10, p90)


@dataclass(frozen=True)
class DotProduct:
    """How one instruction set multiplies bytes and adds them to 32-bit lanes.

    Attributes:
        features: what code for it needs, in LLVM's names.
        lanes: 32-bit lanes of a vector.
        accumulators: independent sums, enough to hide the latency and few enough for the registers.
        body: LLVM IR from the running sum %acc, bytes %x and %y to the next sum %out; `#` makes names unique.
    """

    features: tuple[str, ...]
    lanes: int
    accumulators: int
    body: str


_VPDPBUSD = """
  %out# = call <{n} x i32> @llvm.x86.avx512.vpdpbusd.{bits}(<{n} x i32> %acc#, <{b} x i8> %x, <{b} x i8> %y)"""
_PMADD = """
  %bytes# = bitcast <{n} x i32> %acc# to <{b} x i8>
  %pairs# = call <{h} x i16> @llvm.x86.avx2.pmadd.ub.sw(<{b} x i8> %bytes#, <{b} x i8> %y)
  %quads# = call <{n} x i32> @llvm.x86.avx2.pmadd.wd(<{h} x i16> %pairs#, <{h} x i16> splat (i16 1))
  %out# = add <{n} x i32> %quads#, %acc#"""

AMX = "amx"
"""Key of `DOT_PRODUCTS` for tiles: 16 x 16 sums of 64 products each, 6 sums in turns over two tiles of operands."""

_TILE_SUMS = 6
DOT_PRODUCTS = {
    AMX: DotProduct(("amx-int8", "amx-tile"), 16 * 16 * 16, _TILE_SUMS, ""),
    "avx512": DotProduct(("avx512f", "avx512vl", "avx512vnni"), 16, 20, _VPDPBUSD),
    "avxvnni": DotProduct(("avx2", "avxvnni"), 8, 12, _VPDPBUSD),
    "avx2": DotProduct(("avx2",), 8, 12, _PMADD),
}
"""Instruction sets whose peak can be measured, the fastest first.

AVX2 takes three instructions; kernels that add up pairs in 16 bits first may be above its peak.
"""


class ReadBandwidth:
    """Reads a pool of memory, some of it in each burst.

    Attributes:
        threads: how many read, each a part of its own.
        huge_pages: whether the pool asks for 2 MiB pages, which spare the processor page walks.
    """

    def __init__(self, threads: int, *, huge_pages: bool = True, pool_bytes: int = POOL_BYTES) -> None:
        self.threads = threads
        self._team = Team(threads)
        # Shared memory, the default, has pages of 4 KB as systems come.
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
        self._pool = mmap.mmap(-1, pool_bytes + _HUGE_PAGE, **private)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._pool.madvise(mmap.MADV_HUGEPAGE if huge_pages else mmap.MADV_NOHUGEPAGE)
        data = np.frombuffer(self._pool, np.uint8)
        data[::4096] = 1  # an untouched page would be read from the one zero page, which is in cache
        self._start = data.ctypes.data + -data.ctypes.data % _HUGE_PAGE
        self._bytes = pool_bytes
        self._burst = min(BURST_BYTES, pool_bytes)
        self._at = 0
        self._code = {n: compiled(_read_ir(n), "read", _widest_features()) for n in READ_STREAMS}
        kind = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_int64)
        self._read = {streams: kind(code.addresses["read"]) for streams, code in self._code.items()}

    def burst(self, streams: int) -> float:
        """Read the next quarter of the pool, each thread `streams` (of `READ_STREAMS`) regions at once.

        Returns:
            GB/s of all threads together.
        """
        part = self._burst // self.threads // _STEP * _STEP
        begin = self._start + self._at
        self._at = (self._at + self._burst) % self._bytes
        read = self._read[streams]
        seconds = self._team.run(lambda thread: read(begin + thread * part, part // _STEP))
        return part * self.threads / seconds * 1e-9


class DotProductPeak:
    """Multiplies registers and adds them up, with nothing to load or store.

    Attributes:
        threads: how many do.
        isa: a key of `DOT_PRODUCTS`.
        operations: that a thread does in a burst.
    """

    def __init__(self, threads: int, isa: str) -> None:
        self.threads = threads
        self.isa = isa
        self._team = Team(threads)
        product, tiles = DOT_PRODUCTS[isa], isa == AMX
        self._loops = _TILE_LOOPS if tiles else _PEAK_LOOPS
        self.operations = 2.0 * 4 * product.lanes * product.accumulators * self._loops
        if tiles:
            permit_tiles()
        self._code = compiled(_tile_peak_ir() if tiles else _peak_ir(product), "peak", product.features)
        self._peak = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_int64)(self._code.addresses["peak"])

    def multiply(self) -> None:
        """One thread's share of a burst: `operations` of them."""
        self._peak(self._loops)

    def burst(self) -> float:
        """GOPS of all threads together; a multiply-add counts as two operations."""
        seconds = self._team.run(lambda _thread: self.multiply())
        return self.operations * self.threads / seconds * 1e-9


def read_bandwidth(threads: int, seconds: float = 1.0) -> Spread:
    """GB/s that `threads` cores read from memory (1 GiB pool, 2 MiB pages), with the better number of streams."""
    pool = ReadBandwidth(threads)
    samples = _in_turns([partial(pool.burst, streams) for streams in READ_STREAMS], seconds)
    return max((Spread.of(taken) for taken in samples), key=lambda spread: spread.median)


def vnni_peak(threads: int, seconds: float = 1.0, isa: str | None = None) -> Spread:
    """GOPS of byte dot products of `threads` cores, with the best vectors of this processor or with `isa`."""
    return Spread.of(_in_turns([DotProductPeak(threads, isa or best_dot_product()).burst], seconds)[0])


def best_dot_product() -> str:
    """The key of `DOT_PRODUCTS` of the fastest vectors that this processor has.

    Raises:
        SystemExit: it has none.
    """
    for name in present_dot_products():
        if name != AMX:
            return name
    raise SystemExit("limits are measured with AVX2, AVX-VNNI or AVX-512 VNNI: this processor has none of them")


def present_dot_products() -> list[str]:
    """Keys of `DOT_PRODUCTS` that this processor has, the fastest first."""
    present = host_features()
    return [name for name, product in DOT_PRODUCTS.items() if present >= set(product.features)]


def _in_turns(bursts: list[Callable[[], float]], seconds: float) -> list[list[float]]:
    """Samples of each burst, which take turns for `seconds` and at least five times."""
    samples: list[list[float]] = [[] for _ in bursts]
    for burst in bursts:
        burst()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples[0]) < 5:
        for burst, taken in zip(bursts, samples, strict=True):
            taken.append(burst())
    return samples


def _widest_features() -> tuple[str, ...]:
    present = host_features()
    return next((names for names in (("avx512f", "avx512vl"), ("avx2",)) if present >= set(names)), ())


def compiled(ir: str, symbol: str, features: tuple[str, ...]) -> llvm.LoadedCode:
    llvmlite.initialize_native_target()
    llvmlite.initialize_native_asmprinter()
    machine = llvmlite.Target.from_default_triple().create_target_machine(
        cpu="",
        features=",".join(f"+{name}" for name in features),
        opt=2,
        reloc="static",
        codemodel="jitdefault",
        jit=True,
    )
    module = llvmlite.parse_assembly(ir)
    module.verify()
    return llvm.link_objects([machine.emit_object(module)], [symbol])


def _read_ir(streams: int) -> str:
    """A loop that reads `_STEP` bytes: as much of each stream, which are `steps` times that apart."""
    each = _STEP // 64 // streams
    loads: list[str] = []
    for stream in range(streams):
        loads.append(f"  %far{stream} = mul i64 %region, {stream}\n  %from{stream} = add i64 %base, %far{stream}")
        for v in range(stream * each, (stream + 1) * each):
            loads.append(
                f"  %at{v} = add i64 %from{stream}, {64 * (v - stream * each)}\n"
                f"  %p{v} = getelementptr i8, ptr %data, i64 %at{v}\n"
                f"  %w{v} = load <8 x i64>, ptr %p{v}, align 64\n  %or{v} = or <8 x i64> %acc{v}, %w{v}"
            )
    vectors = range(_STEP // 64)
    return _READ.format(
        step=_STEP // streams,
        phis="\n".join(f"  %acc{v} = phi <8 x i64> [zeroinitializer, %entry], [%or{v}, %loop]" for v in vectors),
        loads="\n".join(loads),
        fold=_fold("or", "<8 x i64>", [f"%or{v}" for v in vectors]),
    )


def _peak_ir(product: DotProduct) -> str:
    n = product.lanes
    sizes = {"n": n, "h": 2 * n, "b": 4 * n, "bits": 32 * n}
    sums = range(product.accumulators)
    return _PEAK.format(
        phis="\n".join(f"  %acc{v} = phi <{n} x i32> [splat (i32 {v}), %entry], [%out{v}, %loop]" for v in sums),
        products="\n".join(product.body.format(**sizes).replace("#", str(v)) for v in sums),
        fold=_fold("xor", f"<{n} x i32>", [f"%out{v}" for v in sums]),
        **sizes,
    )


def _tile_peak_ir() -> str:
    """All eight tiles are 16 rows of 64 bytes: the configuration has the bytes a row from 16 on, rows from 48 on."""
    shape = [1] + [0] * 15 + [64, 0] * 8 + [0] * 16 + [16] * 8 + [0] * 8
    return _TILE_PEAK.format(
        fill=", ".join(f"i8 {value}" for value in shape[1:]),
        zeros="\n".join(f"  call void @llvm.x86.tilezero(i8 {tile})" for tile in range(_TILE_SUMS + 2)),
        products="\n".join(f"  call void @llvm.x86.tdpbsud(i8 {tile}, i8 6, i8 7)" for tile in range(_TILE_SUMS)),
    )


def _fold(operation: str, kind: str, values: list[str]) -> str:
    """All values into %total, one after the other."""
    lines: list[str] = []
    running = values[0]
    for number, value in enumerate(values[1:], start=1):
        name = "%total" if number == len(values) - 1 else f"%fold{number}"
        lines.append(f"  {name} = {operation} {kind} {running}, {value}")
        running = name
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="read bandwidth and dot product peak of this machine")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    for threads in (int(part) for part in options.threads.split(",")):
        pools = {"2 MiB": ReadBandwidth(threads), "4 KiB": ReadBandwidth(threads, huge_pages=False)}
        variants = {
            f"{streams} stream{'s' * (streams > 1)}, {page} pages": partial(pool.burst, streams)
            for streams in READ_STREAMS
            for page, pool in pools.items()
        }
        print(f"{threads} thread{'s' * (threads > 1)}: read GB/s, dot products GOPS")
        _print(variants, options.seconds)
        _print({isa: DotProductPeak(threads, isa).burst for isa in present_dot_products()}, options.seconds)


def _print(bursts: dict[str, Callable[[], float]], seconds: float) -> None:
    for name, samples in zip(bursts, _in_turns(list(bursts.values()), seconds), strict=True):
        spread = Spread.of(samples)
        print(f"  {name:24}{spread.median:9.1f}   p10 {spread.p10:.1f}   p90 {spread.p90:.1f}")


if __name__ == "__main__":
    main()
