"""Partitioning keeps the meaning of any graph, puts every op in a segment of its kind, and uses as few as it can."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects import func
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FunctionType, ModuleOp, StringAttr, f32
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from neuc.dialects import dense_arithmetic, dense_movement, onnx
from neuc.dialects.context import NeucContext
from neuc.dialects.interp.core import Env, interpret
from neuc.dialects.locations import node_location
from neuc.dialects.onnx_base import NAME, OnnxOp
from neuc.dialects.onnx_special import CustomOp
from neuc.dialects.store import make_constant, tensor_type
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error, Exit
from neuc.passes.partition import HOST, REASON, TARGET, Partition, is_host

SQUARE = tensor_type(f32, [2, 2])


def host_add(a: SSAValue, b: SSAValue) -> Operation:
    add = onnx.op_class("Add")
    assert add is not None
    return add([a, b], [SQUARE])


def native_product(a: SSAValue, b: SSAValue) -> Operation:
    return dense_arithmetic.MatMulOp(a, b, None, SQUARE)


def run_host(op: Operation, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    assert isinstance(op, OnnxOp)
    return [args[0] + args[1]]


def build(nodes: list[tuple[bool, int, int]], outputs: list[int]) -> tuple[ModuleOp, WeightStore]:
    store = WeightStore()
    block = Block(arg_types=[SQUARE, SQUARE])
    constant = make_constant("c", np.array([[1, 2], [3, -1]], np.float32), store)
    block.add_op(constant)
    values: list[SSAValue] = [*block.args, constant.result]
    for index, (host, a, b) in enumerate(nodes):
        operands = values[a % len(values)], values[b % len(values)]
        op = host_add(*operands) if host else native_product(*operands)
        op.location = node_location(f"node{index}", "m.onnx", index)
        block.add_op(op)
        values.append(op.results[0])
    returned = [values[-1 - (o % len(values))] for o in outputs]
    block.add_op(func.ReturnOp(*returned))
    main = func.FuncOp("main", FunctionType.from_lists([SQUARE] * 2, [SQUARE] * len(returned)), Region(block))
    main.arg_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr(f"x{i}")}) for i in range(2)])
    main.res_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr(f"y{i}")}) for i in range(len(returned))])
    return ModuleOp([main]), store


def run(module: ModuleOp, store: WeightStore) -> list[np.ndarray]:
    inputs = [np.array([[1, -1], [0.5, 2]], np.float32), np.array([[0, 1], [1, 0]], np.float32)]
    return interpret(module, inputs, store, fallback=run_host)


nodes = st.lists(st.tuples(st.booleans(), st.integers(0, 50), st.integers(0, 50)), max_size=12)


@settings(deadline=None)
@given(nodes, st.lists(st.integers(0, 20), min_size=1, max_size=4))
def test_any_graph_keeps_its_meaning(graph: list[tuple[bool, int, int]], outputs: list[int]) -> None:
    module, store = build(graph, outputs)
    expected = run(module, store)
    Partition(target="cpu-tl2").apply(NeucContext(), module)
    module.verify()
    for got, want in zip(run(module, store), expected, strict=True):
        np.testing.assert_array_equal(got, want)
    main, *segments = module.ops
    assert isinstance(main, func.FuncOp)
    assert all(isinstance(op, func.CallOp | func.ReturnOp) for op in main.body.block.ops)
    returned = list(main.body.block.last_op.operands)  # pyright: ignore[reportOptionalMemberAccess]
    assert len(set(returned)) == len(returned)
    assert not any(value in main.body.block.args for value in returned)
    for segment in segments:
        assert isinstance(segment, func.FuncOp)
        wants_host = segment.attributes[TARGET] == StringAttr(HOST)
        kinds = {is_host(op) for op in segment.body.block.ops if isinstance(op, OnnxOp | dense_arithmetic.MatMulOp)}
        assert kinds <= {wants_host}


def targets(module: ModuleOp) -> list[str]:
    found = [op.attributes.get(TARGET) for op in module.ops]
    return [a.data for a in found if isinstance(a, StringAttr)]


def test_independent_host_nodes_share_one_segment() -> None:
    # Two chains product -> add -> product: three segments, not five.
    module, _ = build([(False, 0, 1), (True, 3, 3), (False, 4, 0), (False, 1, 0), (True, 6, 6), (False, 7, 1)], [0, 3])
    Partition(target="cpu").apply(NeucContext(), module)
    assert targets(module) == ["cpu", HOST, "cpu"]


def test_a_segment_gets_an_input_for_a_symbol_it_cannot_see() -> None:
    block = Block(arg_types=[tensor_type(f32, ["B", 4])])
    made = dense_movement.DimsOp(["B*2"])
    block.add_ops([made, func.ReturnOp(made.results[0])])
    main = func.FuncOp("main", FunctionType.from_lists([block.args[0].type], [made.results[0].type]), Region(block))
    main.arg_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr("x")})])
    main.res_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr("y")})])
    module = ModuleOp([main])
    Partition().apply(NeucContext(), module)
    assert interpret(module, [np.zeros((5, 4), np.float32)], WeightStore())[0].tolist() == [10]
    segment = list(module.ops)[1]
    assert isinstance(segment, func.FuncOp)
    assert len(segment.body.block.args) == 1


def test_a_native_op_waits_for_the_host_op_that_brings_its_symbol_along() -> None:
    relu = onnx.op_class("Relu")
    assert relu is not None
    vector = tensor_type(f32, ["u0"])
    block = Block(arg_types=[SQUARE])
    found = relu([block.args[0]], [vector])  # stands for an op whose result's size depends on data
    size = dense_movement.DimsOp(["u0"])  # reads no operand
    block.add_ops([found, size, func.ReturnOp(size.results[0])])
    main = func.FuncOp("main", FunctionType.from_lists([SQUARE], [size.results[0].type]), Region(block))
    main.arg_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr("x")})])
    main.res_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr("y")})])
    module = ModuleOp([main])
    Partition(target="cpu").apply(NeucContext(), module)
    module.verify()
    assert targets(module) == [HOST, "cpu"]
    native = list(module.ops)[2]
    assert isinstance(native, func.FuncOp)
    assert [argument.type for argument in native.body.block.args] == [vector]


def test_all_host_nodes_are_refused_at_once() -> None:
    module, _ = build([(True, 0, 1), (False, 3, 0), (True, 4, 1)], [0])
    for op in module.walk():
        if isinstance(op, OnnxOp):
            op.attributes[REASON] = StringAttr("test says so")
    with pytest.raises(Error, match="2 operators not supported by target cpu-tl2") as caught:
        Partition(target="cpu-tl2", fallback="error").apply(NeucContext(), module)
    assert caught.value.exit_code == Exit.UNSUPPORTED
    assert [(n.name, n.op_type, n.reason) for n in caught.value.nodes] == [
        ("node0", "Add", "test says so"),
        ("node2", "Add", "test says so"),
    ]


def test_nodes_that_onnxruntime_does_not_have_are_refused_with_the_reason_of_the_lowering() -> None:
    module, _ = build([(False, 0, 1)], [0])
    product = next(op for op in module.walk() if isinstance(op, dense_arithmetic.MatMulOp))
    for index, reason in enumerate(["2.5 bits", ""]):
        quant = CustomOp.of("qonnx.custom_op.general", "Quant", [product.a], [SQUARE], {}, {})
        quant.location = node_location(f"quant{index}", "m.onnx", index)
        if reason:
            quant.attributes[REASON] = StringAttr(reason)
        Rewriter.insert_op(quant, InsertPoint.before(product))
        product.operands[index] = quant.results[0]
    with pytest.raises(Error, match="2 operators supported neither by target cpu-tl2 nor by onnxruntime") as caught:
        Partition(target="cpu-tl2").apply(NeucContext(), module)
    assert caught.value.code == "NEUC-E101"
    assert [(n.name, n.reason) for n in caught.value.nodes] == [
        ("quant0", "2.5 bits, and onnxruntime does not have this domain"),
        ("quant1", "no lowering, and onnxruntime does not have this domain"),
    ]
