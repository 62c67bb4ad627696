"""Windows of images cut by the array's DMAs: the CPU's bits without a matrix of windows, and the rules they keep."""

from __future__ import annotations

from dataclasses import replace
from itertools import product as every
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import neuc
from neuc.backends.npu.check.checker import violations
from neuc.backends.npu.emit import block_program
from neuc.backends.npu.graph_ir import checked, graph_of
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.tiling import Product, choose_plans, product_cost
from neuc.compiler.npu.products import placed_products
from neuc.dialects.interp.npu import run_graph
from neuc.runtime.artifact import Artifact
from neuc.runtime.npu.gemm import gemm_graph, with_sizes
from neuc.runtime.npu.gemm_plan import SPREADS, GemmPlan, blocks, tiled_weights
from neuc.runtime.npu.program import Design, Transfer
from neuc.runtime.npu.simulator import simulate
from neuc.runtime.npu.windows import Image, Window

MODEL_BAND = (0.9, 1.8)
"""Cycles by the cost model over simulated ones, as in test_npu_tiling.py."""
XDNA1 = find_machine("npu-xdna1")
WINDOWS = (
    (Window(3, (3, 3), (1, 1), (1, 1, 1, 1)), (2, 3, 5, 6)),
    (Window(8, (2, 3), (2, 1), (0, 1, 1, 0)), (1, 8, 9, 7)),
    (Window(6, (1, 1), (1, 1), (0, 0, 0, 0)), (1, 6, 3, 17)),
    (Window(4, (3, 5), (2, 2), (2, 0, 0, 3)), (1, 4, 12, 9)),
)


def _rows(window: Window, q: np.ndarray) -> np.ndarray:
    """Windows [batch, pixels, channels · kernel] as im2col makes them."""
    top, left, bottom, end = window.pads
    padded = np.pad(q, ((0, 0), (0, 0), (top, bottom), (left, end)))
    view = np.lib.stride_tricks.sliding_window_view(padded, window.kernel, (2, 3))
    view = view[:, :, :: window.strides[0], :: window.strides[1]]
    return view.transpose(0, 2, 3, 1, 4, 5).reshape(len(q), view.shape[2] * view.shape[3], -1)


def _program(plan: GemmPlan, window: Window, shape: tuple[int, ...]) -> tuple[Design, dict[str, np.ndarray], Image]:
    random = np.random.default_rng(1)
    q = random.integers(-128, 128, shape).astype(np.int8)
    weights = random.integers(-127, 128, (21, window.channels * window.kernel[0] * window.kernel[1])).astype(np.int8)
    image = Image.of(window, shape, plan)
    whole = blocks(plan, image.rows, image.columns(plan.k), 21)
    design = with_sizes(gemm_graph(plan, XDNA1, 1), plan, XDNA1, whole, image=image)
    arrays = {"a": image.laid_out(q, plan.k), "b": tiled_weights(plan, window.weights(weights, plan.k))[None]}
    expected = _rows(window, q).astype(np.int64) @ weights.T.astype(np.int64)
    return design, {**arrays, "expected": expected}, image


@pytest.mark.parametrize(("spread", "case"), list(every(SPREADS, WINDOWS)))
def test_transfers_cut_what_im2col_would(spread: str, case: tuple[Window, tuple[int, ...]]):
    plan = GemmPlan(8, 16, 16, 2, 2, "int8", spread)
    design, arrays, image = _program(plan, *case)
    expected = arrays.pop("expected")
    run = simulate(design, XDNA1, arrays)
    assert run.deadlock is None
    np.testing.assert_array_equal(run.outputs["c"], run_graph(graph_of(checked(design)), arrays)["c"])
    np.testing.assert_array_equal(image.pixels(run.outputs["c"][0, :, :21]), expected)


def test_a_corrupted_stride_gives_wrong_pixels():
    design, arrays, image = _program(GemmPlan(8, 16, 16, 2, 2, "int8", "grid"), *WINDOWS[0])
    expected, steps = arrays.pop("expected"), list(design.sequence)
    for at, step in enumerate(steps):
        if isinstance(step, Transfer) and step.buffer == "a":
            steps[at] = replace(step, strides=(*step.strides[:-2], step.strides[-2] + 4, step.strides[-1]))
    wide = {**arrays, "a": np.concatenate([arrays["a"], np.zeros(4096, np.int8)])}
    buffers = tuple(replace(b, shape=wide["a"].shape) if b.name == "a" else b for b in design.buffers)
    wrong = simulate(replace(design, sequence=tuple(steps), buffers=buffers), XDNA1, wide).outputs["c"]
    assert (image.pixels(wrong[0, :, :21]) != expected).any()


def test_the_cost_model_knows_what_cutting_takes_and_plans_for_it():
    window, shape = Window(16, (3, 3), (1, 1), (1, 1, 1, 1)), (1, 16, 32, 32)
    product = Product(1024, 144, 32, window=window, shape=shape)
    choice = choose_plans(XDNA1, (product,))
    plan, cost = choice.plans[0], choice.costs[0]
    assert cost.cut
    image = Image.of(window, shape, plan)
    whole = blocks(plan, image.rows, image.columns(plan.k), 32)
    simulated = simulate(
        with_sizes(gemm_graph(plan, XDNA1, 1), plan, XDNA1, whole, image=image), XDNA1, {}, values=False
    )
    assert MODEL_BAND[0] < cost.cycles / simulated.cycles < MODEL_BAND[1]
    assert cost.ddr_bytes == simulated.counts.ddr_bytes
    wide = GemmPlan.on(XDNA1, (64, 144, 32), "int8")  # a step of all lines fits no line of the kernel
    assert not product_cost(wide, XDNA1, product).cut


@pytest.mark.parametrize("spread", SPREADS)
def test_programs_with_windows_break_no_rule(spread: str):
    plan = GemmPlan.on(XDNA1, (16, 32, 32), "int8", spread)
    for window, shape in WINDOWS:
        image = Image.of(window, shape, plan)
        whole = blocks(plan, image.rows, image.columns(plan.k), 40)
        sized = with_sizes(block_program("npu-xdna1", plan), plan, XDNA1, whole, image=image)
        assert violations(sized, XDNA1) == []


def test_convolutions_of_a_model_are_the_cpus_and_say_who_cuts_their_windows(tmp_path: Path):
    random = np.random.default_rng(5)
    shapes = {"w1": (32, 16, 3, 3), "w2": (32, 32, 3, 3), "w3": (16, 32, 3, 3)}
    weights = [numpy_helper.from_array(random.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="plain", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["b"], name="strided", strides=[2, 2], pads=[0, 1, 1, 0]),
        helper.make_node("Conv", ["b", "w3"], ["y"], name="dilated", dilations=[2, 2]),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["B", 16, 16, 16]), ("y", None)))
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    compiled = neuc.compile(model, "npu-xdna1{free=2}", planes=1)
    notes = " ".join(compiled.report.hints)
    assert "2 convolutions are cut out of images in host memory by the array's DMAs: plain, strided" in notes
    assert "the windows of 1 convolution are cut on the CPU, because it is not 2-D, or it is dilated" in notes
    reference = neuc.compile(model, "cpu", quantize="ternary", planes=1).session()
    path = tmp_path / "m.neuc"
    compiled.save(path)
    session = neuc.load(path)
    for batch in (1, 3):
        feeds = {"x": random.standard_normal((batch, 16, 16, 16)).astype(np.float32)}
        np.testing.assert_array_equal(session.run(None, feeds)[0], reference.run(None, feeds)[0])
    products = placed_products(Artifact.open(path))
    assert [p.facts["windows"] for p in products][:2] == ["by DMA", "by DMA"]
    for product in products:
        assert violations(product.design, product.machine) == []
