"""How long kernels, transfers and whole GEMMs take by the machine model alone: closed forms, no simulation.

Kernel: cycles = m·n·(k / peak + per_output), at least what its DMA needs for a tile (arXiv 2512.13282, equation 4).
Array: t = max(tiles·(K·m·n / rate + m·n·bytes_C / width) / f, (A + B + C) / BW) + dispatch, A and B counted as often as
tiles read them again. Constants are the machine file's, fitted once a dtype or kernel library and never to a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from neuc.runtime.npu.machine import GemmRate, Machine, Sku

_BYTES = {"i8": 1.0, "i4": 0.5, "i16": 2.0, "i32": 4.0, "bf16": 2.0, "f32": 4.0, "bfp16": 9 / 8, "ternary": 0.25}
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
        return (_BYTES[self.a], _BYTES[self.b], _BYTES[self.c])


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
    return (machine.libraries[library] if library in machine.libraries else machine.gemm).get(kind.key)


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
) -> float:
    """A whole GEMM of M x K x N; `rate` is the kernel's multiply-adds a cycle.

    With `padded`, partial tiles cost as much as whole ones; shapes of the array paper are whole tiles but for rounding.
    `ddr_bytes` is the traffic, if it is known better than tiles tell it.
    """
    big_m, big_k, big_n = shape
    a, b, c = kind.nbytes
    across, down = big_n / (tile.n * tile.cols), big_m / (tile.m * tile.rows)
    if padded:
        across, down = ceil(across), ceil(down)
    each = big_k * tile.m * tile.n / rate + tile.m * tile.n * c / width(machine)
    compute = across * down * each / sku.clock_hz
    traffic = ddr_bytes or big_m * big_k * a * across + big_k * big_n * b * down + big_m * big_n * c
    return max(compute, traffic / sku.ddr_bytes_per_second) + sku.dispatch_us * 1e-6


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
