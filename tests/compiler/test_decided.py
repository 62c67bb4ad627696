"""IR beyond the graph level: what comes too late there is refused, what was decided goes on; and truthful notes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from neuc.compiler.api import compile_model
from neuc.compiler.checking import check_model
from neuc.compiler.cli import main
from neuc.compiler.options import CompileOptions
from neuc.compiler.report_text import report_lines
from neuc.errors import Error, Exit

NPU = "npu-xdna2"
F = TensorProto.FLOAT


@pytest.fixture(autouse=True)
def _no_shared_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUC_CACHE_DIR", str(tmp_path / "cache"))


def save(path: Path, nodes: list[onnx.NodeProto], x: list[int], y: list[int], **weights: np.ndarray) -> Path:
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("x", F, x)],
        [helper.make_tensor_value_info("y", F, y)],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MatMul", ["b", "w2"], ["y"], name="second"),
    ]
    weights = {"w1": rng.standard_normal((64, 32)), "w2": rng.standard_normal((32, 16))}
    return save(tmp_path / "mlp.onnx", nodes, [4, 64], [4, 16], **weights)


def recurrent(path: Path, kind: str, gates: int) -> Path:
    rng = np.random.default_rng(0)
    node = helper.make_node(kind, ["x", "w", "r"], ["y"], name="cell", hidden_size=16)
    weights = {"w": rng.standard_normal((1, gates * 16, 16)), "r": rng.standard_normal((1, gates * 16, 16))}
    return save(path, [node], [5, 2, 16], [5, 1, 2, 16], **weights)


@pytest.fixture
def lstm(tmp_path: Path) -> Path:
    return recurrent(tmp_path / "lstm.onnx", "LSTM", 4)


def ir(model: Path, *options: str, level: str = "paradigm") -> Path:
    path = model.with_suffix(f".{level}.mlir")
    assert main(["compile", str(model), *options, "--compile-to", level, "-o", str(path)]) == Exit.OK
    return path


def resume(path: Path, *options: str) -> int:
    return main(["compile", str(path), *options, "-o", str(path.with_suffix(".neuc"))])


LATE = [
    ("--target=npu-xdna2", "which machine"),
    ("--target=xbar-pcm", "which machine"),
    ("--target=cpu-tl2", "decided to be float"),
    ("--quantize=ternary", "--quantize none"),
    ("--quantize=auto", "--quantize none"),
    ("--planes=2", "--quantize none"),
    ("--max-error=0.1", "--quantize none"),
    ("--no-recognize", "--quantize none"),
]


@pytest.mark.parametrize(("option", "why"), LATE)
def test_what_comes_too_late_for_the_paradigm_level_is_refused(
    option: str, why: str, mlp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ir(mlp)
    capsys.readouterr()
    assert resume(path, option) == Exit.USAGE
    said = capsys.readouterr().err
    assert "NEUC-E253" in said
    assert "on level paradigm" in said
    assert why in said
    assert "--compile-to graph" in said
    assert not path.with_suffix(".neuc").exists()


@pytest.mark.parametrize("option", [option for option, _ in LATE])
def test_the_graph_level_takes_them_all(option: str, mlp: Path) -> None:
    options = {"--max-error=0.1": "--max-error=0.9", "--quantize=auto": "--max-error=0.9"}
    assert resume(ir(mlp, level="graph"), options.get(option, option)) == Exit.OK


def test_ternary_layers_of_the_paradigm_level_take_another_encoding(mlp: Path) -> None:
    compiled = compile_model(ir(mlp, "--quantize=ternary"), CompileOptions(target="cpu-tl2"))
    assert {row.encoding for row in compiled.report.layers} == {"tl2"}


def test_quantised_ir_is_not_made_float(mlp: Path) -> None:
    with pytest.raises(Error, match=r"decided \(--quantize ternary\): --quantize none comes too late"):
        compile_model(ir(mlp, "--quantize=ternary"), CompileOptions(quantize="none"))


@pytest.mark.parametrize("level", ["paradigm", "machine"])
@pytest.mark.parametrize("target", [NPU, "npu-xdna2{free=32}", "xbar-sim"])
def test_a_machine_is_known_without_being_named_again(target: str, level: str, mlp: Path) -> None:
    path = ir(mlp, "--target", target, level=level)
    named, unnamed = (compile_model(path, CompileOptions(target=t)) for t in (target, "cpu"))
    bare = compile_model(path, CompileOptions(target=target.partition("{")[0]))
    assert named.report.target == unnamed.report.target == bare.report.target == target.partition("{")[0]
    x = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    for other in (unnamed, bare):
        np.testing.assert_array_equal(other.session().run(None, {"x": x})[0], named.session().run(None, {"x": x})[0])
    for wrong in ("npu-xdna1", "cpu-tl2", "npu-xdna2{free=64}"):
        with pytest.raises(
            Error,
            match=f"on level {level}, where what runs on which machine is decided, for {re.escape(target)}: --target",
        ):
            compile_model(path, CompileOptions(target=wrong))


def test_code_is_decided_at_the_machine_level(mlp: Path) -> None:
    path = ir(mlp, "--target=cpu-ref", level="machine")
    assert compile_model(path, CompileOptions(target="cpu-ref")).report.target == "cpu-ref"
    with pytest.raises(Error, match="the code is decided, for cpu-ref: --target cpu-t5"):
        compile_model(path, CompileOptions(target="cpu-t5"))


@pytest.mark.parametrize("target", [NPU, "npu-xdna2{float=bf16}"])
def test_check_and_compile_agree_on_an_lstm_for_an_array(target: str, lstm: Path) -> None:
    checked = check_model(lstm, CompileOptions(target=target))
    nothing = f"nothing runs on {NPU}: no layer has few-level weights, and none can be made ternary"
    assert nothing in checked.notes
    assert not checked.nodes
    assert checked.notes == compile_model(lstm, CompileOptions(target=target)).report.hints


def test_check_says_that_the_cpu_shares_the_model(lstm: Path, mlp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(lstm), "--target", NPU]) == Exit.OK
    assert "its only operator runs on npu-xdna2 or the CPU beside it\nnote: " in capsys.readouterr().out
    assert main(["check", str(mlp), "--target", NPU]) == Exit.OK
    assert "2 products run on npu-xdna2" in capsys.readouterr().out
    assert main(["check", str(lstm)]) == Exit.OK
    assert capsys.readouterr().out == "lstm.onnx: its only operator runs on cpu\n"


def test_the_hint_to_quantise_stands_where_it_helps(mlp: Path) -> None:
    notes = compile_model(mlp, CompileOptions(target=NPU, quantize="none")).report.hints
    assert f"nothing runs on {NPU}: no layer has few-level weights (--quantize ternary makes some)" in notes


def test_an_lstm_has_no_form_of_what_was_asked(lstm: Path) -> None:
    for quantize in ("ternary", "int8"):
        (row,) = compile_model(lstm, CompileOptions(quantize=quantize)).report.layers
        assert row.note == f"recurrent weights have no {quantize} form"


def test_auto_says_that_it_left_a_layer_float(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", ["x", "w1"], ["a"], name="fine")]
    nodes.append(helper.make_node("MatMul", ["a", "w2"], ["y"], name="coarse"))
    weights = {"w1": rng.standard_normal((64, 32)), "w2": rng.integers(-1, 2, (32, 16))}
    model = save(tmp_path / "mixed.onnx", nodes, [4, 64], [4, 16], **weights)
    report = compile_model(model, CompileOptions(quantize="auto", planes=1, max_error=0.1)).report
    kept = {row.node: row.note for row in report.layers if not row.ternary}
    assert kept == {"fine": "auto keeps it float, for the error budget 0.1"}


def test_a_model_without_layers_has_no_notes_on_layers(tmp_path: Path) -> None:
    report = compile_model(recurrent(tmp_path / "gru.onnx", "GRU", 3), CompileOptions(target="cpu-tl2")).report
    text = "\n".join(report_lines(report))
    assert "error against the float model" in text
    assert "error of a layer" not in text
    assert "planes were chosen" not in text


def test_one_of_a_thing_is_no_plural(mlp: Path, tmp_path: Path) -> None:
    hints = compile_model(mlp, CompileOptions(target="xbar-sim")).report.hints
    assert any("2 crossbar tiles on 1 array of" in hint for hint in hints)
    with pytest.raises(Error, match="with at most 1 plane within"):
        compile_model(mlp, CompileOptions(quantize="auto", planes=1, max_error=1e-6))
    broken = save(tmp_path / "broken.onnx", [helper.make_node("Relu", ["nowhere"], ["y"], name="r")], [1], [1])
    with pytest.raises(Error, match=r"NEUC-E104.*input 'nowhere' of r is defined nowhere"):
        compile_model(broken, CompileOptions())
