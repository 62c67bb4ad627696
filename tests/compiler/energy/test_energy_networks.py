"""Networks from ONNX: matrices of perceptrons and convolutions, Hopfield and predictive-coding forms, bad models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from neuc import energy
from neuc.compiler.energy.networks import apply
from neuc.compiler.energy.onnx_chain import layers_of
from neuc.errors import Error

TOLERANCE = 1e-5
"""f32 sums of tens of products of size 1, added in another order."""


def model_of(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: list, out: str = "y"):
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def perceptron(activation: str = "Relu") -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    w = {f"w{k}": rng.normal(0, 0.4, shape).astype(np.float32) for k, shape in enumerate([(6, 8), (8, 5), (5, 3)])}
    w |= {f"b{k}": rng.normal(0, 0.2, n).astype(np.float32) for k, n in enumerate([8, 5, 3])}
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["h0"], name="first"),
        helper.make_node(activation, ["h0"], ["a0"], name="act0"),
        helper.make_node("MatMul", ["a0", "w1"], ["m1"], name="second"),
        helper.make_node("Add", ["m1", "b1"], ["h1"], name="bias"),
        helper.make_node(activation, ["h1"], ["a1"], name="act1"),
        helper.make_node("Gemm", ["a1", "w2", "b2"], ["y"], name="third"),
    ]
    return model_of(nodes, w, ["batch", 6])


def convolutional() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    constants = {
        "k": rng.normal(0, 0.4, (3, 1, 3, 3)).astype(np.float32),
        "w": rng.normal(0, 0.4, (27, 4)).astype(np.float32),
        "b": rng.normal(0, 0.4, 4).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("AveragePool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], name="head"),
    ]
    return model_of(nodes, constants, ["batch", 1, 6, 6])


@pytest.mark.parametrize("build", [perceptron, convolutional])
def test_predictive_coding_answers_as_the_model_does(build) -> None:
    model = build()
    images = np.random.default_rng(2).random((5, 6) if build is perceptron else (5, 1, 6, 6)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": images})
    made = energy.from_onnx(model, as_="pc", steps=3)
    for found in (made.interpret(images), made.run(images)):
        np.testing.assert_allclose(found.answer, np.asarray(expected), atol=TOLERANCE)
        # A forward pass is where every prediction is met: nothing moves.
        np.testing.assert_allclose(found.state1, made.feeds(images)["layer1"], atol=TOLERANCE)


def test_a_hopfield_network_of_one_layer_is_the_layer_and_deeper_ones_come_to_rest() -> None:
    rng = np.random.default_rng(3)
    w, b, x = rng.normal(0, 0.5, (4, 3)), rng.normal(0, 0.2, 3), rng.random((7, 4))
    one = energy.network([energy.Layer(w.astype(np.float32), b.astype(np.float32), "clip")], steps=1)
    np.testing.assert_allclose(one.run(x).answer, apply("clip", x @ w + b), atol=TOLERANCE)
    # Clipped states in 0 … 1 come to rest whatever the weights; unbounded ones need small weights.
    deep = [energy.from_onnx(clipped(), as_="ep", steps=steps) for steps in (60, 61)]
    images = rng.random((5, 6))
    rest = [made.interpret(images).answer for made in deep]
    np.testing.assert_allclose(rest[1], rest[0], atol=TOLERANCE)
    np.testing.assert_allclose(deep[0].run(images).answer, rest[0], atol=TOLERANCE)


def clipped() -> onnx.ModelProto:
    """The perceptron with states in 0 … 1."""
    model = perceptron("Clip")
    for node in model.graph.node:
        if node.op_type == "Clip":
            node.input.extend(["low", "high"])
    bounds = (("low", 0.0), ("high", 1.0))
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v, np.float32), n) for n, v in bounds)
    return model


def test_matrices_of_convolutions_share_weights() -> None:
    found = layers_of(convolutional())
    assert found is not None
    first, second = found
    assert (first.w.shape, first.activation) == ((36, 108), "relu")
    assert (second.w.shape, second.activation) == ((108, 4), "none")
    kernel = numpy_helper.to_array(convolutional().graph.initializer[0])
    assert set(np.unique(first.w.round(5))) <= {0.0, *kernel.reshape(-1).round(5)}


def changed(node: int, **fields: object) -> onnx.ModelProto:
    model = perceptron()
    for name, value in fields.items():
        if name == "op_type":
            model.graph.node[node].op_type = str(value)
        else:
            model.graph.node[node].input[1] = str(value)
    return model


def branched(activation: str = "Relu") -> onnx.ModelProto:
    """A residual convolution, maximum pooling, and a skip connection around the last layer but one."""
    rng = np.random.default_rng(4)
    shapes = {"k0": (3, 1, 3, 3), "k1": (3, 3, 3, 3), "w": (27, 5), "b": (5,), "v": (5, 5), "u": (5, 4)}
    constants = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "k0"], ["c0"], pads=[1, 1, 1, 1], name="stem"),
        helper.make_node(activation, ["c0"], ["a0"], name="act0"),
        helper.make_node("Conv", ["a0", "k1"], ["c1"], pads=[1, 1, 1, 1], name="residual"),
        helper.make_node("Add", ["c1", "a0"], ["s1"], name="skip"),
        helper.make_node(activation, ["s1"], ["a1"], name="act1"),
        helper.make_node("MaxPool", ["a1"], ["p"], kernel_shape=[2, 2], strides=[2, 2], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w", "b"], ["h"], name="hidden"),
        helper.make_node(activation, ["h"], ["a2"], name="act2"),
        helper.make_node("MatMul", ["a2", "v"], ["m"], name="last"),
        helper.make_node("Add", ["m", "h"], ["around"], name="around"),
        helper.make_node("MatMul", ["around", "u"], ["y"], name="head"),
    ]
    return model_of(nodes, constants, ["batch", 1, 6, 6])


def test_networks_that_branch_and_pool_predict_as_the_model_does() -> None:
    model = branched()
    images = np.random.default_rng(2).random((5, 1, 6, 6)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": images})
    made = energy.from_onnx(model, as_="pc", steps=3)
    assert not made.layers
    assert made.program.text().count("energy.prediction(") == 4
    for found in (made.interpret(images), made.run(images)):
        np.testing.assert_allclose(found.answer, np.asarray(expected), atol=TOLERANCE)
    with pytest.raises(Error, match=r"E635.*images of 5 numbers for a network of 36 inputs"):
        made.feeds(np.zeros((2, 5)))


def test_hopfield_networks_that_branch_come_to_rest_natively_too() -> None:
    model = branched("Tanh")
    assert "block_min" not in energy.from_onnx(model, steps=1).program.text(), "a maximum has no exact minimum"
    model.graph.node[5].op_type = "AveragePool"
    made = energy.from_onnx(model, steps=4)
    assert "block_min" in made.program.text()
    images = np.random.default_rng(2).random((3, 36))
    first, last = made.run(images), made.run(images)
    before = last
    np.testing.assert_allclose(first.answer, made.interpret(images).answer, atol=TOLERANCE)
    for _ in range(30):
        before = last
        states = {f"layer{n}": before[f"state{n}"] for n in range(1, len(before))}
        last = made.program.run(**made.feeds(images) | states | {f"layer{len(before)}": before.answer})
    np.testing.assert_allclose(last.answer, before.answer, atol=TOLERANCE)
    assert np.abs(last.state1).max() <= 1.0


def test_what_is_no_chain_answers_as_the_model_does() -> None:
    square = model_of([helper.make_node("Mul", ["x", "x"], ["y"], name="square")], {}, ["n", 3])
    six = model_of([helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])], {}, ["n", 3])
    ends = model_of([helper.make_node("Neg", ["x"], ["h"]), helper.make_node("Relu", ["h"], ["y"])], {}, ["n", 3])
    x = np.random.default_rng(5).normal(size=(4, 3)).astype(np.float32)
    for model in (square, six, ends):
        (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
        found = energy.from_onnx(model, as_="pc", steps=2).interpret(x).answer
        np.testing.assert_allclose(found, np.asarray(expected), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: changed(1, op_type="Softmax"), r"E635.*act0 is dense.softmax"),
        (lambda: changed(1, op_type="Softplus"), r"E635.*act0 is no activation"),
        (lambda: "nowhere.onnx", r"E635.*nowhere.onnx cannot be read"),
        (lambda: model_of([helper.make_node("Relu", ["x"], ["y"])], {}, ["n", "m"]), "shape of x is not known"),
    ],
)
def test_models_that_make_no_network(model, message: str) -> None:
    with pytest.raises(Error, match=message):
        energy.from_onnx(model())


def test_kinds_and_layers_that_make_no_sense() -> None:
    layer = energy.Layer(np.zeros((4, 3), np.float32), np.zeros(3, np.float32))
    with pytest.raises(Error, match=r"E635.*no kind"):
        energy.network([layer], as_="snn")  # type: ignore[arg-type]
    with pytest.raises(Error, match=r"E635.*takes 4 numbers"):
        energy.network([layer, layer])
    with pytest.raises(Error, match=r"E635.*images of 5 numbers"):
        energy.network([layer]).feeds(np.zeros((2, 5)))


def test_a_clamped_variable_that_nothing_reads_is_named() -> None:
    model = energy.Model()
    model.quad(model.real(2, name="x"))
    model.real(3, name="forgotten", clamped=True)
    with pytest.raises(Error, match=r"E630.*forgotten is clamped and no term reads it"):
        model.state(1)


@pytest.mark.parametrize("kind", ["spin", "cat", "real", "simplex", "phase", "complex"])
def test_every_kind_of_variable_is_taken_by_some_energy_and_printed(kind: str) -> None:
    model = energy.Model(precise=kind == "complex")
    match kind:
        case "spin" | "cat":
            x = model.spin(2, name="x") if kind == "spin" else model.categories(3, 2, name="x")
            model.linear(x, np.ones(2) if kind == "spin" else np.ones((2, 3)))
            program = model.program(last=model.init(1).sample(sweeps=2, beta=1.0).last[x])
        case "simplex":
            x = model.beliefs(3, 2, name="x")
            model.linear(x, np.log([[0.2, 0.3, 0.5]] * 2))
            program = model.program(last=model.state(1, x=np.full((1, 2, 3), 1 / 3)).relax("mean_field", 1)[x])
        case _:
            x = {"real": model.real, "phase": model.phase, "complex": model.complex}[kind](2, name="x")
            model.quad(model.rho(x, "sin") if kind == "phase" else x)
            start = np.ones((1, 2, 2) if kind == "complex" else (1, 2))
            program = model.program(last=model.state(1, x=start).relax("flow", 2, dt=0.1)[x])
    text = program.text()
    assert f"!energy.var<{kind}" in text
    found, again = program.interpret().last, program.edited(text).interpret().last
    np.testing.assert_array_equal(found, again)
    if kind == "simplex":
        np.testing.assert_allclose(found[0, 0], [0.2, 0.3, 0.5], rtol=1e-6)


def test_files_shapes_and_seeds_that_cannot_be_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x0a\x12\xff\xff\xffjunk")
    with pytest.raises(Error, match=r"E635.*cannot be read"):
        energy.from_onnx(broken)
    images, labels = np.random.default_rng(0).random((20, 1, 4, 4)), np.arange(20) % 2
    trained = energy.train((16, 4, 2), images, labels, epochs=1, batch=5, engine="numpy")
    assert trained.predict(images).shape == (20,)
    with pytest.raises(Error, match=r"E005"):
        trained.to_onnx(tmp_path / "nowhere" / "x.onnx")
    model = energy.Model()
    spins = model.spin(3)
    program = model.program(last=model.init(2).sample(3).last[spins])
    for seed in (1.5, 2**70):
        with pytest.raises(Error, match=r"E605.*64 bits"):
            program.interpret(seed=seed)
