"""Fused linear layers against the machine's limits: GB/s of one token from memory, GOPS of many tokens from cache.

Kernels, a read of as many bytes, and dot products of registers take turns, on one thread or on several at once. Weights
are copied until they exceed every cache (`--pool`), and calls of one token take copy after copy; calls of many tokens
stay with one. A figure is the 10th percentile and the median of the times that threads were on a CPU, the slowest
thread's of a burst. Results are checked against numpy once.

    python benchmarks/linear_layers.py [--layers i2,t5,i8g32,i4g32] [--shapes 2560x2560] [--tokens 1,128]
        [--threads 1,2] [--seconds 2] [--pool 256] [--without amx-int8]
"""

from __future__ import annotations

import argparse
import mmap
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import llvmlite.binding as llvmlite
import numpy as np
from kernels_ternary import aligned, placed
from limits import AMX, DotProductPeak, present_dot_products
from sweeps import Code, Sweep
from team import Team
from xdsl.dialects.llvm import FuncOp

from neuc.backends.cpu.builder import KernelBuilder, Val, i8, i32, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.direct_linear import DirectLinearKernel, linear_layout, pack_scales, panel_products
from neuc.backends.cpu.kernels.ternary_dequantize import Epilogue
from neuc.backends.cpu.packing.direct import DirectEncoding, DirectLayout, pack_direct
from neuc.dialects.interp.ternary import accumulate, dequantize
from neuc.runtime.cpu_features import host_features
from neuc.runtime.native.amx import permit_tiles

LEVELS: dict[str, tuple[DirectEncoding, tuple[int, ...]]] = {
    "i2": ("i2", (-1, 0, 1)),
    "t5": ("t5", (-1, 0, 1)),
    "i4": ("i4", tuple(range(-8, 8))),
    "i8": ("i8", tuple(range(-127, 128))),
}
BURST_BYTES = 1 << 25
"""About so many bytes are read between two looks at the clock."""
READERS = 3
"""Bursts that take copies of one pool: a layer, and reads with one stream and with several."""
BURST_OPERATIONS = 1e9
"""And about so many operations done by a thread, if these are counted."""
_HUGE_PAGE = 1 << 21


@dataclass(frozen=True)
class ReadKernel(KernelSpec):
    """Slots: 0 memory. Work units: runs of 64 bytes. A thread reads `streams` parts of its range side by side."""

    streams: int

    family = "read"

    def build(self, isa: Isa) -> FuncOp:
        """Loads, and an `or` of everything so that they stay."""
        b, wide = KernelBuilder(self.name, isa), max(16, isa.vector_bytes)
        part = b.udiv(b.end - b.begin, self.streams)
        first = b.ptr(b.arg_ptr(0), b.begin * 64)
        with b.loop(0, part, 2, init=[b.zero(vec(i8, wide))] * self.streams) as line:
            seen: list[Val] = []
            for stream, value in enumerate(line.carried):
                here = b.ptr(first, (part * stream + line.i) * 64)
                for at in range(0, 128, wide):
                    value = value | b.load(b.ptr(here, at), vec(i8, wide))
                seen.append(value)
            line.yield_(seen)
        for number, value in enumerate(line.results):
            b.store(value, b.ptr(b.scratch, number * wide))
        return b.finish()


@dataclass(frozen=True)
class PeakKernel(KernelSpec):
    """No slots. Work units: one VNNI dot product for each of the `sums`, all in registers."""

    family = "peak"
    sums = 16

    def build(self, isa: Isa) -> FuncOp:
        """Sums are stored so that they stay."""
        b, lanes = KernelBuilder(self.name, isa), isa.f32_lanes
        name, zero = f"llvm.x86.avx512.vpdpbusd.{8 * isa.vector_bytes}", b.zero(vec(i32, lanes))
        x = b.bitcast(b.load(b.scratch, zero.type), vec(i8, isa.vector_bytes))
        with b.loop(b.begin, b.end, init=[zero] * self.sums) as turn:
            turn.yield_([b.intrinsic(name, zero.type, [value, x, x]) for value in turn.carried])
        for number, value in enumerate(turn.results):
            b.store(value, b.ptr(b.scratch, number * isa.vector_bytes))
        return b.finish()


class Pool:
    """Copies of some arrays, one behind the other in large pages.

    Attributes:
        copy_bytes: of one copy.
        copies: how many there are.
        readers: how many bursts take them in turns so far.
    """

    def __init__(self, arrays: list[np.ndarray], nbytes: int) -> None:
        starts = np.cumsum([0] + [-(-array.nbytes // 64) * 64 for array in arrays])
        self.copy_bytes = int(starts[-1])
        self.copies, self.readers = max(1, nbytes // self.copy_bytes), 0
        # Shared memory, the default, has pages of 4 KB as systems come.
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._memory = mmap.mmap(-1, self.copies * self.copy_bytes + _HUGE_PAGE, flags=private)
        self._memory.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(self._memory, np.uint8)
        first = -whole.ctypes.data % _HUGE_PAGE
        self._base, self._starts = whole.ctypes.data + first, starts.tolist()
        for copy in range(self.copies):
            for start, array in zip(self._starts, arrays):
                at = first + copy * self.copy_bytes + start
                whole[at : at + array.nbytes] = array.reshape(-1).view(np.uint8)

    def addresses(self, copy: int) -> list[int]:
        """Where a copy's arrays are."""
        return [self._base + copy * self.copy_bytes + start for start in self._starts[:-1]]


class Layer:
    """One fused layer, checked."""

    def __init__(self, text: str, rows: int, columns: int, tokens: int, isa: Isa, pool_bytes: int) -> None:
        name, _, group = text.partition("g")
        (encoding, levels), segment, random = LEVELS[name], int(group or columns), np.random.default_rng(0)
        layout = linear_layout(DirectLayout.of(encoding, isa, levels, rows, columns, segment, 64, columns))
        weights = random.choice(np.array(levels, np.int8), (rows, columns))
        scales = random.standard_normal((1, rows, -(-columns // segment))).astype(np.float16).astype(np.float32)
        packed, by_chunk = pack_direct(weights, layout), pack_scales(scales, layout)
        q = placed(random.integers(-127, 128, (tokens, columns)).astype(np.int8))
        s = placed(random.random(tokens).astype(np.float32))
        y = aligned(4 * tokens * rows).view(np.float32).reshape(tokens, rows)
        epilogue = Epilogue(rows, 1, scales.shape[2], False)
        kernel = DirectLinearKernel(
            layout, epilogue, by_chunk.dtype == np.float16, panels=panel_products(isa) is not None and not group
        )
        self.name, self.units, self.operations = text, kernel.units(tokens), 2.0 * rows * columns * tokens
        self.pool = Pool([packed, by_chunk], pool_bytes)
        self._keep = (q, s, y)
        self._code = Code(kernel, isa)
        self._scratch = [aligned(kernel.scratch_bytes(isa)) for _ in os.sched_getaffinity(0)]
        slots = [
            (q.ctypes.data, w, y.ctypes.data, tokens, s.ctypes.data, by, 0, 1)
            for w, by in map(self.pool.addresses, range(self.pool.copies))
        ]
        self._sweep = Sweep(self._code, np.array(slots), self._scratch)
        self.run(0, 1, 0, 1)
        expected = dequantize(accumulate(q, weights, segment), s, scales)
        assert np.array_equal(y, expected), f"{text} on {isa.name} is wrong"

    def run(self, first: int, count: int, thread: int, threads: int) -> None:
        """One thread's share of `count` calls, from a copy on."""
        self._sweep.calls(first, count, share(self.units, thread, threads), thread)


def share(units: int, thread: int, threads: int) -> tuple[int, int]:
    """A thread's share of so many units."""
    return units * thread // threads, units * (thread + 1) // threads


def in_turns(bursts: dict[str, Callable[[], float]], seconds: float) -> dict[str, np.ndarray]:
    """Figures of each burst, which take turns for `seconds` each and at least five times: p10, median of the times."""
    samples: dict[str, list[float]] = {name: [] for name in bursts}
    for burst in bursts.values():
        burst()
    end = time.perf_counter() + seconds * len(bursts)
    while time.perf_counter() < end or len(next(iter(samples.values()))) < 5:
        for name, burst in bursts.items():
            samples[name].append(burst())
    return {name: np.percentile(taken, [90, 50]) for name, taken in samples.items()}


def one_token(layers: list[Layer], isa: Isa, team: Team) -> dict[str, Callable[[], float]]:
    """Bursts of calls from memory in GB/s, and reads of the same."""
    bursts: dict[str, Callable[[], float]] = {}
    for streams in (1, 8):
        pool, code, scratch = layers[0].pool, Code(ReadKernel(streams), isa), [aligned(1024) for _ in range(64)]
        bursts[f"read, {streams} streams"] = _read(pool, code, scratch, team)
    for layer in layers:
        bursts[layer.name] = _sweep(layer, team)
    return bursts


def _read(pool: Pool, code: Code, scratch: list[np.ndarray], team: Team) -> Callable[[], float]:
    slots = np.array([pool.addresses(copy)[:1] for copy in range(pool.copies)])
    sweep, lines = Sweep(code, slots, scratch), pool.copy_bytes // 64

    def calls(first: int, count: int, thread: int) -> None:
        sweep.calls(first, count, share(lines, thread, team.threads), thread)

    return _from_memory(pool, calls, team)


def _sweep(layer: Layer, team: Team) -> Callable[[], float]:
    def calls(first: int, count: int, thread: int) -> None:
        layer.run(first, count, thread, team.threads)

    return _from_memory(layer.pool, calls, team)


def _from_memory(pool: Pool, calls: Callable[[int, int, int], None], team: Team) -> Callable[[], float]:
    """Bursts of calls(first copy, how many, thread), each from the copy on where the last one ended: GB/s.

    Bursts that take turns on one pool begin far apart: what one has just read, a large cache still holds for the next.
    """
    count, position = max(1, BURST_BYTES // pool.copy_bytes), [pool.copies * pool.readers // READERS % pool.copies]
    pool.readers += 1

    def burst() -> float:
        seconds = team.slowest(lambda thread: calls(position[0], count, thread))
        position[0] = (position[0] + count) % pool.copies
        return count * pool.copy_bytes / seconds * 1e-9

    return burst


def products(layers: list[Layer], isa: Isa, team: Team) -> dict[str, Callable[[], float]]:
    """Calls from cache in GOPS, and dot products of registers."""
    peak = Code(PeakKernel(), isa)
    scratch = [aligned(64 * PeakKernel.sums) for _ in range(team.threads)]
    rounds = round(BURST_OPERATIONS / (2 * isa.vector_bytes * PeakKernel.sums))  # as long as the bursts held against it

    def multiply() -> float:
        seconds = team.slowest(lambda thread: peak.call(0, 0, rounds, scratch[thread].ctypes.data))
        return 2.0 * isa.vector_bytes * PeakKernel.sums * rounds * team.threads / seconds * 1e-9

    bursts: dict[str, Callable[[], float]] = {"dot products of registers": multiply}
    if AMX in present_dot_products():  # a limit of the machine, also for kernels that do without
        bursts["dot products of tiles"] = _tile_peak(team)

    def calls(layer: Layer) -> Callable[[], float]:
        count = max(1, round(BURST_OPERATIONS * team.threads / layer.operations))

        def burst() -> float:
            seconds = team.slowest(lambda thread: layer.run(0, count, thread, team.threads))
            return count * layer.operations / seconds * 1e-9

        return burst

    return bursts | {layer.name: calls(layer) for layer in layers}


def _tile_peak(team: Team) -> Callable[[], float]:
    peak = DotProductPeak(team.threads, AMX)
    return lambda: peak.operations * team.threads / team.slowest(lambda _: peak.multiply()) * 1e-9


def report(options: argparse.Namespace, shape: str, tokens: int, isa: Isa) -> None:
    """Measure one shape and number of tokens and print a line for each layer."""
    rows, columns = (int(part) for part in shape.split("x"))
    pool = (options.pool << 20) if tokens == 1 else 1
    layers = [Layer(text, rows, columns, tokens, isa, pool) for text in options.layers.split(",")]
    for threads in (int(part) for part in options.threads.split(",")):
        team = Team(threads)
        bursts = one_token(layers, isa, team) if tokens == 1 else products(layers, isa, team)
        found = in_turns(bursts, options.seconds)
        limits = {name: figures for name, figures in found.items() if name not in options.layers.split(",")}
        if tokens == 1:  # the better number of streams; peaks of registers and of tiles are two limits
            limits = {"read": np.max(list(limits.values()), axis=0)}
        unit = "GB/s" if tokens == 1 else "GOPS"
        print(f"{shape}, {tokens} tokens, {threads} threads: {unit} at the 10th percentile and the median of times")
        print(f"{'shares of ' + ', '.join(limits):>100}")
        for name, figures in found.items():
            shares = "   ".join(" ".join(f"{100 * part:4.0f} %" for part in figures / of) for of in limits.values())
            print(f"  {name:28}{figures[0]:8.1f} {figures[1]:8.1f}   {shares}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="fused linear layers against the limits of this machine")
    parser.add_argument("--layers", default="i2,t5,i8g32,i4g32")
    parser.add_argument("--shapes", default="2560x2560")
    parser.add_argument("--tokens", default="1,128")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--pool", type=int, default=256)
    parser.add_argument("--without", default="")
    options = parser.parse_args()
    permit_tiles()
    llvmlite.initialize_native_target()
    llvmlite.initialize_native_asmprinter()
    isa = Isa.select(host_features() - set(options.without.split(",")))
    for shape in options.shapes.split(","):
        for tokens in options.tokens.split(","):
            report(options, shape, int(tokens), isa)


if __name__ == "__main__":
    main()
