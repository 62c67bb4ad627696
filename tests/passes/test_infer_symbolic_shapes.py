"""Symbolic inference: every type it writes must be what onnxruntime computes, for several values of the symbols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper
from xdsl.dialects.builtin import ModuleOp, TensorType, UnrankedTensorType
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import SSAValue

from neuc.compiler.exporters.onnx_file import export_onnx
from neuc.dialects.dims import Dim
from neuc.dialects.onnx import OnnxOp
from neuc.dialects.store import dims_of
from neuc.errors import Error
from neuc.passes.analysis.symbolic_facts import bounds
from neuc.passes.analysis.symbolic_values import symbolic_values, unknown_dims
from neuc.passes.infer_symbolic_shapes import InferSymbolicShapes, infer_symbolic_shapes
from onnx_models import INT, B, F, load, model, node, run, value


def main_of(module: ModuleOp) -> FuncOp:
    (func,) = (op for op in module.body.block.ops if isinstance(op, FuncOp))
    return func


def return_everything(module: ModuleOp) -> Sequence[SSAValue]:
    """Make the function return every tensor its operations compute."""
    func = main_of(module)
    last = func.body.block.last_op
    assert last is not None
    kinds = (TensorType, UnrankedTensorType)
    values = [
        v for op in func.body.block.ops if isinstance(op, OnnxOp) for v in op.results if isinstance(v.type, kinds)
    ]
    last.detach()
    last.erase()
    func.body.block.add_op(ReturnOp(*values))
    func.properties.pop("res_attrs")
    func.update_function_type()
    return values


def check_against_runs(proto: ModelProto, bindings: Sequence[Mapping[str, int]]) -> ModuleOp:
    """Import `proto`; run it for every binding; compare each value's shape, and contents where they are known."""
    module, ctx = load(proto)
    known = symbolic_values(module, ctx.weights)
    unknown = {s for symbols in unknown_dims(module).values() for s in symbols}
    values = return_everything(module)
    exported = export_onnx(module, ctx.weights)
    rng = np.random.default_rng(0)
    func = main_of(module)
    for symbols in bindings:
        given: dict[str, np.ndarray] = {}
        for info, argument in zip(exported.graph.input, func.body.block.args):
            shape = [dim.evaluate(symbols) for dim in dims_of(argument)]
            integer = info.type.tensor_type.elem_type == INT
            given[info.name] = rng.integers(0, 2, shape) if integer else rng.standard_normal(shape).astype(np.float32)
        for found, result in zip(values, run(exported, given)):
            if isinstance(found.type, UnrankedTensorType):
                continue
            for dim, size in zip(dims_of(found), result.shape, strict=True):
                if not dim.symbols & unknown:
                    assert dim.evaluate(symbols) == size, (str(found.type), result.shape, symbols)
            if found in known:
                assert [dim.evaluate(symbols) for dim in known[found]] == result.reshape(-1).tolist()
    return module


X = value("x", ["B", "S", 12])
ANY = value("y", None)
SIZES = [{"B": 1, "S": 1}, {"B": 3, "S": 7}, {"B": 2, "S": 16}]


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


# Shape arithmetic as exporters write it: name, nodes, constants.
SHAPE_DATA = {
    "split heads": (
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "b"),
            node("Gather", "s one", "n"),
            node("Unsqueeze", "b axis", "b1"),
            node("Unsqueeze", "n axis", "n1"),
            node("Concat", "b1 n1 heads", "t", axis=0),
            node("Reshape", "x t", "h"),
            node("Transpose", "h", "y", perm=[0, 2, 1, 3]),
        ],
        {"zero": np.array(0), "one": np.array(1), "axis": i64(0), "heads": i64(4, 3)},
    ),
    "reshape copies and infers": ([node("Reshape", "x t", "y")], {"t": i64(0, -1, 4)}),
    "flatten": ([node("Flatten", "x", "y", axis=2)], {}),
    "merge batch": (
        [node("Reshape", "x t", "m"), node("Shape", "x", "s"), node("Reshape", "m s", "y")],
        {"t": i64(-1, 12)},
    ),
    "slice from the end": ([node("Slice", "x a b c", "y")], {"a": i64(-3), "b": i64(2**62), "c": i64(1)}),
    "slice past the end": ([node("Slice", "x a b c", "y")], {"a": i64(1, 2), "b": i64(5, 100), "c": i64(1, 2)}),
    "slice backwards": (
        [node("Slice", "x a b c d", "y")],
        {"a": i64(-1, -1), "b": i64(-(2**62), 0), "c": i64(1, 2), "d": i64(-2, -1)},
    ),
    "slice by half the size": (
        [
            node("Shape", "x", "s", start=1, end=2),
            node("Div", "s two", "h"),
            node("Slice", "x zero h c", "p"),
            node("Slice", "x h big c", "q"),
            node("Concat", "q p", "y", axis=1),
        ],
        {"two": i64(2), "zero": i64(0), "c": i64(1), "big": i64(2**63 - 1)},
    ),
    "expand where equal": (
        [
            node("Shape", "x", "s"),
            node("Equal", "s minus", "e"),
            node("Where", "e ones s", "t"),
            node("Expand", "k t", "y"),
        ],
        {"minus": i64(-1, -1, -1), "ones": i64(1, 1, 1), "k": np.ones((1, 1, 12), np.float32)},
    ),
    "positions": (
        [
            node("Shape", "x", "s", start=1, end=2),
            node("Squeeze", "s", "n"),
            node("Range", "zero n one", "r"),
            node("Cast", "r", "f", to=F),
            node("Unsqueeze", "f axes", "u"),
            node("Add", "x u", "y"),
        ],
        {"zero": np.array(0), "one": np.array(1), "axes": i64(0, 2)},
    ),
    "zeros of a shape": (
        [node("Shape", "x", "s"), node("ConstantOfShape", "s", "z"), node("Add", "z x", "y")],
        {},
    ),
    "pads": (
        [node("Shape", "x", "s", start=1, end=2), node("Mod", "s four", "m"), node("Sub", "four m", "r"),
         node("Concat", "three r", "p", axis=0), node("Pad", "x p _ ax", "y")],
        {"four": i64(4), "three": i64(0), "ax": i64(1)},
    ),
    "tile": (
        [node("Shape", "x", "s", start=0, end=1), node("Concat", "s ones", "r", axis=0), node("Tile", "x r", "y")],
        {"ones": i64(1, 2)},
    ),
    "size and products": (
        [node("Size", "x", "n"), node("Shape", "x", "s"), node("ReduceProd", "s", "p", keepdims=0),
         node("Equal", "n p", "e"), node("Unsqueeze", "p ax", "p1"), node("Reshape", "x p1", "y")],
        {"ax": i64(0)},
    ),
    "minimum": (
        [node("Shape", "x", "s", start=1, end=2), node("Min", "s five", "m"), node("Slice", "x zero m one", "y")],
        {"five": i64(5), "zero": i64(0), "one": i64(1)},
    ),
    "unequal split": ([node("Split", "x sizes", "y z", axis=2)], {"sizes": i64(5, 7)}),
    "even split": ([node("Split", "x", "y z w", axis=2, num_outputs=3)], {}),
    "one hot": (
        [node("ArgMax", "x", "a", axis=2, keepdims=0), node("OneHot", "a depth v", "y", axis=1)],
        {"depth": np.array(12), "v": np.array([0, 1], np.float32)},
    ),
    "top k": ([node("TopK", "x k", "y i", axis=1)], {"k": i64(1)}),
    "reductions": (
        [node("ReduceSum", "x axes", "a", keepdims=0), node("ReduceMax", "x axes", "b"), node("ReduceMean", "x", "c"),
         node("Sub", "x b", "d"), node("Add", "d c", "y")],
        {"axes": i64(-1)},
    ),
    "normalise": (
        [node("LayerNormalization", "x g", "l"), node("Softmax", "l", "y", axis=1)],
        {"g": np.ones(12, np.float32)},
    ),
    "einsum": ([node("Einsum", "x x", "y", equation="bij,bkj->bik")], {}),
    "matmul broadcasts": ([node("Transpose", "x", "t", perm=[0, 2, 1]), node("MatMul", "x t", "y")], {}),
    "cumulate": ([node("CumSum", "x ax", "y")], {"ax": np.array(1)}),
    "unsqueeze squeeze": (
        [node("Unsqueeze", "x a", "u"), node("Squeeze", "u a", "s"), node("Squeeze", "u b", "y")],
        {"a": i64(0, -1), "b": i64(-1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPE_DATA)
def test_shapes_are_what_onnxruntime_computes(name: str) -> None:
    nodes, constants = SHAPE_DATA[name]
    module = check_against_runs(model(nodes, [X], [ANY], constants), SIZES)
    assert not unknown_dims(module), f"{name}: all of this can be known"


WINDOWS = [
    node("Conv", "x w", "y", strides=[2, 1], pads=[1, 0, 2, 1], dilations=[1, 2]),
    node("Conv", "x w", "y", auto_pad="SAME_UPPER", strides=[2, 3]),
    node("Conv", "x w", "y", auto_pad="VALID", kernel_shape=[3, 2]),
    node("MaxPool", "x", "y i", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1),
    node("AveragePool", "x", "y", kernel_shape=[3, 3], strides=[3, 2], pads=[1, 1, 1, 1], ceil_mode=1),
    node("GlobalAveragePool", "x", "y"),
    node("ConvTranspose", "x wt", "y", strides=[2, 3], output_padding=[1, 0], pads=[0, 1, 1, 0]),
    node("ConvTranspose", "x wt", "y", auto_pad="SAME_LOWER", strides=[2, 2]),
    node("Resize", "x _ scales", "y", mode="nearest"),
    node("Resize", "x _ _ sizes", "y", mode="nearest"),
    node("Resize", "x _ half", "y", mode="nearest", axes=[3]),
    node("SpaceToDepth", "x", "y", blocksize=2),
    node("DepthToSpace", "x", "y", blocksize=2),
]


@pytest.mark.parametrize("index", range(len(WINDOWS)))
def test_windows_are_what_onnxruntime_computes(index: int) -> None:
    constants = {
        "w": np.ones((5, 4, 3, 2), np.float32),
        "wt": np.ones((4, 5, 3, 2), np.float32),
        "scales": np.array([1, 1, 2, 1.5], np.float32),
        "sizes": i64(2, 4, 9, 11),
        "half": np.array([0.5], np.float32),
    }
    x = value("x", ["N", 4, "H", "W"])
    bindings = [{"N": 2, "H": h, "W": w} for h, w in ((6, 8), (8, 10), (14, 16))]
    module = check_against_runs(model([WINDOWS[index]], [x], [ANY], constants), bindings)
    assert not unknown_dims(module)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_recurrent(kind: str, direction: str) -> None:
    gates, count = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 2 if direction == "bidirectional" else 1
    weights = {
        "w": np.ones((count, gates * 5, 12), np.float32),
        "r": np.ones((count, gates * 5, 5), np.float32),
    }
    nodes = [node(kind, "x w r", "y h", hidden_size=5, direction=direction)]
    module = check_against_runs(model(nodes, [X], [ANY], weights), SIZES)
    assert not unknown_dims(module)


def test_data_dependent_sizes_get_symbols_of_their_own() -> None:
    nodes = [node("NonZero", "x", "n"), node("Transpose", "n", "t"), node("Cast", "t", "y", to=F)]
    module, ctx = load(model(nodes, [X], [ANY]))
    ((op, symbols),) = unknown_dims(module).items()
    assert op.name == "onnx.NonZero"
    assert len(symbols) == 1
    before = str(module)
    infer_symbolic_shapes(module, ctx.weights)
    assert str(module) == before, "running again must not rename symbols"


def test_computed_axes_still_tell_the_rank() -> None:
    nodes = [
        node("ReduceSum", "x axes", "a", keepdims=0),
        node("Squeeze", "x axes", "b"),
        node("Unsqueeze", "x axes", "c"),
    ]
    outputs = [value(name, None) for name in "abc"]
    module, _ = load(model(nodes, [X, value("axes", [1], INT)], outputs))
    assert [len(dims_of(v)) for v in main_of(module).body.block.last_op.operands] == [2, 2, 4]  # type: ignore[union-attr]


def test_axis_of_a_quantisation_with_one_scale_means_nothing() -> None:
    constants = {"s": np.array(0.5, np.float32), "z": np.array(0, np.int8)}
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    module = check_against_runs(model(nodes, [value("x", ["N"])], [ANY], constants), [{"N": 3}])
    assert not unknown_dims(module)


def test_pass_is_the_function() -> None:
    module, ctx = load(model(SHAPE_DATA["split heads"][0], [X], [ANY], SHAPE_DATA["split heads"][1]))
    text = str(module)
    InferSymbolicShapes().apply(ctx, module)
    assert str(module) == text
    assert '#store.dims<"B", "4", "S", "3">' in text


def branch(name: str, op: str) -> object:
    return helper.make_graph([node(op, "x", name)], name, [], [value(name, None)])


def test_conditional_keeps_what_branches_agree_on() -> None:
    cut = helper.make_graph([node("Slice", "x zero one one", "c")], "c", [], [value("c", None)])
    nodes = [
        node("If", "cond", "y", then_branch=branch("t", "Relu"), else_branch=branch("e", "Neg")),
        node("If", "cond", "z", then_branch=branch("t2", "Relu"), else_branch=cut),
    ]
    proto = model(nodes, [X, value("cond", [], B)], [ANY, value("z", None)], {"zero": i64(0), "one": i64(1)})
    module, _ = load(proto)
    first, second = (op for op in module.walk() if op.name == "onnx.If")
    assert [str(d) for d in dims_of(first.results[0])] == ["B", "S", "12"]
    batch, changed, last = (str(d) for d in dims_of(second.results[0]))
    assert (batch, last) == ("B", "12")
    assert changed not in ("S", "1")
    assert list(unknown_dims(module)) == [second]


def test_loop_carries_only_dims_that_stay() -> None:
    body = helper.make_graph(
        [node("Concat", "a a", "grown", axis=0), node("Relu", "b", "same"), node("Identity", "c_in", "c_out")],
        "body",
        [value("i", [], INT), value("c_in", [], B), value("a", None), value("b", None)],
        [value("c_out", [], B), value("grown", None), value("same", None), value("same", None)],
    )
    body.output[3].name = "scan"
    body.node.append(node("Abs", "b", "scan"))
    proto = model([node("Loop", "trips _ x x", "p q r", body=body)], [X, value("trips", [], INT)], [ANY], opset=21)
    proto.graph.output[0].name = "p"
    proto.graph.output.extend([value("q", None), value("r", None)])
    module, _ = load(proto)
    (loop,) = (op for op in module.walk() if op.name == "onnx.Loop")
    grown, same, stacked = (dims_of(v) for v in loop.results)
    assert str(grown[0]) not in ("B", "2*B")
    assert [str(d) for d in grown[1:]] == ["S", "12"]
    assert [str(d) for d in same] == ["B", "S", "12"]
    assert [str(d) for d in stacked[1:]] == ["B", "S", "12"]


def stretching_body(inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> onnx.GraphProto:
    """A body whose `grown` broadcasts `a` [B] with as many ones as `a` has non-zeros: a size nobody outside knows."""
    nodes = [
        node("NonZero", "a", "places"),
        node("Cast", "places", "floats", to=F),
        node("Unsqueeze", "floats axes", "columns"),
        node("Add", "columns a", "grown"),
    ]
    nodes += [node("Identity", i.name, o.name) for i, o in zip(inputs[1:], outputs) if o.name != "grown"]
    return helper.make_graph(nodes, "body", list(inputs), list(outputs), [numpy_helper.from_array(i64(-1), "axes")])


@pytest.mark.parametrize("kind", ["Loop", "Scan", "If"])
def test_sizes_only_a_body_knows_do_not_leave_it(kind: str) -> None:
    grown, vector = value("grown", None), value("x", ["B"])
    if kind == "Loop":
        counters = [value("i", [], INT), value("go_in", [], B), value("a", None)]
        body = stretching_body(counters, [value("go_out", [], B), value("a_out", None), grown])
        proto = model([node("Loop", "trips _ x", "last y", body=body)], [vector, value("trips", [], INT)], [ANY])
    elif kind == "Scan":
        body = stretching_body([value("a", None)], [grown])
        vector = value("x", ["T", "B"])
        proto = model([node("Scan", "x", "y", body=body, num_scan_inputs=1)], [vector], [ANY])
    else:
        body = stretching_body([], [grown])
        body.node.insert(0, node("Identity", "x", "a"))
        other = helper.make_graph(list(body.node), "other", [], [grown], list(body.initializer))
        choice = node("If", "which", "y", then_branch=body, else_branch=other)
        proto = model([choice], [vector, value("which", [], B)], [ANY])
    module, ctx = load(proto)
    (op,) = (op for op in module.walk() if op.name == f"onnx.{kind}")
    for _ in range(2):
        inside = {
            symbol
            for region in op.regions
            for inner in region.walk()
            for result in inner.results
            for dim in dims_of(result)
            for symbol in dim.symbols
        }
        local = inside - {"B", "T", "trips"}
        assert local
        assert not local & {symbol for result in op.results for dim in dims_of(result) for symbol in dim.symbols}
        InferSymbolicShapes().apply(ctx, module)  # finds the symbols of the first time in the types


@pytest.mark.parametrize(
    ("nodes", "constants", "reason"),
    [
        ([node("MatMul", "x w", "y")], {"w": np.ones((5, 2), np.float32)}, "inner dims"),
        ([node("Add", "x w", "y")], {"w": np.ones(5, np.float32)}, "broadcast"),
        ([node("Reshape", "x w", "y")], {"w": i64(0, 0, 5)}, "number of elements|12"),
        ([node("Concat", "x w", "y", axis=0)], {"w": np.ones((1, 1, 7), np.float32)}, "concat"),
        ([node("Transpose", "x", "y", perm=[0, 1])], {}, "perm|rank"),
        ([node("Squeeze", "x w", "y")], {"w": i64(2)}, "not 1"),
        ([node("Softmax", "x", "y", axis=7)], {}, "axis"),
        ([node("Split", "x w", "y z", axis=2)], {"w": i64(5, 6)}, "split"),
    ],
)
def test_contradictions_are_errors_that_name_the_node(
    nodes: list[object], constants: dict[str, np.ndarray], reason: str
) -> None:
    nodes[0].name = "the/node"  # type: ignore[attr-defined]
    with pytest.raises(Error, match=reason) as caught:
        load(model(nodes, [X], [ANY], constants))  # type: ignore[arg-type]
    assert caught.value.code in ("NEUC-E108", "NEUC-E104")
    if caught.value.code == "NEUC-E108":
        assert [n.name for n in caught.value.nodes] == ["the/node"]


def test_all_contradictions_are_reported_together() -> None:
    weights = {"w": np.ones((5, 2), np.float32)}
    nodes = [node("MatMul", "x w", "a"), node("Add", "x w", "y")]
    with pytest.raises(Error) as caught:
        load(model(nodes, [value("x", [3, 4])], [ANY], weights))
    assert len(caught.value.nodes) == 2


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("S", 1, np.inf), ("S - 1", 0, np.inf), ("5 - S", -np.inf, 4), ("min(S, 4)", 1, 4), ("(S + 3)//2", 2, np.inf)],
)
def test_bounds(text: str, low: float, high: float) -> None:
    assert bounds(Dim.parse(text), 1) == (low, high)
