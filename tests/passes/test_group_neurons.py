"""Networks whose neurons are groups compute what they computed, whatever reads a group."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto

from neuc.compiler.snn import front
from neuc.compiler.snn.recipes import recipe_of
from neuc.dialects.interp.core import interpret
from neuc.passes.analysis.neuron_sites import sites
from neuc.passes.group_neurons import GroupNeurons
from snn_models import cnn, inputs, mlp

ROUNDING = 1e-5
"""Sums of n parts instead of one product."""


@pytest.mark.parametrize("build", [mlp, cnn])
@pytest.mark.parametrize("group", [2, 3])
def test_groups_compute_what_one_neuron_did(build: Callable[[], ModelProto], group: int) -> None:
    proto = build()
    marked = front.mark(proto, recipe_of("a", group=group))
    x = inputs(proto, 5)
    single = len(list(sites(marked.module)))
    (expected,) = interpret(marked.dense, [x], marked.context.weights)
    GroupNeurons().apply(marked.context, marked.module)
    marked.module.verify()
    (found,) = interpret(marked.module, [x], marked.context.weights)
    np.testing.assert_allclose(found, expected, atol=ROUNDING)
    made = list(sites(marked.module))
    assert len(made) == group * single
    assert {site.group for site in made} == {1}
    assert len({site.name for site in made}) == len(made)
