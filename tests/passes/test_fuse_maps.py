"""Fusing maps keeps the meaning of any chain, broadcasts included, and leaves one map where one is enough."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects import func
from xdsl.dialects.builtin import FunctionType, ModuleOp, f32
from xdsl.ir import Block, Region, SSAValue

from neuc.dialects.context import NeucContext
from neuc.dialects.dense import MapOp, YieldOp
from neuc.dialects.dense_shapes import broadcast
from neuc.dialects.interp.core import interpret
from neuc.dialects.locations import node_location, node_names
from neuc.dialects.store import dims_of, make_constant, tensor_type
from neuc.passes import scalar_builder as sb
from neuc.passes.fuse_maps import FuseMaps
from neuc.passes.partition import drop_unused
from neuc.passes.scalar_builder import Scalar

SHAPES: tuple[tuple[int | str, ...], ...] = (("B", 3), (1, 3), (3,), ("B", 1), (), (1,))
BODIES = (
    lambda a, b: a + b,
    lambda a, b: a * b,
    lambda a, b: sb.maximum(a, b),
    lambda a, b: a - b * 0.5,
)


def map_op(body, *inputs: SSAValue) -> MapOp:
    result = tensor_type(f32, broadcast([dims_of(v) for v in inputs]))
    op = MapOp(inputs, result)
    block = op.body.block
    block.add_op(YieldOp(body(*(Scalar(a, block) for a in block.args)).value))
    return op


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=8),
    st.integers(1, 4),
)
def test_any_chain_keeps_its_meaning(steps: list[tuple[int, int, int]], batch: int) -> None:
    ctx = NeucContext()
    rng = np.random.default_rng(len(steps))
    block = Block(arg_types=[tensor_type(f32, shape) for shape in SHAPES])
    constants = [
        make_constant(f"c{i}", rng.standard_normal(shape).astype(np.float32), ctx.weights)
        for i, shape in enumerate([(), (1,), (1, 1), (3,)])
    ]
    block.add_ops(constants)
    values: list[SSAValue] = [*block.args, *(c.result for c in constants)]
    for body, a, b in steps:
        op = map_op(BODIES[body], values[-1 - a % len(values)], values[-1 - b % len(values)])
        op.verify()
        block.add_op(op)
        values.append(op.result)
    block.add_op(func.ReturnOp(values[-1]))
    type_ = FunctionType.from_lists([a.type for a in block.args], [values[-1].type])
    module = ModuleOp([func.FuncOp("main", type_, Region(block))])
    shape = [[batch if isinstance(d, str) else d for d in s] for s in SHAPES]
    inputs = [rng.standard_normal(s).astype(np.float32) for s in shape]
    (expected,) = interpret(module, inputs, ctx.weights)
    drop_unused(block)
    FuseMaps().apply(ctx, module)
    module.verify()
    (got,) = interpret(module, inputs, ctx.weights)
    np.testing.assert_array_equal(got, expected)


def test_a_chain_becomes_one_map_that_names_all_its_nodes() -> None:
    ctx = NeucContext()
    block = Block(arg_types=[tensor_type(f32, ["B", 8]), tensor_type(f32, [8])])
    x, bias = block.args
    two = make_constant("two", np.array(2.0, np.float32), ctx.weights)
    first = map_op(lambda a, b: a + b, x, bias)
    second = map_op(lambda a, b: a * b, first.result, two.result)
    third = map_op(sb.tanh, second.result)
    for index, op in enumerate((first, second, third)):
        op.location = node_location(f"n{index}", "m.onnx", index)
    block.add_ops([two, first, second, third, func.ReturnOp(third.result)])
    type_ = FunctionType.from_lists([a.type for a in block.args], [third.result.type])
    module = ModuleOp([func.FuncOp("main", type_, Region(block))])
    FuseMaps().apply(ctx, module)
    (fused,) = [op for op in module.walk() if isinstance(op, MapOp)]
    assert node_names(fused) == ("n0", "n1", "n2")
    assert len(fused.inputs) == 2


def test_a_value_with_another_user_stays() -> None:
    block = Block(arg_types=[tensor_type(f32, [4])])
    first = map_op(sb.tanh, block.args[0])
    second = map_op(sb.exp, first.result)
    block.add_ops([first, second, func.ReturnOp(second.result, first.result)])
    type_ = FunctionType.from_lists([block.args[0].type], [first.result.type] * 2)
    module = ModuleOp([func.FuncOp("main", type_, Region(block))])
    FuseMaps().apply(NeucContext(), module)
    assert sum(isinstance(op, MapOp) for op in module.walk()) == 2


def test_a_small_map_is_not_computed_again_for_each_row() -> None:
    block = Block(arg_types=[tensor_type(f32, [100, 4]), tensor_type(f32, [4])])
    first = map_op(sb.exp, block.args[1])
    second = map_op(lambda a, b: a + b, block.args[0], first.result)
    block.add_ops([first, second, func.ReturnOp(second.result)])
    type_ = FunctionType.from_lists([a.type for a in block.args], [second.result.type])
    module = ModuleOp([func.FuncOp("main", type_, Region(block))])
    FuseMaps().apply(NeucContext(), module)
    assert sum(isinstance(op, MapOp) for op in module.walk()) == 2
