"""How published GEMM programs use host memory: IREE's tiles and blocks by its own rules, runs by the others'."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from neuc.backends.npu import gemm_layouts as layouts
from neuc.backends.npu.gemm_layouts import IreeDesign
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.timing_model import (
    GemmType,
    Launched,
    Layout,
    Tiling,
    burst_efficiency,
    gemm_seconds,
    streamed_seconds,
)

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


def test_a_short_run_that_divides_no_line_lies_in_two_of_them():
    """48 bytes at multiples of 48 begin at 0, 48, 32 and 16 of a line: in one, two, two and one line, 96 bytes each."""
    assert burst_efficiency(XDNA2, 48) == pytest.approx(48 / (96 + XDNA2.ddr["burst_half_bytes"]))
    assert burst_efficiency(XDNA2, 32) == pytest.approx(32 / (64 + XDNA2.ddr["burst_half_bytes"]))


def _limit(cores: tuple[int, int], *, block_n: int = 64, ddr_bytes: float | None = None) -> tuple[float, str]:
    tile = Tiling(64, 64, 64, *cores)
    layout = Layout(64 * cores[0], block_n * cores[1], LONG)
    sku = XDNA1.skus["phoenix"]
    shape = (2048, 2048, 2048)
    return gemm_seconds(XDNA1, sku, BF16, shape, tile, inf, layout, padded=True, ddr_bytes=ddr_bytes)


def test_few_columns_wait_for_their_shims():
    """One column reads A 32 times through one channel of 4 bytes a cycle: 268 MB at 4 GB/s."""
    seconds, limit = _limit((4, 1))
    assert limit == "shim channels"
    assert seconds == pytest.approx(2048**2 * 2 * 32 / 4e9 + XDNA1.skus["phoenix"].dispatch_us * 1e-6)
    assert _limit((4, 4))[1] == "host memory"
    assert _limit((4, 1), ddr_bytes=1e6)[1] == "host memory"


def test_reads_have_a_limit_of_their_own():
    """Reads and writes together reach 66.5 GB/s on Strix, reads alone do not."""
    sku = XDNA2.skus["strix"]
    assert sku.read_bytes_per_second < sku.ddr_bytes_per_second
    reads = streamed_seconds(XDNA2, sku, 1e9, 0, (8, 8), busy_cycles=0) - sku.dispatch_us * 1e-6
    assert reads == pytest.approx(1e9 / sku.read_bytes_per_second)
    assert XDNA2.skus["strix_halo_max395"].read_bytes_per_second == XDNA2.skus["strix_halo_max395"].ddr_bytes_per_second


def test_one_buffer_each_makes_transfers_and_work_follow_one_another():
    sku, busy = XDNA2.skus["strix"], 1e6

    def seconds(*, overlapped: bool) -> float:
        moved = streamed_seconds(XDNA2, sku, 1e8, 0, (8, 8), busy_cycles=busy, overlapped=overlapped)
        return moved - sku.dispatch_us * 1e-6

    steps = (1e8 / sku.read_bytes_per_second, 1e8 / (8 * 8 * sku.clock_hz), busy / sku.clock_hz)
    assert seconds(overlapped=True) == pytest.approx(max(steps))
    assert seconds(overlapped=False) == pytest.approx(sum(steps))


def test_launches_wait_for_their_first_operands_for_c_and_for_each_other():
    """Half of K is fetched before cores begin, half multiplied when all has come; then C leaves, rounded one by one.

    Of 3 x 4 blocks, launched 2 at most along each side, groups are of 1 x 2, so that five wait for the one before.
    """
    sku, tile, shape = XDNA2.skus["strix"], Tiling(64, 32, 64, 8, 4), (512, 64, 256)
    at_once = Layout(512, 256, LONG)

    def seconds(layout: Layout) -> float:
        found, _ = gemm_seconds(XDNA2, sku, BF16, shape, tile, 100, layout, padded=True)
        return found

    compute = 64 * 64 * 64 / 100 / sku.clock_hz
    reads = (512 + 256) * 64 * 2 / sku.read_bytes_per_second
    c_leaves = 64 * 64 * 4 / 8 / sku.clock_hz + 512 * 256 * 4 / sku.ddr_bytes_per_second
    one = max(compute, reads) + c_leaves
    alone = one + (compute + reads) / 2 + sku.dispatch_us * 1e-6
    assert seconds(replace(at_once, launched=Launched(2, 32, casts=False))) == pytest.approx(alone)
    assert seconds(at_once) < alone
    cast = 64 * 64 * XDNA2.timing["library_cast_cycles"] / sku.clock_hz
    assert seconds(replace(at_once, launched=Launched(2, 32, casts=True))) == pytest.approx(alone + cast)
    shape = (3 * 512, 64, 4 * 256)
    groups = 6 * (compute + reads) / 2 + 5 * XDNA2.host["wait_us"] * 1e-6
    expected = 12 * one + groups + sku.dispatch_us * 1e-6
    assert seconds(replace(at_once, launched=Launched(2, 32, casts=False))) == pytest.approx(expected)
