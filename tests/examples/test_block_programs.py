"""The trained spiking blocks, as `spike` operations, name as many digits rightly as they did in PyTorch."""

from __future__ import annotations

import json

import numpy as np
import pytest
from block_programs import PARAMETERS, PROGRAMS, block_program
from image_sets import digits

from neuc.dialects.interp.core import interpret

SAME = 2 / 450
"""Two images more or fewer: sums in another order may move a potential over a threshold."""


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_programs_are_the_networks_that_were_trained(name: str) -> None:
    images = digits()
    module, store = block_program(name)
    logits = interpret(module, [images.test_images], store)[0]
    accuracy = np.mean(logits.argmax(1) == images.test_labels)
    trained = json.loads((PARAMETERS / "blocks.json").read_text(encoding="utf-8"))
    assert trained[name] > 0.9
    assert abs(accuracy - trained[name]) <= SAME
