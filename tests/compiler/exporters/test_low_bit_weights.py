"""Few-level weights in low-bit ONNX forms: the same numbers in onnxruntime, or by the form's own definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, helper, numpy_helper

from neuc.compiler.exporters.low_bit_weights import CONTRIB_DOMAIN, FORMS, QONNX_DOMAIN, write_low_bit_weights
from onnx_models import model, node, value

TERNARY, BINARY, FOUR, SIXTEEN = (-1, 0, 1), (-1, 1), (-2, -1, 0, 1), tuple(range(-8, 8))
SAME_SUM = 1e-5
"""Relative difference of float sums of about a hundred products in another order."""
K, N = 96, 40
HOLDS = {
    "int2-qdq": (TERNARY, BINARY, FOUR),
    "int4-qdq": (TERNARY, BINARY, FOUR, SIXTEEN),
    "qcdq": (TERNARY, BINARY, FOUR, SIXTEEN),
    "qonnx": (TERNARY, BINARY, FOUR, SIXTEEN),
    "matmul-2bits": (TERNARY, BINARY, FOUR),
    "matmul-4bits": (TERNARY, BINARY, FOUR, SIXTEEN),
}
SCALES = ("tensor", "row", "group")


def matrix(levels: tuple[int, ...], scale: str, n: int, k: int) -> np.ndarray:
    """F32 [n, k] of few levels, with scales that no power of two makes easy."""
    rng = np.random.default_rng(n)
    codes = rng.choice(levels, (n, k)).astype(np.float32)
    codes[:, : 2 * len(levels)] = np.tile(levels, 2)
    match scale:
        case "tensor":
            return codes * np.float32(0.0137)
        case "row":
            return codes * rng.uniform(0.01, 1, (n, 1)).astype(np.float32)
        case _:
            return codes * np.repeat(rng.uniform(0.01, 1, (n, k // 32)).astype(np.float32), 32, axis=1)


def two_layers(levels: tuple[int, ...], scale: str) -> ModelProto:
    """A MatMul, and a Gemm that reads its weights transposed."""
    nodes = [
        node("MatMul", "x w", "h", name="first"),
        node("Gemm", "h v", "y", name="second", transB=1),
    ]
    weights = {"w": matrix(levels, scale, N, K).T, "v": matrix(levels, scale, 64, N) if scale != "group" else _dense()}
    return named(model(nodes, [value("x", ["B", K])], [value("y", ["B", 64])], weights, opset=25))


def _dense() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((64, N)).astype(np.float32)


def named(made: ModelProto) -> ModelProto:
    made.ir_version = 13
    return made


def run(made: ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    onnx.checker.check_model(made)
    options = onnxruntime.SessionOptions()
    # Optimised, onnxruntime quantises the activations of blocked DequantizeLinear → MatMul to int8.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    result = onnxruntime.InferenceSession(made.SerializeToString(), options).run(None, feed)[0]
    assert isinstance(result, np.ndarray)
    return result


def without_qonnx(made: ModelProto) -> ModelProto:
    """Quant and BipolarQuant of constants by their definition, written here from the text of the QONNX standard."""
    known = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    nodes = []
    for one in made.graph.node:
        if one.domain != QONNX_DOMAIN:
            nodes.append(one)
            continue
        attrs = {a.name: helper.get_attribute_value(a) for a in one.attribute}
        x, scale = known[one.input[0]], known[one.input[1]]
        if one.op_type == "BipolarQuant":
            known[one.output[0]] = np.where(x >= 0, scale, -scale).astype(np.float32)
            continue
        zero, bits = known[one.input[2]], int(known[one.input[3]])
        assert attrs["rounding_mode"] == b"ROUND"
        high = 2 ** (bits - 1) - 1 if attrs["signed"] else 2**bits - 1
        low = -(2 ** (bits - 1)) + attrs["narrow"] if attrs["signed"] else 0
        codes = np.round(np.clip(x / scale + zero, low, high))
        known[one.output[0]] = ((codes - zero) * scale).astype(np.float32)
    initializers = [numpy_helper.from_array(np.asarray(a), n) for n, a in known.items()]
    graph = helper.make_graph(nodes, "g", made.graph.input, made.graph.output, initializers)
    opsets = [opset for opset in made.opset_import if opset.domain != QONNX_DOMAIN]
    return named(helper.make_model(graph, opset_imports=opsets))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("form", "levels"), [(f, ls) for f, sets in HOLDS.items() for ls in sets], ids=str)
def test_every_form_keeps_the_numbers(form: str, levels: tuple[int, ...], scale: str) -> None:
    made = two_layers(levels, scale)
    x = np.random.default_rng(0).standard_normal((3, K)).astype(np.float32)
    expected = run(made, {"x": x})
    changes = {change.node: change for change in write_low_bit_weights(made, form)}
    if form == "qonnx" and scale == "group":
        assert "per group" in changes["first"].kept
    else:
        assert changes["first"].kept == ""
        assert set(changes["first"].levels) >= set(levels)
        assert "w" not in {t.name for t in made.graph.initializer}
    if form.startswith("matmul"):
        assert "Gemm" in changes["second"].kept or scale == "group"
    got = run(without_qonnx(made) if form == "qonnx" else made, {"x": x})
    np.testing.assert_allclose(got, expected, rtol=SAME_SUM, atol=SAME_SUM * np.abs(expected).max())


@pytest.mark.parametrize("form", [f for f in FORMS if not f.startswith("matmul")])
@pytest.mark.parametrize("scale", ["tensor", "row"])
def test_convolutions(form: str, scale: str) -> None:
    w = matrix(TERNARY, scale, 8, 4 * 9).reshape(8, 4, 3, 3)
    nodes = [node("Conv", "x w", "y", name="conv", group=2, pads=[1, 1, 1, 1])]
    made = named(model(nodes, [value("x", ["B", 8, 6, 6])], [value("y", ["B", 8, 6, 6])], {"w": w}, opset=25))
    x = np.random.default_rng(0).standard_normal((2, 8, 6, 6)).astype(np.float32)
    expected = run(made, {"x": x})
    (change,) = write_low_bit_weights(made, form)
    assert (change.kept, change.levels, change.ulp) == ("", TERNARY, 0)
    got = run(without_qonnx(made) if form == "qonnx" else made, {"x": x})
    np.testing.assert_allclose(got, expected, rtol=SAME_SUM, atol=SAME_SUM * np.abs(expected).max())


@pytest.mark.parametrize(("form", "what"), [("int2-qdq", "INT2"), ("matmul-2bits", "2 bits")])
def test_levels_that_do_not_fit_are_left_alone(form: str, what: str) -> None:
    made = two_layers((-3, -1, 1, 3), "row")
    before = made.SerializeToString()
    changes = write_low_bit_weights(made, form)
    assert what in changes[0].kept
    assert "[-3, -1, 1, 3]" in changes[0].kept
    assert made.SerializeToString() == before


def test_weights_of_many_values_are_left_alone() -> None:
    nodes = [node("MatMul", "x w", "y", name="dense")]
    made = named(model(nodes, [value("x", ["B", 64])], [value("y", ["B", N])], {"w": _dense()}, opset=25))
    (change,) = write_low_bit_weights(made, "int4-qdq")
    assert (change.node, change.levels) == ("dense", ())
    assert change.kept == "its weights hold more than few levels"


def test_a_weight_shared_by_a_layer_and_an_output_stays() -> None:
    nodes = [node("MatMul", "x w", "h", name="dense"), node("Identity", "w", "same", name="same")]
    outputs = [value("h", ["B", N]), value("same", [K, N])]
    made = named(model(nodes, [value("x", ["B", K])], outputs, {"w": matrix(TERNARY, "row", N, K).T}, opset=25))
    write_low_bit_weights(made, "int2-qdq")
    assert "w" in {t.name for t in made.graph.initializer}
    run(made, {"x": np.zeros((1, K), np.float32)})


@pytest.mark.parametrize("form", FORMS)
def test_names_of_the_model_are_not_taken_again(form: str) -> None:
    """What is written once has names that writing it again would give: also values, nodes and inputs have them."""
    plain = matrix(TERNARY, "row", N, K).T
    fresh = named(
        model([node("MatMul", "x w", "y", name="fc")], [value("x", ["B", K])], [value("y", ["B", N])], {"w": plain})
    )
    write_low_bit_weights(fresh, form)
    taken = sorted({t.name for t in fresh.graph.initializer} | {o for n in fresh.graph.node for o in n.output} - {"y"})
    for name in taken:
        nodes = [node("Relu", "x", name, name="relu"), node("MatMul", f"{name} w", "y", name="fc")]
        made = named(model(nodes, [value("x", ["B", K])], [value("y", ["B", N])], {"w": plain}))
        write_low_bit_weights(made, form)
        given = ["x", *(t.name for t in made.graph.initializer), *(o for n in made.graph.node for o in n.output)]
        assert len(given) == len(set(given))


def test_weights_that_only_inner_graphs_read_stay() -> None:
    branches = {
        f"{name}_branch": helper.make_graph([node("MatMul", f"x {weight}", name)], name, [], [value(name, None)])
        for name, weight in (("then", "w"), ("else", "v"))
    }
    nodes = [
        node("MatMul", "x w", "h", name="fc"),
        node("If", "choice", "z", name="if", **branches),
        node("Add", "h z", "y", name="sum"),
    ]
    inputs = [value("x", ["B", K]), value("choice", [], onnx.TensorProto.BOOL)]
    weights = {"w": matrix(TERNARY, "row", N, K).T, "v": matrix(FOUR, "row", N, K).T}
    made = named(model(nodes, inputs, [value("y", ["B", N])], weights))
    write_low_bit_weights(made, "int4-qdq")
    assert {"w", "v"} <= {tensor.name for tensor in made.graph.initializer}
    x = np.ones((2, K), np.float32)
    for choice, inner in ((True, "w"), (False, "v")):
        expected = x @ weights["w"] + x @ weights[inner]
        found = run(made, {"x": x, "choice": np.array(choice)})
        np.testing.assert_allclose(found, expected, rtol=SAME_SUM, atol=SAME_SUM * np.abs(expected).max())


@pytest.mark.parametrize("second", FORMS)
@pytest.mark.parametrize("first", FORMS)
def test_every_form_goes_over_into_every_other(first: str, second: str) -> None:
    made = two_layers(TERNARY, "row")
    x = np.random.default_rng(0).standard_normal((3, K)).astype(np.float32)
    expected = run(made, {"x": x})
    write_low_bit_weights(made, first)
    changes = {change.node: change for change in write_low_bit_weights(made, second)}
    assert (changes["first"].kept, changes["first"].levels, changes["first"].ulp) == ("", TERNARY, 0)
    packed = second.startswith("matmul")
    quant = second == "qonnx" or (first == "qonnx" and packed)  # which the Gemm keeps
    domains = {"", *([QONNX_DOMAIN] if quant else []), *([CONTRIB_DOMAIN] if packed else [])}
    assert {one.domain for one in made.graph.node} == {opset.domain for opset in made.opset_import} == domains
    got = run(without_qonnx(made) if quant else made, {"x": x})
    np.testing.assert_allclose(got, expected, rtol=SAME_SUM, atol=SAME_SUM * np.abs(expected).max())


def quantised_weights(dtype: str, *, zero: int = 0, transposed: bool = False) -> ModelProto:
    """A MatMul that reads DequantizeLinear, or what Transpose makes of it."""
    kind = onnx.TensorProto.DataType.Value(dtype)
    low, high = {"INT4": (-8, 7), "UINT4": (0, 15), "INT8": (-128, 127)}[dtype]
    shape = (N, K) if transposed else (K, N)
    codes = np.random.default_rng(4).integers(low, high + 1, shape)
    step = np.random.default_rng(5).uniform(0.01, 0.1, N).astype(np.float32)
    tensors = [
        helper.make_tensor("q", kind, shape, codes.reshape(-1)),
        numpy_helper.from_array(step, "step"),
        helper.make_tensor("zero", kind, [N], [zero] * N),
    ]
    nodes = [node("DequantizeLinear", "q step zero", "d", name="dq", axis=0 if transposed else 1)]
    if transposed:
        nodes.append(node("Transpose", "d", "t", name="turn", perm=[1, 0]))
    nodes.append(node("MatMul", "x t" if transposed else "x d", "y", name="fc"))
    graph = helper.make_graph(nodes, "g", [value("x", ["B", K])], [value("y", ["B", N])], tensors)
    return named(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)]))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("dtype", "zero"), [("INT4", 0), ("UINT4", 8)])
def test_integer_weights_of_other_exporters_go_over(dtype: str, zero: int, transposed: bool) -> None:
    made = quantised_weights(dtype, zero=zero, transposed=transposed)
    x = np.random.default_rng(0).standard_normal((3, K)).astype(np.float32)
    expected = run(made, {"x": x})
    (change,) = write_low_bit_weights(made, "matmul-4bits")
    assert (change.kept, change.levels) == ("", SIXTEEN)
    assert [one.op_type for one in made.graph.node] == ["MatMulNBits"]
    np.testing.assert_allclose(run(made, {"x": x}), expected, rtol=SAME_SUM, atol=SAME_SUM * np.abs(expected).max())


def test_weights_of_eight_bits_stay_as_they_are() -> None:
    made = quantised_weights("INT8")
    before = made.SerializeToString()
    (change,) = write_low_bit_weights(made, "int4-qdq")
    assert change.kept == "its weights hold more levels than -15 to 15"
    assert made.SerializeToString() == before


Layer = tuple[onnx.NodeProto, dict[str, np.ndarray]]


def packed_with_bias() -> Layer:
    fields = {"K": 32, "N": N, "bits": 4, "block_size": 32}
    packed = node("MatMulNBits", "x b s _ _ c", "y", name="fc", **fields)
    packed.domain = CONTRIB_DOMAIN
    blocks = np.random.default_rng(2).integers(0, 256, (N, 1, 16)).astype(np.uint8)
    return packed, {"b": blocks, "s": np.ones((N, 1), np.float32), "c": np.ones(N, np.float32)}


LEFT: dict[str, Callable[[], Layer]] = {
    "left operand": lambda: (node("MatMul", "w x", "y", name="fc"), {"w": matrix(TERNARY, "row", N, 32)}),
    "rank 3": lambda: (node("MatMul", "x w", "y", name="fc"), {"w": np.ones((3, 32, N), np.float32)}),
    "float64": lambda: (node("MatMul", "x w", "y", name="fc"), {"w": np.ones((32, N))}),
    "its bias": packed_with_bias,
}


@pytest.mark.parametrize("why", LEFT)
def test_every_layer_with_constant_weights_says_why_it_is_left_alone(why: str) -> None:
    layer, weights = LEFT[why]()
    made = named(model([layer], [value("x", [32, 32])], [value("y", None)], weights, domains={CONTRIB_DOMAIN: 1}))
    (change,) = write_low_bit_weights(made, "qcdq")
    assert change.node == "fc"
    assert why in change.kept
