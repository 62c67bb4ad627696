"""Folded normalisations compute what onnx's reference evaluator computes unfolded."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from neuc.compiler.exporters.onnx_file import export_onnx
from neuc.compiler.importers.onnx_file import import_onnx
from neuc.dialects.context import NeucContext
from neuc.dialects.onnx_base import OnnxOp
from neuc.passes.fold_batch_norm import FoldBatchNorm

F32_SUM = 1e-5
"""Relative: a dot product of some hundred terms, rounded once more by the folded weights."""

RNG = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def model(
    op_type: str, x_shape: list[int], weight: np.ndarray, bias: np.ndarray | None, **attributes: Any
) -> onnx.ModelProto:
    channels = 4
    inits = {"w": weight, "s": array(channels), "o": array(channels), "m": array(channels), "v": array(channels) ** 2}
    if bias is not None:
        inits["b"] = bias
    nodes = [
        helper.make_node(
            op_type, ["x", "w", *(["b"] if bias is not None else [])], ["y"], name="main_op", **attributes
        ),
        helper.make_node("BatchNormalization", ["y", "s", "o", "m", "v"], ["z"], name="norm", epsilon=1e-3),
        helper.make_node("Relu", ["z"], ["r"], name="act"),
    ]
    rank = len(x_shape)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x_shape)],
        [helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(a, n) for n, a in inits.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    outputs = ReferenceEvaluator(proto).run(None, {"x": x})
    assert isinstance(outputs, list)
    return np.asarray(outputs[0])


CASES = [
    ("Conv", [2, 3, 7, 7], array(4, 3, 3, 3), None, {"pads": [1, 1, 1, 1]}),
    ("Conv", [2, 3, 9], array(4, 3, 3), array(4), {}),
    ("Conv", [1, 4, 6, 6], array(4, 1, 3, 3), array(4), {"group": 4}),
    ("ConvTranspose", [1, 3, 5, 5], array(3, 4, 2, 2), array(4), {"strides": [2, 2]}),
    ("Gemm", [5, 6], array(6, 4), array(4), {}),
    ("Gemm", [5, 6], array(4, 6), None, {"transB": 1}),
]


@pytest.mark.parametrize(("op_type", "shape", "weight", "bias", "attributes"), CASES)
def test_folding_keeps_the_meaning(
    op_type: str, shape: list[int], weight: np.ndarray, bias: np.ndarray | None, attributes: dict[str, Any]
) -> None:
    original = model(op_type, shape, weight, bias, **attributes)
    ctx = NeucContext()
    module = import_onnx(original, ctx)
    FoldBatchNorm().apply(ctx, module)
    module.verify()
    kinds = [op.op_type for op in module.walk() if isinstance(op, OnnxOp)]
    assert "BatchNormalization" not in kinds
    x = array(*shape)
    expected = run(original, x)
    got = run(export_onnx(module, ctx.weights), x)
    np.testing.assert_allclose(got, expected, rtol=F32_SUM, atol=F32_SUM * float(np.abs(expected).max()))


def test_a_value_somebody_else_reads_is_not_folded_away() -> None:
    original = model("Conv", [2, 3, 7, 7], array(4, 3, 3, 3), None)
    original.graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * 4))
    ctx = NeucContext()
    module = import_onnx(original, ctx)
    FoldBatchNorm().apply(ctx, module)
    assert "BatchNormalization" in [op.op_type for op in module.walk() if isinstance(op, OnnxOp)]


def chain(nodes: list[onnx.NodeProto], x_shape: list[int], **weights: np.ndarray) -> onnx.ModelProto:
    """A model of `nodes` from x to r, with the parameters of a normalisation of four channels."""
    inits = {"s": array(4), "o": array(4), "m": array(4), "v": array(4) ** 2, **weights}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x_shape)],
        [helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, [None] * len(x_shape))],
        [numpy_helper.from_array(a, n) for n, a in inits.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def folded(original: onnx.ModelProto, x: np.ndarray) -> list[str]:
    """The kinds of nodes left after folding, which has to keep what the model computes."""
    ctx = NeucContext()
    module = import_onnx(original, ctx)
    FoldBatchNorm().apply(ctx, module)
    module.verify()
    expected = run(original, x)
    got = run(export_onnx(module, ctx.weights), x)
    np.testing.assert_allclose(got, expected, rtol=F32_SUM, atol=F32_SUM * float(np.abs(expected).max()))
    return [op.op_type for op in module.walk() if isinstance(op, OnnxOp)]


def norm(source: str, result: str) -> onnx.NodeProto:
    return helper.make_node("BatchNormalization", [source, "s", "o", "m", "v"], [result], name="norm", epsilon=1e-3)


@pytest.mark.parametrize("biased", [False, True])
def test_a_linear_layer_of_matmul_and_add_takes_the_norm_behind_it(biased: bool) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"], name="product")]
    if biased:
        nodes.append(helper.make_node("Add", ["b", "p"], ["q"], name="sum"))
    original = chain([*nodes, norm("q" if biased else "p", "r")], [5, 6], w=array(6, 4), b=array(4))
    assert folded(original, array(5, 6)) == ["MatMul", "Add"]


@pytest.mark.parametrize(
    ("op_type", "shape", "weight", "bias", "attributes"),
    [
        ("Conv", [2, 4, 7, 7], array(3, 4, 3, 3), None, {}),
        ("Conv", [2, 4, 9], array(4, 2, 3), array(4), {"group": 2, "strides": [2]}),
        ("Gemm", [5, 4], array(4, 3), array(3), {}),
        ("Gemm", [5, 4], array(3, 4), None, {"transB": 1}),
        ("MatMul", [5, 4], array(4, 3), None, {}),
    ],
)
def test_a_layer_takes_the_norm_before_it(
    op_type: str, shape: list[int], weight: np.ndarray, bias: np.ndarray | None, attributes: dict[str, Any]
) -> None:
    inputs = ["y", "w", *(["b"] if bias is not None else [])]
    reader = helper.make_node(op_type, inputs, ["r"], name="reader", **attributes)
    weights = {"w": weight} | ({} if bias is None else {"b": bias})
    kinds = folded(chain([norm("x", "y"), reader], shape, **weights), array(*shape))
    assert kinds == ([op_type, "Add"] if op_type == "MatMul" else [op_type])


def test_padding_keeps_the_norm_before_a_convolution() -> None:
    reader = helper.make_node("Conv", ["y", "w"], ["r"], name="reader", pads=[1, 1, 1, 1])
    original = chain([norm("x", "y"), reader], [2, 4, 5, 5], w=array(3, 4, 3, 3))
    assert folded(original, array(2, 4, 5, 5)) == ["BatchNormalization", "Conv"]
