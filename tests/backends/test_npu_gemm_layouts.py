"""How published GEMM programs use host memory: IREE's tiles and blocks by its own rules, runs by the others'."""

from __future__ import annotations

from math import inf

import pytest

from neuc.backends.npu import gemm_layouts as layouts
from neuc.backends.npu.gemm_layouts import IreeDesign
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.timing_model import GemmType, Tiling, burst_efficiency

XDNA1, XDNA2 = find_machine("npu-xdna1"), find_machine("npu-xdna2")
BF16, I8, TRUNCATED = GemmType("bf16", "bf16", "f32"), GemmType("i8", "i8", "i32"), GemmType("i8", "i8", "i8")
LONG = (inf, inf, inf)


def test_iree_fills_a_core_with_two_buffers_each():
    """40960 of 65536 bytes; the next larger sides, 64 x 128 x 32, would be 65536, which IREE takes as too much."""
    assert layouts.iree_tile(XDNA1, BF16, (512, 512, 4096)) == (32, 128, 32)
    assert layouts.iree_tile(XDNA2, I8, (512, 512, 4096)) == (64, 128, 32)
    assert layouts.iree_tile(XDNA2, TRUNCATED, (1024, 512, 16384)) == (64, 128, 64)


@pytest.mark.parametrize(
    ("design", "block", "runs"),
    [
        (IreeDesign(), (128, 128), (256, 64, 128)),
        (IreeDesign(direct=True), (128, 128), (64, 64, 128)),
        (IreeDesign(four_levels=True), (256, 256), (256, 64, 128)),
        (IreeDesign(four_levels=True, direct=True), (256, 256), (128, 64, 128)),
        (IreeDesign(four_levels=True, packed=True), (256, 256), LONG),
    ],
)
def test_iree_programs_differ_in_blocks_and_runs(
    design: IreeDesign, block: tuple[int, int], runs: tuple[float, float, float]
):
    layout = layouts.iree(XDNA1, BF16, (512, 512, 4096), (4, 4), design)
    assert (layout.block_m, layout.block_n) == block
    assert layout.runs == runs


def test_runs_of_the_other_programs():
    tile = Tiling(64, 32, 128, 4, 8)
    assert layouts.whole_array(BF16, tile, 32, b_row_major=True, one_c_buffer=False).runs == (64, 256, 512)
    assert layouts.whole_array(BF16, tile, 512, b_row_major=False, one_c_buffer=False).runs == (1024, 1024, 512)
    assert layouts.flm(BF16, tile).runs == (1024, inf, 512)
    assert layouts.balanced(BF16, tile, b_row_major=False).runs == LONG
    assert layouts.balanced(BF16, tile, b_row_major=True).runs == (inf, 256, inf)


def test_a_run_shorter_than_a_line_costs_a_line():
    assert burst_efficiency(XDNA2, inf) == 1
    assert burst_efficiency(XDNA2, 16) == pytest.approx(burst_efficiency(XDNA2, 64) / 4)
    assert burst_efficiency(XDNA2, 256) > burst_efficiency(XDNA2, 128) > burst_efficiency(XDNA2, 64)
