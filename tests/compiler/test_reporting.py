"""What the report of a compilation says: nothing that differs from what the model asks for is silent."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from neuc.compiler.api import compile as compile_model
from neuc.compiler.report_text import report_lines
from neuc.errors import Error
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


PRODUCTS = {
    "vector": ("MatMul x w", ["B", K], (K,), ""),
    "vector on the left": ("MatMul w x", [K, 5], (K,), "its weight is the left operand"),
    "left": ("MatMul w x", [K, 5], (N, K), "its weight is the left operand"),
    "left, batched": ("MatMul w x", [3, K, 5], (3, N, K), "its weight is the left operand"),
    "left, transposed": ("Gemm w x", [K, 5], (K, N), "its weight is the left operand"),
    "batched": ("MatMul x w", [3, 5, K], (3, K, N), "its weight has rank 3, not 2"),
    "few columns": ("MatMul x w", ["B", 8], (8, N), "K = 8 is below 16"),
    "in three axes": ("Einsum x w", [2, 5, K], (K, 2, 4), ""),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_product_with_constant_weights_has_a_row(name: str) -> None:
    text, dims, shape, reason = PRODUCTS[name]
    op, inputs = text.split(" ", 1)
    attributes: dict[str, object] = {"Gemm": {"transA": 1}, "Einsum": {"equation": "bik,khd->bihd"}}.get(op, {})
    source = model(
        [node(op, inputs, "y", name="fc", **attributes)], [value("x", dims)], [value("y", None)], {"w": weights(*shape)}
    )
    (row,) = compile_model(source, target="cpu", quantize="ternary").report.layers
    assert (row.node, row.note, row.ternary) == ("fc", reason, not reason)
    assert row.bytes_before == 4 * int(np.prod(shape))
    assert row.shape[1] == (8 if name == "few columns" else K)


def test_int8_layers_are_no_ternary_ones() -> None:
    source = model(
        [node("MatMul", "x w", "y", name="fc")], [value("x", [2, K])], [value("y", None)], {"w": weights(K, N)}
    )
    report = compile_model(source, target="cpu", quantize="int8").report
    assert [(row.ternary, row.int8) for row in report.layers] == [(False, True)]
    text = "\n".join(report_lines(report))
    assert "int8, kernel " in text
    assert "int8: 100.0% of the layers' weights" in text
    assert "ternary" not in text
    with pytest.raises(Error, match="above the budget") as caught:
        compile_model(source, target="cpu", quantize="int8", max_error=1e-9)
    assert "--planes" not in caught.value.hint
    assert "--quantize auto" in caught.value.hint
