"""`neuc npu show` and `export`: what a compiled model puts on the array, as a user sees it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import neuc
from neuc.backends.npu.export.forms import FORMS
from neuc.backends.npu.export.mlir_aie import read_mlir_aie
from neuc.compiler.cli import main
from neuc.compiler.npu.products import placed_products
from neuc.runtime.artifact import Artifact


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two linear layers for XDNA1."""
    random = np.random.default_rng(0)
    shapes = {"w1": (48, 40), "w2": (40, 32)}
    weights = [numpy_helper.from_array(random.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"], name="second"),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [8, 48]), ("y", [8, 32])))
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], weights), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.checker.check_model(model)
    path = tmp_path_factory.mktemp("npu") / "m.neuc"
    neuc.compile(model, "npu-xdna1").save(path)
    return path


def test_show_lists_products_with_plans_and_limits(artifact: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["npu", "show", str(artifact), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["products"]
    assert [(row["m"], row["k"], row["n"], row["operands"]) for row in rows] == [
        (8, 48, 80, "ternary"),
        (8, 40, 64, "ternary"),
    ]
    assert all(row["microseconds"] > 0 and 0 <= row["padding"] < 1 for row in rows)
    assert main(["npu", "show", str(artifact)]) == 0
    assert "8 x 48 x 80" in capsys.readouterr().out


@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_can_be_written(artifact: Path, tmp_path: Path, form: str):
    target = tmp_path / "out"
    assert main(["npu", "export", str(artifact), str(target), "--form", form, "--product", "1"]) == 0
    text = target.read_text(encoding="utf-8")
    product = placed_products(Artifact.open(artifact))[1]
    match form:
        case "svg":
            assert ElementTree.fromstring(text).tag.endswith("svg")
        case "trace":
            cores = {event["pid"] for event in json.loads(text) if event["name"] == "INSTR_EVENT_0"}
            assert len(cores) == len(product.design.kernels)
        case "json" | "riallto":
            assert json.loads(text)
        case "html":
            assert "Timeline" in text
        case "dot" | "irdl":
            assert text
        case _:
            assert text.count("aie.core") == len(product.design.kernels)


def test_forms_by_suffix_and_what_is_wrong(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["npu", "export", str(artifact), str(tmp_path / "a.svg")]) == 0
    assert "(product 0)" in capsys.readouterr().err
    assert (tmp_path / "a.svg").read_text(encoding="utf-8").startswith("<svg")
    for arguments, words in (
        ([str(artifact), str(tmp_path / "a.xyz")], "says no form"),
        ([str(artifact), str(tmp_path / "a.svg"), "--product", "2"], "there is no product 2"),
        ([str(artifact), str(tmp_path / "a.svg"), "--form", "vhdl"], "no form 'vhdl'"),
        ([str(tmp_path / "none.neuc"), str(tmp_path / "a.svg")], "none.neuc"),
    ):
        assert main(["npu", "export", *arguments]) != 0
        assert words in capsys.readouterr().err


def test_forms_are_listed_without_an_artifact(capsys: pytest.CaptureFixture[str]):
    assert main(["npu", "export", "--form", "list"]) == 0
    assert "svg" in capsys.readouterr().out
    assert main(["npu", "export", "m.neuc"]) != 0
    assert "OUTPUT is missing" in capsys.readouterr().err


def test_a_model_that_is_not_compiled_is_told_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "model.onnx").write_bytes(b"")
    assert main(["npu", "show", str(tmp_path / "model.onnx")]) == 2
    assert "compile it for npu-xdna1 or npu-xdna2 first" in capsys.readouterr().err


GRAPH = """npu.graph @g on "npu-xdna1-1col" {
  npu.buffer @x "input" "u8" <2, 64>
  npu.buffer @y "output" "u8" <2, 64>
  npu.kernel @k "threshold" [@a] [#npu.numbers<1>] -> [@b] [#npu.numbers<1>] cycles <90> {threshold = 9 : i64} {
    state_bytes = 0 : i64, program_bytes = 2048 : i64TILE_K}
  npu.port @in "in" @a {tile = #npu.numbers<0, 0>}
  npu.port @out "out" @b {tile = #npu.numbers<0, 0>}
  npu.channel @a @in -> [@k] depth 2 "u8" <64>
  npu.channel @b @k -> [@out] depth 2 "u8" <64>
  npu.param @threshold of @k = 100
  npu.sequence {
    npu.transfer @in @x 0 sizes <128> strides <1>
    npu.transfer @out @y 0 sizes <128> strides <1>
    npu.wait @out
  }
}
"""


def _graph(tmp_path: Path, tile: str) -> Path:
    path = tmp_path / "graph.mlir"
    path.write_text(GRAPH.replace("TILE_K", tile), encoding="utf-8")
    return path


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_graph_placed_by_hand_goes_out_in_every_form(tmp_path: Path, form: str):
    path, out = _graph(tmp_path, ", tile = #npu.numbers<0, 3>"), tmp_path / "out"
    assert main(["npu", "export", str(path), str(out), "--form", form]) == 0
    text = out.read_text(encoding="utf-8")
    if form.startswith("mlir-aie"):
        read = read_mlir_aie(text)
        assert read.cores == {"tile_0_3": ("a", "b")}
        assert [transfer[:2] for transfer in read.transfers] == [("a", "x"), ("b", "y")]
        assert "aiex.npu.rtp_write(@rtp_k, 0, " in text
    assert text


@pytest.mark.parametrize(
    ("tile", "words"),
    [
        ("", "g is not placed: k on no tile"),
        (", tile = #npu.numbers<0, 1>", "k is on tile (0, 1), a mem tile, not a core tile"),
        (", tile = #npu.numbers<3, 3>", "k is on tile (3, 3), outside npu-xdna1-1col of 1 x 6"),
    ],
)
@pytest.mark.parametrize("form", ["mlir-aie-1.4", "generic", "svg"])
def test_what_a_graph_lacks_is_said(
    tmp_path: Path, tile: str, words: str, form: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["npu", "export", str(_graph(tmp_path, tile)), str(tmp_path / "out"), "--form", form]) != 0
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_files_without_a_graph_and_unplaced_ones_as_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["npu", "export", str(_graph(tmp_path, "")), str(tmp_path / "g"), "--form", "json"]) == 0
    assert json.loads((tmp_path / "g").read_text())["kernels"][0]["tile"] is None
    (tmp_path / "none.mlir").write_text("func.func @main() { func.return }")
    assert main(["npu", "export", str(tmp_path / "none.mlir"), str(tmp_path / "o.svg")]) == 2
    assert "holds no npu.graph" in capsys.readouterr().err
