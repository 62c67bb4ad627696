"""What a sampler takes when nobody says: its defaults, options in their place, and names that text gives twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import neuc as package
from neuc import energy
from neuc.compiler.cli import main
from neuc.compiler.energy.defaults import default_inputs
from neuc.errors import Error, Exit

FACTS = {"seed": 5, "beta": {"first": 0.2, "last": 0.6, "ramp": "linear", "sweeps": 3}}


def test_defaults_and_options_in_their_place() -> None:
    found = default_inputs(FACTS)
    assert found["seed"] == 5
    np.testing.assert_allclose(found["beta"], [0.2, 0.4, 0.6], rtol=1e-6)
    other = default_inputs(FACTS, sweeps=2, beta=(1.0, 2.0), seed=-1)
    assert (other["seed"], other["beta"].tolist()) == (-1, [1.0, 2.0])


@pytest.mark.parametrize(
    ("facts", "options"),
    [
        (FACTS, {"seed": 1 << 63}),
        (FACTS, {"sweeps": 0}),
        (FACTS, {"beta": (float("inf"), 1.0)}),
        (FACTS, {"beta": (1.0, 1e39)}),  # infinite in f32
        (FACTS, {"beta": (float("nan"), 1.0)}),
        ({"seed": 0}, {"sweeps": 3}),
        ({"seed": 0}, {"beta": (1.0, 1.0)}),
        ({"beta": FACTS["beta"]}, {"seed": 3}),
        ({"seed": "x"}, {}),
        ({"seed": 0, "beta": {}}, {}),
        ({"seed": 0, "beta": {"first": 1, "last": 2, "sweeps": "x"}}, {}),
    ],
)
def test_inputs_that_make_no_sense(facts: object, options: dict[str, object]) -> None:
    with pytest.raises(Error, match="NEUC-E605"):
        default_inputs(facts, **options)  # pyright: ignore[reportArgumentType] - of each its own type


@pytest.mark.parametrize(("name", "taken"), [("spins", "seed"), ("spins", "energies"), ("beta", "seed")])
def test_a_name_given_twice_is_refused(tmp_path: Path, name: str, taken: str) -> None:
    model = energy.Model()
    spins = model.spin(2, 128, name="spins")
    model.grid(spins, 1.0)
    samples = model.init().sample(sweeps=2, beta=1.0)
    path = tmp_path / "ising.mlir"
    model.program(energies=samples.energies(), spins=samples.last[spins]).save(path)
    text = path.read_text()
    path.write_text(text.replace(f'onnx.name = "{name}"', f'onnx.name = "{taken}"'))
    assert path.read_text() != text
    with pytest.raises(Error, match=f"NEUC-E251.*{taken!r}"):
        package.compile(path, "cpu-relax")


def test_an_output_that_is_an_input_keeps_its_name(tmp_path: Path) -> None:
    tensor = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    other = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "through", [tensor], [tensor, other])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(tmp_path / "through.onnx"))
    text = str(tmp_path / "through.mlir")
    assert main(["compile", str(tmp_path / "through.onnx"), "--compile-to", "paradigm", "-o", text]) == Exit.OK
    session = package.compile(text).session()
    given = np.array([1.0, -2.0], np.float32)
    handed, positive = session.run(None, {"x": given})
    np.testing.assert_array_equal(handed, given)
    np.testing.assert_array_equal(positive, [1.0, 0.0])
