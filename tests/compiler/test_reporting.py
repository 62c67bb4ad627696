"""What the report of a compilation says: nothing that differs from what the model asks for is silent."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from neuc.compiler.api import compile as compile_model
from onnx_models import model, node, value

RNG = np.random.default_rng(8)
K, N = 32, 8


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def with_defaults(count: int) -> onnx.ModelProto:
    """Layers one after the other whose weights are inputs with default values."""
    names = [f"w{i}" for i in range(count)]
    nodes = [node("MatMul", f"h{i} {name}", f"h{i + 1}") for i, name in enumerate(names)]
    inputs = [value("h0", ["B", K]), *(value(name, [K, K]) for name in names)]
    return model(nodes, inputs, [value(f"h{count}", ["B", K])], {name: weights(K, K) for name in names})


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (1, "an input with a default value is a constant of it and cannot be fed: w0"),
        (5, "5 inputs with default values are constants of these and cannot be fed: w0, w1, w2, w3 …"),
    ],
)
def test_inputs_that_became_constants_are_named(count: int, says: str) -> None:
    assert says in compile_model(with_defaults(count), target="cpu", quantize="none").report.hints


@pytest.mark.parametrize("quantize", ["ternary", "auto"])
def test_models_without_inputs_are_quantised(quantize: str) -> None:
    source = model(
        [node("Relu", "x", "h"), node("MatMul", "h w", "y")],
        [value("x", [4, K])],
        [value("y", [4, N])],
        {"x": weights(4, K), "w": weights(K, N)},
    )
    compiled = compile_model(source, target="cpu", quantize=quantize, max_error=0.9)
    assert compiled.session().get_inputs() == []
    assert compiled.report.measured is not None
