"""Lowered nodes compute what onnxruntime computes, for one model an operator; what is not lowered says why."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper, parser
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

import onnx_models as om
from neuc.compiler.importers.onnx_file import import_onnx
from neuc.compiler.universe import new_context
from neuc.dialects.context import NeucContext
from neuc.dialects.dense import DimsOp, MapOp, MatMulOp
from neuc.dialects.interp.core import interpret
from neuc.dialects.locations import node_names
from neuc.dialects.onnx import OnnxOp
from neuc.dialects.store import ConstantOp, dims_of
from neuc.passes.lower_onnx_to_dense import LowerOnnxToDense, lowering_reason
from neuc.passes.onnx_lowerings.registry import lowered_operators

# Different summation orders and exp/erf implementations in f32, on results of size about 1 and sums of up to 100 terms.
TOLERANCE = 2e-5

SYMBOLS = {"N": 2, "S": 5, "T": 4}
HEADER = '<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>'


def model_of(
    signature: str, body: str, *, opset: int = 20, weights: Mapping[str, np.ndarray] | None = None
) -> ModelProto:
    """A model from ONNX's text syntax; `weights` become initializers."""
    model = parser.parse_model(f"{HEADER.format(opset=opset)} m {signature} {{ {body} }}")
    for name, array in (weights or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def inputs_of(model: ModelProto) -> dict[str, np.ndarray]:
    rng, found = np.random.default_rng(7), dict[str, np.ndarray]()
    constant = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name in constant:
            continue
        tensor = value.type.tensor_type
        shape = [SYMBOLS[d.dim_param] if d.dim_param else d.dim_value for d in tensor.shape.dim]
        match tensor.elem_type:
            case TensorProto.FLOAT:
                found[value.name] = rng.standard_normal(shape).astype(np.float32)
            case TensorProto.BOOL:
                found[value.name] = rng.random(shape) < 0.5
            case TensorProto.UINT8:
                found[value.name] = rng.integers(0, 255, shape).astype(np.uint8)
            case kind:
                dtype = np.int64 if kind == TensorProto.INT64 else np.int32
                found[value.name] = rng.integers(-3, 4, shape).astype(dtype)
    return found


def lower(model: ModelProto) -> tuple[ModuleOp, NeucContext]:
    ctx = new_context()
    module = import_onnx(model, ctx)
    LowerOnnxToDense().apply(ctx, module)
    module.verify()
    return module, ctx


def left_over(module: ModuleOp) -> list[tuple[str, str | None]]:
    return [(op.op_type, lowering_reason(op)) for op in module.walk() if isinstance(op, OnnxOp)]


def check(model: ModelProto) -> ModuleOp:
    """Lower all of `model` and compare with onnxruntime."""
    feeds = inputs_of(model)
    expected = om.run(model, feeds)
    module, ctx = lower(model)
    assert left_over(module) == []
    found = interpret(module, list(feeds.values()), ctx.weights)
    for result, wanted in zip(found, expected, strict=True):
        assert result.dtype == wanted.dtype
        assert result.shape == wanted.shape
        np.testing.assert_allclose(result, wanted, rtol=TOLERANCE, atol=TOLERANCE)
    return module


UNARY = (
    "Neg Abs Sqrt Reciprocal Exp Log Erf Tanh Sigmoid Relu LeakyRelu Elu Selu Celu Gelu Mish Softplus Softsign "
    "HardSigmoid HardSwish ThresholdedRelu Sign Floor Ceil Round "
    "Sin Cos Tan Asin Acos Atan Sinh Cosh "
    "Asinh Acosh Atanh Identity Shrink Softmax LogSoftmax Flatten Transpose LpNormalization "
    "GlobalAveragePool GlobalMaxPool"
).split()


@pytest.mark.parametrize("op", UNARY)
def test_unary(op: str) -> None:
    check(unary_model(op))


def unary_model(op: str) -> ModelProto:
    rank = 2 if op == "Flatten" else 4
    return model_of(f"(float[N, 3, S, 4] x) => (float[{', '.join('abcd'[:rank])}] y)", f"y = {op}(x)")


BINARY = {
    "Add": "float",
    "Sub": "int64",
    "Mul": "float",
    "Div": "float",
    "Pow": "float",
    "Mod": "int64",
    "PRelu": "float",
}


@pytest.mark.parametrize("op", BINARY)
def test_binary_broadcasts(op: str) -> None:
    kind = BINARY[op]
    second = {"Mod": np.array([3, -2, 2, -5]), "Pow": np.array([2.0, 3.0, -1.0, 4.0])}.get(op, np.arange(1, 5))
    weights = {"b": second if kind == "int64" else second.astype(np.float32)}
    check(model_of(f"({kind}[N, S, 4] a) => ({kind}[x, y, z] c)", f"c = {op}(a, b)", weights=weights))


CASES = {
    "compare": (
        "(float[N, 4] a, float[4] b) => (bool[x, y] c)",
        "d = Less(a, b) e = GreaterOrEqual(a, b) c = Xor(d, e)",
    ),
    "prelu": ("(float[N, 3, S] a, float[3, 1] b) => (float[x, y, z] c)", "c = PRelu(a, b)"),
    "where": ("(bool[N, 1] k, float[4] a, float[N, 4] b) => (float[x, y] c)", "c = Where(k, a, b)"),
    "cast": ("(float[N, 4] a) => (int32[x, y] c)", "c = Cast<to = 6>(a)"),
    "cast bytes": ("(uint8[N, 4] a) => (float[x, y] c)", "c = Cast<to = 1>(a)"),
    "variadic": (
        "(float[N, 4] a, float[4] b, float[1] d) => (float[x, y] c)",
        "e = Max(a, b, d) f = Mean(a, b) c = Min(e, f)",
    ),
    "matmul": ("(float[N, 3, S, 4] a, float[4, 5] b) => (float[w, x, y, z] c)", "c = MatMul(a, b)"),
    "row times matrix": ("(float[4] a, float[N, 4, 5] b) => (float[x, y] c)", "c = MatMul(a, b)"),
    "matrix times column": ("(float[N, 3, 4] a, float[4] b) => (float[x, y] c)", "c = MatMul(a, b)"),
    "dot": ("(float[4] a, float[4] b) => (float c)", "c = MatMul(a, b)"),
    "gemm": (
        "(float[4, N] a, float[5, 4] b, float[5] k) => (float[x, y] c)",
        "c = Gemm<transA = 1, transB = 1, alpha = 0.5, beta = 2.0>(a, b, k)",
    ),
    "einsum": (
        "(float[N, S, 3, 4] a, float[N, T, 3, 4] b) => (float[w, x, y, z] c)",
        'c = Einsum<equation = "bihd,bjhd->bhij">(a, b)',
    ),
    "conv": (
        "(float[N, 4, S, 7] a, float[6, 2, 3, 2] b, float[6] k) => (float[w, x, y, z] c)",
        "c = Conv<group = 2, pads = [1, 0, 1, 1], strides = [1, 2], dilations = [1, 2]>(a, b, k)",
    ),
    "conv 1d same": (
        "(float[N, 3, 9] a, float[2, 3, 4] b) => (float[x, y, z] c)",
        'c = Conv<auto_pad = "SAME_LOWER", strides = [2]>(a, b)',
    ),
    "conv 3d": ("(float[1, 1, 4, 5, 6] a, float[2, 1, 2, 2, 2] b) => (float[v, w, x, y, z] c)", "c = Conv(a, b)"),
    "max pool": (
        "(float[N, 2, 7, 8] a) => (float[w, x, y, z] c)",
        "c = MaxPool<kernel_shape = [3, 2], strides = [2, 2], pads = [1, 0, 1, 1], ceil_mode = 1>(a)",
    ),
    "average pool": (
        "(float[N, 2, 7] a) => (float[w, x, y] c)",
        "c = AveragePool<kernel_shape = [3], strides = [2], pads = [1, 1], count_include_pad = 1>(a)",
    ),
    "reduce": (
        "(float[N, 3, S] a) => (float[x, y] c)",
        "d = ReduceSum<keepdims = 0>(a, last) e = ReduceL2<keepdims = 0>(a, last) "
        "f = ReduceLogSumExp<keepdims = 0>(a, last) g = Add(d, e) c = Sub(g, f)",
    ),
    "reduce everything": ("(float[N, 3] a) => (float c)", "c = ReduceMax<keepdims = 0>(a)"),
    "arg max": ("(float[N, 3, S] a) => (int64[x, y] c)", "c = ArgMax<axis = 1, keepdims = 0>(a)"),
    "layer norm": (
        "(float[N, S, 4] a, float[4] s, float[4] b) => (float[x, y, z] c)",
        "c = LayerNormalization(a, s, b)",
    ),
    "instance norm": (
        "(float[N, 3, S] a, float[3] s, float[3] b) => (float[x, y, z] c)",
        "c = InstanceNormalization(a, s, b)",
    ),
    "batch norm": (
        "(float[N, 3, S] a, float[3] s, float[3] b, float[3] m) => (float[x, y, z] c)",
        "v = Abs(m) c = BatchNormalization(a, s, b, m, v)",
    ),
    "group norm": (
        "(float[N, 4, S] a, float[4] s, float[4] b) => (float[x, y, z] c)",
        "c = GroupNormalization<num_groups = 2>(a, s, b)",
    ),
    "slices": ("(float[N, S, 4] a) => (float[x, y, z] c)", "c = Slice(a, starts, ends, axes, steps)"),
    "split": ("(float[N, 6] a) => (float[x, y] b, float[x, z] c)", "b, c = Split<axis = 1>(a, parts)"),
    "gather": ("(float[5, N] a, int64[T, 2] i) => (float[x, y, z] c)", "c = Gather(a, i)"),
    "gather one": ("(float[N, 5, 3] a) => (float[x, y] c)", "c = Gather<axis = 1>(a, minus)"),
    "concat": ("(float[N, S] a, float[N, 3] b) => (float[x, y] c)", "c = Concat<axis = -1>(a, b, a)"),
    "pad": ("(float[N, 4] a) => (float[x, y] c)", 'b = Pad(a, pads, fill) c = Pad<mode = "reflect">(b, pads)'),
    "expand and tile": ("(float[N, 1] a) => (float[x, y, z] c)", "b = Expand(a, shape) c = Tile(b, repeats)"),
    "depth to space": (
        "(float[N, 8, S, 3] a) => (float[w, x, y, z] c)",
        'c = DepthToSpace<blocksize = 2, mode = "CRD">(a)',
    ),
    "one hot": ("(int64[N, S] a) => (float[x, y, z] c)", "c = OneHot<axis = 1>(a, depth, values)"),
    "trilu": ("(float[N, 4, 4] a) => (float[x, y, z] c)", "c = Trilu<upper = 0>(a, one)"),
    "dropout": ("(float[N, 4] a) => (float[x, y] c, bool[x, y] m)", "c, m = Dropout(a)"),
    "clip": ("(float[N, 4] a) => (float[x, y] c)", "c = Clip(a, fill)"),
    "lstm": (
        "(float[S, N, 3] x, float[2, 20, 3] w, float[2, 20, 5] r, float[2, 40] b, "
        "float[2, N, 5] h, float[2, N, 5] k) => (float[p, q, u, v] y, float[q, u, v] yh, float[q, u, v] yc)",
        'y, yh, yc = LSTM<hidden_size = 5, direction = "bidirectional">(x, w, r, b, _, h, k)',
    ),
    "fused matmul": (
        "(float[N, 4, 3] a, float[N, 5, 4] b) => (float[x, y, z] c)",
        "c = com.microsoft.FusedMatMul<transA = 1, transB = 1, alpha = 0.25>(a, b)",
    ),
    "skip norm": (
        "(float[N, S, 4] a, float[N, S, 4] k, float[4] g, float[4] b, float[4] u) => (float[x, y, z] c)",
        "c = com.microsoft.SkipLayerNormalization<epsilon = 0.001>(a, k, g, b, u)",
    ),
    "fused gelus": (
        "(float[N, 4] a, float[4] b) => (float[x, y] c)",
        "d = com.microsoft.BiasGelu(a, b) e = com.microsoft.FastGelu(d, b) f = com.microsoft.QuickGelu(e) "
        "c = com.microsoft.Gelu(f)",
    ),
}
WEIGHTS: dict[str, dict[str, np.ndarray]] = {
    "reduce": {"last": np.array([-1])},
    "slices": {
        "starts": np.array([-2, 10]),
        "ends": np.array([2**63 - 1, -(2**63)]),
        "axes": np.array([1, 2]),
        "steps": np.array([1, -2]),
    },
    "split": {"parts": np.array([2, 4])},
    "gather one": {"minus": np.array(-2)},
    "pad": {"pads": np.array([1, -1, 0, 2]), "fill": np.array(0.5, np.float32)},
    "expand and tile": {"shape": np.array([3, 1, 4]), "repeats": np.array([1, 2, 3])},
    "one hot": {"depth": np.array(4), "values": np.array([-1, 2], np.float32)},
    "trilu": {"one": np.array(1)},
    "clip": {"fill": np.array(-0.25, np.float32)},
}


@pytest.mark.parametrize("name", CASES)
def test_operators(name: str) -> None:
    signature, body = CASES[name]
    model = model_of(signature, body.replace("_,", ",").replace("_)", ")"), opset=21, weights=WEIGHTS.get(name))
    check(model)


def test_shape_computations_vanish() -> None:
    model = model_of(
        "(float[N, S, 12] x) => (float[a, b, c, d] y)",
        "s = Shape(x) n = Gather(s, zero) l = Gather(s, one) nn = Unsqueeze(n, first) ll = Unsqueeze(l, first) "
        "shape = Concat<axis = 0>(nn, ll, heads) r = Reshape(x, shape) y = Transpose<perm = [0, 2, 1, 3]>(r)",
        weights={
            "zero": np.array(0),
            "one": np.array(1),
            "first": np.array([0]),
            "heads": np.array([3, -1]),
        },
    )
    module = check(model)
    names = [op.name for op in module.walk() if op.name.startswith(("dense.", "store."))]
    assert names == ["dense.reshape", "dense.transpose"]
    (last,) = (op for op in module.walk() if op.name == "dense.transpose")
    assert [str(d) for d in dims_of(last.results[0])] == ["N", "3", "S", "4"]


def test_shapes_that_are_results_are_materialised() -> None:
    module = check(model_of("(float[N, S] x) => (int64[2] y, int64 z)", "y = Shape(x) z = Size(x)"))
    exprs = [[e.data for e in op.exprs] for op in module.walk() if isinstance(op, DimsOp)]
    assert exprs == [["N", "S"], ["N*S"]]


def test_locations_stay() -> None:
    model = model_of("(float[N, 4] x) => (float[N, 4] y)", "h = Softplus(x) y = Relu(h)")
    for node, name in zip(model.graph.node, ("first", "second")):
        node.name = name
    module, _ = lower(model)
    assert [node_names(op) for op in module.walk() if isinstance(op, MapOp)] == [("first",), ("second",)]


REASONS = {
    "no lowering": ("(float[N, 4] x, int64[N, 2] i) => (float[a, b] y)", "y = GatherElements<axis = 1>(x, i)"),
    "f16 arithmetic": ("(float16[N, 4] x) => (float16[N, 4] y)", "y = Relu(x)"),
    "axes is computed at run time": ("(float[N, 4] x, int64[1] i) => (float[a, b] y)", "y = ReduceSum(x, i)"),
    "output 1 is used": (
        "(float[N, 2, 8] x) => (float[a, b, c] y, int64[a, b, c] z)",
        "y, z = MaxPool<kernel_shape = [2]>(x)",
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_what_stays_says_why(reason: str) -> None:
    module, _ = lower(model_of(*REASONS[reason]))
    ((_, found),) = left_over(module)
    assert found == reason


def test_what_the_backend_refuses_stays() -> None:
    model = model_of("(float[N, 4] x, float[4, 3] w) => (float[N, 3] y)", "h = MatMul(x, w) y = Relu(h)")
    ctx = new_context()
    module = import_onnx(model, ctx)

    def supports(op: Operation) -> str | None:
        return "no products here" if isinstance(op, MatMulOp) else None

    LowerOnnxToDense(supports=supports).apply(ctx, module)
    module.verify()
    assert left_over(module) == [("MatMul", "no products here")]
    assert sum(isinstance(op, MapOp) for op in module.walk()) == 1
    assert not any(isinstance(op, MatMulOp | ConstantOp) for op in module.walk())


def test_the_table_is_as_large_as_promised() -> None:
    assert len(lowered_operators()) >= 120
