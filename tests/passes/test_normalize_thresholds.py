"""Thresholds of 1: the same network, its scales in the weights; what cannot be normalised says why."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

import neuc
from neuc.dialects import spike
from neuc.dialects.interp.core import interpret
from neuc.dialects.store import constant_value
from neuc.passes.normalize_thresholds import KEPT, NormalizeThresholds
from snn_models import cnn, inputs, mlp

SAME = 1e-4
"""Relative: weights are rounded once more; thresholds met within rounding are too rare to meet."""


@pytest.mark.parametrize("proto", [mlp(), cnn()], ids=["mlp", "cnn"])
def test_the_network_stays_what_it_is(proto: ModelProto):
    x = inputs(proto, 12)
    model = neuc.convert_to_snn(proto, x, recipe="a", steps=3)
    (before,) = interpret(model.module, [x], model.context.weights)
    module = model.module.clone()
    NormalizeThresholds().apply(model.context, module)
    module.verify()
    (after,) = interpret(module, [x], model.context.weights)
    assert np.linalg.norm(after - before) <= SAME * np.linalg.norm(before)
    neurons = [op for op in module.walk() if isinstance(op, spike.IfOp)]
    normal = [op for op in neurons if KEPT not in op.attributes]
    assert normal
    for op in normal:
        threshold = constant_value(op.threshold, model.context.weights)
        assert threshold is not None
        assert (threshold == 1).all()


def test_reasons():
    proto = cnn()
    model = neuc.convert_to_snn(proto, inputs(proto, 8), recipe="a", steps=2)
    NormalizeThresholds().apply(model.context, model.module)
    kept = {str(op.attributes[KEPT]) for op in model.module.walk() if KEPT in op.attributes}
    assert kept == {'"its current is not that of a product of its own"'}  # behind a max-pool, and behind a residual sum
