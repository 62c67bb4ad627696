"""The committed networks of the spiking examples: ONNX without torch, their accuracy, and training in miniature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from image_sets import IMAGE_SETS, MissingDataError
from onnx_networks import BUILDERS, PARAMETERS, onnx_network

ACCURACY = {"digits_mlp": 0.95, "digits_vit": 0.94}
"""At least; of the 450 held-out digits. Networks on larger images are `benchmarks/spiking_accuracy.py`'s business."""


@pytest.mark.parametrize("name", list(BUILDERS))
def test_committed_parameters_make_a_model(name: str) -> None:
    model = onnx_network(name)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    side = BUILDERS[name][1]
    logits = session.run(None, {"images": np.ones((3, 1, side, side), np.float32)})[0]
    assert np.asarray(logits).shape == (3, 10)
    assert (PARAMETERS / f"{name}.npz").stat().st_size < 1_000_000


@pytest.mark.parametrize("name", list(ACCURACY))
def test_digits_are_named_rightly(name: str) -> None:
    digits = IMAGE_SETS["digits"]()
    session = onnxruntime.InferenceSession(onnx_network(name).SerializeToString())
    logits = np.asarray(session.run(None, {"images": digits.test_images})[0])
    assert np.mean(logits.argmax(1) == digits.test_labels) >= ACCURACY[name]


@pytest.mark.torch
@pytest.mark.parametrize("name", list(BUILDERS))
def test_torch_and_onnx_are_one_network(name: str, tmp_path: Path) -> None:
    """One short epoch; then both forms of the same parameters give the same logits."""
    import torch  # pyright: ignore[reportMissingImports]
    from networks import NETWORKS
    from train import Recipe, load_parameters, rounded, train

    side = BUILDERS[name][1]
    images = np.random.default_rng(0).random((64, 1, side, side)).astype(np.float32)
    network = train(NETWORKS[name](), images, np.arange(64) % 10, Recipe(1, 32, 1e-3))
    np.savez(tmp_path / f"{name}.npz", **rounded(network.state_dict()))  # pyright: ignore[reportArgumentType]
    load_parameters(network, tmp_path / f"{name}.npz")
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    session = onnxruntime.InferenceSession(onnx_network(name, tmp_path).SerializeToString())
    np.testing.assert_allclose(np.asarray(session.run(None, {"images": images})[0]), expected, atol=1e-4)


def test_every_network_has_an_image_set() -> None:
    assert {name.split("_")[0] for name in BUILDERS} <= set(IMAGE_SETS)
    assert issubclass(MissingDataError, Exception)
