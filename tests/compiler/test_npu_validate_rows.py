"""Reading rows of measurements: what a spreadsheet writes, shapes and ids that are wrong, and how numbers are said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from neuc.compiler.cli import main
from neuc.compiler.npu.row_devices import machine_for
from neuc.compiler.npu.row_fields import type_in
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
    assert "own kernel model, as no row gives a rate=:\n" in said
    assert said.count("add: 1 row, median error 1.01e+07 times, largest 1.01e+07 times") == 1
    _validate(tmp_path, "a,xdna2,gemm,512x512x512,i8,rate=10,,us")
    said = capsys.readouterr().out
    assert "which says the same" not in said
    assert said.count("own kernel model:") == 1
    _validate(tmp_path, "a,xdna2,add,4096,bf16,rate=10,,us")
    assert "kernel rates as given, and own kernel model, which says the same:\n" in capsys.readouterr().out


@pytest.mark.parametrize("config", ["One Core; Tile 16X32X48; Rate = 9", "single core; kernel=16x32x48; rate=9"])
def test_words_of_config_may_be_capitals(config: str):
    row = Row("a", "xdna1", "gemm", "512x512x512", "i8", config, None, "us")
    found = predict(row, own_rates=False)
    assert found.value == predict(replace(row, config="one core; tile 16x32x48; rate=9"), own_rates=False).value
    assert found.row == row


@pytest.mark.parametrize(
    ("device", "config", "why"),
    [
        ("strix_halo_max395", "iron.gemm; 8 columns; tile 64x64x64", "15 to 52 multiply-adds a cycle"),
        ("krackan_ai7_350", "iron.gemm; 8 columns; tile 64x64x64", "15 to 52 multiply-adds a cycle"),
        ("npu-xdna1", "rate=100000", "rate=100000 is more than any core of npu-xdna1 does, 512"),
    ],
)
def test_kernels_nobody_has_figures_of_are_not_predicted(device: str, config: str, why: str):
    found = predict(Row("a", device, "gemm", "2048x2048x2048", "bf16", config, None, "us"), own_rates=False)
    assert found.value is None
    assert why in found.why_not


@pytest.mark.parametrize(
    ("device", "known"),
    [
        ("AMD Ryzen AI 9 365 w/ Radeon 880M", "strix_365"),
        ("AMD Ryzen 7 8845HS w/ Radeon 780M Graphics", "hawk_8845hs"),
        ("Hawk Point", "hawk_8845hs"),
        ("Ryzen 9 7940HS", "phoenix_7940hs"),
        ("Ryzen AI MAX+ 395", "strix_halo_max395"),
        ("strix_halo", "strix_halo_max395"),
        ("Strix Point HX 370", "strix_hx370"),
        ("Krackan Point", "krackan_ai7_350"),
        ("RyzenAI-npu4", "npu2"),
        ("Strix Point", "strix"),
        ("npu1_2col", "npu1_2col"),
        ("npu14", None),
        ("AIE-ML", None),
        ("", None),
    ],
)
def test_devices_as_their_sources_spell_them(device: str, known: str | None):
    machine, _, name = machine_for(device)
    assert (name if machine else None) == known


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("int8 x int4", "i8xi4->i32"),
        ("bfloat16", "bf16xbf16->bf16"),
        ("bf16 in, f32 out", "bf16xbf16->f32"),
        ("bf16xbf16 -> fp32", "bf16xbf16->f32"),
        ("bfp16-bf16", "bfp16xbfp16->bf16"),
        ("i8_i32", "i8xi8->i32"),
        ("w4a8", None),
        ("i8, i32", None),
    ],
)
def test_element_types_as_their_sources_spell_them(text: str, key: str | None):
    found = type_in(text)
    assert (found.key if found else None) == key


def test_kinds_and_units_as_their_sources_spell_them(tmp_path: Path):
    path = tmp_path / "rows.csv"
    lines = (
        "a,xdna2,Matmul,512x512x512,i8,,9,GFLOP/s",
        "b,xdna2,GEMM,512x512x512,i8,,9,\u00b5s",
        "c,xdna2,kernel,64x64x64,i8,,9,MACs/cycle",
        "d,xdna2,shim DMA,4096,u32,MM2S,9,cycle",
        "e,xdna2,sieve,4096,u32,,9,%",
    )
    path.write_text(TEXT + "\n".join(lines), encoding="utf-8")
    rows = read_rows(path)
    assert [(row.kind, row.unit) for row in rows] == [
        ("gemm", "GFLOPS"),
        ("gemm", "us"),
        ("kernel", "MAC/cycle"),
        ("shim_single_bd", "cycles"),
        ("sieve", "%"),
    ]
    assert (predict(rows[0], own_rates=True).error or 0) < 0, "9 GFLOPS are slower than predicted"
    plain = replace(rows[1], kind="gemm")
    assert predict(replace(rows[1], kind="GEMM"), own_rates=True).value == predict(plain, own_rates=True).value


def test_chains_of_tasks_wait_for_the_controller():
    """Eight tasks are the first, seven following ones, and what lies between them; a gap alone is a row, too."""

    def cycles(config: str) -> float:
        found = predict(Row("a", "phoenix", "shim_chained", "64", "u32", config, None, "cycles"), own_rates=True)
        assert found.value is not None, found.why_not
        return found.value

    each = cycles("S2MM K=8 following tasks") + cycles("S2MM K=8 gap between tasks")
    assert cycles("S2MM K=8 total span") == cycles("S2MM K=8") == cycles("S2MM K=8 first task") + 7 * each
    assert cycles("S2MM K=8") == pytest.approx(22025, rel=0.05), "xdna-emu's run"


def test_repeats_on_one_core_are_irees():
    """Whoever compiled the kernel is in the row or not, and the chip's full name says as much as its short one."""

    def seconds(device: str, config: str) -> float | None:
        row = Row("a", device, "gemm", "512x512x512", "i8->i32", config, None, "ms")
        return predict(row, own_rates=True).value

    said = seconds("strix_hx370", "one core; x100 repeats")
    assert said == seconds("AMD Ryzen AI 9 HX 370 w/ Radeon 890M", "iree; peano; one core; x100 repeats")
    assert said == pytest.approx(31.8, rel=0.1), "IREE's median"


def test_a_source_says_what_its_config_leaves_out(tmp_path: Path):
    """tibrezus times whole calls of peano's kernels, mlir-air a start and a wait; words of config come first."""
    path = tmp_path / "rows.csv"
    path.write_text(
        "id,source,device,kind,shape,dtype,config,value,unit\n"
        "a,tibrezus,phoenix,gemm,256x256x256,i16,1 core,30.5,GOPS\n"
        "b,tibrezus,phoenix,gemm,512x512x512,i16,16 cores,264.7,GOPS\n"
        "c,tibrezus,phoenix,gemm,512x512x512,i16,16 cores; dispatch=100us,264.7,GOPS\n"
        "d,Xilinx/mlir-air,strix,gemm,2048x2048x2048,bf16->f32,herd 8x4; tile 64/512/32/128,8508,GFLOPS\n"
    )
    a, b, c, d = (predict(row, own_rates=True) for row in read_rows(path))
    assert abs(a.error or 1) < 0.12
    assert abs(b.error or 1) < 0.12
    assert "dispatch 100 us" in c.includes
    assert "buffers" not in c.includes
    assert abs(d.error or 1) < 0.12
    assert d.row.config == "herd 8x4; tile 64/512/32/128"
