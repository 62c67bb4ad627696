"""The rates that a conversion writes on synapses, for the compiler's choice between scatter and dense products."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto
from xdsl.dialects.builtin import FloatAttr
from xdsl.ir import Operation, SSAValue

import neuc
from neuc.dialects import spike
from neuc.dialects.interp.core import interpret
from neuc.passes.analysis.neuron_sites import RATE
from snn_models import cnn, inputs, mlp, transformer

SAME = 1e-3
"""A membrane that meets its threshold but for rounding fires in one of two runs: a few of some thousand inputs."""


@pytest.mark.parametrize(("network", "recipe"), [(mlp, "a"), (cnn, "a"), (cnn, "b"), (transformer, "b")])
def test_a_synapse_says_how_many_of_its_inputs_are_active(network: Callable[[], ModelProto], recipe: str):
    proto = network()
    x = inputs(proto, 16)
    model = neuc.convert_to_snn(proto, x, recipe=recipe, steps=3)
    seen: dict[SSAValue, np.ndarray] = {}
    active: dict[Operation, list[float]] = {}

    def observe(op: Operation, results: list[np.ndarray]) -> None:
        if isinstance(op, spike.LinearOp | spike.ConvOp):
            active.setdefault(op, []).append(np.count_nonzero(seen[op.operands[0]]) / seen[op.operands[0]].size)
        seen.update(zip(op.results, results))

    interpret(model.module, [x], model.context.weights, observe=observe)
    assert active
    for op, shares in active.items():
        written = op.attributes[RATE]
        assert isinstance(written, FloatAttr)
        assert written.value.data == pytest.approx(np.mean(shares), abs=SAME)


def test_the_compiler_reads_the_rate(tmp_path: Path):
    proto = cnn()
    model = neuc.convert_to_snn(proto, inputs(proto, 16), recipe="a", steps=2)
    model.save(tmp_path / "net.mlir")
    notes = " ".join(neuc.compile(tmp_path / "net.mlir", "cpu-spike").report.hints)
    assert "measured rate" in notes
    assert "assumed" not in notes
