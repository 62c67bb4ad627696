"""ConvTranspose, Resize, Upsample and LRN: lowered, compiled and run, against onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, save_model
from onnx.reference import ReferenceEvaluator

import neuc
from neuc.compiler.checking import check_model
from neuc.compiler.options import CompileOptions

TOLERANCE = 2e-5
"""Of the largest result: sums of up to a few hundred products, in another order."""


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def model(
    folder: Path,
    op: str,
    dims: Sequence[int | str],
    constants: Sequence[np.ndarray | None],
    opset: int,
    **attributes: object,
) -> Path:
    """A model of one node: x, then constants."""
    names = [f"c{i}" if array is not None else "" for i, array in enumerate(constants)]
    node = helper.make_node(op, ["x", *names], ["y"], name="it")
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, f"c{i}") for i, array in enumerate(constants) if array is not None],
    )
    path = folder / "model.onnx"
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def check(path: Path, x: np.ndarray, target: str = "cpu") -> None:
    """Native, and what onnxruntime gives."""
    compiled = neuc.compile(path, target, quantize="none", fallback="error")
    reference = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = np.asarray(reference.run(None, {"x": x})[0], np.float32)
    with compiled.session(threads=1) as session:
        got = np.asarray(session.run(None, {"x": x})[0], np.float32)
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def reasons(path: Path) -> list[str]:
    """Why nodes stay on the host."""
    return [node.reason for node in check_model(path, CompileOptions(target="cpu")).nodes]


TRANSPOSED = {
    "2x2 by 2": ((2, 3, 5, 4), (3, 4, 2, 2), {"strides": [2, 2]}),
    "4x4 by 2, padded": ((1, 3, 5, 4), (3, 4, 4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "3x3 by 2, one more": ((1, 2, 4, 5), (2, 3, 3, 3), {"strides": [2, 2], "output_padding": [1, 1]}),
    "uneven": ((1, 2, 4, 5), (2, 3, 3, 2), {"strides": [3, 2], "pads": [0, 1, 2, 0], "output_padding": [2, 0]}),
    "by 1": ((1, 2, 4, 5), (2, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    "groups": ((1, 4, 4, 5), (4, 3, 3, 3), {"strides": [2, 1], "group": 2}),
    "depthwise": ((1, 4, 4, 5), (4, 1, 4, 4), {"strides": [2, 2], "group": 4, "pads": [1, 1, 1, 1]}),
    "dilated": ((1, 2, 4, 5), (2, 3, 3, 3), {"dilations": [2, 2], "strides": [2, 3]}),
    "same upper": ((1, 2, 4, 5), (2, 3, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "same lower": ((1, 2, 4, 5), (2, 3, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "one axis": ((2, 3, 7), (3, 2, 5), {"strides": [3], "pads": [2, 1]}),
    "three axes": ((1, 2, 3, 2, 4), (2, 2, 3, 3, 2), {"strides": [2, 1, 2]}),
}


@pytest.mark.parametrize("case", TRANSPOSED)
@pytest.mark.parametrize("known", [True, False])
def test_conv_transpose(case: str, known: bool, tmp_path: Path) -> None:
    shape, w, attributes = TRANSPOSED[case]
    filters = w[1] * int(attributes.get("group", 1))
    dims = list(shape) if known else ["n", shape[1], *(f"s{i}" for i in range(len(shape) - 2))]
    path = model(tmp_path, "ConvTranspose", dims, [random(*w, seed=1), random(filters, seed=2)], 11, **attributes)
    check(path, random(*shape))


def test_conv_transpose_without_bias_in_the_interpreters_kernels(tmp_path: Path) -> None:
    path = model(tmp_path, "ConvTranspose", [1, 3, 5, 4], [random(3, 2, 3, 3, seed=1)], 11, strides=[2, 2])
    check(path, random(1, 3, 5, 4), "cpu-ref")


def test_filters_that_come_at_run_time_stay_on_the_host(tmp_path: Path) -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], name="it")
    given = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 3, 3]) for n in "xw"]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    path = tmp_path / "model.onnx"
    save_model(helper.make_model(helper.make_graph([node], "one", given, made), ir_version=8), path)
    assert reasons(path) == ["filters that are not constants of f32"]


NEAREST = {
    "floor": ([1, 1, 2, 3], {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    "half pixel": ([1, 1, 3, 4], {"coordinate_transformation_mode": "half_pixel"}),
    "prefer ceil": ([1, 1, 2, 2], {"nearest_mode": "round_prefer_ceil"}),
    "pytorch": ([1, 1, 2, 2], {"coordinate_transformation_mode": "pytorch_half_pixel"}),
    "asymmetric by 2": ([1, 1, 2, 2], {"coordinate_transformation_mode": "asymmetric"}),
    "channels, too": ([1, 2, 1, 8], {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
}


@pytest.mark.parametrize("case", NEAREST)
@pytest.mark.parametrize("known", [True, False])
def test_resize_to_the_nearest(case: str, known: bool, tmp_path: Path) -> None:
    scales, attributes = NEAREST[case]
    dims = [1, 3, 5, 4] if known else ["n", 3, "h", "w"]
    path = model(tmp_path, "Resize", dims, [None, np.array(scales, np.float32)], 13, mode="nearest", **attributes)
    check(path, random(1, 3, 5, 4))


def test_sizes_that_are_multiples(tmp_path: Path) -> None:
    sizes = np.array([1, 3, 10, 12])
    path = model(tmp_path, "Resize", [1, 3, 5, 4], [None, None, sizes], 13, mode="nearest")
    check(path, random(1, 3, 5, 4))


@pytest.mark.parametrize("scale", [2.0, 3.0])
def test_upsample(scale: float, tmp_path: Path) -> None:
    scales = np.array([1, 1, scale, scale], np.float32)
    check(model(tmp_path, "Upsample", [1, 3, "h", 4], [scales], 9, mode="nearest"), random(1, 3, 5, 4))


@pytest.mark.parametrize(
    ("scale", "attributes"),
    [(1.5, {}), (3.0, {"coordinate_transformation_mode": "asymmetric"}), (2.0, {"nearest_mode": "floor"})],
)
def test_nearest_that_is_no_repetition_stays_on_the_host(
    scale: float, attributes: dict[str, str], tmp_path: Path
) -> None:
    scales = np.array([1, 1, scale, scale], np.float32)
    path = model(tmp_path, "Resize", [1, 3, 6, 4], [None, scales], 13, mode="nearest", **attributes)
    (reason,) = reasons(path)
    assert reason.startswith(f"nearest by {scale:g}")


@pytest.mark.parametrize("place", ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("size", [(10, 8), (3, 9), (7, 1), (5, 4)])
def test_linear_resize(place: str, size: tuple[int, int], tmp_path: Path) -> None:
    sizes = np.array([1, 3, *size])
    path = model(
        tmp_path,
        "Resize",
        [1, 3, 5, 4],
        [None, None, sizes],
        13,
        mode="linear",
        coordinate_transformation_mode=place,
    )
    check(path, random(1, 3, 5, 4))


def test_linear_resize_by_scales(tmp_path: Path) -> None:
    scales = np.array([1, 1, 1.7, 0.6], np.float32)
    check(model(tmp_path, "Resize", [1, 3, 5, 7], [None, scales], 13, mode="linear"), random(1, 3, 5, 7))


@pytest.mark.parametrize("beta", [0.75, 0.5, 1.3])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn(size: int, beta: float, tmp_path: Path) -> None:
    path = model(tmp_path, "LRN", ["n", 7, 3, "w"], [], 13, size=size, alpha=0.3, beta=beta, bias=1.5)
    check(path, random(2, 7, 3, 5))


def test_lrn_over_an_even_number_of_channels_which_onnxruntime_refuses(tmp_path: Path) -> None:
    path = model(tmp_path, "LRN", [7, 7, 3, 5], [], 13, size=4, alpha=0.3, beta=0.75, bias=1.5)
    x = random(7, 7, 3, 5)  # the reference counts channels by images
    (expected,) = ReferenceEvaluator(str(path)).run(None, {"x": x})
    expected = np.asarray(expected, np.float32)
    with neuc.compile(path, "cpu", quantize="none", fallback="error").session(threads=1) as session:
        got = np.asarray(session.run(None, {"x": x})[0], np.float32)
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)
