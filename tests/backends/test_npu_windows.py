"""Windows of images cut by the array's DMAs: the CPU's bits without a matrix of windows, and the rules they keep."""

from __future__ import annotations

from dataclasses import replace
from itertools import product as every
from pathlib import Path

import numpy as np
import onnx
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
from neuc.dialects.interp.npu_bf16 import bf16
from neuc.runtime.artifact import Artifact
from neuc.runtime.npu.functions import to_bf16
from neuc.runtime.npu.gemm import gemm_graph, with_sizes
from neuc.runtime.npu.gemm_plan import SPREADS, GemmPlan, blocks, tiled_weights
from neuc.runtime.npu.program import Design, Transfer
from neuc.runtime.npu.simulator import simulate
from neuc.runtime.npu.windows import Image, Padded, Window
from qdq_layers import conv, model_of, pair

MODEL_BAND = (0.9, 1.8)
"""Cycles by the cost model over simulated ones, as in test_npu_tiling.py."""
XDNA1 = find_machine("npu-xdna1")
OPERANDS = {"i8": "int8", "bf16": "bf16"}
WINDOWS = (
    (Window(3, (3, 3), (1, 1), (1, 1, 1, 1)), (2, 3, 5, 6)),
    (Window(8, (2, 3), (2, 1), (0, 1, 1, 0)), (1, 8, 9, 7)),
    (Window(6, (1, 1), (1, 1), (0, 0, 0, 0)), (1, 6, 3, 17)),
    (Window(4, (3, 5), (2, 2), (2, 0, 0, 3)), (1, 4, 12, 9)),
    (Window(5, (1, 4), (1, 2), (0, 2, 0, 1)), (3, 5, 1, 23)),
    (Window(6, (3, 2), (1, 2), (1, 2, 2, 1), (2, 3)), (2, 6, 7, 11)),
    (Window(10, (2, 3), (1, 1), (0, 1, 0, 1), (1, 2)), (1, 10, 5, 6)),
    (Window(21, (3, 2), (2, 1), (1, 0, 1, 1), (1, 1), 3), (2, 21, 5, 6)),
    (Window(40, (2, 3), (1, 2), (1, 1, 0, 1), (2, 1), 2), (1, 40, 6, 7)),
    (Window(3, (3, 3), (1, 1), (1, 1, 1, 1), dtype="bf16"), (2, 3, 5, 6)),
    (Window(7, (2, 5), (2, 1), (0, 1, 1, 0), (2, 1), dtype="bf16"), (1, 7, 9, 7)),
    (Window(12, (1, 2), (1, 1), (0, 3, 0, 0), (1, 3), dtype="bf16"), (2, 12, 1, 19)),
    (Window(10, (3, 2), (1, 2), (1, 1, 0, 1), (1, 1), 2, "bf16"), (2, 10, 5, 6)),
)
"""With several images, odd sizes, lines of one, dilated ones, several products; of codes and of bf16."""
OUTPUTS = 21


def _rows(window: Window, q: np.ndarray) -> np.ndarray:
    """Windows [parts, batch, pixels, kernel lines, kernel width, channels] as im2col makes them."""
    top, left, bottom, end = window.pads
    padded = np.pad(q, ((0, 0), (0, 0), (top, bottom), (left, end)))
    reach = [(size - 1) * step + 1 for size, step in zip(window.kernel, window.dilations)]
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, (2, 3))
    view = view[:, :, :: window.strides[0], :: window.strides[1], :: window.dilations[0], :: window.dilations[1]]
    batch, channels, down, across = view.shape[:4]
    by_part = view.reshape(batch, window.parts, channels // window.parts, down * across, *window.kernel)
    return by_part.transpose(1, 0, 3, 4, 5, 2)


def _sums(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums [batch, pixels, parts, outputs]: integers, or f32 with products added one after the other."""
    left, right = rows.reshape(*rows.shape[:3], -1), weights.reshape(*weights.shape[:2], -1)
    dtype = np.int64 if rows.dtype == np.int8 else np.float32
    total = np.zeros((*rows.shape[1:3], len(rows), right.shape[1]), dtype)
    for part, k in np.ndindex(len(rows), left.shape[-1]):
        total[:, :, part] += left[part, :, :, k, None].astype(dtype) * right[part, :, k].astype(dtype)
    return total


def _program(plan: GemmPlan, window: Window, shape: tuple[int, ...]) -> tuple[Design, dict[str, np.ndarray], Image]:
    random = np.random.default_rng(1)
    sizes = (window.parts, OUTPUTS, *window.kernel, window.channels // window.parts)
    if window.dtype == "bf16":
        q, weights = (bf16(random.standard_normal(size).astype(np.float32)) for size in (shape, sizes))
        bits, tiled = to_bf16(q), to_bf16(weights)
    else:
        q, weights = (random.integers(-127, 128, size).astype(np.int8) for size in (shape, sizes))
        bits, tiled = q, weights
    image = Image.of(window, shape, plan)
    whole = blocks(plan, image.rows, image.columns(plan.k), OUTPUTS)
    design = with_sizes(gemm_graph(plan, XDNA1, 1), plan, XDNA1, whole, window.parts, image=image)
    b = np.stack([tiled_weights(plan, window.weights(part, plan.k)) for part in tiled])
    behind = np.full(window.run(plan.k), 77, bits.dtype)  # read, but multiplied by zeros
    arrays = {"a": np.concatenate([image.laid_out(bits), behind]), "b": b}
    return design, {**arrays, "expected": _sums(_rows(window, q), weights)}, image


def _results(image: Image, c: np.ndarray) -> np.ndarray:
    return np.stack([image.pixels(part[:, :OUTPUTS]) for part in c], axis=2)


@pytest.mark.parametrize(("spread", "case"), list(every(SPREADS, WINDOWS)))
def test_transfers_cut_what_im2col_would(spread: str, case: tuple[Window, tuple[int, ...]]):
    plan = GemmPlan(8, 16, 16, 2, 2, OPERANDS[case[0].dtype], spread)
    design, arrays, image = _program(plan, *case)
    expected = arrays.pop("expected")
    run = simulate(design, XDNA1, arrays)
    assert run.deadlock is None
    if spread == "grid":
        np.testing.assert_array_equal(run.outputs["c"], run_graph(graph_of(checked(design)), arrays)["c"])
    np.testing.assert_array_equal(_results(image, run.outputs["c"]), expected)


def test_steps_that_are_lines_are_gathered_where_something_lies_between_their_pixels():
    for window, k, runs in (
        (WINDOWS[6][0], 48, 2),
        (WINDOWS[6][0], 16, 6),
        (WINDOWS[8][0], 72, 2),
        (WINDOWS[1][0], 24, 2),
    ):
        assert (window.gathered(k), window.runs(k)) == (k in (48, 72), runs)
        shape = (2, window.channels, 6, 7)
        design, arrays, image = _program(GemmPlan(8, k, 16, 2, 2, "int8", "down"), window, shape)
        expected = arrays.pop("expected")
        np.testing.assert_array_equal(_results(image, simulate(design, XDNA1, arrays).outputs["c"]), expected)


@pytest.mark.parametrize("case", [WINDOWS[0], WINDOWS[6], WINDOWS[8], WINDOWS[9], WINDOWS[11]])
def test_a_corrupted_stride_gives_wrong_pixels(case: tuple[Window, tuple[int, ...]]):
    design, arrays, image = _program(GemmPlan(8, 16, 16, 2, 2, OPERANDS[case[0].dtype], "grid"), *case)
    expected, steps = arrays.pop("expected"), list(design.sequence)
    for at, step in enumerate(steps):
        if isinstance(step, Transfer) and step.buffer == "a":
            steps[at] = replace(step, strides=(*step.strides[:-2], step.strides[-2] + 4, step.strides[-1]))
    wide = {**arrays, "a": np.concatenate([arrays["a"], np.zeros(4096, arrays["a"].dtype)])}
    buffers = tuple(replace(b, shape=wide["a"].shape) if b.name == "a" else b for b in design.buffers)
    wrong = simulate(replace(design, sequence=tuple(steps), buffers=buffers), XDNA1, wide).outputs["c"]
    assert (_results(image, wrong) != expected).any()


INTO = {
    "grid": (12, 16),
    "turned": (11, 20),
    "down": (11, 20),
    "across": (12, 18),
}
"""Sizes of images that are whole tokens, the last rectangles overlapping others where tokens are single ones."""


def _padded(spread: str, size: tuple[int, int]) -> tuple[Design, dict[str, np.ndarray], np.ndarray, Padded, GemmPlan]:
    """A product that writes two images with pads, and what these should hold."""
    plan, window = GemmPlan(8, 16, 16, 2, 2, "int8", spread), Window(5, (3, 3), (1, 1), (1, 1, 1, 1))
    random, image = np.random.default_rng(4), Image.of(window, (2, 5, *size), plan)
    q = random.integers(-127, 128, (2, 5, *size)).astype(np.int8)
    weights = random.integers(-127, 128, (1, plan.block_n, 3, 3, 5)).astype(np.int8)
    into = Padded(size[0] + 3, size[1] + 5, plan.block_n, 2, 1)
    sizes = blocks(plan, image.rows, image.columns(plan.k), plan.block_n)
    design = with_sizes(gemm_graph(plan, XDNA1, 1), plan, XDNA1, sizes, image=image, into=into)
    a = np.concatenate([image.laid_out(q), np.zeros(window.run(plan.k), np.int8)])
    arrays = {"a": a, "b": tiled_weights(plan, window.weights(weights[0], plan.k))[None]}
    expected = np.zeros((2, into.lines, into.pixels, into.pixel), np.int64)
    expected[:, 2 : 2 + size[0], 1 : 1 + size[1]] = _sums(_rows(window, q), weights).reshape(2, *size, -1)
    assert into.takes(image, plan)
    return design, arrays, expected, into, plan


@pytest.mark.parametrize("spread", SPREADS)
def test_results_are_written_into_padded_images(spread: str):
    design, arrays, expected, _, plan = _padded(spread, INTO[spread])
    written = simulate(design, XDNA1, arrays).outputs["c"].reshape(expected.shape)
    np.testing.assert_array_equal(written, expected)
    on_array = GemmPlan.on(XDNA1, (plan.m, plan.k, plan.n), "int8", spread)
    window, shape = Window(5, (3, 3), (1, 1), (1, 1, 1, 1)), (2, 5, 16, 32)
    image, into = Image.of(window, shape, on_array), Padded(18, 34, on_array.block_n, 1, 1)
    assert into.takes(image, on_array)
    sizes = blocks(on_array, image.rows, image.columns(16), on_array.block_n)
    sized = with_sizes(block_program("npu-xdna1", on_array), on_array, XDNA1, sizes, image=image, into=into)
    assert violations(sized, XDNA1) == []


def test_a_corrupted_stride_writes_wrong_images():
    design, arrays, expected, _, _ = _padded("down", INTO["down"])
    steps = [
        replace(step, strides=(step.strides[0] - 4, *step.strides[1:]))
        if isinstance(step, Transfer) and step.buffer == "c"
        else step
        for step in design.sequence
    ]
    wrong = simulate(replace(design, sequence=tuple(steps)), XDNA1, arrays).outputs["c"]
    assert (wrong.reshape(expected.shape) != expected).any()


def test_rectangles_that_overhang_or_lie_unevenly_are_not_written_into_images():
    window = Window(5, (3, 3), (1, 1), (1, 1, 1, 1))
    for spread, size in (("down", (2, 3)), ("grid", (10, 12))):
        plan = GemmPlan(8, 16, 16, 2, 2, "int8", spread)
        image = Image.of(window, (1, 5, *size), plan)
        assert not Padded(size[0] + 2, size[1] + 2, 32, 1, 1).takes(image, plan)


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
    for (window, shape), k in every(WINDOWS, (16, 48)):
        plan = GemmPlan.on(XDNA1, (16, k, 32), OPERANDS[window.dtype], spread)
        image = Image.of(window, shape, plan)
        whole = blocks(plan, image.rows, image.columns(plan.k), 40)
        sized = with_sizes(block_program("npu-xdna1", plan), plan, XDNA1, whole, window.parts, image=image)
        assert violations(sized, XDNA1) == []


def test_convolutions_of_a_model_are_the_cpus_and_say_who_cuts_their_windows(tmp_path: Path):
    random = np.random.default_rng(5)
    shapes = {"w1": (32, 16, 3, 3), "w2": (32, 32, 3, 3), "w3": (16, 32, 3, 3), "w4": (128, 16, 3, 3)}
    weights = [numpy_helper.from_array(random.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="plain", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["b"], name="dilated", dilations=[3, 1], pads=[3, 1, 3, 1]),
        helper.make_node("Conv", ["b", "w4"], ["y"], name="grouped", pads=[1, 1, 1, 1], group=2),
        helper.make_node("Conv", ["b", "w3"], ["z"], name="strided", strides=[2, 2], pads=[0, 1, 1, 0]),
    ]
    sizes = (("x", ["B", 16, 16, 16]), ("y", None), ("z", None))
    x, *results = (helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes)
    graph = helper.make_graph(nodes, "g", [x], results, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    compiled = neuc.compile(model, "npu-xdna1{free=2}", planes=1)
    notes = " ".join(compiled.report.hints)
    assert "windows of 4 convolutions are cut out of images in host memory by the array's DMAs: plain, dilated" in notes
    reference = neuc.compile(model, "cpu", quantize="ternary", planes=1).session()
    path = tmp_path / "m.neuc"
    compiled.save(path)
    session = neuc.load(path)
    for batch in (1, 3):
        feeds = {"x": random.standard_normal((batch, 16, 16, 16)).astype(np.float32)}
        for ours, cpus in zip(session.run(None, feeds), reference.run(None, feeds)):
            np.testing.assert_array_equal(ours, cpus)
    products = placed_products(Artifact.open(path))
    assert [(p.facts["windows"], p.facts["groups"]) for p in products] == [("by DMA", n) for n in (1, 1, 2, 1)]
    for product in products:
        assert violations(product.design, product.machine) == []


@pytest.fixture(scope="module")
def chain() -> onnx.ModelProto:
    """Three convolutions in int8 QDQ form, codes between them; the first one's are read by a pooling, too."""
    weights: dict[str, np.ndarray] = {}

    def layer(name: str, x: str, shape: tuple[int, ...], stride: int) -> list[onnx.NodeProto]:
        relu = helper.make_node("Relu", [f"{name}.y"], [f"{name}.r"])
        made = conv(name, x, shape, weights, pads=[1, 1, 1, 1], strides=[stride, stride])
        return [*made, relu, *pair(f"{name}.r", weights, 0.05)]

    nodes = [
        *pair("x", weights, 0.02),
        *layer("one", "x.d", (32, 8, 3, 3), 1),
        *layer("two", "one.r.d", (64, 32, 3, 3), 1),
        *layer("three", "two.r.d", (32, 64, 3, 3), 2),
        helper.make_node("GlobalAveragePool", ["one.r.d"], ["z"]),
    ]
    model = model_of(nodes, weights, (2, 8, 20, 16), ("three.r.d", (2, 32, 10, 8)))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 32, 1, 1]))
    return model


def test_convolutions_read_pixels_as_products_wrote_them(chain: onnx.ModelProto, tmp_path: Path):
    feeds = {"x": np.random.default_rng(3).standard_normal((2, 8, 20, 16)).astype(np.float32)}
    reference = neuc.compile(chain, "npu-xdna2{finish=cpu}").session().run(None, feeds)
    compiled = neuc.compile(chain, "npu-xdna2")
    compiled.save(tmp_path / "m.neuc")
    notes = " ".join(compiled.report.hints)
    assert "1 convolution writes int8 codes into the padded image that the next reads: two" in notes
    session = neuc.load(tmp_path / "m.neuc", profile=True)
    for ours, cpus in zip(session.run(None, feeds), reference):
        np.testing.assert_array_equal(ours, cpus)
        assert len(np.unique(ours)) > 30
    assert session.profile is not None
    on_host = [event.name for event in session.profile.events if event.category != "npu"]
    assert [name for name in on_host if "two" in name] == []
    products = placed_products(Artifact.open(tmp_path / "m.neuc"))
    assert [p.facts["windows"] for p in products[1:]] == ["by DMA"] * 2
    assert products[1].design.buffer("c").nbytes == 2 * 21 * 17 * 64
    assert [violations(p.design, p.machine) for p in products] == [[], [], []]


def test_pixels_are_read_as_they_were_written_by_each_of_several_readers(chain: onnx.ModelProto):
    feeds = {"x": np.random.default_rng(3).standard_normal((2, 8, 20, 16)).astype(np.float32)}
    session = neuc.compile(chain, "npu-xdna1").session(profile=True)
    reference = neuc.compile(chain, "npu-xdna1{finish=cpu}").session().run(None, feeds)
    for ours, cpus in zip(session.run(None, feeds), reference):
        np.testing.assert_array_equal(ours, cpus)
    assert session.profile is not None
    on_host = [event.name for event in session.profile.events if event.category != "npu"]
    assert [name for name in on_host if "two" in name] == []
    assert [name for name in on_host if "one" in name] == ["QuantizeLinear#0 + one", "one + Relu#4"]  # the pooling's
