"""Every seed system is an example under 30 lines, runs, and runs the same from its printed text, also when edited."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from example_files import EXAMPLES as EXAMPLES_FOLDER
from example_files import load_example
from neuc.compiler.cli import main
from neuc.compiler.energy import Program, read_program
from neuc.errors import Exit

FOLDER = EXAMPLES_FOLDER / "energy"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.py"))
LINES = 30
NATIVE = {"active_inference", "ising", "max_cut", "spins_and_categories"}


def load(name: str) -> tuple[Program, dict[str, np.ndarray]]:
    return load_example(f"energy/{name}.py").build()


@pytest.mark.parametrize("name", EXAMPLES)
def test_runs_from_its_text(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    body = text.split("def build()")[1].split("\n\nif __name__")[0]
    assert len(body.strip().splitlines()) < LINES
    program, inputs = load(name)
    expected = program.interpret(**inputs)
    again = program.edited(program.text()).interpret(**inputs)
    for result in expected:
        np.testing.assert_array_equal(again[result], expected[result])
        assert np.isfinite(expected[result]).all()
    if name in NATIVE:
        found = program.run(**inputs)
        for result in expected:
            np.testing.assert_allclose(found[result], expected[result], rtol=1e-5, atol=1e-3)


def test_an_edited_text_is_another_program() -> None:
    program, inputs = load("equilibrium_propagation")
    text = program.text()
    assert "nudge = -0.25" in text
    edited = program.edited(text.replace("nudge = -0.25", "nudge = 0.0").replace("scale = 4.0", "scale = 8.0"))
    centred, one_sided = program.interpret(**inputs), edited.interpret(**inputs)
    np.testing.assert_array_equal(centred.answer, one_sided.answer)
    assert 0 < np.abs(centred.dw2 - one_sided.dw2).max() < np.abs(centred.dw2).max()


def test_a_saved_program_is_read_back_and_compiled(tmp_path: Path) -> None:
    program, _ = load("ising")
    program.save(tmp_path / "ising.mlir")
    again = read_program(tmp_path / "ising.mlir")
    np.testing.assert_array_equal(again.interpret(sweeps=3).spins, program.interpret(sweeps=3).spins)
    artifact, results = str(tmp_path / "ising.neuc"), str(tmp_path / "out.npz")
    assert main(["compile", str(tmp_path / "ising.mlir"), "--target", "cpu-relax", "-o", artifact]) == Exit.OK
    assert main(["run", artifact, "--sweeps", "5", "--seed", "4", "-o", results]) == Exit.OK
    with np.load(results) as found:
        np.testing.assert_array_equal(found["spins"], program.interpret(sweeps=5, seed=4).spins)
    assert main(["run", artifact, "--sweeps", "0"]) == Exit.USAGE
    assert main(["run", artifact, "--beta", "warm"]) == Exit.USAGE
