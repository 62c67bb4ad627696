"""Predictions of functions of vectors and of convolutions, and of kernels that need the row's rate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from neuc.backends.npu.known_machines import find_machine
from neuc.compiler.npu.row_models import predict
from neuc.compiler.npu.rows import Row, read_rows
from neuc.compiler.npu.validate import summarise

UNSEEN = Path(__file__).parent / "npu_unseen.csv"


def _time(kind: str, shape: str, dtype: str, config: str, unit: str = "us") -> float:
    found = predict(Row("a", "xdna2", kind, shape, dtype, config, None, unit), own_rates=True)
    assert found.value is not None, found.why_not
    return found.value


def test_functions_of_vectors_cost_what_they_move_and_compute():
    """Sums of long vectors wait for memory, whose rate in bytes is the time's inverse; curves cost a lookup each."""
    assert _time("add", "1048576", "bf16", "8 columns") > _time("relu", "1048576", "bf16", "8 columns")
    assert _time("gelu", "1048576", "bf16", "one core") > _time("relu", "1048576", "bf16", "one core")
    assert _time("softmax", "1024x1024", "bf16", "one core") > _time("rms_norm", "1024x1024", "bf16", "one core")
    assert _time("Eltwise Add", "1024x1024", "bf16", "") == _time("elementwise_add", "1048576", "bf16", "")
    assert _time("add", "1048576", "bf16", "", "GB/s") == pytest.approx(
        3 * 2 * 1048576 / _time("add", "1048576", "bf16", "", "ns")
    )
    assert _time("add", "1048576", "bf16", "", "GOPS") == pytest.approx(
        1048576 / _time("add", "1048576", "bf16", "", "ns")
    )


def test_operations_of_a_softmax_are_no_unit():
    found = predict(Row("a", "xdna2", "softmax", "64x64", "bf16", "", None, "GOPS"), own_rates=True)
    assert "unit GOPS is none that kind softmax is predicted in; known: cycles" in found.why_not


def test_a_rate_above_its_prediction_is_an_error_of_time_above_zero():
    row = Row("a", "xdna2", "add", "1048576", "bf16", "", 1e6, "GB/s")
    assert (predict(row, own_rates=True).error or 0) > 0


def test_a_convolution_takes_its_kernels_rate_from_the_row():
    """Nine taps are nine times the work of one, a stride of two a quarter; published kernels differ a hundredfold."""
    dispatch = find_machine("npu-xdna2").skus["krackan_ai7_350"].dispatch_us

    def kernel(config: str) -> float:
        return _conv(f"rate=4; {config}") - dispatch

    assert kernel("one core; filter=3x3") == pytest.approx(9 * kernel("one core; filter=1x1"))
    assert kernel("one core; filter=3x3; stride=2") == pytest.approx(kernel("one core; filter=3x3") / 4)
    assert kernel("4x8 cores; filter=3x3") == pytest.approx(kernel("one core; filter=3x3") / 32)
    for config, said in (
        ("", "give rate="),
        ("rate=0", "rate=0 makes no sense"),
        ("rate=4; stride=0", "stride=0 makes"),
    ):
        refused = predict(Row("a", "xdna2", "conv2d", "64x64x64x64", "i8", config, None, "us"), own_rates=False)
        assert said in refused.why_not


def _conv(config: str) -> float:
    found = predict(Row("a", "xdna2", "conv2d", "64x64x64x64", "i8", config, None, "us"), own_rates=False)
    assert found.value is not None, found.why_not
    return found.value


def test_softmax_takes_a_core_as_long_on_both_generations():
    """Within gates by IREE's runs, of which the longest on Hawk Point is a calibration row."""
    rows = [row for row in read_rows(UNSEEN) if row.kind == "softmax" and "hx370_softmax_4096_32" not in row.id]
    found = summarise([predict(row, own_rates=True) for row in rows])
    assert found is not None
    assert (found.count, found.missed("softmax")) == (3, ())


def test_a_kernel_without_figures_is_not_guessed():
    row = Row("a", "xdna2", "gemm", "512x512x512", "bf16", "iron.gemm", None, "us")
    assert "give rate=" in predict(row, own_rates=True).why_not
    assert predict(replace(row, config="iron.gemm; rate=20"), own_rates=False).value is not None
    assert predict(replace(row, device="xdna1"), own_rates=True).value is not None


def test_launches_of_a_product_with_a_vector_wait_in_groups():
    """mlir-air's 7 launches of 896 rows are as many groups, 8 of 1024 rows two: waits are five more, not two fewer."""

    def waits(rows: int, columns: str = "8 columns") -> float:
        times = [
            predict(Row("a", "strix", "gemv", f"{rows}x896", "bf16", f"{columns}{words}", None, "us"), own_rates=True)
            for words in ("; mlir-air; dispatch=0.1us", "; dispatch=0.1us")
        ]
        assert times[0].seconds is not None
        return times[0].seconds

    wait = find_machine("npu-xdna2").host["wait_us"] * 1e-6
    a_row = (waits(1024 * 4) - waits(1024)) / 3072 - 6 * wait / 3072
    assert waits(896) == pytest.approx(waits(1024) - 128 * a_row + 5 * wait, rel=1e-3)
