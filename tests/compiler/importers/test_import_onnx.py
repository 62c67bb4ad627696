"""Importing ONNX models: what comes in is what the file says, names and all."""

from __future__ import annotations

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from xdsl.dialects.builtin import CallSiteLoc, FileLineColLoc, IntegerAttr, ModuleOp, NameLoc
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

from neuc.compiler.exporters.onnx_file import export_onnx
from neuc.compiler.importers.library_steps import TARGET_OPSET
from neuc.dialects.locations import node_names
from neuc.dialects.onnx import OnnxOp, function_names, opsets_of
from neuc.dialects.store import ConstantOp, constant_array, dims_of
from neuc.passes.module_facts import notes_of
from onnx_models import INT, LIGHT, F, load, model, node, reparsed, run, text_of, value

X = value("x", ["N", 4])
Y = value("y", None)
REAL_MODELS = Path(os.environ.get("NEUC_TEST_MODELS", "/nonexistent"))


def main_of(module: ModuleOp) -> FuncOp:
    (func,) = (op for op in module.body.block.ops if isinstance(op, FuncOp))
    return func


def ops(module: ModuleOp, name: str = "") -> list[Operation]:
    return [op for op in module.walk() if isinstance(op, OnnxOp) and op.name.endswith(name)]


def dims_text(module: ModuleOp) -> list[list[str]]:
    return [[str(d) for d in dims_of(argument)] for argument in main_of(module).body.block.args]


def test_names_and_indices_become_locations(tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "a"), node("Neg", "a", "b"), node("Exp", "b", "y")]
    nodes[1].name = "block/neg"
    path = tmp_path / "net.onnx"
    onnx.save(model(nodes, [X], [Y]), path)
    module, _ = load(path)
    found = [op.location for op in ops(module)]
    assert [loc.desc.data for loc in found if isinstance(loc, NameLoc)] == ["Relu#0", "block/neg", "Exp#2"]
    place = found[1].location if isinstance(found[1], NameLoc) else None
    assert isinstance(place, FileLineColLoc)
    assert (place.filename.data, place.line.data) == ("net.onnx", 1)


def test_names_survive_opset_conversion() -> None:
    nodes = [node("Clip", "x", "a", min=0.0, max=6.0), node("Softmax", "a", "y", axis=1)]
    nodes[0].name = "the clip"
    module, _ = load(model(nodes, [X], [Y], opset=10))
    assert opsets_of(module) == {"": TARGET_OPSET}
    named = {name for op in ops(module) for name in node_names(op)}
    assert named == {"the clip", "Softmax#1"}, "what the converter adds belongs to a node of the file"


def test_opset_newer_than_the_target_is_kept() -> None:
    module, _ = load(model([node("Relu", "x", "y")], [X], [Y], opset=27))
    assert opsets_of(module) == {"": 27}


def test_scan_of_opset_8_is_not_taken_for_the_new_one() -> None:
    body = helper.make_graph(
        [node("Add", "s i", "t"), node("Identity", "t", "o")],
        "body",
        [value("s", [2]), value("i", [2])],
        [value("t", [2]), value("o", [2])],
    )
    scan = helper.make_node("Scan", ["", "init", "seq"], ["final", "all"], num_scan_inputs=1, body=body)
    inputs = [value("init", [1, 2]), value("seq", [1, 3, 2])]
    proto = model([scan], inputs, [value("final", [1, 2]), value("all", [1, 3, 2])], opset=8)
    proto.ir_version = 3
    module, ctx = load(proto)
    assert opsets_of(module) == {"": 8}
    assert "onnx.kept_opset" in module.attributes
    feeds = {"init": np.ones((1, 2), np.float32), "seq": np.ones((1, 3, 2), np.float32)}
    for ours, theirs in zip(run(export_onnx(module, ctx.weights), feeds), run(proto, feeds), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_sequences_with_unknown_dims_print_and_parse() -> None:
    nodes = [node("SplitToSequence", "x sizes", "q", axis=0), node("ConcatFromSequence", "q", "y", axis=0)]
    proto = model(nodes, [X, value("sizes", [2], INT)], [Y])
    module, ctx = load(proto)
    assert "!onnx.seq" in text_of(module)
    assert text_of(reparsed(module, ctx)) == text_of(module)


def test_interface_names_are_kept() -> None:
    x, y = value("in put/0", ["N", 4]), value("出力", None)
    proto = model([helper.make_node("Relu", ["in put/0"], ["出力"])], [x], [y])
    module, ctx = load(proto)
    assert function_names(main_of(module)) == (("in put/0",), ("出力",))
    again = export_onnx(reparsed(module, ctx), ctx.weights)
    assert [again.graph.input[0].name, again.graph.output[0].name] == ["in put/0", "出力"]


def test_anonymous_dims_are_symbols_of_their_own() -> None:
    inputs = [value("a", [-1, "?", "", "N"]), value("b", [None, "N", "batch-size", "batch_size"])]
    proto = model([node("Identity", "a", "y"), node("Identity", "b", "z")], inputs, [Y, value("z", None)])
    module, _ = load(proto)
    first, second = dims_text(module)
    assert len({*first, *second}) == 7, "only N is shared"
    assert first[3] == second[1] == "N"


def test_python_keywords_and_operators_are_safe_symbols() -> None:
    module, ctx = load(model([node("Relu", "x", "y")], [value("x", ["lambda", "a+b", "max", "2"])], [Y]))
    (dims,) = dims_text(module)
    assert len(set(dims)) == 4
    assert text_of(reparsed(module, ctx)) == text_of(module)


def test_given_shapes_replace_declared_ones() -> None:
    proto = model([node("Relu", "x", "y")], [X], [Y])
    assert dims_text(load(proto, shapes={"x": [3, 4]})[0]) == [["3", "4"]]
    assert dims_text(load(proto, shapes={"x": ["batch", 4]})[0]) == [["batch", "4"]]


def test_a_dim_that_a_given_shape_frees_is_said() -> None:
    proto = model([node("Relu", "x", "y")], [value("x", ["n", 64])], [value("y", ["n", 64])])
    assert notes_of(load(proto, shapes={"x": ["m", 64]})[0]) == []
    freed = load(proto, shapes={"x": ["a", "b"]})[0]
    assert notes_of(freed) == ["dim 1 of input x is 64 in the model; the shape given makes it b, any size"]


def test_initializers_that_are_inputs_too_are_constants() -> None:
    weights = {"w": np.arange(4, dtype=np.float32)}
    source = model([node("Add", "x w", "y")], [X, value("w", ["K"])], [Y], weights)
    module, ctx = load(source)
    assert function_names(main_of(module))[0] == ("x",)
    assert 'onnx.fixed_inputs = ["w"]' in text_of(module)
    feeds = {"x": np.ones((2, 4), np.float32)}
    np.testing.assert_array_equal(run(export_onnx(module, ctx.weights), feeds)[0], run(source, feeds)[0])
    source.ir_version = 3  # which has every initializer among the inputs
    assert "onnx.fixed_inputs" not in load(source)[0].attributes


def test_large_weights_are_views_and_small_ones_inline() -> None:
    big = np.random.default_rng(0).standard_normal((4, 64, 64)).astype(np.float32)
    nodes = [node("MatMul", "x big", "a"), node("Add", "a small", "y")]
    proto = model(nodes, [value("x", ["N", 64])], [Y], {"big": big, "small": np.array([1, 2.5], np.float32)[:1]})
    module, ctx = load(proto)
    constants = [op for op in module.walk() if isinstance(op, ConstantOp)]
    assert [op.entry.data for op in constants if op.entry is not None] == ["big"]
    np.testing.assert_array_equal(ctx.weights.get("big"), big)
    assert not ctx.weights.get("big").flags.owndata


def test_constant_nodes_of_every_kind() -> None:
    nodes = [
        helper.make_node("Constant", [], ["a"], value_float=2.5),
        helper.make_node("Constant", [], ["b"], value_floats=[1.0, 2.0, 3.0, 4.0]),
        helper.make_node("Constant", [], ["c"], value_int=3),
        helper.make_node("Constant", [], ["d"], value_ints=[1, 2, 3, 4]),
        helper.make_node("Constant", [], ["e"], value=numpy_helper.from_array(np.ones((3000,), np.float32))),
        node("Cast", "c", "cf", to=F),
        node("Cast", "d", "df", to=F),
        node("Sum", "x a b cf df", "s"),
        node("ReduceSum", "e", "r", keepdims=0),
        node("Add", "s r", "y"),
    ]
    proto = model(nodes, [X], [Y])
    module, ctx = load(proto)
    feeds = {"x": np.ones((2, 4), np.float32)}
    np.testing.assert_array_equal(run(export_onnx(module, ctx.weights), feeds)[0], run(proto, feeds)[0])


FOREIGN = {
    "bf16": TensorProto.BFLOAT16,
    "f8": TensorProto.FLOAT8E4M3FN,
    "int4": TensorProto.INT4,
    "uint4": TensorProto.UINT4,
    "c64": TensorProto.COMPLEX64,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_element_types_numpy_lacks_round_trip(kind: str) -> None:
    number = FOREIGN[kind]
    tensor = helper.make_tensor("w", number, [5], [1, 2, 3, 4, 5])
    packed = numpy_helper.from_array(numpy_helper.to_array(tensor), "w").raw_data
    proto = model([node("Identity", "w", "y")], [X], [value("y", [5], number)], opset=23)
    proto.graph.initializer.append(tensor)
    module, ctx = load(proto)
    again = export_onnx(reparsed(module, ctx), ctx.weights)
    (constant,) = (n for n in again.graph.node if n.op_type == "Constant")
    assert constant.attribute[0].t.data_type == number
    assert constant.attribute[0].t.raw_data == packed


def test_strings_and_sparse_tensors_round_trip() -> None:
    text = numpy_helper.from_array(np.array(["plain", "ünï"], object), "s")
    values = helper.make_tensor("sp", F, [1], [3.0])
    indices = helper.make_tensor("i", INT, [1], [2])
    proto = model(
        [node("StringNormalizer", "s", "t", case_change_action="UPPER"), node("Add", "x sp", "y")],
        [X],
        [Y, value("t", None, TensorProto.STRING)],
    )
    proto.graph.initializer.append(text)
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    module, ctx = load(proto)
    again = export_onnx(reparsed(module, ctx), ctx.weights)
    constants = {a.name: a for n in again.graph.node if n.op_type == "Constant" for a in n.attribute}
    assert list(constants["value"].t.string_data) == [b"plain", "ünï".encode()]
    assert list(constants["sparse_value"].sparse_tensor.dims) == [4]


def test_optional_inputs_and_outputs_are_absent_not_dropped() -> None:
    shapes = {"w": (1, 9, 4), "r": (1, 9, 3), "h": (1, 2, 3)}
    weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    proto = model([node("GRU", "x w r _ _ h", "_ y", hidden_size=3)], [value("x", [5, 2, 4])], [Y], weights)
    module, ctx = load(proto)
    again = export_onnx(module, ctx.weights)
    (gru,) = (n for n in again.graph.node if n.op_type == "GRU")
    assert [bool(name) for name in gru.input] == [True, True, True, False, False, True]
    assert gru.output[0] == ""
    feeds = {"x": np.ones((5, 2, 4), np.float32)}
    np.testing.assert_array_equal(run(again, feeds)[0], run(proto, feeds)[0])


def test_subgraphs_capture_outer_values() -> None:
    then = helper.make_graph([node("Add", "x a", "t")], "t", [], [value("t", None)])
    inner = helper.make_graph([node("Mul", "e1 a", "e2")], "i", [], [value("e2", None)])
    other = helper.make_graph(
        [node("Sub", "x w", "e1"), node("If", "c", "e", then_branch=inner, else_branch=inner)],
        "e",
        [],
        [value("e", None)],
        [numpy_helper.from_array(np.full(4, 2, np.float32), "w")],
    )
    nodes = [node("Neg", "x", "a"), node("If", "c", "y", then_branch=then, else_branch=other)]
    proto = model(nodes, [X, value("c", [], TensorProto.BOOL)], [Y])
    for index, graph in enumerate((inner, inner)):
        graph.name = f"i{index}"
    module, ctx = load(proto)
    again = export_onnx(reparsed(module, ctx), ctx.weights)
    for flag in (True, False):
        feeds = {"x": np.arange(8, dtype=np.float32).reshape(2, 4), "c": np.array(flag)}
        np.testing.assert_array_equal(run(again, feeds)[0], run(proto, feeds)[0])
    assert [node_names(op)[0] for op in ops(module, "Sub")] == ["If#1/else_branch/Sub#0"]


def test_conditionals_on_constants_are_resolved() -> None:
    then = helper.make_graph([node("Relu", "x", "t")], "t", [], [value("t", None)])
    other = helper.make_graph([node("Neg", "x", "e")], "e", [], [value("e", None)])
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s one", "d"),
        node("Equal", "d four", "c"),
        node("If", "c", "y", then_branch=then, else_branch=other),
    ]
    module, _ = load(model(nodes, [X], [Y], {"one": np.array(1), "four": np.array(4)}))
    assert [op.name for op in ops(module)] == ["onnx.Relu"]


def test_shape_arithmetic_on_known_sizes_folds_away() -> None:
    nodes = [node("Shape", "x", "s"), node("ReduceProd", "s", "p"), node("Reshape", "x p", "y")]
    module, _ = load(model(nodes, [value("x", [3, 4])], [Y]))
    assert [op.name for op in ops(module)] == ["onnx.Reshape"]
    (constant,) = (op for op in module.walk() if isinstance(op, ConstantOp))
    assert constant.value is not None


def test_folding_does_not_blow_up_constants() -> None:
    nodes = [node("Expand", "one big", "e"), node("Add", "x e", "y")]
    weights = {"one": np.ones(1, np.float32), "big": np.array([1 << 14, 1 << 14])}
    module, ctx = load(model(nodes, [value("x", [1, 1])], [Y], weights))
    assert [op.name for op in ops(module)] == ["onnx.Expand", "onnx.Add"]
    assert len(ctx.weights) == 0


def function(
    name: str, nodes: list[onnx.NodeProto], inputs: list[str], outputs: list[str], **options: object
) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, inputs, outputs, nodes, opsets, **options)  # type: ignore[arg-type]


def local(op: str, inputs: str, outputs: str, name: str = "", **attributes: object) -> onnx.NodeProto:
    made = node(op, inputs, outputs, **attributes)
    made.domain, made.name = "local", name
    return made


def test_functions_are_inlined_and_know_their_call_sites() -> None:
    scale = node("LeakyRelu", "a", "b")
    scale.name = "leaky"
    scale.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    inner = function("Inner", [scale, node("Neg", "b", "c")], ["a"], ["c"], attributes=["slope"])
    outer = function("Outer", [local("Inner", "p", "q", slope=0.5), node("Add", "q q", "r")], ["p"], ["r"])
    nodes = [local("Outer", "x", "h", "first"), local("Outer", "h", "y", "second")]
    proto = model(nodes, [X], [Y], domains={"local": 1}, functions=[inner, outer])
    module, ctx = load(proto)
    assert len(ops(module)) == 6
    leaky = ops(module, "LeakyRelu")
    assert [node_names(op)[0] for op in leaky] == ["first/Inner#0/leaky", "second/Inner#0/leaky"]
    location = leaky[1].location
    callers: list[str] = []
    while isinstance(location, CallSiteLoc):
        caller = location.caller
        assert isinstance(caller, NameLoc)
        callers.append(caller.desc.data)
        location = location.callee
    assert callers == ["second", "second/Inner#0"], "outermost first on the way in"
    feeds = {"x": np.array([[-1, 2, -3, 4]], np.float32)}
    np.testing.assert_array_equal(run(export_onnx(module, ctx.weights), feeds)[0], run(proto, feeds)[0])


def test_foreign_operators_are_kept_whole() -> None:
    fancy = node("Fancy", "x", "y z", alpha=0.5, names=["a", "b"], table=[1, 2])
    fancy.domain = "com.acme"
    proto = model([fancy], [X], [value("y", ["N", 4]), value("z", None)], domains={"com.acme": 3})
    module, ctx = load(proto)
    again = export_onnx(reparsed(module, ctx), ctx.weights)
    assert [n.domain for n in again.graph.node] == ["com.acme"]
    assert {a.name: helper.get_attribute_value(a) for a in again.graph.node[0].attribute} == {
        "alpha": 0.5,
        "names": [b"a", b"b"],
        "table": [1, 2],
    }
    assert {o.domain: o.version for o in again.opset_import}["com.acme"] == 3


def test_unsorted_graphs_are_sorted() -> None:
    module, _ = load(model([node("Neg", "a", "y"), node("Relu", "x", "a")], [X], [Y]))
    assert [op.name for op in ops(module)] == ["onnx.Relu", "onnx.Neg"]


def test_external_data_is_mapped(tmp_path: Path) -> None:
    w = np.random.default_rng(1).standard_normal((4, 2048)).astype(np.float32)
    proto = model([node("MatMul", "x w", "y")], [X], [Y], {"w": w})
    (tmp_path / "data").mkdir()
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="data/m.bin", size_threshold=0)
    _, ctx = load(tmp_path / "m.onnx")
    np.testing.assert_array_equal(ctx.weights.get("w"), w)


def test_bytes_path_and_message_give_the_same(tmp_path: Path) -> None:
    proto = model([node("Relu", "x", "y")], [X], [Y])
    before = proto.SerializeToString()
    (tmp_path / "model.onnx").write_bytes(before)
    texts = {text_of(load(source)[0]) for source in (proto, before, tmp_path / "model.onnx")}
    assert len(texts) == 1
    assert proto.SerializeToString() == before, "the caller's model is not changed"


def test_module_records_versions() -> None:
    module, _ = load(model([node("Relu", "x", "y")], [X], [Y]))
    version = module.attributes["onnx.ir_version"]
    assert isinstance(version, IntegerAttr)


LIGHT_QUICK = ("light_squeezenet", "light_shufflenet")
LIGHT_ALL = sorted(path.stem for path in LIGHT.glob("*.onnx"))


def check_whole(path: Path, feeds: dict[str, np.ndarray], tolerance: float) -> None:
    """Text round trip is exact; the exported model computes what the file does."""
    module, ctx = load(path)
    text = text_of(module)
    again = reparsed(module, ctx)
    assert text_of(again) == text
    for ours, theirs in zip(run(export_onnx(again, ctx.weights), feeds), run(path, feeds), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "name", [n if n in LIGHT_QUICK else pytest.param(n, marks=pytest.mark.slow) for n in LIGHT_ALL]
)
def test_light_models(name: str) -> None:
    path = LIGHT / f"{name}.onnx"
    graph = onnx.load(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    (info,) = (i for i in graph.input if i.name not in constants)
    shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
    feeds = {info.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    check_whole(path, feeds, tolerance=0.0)


# onnxruntime packs the weights of an LSTM or a product only when they are constants, which folding makes them, and then
# sums in another order: a few ULP of values around 1.
PACKING = 4e-6

REAL = {
    "speechmos/dnsmos_models/model_v8.onnx": ({"input_1": (2, 900, 120)}, 0.0),
    "silero_vad/data/silero_vad_16k_sequence.onnx": ({"input": (3, 576), "h": (1, 1, 128), "c": (1, 1, 128)}, PACKING),
    "silero_vad/data/silero_vad.onnx": ({"input": (1, 512), "state": (2, 1, 128), "sr": ()}, PACKING),
    "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx": ({"x": (2, 3, 48, 192)}, 0.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_models(name: str) -> None:
    path = REAL_MODELS / name
    if not path.exists():
        pytest.skip("NEUC_TEST_MODELS does not hold the unpacked wheels")
    shapes, tolerance = REAL[name]
    rng = np.random.default_rng(0)
    feeds = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    if "sr" in feeds:
        feeds["sr"] = np.array(16000, np.int64)
    check_whole(path, feeds, tolerance)


def test_bfloat16_bits_are_those_of_ml_dtypes() -> None:
    array = np.array([1.5, -2.25], ml_dtypes.bfloat16)
    proto = model([node("Cast", "w", "f", to=F), node("Add", "x f", "y")], [value("x", [2])], [Y])
    proto.graph.initializer.append(numpy_helper.from_array(array, "w"))
    module, ctx = load(proto)
    feeds = {"x": np.zeros(2, np.float32)}
    np.testing.assert_array_equal(run(export_onnx(module, ctx.weights), feeds)[0], array.astype(np.float32))


def test_constant_array_reads_what_the_file_holds() -> None:
    weights = {"w": np.array([[1, -2], [3, 4]], np.int8)}
    module, ctx = load(
        model([node("Cast", "w", "f", to=F), node("MatMul", "x f", "y")], [value("x", ["N", 2])], [Y], weights)
    )
    arrays = [constant_array(op, ctx.weights) for op in module.walk() if isinstance(op, ConstantOp)]
    assert [a.tolist() for a in arrays] == [[[1.0, -2.0], [3.0, 4.0]]], "the cast is folded"
