"""Operators without a lowering are replaced by ONNX's function bodies where all of a body becomes native."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper
from xdsl.dialects.builtin import CallSiteLoc, ModuleOp

import onnx_models as om
from neuc.dialects.context import NeucContext
from neuc.dialects.interp.core import interpret
from neuc.dialects.locations import node_names
from neuc.dialects.onnx import OnnxOp
from neuc.errors import Error
from neuc.passes.lower_onnx_to_dense import LowerOnnxToDense

TOLERANCE = 1e-5
"""Of numbers of size 1 that come out of a softmax and a few dozen operations in f32."""


def operators(module: ModuleOp) -> set[str]:
    return {op.op_type for op in module.walk() if isinstance(op, OnnxOp)}


def check_native(model: ModelProto, inputs: Sequence[np.ndarray]) -> ModuleOp:
    """Import; all must lower and give what onnxruntime gives for the operator whole; the module before lowering."""
    module, context = om.load(model)
    before = module.clone()
    assert isinstance(context, NeucContext)
    LowerOnnxToDense().apply(context, module)
    assert operators(module) == set()
    names = [info.name for info in model.graph.input]
    expected = om.run(model, dict(zip(names, inputs, strict=True)))
    for found, wanted in zip(interpret(module, list(inputs), context.weights), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE)
    return before


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("attributes", "length"), [({}, "S"), ({"scale": 0.3, "softcap": 2.0}, "S"), ({"is_causal": 1}, 6)]
)
def test_attention(attributes: dict[str, int | float], length: str | int) -> None:
    dims = ["B", 4, length, 16]
    nodes = [om.node("Attention", "q k v", "y", name="attn", **attributes)]
    model = om.model(nodes, [om.value(n, dims) for n in "qkv"], [om.value("y", dims)], opset=24)
    module = check_native(model, [floats(2, 4, 6, 16), floats(2, 4, 6, 16) * 2, floats(2, 4, 6, 16) + 1])
    assert "Attention" not in operators(module)
    assert "Softmax" in operators(module)


def test_nodes_keep_the_name_of_their_call() -> None:
    nodes = [
        om.node("Attention", "q k v", "a", name="attn"),
        om.node("Attention", "a k v", "y", name="attn2"),
    ]
    dims = [1, 2, 5, 8]
    model = om.model(nodes, [om.value(n, dims) for n in "qkv"], [om.value("y", dims)], opset=24)
    module = check_native(model, [floats(*dims), floats(*dims) * 2, floats(*dims) + 1])
    calls = [op.location for op in module.walk() if isinstance(op, OnnxOp)]
    assert all(isinstance(location, CallSiteLoc) for location in calls)
    names = [node_names(op)[0] for op in module.walk() if isinstance(op, OnnxOp) and op.op_type == "Softmax"]
    assert [name.split("/")[0] for name in names] == ["attn", "attn2"]


def test_rotary_embeddings() -> None:
    dims = [2, 4, 6, 16]
    nodes = [om.node("RotaryEmbedding", "x c s p", "y")]
    inputs = [om.value("x", dims), om.value("p", [2, 6], TensorProto.INT64)]
    tables = {"c": np.cos(floats(50, 8)), "s": np.sin(floats(50, 8))}
    model = om.model(nodes, inputs, [om.value("y", dims)], tables, opset=23)
    positions = np.random.default_rng(0).integers(0, 50, (2, 6))
    check_native(model, [floats(*dims), positions])


def test_what_would_stay_in_pieces_stays_whole() -> None:
    """Bodies with a conditional on a size that only running tells, and with a range that long."""
    nodes = [om.node("AffineGrid", "t size", "y")]
    inputs = [om.value("t", [2, 2, 3]), om.value("size", [4], TensorProto.INT64)]
    module, _ = om.load(om.model(nodes, inputs, [om.value("y", None)]))
    assert operators(module) == {"AffineGrid"}
    dims = [1, 4, "S", 16]
    nodes = [om.node("Attention", "q k v", "y", is_causal=1)]
    module, _ = om.load(om.model(nodes, [om.value(n, dims) for n in "qkv"], [om.value("y", dims)], opset=24))
    assert operators(module) == {"Attention"}


def test_random_operators_stay_whole() -> None:
    model = om.model([om.node("Bernoulli", "x", "y")], [om.value("x", [4])], [om.value("y", [4])], opset=22)
    assert operators(om.load(model)[0]) == {"Bernoulli"}


def test_a_body_that_lacks_an_attribute_is_refused() -> None:
    """A constant of a model's function that takes its value from an attribute the call does not have."""
    constant = helper.make_node("Constant", [], ["c"])
    constant.attribute.append(AttributeProto(name="value_float", type=AttributeProto.FLOAT, ref_attr_name="k"))
    add = helper.make_node("Add", ["a", "c"], ["b"])
    opsets = [helper.make_opsetid("", 21)]
    function = helper.make_function("own", "AddK", ["a"], ["b"], [constant, add], opsets, ["k"])
    call = helper.make_node("AddK", ["x"], ["y"], "call", None, "own")
    model = om.model([call], [om.value("x", [2])], [om.value("y", [2])], domains={"own": 1}, functions=[function])
    with pytest.raises(Error) as caught:
        om.load(model)
    assert caught.value.code in ("NEUC-E104", "NEUC-E107")
