"""How long kernels, transfers and whole GEMMs take by the machine model alone: closed forms, no simulation.

Kernel: cycles = m·n·(k / peak + per_output), at least what its DMA needs for a tile (arXiv 2512.13282, equation 4).
Array: t = max(tiles·(K·m·n / rate + m·n·bytes_C / width) / f, (A + B + C) / BW, (A + B) / BW of reads, shims) +
dispatch, A and B counted as often as tiles read them again; where blocks do not overlap, what waits is added.
Constants are the machine file's, fitted once a dtype or kernel library and never to a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, gcd, isinf, prod
from typing import Literal

from neuc.runtime.npu.machine import GemmRate, Machine, Sku

ELEMENT_BYTES = {
    **{f"{sign}{bits}": bits / 8 for sign in "iu" for bits in (8, 16, 32)},
    **{"i4": 0.5, "bf16": 2.0, "f32": 4.0, "bfp16": 9 / 8, "ternary": 0.25},
}
WORD = 4
MEMORY_LINE = 64
"""Bytes of one burst of DDR5, and of LPDDR5X: 16 beats of 32 bits; nothing smaller is read."""


@dataclass(frozen=True)
class GemmType:
    """Element types of A·B -> C."""

    a: str
    b: str
    c: str

    @property
    def key(self) -> str:
        """The name machine files use."""
        return f"{self.a}x{self.b}->{self.c}"

    @property
    def nbytes(self) -> tuple[float, float, float]:
        """Bytes of an element of A, B and C."""
        return (ELEMENT_BYTES[self.a], ELEMENT_BYTES[self.b], ELEMENT_BYTES[self.c])


@dataclass(frozen=True)
class Tiling:
    """A kernel's tile m x k x n and the cores it runs on."""

    m: int
    k: int
    n: int
    rows: int
    cols: int


def width(machine: Machine) -> int:
    """Bytes a cycle of a core's DMA channel."""
    dma = machine.classes["core"].dma
    return WORD if dma is None else dma.bytes_per_cycle


def gemm_rate(machine: Machine, kind: GemmType, library: str = "") -> GemmRate | None:
    """The rate of a kernel library, or of tuned kernels; None if the machine file has no figure."""
    return (machine.libraries[library] if has_library(machine, kind, library) else machine.gemm).get(kind.key)


def has_library(machine: Machine, kind: GemmType, library: str) -> bool:
    """Whether the machine file knows what this kernel library makes of these types."""
    return kind.key in machine.libraries.get(library, {})


def kernel_macs_per_cycle(
    machine: Machine, kind: GemmType, tile: Tiling, library: str = "", *, streamed: bool = True
) -> float | None:
    """Multiply-adds a cycle of one core on tiles m x k x n; if `streamed`, with operands that come through its DMA."""
    rate = gemm_rate(machine, kind, library)
    if rate is None:
        return None
    macs = tile.m * tile.k * tile.n
    cycles = tile.m * tile.n * (tile.k / rate.peak_macs_per_cycle + rate.cycles_per_output)
    a, b, _ = kind.nbytes
    moved = max(tile.m * tile.k * a, tile.k * tile.n * b)
    return macs / max(cycles, moved / width(machine) if streamed else 0.0)


@dataclass(frozen=True)
class Launched:
    """A program of launches that a controller starts and waits for, a group of blocks of C at a time.

    Attributes:
        group: Blocks along M, and along N, of a group at most; as many as divide the blocks there are.
        step: Columns of A and rows of B that are in a memory tile at once. A group's first come while nothing is
            multiplied, and its last are multiplied while nothing comes.
        casts: Cores round their float sums one by one before they leave.
    """

    group: int
    step: int
    casts: bool


@dataclass(frozen=True)
class Layout:
    """How a GEMM program uses host memory (`gemm_layouts.py` has the published ones).

    Attributes:
        block_m: Rows of C that are made at once; B is read again for each such block.
        block_n: Columns of C that are made at once.
        runs: Bytes of A, B and C that lie together in host memory; infinite if long.
        waits_for_c: Cores have one buffer of C, and wait while it leaves.
        launched: Blocks are launched in groups, and a group waits for the one before (`Launched`). None if blocks
            simply overlap.
    """

    block_m: int
    block_n: int
    runs: tuple[float, float, float]
    waits_for_c: bool = False
    launched: Launched | None = None


def gemm_seconds(
    machine: Machine,
    sku: Sku,
    kind: GemmType,
    shape: tuple[int, int, int],
    tile: Tiling,
    rate: float,
    layout: Layout,
    *,
    padded: bool,
    ddr_bytes: float | None = None,
) -> tuple[float, str]:
    """Seconds of a whole GEMM of M x K x N, and what sets them; `rate` is the kernel's multiply-adds a cycle.

    With `padded`, partial tiles cost as much as whole ones; shapes of the array paper are whole tiles but for rounding.
    `ddr_bytes` is the traffic, if it is known better than blocks tell it; it then comes in runs as long as A's.
    """
    big_m, big_k, big_n = shape
    a, b, c = kind.nbytes
    tiles = (big_m / (tile.m * tile.rows), big_n / (tile.n * tile.cols))
    blocks = (big_m / layout.block_m, big_n / layout.block_n)
    if padded:
        tiles, blocks = (ceil(tiles[0]), ceil(tiles[1])), (ceil(blocks[0]), ceil(blocks[1]))
    launched = layout.launched
    leaving = tile.m * tile.n * c / width(machine) if layout.waits_for_c or launched else 0.0
    left = tiles[0] * tiles[1] * leaving / sku.clock_hz
    compute = tiles[0] * tiles[1] * big_k * tile.m * tile.n / rate / sku.clock_hz
    moved = (big_m * big_k * a * blocks[1], big_k * big_n * b * blocks[0], big_m * big_n * c)
    shares = [burst_efficiency(machine, run) for run in layout.runs]
    costs = [ddr_bytes / shares[0]] if ddr_bytes else [x / share for x, share in zip(moved, shares)]
    reads = sum(costs[:2]) / sku.read_bytes_per_second
    shims = [x / n / width(machine) / sku.clock_hz for x, n in zip(moved, _shim_channels(machine, tile))]
    after = sku.dispatch_us * 1e-6
    if ddr_bytes:
        limits = {"cores": compute + left, "host memory": max(costs[0] / sku.ddr_bytes_per_second, reads)}
    elif launched is not None:
        limits = {"cores": compute, "host memory": reads, "shim channels": max(shims[:2])}
        after += left + max(costs[2] / sku.ddr_bytes_per_second, shims[2])
        counts = ceil(blocks[0]), ceil(blocks[1])
        groups = prod(groups_of(n, launched.group) for n in counts)
        after += (groups - 1) * machine.host["wait_us"] * 1e-6
        after += groups / prod(counts) * (reads + compute) * min(1.0, launched.step / big_k)
        if launched.casts:
            after += tiles[0] * tiles[1] * tile.m * tile.n * machine.timing["library_cast_cycles"] / sku.clock_hz
    else:
        host = max(sum(costs) / sku.ddr_bytes_per_second, reads)
        limits = {"cores": compute + left, "host memory": host, "shim channels": max(shims)}
    longest = max(limits, key=limits.__getitem__)
    return limits[longest] + after, longest


def groups_of(count: int, most: int) -> int:
    """Groups that `count` launches run in, as large as divides them and `most` at most."""
    return count // next(factor for factor in range(most, 0, -1) if count % factor == 0)


def _shim_channels(machine: Machine, tile: Tiling) -> tuple[int, int, int]:
    """Shim channels of A, B and C: one of each in a column, and no more than there are streams of A and of B.

    Cores along M are a column's cores, unless there are more of them than a column has.
    """
    tall = tile.rows > sum(machine.classes[name].kind == "core" for name in machine.row_classes)
    columns = tile.rows if tall else tile.cols
    return min(columns, tile.rows), min(columns, tile.cols), columns


def burst_efficiency(machine: Machine, run: float) -> float:
    """The share of host memory's rate that contiguous runs of `run` bytes reach; short ones take a line of 64 bytes.

    Short ones that divide no line lie in two of them now and then (48 bytes every second time). What longer ones lose
    that way is in the machine's constant, which follows from measurements of such runs.
    """
    if isinf(run):
        return 1.0
    touched = run if run >= MEMORY_LINE else MEMORY_LINE + run - gcd(max(1, int(run)), MEMORY_LINE)
    return run / (touched + machine.ddr.get("burst_half_bytes", 0.0))


def streamed_seconds(
    machine: Machine,
    sku: Sku,
    inward: float,
    outward: float,
    channels: tuple[int, int],
    *,
    busy_cycles: float,
    overlapped: bool = True,
) -> float:
    """Bytes through `channels` of the shims, in and out at once, while cores are busy: whatever takes longest.

    Not `overlapped`, with one buffer in the memory tiles and one in the cores: what comes from host memory then goes on
    to the cores, which then work, one after the other.
    """
    through = max(inward / channels[0], outward / channels[1]) / width(machine) / sku.clock_hz
    host = max((inward + outward) / sku.ddr_bytes_per_second, inward / sku.read_bytes_per_second)
    steps = (through, host, busy_cycles / sku.clock_hz)
    return (max(steps) if overlapped else sum(steps)) + sku.dispatch_us * 1e-6


def dot_product_cycles(machine: Machine, macs: float, nbytes: tuple[float, float]) -> float:
    """Cycles of a core for `macs` multiply-adds of a matrix times a vector: it loads both operands of each.

    A core loads two vector registers a cycle; `nbytes` are those of an element of the matrix and of the vector.
    """
    return macs * sum(nbytes) / (2 * machine.timing["copy_bytes_per_cycle"])


def whole_call_seconds(machine: Machine, nbytes: float) -> float:
    """What a host program adds that allocates its buffers in each call, and copies operands and results."""
    host = machine.host
    return nbytes / 2**20 * host["allocate_us_per_mib"] * 1e-6 + nbytes / host["copy_bytes_per_second"]


def on_chip_cycles(machine: Machine, words: int, hops: int) -> float:
    """A transfer between memories of tiles `hops` apart."""
    t = machine.timing
    start = t["bd_setup"] + t["channel_start"] + t["memory_latency"] + hops * t["hop"]
    return start + words * WORD / width(machine)


def shim_task_cycles(
    machine: Machine, direction: str, words: int, *, place: Literal["only", "first", "later"]
) -> float:
    """A transfer of `words` between host memory and a shim DMA: the only task, or the first or a later one of a queue.

    What begins takes a while to answer. An only task streams meanwhile; of several, the first waits for its followers.
    """
    t, way = machine.timing, direction.lower()
    stream, begins = _stream_cycles(machine, direction, words), t[f"first_task_{way}"]
    return t[f"shim_{way}_task"] + {"only": max(stream, begins), "first": stream + begins, "later": stream}[place]


def waits_for_host_memory(machine: Machine, direction: str, words: int) -> bool:
    """Whether an only task of `words` is over before host memory answers its first."""
    return _stream_cycles(machine, direction, words) < machine.timing[f"first_task_{direction.lower()}"]


def _stream_cycles(machine: Machine, direction: str, words: int) -> float:
    per_word = machine.timing["shim_mm2s_per_word"] if direction == "MM2S" else 1.0
    return words * per_word * WORD / width(machine)
