"""Exporting: graphs that ONNX's checker and onnxruntime accept, whatever the IR looks like."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func, FuncOp
from xdsl.dialects.test import Test
from xdsl.parser import Parser

from neuc.compiler.exporters.onnx_file import export_onnx
from neuc.dialects.context import NeucContext
from neuc.dialects.onnx import Onnx
from neuc.dialects.store import Store
from neuc.errors import Error
from onnx_models import F, load, model, node, run, value

ROW = {"x": np.array([[-1, 2]], np.float32)}


def parse(text: str) -> tuple[ModuleOp, NeucContext]:
    ctx = NeucContext()
    for dialect in (Builtin, Func, Store, Onnx, Test):
        ctx.load_dialect(dialect)
    module = Parser(ctx, text).parse_module()
    module.verify()
    return module, ctx


def module_of(body: str, signature: str = "(%x: tensor<1x2xf32>) -> tensor<1x2xf32>", name: str = "main") -> str:
    head = 'builtin.module attributes {"onnx.opsets" = {ai.onnx = 21 : i64}}'
    return f"{head} {{ func.func @{name}{signature} {{\n{body}\n}} }}"


def checked(proto: ModelProto) -> ModelProto:
    onnx.checker.check_model(proto, full_check=True)
    return proto


RELU = "%y = onnx.Relu(%x) : (tensor<1x2xf32>) -> tensor<1x2xf32>"


def test_names_of_the_function_are_those_of_the_model() -> None:
    text = module_of(
        f"{RELU} func.return %y : tensor<1x2xf32>",
        '(%x: tensor<1x2xf32> {"onnx.name" = "in/0"}) -> (tensor<1x2xf32> {"onnx.name" = "out:0"})',
    )
    module, ctx = parse(text)
    proto = checked(export_onnx(module, ctx.weights))
    assert [i.name for i in proto.graph.input] == ["in/0"]
    assert [o.name for o in proto.graph.output] == ["out:0"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("func.return %x, %x : tensor<1x2xf32>, tensor<1x2xf32>", ([[-1, 2]], [[-1, 2]])),
        (f"{RELU} func.return %y, %y : tensor<1x2xf32>, tensor<1x2xf32>", ([[0, 2]], [[0, 2]])),
        (f"{RELU} func.return %x, %y : tensor<1x2xf32>, tensor<1x2xf32>", ([[-1, 2]], [[0, 2]])),
        (
            "%k = store.constant value dense<3.0> : tensor<1x2xf32> : tensor<1x2xf32> "
            "func.return %k, %k : tensor<1x2xf32>, tensor<1x2xf32>",
            ([[3, 3]], [[3, 3]]),
        ),
    ],
)
def test_results_may_be_arguments_constants_or_the_same(body: str, expected: tuple[object, object]) -> None:
    module, ctx = parse(module_of(body, "(%x: tensor<1x2xf32>) -> (tensor<1x2xf32>, tensor<1x2xf32>)"))
    proto = checked(export_onnx(module, ctx.weights))
    found = run(proto, {proto.graph.input[0].name: ROW["x"]})
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(got, np.array(want, np.float32))


def test_constants_may_stand_anywhere() -> None:
    body = f"""{RELU}
      %k = store.constant value dense<[[1.0, 2.0]]> : tensor<1x2xf32> : tensor<1x2xf32>
      %z = onnx.Add(%y, %k) : (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x2xf32>
      func.return %z : tensor<1x2xf32>"""
    module, ctx = parse(module_of(body))
    found = run(checked(export_onnx(module, ctx.weights)), {"in0": ROW["x"]})
    np.testing.assert_array_equal(found[0], np.array([[1, 4]], np.float32))


def test_one_function_of_many() -> None:
    segment = module_of(f"{RELU} func.return %y : tensor<1x2xf32>", name="host0")
    module, ctx = parse(segment)
    (func,) = (op for op in module.walk() if isinstance(op, FuncOp))
    proto = checked(export_onnx(func, ctx.weights))
    assert proto.graph.name == "host0"
    assert [o.version for o in proto.opset_import] == [21]


def test_symbolic_dims_are_written_and_read_back() -> None:
    module, ctx = load(model([node("Concat", "x x", "y", axis=0)], [value("x", ["N", 4])], [value("y", None)]))
    proto = checked(export_onnx(module, ctx.weights))
    (output,) = proto.graph.output
    assert [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] == ["2*N", 4]


def test_node_names_are_unique_for_onnxruntime() -> None:
    nodes = [node("Relu", "x", "a"), node("Neg", "a", "y")]
    for item in nodes:
        item.name = "same"
    module, ctx = load(model(nodes, [value("x", [1, 2])], [value("y", [1, 2])]))
    proto = export_onnx(module, ctx.weights)
    assert len({n.name for n in proto.graph.node}) == 2
    run(proto, ROW)


def test_everything_that_has_no_onnx_form_is_named() -> None:
    body = """%a = "test.op"(%x) : (tensor<1x2xf32>) -> tensor<1x2xf32> loc("first")
      %b = "test.op"(%a) : (tensor<1x2xf32>) -> tensor<1x2xf32> loc("second")
      func.return %b : tensor<1x2xf32>"""
    module, ctx = parse(module_of(body))
    with pytest.raises(Error, match="no ONNX form") as caught:
        export_onnx(module, ctx.weights)
    assert caught.value.code == "NEUC-E113"
    assert {n.name for n in caught.value.nodes} == {"first", "second"}


def test_module_without_a_function() -> None:
    module, ctx = parse("builtin.module {}")
    with pytest.raises(Error, match="no function"):
        export_onnx(module, ctx.weights)


def test_infinities_and_nans_keep_their_bits() -> None:
    special = np.array([[np.inf, -0.0]], np.float32)
    nodes = [node("Add", "x k", "a"), node("Clip", "a", "y")]
    module, ctx = load(model(nodes, [value("x", [1, 2])], [value("y", [1, 2])], {"k": special}))
    proto = export_onnx(module, ctx.weights)
    (constant,) = (onnx.numpy_helper.to_array(t) for t in proto.graph.initializer)
    assert constant.tobytes() == special.tobytes()
    assert proto.graph.input[0].type.tensor_type.elem_type == F
