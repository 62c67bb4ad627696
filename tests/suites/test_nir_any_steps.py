"""A recurrent NIR graph compiled once runs for any number of steps, as the interpreter does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

nir = pytest.importorskip("nir")

import neuc  # noqa: E402
from neuc.compiler.importers.nir.importer import import_nir  # noqa: E402
from neuc.compiler.universe import new_context  # noqa: E402
from neuc.dialects.interp.core import interpret  # noqa: E402

INPUTS, NEURONS = 3, 4


def recurrent() -> Any:
    """Leaky neurons that see their own spikes of the step before, with weights on a grid so that sums are exact."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-4, 8, (NEURONS, INPUTS)).astype(np.float32) / 8
    back = rng.integers(-4, 4, (NEURONS, NEURONS)).astype(np.float32) / 8
    ones = np.ones(NEURONS, np.float32)
    # tau is two steps of a second: potentials halve in each.
    lif = nir.LIF(tau=2 * ones, r=2 * ones, v_leak=0 * ones, v_threshold=ones, v_reset=0 * ones)
    nodes = {
        "input": nir.Input(np.array([INPUTS])),
        "in": nir.Linear(weight),
        "cells": lif,
        "back": nir.Linear(back),
        "output": nir.Output(np.array([NEURONS])),
    }
    edges = [("input", "in"), ("in", "cells"), ("cells", "back"), ("back", "cells"), ("cells", "output")]
    return nir.NIRGraph(nodes=nodes, edges=edges, metadata={"dt": 1.0})


def test_one_program_runs_for_any_number_of_steps() -> None:
    graph, context = recurrent(), new_context()
    module = import_nir(graph, context)
    session = neuc.compile(graph, "cpu-spike").session()
    rng = np.random.default_rng(1)
    for steps in (1, 5, 40):
        x = (rng.random((steps, 2, INPUTS)) < 0.5).astype(np.float32)
        (expected,) = interpret(module, [x], context.weights)
        (found,) = session.run(None, {session.get_inputs()[0].name: x})
        np.testing.assert_array_equal(found, expected)
    assert 0 < expected.mean() < 1
