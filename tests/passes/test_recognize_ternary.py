"""Layers a model quantised itself become ternary: the same codes, the same results; others stay float and say why."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import pytest
from onnx import NodeProto, TensorProto
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

import onnx_models as om
from neuc.compiler.importers.onnx_file import import_onnx
from neuc.compiler.universe import new_context
from neuc.dialects.context import NeucContext
from neuc.dialects.interp.core import interpret
from neuc.dialects.ternary import ConvOp, LinearOp, QuantizeOp
from neuc.passes.analysis.ternary_layers import QuantRecord, quantization_report
from neuc.passes.fuse_activation import FuseActivation
from neuc.passes.lower_onnx_to_dense import LowerOnnxToDense
from neuc.passes.recognize_ternary import RecognizeTernary

Array = np.ndarray
K, N = 48, 20
TOLERANCE = 4e-6
"""Relative L2: the float layer sums up to K products of size 1 that are each rounded; √K · 2^-24 and the scales."""


@dataclass(frozen=True)
class Case:
    """What the pass made of a model.

    Attributes:
        before, after: results of the module before and after the pass.
        codes: the int8 codes that layers read, and their scales, in order.
        records: the layers now.
        module: the module now.
        context: its context.
    """

    before: Array
    after: Array
    codes: list[tuple[Array, Array]]
    records: list[QuantRecord]
    module: ModuleOp
    context: NeucContext

    @property
    def error(self) -> float:
        """Relative L2 distance of the results."""
        return float(np.linalg.norm(self.after - self.before) / np.linalg.norm(self.before))


def recognised(
    nodes: Sequence[NodeProto],
    x: Array,
    weights: dict[str, Array],
    dims: Sequence[int | str],
    *,
    number: int = om.F,
) -> Case:
    """Run the pass on a model from x to y, and both versions on an input."""
    model = om.model(nodes, [om.value("x", dims, number)], [om.value("y", None)], weights)
    context = new_context()
    module = import_onnx(model, context)
    LowerOnnxToDense().apply(context, module)
    before = interpret(module, [x], context.weights)[0]
    RecognizeTernary().apply(context, module)
    FuseActivation().apply(context, module)
    module.verify()
    codes: list[tuple[Array, Array]] = []
    read: dict[object, Array] = {}

    def observe(op: Operation, results: list[Array]) -> None:
        read.update(zip(op.results, results))
        if isinstance(op, LinearOp | ConvOp):
            codes.append((read.get(op.q, x), read[op.s]))

    after = interpret(module, [x], context.weights, observe=observe)[0]
    return Case(before, after, codes, quantization_report(module, context.weights), module, context)


def ternary(n: int = N, k: int = K, seed: int = 1) -> Array:
    return np.random.default_rng(seed).integers(-1, 2, (n, k)).astype(np.float32)


def activations(*shape: int, seed: int = 2) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


CONSTANTS = {
    "eps": np.array(1e-5, np.float32),
    "top": np.array(127, np.float32),
    "low": np.array(-128, np.float32),
    "high": np.array(127, np.float32),
    "half": np.array(0.5, np.float32),
    "axis": np.array([-1]),
}

SCALE = {
    "divided": [om.node("Div", "top bounded", "a")],
    "reciprocal": [om.node("Reciprocal", "bounded", "r"), om.node("Mul", "r top", "a")],
}
ROUNDING = {
    "half even": [om.node("Round", "scaled", "round")],
    "half up": [om.node("Add", "scaled half", "up"), om.node("Floor", "up", "round")],
}
BACK = {
    "divided": [om.node("Div", "codes a", "back")],
    "multiplied": [om.node("Reciprocal", "a", "step"), om.node("Mul", "step codes", "back")],
    "straight through": [
        om.node("Div", "codes a", "near"),
        om.node("Sub", "near x", "difference"),
        om.node("Add", "x difference", "back"),
    ],
    "through integers": [
        om.node("Cast", "codes", "int8", to=TensorProto.INT8),
        om.node("Cast", "int8", "floats", to=TensorProto.FLOAT),
        om.node("Div", "floats a", "back"),
    ],
}
PRODUCT = {
    "MatMul": ([om.node("MatMul", "back wt", "y", name="fc")], {"wt": ternary().T * np.float32(0.037)}),
    "Transpose": (
        [om.node("Transpose", "w", "wt", perm=[1, 0]), om.node("MatMul", "back wt", "y", name="fc")],
        {"w": ternary() * np.float32(0.037)},
    ),
    "bias": (
        [om.node("MatMul", "back wt", "z", name="fc"), om.node("Add", "z b", "s"), om.node("Relu", "s", "y")],
        {"wt": ternary().T * np.float32(0.037), "b": activations(N)},
    ),
}


def fake_quantised(scale: str, rounding: str, back: str, axis: str = "axis") -> list[NodeProto]:
    """BitNet's quantiser of activations, from x to back."""
    return [
        om.node("Abs", "x", "size"),
        om.node("ReduceMax", f"size {axis}" if axis else "size", "largest", keepdims=1),
        om.node("Clip", "largest eps", "bounded"),
        *SCALE[scale],
        om.node("Mul", "x a", "scaled"),
        *ROUNDING[rounding],
        om.node("Clip", "round low high", "codes"),
        *BACK[back],
    ]


def expected_codes(x: Array, scale: str, rounding: str, axes: int | None = -1) -> Array:
    """The codes, in the order of operations the model has."""
    bounded = np.maximum(np.abs(x).max(axis=axes, keepdims=True), np.float32(1e-5))
    a = np.float32(127) / bounded if scale == "divided" else (np.float32(1) / bounded) * np.float32(127)
    scaled = x * a
    return np.clip(np.round(scaled) if rounding == "half even" else np.floor(scaled + np.float32(0.5)), -128, 127)


def tied(x: Array, scale: str) -> Array:
    """`x` with elements whose products with a are halves exactly, so that another order rounds some otherwise."""
    bounded = np.abs(x).max(axis=-1, keepdims=True)
    a = np.float32(127) / bounded if scale == "divided" else (np.float32(1) / bounded) * np.float32(127)
    x = x.copy()
    x[..., 1:9] = (np.arange(8, dtype=np.float32) + np.float32(0.5)) / a
    return x


@pytest.mark.parametrize("scale", SCALE)
@pytest.mark.parametrize("rounding", ROUNDING)
@pytest.mark.parametrize("back", BACK)
@pytest.mark.parametrize("product", PRODUCT)
def test_fake_quantised_layers(scale: str, rounding: str, back: str, product: str) -> None:
    nodes, weights = PRODUCT[product]
    x = tied(activations(7, K), scale)
    found = recognised([*fake_quantised(scale, rounding, back), *nodes], x, {**CONSTANTS, **weights}, ["B", K])
    ((codes, scales),) = found.codes
    np.testing.assert_array_equal(codes, expected_codes(x, scale, rounding))
    assert scales.shape == (7,)
    (record,) = found.records
    assert (record.layer, record.source, record.activations, record.planes) == ("fc", "recognised", "model", 1)
    assert (record.levels, record.ulp, record.sqnr_db) == ((-1, 0, 1), 0, None)
    assert found.error <= TOLERANCE
    # The straight-through tail is gone, and bias and activation are in the layer.
    linear = next(op for op in found.module.walk() if isinstance(op, LinearOp))
    whole = rounding == "half even" and back != "multiplied"  # what ternary.quantize does, to the bit
    assert isinstance(linear.q.owner, QuantizeOp) == whole
    assert (linear.bias is not None) == (product == "bias")
    assert linear.result.first_use is not None
    assert linear.result.first_use.operation.name == "func.return"


@pytest.mark.parametrize("axis", ["axis", ""])
def test_three_dims_and_reshapes(axis: str) -> None:
    """One scale a token or one for all; codes pass through a reshape, their scales along."""
    nodes = [
        *fake_quantised("divided", "half even", "divided", axis),
        om.node("Reshape", "back shape", "flat"),
        om.node("Gemm", "flat w", "y", name="fc", transB=1),
    ]
    weights = {**CONSTANTS, "w": ternary() * np.float32(0.3), "shape": np.array([-1, K])}
    x = activations(2, 3, K)
    found = recognised(nodes, x, weights, ["B", "S", K])
    ((codes, scales),) = found.codes
    axes = -1 if axis else None
    np.testing.assert_array_equal(codes, expected_codes(x, "divided", "half even", axes).reshape(6, K))
    largest = np.broadcast_to(np.abs(x).max(axis=axes, keepdims=True), (2, 3, 1))
    np.testing.assert_allclose(scales, largest.reshape(-1) / 127, rtol=1e-6)  # two roundings
    assert found.error <= TOLERANCE


def test_weights_that_the_model_quantises_itself() -> None:
    """The chain from the master weights, straight-through estimator included, is still in the model."""
    chain = [
        om.node("Abs", "master", "sizes"),
        om.node("ReduceMean", "sizes", "mean", keepdims=0),
        om.node("Clip", "mean eps", "least"),
        om.node("Reciprocal", "least", "ws"),
        om.node("Mul", "master ws", "relative"),
        om.node("Round", "relative", "rounded"),
        om.node("Clip", "rounded minus plus", "levels"),
        om.node("Div", "levels ws", "u"),
        om.node("Sub", "u master", "gap"),
        om.node("Add", "master gap", "w"),
    ]
    master = activations(N, K, seed=8) * np.float32(0.02)
    weights = {**CONSTANTS, "master": master, "minus": np.array(-1, np.float32), "plus": np.array(1, np.float32)}
    nodes = [*fake_quantised("divided", "half even", "divided"), *chain, om.node("Gemm", "back w", "y", transB=1)]
    found = recognised(nodes, activations(5, K), weights, ["B", K])
    (record,) = found.records
    assert (record.source, record.levels, record.scale) == ("recognised", (-1, 0, 1), "tensor")
    assert record.ulp is not None
    assert record.ulp <= 4  # |u - w| is at most 4 scales here, so that its rounding is 2 units and that of the sum 1/2
    assert found.error <= TOLERANCE


def test_integer_products_are_bit_identical() -> None:
    """As transformers' BitLinear exports: integers times {-1, 0, 1}, scales after; sums are exact either way."""
    nodes = [
        *fake_quantised("divided", "half even", "divided"),
        om.node("Cast", "codes", "int8", to=TensorProto.INT8),
        om.node("Cast", "int8", "floats", to=TensorProto.FLOAT),
        om.node("MatMul", "floats w", "sums", name="fc"),
        om.node("Mul", "a weight_scale", "both"),
        om.node("Div", "sums both", "y"),
    ]
    weights = {**CONSTANTS, "w": ternary().T, "weight_scale": np.array([7.3], np.float32)}
    found = recognised(nodes, activations(5, K), weights, ["B", K])
    np.testing.assert_array_equal(found.before, found.after)
    assert found.records[0].source == "recognised"
    np.testing.assert_array_equal(found.codes[0][1], 1)


def test_readers_of_one_value_share_its_codes() -> None:
    nodes = [
        *fake_quantised("divided", "half even", "straight through"),
        om.node("MatMul", "back q", "y0"),
        om.node("MatMul", "back k", "y1"),
        om.node("Add", "y0 y1", "y"),
    ]
    weights = {**CONSTANTS, "q": ternary(seed=3).T * np.float32(2), "k": ternary(seed=4).T * np.float32(3)}
    found = recognised(nodes, activations(5, K), weights, ["B", K])
    first, second = (op for op in found.module.walk() if isinstance(op, LinearOp))
    assert (first.q, first.s) == (second.q, second.s)
    assert found.error <= TOLERANCE


def test_two_quantisers_of_one_value_become_one() -> None:
    """Each layer of an attention block comes with a quantiser of its own for the same activations."""
    nodes, weights = list[NodeProto](), {**CONSTANTS}
    for name in ("q", "k"):
        for shared in [*fake_quantised("reciprocal", "half even", "divided"), om.node("MatMul", "back w", "y")]:
            node = deepcopy(shared)
            for names in (node.input, node.output):
                own = [n if n == "x" or n in CONSTANTS else f"{name}_{n}" for n in names]
                del names[:]
                names.extend(own)
            nodes.append(node)
        weights[f"{name}_w"] = ternary(seed=ord(name)).T
    nodes.append(om.node("Add", "q_y k_y", "y"))
    found = recognised(nodes, activations(5, K), weights, ["B", K])
    (quantize,) = (op for op in found.module.walk() if isinstance(op, QuantizeOp))
    assert quantize.reciprocal is not None
    assert found.error <= TOLERANCE


def test_codes_reach_minus_128() -> None:
    nodes = [
        om.node("Div", "x step", "scaled"),
        om.node("Round", "scaled", "round"),
        om.node("Clip", "round low high", "codes"),
        om.node("Mul", "codes step", "back"),
        om.node("MatMul", "back w", "y"),
    ]
    weights = {**CONSTANTS, "w": ternary().T, "step": np.array(0.01, np.float32)}
    x = activations(6, K) * 2
    found = recognised(nodes, x, weights, [6, K])
    codes = found.codes[0][0]
    assert codes.min() == -128
    assert codes.max() == 127
    assert found.error <= TOLERANCE


@pytest.mark.parametrize("bias", [None, (N,), (1, N)])
def test_unsigned_codes_are_shifted(bias: tuple[int, ...] | None) -> None:
    """0 to 255 with a zero point of 3: codes lose 125 more, the layer's offset makes up for it."""
    nodes = [
        om.node("Div", "x step", "scaled"),
        om.node("Round", "scaled", "round"),
        om.node("Add", "round zero", "moved"),
        om.node("Clip", "moved least most", "codes"),
        om.node("Sub", "codes zero", "centred"),
        om.node("Mul", "centred step", "back"),
        om.node("Gemm", f"back w {'b' if bias else ''}".strip(), "y"),
    ]
    weights = {"w": ternary().T, "step": np.array(0.02, np.float32), "zero": np.array(3, np.float32)}
    weights |= {"least": np.array(0, np.float32), "most": np.array(255, np.float32)}
    weights |= {} if bias is None else {"b": activations(*bias)}
    x = np.abs(activations(6, K))
    found = recognised(nodes, x, weights, ["B", K])
    expected = np.clip(np.round(x / np.float32(0.02)) + 3, 0, 255) - 128
    np.testing.assert_array_equal(found.codes[0][0], expected)
    assert found.error <= TOLERANCE
    assert next(op for op in found.module.walk() if isinstance(op, LinearOp)).code_offset == 125


UNSIGNED = {"least": np.array(0, np.float32), "most": np.array(255, np.float32)}


def test_shifted_codes_lose_nothing_to_large_offsets() -> None:
    """Codes of 0 … 2, next to which the offset is large: the sums are exact all the same."""
    nodes = [
        om.node("Round", "x", "round"),
        om.node("Clip", "round least most", "codes"),
        om.node("MatMul", "codes w", "y"),
    ]
    x = np.abs(activations(6, 4096))
    found = recognised(nodes, x, {**UNSIGNED, "w": ternary(N, 4096).T}, ["B", 4096])
    assert found.records[0].source == "recognised"
    np.testing.assert_array_equal(found.before, found.after)


def test_shifted_codes_with_computed_scale_and_bias() -> None:
    nodes = [
        om.node("Round", "x", "round"),
        om.node("Clip", "round least most", "codes"),
        om.node("ReduceMax", "x axis", "scale", keepdims=1),
        om.node("Mul", "codes scale", "back"),
        om.node("MatMul", "back w", "z", name="fc"),
        om.node("Add", "z scale", "y"),
    ]
    weights = {**CONSTANTS, **UNSIGNED, "w": ternary().T}
    found = recognised(nodes, np.abs(activations(6, K)), weights, ["B", K])
    assert found.records[0].source == "recognised"
    assert found.error <= TOLERANCE


def test_padded_convolutions_of_shifted_codes() -> None:
    """Pads hold 0, which the codes have as -128."""
    nodes = [
        om.node("Round", "x", "round"),
        om.node("Clip", "round least most", "codes"),
        om.node("Mul", "codes step", "back"),
        om.node("Conv", "back w b", "y", pads=[1, 1, 0, 1], strides=[2, 1]),
    ]
    w = np.random.default_rng(5).integers(-1, 2, (12, 8, 3, 3)).astype(np.float32)
    weights = {**UNSIGNED, "step": np.array(0.02, np.float32), "w": w, "b": activations(12)}
    x = 99 * np.abs(activations(3, 8, 6, 5))
    found = recognised(nodes, x, weights, ["B", 8, "H", 5])
    assert found.records[0].source == "recognised"
    assert found.error <= TOLERANCE
    grouped = [*nodes[:3], om.node("Conv", "back w b", "y", group=4)]
    found = recognised(grouped, x, {**weights, "w": w[:, :2]}, ["B", 8, "H", 5])
    assert found.records[0].kept_reason.endswith("its activations are codes 0 to 255, and it is a grouped convolution")


def test_binary_activations() -> None:
    """Sign gives -1, 0 and 1: a range that only the comparisons in it tell."""
    nodes = [om.node("Sign", "x", "codes"), om.node("MatMul", "codes w", "y")]
    found = recognised(nodes, activations(4, K), {"w": ternary().T}, [4, K])
    np.testing.assert_array_equal(found.before, found.after)
    assert found.records[0].source == "recognised"


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("per_image", [True, False])
def test_convolutions(group: int, per_image: bool) -> None:
    channels = 8 * group
    rng = np.random.default_rng(5)
    w = rng.integers(-1, 2, (12, channels // group, 3, 3)).astype(np.float32) * np.float32(0.2)
    axes = {"axes": np.array([1, 2, 3])} if per_image else {}
    nodes = [
        *fake_quantised("divided", "half even", "divided", "axes" if per_image else ""),
        om.node("Conv", "back w b", "y", pads=[1, 1, 0, 1], strides=[2, 1], group=group),
    ]
    x = rng.normal(size=(3, channels, 6, 5)).astype(np.float32)
    weights = {**CONSTANTS, **axes, "w": w, "b": activations(12)}
    found = recognised(nodes, x, weights, ["B", channels, "H", 5])
    assert found.records[0].source == "recognised"
    assert found.codes[0][1].shape == (3,)
    assert found.error <= TOLERANCE


def _static(*last: NodeProto) -> list[NodeProto]:
    return [om.node("Round", "x", "round"), om.node("Clip", "round low high", "codes"), *last]


@pytest.mark.parametrize(
    ("nodes", "weights", "reason"),
    [
        ([om.node("MatMul", "x w", "y")], {"w": ternary().T}, "its activations are float"),
        (
            [om.node("Round", "x", "codes"), om.node("MatMul", "codes w", "y")],
            {"w": ternary().T},
            "its activations are rounded, but not clipped to eight bits",
        ),
        (
            _static(om.node("MatMul", "codes w", "y")),
            {"w": ternary().T, "high": np.array(300, np.float32)},
            "its activations are rounded, but not clipped to eight bits",
        ),
        (
            _static(om.node("Mul", "codes column", "back"), om.node("MatMul", "back w", "y")),
            {"w": ternary().T, "column": np.abs(activations(K))},
            "the scale of its activations is not the same along a row",
        ),
        (
            _static(om.node("MatMul", "codes w", "y")),
            {"w": ternary().T, "high": np.array(100.5, np.float32)},
            "its activations are float",
        ),
    ],
)
def test_reasons(nodes: list[NodeProto], weights: dict[str, Array], reason: str) -> None:
    found = recognised(nodes, activations(4, K), {**CONSTANTS, **weights}, [4, K])
    assert found.records[0].kept_reason == f"its weights hold 3 levels (exactly), but {reason}"
    np.testing.assert_array_equal(found.before, found.after)


def test_other_weights_stay() -> None:
    nodes = _static(om.node("MatMul", "codes w", "y"))
    found = recognised(nodes, activations(4, K), {**CONSTANTS, "w": activations(K, N)}, [4, K])
    assert found.records[0].kept_reason == "its activations are 8-bit codes, but its weights hold more than few levels"
    found = recognised(nodes, activations(4, K), {**CONSTANTS, "w": np.zeros((K, N), np.float32)}, [4, K])
    assert found.records[0].kept_reason == "its activations are 8-bit codes, but its weights are all zero"
    scales = np.repeat(np.random.default_rng(6).uniform(0.1, 1, (N, K // 12)).astype(np.float32), 12, axis=1)
    found = recognised(nodes, activations(4, K), {**CONSTANTS, "w": (ternary() * scales).T}, [4, K])
    assert "its weights hold few levels only with a scale for every 12 columns" in found.records[0].kept_reason


@pytest.mark.parametrize(
    ("last", "shape", "weights", "reason"),
    [
        ("MatMul codes w", [4, 8], ternary(N, 8).T, "K = 8 is below 16"),
        ("MatMul codes w", [3, 4, K], np.stack([ternary(seed=i).T for i in range(3)]), "its weight has rank 3, not 2"),
        ("MatMul w codes", [K, 4], ternary(), "its weight is the left operand"),
        ("Gemm codes w", [K, 4], ternary().T, "its activations are transposed"),
        ("Conv codes w", [1, 1, 6, 6], ternary(N, 9).reshape(N, 1, 3, 3), "K = 9 is below 16"),
    ],
)
@pytest.mark.parametrize("few_levels", [True, False])
def test_layers_without_a_ternary_form_say_so(
    last: str, shape: list[int], weights: Array, reason: str, few_levels: bool
) -> None:
    """Where their weights or activations are quantised, and only there."""
    other = weights if few_levels else activations(*weights.shape)
    attributes = {"transA": 1} if "Gemm" in last else {}
    for quantised in (True, False):
        nodes = _static(om.node(last[: last.index(" ")], last[last.index(" ") :], "y", **attributes))
        if not quantised:
            nodes = [om.node("Identity", "x", "codes"), nodes[-1]]
        found = recognised(nodes, activations(*shape), {**CONSTANTS, "w": other}, shape)
        coded = quantised and reason not in ("its weight is the left operand", "its activations are transposed")
        half = "its weights hold 3 levels (exactly), but " if few_levels else "its activations are 8-bit codes, but "
        (record,) = found.records
        assert record.kept_reason == (half + reason if few_levels or coded else "")
        assert 4 * weights.size == record.bytes_before == record.bytes_after
        np.testing.assert_array_equal(found.before, found.after)


@pytest.mark.parametrize("number", [TensorProto.INT8, TensorProto.UINT8])
def test_integer_inputs_are_codes(number: int) -> None:
    """An input of 8-bit integers that is scaled: nothing is rounded at all."""
    nodes = [
        om.node("Cast", "x", "codes", to=TensorProto.FLOAT),
        om.node("Mul", "codes step", "back"),
        om.node("MatMul", "back w", "y"),
    ]
    dtype = np.int8 if number == TensorProto.INT8 else np.uint8
    limits = np.iinfo(dtype)
    x = np.random.default_rng(6).integers(limits.min, limits.max + 1, (4, K)).astype(dtype)
    weights = {"w": ternary().T, "step": np.array(1 / 255, np.float32)}
    found = recognised(nodes, x, weights, [4, K], number=number)
    assert found.records[0].source == "recognised"
    np.testing.assert_array_equal(found.codes[0][0], x if dtype == np.int8 else x.astype(np.int16) - 128)
    assert not any(isinstance(op, QuantizeOp) for op in found.module.walk())
    assert found.error <= TOLERANCE


@pytest.mark.parametrize(("low", "high"), [(0.5, 256.3), (-256.3, -0.5)])
def test_casts_truncate_towards_zero(low: float, high: float) -> None:
    """The ends of the range become 0 and ±256, a code more than eight bits hold."""
    nodes = [
        om.node("Clip", "x low high", "clipped"),
        om.node("Cast", "clipped", "int32", to=TensorProto.INT32),
        om.node("Cast", "int32", "codes", to=TensorProto.FLOAT),
        om.node("MatMul", "codes w", "y"),
    ]
    weights = {"w": ternary().T, "low": np.array(low, np.float32), "high": np.array(high, np.float32)}
    x = np.linspace(-300, 300, 4 * K, dtype=np.float32).reshape(4, K)
    found = recognised(nodes, x, weights, [4, K])
    assert found.records[0].source == "float"
    np.testing.assert_array_equal(found.before, found.after)


def test_a_scale_may_be_the_result_of_a_recognised_layer() -> None:
    """A gate of one column, computed from the codes that it scales."""
    gate = np.ones((K, 1), np.float32)
    nodes = _static(
        om.node("MatMul", "codes gate", "scale"),
        om.node("Mul", "codes scale", "back"),
        om.node("MatMul", "back w", "y"),
    )
    found = recognised(nodes, 9 * activations(4, K), {**CONSTANTS, "w": ternary().T, "gate": gate}, ["B", K])
    assert [record.source for record in found.records] == ["recognised", "recognised"]
    assert found.error <= TOLERANCE


@pytest.mark.parametrize("rows", [1, "A"])
def test_codes_of_one_row_that_scales_broadcast(rows: int | str) -> None:
    """Codes [1, K] with scales [B, 1] are B rows, also where only run time can tell that there is one row of codes."""
    nodes = _static(om.node("Mul", "codes column", "back"), om.node("MatMul", "back w", "y"))
    inputs = [om.value("x", [rows, K]), om.value("column", ["B", 1])]
    model = om.model(nodes, inputs, [om.value("y", None)], {**CONSTANTS, "w": ternary().T})
    context = new_context()
    module = import_onnx(model, context)
    for step in (LowerOnnxToDense(), RecognizeTernary()):
        step.apply(context, module)
    (record,) = quantization_report(module, context.weights)
    assert record.kept_reason.endswith("its activations are broadcast")
    x, column = activations(1, K), activations(5, 1)
    (y,) = interpret(module, [x, column], context.weights)
    np.testing.assert_allclose(y, np.round(x) * column @ ternary().T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ["LeakyRelu", "Swish"])
def test_long_residual_chains_take_no_longer_than_they_are(activation: str) -> None:
    """What is known is remembered: twice the work at each of fifty blocks would never end."""
    nodes, x = list[NodeProto](), "x"
    for i in range(50):
        nodes += [om.node("MatMul", f"{x} w", f"m{i}"), om.node("Add", f"{x} m{i}", f"a{i}")]
        if activation == "Swish":
            nodes += [om.node("Sigmoid", f"a{i}", f"s{i}"), om.node("Mul", f"a{i} s{i}", f"h{i}")]
        else:
            nodes.append(om.node(activation, f"a{i}", f"h{i}"))
        x = f"h{i}"
    nodes.append(om.node("Identity", x, "y"))
    weight = ternary(K) * np.float32(0.01)
    found = recognised(nodes, activations(2, K), {"w": weight}, ["B", K])
    assert {record.source for record in found.records} == {"float"}


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_long_chains_of_numbers_are_no_deep_recursions(op: str) -> None:
    nodes = [om.node(op, f"h{i} step", f"h{i + 1}") for i in range(400)]
    nodes = [om.node("Identity", "x", "h0"), *nodes, om.node("MatMul", "h400 w", "y")]
    weights = {"w": ternary().T, "step": np.array(1.001, np.float32)}
    found = recognised(nodes, activations(2, K), weights, ["B", K])
    assert found.records[0].kept_reason.endswith("its activations are float")


@pytest.mark.parametrize("seed", range(8))
def test_random_models(seed: int) -> None:
    """Sizes, levels, scales and order of operations by chance."""
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(1, 40)), int(rng.integers(16, 100))
    levels = int(rng.integers(1, 8))
    step = rng.uniform(0.01, 1, (n, 1) if rng.integers(2) else (1, 1)).astype(np.float32)
    w = rng.integers(-levels, levels + 1, (n, k)).astype(np.float32) * step
    scale, rounding, back = (str(rng.choice(list(table))) for table in (SCALE, ROUNDING, BACK))
    nodes = [*fake_quantised(scale, rounding, back), om.node("MatMul", "back w", "y")]
    x = rng.normal(size=(int(rng.integers(1, 5)), k)).astype(np.float32)
    found = recognised(nodes, x, {**CONSTANTS, "w": np.ascontiguousarray(w.T)}, ["B", k])
    np.testing.assert_array_equal(found.codes[0][0], expected_codes(x, scale, rounding))
    assert found.records[0].source == "recognised"
    assert found.error <= TOLERANCE
