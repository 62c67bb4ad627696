"""Reading rows of measurements: what a spreadsheet writes, shapes and ids that are wrong, and how numbers are said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from neuc.compiler.cli import main
from neuc.compiler.npu.row_models import predict
from neuc.compiler.npu.rows import Row, read_rows
from neuc.errors import Exit

TEXT = "id,device,kind,shape,dtype,config,value,unit\n"


def _predicted(shape: str) -> float | None:
    return predict(Row("a", "xdna2", "add", shape, "bf16", "", None, "us"), own_rates=True).value


def _validate(tmp_path: Path, row: str) -> int:
    path = tmp_path / "rows.csv"
    path.write_text(TEXT + row + "\n")
    return main(["npu", "validate", str(path)])


@pytest.mark.parametrize("shape", ["1MB", "4096abc", "64*64", "-64", "64x", "x64", "1e6"])
def test_shapes_are_read_whole_or_not_at_all(shape: str):
    found = predict(Row("a", "xdna2", "add", shape, "bf16", "", None, "us"), own_rates=True)
    assert f"shape {shape} makes no sense" in found.why_not
    assert _predicted("4k") == _predicted("4096")


def test_a_mark_of_the_byte_order_is_no_part_of_the_first_column(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text(TEXT + "a,xdna2,add,4096,bf16,,,us\n", encoding="utf-8-sig")
    assert [row.id for row in read_rows(path)] == ["a"]


def test_ids_that_rows_share_and_fields_without_a_column_are_faults(tmp_path: Path):
    path = tmp_path / "rows.csv"
    row = "a,xdna2,add,4096,bf16,,,us\n"
    path.write_text(TEXT + row + row + "b,xdna2,add,4096,bf16,,,us,extra\n")
    faults = [row.fault for row in read_rows(path)]
    assert faults == ["", "line 3: id a is that of line 2, too", "line 4: more fields than the header's 8 columns"]


def test_a_row_that_gives_a_rate_is_not_told_to_give_one():
    row = Row("a", "xdna2", "conv2d", "56x56x64x64", "i8", "filter=3x3; rate=2", None, "us")
    assert predict(row, own_rates=False).value is not None
    said = predict(row, own_rates=True).why_not
    assert "no kernel model of our own for convolutions" in said
    assert "give rate=" not in said
    assert "give rate=" in predict(replace(row, config="filter=3x3"), own_rates=True).why_not


def test_numbers_are_said_to_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert _validate(tmp_path, "a,xdna2,add,4096,bf16,,1e-5,us") == Exit.MISMATCH
    said = capsys.readouterr().out
    assert "which says the same" in said
    assert said.count("add: 1 row, median error 1.01e+07 times, largest 1.01e+07 times") == 1
    _validate(tmp_path, "a,xdna2,gemm,512x512x512,i8,rate=10,,us")
    said = capsys.readouterr().out
    assert "which says the same" not in said
    assert said.count("own kernel model:") == 1


@pytest.mark.parametrize("config", ["One Core; Tile 16X32X48; Rate = 9", "single core; kernel=16x32x48; rate=9"])
def test_words_of_config_may_be_capitals(config: str):
    row = Row("a", "xdna1", "gemm", "512x512x512", "i8", config, None, "us")
    found = predict(row, own_rates=False)
    assert found.value == predict(replace(row, config="one core; tile 16x32x48; rate=9"), own_rates=False).value
    assert found.row == row
