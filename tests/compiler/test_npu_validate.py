"""The timing model beside published measurements: gates, both kernel-rate modes, and files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.timing_model import GemmType, Tiling, kernel_macs_per_cycle
from neuc.compiler.cli import main
from neuc.compiler.npu.validate import Prediction, Row, kendall, predict, read_rows, summarise
from neuc.errors import Error

ROWS = Path(__file__).parent / "npu_calibration.csv"
ORIENTATION = ("tibrezus",)  # facts 7.10: single published figures of unknown kernels, no calibration rows
ARRAY_GATE = (0.03, 0.08)  # median and largest error of the array paper's GEMM rows
MICRO_GATE = (0.05, 0.15)  # of on-chip DMA times, whose noise is 6-25 %
GEMM_GATE = (0.12, 0.25)
TAU_GATE = 0.8


def _predictions(*, own_rates: bool, kinds: tuple[str, ...]) -> list[Prediction]:
    rows = [row for row in read_rows(ROWS) if row.kind in kinds and row.device not in ORIENTATION]
    rows = [row for row in rows if not row.id.startswith(ORIENTATION)]
    return [predict(row, own_rates=own_rates) for row in rows]


@pytest.mark.parametrize("own_rates", [False, True], ids=["rates-as-given", "own-kernel-model"])
@pytest.mark.parametrize(
    ("kinds", "gate"),
    [
        (("gemm_array",), ARRAY_GATE),
        (("shim_single_bd",), MICRO_GATE),
        (("shim_chained",), MICRO_GATE),
        (("gemm", "gemm_array_memory_bound"), GEMM_GATE),
    ],
    ids=["array", "shim", "chained", "gemm"],
)
def test_errors_are_within_their_gates(own_rates: bool, kinds: tuple[str, ...], gate: tuple[float, float]):
    found = summarise(_predictions(own_rates=own_rates, kinds=kinds))
    assert found is not None
    assert found.median <= gate[0]
    assert found.maximum <= gate[1]
    assert found.tau is not None
    assert found.tau >= TAU_GATE


def test_where_rates_come_from_is_said():
    given = _predictions(own_rates=False, kinds=("gemm_array",))
    own = _predictions(own_rates=True, kinds=("gemm_array",))
    assert {p.rate_source for p in given} == {"row"}
    assert {p.rate_source for p in own} == {"model"}


def test_kernels_are_bound_by_their_dma():
    """Equation 4 of the paper: 48x280x48 moves 13440 bytes in 3360 cycles, four a cycle; no faster kernel is legal."""
    rate = kernel_macs_per_cycle(find_machine("npu-xdna1"), GemmType("i8", "i8", "i32"), Tiling(48, 280, 48, 1, 1))
    assert rate == 192


def test_rows_without_values_are_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "rows.csv"
    path.write_text("id,device,kind,shape,dtype,config,value,unit\na,phoenix,gemm,256x512x512,bf16,4x4 flm,,us\n")
    assert main(["npu", "validate", str(path), "--rates", "given"]) == 0
    out = capsys.readouterr().out
    assert "a" in out
    assert "median" not in out
    (prediction,) = [predict(row, own_rates=False) for row in read_rows(path)]
    assert prediction.value is not None
    assert prediction.error is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,device\n", "lacks columns kind"),
        ("id,device,kind,shape,dtype,config,value,unit\na,b,c,d,e,f,many,us\n", "line 2"),
        ("id,device,kind,shape,dtype,config,value,unit\na,b,c,d,e,f,nan,us\n", "line 2: value nan"),
        ("id,device,kind,shape,dtype,config,value,unit\na,b,c,d,e,f,-5,us\n", "line 2: value -5"),
        ("id,device,kind,shape,dtype,config,value,unit\n", "holds no rows"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(Error, match=message) as caught:
        read_rows(path)
    assert caught.value.code == "NEUC-E684"


@pytest.mark.parametrize(
    ("kind", "shape", "config"),
    [
        ("gemm", "64x64x64", "rate=0"),
        ("gemm", "64x64x64", "rate=1.2.3"),
        ("gemm", "64x64x64", "kernel=0x0x0"),
        ("gemm", "0x64x64", ""),
        ("gemm", "-4x64x64", ""),
        ("gemm", "9" * 400 + "x5x6", ""),
        ("kernel", "0x0x0", ""),
        ("shim_single_bd", "9" * 5000, "MM2S"),
    ],
)
def test_rows_that_make_no_sense_are_not_predicted(kind: str, shape: str, config: str):
    prediction = predict(Row("a", "xdna1", kind, shape, "i8", config, 5.0, "us"), own_rates=False)
    assert prediction.value is None
    assert prediction.why_not


def test_kendalls_tau():
    assert kendall([(1, 1), (2, 2), (3, 3)]) == 1
    assert kendall([(1, 3), (2, 2), (3, 1)]) == -1
    assert kendall([(1, 1)]) is None
