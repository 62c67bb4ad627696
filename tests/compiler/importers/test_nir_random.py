"""Random NIR graphs, recurrent, nested and grouped ones among them, agree with a plain simulator, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

nir = pytest.importorskip("nir")
pytest.importorskip("h5py")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from neuc.compiler.importers.nir.importer import NirOptions, import_nir  # noqa: E402
from neuc.compiler.universe import new_context  # noqa: E402
from neuc.dialects.interp.core import interpret  # noqa: E402
from nir_simulator import Inexact, Simulator  # noqa: E402
from random_nir import DT, RandomGraph  # noqa: E402

STEPS, SAMPLES = 5, 2


def exact_example(seed: int) -> tuple[RandomGraph, np.ndarray, np.ndarray]:
    """A graph with inputs and expected outputs [T, B, ...], the first after `seed` that f32 computes exactly."""
    for attempt in range(100):
        drawn = RandomGraph([seed, attempt])
        inputs = np.stack([drawn.inputs(STEPS) for _ in range(SAMPLES)], axis=1)
        simulator = Simulator(drawn.graph, drawn.shape, DT)
        try:
            expected = [simulator.run({"input": inputs[:, i]})["output"] for i in range(SAMPLES)]
        except Inexact:
            continue
        return drawn, inputs.astype(np.float32), np.stack(expected, axis=1)
    raise AssertionError(f"no exact example in 100 graphs after seed {seed}")


def agrees(seed: int, folder: Path | None = None) -> None:
    drawn, inputs, expected = exact_example(seed)
    context, model = new_context(), drawn.nested
    if folder is not None:
        nir.write(folder / "g.nir", drawn.nested)
        model = folder / "g.nir"
    module = import_nir(model, context, NirOptions(dt=DT))
    (found,) = interpret(module, [inputs], context.weights)
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_random_graphs_agree_with_a_plain_simulator(seed: int) -> None:
    agrees(seed)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_thousand_random_graphs_agree(seed: int) -> None:
    agrees(seed)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_random_graphs_survive_hdf5(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    agrees(seed, tmp_path_factory.mktemp("nir"))
