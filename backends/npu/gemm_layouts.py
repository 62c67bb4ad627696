"""How GEMM programs use host memory: the block of C they make at once, and the contiguous runs A, B and C lie in.

Published measurements come from a few programs, and what host memory gives them differs by a factor of three.
Everything here follows from what those programs' sources and descriptions say; times are `timing_model.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuc.backends.npu.timing_model import ELEMENT_BYTES, GemmType, Layout, Tiling
from neuc.runtime.npu.machine import Machine

_LONG = float("inf")
_FLM_K = 512
_IREE_TILES = (16, 128)
"""Smallest and largest side of a core's tile that IREE tries (AMDAIETileSizeSelectionUtils.cpp)."""
_IREE_DIRECT_K = 32
"""k of a tile where IREE generates the kernel itself; twice that with four levels of tiling (KernelDispatch.cpp)."""
_INSTRUCTIONS = {1: (4, 4, 8), 2: (8, 8, 8)}
"""m, n, k of the instruction that tiles are multiples of, by generation."""


@dataclass(frozen=True)
class IreeDesign:
    """What names of IREE's benchmarks say of a program; `direct`: no hand-written kernel; `packed`: 4-d operands."""

    four_levels: bool = False
    direct: bool = False
    packed: bool = False


def balanced(kind: GemmType, tile: Tiling, *, b_row_major: bool, one_c_buffer: bool = True) -> Layout:
    """The design of arXiv 2512.13282: k is collected in memory tiles, C has one buffer; B by rows alone comes short."""
    run_b = tile.n * kind.nbytes[1] if b_row_major else _LONG
    return Layout(tile.m * tile.rows, tile.n * tile.cols, (_LONG, run_b, _LONG), waits_for_c=one_c_buffer)


def whole_array(kind: GemmType, tile: Tiling, k: int, *, b_row_major: bool, one_c_buffer: bool) -> Layout:
    """mlir-aie's example and amd/IRON's GEMM: runs are as long as sides of what a memory tile collects, k columns of A.

    That is one tile of a core, unless the program says more.
    """
    a, b, c = kind.nbytes
    runs = (k * a, (tile.n if b_row_major else k) * b, tile.n * c)
    return Layout(tile.m * tile.rows, tile.n * tile.cols, runs, waits_for_c=one_c_buffer)


def flm(kind: GemmType, tile: Tiling) -> Layout:
    """amd/IRON's flm.GEMM: B is packed in the order of its use, A comes in slices of 512 columns."""
    a, _, c = kind.nbytes
    return Layout(tile.m * tile.rows, tile.n * tile.cols, (_FLM_K * a, _LONG, tile.n * c))


def iree(
    machine: Machine, kind: GemmType, shape: tuple[int, int, int], cores: tuple[int, int], design: IreeDesign
) -> Layout:
    """IREE's program for M x K x N: its own choice of tiles, by its rules (KernelDispatch.cpp of iree-amd-aie)."""
    big_m, big_k, big_n = shape
    a, b, c = kind.nbytes
    m, k, n = iree_tile(machine, kind, shape)
    rows, cols = cores
    block_m = _factor(big_m, rows * m, m)
    block_n = _factor(big_n, cols * n, n)
    m, n = max(1, block_m // rows), max(1, block_n // cols)
    if design.direct:
        k = min(big_k, _IREE_DIRECT_K * (2 if design.four_levels else 1))
    if design.four_levels:
        block_m, block_n = _largest_block(machine, kind, shape, (m, n), cols)
    runs = (_LONG, _LONG, _LONG) if design.packed else (k * a, n * b, n * c)
    return Layout(block_m, block_n, runs)


def iree_tile(machine: Machine, kind: GemmType, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The tile m, k, n that fills most of a core's memory with two buffers each, sides halved one after the other.

    Results narrower than the accumulator (i8) leave room for one in 32 bits beside them.
    """
    big_m, big_k, big_n = shape
    a, b, c = kind.nbytes
    sides = _INSTRUCTIONS.get(machine.generation, (8, 8, 8))
    least, most = _IREE_TILES
    m, n, k = (_factor(size, most, side) for size, side in zip((big_m, big_n, big_k), sides))
    accumulator = ELEMENT_BYTES["i32"] if c < ELEMENT_BYTES["i32"] else 0.0
    best, used = (least, least, least), 0.0
    while min(m, n, k) >= least:
        bytes_used = 2 * (m * k * a + n * k * b + m * n * c) + m * n * accumulator
        fits = bytes_used < machine.classes["core"].memory_bytes
        divides = not (big_m % m or big_n % n or big_k % k or m % sides[0] or n % sides[1] or k % sides[2])
        if fits and divides and bytes_used > used:
            best, used = (m, k, n), bytes_used
        if n >= m and n >= k // 2:
            n //= 2
        elif m >= k // 2:
            m //= 2
        else:
            k //= 2
    return best


def _largest_block(
    machine: Machine, kind: GemmType, shape: tuple[int, int, int], tile: tuple[int, int], cols: int
) -> tuple[int, int]:
    """The block of C that fills most of the memory tiles, sides doubled one after the other, K whole."""
    big_m, big_k, big_n = shape
    a, b, c = kind.nbytes
    (m, n), best, used = tile, tile, 0.0
    room = machine.classes["mem"].memory_bytes * cols
    while m <= big_m and n <= big_n:
        bytes_used = 2 * (m * big_k * a + n * big_k * b + m * n * c)
        if not (big_m % m or big_n % n) and used < bytes_used <= room:
            best, used = (m, n), bytes_used
        wider = m * 2 > big_m or (n < m and n * 2 <= big_n)
        m, n = (m, n * 2) if wider else (m * 2, n)
    return best


def _factor(number: int, most: int, multiple: int) -> int:
    """The largest factor of a number up to `most` that is a multiple of `multiple`; that multiple if there is none."""
    for factor in range(min(most, number) // multiple * multiple, 0, -multiple):
        if number % factor == 0:
            return factor
    return multiple
