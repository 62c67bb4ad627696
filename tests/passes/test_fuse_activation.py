"""Biases and activations join the op before them, in every way exporters write them, and only where that is right."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from xdsl.dialects import func
from xdsl.dialects.builtin import FunctionType, ModuleOp, f32
from xdsl.ir import Block, Operation, Region, SSAValue

from neuc.dialects.context import NeucContext
from neuc.dialects.dense import MapOp, YieldOp
from neuc.dialects.dense_arithmetic import ConvOp, MatMulOp
from neuc.dialects.dense_attrs import ActivationAttr
from neuc.dialects.interp.core import interpret
from neuc.dialects.locations import node_location, node_names
from neuc.dialects.store import dims_of, make_constant, tensor_type
from neuc.passes import scalar_builder as sb
from neuc.passes.fuse_activation import FuseActivation
from neuc.passes.fuse_maps import FuseMaps
from neuc.passes.scalar_builder import Scalar

Body = Callable[..., Scalar]
ROUNDING = 2e-6
"""Relative: activations evaluated in another order of operations, a few f32 ulp apart."""


def map_op(body: Body, *inputs: SSAValue) -> MapOp:
    op = MapOp(inputs, inputs[0].type)
    block = op.body.block
    block.add_op(YieldOp(body(*(Scalar(a, block) for a in block.args)).value))
    return op


def linear(ctx: NeucContext, steps: Callable[[SSAValue], list[Operation]]) -> ModuleOp:
    rng = np.random.default_rng(1)
    block = Block(arg_types=[tensor_type(f32, ["B", 6])])
    weight = make_constant("w", rng.standard_normal((6, 5)).astype(np.float32) * 3, ctx.weights)
    product = MatMulOp(block.args[0], weight.result, None, tensor_type(f32, ["B", 5]))
    product.location = node_location("fc", "m.onnx", 0)
    block.add_ops([weight, product])
    value: SSAValue = product.result
    for op in steps(value):
        op.location = node_location("after", "m.onnx", 1)
        block.add_op(op)
        value = op.results[0]
    block.add_op(func.ReturnOp(value))
    type_ = FunctionType.from_lists([block.args[0].type], [value.type])
    return ModuleOp([func.FuncOp("main", type_, Region(block))])


def check(module: ModuleOp, ctx: NeucContext, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    (expected,) = interpret(module, [x], ctx.weights)
    for step in (FuseActivation(), FuseMaps(), FuseActivation()):
        step.apply(ctx, module)
        module.verify()
    (got,) = interpret(module, [x], ctx.weights)
    np.testing.assert_allclose(got, expected, rtol=ROUNDING, atol=ROUNDING)


ROOT = math.sqrt(2)
SPELLINGS: list[tuple[str, Body]] = [
    ("relu", lambda x: sb.maximum(x, 0.0)),
    ("relu", lambda x: sb.maximum(x.constant(0.0), x)),
    ("clip", lambda x: sb.minimum(sb.maximum(x, -1.0), 2.0)),
    ("leaky_relu", lambda x: sb.where(x < 0.0, 0.125 * x, x)),
    ("sigmoid", sb.sigmoid),
    ("silu", lambda x: sb.sigmoid(x) * x),
    ("tanh", sb.tanh),
    ("gelu", lambda x: (x * (sb.erf(x / ROOT) + 1.0)) * 0.5),
    ("gelu", lambda x: x * 0.5 * (1.0 + sb.erf(x * (1 / ROOT)))),
    ("gelu_tanh", lambda x: 0.5 * x * (1.0 + sb.tanh((x + x * x * x * 0.044715) * 0.7978845608028654))),
    ("hardswish", lambda x: x * sb.minimum(sb.maximum(x + 3.0, 0.0), 6.0) / 6.0),
    ("hardsigmoid", lambda x: sb.minimum(sb.maximum(x * 0.2 + 0.5, 0.0), 1.0)),
]


@pytest.mark.parametrize(("kind", "body"), SPELLINGS, ids=[f"{k}{i}" for i, (k, _) in enumerate(SPELLINGS)])
def test_every_spelling_is_recognised(kind: str, body: Body) -> None:
    ctx = NeucContext()
    module = linear(ctx, lambda y: [map_op(body, y)])
    check(module, ctx, (4, 6))
    assert not [op for op in module.walk() if isinstance(op, MapOp)]
    (product,) = [op for op in module.walk() if isinstance(op, MatMulOp)]
    assert product.activation.kind == kind
    assert node_names(product) == ("fc", "after")


def test_parameters_are_taken_over() -> None:
    ctx = NeucContext()
    module = linear(ctx, lambda y: [map_op(lambda x: sb.minimum(sb.maximum(x, -1.5), 4.0), y)])
    check(module, ctx, (4, 6))
    (product,) = [op for op in module.walk() if isinstance(op, MatMulOp)]
    assert product.activation == ActivationAttr.of("clip", -1.5, 4.0)


@pytest.mark.parametrize(
    "body",
    [
        lambda x: sb.maximum(x, 0.5),
        lambda x: 0.5 * (x * (1.0 + sb.erf(x / 1.5))),
        lambda x: x * sb.sigmoid(2.0 * x),
        lambda x: x * sb.minimum(sb.maximum(x + 3.0, 0.0), 5.0) / 6.0,
        lambda x: sb.where(x > 0.0, x * 0.1, x),
    ],
)
def test_look_alikes_are_left_alone(body: Body) -> None:
    ctx = NeucContext()
    module = linear(ctx, lambda y: [map_op(body, y)])
    check(module, ctx, (4, 6))
    assert [op for op in module.walk() if isinstance(op, MapOp)]


def test_bias_then_activation() -> None:
    ctx = NeucContext()
    bias = make_constant("b", np.arange(5, dtype=np.float32), ctx.weights)

    def steps(y: SSAValue) -> list[Operation]:
        add = map_op(lambda a, b: a + b, y, bias.result)
        return [bias, add, map_op(lambda x: sb.maximum(x, 0.0), add.result)]

    module = linear(ctx, steps)
    check(module, ctx, (3, 6))
    (product,) = [op for op in module.walk() if isinstance(op, MatMulOp)]
    assert product.bias is not None
    assert product.activation.kind == "relu"


@pytest.mark.parametrize(
    ("shape", "folds"), [((4, 1, 1), True), ((1, 4, 1, 1), True), ((1, 1, 1, 3), False), ((3,), False)]
)
def test_conv_takes_only_a_bias_per_channel(shape: tuple[int, ...], folds: bool) -> None:
    ctx = NeucContext()
    rng = np.random.default_rng(3)
    block = Block(arg_types=[tensor_type(f32, [2, 3, 5, 5])])
    weight = make_constant("w", rng.standard_normal((4, 3, 3, 3)).astype(np.float32), ctx.weights)
    bias = make_constant("b", rng.standard_normal(shape).astype(np.float32), ctx.weights)
    result = tensor_type(f32, [2, 4, 3, 3])
    conv = ConvOp(block.args[0], weight.result, None, result, strides=[1, 1], pads=[0] * 4, dilations=[1, 1])
    add = map_op(lambda a, b: a + b, conv.result, bias.result)
    block.add_ops([weight, bias, conv, add, func.ReturnOp(add.result)])
    module = ModuleOp([func.FuncOp("main", FunctionType.from_lists([block.args[0].type], [result]), Region(block))])
    check(module, ctx, (2, 3, 5, 5))
    (conv,) = [op for op in module.walk() if isinstance(op, ConvOp)]
    assert (conv.bias is not None) == folds


def test_an_output_read_twice_keeps_its_map() -> None:
    ctx = NeucContext()
    block = Block(arg_types=[tensor_type(f32, [2, 2])])
    product = MatMulOp(block.args[0], block.args[0], None, block.args[0].type)
    relu = map_op(lambda x: sb.maximum(x, 0.0), product.result)
    block.add_ops([product, relu, func.ReturnOp(relu.result, product.result)])
    module = ModuleOp(
        [func.FuncOp("main", FunctionType.from_lists([block.args[0].type], [block.args[0].type] * 2), Region(block))]
    )
    FuseActivation().apply(ctx, module)
    assert any(isinstance(op, MapOp) for op in module.walk())
    assert all(len(dims_of(op.results[0])) == 2 for op in module.walk() if isinstance(op, MapOp))
