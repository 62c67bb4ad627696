"""Float convolutions on the array in bf16: the bits that plain loops give, grouped and depthwise ones too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import neuc
from neuc.backends.npu.check.checker import violations
from neuc.compiler.npu.products import placed_products
from neuc.dialects.interp.npu_bf16 import bf16
from neuc.runtime.artifact import Artifact

TARGET = "npu-xdna1{float=bf16}"
BF16_ERROR = 2**-8
"""Relative L2 of one product: each operand is off by at most 2^-9 of itself, in random directions."""
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, list[int] | int]]] = {
    "plain": ((2, 5, 9, 8), (12, 5, 3, 3), {"pads": [1, 0, 1, 2]}),
    "points": ((2, 5, 9, 8), (12, 5, 1, 1), {}),
    "depthwise": ((1, 70, 5, 6), (70, 1, 3, 3), {"group": 70, "pads": [1, 1, 1, 1], "strides": [2, 1]}),
    "groups of a line": ((1, 6, 30), (4, 3, 3), {"group": 2, "dilations": [2]}),
}

CUT: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, list[int] | int]]] = {
    "plain": ((2, 15, 17, 21), (12, 15, 3, 3), {"pads": [1, 0, 1, 2]}),
    "strided": ((1, 12, 29, 33), (12, 12, 3, 5), {"pads": [2, 1, 0, 2], "strides": [2, 1]}),
    "dilated": ((1, 16, 16, 16), (24, 16, 3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
    "depthwise": ((1, 128, 16, 16), (128, 1, 3, 3), {"group": 128, "pads": [1, 1, 1, 1]}),
    "a line": ((2, 24, 129), (16, 24, 5), {"pads": [4, 4], "dilations": [2]}),
    "groups of a line": ((1, 48, 130), (96, 12, 3), {"group": 4, "strides": [2]}),
}
"""Whose sizes are fixed, and large enough for rectangles."""


def _spec(x: np.ndarray, w: np.ndarray, pads: list[int], strides: list[int], dilations: list[int], group: int):
    """The convolution, products added in f32 in the order (place in the kernel, channel)."""
    rank = x.ndim - 2
    x = np.pad(bf16(x), [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:])])
    w = bf16(w)
    extents = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations)]
    out = tuple((size - extent) // s + 1 for size, extent, s in zip(x.shape[2:], extents, strides))
    y = np.zeros((len(x), len(w), *out), np.float32)
    each = len(w) // group
    for m in range(len(w)):
        first = m // each * w.shape[1]
        for place in np.ndindex(*w.shape[2:]):
            cut = tuple(slice(p * d, p * d + (n - 1) * s + 1, s) for p, d, n, s in zip(place, dilations, out, strides))
            for c in range(w.shape[1]):
                y[:, m] = y[:, m] + x[(slice(None), first + c, *cut)] * w[(m, c, *place)]
    return y


def _model(
    shape: tuple[int | str, ...], kernel: tuple[int, ...], options: dict[str, list[int] | int]
) -> onnx.ModelProto:
    """Conv with a bias and Relu."""
    random = np.random.default_rng(7)
    w, bias = (random.standard_normal(size).astype(np.float32) for size in (kernel, kernel[:1]))
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", **options)]  # pyright: ignore[reportArgumentType]
    nodes.append(helper.make_node("Relu", ["c"], ["y"]))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", None)))
    graph = helper.make_graph(
        nodes, "g", [x], [y], [numpy_helper.from_array(w, "w"), numpy_helper.from_array(bias, "b")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _expected(
    case: tuple[tuple[int, ...], tuple[int, ...], dict[str, list[int] | int]], x: np.ndarray, model: onnx.ModelProto
) -> np.ndarray:
    """What `_model` gives by plain loops."""
    rank = len(case[0]) - 2
    w, bias = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    defaults = {"pads": [0] * 2 * rank, "strides": [1] * rank, "dilations": [1] * rank, "group": 1}
    return np.maximum(_spec(x, w, **{**defaults, **case[2]}) + bias.reshape(-1, *[1] * rank), 0)


@pytest.mark.parametrize("case", CASES)
def test_a_convolution_has_the_specifications_bits(case: str):
    shape, kernel, options = CASES[case]
    x = np.random.default_rng(len(case)).standard_normal(shape).astype(np.float32)
    model = _model(("N", *shape[1:-1], "W"), kernel, options)
    compiled = neuc.compile(model, TARGET, quantize="none")
    np.testing.assert_array_equal(compiled.session().run(None, {"x": x})[0], _expected(CASES[case], x, model))
    notes = " ".join(compiled.report.hints)
    assert "1 product runs on npu-xdna1" in notes
    assert "the windows of 1 convolution are cut on the CPU, because its sizes are open (--shape fixes them)" in notes
    (row,) = compiled.report.layers
    assert (row.node, row.encoding) == ("conv", "bf16")
    assert row.error is not None
    assert 0 < row.error < BF16_ERROR


@pytest.mark.parametrize("case", CUT)
def test_windows_of_floats_are_cut_by_dmas(case: str, tmp_path: Path):
    shape, kernel, options = CUT[case]
    x = np.random.default_rng(len(case)).standard_normal(shape).astype(np.float32)
    model = _model(shape, kernel, options)
    compiled = neuc.compile(model, TARGET, quantize="none")
    assert "the windows of 1 convolution are cut out of images in host memory by the array's DMAs: conv" in " ".join(
        compiled.report.hints
    )
    compiled.save(tmp_path / "m.neuc")
    session = neuc.load(tmp_path / "m.neuc")
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], _expected(CUT[case], x, model))
    artifact = Artifact.open(tmp_path / "m.neuc")
    (product,) = placed_products(artifact)
    assert product.facts["windows"] == "by DMA"
    assert product.design.buffer("b").nbytes == artifact.weights[f"{product.segment}.b"].nbytes
    assert violations(product.design, product.machine) == []


def test_a_depthwise_convolution_is_few_products(tmp_path: Path):
    neuc.compile(_model(*CASES["depthwise"]), TARGET, quantize="none").save(tmp_path / "m.neuc")
    (product,) = placed_products(Artifact.open(tmp_path / "m.neuc"))
    assert (product.facts["groups"], product.facts["n"], product.facts["operands"]) == (2, 35, "bf16")
    assert {kernel.function for kernel in product.design.kernels} == {"finished_bf16_gemm"}
    assert product.facts["finished"] == "on the cores: a vector of columns, float32"
