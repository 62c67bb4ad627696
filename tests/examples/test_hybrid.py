"""A network whose first half stays numbers: both halves together name digits as well as the float network."""

from __future__ import annotations

import numpy as np
from hybrid import hybrid
from image_sets import digits
from onnx_networks import onnx_network

from neuc.dialects import spike

ALLOWED = 0.01
"""Of accuracy, on 450 images: twice the half point that whole networks are allowed."""


def test_the_second_half_spikes_and_the_first_does_not() -> None:
    images = digits()
    made = hybrid(onnx_network("digits_mlp"), "relu_0", images.train_images[:256])
    neurons = [op for op in made.back.module.walk() if isinstance(op, spike.IfOp)]
    assert len(neurons) == 1  # of the network's two hidden layers
    exact = made.back.run_float(made.front.run(None, {"images": images.test_images})[0])[0]
    logits = made.run(images.test_images)
    shares = [np.mean(found.argmax(1) == images.test_labels) for found in (exact, logits)]
    assert shares[0] > 0.95
    assert shares[1] >= shares[0] - ALLOWED
