"""Every layer with weights is in the compile report, also in a form of its machine's own; manifests in plain lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import neuc
from neuc.compiler.cli import main
from neuc.compiler.inspection.facts import plain_lines
from neuc.compiler.report import LayerRow
from neuc.compiler.report_text import layer_form, report_lines
from onnx_models import model, node, value

RNG = np.random.default_rng(3)


def network() -> onnx.ModelProto:
    """Two layers of 24 x 20 and 8 x 24, with a ReLU between them."""
    weights = {"a": RNG.normal(size=(20, 24)).astype(np.float32), "b": RNG.normal(size=(24, 8)).astype(np.float32)}
    nodes = [node("MatMul", "x a", "h", name="first"), node("Relu", "h", "r"), node("MatMul", "r b", "y", name="last")]
    return model(nodes, [value("x", ["B", 20])], [value("y", ["B", 8])], weights)


def test_layers_that_meet_spikes_are_rows(tmp_path: Path) -> None:
    calibration = {"x": RNG.normal(size=(16, 20)).astype(np.float32)}
    neuc.convert_to_snn(network(), calibration, recipe="a", steps=2).save(tmp_path / "s.mlir")
    report = neuc.compile(str(tmp_path / "s.mlir"), target="cpu-spike").report
    assert [(row.node, row.shape, row.bytes_after) for row in report.layers] == [
        ("first", (24, 20), 4 * 24 * 20),
        ("last", (8, 24), 4 * 8 * 24),
    ]
    assert layer_form(report.layers[-1]) == "float, met by spikes"


@pytest.mark.parametrize(
    ("target", "form"),
    [
        ("xbar-pcm", "pcm crossbar, 1 tile, 480 pairs of devices"),
        ("xbar-pcm{tile=16x16}", "pcm crossbar, 4 tiles, 480 pairs of devices"),
        ("xbar-reram", "reram crossbar, 1 tile, 480 pairs of devices"),
        ("xbar-mesh", "photonic mesh, 1 tile"),
    ],
)
def test_layers_on_crossbars_are_said_to_be(target: str, form: str) -> None:
    report = neuc.compile(network(), target=target).report
    assert layer_form(report.layers[0]) == form
    total = next(line for line in report_lines(report) if line.startswith("all layers"))
    assert total.split() == ["all", "layers", "2.6", "KB"], "conductances are no bytes"


def test_kernels_are_named_only_where_weights_have_a_layout() -> None:
    row = LayerRow("n", "ternary.matmul", (8, 8), True, "f32", 2, "row", 256, 64, 10.0)
    assert layer_form(row) == "ternary, 2 planes, scale row"
    assert layer_form(LayerRow("n", "ternary.matmul", (8, 8), True, "i2", 1, "row", 256, 64, 10.0)).startswith(
        "ternary i2, 1 plane"
    )
    int8 = LayerRow("n", "ternary.matmul", (8, 8), False, "f32", 1, "row", 256, 64, 10.0, int8=True)
    assert layer_form(int8) == "int8, scale row"


def test_manifests_are_shown_in_lines_without_braces() -> None:
    crossbar = {
        "chip": {"chip": 0, "g_max": 25.0},
        "device": {"model": "pcm", "parameters": {"drift": 1.0}},
        "cores": 3,
    }
    assert plain_lines("crossbar", crossbar) == [
        "crossbar:",
        "  chip: chip 0, g_max 25",
        "  device: model pcm, parameters (drift 1)",
        "  cores: 3",
    ]
    assert plain_lines("versions", {"llvmlite": "0.50.0", "neuc": "0.1.0"}) == ["versions: llvmlite 0.50.0, neuc 0.1.0"]


def test_npu_tables_give_reasons_once_below(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compiled = neuc.compile(network(), target="npu-xdna2", quantize="ternary")
    compiled.save(str(tmp_path / "n.neuc"))
    assert main(["npu", "show", str(tmp_path / "n.neuc")]) == 0
    said = capsys.readouterr().out
    assert said.count("finished on the CPU, several sums make one number: #0, #1\n") == 1
    assert said.count("several sums") == 1
    (note,) = [hint for hint in compiled.report.hints if "one program for all" in hint]
    assert "one program would take" not in note
