"""Wrong options, targets, shapes, budgets and environments, and Ctrl-C, through the command line."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_models import model, node, value
from refusals import FIRST_LINE, Outcome, check_refusal, contents, neuc, refuse

WEIGHT = np.random.default_rng(0).standard_normal((32, 8)).astype(np.float32)
COMPILE = ["compile", "m.onnx", "-o", "out.neuc"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model of one layer, x[B, 32] to y[B, 8]."""
    made = model([node("MatMul", "x w", "y")], [value("x", ["B", 32])], [value("y", ["B", 8])], {"w": WEIGHT})
    onnx.save(made, tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


MISSPELT = {
    "command": (["compil", "m.onnx"], "'compil'", "did you mean compile"),
    "flag": ([*COMPILE, "--tagret", "cpu"], "--tagret", "--target"),
    "flag of a list": (["targets", "--jsn"], "--jsn", "--json"),
    "target": ([*COMPILE, "--target", "cpu-tl3"], "'cpu-tl3'", "cpu-tl2"),
    "pass to print IR after": ([*COMPILE, "--print-ir-after", "lut-tile"], "'lut-tile'", "tile-lut"),
    "target of check": (["check", "m.onnx", "--target", "cpu-rf"], "'cpu-rf'", "cpu-ref"),
    "target of run": (["run", "m.onnx", "--target", "cpu-rf"], "'cpu-rf'", "cpu-ref"),
    "pass": (["opt", "-p", "lut-tile", "m.mlir"], "'lut-tile'", "tile-lut"),
}


@pytest.mark.parametrize("case", MISSPELT)
def test_what_is_misspelt_suggests_the_nearest(folder: Path, case: str):
    arguments, wrong, right = MISSPELT[case]
    Path("m.mlir").write_text("builtin.module {\n}\n")
    outcome = refuse(folder, 2, arguments, wrong)
    assert right in outcome.err.splitlines()[-1], outcome.err


WRONG = {
    "no model": (["compile"], "MODEL"),
    "standard output": (["compile", "m.onnx", "-o", "-"], "-o -", "neuc inspect"),
    "two models": (["compile", "m.onnx", "again.onnx"], "again.onnx"),
    "command": (["frobnicate"], "frobnicate"),
    "level": ([*COMPILE, "--compile-to", "graf"], "graf", "graph"),
    "quantize": ([*COMPILE, "--quantize", "ternery"], "ternery", "ternary"),
    "scale": ([*COMPILE, "--scale", "column"], "column", "row"),
    "fallback": ([*COMPILE, "--fallback", "maybe"], "maybe", "host"),
    "cpu": ([*COMPILE, "--cpu", "avx9"], "avx9", "avx2"),
    "cpu feature": ([*COMPILE, "--cpu", "avx512+zork"], "avx512+zork", "avx512vnni"),
    "no planes": ([*COMPILE, "--planes", "0"], "--planes 0", "1 to 4"),
    "planes": ([*COMPILE, "--planes", "5"], "--planes 5", "1 to 4"),
    "planes in words": ([*COMPILE, "--planes", "two"], "--planes", "two"),
    "negative budget": ([*COMPILE, "--max-error", "-1"], "--max-error -1", "between 0 and 1"),
    "no budget": ([*COMPILE, "--max-error", "nan"], "--max-error nan"),
    "budget for nothing": ([*COMPILE, "--quantize", "none", "--max-error", "0.1"], "--max-error", "--quantize none"),
    "verify": ([*COMPILE, "--verify=abc"], "--verify", "abc"),
    "target unclosed": ([*COMPILE, "--target", "cpu{bm=2"], "'cpu{bm=2'"),
    "target option": ([*COMPILE, "--target", "cpu{zork=2}"], "zork", "bm"),
    "target value": ([*COMPILE, "--target", "cpu-tl2{bm=x}"], "bm"),
    "negative tile": ([*COMPILE, "--target", "cpu-tl2{bm=-3}"], "bm=-3"),
    "unnamed calibration data": ([*COMPILE, "--calib", "x.npy"], "x.npy", "give an .npz"),
    "an artifact again": (["compile", "x.neuc"], "already compiled", "neuc run x.neuc"),
    "target of an artifact": (["run", "x.neuc", "--target", "cpu-tl2"], "--target cpu-tl2", "already compiled"),
    "target of a measured artifact": (["bench", "x.neuc", "--target", "cpu"], "--target cpu", "already compiled"),
    "negative time": (["bench", "m.onnx", "--seconds", "-1"], "--seconds -1"),
    "no inputs": (["verify", "x.neuc", "--against", "m.onnx", "-n", "0"], "--runs 0"),
    "negative limit": (["verify", "x.neuc", "--against", "m.onnx", "--max-error", "-1"], "--max-error -1"),
    "limit for nothing": (["verify", "x.neuc", "--max-error", "0.1"], "--against"),
    "shape without dims": ([*COMPILE, "--shape", "x"], "--shape x"),
    "shape unfinished": ([*COMPILE, "--shape", "x=3x"], "--shape x=3x"),
    "shape of nothing": ([*COMPILE, "--shape", "x=0x32"], "--shape x=0x32"),
    "negative shape": ([*COMPILE, "--shape", "x=-1x32"], "--shape x=-1x32"),
    "shape without a name": ([*COMPILE, "--shape", "=1x32"], "--shape =1x32"),
    "no threads": (["run", "m.onnx", "--threads", "0"], "threads", "0"),
    "threads of bench": (["bench", "m.onnx", "--threads", "1,x"], "--threads 1,x"),
    "compare": (["bench", "m.onnx", "--compare", "tvm"], "tvm", "ort"),
    "format": (["bench", "m.onnx", "--format", "xml"], "xml", "csv"),
    "tolerance": (["run", "m.onnx", "--rtol", "abc"], "--rtol", "abc"),
    "pass option": (["opt", "-p", "tile-lut{zork=3}", "m.mlir"], "zork", "group"),
    "pass value": (["opt", "-p", "tile-lut{group=abc}", "m.mlir"], "abc"),
    "pipeline": (["opt", "-p", "tile-lut{", "m.mlir"], "tile-lut{"),
    "target option without value": ([*COMPILE, "--target", "npu-xdna2{float=}"], "option float has no value"),
    "target option unfinished": ([*COMPILE, "--target", "npu-xdna2{float="], "the closing brace is missing"),
    "age of a CPU": (["run", "m.onnx", "--time", "1d"], "--time does nothing with m.onnx"),
    "draws of a CPU": (["run", "m.onnx", "--seeds", "4"], "--seeds does nothing with m.onnx"),
    "tiles of a CPU": (["run", "m.onnx", "--tile-map", "t.svg"], "--tile-map does nothing with m.onnx"),
    "sweeps of a network": (["run", "m.onnx", "--sweeps", "3"], "--sweeps does nothing"),
    "beta of a network": (["run", "m.onnx", "--beta", "1"], "--beta does nothing"),
    "format misspelt beside its option": (
        ["convert", "m.onnx", "o.onnx", "--format", "qdq_int8", "--calib", "c.npz"],
        "--format qdq_int8",
        "did you mean qdq-int8",
    ),
    "generate with a network": (
        ["generate", "m.onnx", "--prompt-tokens", "1"],
        "m.onnx holds no decoder",
    ),
    "threads beyond all bounds": (["run", "m.onnx", "--threads", "99999"], "threads=99999"),
    "option without its value": (["inspect", "m.onnx", "--ir"], "--ir", "`neuc inspect --help`"),
    "option of a group's command without its value": (["npu", "validate", "r.csv", "--rates"], "`neuc npu validate "),
    "target option unknown": ([*COMPILE, "--target", "cpu{bx=8}"], "option bx is unknown"),
    "target option no number": ([*COMPILE, "--target", "cpu{bm=foo}"], "bm=foo is no whole number"),
    "no error code": (["explain", "foo"], "'foo'", "lists all codes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_usage(folder: Path, case: str):
    arguments, *says = WRONG[case]
    Path("m.mlir").write_text("builtin.module {\n}\n")
    Path("x.neuc").write_bytes(b"PK\x05\x06" + bytes(18))  # an archive without members
    np.save("x.npy", np.zeros((2, 32), np.float32))
    refuse(folder, 2, arguments, "hint: ", *says)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ("x=1x31", "[1, 31]"),
        ("x=1x32x1", "rank 3"),
        ("x=1099511627776x32", "1099511627776"),
        ("zork=1x32", "'zork'"),
    ],
)
def test_shapes_that_do_not_fit_the_model(folder: Path, shape: str, says: str):
    refuse(folder, 1, [*COMPILE, "--shape", shape], says, "hint: ")


@pytest.mark.parametrize(
    ("file", "code", "says"),
    [
        ("missing.npz", 1, "no such file"),
        ("garbage.npz", 1, "garbage.npz"),
        ("pickled.npz", 1, "pickled.npz"),
        ("dir", 1, "folder"),
        ("named.npz", 2, "'x'"),
        ("none.npz", 2, "'x'"),
    ],
)
def test_calibration_data(folder: Path, file: str, code: int, says: str):
    Path("dir").mkdir()
    Path("garbage.npz").write_bytes(b"PK\x03\x04 garbage")
    np.savez("pickled.npz", x=np.array([{}], dtype=object))
    np.savez("named.npz", zork=np.zeros((2, 32), np.float32))
    np.savez("none.npz")
    refuse(folder, code, [*COMPILE, "--target", "cpu-tl2", "--calib", file], file, says)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((2, 31), np.float32), ("NEUC-E312", "expected shape [B, 32]", "[2, 31]")),
        (np.zeros(32, np.float32), ("NEUC-E312", "expected 2 dimensions [B, 32]")),
        (np.zeros((2, 32), np.float64), ("NEUC-E311", "expected float32, got float64")),
    ],
    ids=["size", "rank", "type"],
)
def test_calibration_data_of_another_shape_or_type(folder: Path, array: np.ndarray, says: tuple[str, ...]):
    np.savez("x.npz", x=array)
    refuse(folder, 2, [*COMPILE, "--target", "cpu-tl2", "--calib", "x.npz"], "x.npz: input 'x'", *says)


@pytest.mark.parametrize("quantize", ["ternary", "auto"])
def test_a_missed_error_budget_exits_4_and_writes_nothing(folder: Path, quantize: str):
    """One plane of random weights is about 0.4 off, so 0.001 cannot be met, with the layer ternary or without any."""
    arguments = [*COMPILE, "--target", "cpu-tl2", "--quantize", quantize, "--planes", "1", "--max-error", "0.001"]
    refuse(folder, 4, arguments, "budget", "--planes", "--max-error")


def test_a_missed_budget_of_verify_exits_4(folder: Path):
    assert neuc(*COMPILE, "--target", "cpu-tl2", "--quantize", "ternary", "--planes", "1").code == 0
    before = contents(folder)
    outcome = neuc("verify", "out.neuc", "--against", "m.onnx", "--max-error", "0.001")
    assert outcome.code == 4
    assert "is above 0.001" in outcome.out
    assert contents(folder) == before


def test_measuring_against_another_model(folder: Path):
    assert neuc(*COMPILE).code == 0
    two = model([node("Add", "a b", "y")], [value("a", [4]), value("b", [4])], [value("y", [4])], {})
    onnx.save(two, "two.onnx")
    refuse(folder, 1, ["bench", "out.neuc", "--compare", "ort", "--against", "two.onnx"], "NEUC-E260", "hint: ")


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([value("x", ["B", 32, 1])], "tensor(float) [B, 32, 1]"),
        ([value("x", ["B", 31])], "tensor(float) [B, 31]"),
        ([value("x", ["B", 32], onnx.TensorProto.DOUBLE)], "tensor(double) [B, 32]"),
        ([value("z", ["B", 32])], "no input 'x'"),
        ([value("x", ["B", 32]), value("z", ["B", 32])], "an input 'z' more"),
    ],
)
def test_verifying_against_a_model_of_other_inputs(folder: Path, inputs: list[onnx.ValueInfoProto], said: str):
    """Told in our words and before anything runs: onnxruntime would blame the made-up input."""
    assert neuc(*COMPILE).code == 0
    nodes = [node("Shape", name, f"s{n}") for n, name in enumerate(i.name for i in inputs)]
    nodes.append(node("Identity", "s0", "y"))
    onnx.save(model(nodes, inputs, [value("y", [None], onnx.TensorProto.INT64)], {}), "two.onnx")
    refuse(folder, 2, ["verify", "out.neuc", "--against", "two.onnx"], "NEUC-E261", said, "hint: ")


def test_sizes_given_when_compiling_make_no_other_model(folder: Path):
    assert neuc(*COMPILE, "--shape", "x=3x32").code == 0
    assert neuc("verify", "out.neuc", "--against", "m.onnx").code == 0


def test_calibration_data_for_nothing_are_warned_about(folder: Path):
    np.savez("x.npz", x=np.zeros((2, 32), np.float32))
    outcome = neuc(*COMPILE, "--calib", "x.npz")
    assert outcome.code == 0
    assert "warning: --calib was not used" in outcome.err


@pytest.mark.parametrize("features", ["avx9", "avx2", "-zork", "none", "-avx2,,-zork"])
@pytest.mark.parametrize("command", [COMPILE, ["run", "m.onnx"], ["targets"]], ids=lambda command: command[0])
def test_environment_variable(folder: Path, monkeypatch: pytest.MonkeyPatch, features: str, command: list[str]):
    """Only taking known features away makes sense; anything else would be ignored silently."""
    monkeypatch.setenv("NEUC_CPU_FEATURES", features)
    refuse(folder, 2, command, "NEUC_CPU_FEATURES", features.split(",")[-1].removeprefix("-"))


def test_json_errors_are_json(folder: Path):
    import json

    outcome = neuc("compile", "missing.onnx", "--json")
    assert outcome.code == 1
    error = json.loads(outcome.out)["error"]
    assert error["exit_code"] == 1
    assert "missing.onnx" in error["message"]
    assert FIRST_LINE.match(outcome.err)


def process(*arguments: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "neuc", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [(["compile", "missing.onnx"], 1, "missing.onnx"), (["compile", "m.onnx", "--plane", "2"], 2, "--planes")],
)
def test_a_real_process_says_and_exits_the_same(folder: Path, arguments: list[str], code: int, says: str):
    before = contents(folder)
    running = process(*arguments)
    out, err = running.communicate(timeout=60)
    check_refusal(Outcome(running.returncode, out, err), code, [says])
    assert not out
    assert contents(folder) == before


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send")
def test_control_c_during_compile_leaves_nothing(folder: Path):
    """`--print-ir-after all` shows when the passes have begun; a full pipe then holds the compiler there."""
    layers = [node("MatMul", f"h{n} w", f"h{n + 1}") for n in range(150)]
    weight = {"w": np.eye(32, dtype=np.float32)}
    onnx.save(model(layers, [value("h0", ["B", 32])], [value("h150", ["B", 32])], weight), "deep.onnx")
    before = contents(folder)
    running = process("compile", "deep.onnx", "-o", "out.neuc", "--no-cache", "--print-ir-after", "all")
    assert running.stdout is not None
    ready, _, _ = select.select([running.stdout], [], [], 60)
    assert ready, "nothing printed within a minute"
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert contents(folder) == before


def test_inputs_of_verify_that_do_not_fit_are_usage(folder: Path):
    assert neuc("compile", "m.onnx", "-o", "out.neuc").code == 0
    refuse(folder, 2, ["verify", "out.neuc", "--against", "m.onnx", "--input", "x=2x31xf32=0"], "NEUC-E312", "[2, 31]")


def test_the_only_operator_is_counted_as_one(folder: Path):
    assert neuc("check", "m.onnx").out == "m.onnx: its only operator runs on cpu\n"
    assert neuc("compile", "m.onnx", "-o", "out.neuc").code == 0
    assert neuc("check", "out.neuc").out == "out.neuc: its only launch or node runs on cpu\n"
