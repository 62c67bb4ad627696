"""`neuc run --plots`: every kind of result gets a picture and its numbers; what cannot be drawn is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from neuc.compiler.cli import main
from neuc.compiler.energy import Model
from neuc.compiler.energy.defaults import MOST_SWEEPS
from neuc.compiler.energy.plots import Plot, plots_of, write_plots
from neuc.errors import Error, Exit

ROUNDED = 1e-9
"""plots.json keeps nine decimals."""


def ising(tmp_path: Path) -> str:
    model = Model()
    spins = model.spin(4, 6, name="spins")
    model.grid(spins, 0.4)
    samples = model.init(chains=9).sample(sweeps=30, beta=(0.2, 0.8), warmup=10, thin=2)
    pairs = samples.pairs(spins, [0, 1], [1, 2])
    model.program(energies=samples.energies(), sums=samples.sums(spins), pairs=pairs, last=samples.last[spins]).save(
        tmp_path / "ising.mlir"
    )
    assert main(["compile", str(tmp_path / "ising.mlir"), "--target", "cpu-relax", "-o", str(tmp_path / "i.neuc")]) == 0
    return str(tmp_path / "i.neuc")


def test_a_run_is_drawn_and_its_numbers_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact, folder = ising(tmp_path), tmp_path / "plots"
    arrays = tmp_path / "out.npz"
    assert main(["run", artifact, "--sweeps", "50", "--plots", str(folder), "-o", str(arrays), "--json"]) == Exit.OK
    report = json.loads(capsys.readouterr().out)
    names = ["energies", "sums", "pairs", "last", "last.correlation"]
    assert report["plots"] == [*(str(folder / f"{name}.png") for name in names), str(folder / "plots.json")]
    assert all((folder / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in names)
    numbers = json.loads((folder / "plots.json").read_text())
    with np.load(arrays) as found:
        np.testing.assert_allclose(numbers["energies"]["values"], found["energies"].T, atol=ROUNDED)
        np.testing.assert_allclose(numbers["sums"]["values"][0], found["sums"].mean(0) / 20, atol=ROUNDED)
        matrix = np.array(numbers["pairs"]["values"])
        np.testing.assert_allclose(matrix[[0, 2], [1, 1]], found["pairs"].mean(0) / 20, atol=ROUNDED)
        spins = found["last"].reshape(9, 24).astype(float)
        np.testing.assert_allclose(numbers["last.correlation"]["values"], spins.T @ spins / 9, atol=ROUNDED)
    assert (numbers["energies"]["first"], numbers["energies"]["step"]) == (10, 2)


def test_beliefs_and_categories_are_drawn(tmp_path: Path) -> None:
    facts = {
        "results": {
            "q": {"kind": "values", "space": "simplex", "shape": [5], "levels": 3},
            "counts": {"kind": "sum", "space": "cat", "shape": [4], "levels": 2, "warmup": 0, "thin": 1},
            "states": {"kind": "histogram", "warmup": 0, "thin": 1},
            "F": {"kind": "evaluated"},
        }
    }
    results = {
        "q": np.full((2, 5, 3), 1 / 3),
        "counts": np.full((6, 4, 2), 5),
        "states": np.arange(8).reshape(1, 8),
        "F": np.arange(3.0),
    }
    plots = {plot.name: plot for plot in plots_of(facts, results, 10)}
    assert plots["q"].values.shape == (3, 5)
    np.testing.assert_allclose(plots["counts"].values, np.full((2, 4), 0.5))
    np.testing.assert_allclose(plots["states"].values, np.arange(7, -1, -1) / 28)
    assert len(write_plots(list(plots.values()), tmp_path)) == 5


def test_nothing_to_draw_and_nothing_to_draw_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Error, match=r"E636.*nothing that can be drawn"):
        plots_of({"results": {}}, {"y": np.zeros(3)}, None)

    def without(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr("neuc.compiler.energy.plots.import_module", without)
    with pytest.raises(Error, match=r"E636.*need matplotlib"):
        write_plots([Plot("x", "bars", "", ("", ""), np.zeros(2))], tmp_path)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Error, match=r"E005.*cannot make the folder"):
        write_plots([Plot("x", "bars", "", ("", ""), np.zeros(2))], tmp_path / "file" / "plots")


def test_more_sweeps_than_a_run_makes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = ising(tmp_path)
    assert main(["run", artifact, "--sweeps", str(10**14)]) == Exit.USAGE
    assert f"E605]: {10**14} sweeps are more than a run makes at once ({MOST_SWEEPS})" in capsys.readouterr().err
