"""A network whose first half stays numbers, in one program: it names digits as well as the float network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from image_sets import digits
from onnx_networks import onnx_network

import neuc
from neuc.compiler.cli import main
from neuc.dialects import dense, spike

ALLOWED = 0.01
"""Of accuracy, on 450 images: twice the half point that whole networks are allowed."""
ROUNDING = 1e-4
"""Logits of a few units, summed up in another order."""


def test_the_second_half_spikes_and_the_first_does_not(tmp_path: Path) -> None:
    images = digits()
    onnx.save(onnx_network("digits_mlp"), tmp_path / "net.onnx")
    np.savez(tmp_path / "calib.npz", images=images.train_images[:256])
    arguments = [str(tmp_path / "net.onnx"), str(tmp_path / "hybrid.mlir"), "--to", "snn", "--recipe", "a"]
    arguments += ["--calib", str(tmp_path / "calib.npz"), "--spiking-after", "relu_0", "--sweep", "8"]
    assert main(["convert", *arguments]) == 0
    assert (
        main(["compile", str(tmp_path / "hybrid.mlir"), "--target", "cpu-spike", "-o", str(tmp_path / "h.neuc")]) == 0
    )
    logits = np.asarray(neuc.load(tmp_path / "h.neuc").run(None, {"images": images.test_images})[0])
    exact = neuc.compile(tmp_path / "net.onnx").session().run(None, {"images": images.test_images})[0]
    shares = [np.mean(np.asarray(found).argmax(1) == images.test_labels) for found in (exact, logits)]
    assert shares[0] > 0.95
    assert shares[1] >= shares[0] - ALLOWED


def test_one_module_does_what_its_simulation_does() -> None:
    images = digits()
    model = neuc.convert_to_snn(
        onnx_network("digits_mlp"), images.train_images[:256], recipe="b", steps=4, spiking_after="relu_0"
    )
    (loop,) = (op for op in model.module.walk() if isinstance(op, spike.LoopOp))
    assert sum(isinstance(op, spike.DifferentialOp) for op in loop.walk()) == 1  # of the network's two hidden layers
    assert any(isinstance(op, dense.MapOp) for op in model.module.walk() if op.parent_op() is loop.parent_op())
    x = images.test_images[:50]
    np.testing.assert_allclose(model.session(1).run(None, {"images": x})[0], model.run(x)[0], rtol=0, atol=ROUNDING)  # pyright: ignore


def test_a_node_that_is_not_there_is_named() -> None:
    with pytest.raises(neuc.Error, match="no node 'relu_7'") as caught:
        neuc.convert_to_snn(onnx_network("digits_mlp"), digits().train_images[:64], spiking_after="relu_7")
    assert caught.value.code == "NEUC-E527"
