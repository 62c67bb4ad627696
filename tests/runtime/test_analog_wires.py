"""Wire losses against two independent solvers: badcrossbar (recorded) and ngspice (run where it is installed)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from neuc.errors import Error
from neuc.runtime.analog.spice import netlist, printed_currents
from neuc.runtime.analog.wires import effective_conductance

GOLDEN = Path(__file__).parents[1] / "data" / "analog" / "badcrossbar.npz"
SAME_NETWORK = 1e-10
"""Two direct solutions of one linear system in f64."""
SPICE_WITHIN = 1e-6
"""What ngspice's tolerances leave."""


@pytest.mark.parametrize("name", ["8x8", "16x5", "24x40"])
def test_currents_equal_badcrossbars(name: str) -> None:
    with np.load(GOLDEN) as golden:
        g, v, expected, ohms = (golden[f"{name} {part}"] for part in "gvir")
    effective = effective_conductance(g, float(ohms), float(ohms))
    np.testing.assert_allclose(v.T @ effective, expected, rtol=SAME_NETWORK)


@pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed (Debian package ngspice)")
@pytest.mark.parametrize(
    ("rows", "columns", "word", "bit"),
    [
        (8, 8, 1.0, 1.0),
        (16, 24, 0.5, 2.0),
        (32, 32, 1.0, 1.0),
        pytest.param(64, 64, 1.0, 1.0, marks=pytest.mark.slow),
    ],
)
def test_a_netlist_of_a_tile_says_the_same_in_ngspice(
    rows: int, columns: int, word: float, bit: float, tmp_path: Path
) -> None:
    rng = np.random.default_rng(rows)
    g = 25e-6 * rng.random((rows, columns)) * (rng.random((rows, columns)) > 0.2)
    v = 0.2 * rng.random(rows)
    file = tmp_path / "tile.cir"
    file.write_text(netlist(g, word, bit, v), encoding="ascii")
    done = subprocess.run(["ngspice", "-b", str(file)], capture_output=True, text=True, check=False, timeout=120)
    found = printed_currents(done.stdout, columns)
    np.testing.assert_allclose(found, v @ effective_conductance(g, word, bit), rtol=SPICE_WITHIN)


def test_ideal_wires_lose_nothing() -> None:
    g = np.random.default_rng(0).random((5, 7))
    np.testing.assert_array_equal(effective_conductance(g, 0.0, 0.0), g)
    for word, bit in ((1e-9, 1e-9), (1e-9, 0.0), (0.0, 1e-9)):
        np.testing.assert_allclose(effective_conductance(g, word, bit), g, rtol=1e-7)


def test_one_kind_of_wire_may_be_ideal() -> None:
    g = 25e-6 * np.random.default_rng(0).random((6, 9))
    for word, bit in ((2.0, 0.0), (0.0, 2.0)):
        nearly = effective_conductance(g, max(word, 1e-7), max(bit, 1e-7))
        np.testing.assert_allclose(effective_conductance(g, word, bit), nearly, rtol=1e-6)


@pytest.mark.parametrize(
    ("g", "word", "bit"),
    [
        (np.array([[-1.0]]), 1.0, 1.0),
        (np.array([[np.nan]]), 1.0, 1.0),
        (np.zeros((0, 3)), 1.0, 1.0),
        (np.ones((2, 2)), -1.0, 1.0),
        (np.ones((2, 2)), 1.0, float("inf")),
    ],
)
def test_networks_that_make_no_sense(g: np.ndarray, word: float, bit: float) -> None:
    with pytest.raises(Error) as caught:
        effective_conductance(g, word, bit)
    assert caught.value.code == "NEUC-E646"


def test_a_failed_simulation_is_told() -> None:
    with pytest.raises(Error) as caught:
        printed_currents("i(vo0) = 1.0e-6\nError: singular matrix\n", 2)
    assert caught.value.code == "NEUC-E647"
