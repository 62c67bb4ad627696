"""The committed networks as spiking ones: within half a point of the float network on all held-out digits."""

from __future__ import annotations

import numpy as np
import pytest
from image_sets import IMAGE_SETS
from onnx_networks import onnx_network

import neuc

HALF_A_POINT = 0.005
NOISE = 2 / 450
"""Two of the 450 digits: the float network itself tells that many by margins below its own rounding to eight levels."""


@pytest.mark.parametrize(("recipe", "steps"), [("a", 8), ("b", 4), ("c", 4)])
def test_digits_within_half_a_point(recipe: str, steps: int):
    digits = IMAGE_SETS["digits"]()
    model = neuc.convert_to_snn(onnx_network("digits_mlp"), digits.train_images[:512], recipe=recipe, steps=steps)
    (row,) = model.sweep(digits.test_images, digits.test_labels, [steps]).rows
    exact = np.mean(model.run_float(digits.test_images)[0].argmax(1) == digits.test_labels)
    assert row.accuracy is not None
    assert row.accuracy >= exact - HALF_A_POINT - NOISE
    assert row.multiplications < 64 * 128  # the analog input's layer, once: nothing else multiplies
