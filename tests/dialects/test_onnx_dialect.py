"""The `onnx` dialect: syntax round trips, access by schema names, verification against the module's opset."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

import neuc.dialects.onnx_stub as stub
from neuc.dialects import onnx, onnx_base
from neuc.dialects.context import NeucContext
from neuc.dialects.onnx_types import attribute_array, tensor_attribute
from neuc.dialects.store import Store


def parse(text: str) -> ModuleOp:
    ctx = NeucContext()
    for dialect in (Builtin, Func, Store, onnx.Onnx):
        ctx.load_dialect(dialect)
    return Parser(ctx, text).parse_module()


def text_of(module: ModuleOp, *, generic: bool = False) -> str:
    out = StringIO()
    Printer(out, print_generic_format=generic, print_debuginfo=True).print_op(module)
    return out.getvalue()


def module(body: str, opset: int = 26) -> str:
    return f'builtin.module attributes {{"onnx.opsets" = {{ai.onnx = {opset} : i64}}}} {{\n{body}\n}}'


def function(body: str) -> str:
    return f"func.func @f(%x: tensor<2x3xf32>, %i: tensor<2xi64>) {{ {body} func.return }}"


EVERY_SYNTAX = module(
    """
func.func @main(%x: tensor<2x3xf32>, %c: tensor<i1>) -> tensor<2x3xf32> {
  %n = onnx.none loc("skip")
  %clip = onnx.Clip(%x, %n, %n) : (tensor<2x3xf32>, !onnx.none_type, !onnx.none_type) -> tensor<2x3xf32>
  %y = onnx.If(%c) else_branch {
    %e = onnx.Neg(%clip) : (tensor<2x3xf32>) -> tensor<2x3xf32>
    onnx.yield %e : tensor<2x3xf32>
  } then_branch {
    onnx.yield %clip : tensor<2x3xf32>
  } : (tensor<i1>) -> tensor<2x3xf32> loc("If#2"("m.onnx":2:0))
  %z, %m = onnx.custom "com.acme" "Fancy"(%y) {alpha = 1.000000e-01 : f32, axes = array<i64: 1, -1>, s = "a\\22b",
    inf = [0x7f800000 : f32, 1.000000e+00 : f32], names = ["u", "v"], t = dense<[1, 2]> : tensor<2xi64>,
    big = #onnx.stored<tensor<2x2xbf16>, "w", "abc">, text = #onnx.strings<tensor<2x!onnx.string>, ["p", "q"]>,
    sp = #onnx.sparse<dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, array<i64: 4>>,
    ty = tensor<*xf32>, "neuc.note" = "kept"} :
    (tensor<2x3xf32>) -> (tensor<2x3xf32>, !onnx.optional<!onnx.seq<tensor<?xf32>>>)
  %q = onnx.custom "com.acme" "Maps"() : () -> !onnx.map<i64, tensor<2xf32>>
  %u = onnx.custom "com.acme" "Unknown"() : () -> !onnx.unknown
  func.return %z : tensor<2x3xf32>
}"""
)


@pytest.mark.parametrize("generic", [False, True])
def test_print_parse_print_is_identical(generic: bool) -> None:
    first = parse(EVERY_SYNTAX)
    first.verify()
    text = text_of(first, generic=generic)
    again = parse(text)
    assert text_of(again, generic=generic) == text
    assert 'loc("If#2"("m.onnx":2:0))' in text


def test_every_operator_has_a_class() -> None:
    from onnx import defs

    for schema in defs.get_all_schemas():
        cls = onnx.op_class(schema.name, schema.domain)
        assert cls is not None, schema.name
        assert cls.name.startswith("onnx.")
    assert onnx.ConvOp is onnx.op_class("Conv")
    assert onnx.op_class("NoSuchOperator") is None
    assert not hasattr(onnx, "NoSuchOperatorOp")


def test_fields_follow_the_schema() -> None:
    top = parse(EVERY_SYNTAX)
    (clip,) = (op for op in top.walk() if isinstance(op, onnx.ClipOp))
    assert clip.min is None
    assert clip.input.type == clip.output.type
    (branch,) = (op for op in top.walk() if isinstance(op, onnx.IfOp))
    assert list(branch.graphs) == ["else_branch", "then_branch"]
    (fancy,) = (op for op in top.walk() if isinstance(op, onnx.CustomOp) and op.op_type == "Fancy")
    assert fancy.full_name == "com.acme::Fancy"
    assert fancy.ints_attribute("axes") == (1, -1)
    assert fancy.attribute("names") == ("u", "v")
    assert fancy.attribute("s") == 'a"b'


@pytest.mark.parametrize(("opset", "axis"), [(12, 1), (13, -1)])
def test_defaults_are_those_of_the_modules_opset(opset: int, axis: int) -> None:
    text = function(f"%y = onnx.Softmax(%x) : ({F}) -> {F}")
    (softmax,) = (op for op in parse(module(text, opset)).walk() if isinstance(op, onnx.SoftmaxOp))
    assert softmax.int_attribute("axis") == axis


F = "tensor<2x3xf32>"


@pytest.mark.parametrize(
    ("text", "opset", "message"),
    [
        (f"%y = onnx.Relu(%x, %x) : ({F}, {F}) -> {F}", 26, "has 2 inputs, expected 1"),
        (f"%y = onnx.Relu() : () -> {F}", 26, "has 0 inputs"),
        (f"%y, %z = onnx.Relu(%x) : ({F}) -> ({F}, {F})", 26, "has 2 outputs"),
        (f"%y = onnx.Add(%x, %i) : ({F}, tensor<2xi64>) -> {F}", 26, "T is tensor.float. already"),
        (f"%y = onnx.Sin(%i) : (tensor<2xi64>) -> {F}", 26, "does not take"),
        (f"%y = onnx.Relu(%x) {{slope = 1 : i64}} : ({F}) -> {F}", 26, "no attribute slope"),
        (f"%y = onnx.Softmax(%x) {{axis = 1.0 : f32}} : ({F}) -> {F}", 26, "expected INT"),
        (f"%y = onnx.Cast(%x) : ({F}) -> {F}", 26, "attribute to is missing"),
        (f"%y = onnx.Gelu(%x) : ({F}) -> {F}", 13, "does not exist at opset 13"),
        (f"%n = onnx.none %y = onnx.Relu(%n) : (!onnx.none_type) -> {F}", 26, "absent but not optional"),
        (f"%y = onnx.Squeeze(%x) {{axes = array<i64: 0>}} : ({F}) -> {F}", 26, "no attribute axes"),
    ],
)
def test_verifier_names_what_is_wrong(text: str, opset: int, message: str) -> None:
    with pytest.raises(VerifyException, match=message):
        parse(module(function(text), opset)).verify()


def test_older_opset_allows_older_attributes() -> None:
    parse(module(function(f"%y = onnx.Squeeze(%x) {{axes = array<i64: 0>}} : ({F}) -> {F}"), 11)).verify()


@pytest.mark.parametrize("name", ["plain/Conv_1", "汉字", "tab\there", "back\\slash", "\\u0041", "é"])
def test_names_survive_escaping(name: str) -> None:
    assert onnx.encode_name(name).isascii()
    assert onnx.decode_name(onnx.encode_name(name)) == name


def test_stub_is_up_to_date() -> None:
    text = Path(onnx_base.__file__).with_name("onnx.pyi").read_text()
    assert text == stub.stub_text(), "run python -m neuc.dialects.onnx_stub > dialects/onnx.pyi"


@pytest.mark.parametrize("value", [12582912.0, float("inf"), 0.1, -0.0])
def test_tensor_attributes_survive_text(value: float) -> None:
    context = NeucContext()
    for dialect in (Builtin, Store, onnx.Onnx):
        context.load_dialect(dialect)
    array = np.array([value, 1.0], np.float32)
    attribute = tensor_attribute("t", array, context.weights)
    again = Parser(context, str(attribute)).parse_attribute()
    read = attribute_array(again, context.weights)
    assert read is not None
    assert read.tobytes() == array.tobytes()
