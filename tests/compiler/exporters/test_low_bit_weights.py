"""Few-level weights in low-bit ONNX forms: the same numbers in onnxruntime, or by the form's own definition."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, helper, numpy_helper

from neuc.compiler.exporters.low_bit_weights import FORMS, QONNX_DOMAIN, write_low_bit_weights
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
    return named(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)]))


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
    assert "no few levels" in change.kept


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
