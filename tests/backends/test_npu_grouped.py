"""Grouped and depthwise convolutions on the array: the CPU's bits, in ternary and int8, finished there or not."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from xdsl.dialects.builtin import ModuleOp, f32, i8
from xdsl.dialects.func import FuncOp, ReturnOp

import neuc
from neuc.backends.npu.grouped_products import GroupedProducts
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.tiling import MERGED_COLUMNS, Product, choose_plans
from neuc.dialects.context import NeucContext
from neuc.dialects.interp.core import interpret
from neuc.dialects.store import tensor_type
from neuc.dialects.ternary import ConvOp
from neuc.dialects.ternary_types import ScaleAttr, Window
from neuc.dialects.ternary_weights import make_weight
from neuc.errors import Error
from qdq_layers import conv, model_of, pair

XDNA1 = find_machine("npu-xdna1")
SAME = 0.9  # of the results; one code in a thousand, a step off, reaches up to 54 of 1120 sums


@pytest.fixture(scope="module")
def quantised() -> onnx.ModelProto:
    """A depthwise layer and one of four groups in int8 QDQ form, the second with a sigmoid behind it."""
    weights: dict[str, np.ndarray] = {}
    same = {"pads": [1, 1, 1, 1]}
    nodes = [
        *pair("x", weights, 0.02),
        *conv("depthwise", "x.d", (24, 1, 3, 3), weights, group=24, **same),
        helper.make_node("Relu", ["depthwise.y"], ["r"]),
        *pair("r", weights, 0.02),
        *conv("four", "r.d", (32, 6, 3, 3), weights, group=4, **same),
        helper.make_node("Sigmoid", ["four.y"], ["y"]),
    ]
    return model_of(nodes, weights, (1, 24, 7, 5), ("y", (1, 32, 7, 5)))


def test_int8_groups_are_the_cpus_bit_for_bit(quantised: onnx.ModelProto):
    x = np.random.default_rng(3).standard_normal((1, 24, 7, 5)).astype(np.float32)
    compiled = neuc.compile(quantised, "npu-xdna1")
    on_cpu = neuc.compile(quantised, "npu-xdna1{grouped=cpu,finish=cpu}")
    expected = np.asarray(on_cpu.session().run(None, {"x": x})[0])
    np.testing.assert_array_equal(np.asarray(compiled.session().run(None, {"x": x})[0]), expected)
    assert len(np.unique(expected)) > 100
    notes, plain = (" ".join(c.report.hints) for c in (compiled, on_cpu))
    assert "2 products run on npu-xdna1" in notes
    assert "1 product leaves npu-xdna1 as int8 codes" in notes
    assert "finished on the CPU, because its activation is sigmoid: four" in notes
    assert "2 layers stay on the CPU, because grouped=cpu" in plain


def test_ternary_groups_with_several_planes_are_the_cpus_bit_for_bit():
    random = np.random.default_rng(4)
    weights = [numpy_helper.from_array(random.standard_normal((32, 16, 3, 3)).astype(np.float32), "w")]
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="two", group=2, strides=[2, 2])
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 32, s, s]) for n, s in (("x", 8), ("y", 3)))
    graph = helper.make_graph([node], "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    feeds = {"x": random.standard_normal((2, 32, 8, 8)).astype(np.float32)}
    compiled = neuc.compile(model, "npu-xdna1{columns=2}", planes=2)
    expected = neuc.compile(model, "cpu", quantize="ternary", planes=2).session().run(None, feeds)[0]
    np.testing.assert_array_equal(compiled.session().run(None, feeds)[0], expected)
    assert "1 product runs on npu-xdna1-2col" in " ".join(compiled.report.hints)


def test_merging_groups_saves_time():
    apart = choose_plans(XDNA1, (Product(1152, 9, 1, 64),))
    merged = choose_plans(XDNA1, (Product(1152, 9 * MERGED_COLUMNS, MERGED_COLUMNS, 64 // MERGED_COLUMNS),))
    assert merged.costs[0].cycles < apart.costs[0].cycles / 2


def test_small_layers_stay_and_wrong_words_are_named(quantised: onnx.ModelProto):
    notes = " ".join(neuc.compile(quantised, "npu-xdna1{least=1000000000}").report.hints)
    assert "nothing runs on npu-xdna1: least=1000000000" in notes
    with pytest.raises(Error, match="grouped=gpu makes no sense"):
        neuc.compile(quantised, "npu-xdna1{grouped=gpu}")


def test_a_grouped_convolution_of_floats_says_so():
    random = np.random.default_rng(5)
    weights = [numpy_helper.from_array(random.standard_normal((8, 1, 3, 3)).astype(np.float32), "w")]
    weights.append(numpy_helper.from_array(random.standard_normal((16, 8, 3, 3)).astype(np.float32), "v"))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], name="deep", group=8),
        helper.make_node("Conv", ["h", "v"], ["y"], name="wide"),
    ]
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 8, 8, 8]), ("y", [1, 16, 4, 4]))
    )
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    notes = " ".join(neuc.compile(model, "npu-xdna1").report.hints)
    assert "because operands are floats (float=bf16 takes them): deep" in notes
    assert "inf ms" not in notes


@pytest.mark.parametrize(("channels", "groups", "offset"), [(8, 8, 128), (12, 4, -7), (6, 3, 0)])
def test_sums_of_groups_get_what_an_offset_adds(channels: int, groups: int, offset: int):
    random, context, columns = np.random.default_rng(groups), NeucContext(), channels // groups * 9
    function = FuncOp("main", ([tensor_type(i8, [2, channels, 5, 6]), tensor_type(f32, [2])], []))
    block = function.body.block
    trits = random.integers(-127, 128, (1, channels, columns)).astype(np.int8)
    scales = random.uniform(0.1, 1, (1, channels, 1)).astype(np.float32)
    weight = make_weight("w", trits, scales, context.weights, scale=ScaleAttr.of("row"), levels=tuple(range(-127, 128)))
    window = Window((3, 3), (1, 2), (0, 0, 0, 0), (1, 1))
    q, s = block.args
    conv = ConvOp(q, s, weight.result, window, group=groups, offset=offset)
    block.add_ops([weight, conv, ReturnOp(conv.result)])
    function.update_function_type()
    module = ModuleOp([function])
    module.verify()
    inputs = [random.integers(-128, 128, (2, channels, 5, 6)).astype(np.int8), np.array([0.5, 2], np.float32)]
    expected = interpret(module, inputs, context.weights)
    GroupedProducts(least=10**9 if offset else 0).apply(context, module)
    module.verify()
    assert "npu.grouped_accumulate" in str(module), "CPUs have no kernel with an offset: those never stay"
    np.testing.assert_array_equal(interpret(module, inputs, context.weights)[0], expected[0])


@pytest.mark.parametrize(("target", "zero_point"), [("npu-xdna1", 9), ("npu-xdna2", -128)])
def test_groups_of_activations_with_a_zero_point_are_products(quantised: onnx.ModelProto, target: str, zero_point: int):
    """As onnxruntime's quantiser makes them; pads are the zero point, which the array's DMAs read."""
    shifted = onnx.ModelProto()
    shifted.CopyFrom(quantised)
    for tensor in shifted.graph.initializer:
        if tensor.name.endswith(".z"):
            tensor.CopyFrom(numpy_helper.from_array(np.array(zero_point, np.int8), tensor.name))
    x = np.random.default_rng(3).standard_normal((1, 24, 7, 5)).astype(np.float32)
    compiled = neuc.compile(shifted, target)
    notes = " ".join(compiled.report.hints)
    assert "2 products run on" in notes
    assert "stay on the CPU" not in notes
    session = ort.InferenceSession(shifted.SerializeToString(), providers=["CPUExecutionProvider"])
    expected, got = np.asarray(session.run(None, {"x": x})[0]), np.asarray(compiled.session().run(None, {"x": x})[0])
    assert np.isclose(got, expected, rtol=0, atol=1e-5).mean() > SAME, "floats round a code otherwise now and then"
    assert len(np.unique(expected)) > 20
