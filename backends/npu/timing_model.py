"""How long kernels, transfers and whole GEMMs take by the machine model alone: closed forms, no simulation.

Kernel: cycles = m·n·(k / peak + per_output), at least what its DMA needs for a tile (arXiv 2512.13282, equation 4).
Array: t = max(tiles·(K·m·n / rate + m·n·bytes_C / width) / f, (A + B + C) / BW) + dispatch, A and B counted as often as
tiles read them again. Constants are the machine file's, fitted once a dtype or kernel library and never to a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from neuc.runtime.npu.machine import GemmRate, Machine, Sku

ELEMENT_BYTES = {
    **{f"{sign}{bits}": bits / 8 for sign in "iu" for bits in (8, 16, 32)},
    **{"i4": 0.5, "bf16": 2.0, "f32": 4.0, "bfp16": 9 / 8, "ternary": 0.25},
}
WORD = 4


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


def gemm_seconds(
    machine: Machine,
    sku: Sku,
    kind: GemmType,
    shape: tuple[int, int, int],
    tile: Tiling,
    rate: float,
    *,
    padded: bool,
    ddr_bytes: float | None = None,
    b_row_major: bool = False,
) -> float:
    """A whole GEMM of M x K x N; `rate` is the kernel's multiply-adds a cycle.

    With `padded`, partial tiles cost as much as whole ones; shapes of the array paper are whole tiles but for rounding.
    `ddr_bytes` is the traffic, if it is known better than tiles tell it. With `b_row_major`, B comes in runs of n
    elements, for which host memory is as slow as the machine's curve of bursts says.
    """
    big_m, big_k, big_n = shape
    a, b, c = kind.nbytes
    across, down = big_n / (tile.n * tile.cols), big_m / (tile.m * tile.rows)
    if padded:
        across, down = ceil(across), ceil(down)
    each = big_k * tile.m * tile.n / rate + tile.m * tile.n * c / width(machine)
    compute = across * down * each / sku.clock_hz
    share = burst_efficiency(machine, tile.n * b) if b_row_major else 1.0
    traffic = ddr_bytes or big_m * big_k * a * across + big_k * big_n * b * down / share + big_m * big_n * c
    return max(compute, traffic / sku.ddr_bytes_per_second) + sku.dispatch_us * 1e-6


def burst_efficiency(machine: Machine, run: float) -> float:
    """The share of host memory's rate that contiguous runs of `run` bytes reach."""
    half = machine.ddr.get("burst_half_bytes", 0.0)
    return run / (run + half)


def streamed_seconds(
    machine: Machine, sku: Sku, inward: float, outward: float, columns: int, *, busy_cycles: float
) -> float:
    """Bytes through `columns` columns' shims, in and out at once, while cores are busy: whatever takes longest.

    One channel a column each way, as simple designs have.
    """
    through = max(inward, outward) / (width(machine) * columns) / sku.clock_hz
    host = (inward + outward) / sku.ddr_bytes_per_second
    return max(through, host, busy_cycles / sku.clock_hz) + sku.dispatch_us * 1e-6


def on_chip_cycles(machine: Machine, words: int, hops: int) -> float:
    """A transfer between memories of tiles `hops` apart."""
    t = machine.timing
    start = t["bd_setup"] + t["channel_start"] + t["memory_latency"] + hops * t["hop"]
    return start + words * WORD / width(machine)


def shim_task_cycles(machine: Machine, direction: str, words: int, *, first_of_many: bool) -> float:
    """A single transfer of `words` between host memory and a shim DMA; the first of several queued ones costs more."""
    t, way = machine.timing, direction.lower()
    per_word = t["shim_mm2s_per_word"] if way == "mm2s" else 1.0
    per_word *= WORD / width(machine)
    start = t[f"first_task_{way}"] if first_of_many else 0.0
    return t[f"shim_{way}_task"] + words * per_word + start


def sku_of(machine: Machine, device: str) -> Sku | None:
    """The product a row names, or one whose name begins alike."""
    if device in machine.skus:
        return machine.skus[device]
    near = [name for name in sorted(machine.skus) if name.startswith(device) or device.startswith(name)]
    return machine.skus[near[0]] if near else None
