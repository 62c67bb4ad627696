"""The Fashion-MNIST CNNs of `examples/analog`: committed parameters are the network, in the ways they were trained."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path += [str(EXAMPLES / "spiking"), str(EXAMPLES / "analog")]

from onnx_networks import Graph, cnn  # noqa: E402

PARAMETERS = EXAMPLES / "analog" / "parameters" / "fashion_cnn.npz"
MOST_BYTES = 1_000_000


@pytest.mark.parametrize("way", ["float", "noise", "ternary"])
def test_committed_networks_are_whole_and_ternary_where_they_say_so(way: str) -> None:
    assert PARAMETERS.stat().st_size < MOST_BYTES
    start = f"{way}.0."
    with np.load(PARAMETERS) as arrays:
        own = {name.removeprefix(start): arrays[name] for name in arrays.files if name.startswith(start)}
    assert all(np.isfinite(array).all() for array in own.values())
    graph = Graph(own)
    assert len(graph.model("fashion_cnn", 28, cnn(graph)).graph.node) == 14
    for layer in ("0", "4", "8", "13"):
        matrix = own[f"{layer}.weight"].reshape(len(own[f"{layer}.weight"]), -1)
        levels = max(len(np.unique(np.abs(row[row != 0]))) for row in matrix)
        assert (levels == 1) == (way == "ternary")


@pytest.mark.torch
def test_a_few_steps_of_training_keep_weights_ternary() -> None:
    pytest.importorskip("torch")
    from train_fashion import trained

    rng = np.random.default_rng(0)
    images, labels = rng.random((256, 1, 28, 28), np.float32), rng.integers(0, 10, 256)
    network = trained("ternary", 0, images, labels)
    for name, value in network.state_dict().items():
        if value.dim() > 1:
            rows = value.reshape(len(value), -1).numpy()
            assert all(len(np.unique(np.abs(row[row != 0]).round(6))) <= 1 for row in rows), name
