"""neuc behind ONNX's backend interface, and models whose sizes depend on data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper, parser
from onnx.backend.base import Backend

import neuc
from neuc.compiler import onnx_backend
from neuc.compiler.onnx_backend import TARGET_VARIABLE, NeucBackend
from neuc.errors import Error

X = np.array([[1, 0, -2], [0, 0, 3]], np.float32)


def model(text: str, opset: int = 21) -> ModelProto:
    return parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> g {text}')


def test_a_model_runs_with_inputs_in_order_by_name_and_alone() -> None:
    two = model("(float[N] a, float[N] b) => (float[N] c) { c = Sub(a, b) }")
    a, b = np.array([1, 2], np.float32), np.array([4, 4], np.float32)
    prepared = NeucBackend.prepare(two, threads=1)
    assert prepared.compiled.report.hosts == []
    assert prepared.run([a, b])[0].tolist() == [-3, -2]
    named = prepared.run({"b": a, "a": b})
    assert named.c.tolist() == [3, 2]  # pyright: ignore[reportAttributeAccessIssue]  a namedtuple made at run time
    one = model("(float[2,3] x) => (float[2,3] y) { y = Neg(x) }")
    np.testing.assert_array_equal(NeucBackend.run_model(one, X)[0], -X)
    with pytest.raises(Error, match="has 2 inputs, 1 are given"):
        prepared.run([a])


def test_the_module_is_a_backend_like_those_of_other_projects() -> None:
    assert issubclass(NeucBackend, Backend)
    node = helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.5)
    (y,) = onnx_backend.run_node(node, [X])
    np.testing.assert_array_equal(y, np.where(X < 0, 0.5 * X, X))
    assert onnx_backend.supports_device("CPU:0")
    assert not onnx_backend.supports_device("CUDA")
    with pytest.raises(Error, match="no device CUDA"):
        onnx_backend.run_node(node, [X], "CUDA")


def test_a_node_of_an_older_opset_whose_outputs_are_given() -> None:
    node = helper.make_node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 2.0], mode="nearest")
    x = X.reshape(1, 1, 2, 3)
    (y,) = NeucBackend.run_node(node, [x], outputs_info=[(np.dtype(np.float32), (1, 1, 4, 6))], opset_version=7)
    np.testing.assert_array_equal(y, x.repeat(2, axis=2).repeat(2, axis=3))


def test_the_environment_names_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    relu = model("(float[2,3] x) => (float[2,3] y) { y = Relu(x) }")
    monkeypatch.setenv(TARGET_VARIABLE, "cpu-ref")
    assert NeucBackend.prepare(relu).compiled.report.target == "cpu-ref"
    assert NeucBackend.prepare(relu, target="cpu").compiled.report.target == "cpu"


# NonZero stays on the host; what follows needs a size that nobody knows before it has run.
SIZES_FROM_DATA = {
    "shape": ("(float[2,3] x) => (int64[n] s) { y = NonZero(x)  s = Shape(y) }", [2, 3]),
    "arithmetic": (
        "(float[2,3] x) => (float[n] s) { y = NonZero(x)  k = Shape<start = 1>(y)  c = Cast<to = 1>(k)"
        "  s = Mul(c, c) }",
        [9],
    ),
    "size as a shape": (
        "(float[2,3] x) => (float[n] s) { y = NonZero(x)  k = Shape<start = 1>(y)  o = Constant<value = float {2.0}>()"
        "  e = Expand(o, k)  s = Mul(e, e) }",
        [4, 4, 4],
    ),
    "elements": ("(float[2,3] x) => (int64[m,n] s) { y = NonZero(x)  s = Mul(y, y) }", [[0, 0, 1], [0, 4, 4]]),
}


@pytest.mark.parametrize("name", SIZES_FROM_DATA)
def test_sizes_that_depend_on_data(name: str) -> None:
    text, expected = SIZES_FROM_DATA[name]
    (found,) = NeucBackend.run_model(model(text), [X])
    assert found.tolist() == expected


def test_an_opset_newer_than_onnxruntimes_is_no_hindrance_on_the_host() -> None:
    newest = onnx.defs.onnx_opset_version()
    graph = model("(float[2,3] x) => (float[2,k] y) { y = Compress<axis = 1>(x, keep) }", newest)
    graph.graph.initializer.append(numpy_helper.from_array(np.array([True, False, True]), "keep"))
    graph.ir_version = onnx.IR_VERSION
    prepared = NeucBackend.prepare(graph)
    assert [host.op for host in prepared.compiled.report.hosts] == ["Compress"]
    np.testing.assert_array_equal(prepared.run([X])[0], X[:, [0, 2]])


# Which of two sizes is 1, if any, only a run can tell.
BROADCASTS = {
    "Mul": ("(float[A,B] x, float[C,D] y) => (float[m,n] z) { z = Mul(x, y) }", lambda x, y: x * y),
    "MatMul": ("(float[A,M,K] x, float[B,K,N] y) => (float[p,q,r] z) { z = MatMul(x, y) }", np.matmul),
    "Gemm": (
        "(float[M,K] x, float[K,N] y, float[C] b) => (float[p,q] z) { z = Gemm(x, y, b) }",
        lambda x, y, b: x @ y + b,
    ),
    "Where": (
        "(bool[A] c, float[B] x, float[2,C] y) => (float[m,n] z) { z = Where(c, x, y) }",
        np.where,
    ),
}
SIZES = {
    "Mul": [((3, 4), (1, 4)), ((1, 4), (3, 1)), ((3, 1), (1, 5)), ((3, 4), (3, 4))],
    "MatMul": [((1, 2, 3), (4, 3, 5)), ((4, 2, 3), (1, 3, 5)), ((2, 2, 3), (2, 3, 5))],
    "Gemm": [((2, 3), (3, 4), (1,)), ((2, 3), (3, 4), (4,)), ((2, 3), (3, 20), (20,)), ((2, 3), (3, 20), (1,))],
    "Where": [((1,), (5,), (2, 1)), ((5,), (1,), (2, 1)), ((1,), (1,), (2, 5))],
}


@pytest.mark.parametrize("name", BROADCASTS)
def test_sizes_that_turn_out_to_be_1_broadcast(name: str) -> None:
    text, expected = BROADCASTS[name]
    prepared = NeucBackend.prepare(model(text))
    assert prepared.compiled.report.hosts == []
    rng = np.random.default_rng(0)
    for sizes in SIZES[name]:
        values = [rng.standard_normal(size).astype(np.float32) for size in sizes]
        if name == "Where":
            values[0] = values[0] > 0
        (found,) = prepared.run(values)
        wanted = expected(*values)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


MISFITS = {
    "Mul": [((3, 4), (2, 4)), ((0, 4), (1, 4))],
    "MatMul": [((3, 2, 3), (2, 3, 5))],
    "Gemm": [((2, 3), (3, 4), (3,))],
    "Where": [((3,), (2,), (2, 1))],
}


@pytest.mark.parametrize("name", MISFITS)
def test_sizes_that_do_not_go_together_are_refused_before_anything_is_read(name: str) -> None:
    prepared = NeucBackend.prepare(model(BROADCASTS[name][0]))
    for sizes in MISFITS[name]:
        values = [np.ones(size, np.bool_ if (name, i) == ("Where", 0) else np.float32) for i, size in enumerate(sizes)]
        with pytest.raises(Error, match=f"do not go together at {name}#0"):
            prepared.run(values)


def test_requirements_survive_text_and_artifact(tmp_path: Path) -> None:
    compiled = NeucBackend.prepare(model(BROADCASTS["Mul"][0])).compiled
    text = compiled.as_text("machine")
    assert 'cpu.require "-A*max(A, C) + A*A + max(A, C) - A" is zero' in text
    fits = {"x": np.ones((3, 1), np.float32), "y": np.ones((1, 2), np.float32)}
    misfits = {"x": np.ones((3, 1), np.float32), "y": np.ones((2, 2), np.float32)}
    compiled.save(tmp_path / "m.neuc")
    with neuc.load(tmp_path / "m.neuc") as session:
        assert session.run(None, fits)[0].shape == (3, 2)
        with pytest.raises(Error, match="with A=3, C=2"):
            session.run(None, misfits)
    (tmp_path / "m.mlir").write_text(text, encoding="utf-8")
    again = neuc.compile(tmp_path / "m.mlir").session()
    assert again.run(None, fits)[0].shape == (3, 2)
    with pytest.raises(Error, match="do not go together"):
        again.run(None, misfits)
