"""`neuc check --target chip:NAME`: what a network needs is counted right, and every passed limit is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

nir = pytest.importorskip("nir")
pytest.importorskip("h5py")

from neuc.compiler.chips.fit import compare  # noqa: E402
from neuc.compiler.chips.footprint import Footprint, footprint  # noqa: E402
from neuc.compiler.chips.limits import ASSUMED, CHIPS, PUBLISHED  # noqa: E402
from neuc.compiler.cli import main  # noqa: E402
from neuc.compiler.importers.nir.importer import import_nir  # noqa: E402
from neuc.compiler.importers.nir.options import NirOptions  # noqa: E402
from neuc.compiler.universe import new_context  # noqa: E402
from neuc.errors import Exit  # noqa: E402

DT = 1e-3


def counted(*nodes: Any) -> Footprint:
    context = new_context()
    module = import_nir(nir.NIRGraph.from_list(*nodes, type_check=False), context, NirOptions(dt=DT, reset="subtract"))
    return footprint(module, context.weights)


def lif(*shape: int) -> Any:
    return nir.LIF(np.full(shape, 0.01), np.ones(shape), np.zeros(shape), np.ones(shape))


def spiking_if(*shape: int) -> Any:
    return nir.IF(np.full(shape, 1 / DT), np.ones(shape))


def conv(channels: int, outputs: int, side: int, size: tuple[int, int]) -> Any:
    weight = np.ones((outputs, channels, side, side))
    return nir.Conv2d(size, weight, 1, 0, 1, 1, np.zeros(outputs))


def test_neurons_and_connections_are_counted() -> None:
    weight = np.ones((10, 20))
    weight[:, 3] = 0
    found = counted(
        nir.Input({"input": np.array([20])}), nir.Linear(weight), lif(10), nir.Linear(np.ones((4, 10))), lif(4)
    )
    assert found.amounts["neurons"] == 14
    assert found.amounts["synapses"] == 190 + 40
    assert (found.amounts["inputs"], found.amounts["outputs"]) == (20, 4)
    assert found.amounts["hidden_neurons"] == 10
    assert found.amounts["fan_out"] == 4
    assert [s.bits for s in found.synapses] == [2, 2]


def test_a_convolution_connects_everywhere_with_few_weights() -> None:
    found = counted(nir.Input({"input": np.array([2, 8, 9])}), conv(2, 3, 3, (8, 9)), spiking_if(3, 6, 7))
    (synapses,) = found.synapses
    assert synapses.connections == 3 * 2 * 9 * 6 * 7
    assert synapses.weights == 2 * 16 * 4  # sides of nine taps and three outputs go up to powers of two
    assert found.populations[0].words == 3 * 8 * 8
    assert synapses.kernel == 3


def rows(found: Footprint, chip: str) -> dict[str, bool]:
    return {row.what: row.fits for row in compare(found, CHIPS[chip])}


def test_every_limit_that_is_passed_is_named() -> None:
    layers = nir.Linear(np.ones((1001, 20))), lif(1001), nir.Linear(np.ones((9, 1001))), lif(9)
    big = counted(nir.Input({"input": np.array([20])}), *layers)
    xylo = rows(big, "xylo")
    assert [what for what, fits in xylo.items() if not fits] == ["inputs", "hidden neurons", "outputs"]
    assert all(rows(big, "loihi2").values())
    assert not rows(big, "speck")["kinds of neurons"]


def test_layers_find_cores_that_are_large_enough() -> None:
    fits = counted(nir.Input({"input": np.array([2, 32, 32])}), conv(2, 8, 3, (32, 32)), spiking_if(8, 30, 30))
    assert rows(fits, "speck")["cores"]
    large = counted(nir.Input({"input": np.array([2, 130, 130])}), conv(2, 32, 3, (130, 130)), spiking_if(32, 128, 128))
    assert not rows(large, "speck")["cores"]


def test_every_number_has_a_source() -> None:
    for chip in CHIPS.values():
        sources = [
            chip.neurons_source,
            chip.graded[1],
            chip.weight_bits.source,
            *(limit.source for limit in chip.limits.values()),
        ]
        assert all(source.status in (PUBLISHED, ASSUMED) and source.text for source in sources)


def test_the_command_lists_limits_with_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.nir"
    nir.write(path, nir.NIRGraph.from_list(nir.Linear(np.ones((4, 20))), lif(4), type_check=False))
    assert main(["check", str(path), "--target", "chip:loihi2"]) == 0
    assert "published: Intel" in capsys.readouterr().out
    assert main(["check", str(path), "--target", "chip:xylo", "--json"]) == Exit.UNSUPPORTED
    told = json.loads(capsys.readouterr().out)
    assert [row["what"] for row in told["limits"] if not row["fits"]] == ["inputs", "resets"]
    assert main(["check", str(path), "--target", "chip:abacus"]) == Exit.USAGE
    assert "loihi2" in capsys.readouterr().err
    (tmp_path / "net.neuc").write_bytes(b"")
    assert main(["check", str(tmp_path / "net.neuc"), "--target", "chip:loihi2"]) == Exit.USAGE
    assert "give the .mlir" in capsys.readouterr().err
