"""What a Python prompt shows of results: a line or two with what one wants to know, and no IR."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

import neuc
from neuc.compiler.api import Compiled
from onnx_models import model, node, value

RNG = np.random.default_rng(0)
LONGEST = 300
"""Two lines of an editor and a bit: the representations of these models are shorter, IR of them is not."""


def perceptron() -> ModelProto:
    nodes = [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("MatMul", "r v", "y")]
    weights = {"w": RNG.standard_normal((32, 16)), "v": RNG.standard_normal((16, 8))}
    floats = {name: array.astype(np.float32) for name, array in weights.items()}
    return model(nodes, [value("x", ["B", 32])], [value("y", ["B", 8])], floats)


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return neuc.compile(perceptron(), "cpu-tl2", planes=2, quantize="ternary", verify=2)


def short(thing: object) -> str:
    """The representation, which has no addresses, no IR and no end of text."""
    text = repr(thing)
    assert len(text) < LONGEST
    assert text.count("\n") <= 1
    assert not re.search(r"0x[0-9a-f]{6}|builtin\.module|ModuleOp|object at", text)
    return text


def test_a_compiled_model_says_target_signature_size_and_error(compiled: Compiled):
    text = short(compiled)
    for part in ("cpu-tl2", "x float32[B, 32] -> y float32[B, 8]", "2 layers of ", "100% ternary", "relative L2 error"):
        assert part in text
    assert str(compiled) == text


def test_a_report_is_one_line_and_prints_as_the_commands_report(compiled: Compiled):
    text = short(compiled.report)
    found = compiled.report.verified
    assert found is not None
    assert f"against onnxruntime: relative L2 error {float(str(found['error'])):.2g}" in text
    assert "\n" not in text
    assert "verified against onnxruntime on 2 inputs" in str(compiled.report)


def test_nodes_left_to_onnxruntime_are_counted():
    found = neuc.compile(model([node("Det", "x", "y")], [value("x", ["B", 4, 4])], [value("y", ["B"])], {}))
    assert "no layers with weights, 1 node in onnxruntime" in short(found)


def test_a_session_says_what_it_runs_and_whether_it_is_closed(compiled: Compiled, tmp_path: Path):
    compiled.save(tmp_path / "m.neuc")
    session = neuc.load(tmp_path / "m.neuc", threads=1)
    assert "for cpu-tl2: x float32[B, 32] -> y float32[B, 8]; 1 thread>" in short(session)
    session.close()
    assert short(session).endswith("; closed>")


def test_long_signatures_are_cut_short():
    names = [f"x{n}" for n in range(9)]
    many = model([node("Sum", " ".join(names), "y")], [value(n, [4]) for n in names], [value("y", [4])], {})
    assert "x3 float32[4], 5 more -> y float32[4]" in short(neuc.compile(many))


def test_a_spiking_model_says_recipe_and_steps():
    spiking = neuc.convert_to_snn(perceptron(), RNG.standard_normal((16, 32)).astype(np.float32), recipe="a", steps=8)
    text = short(spiking)
    for part in ("x float32[B, 32] -> y float32[B, 8]", "recipe a", "T = 8", "1 layer of neurons"):
        assert part in text
    assert "recipe a, T = 8" in short(spiking.report)


def test_a_model_of_energies_lists_its_variables():
    energies = neuc.energy.Model()
    assert short(energies) == "<energy.Model: no variables; 0 terms>"
    energies.linear(energies.spin(4, 4, name="x"), energies.parameter("b", 4, 4))
    assert short(energies) == "<energy.Model: x spin[4, 4]; 1 term; inputs b>"
