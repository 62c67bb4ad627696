"""Groups of binary neurons: one network in both forms, more exact than single neurons, and refused where they make no
sense."""

from __future__ import annotations

import numpy as np
import pytest

import neuc
from neuc.dialects import spike
from neuc.dialects.interp.core import interpret
from neuc.errors import Error
from snn_models import cnn, inputs, mlp

SAME = 1e-4
"""Relative: both round in f32, in other orders of the sums."""
NEARER = 0.8
"""How much of a single neuron's error a pair may have; a half is what its levels promise."""


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_the_ir_and_the_simulation_are_one_network() -> None:
    proto = cnn()
    model = neuc.convert_to_snn(proto, inputs(proto, 32), recipe="a", steps=3, group=2)
    x = inputs(proto, 6, seed=8)
    found = interpret(model.module, [x], model.context.weights)
    assert distance(found[0], model.run(x)[0]) < SAME
    fired = [op for op in model.module.walk() if isinstance(op, spike.IfOp)]
    assert len(fired) == 2 * len(model.report.calibration.sites)
    assert model.report.as_json()["recipe"]["group"] == 2


def test_a_pair_tells_more_numbers_apart_than_one_neuron() -> None:
    proto = mlp()
    x, test = inputs(proto, 256), inputs(proto, 128, seed=8)
    single, pair = (neuc.convert_to_snn(proto, x, recipe="a", steps=8, group=group) for group in (1, 2))
    expected = single.run_float(test)[0]
    assert distance(pair.run(test)[0], expected) < NEARER * distance(single.run(test)[0], expected)
    layers = [model.sweep(test[:8], steps=[8]).rows[0] for model in (single, pair)]
    assert layers[1].accumulations > 1.5 * layers[0].accumulations, "what it costs is counted"


@pytest.mark.parametrize(("recipe", "group"), [("a", 0), ("a", 17), ("b", 2), ("c", 2), ("auto", 2)])
def test_groups_that_make_no_sense_are_refused(recipe: str, group: int) -> None:
    proto = mlp()
    with pytest.raises(Error) as refused:
        neuc.convert_to_snn(proto, inputs(proto, 8), recipe=recipe, group=group)
    assert refused.value.code == "NEUC-E527"


@pytest.mark.parametrize("group", [1, 2])
def test_errors_are_measured_in_what_a_spike_stands_for(group: int) -> None:
    proto = mlp(activation="HardSigmoid", alpha=0.01)  # 0.5, nearly: one spike may stand for all of it
    model = neuc.convert_to_snn(proto, inputs(proto, 64), recipe="a", steps=4, group=group)
    assert all(error.own < 0.2 for error in model.report.errors), model.report.errors_text()
