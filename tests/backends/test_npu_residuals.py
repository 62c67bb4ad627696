"""Residual additions on the core that makes an operand: the CPU's bits, for all pairs of codes there are."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from xdsl.dialects.builtin import ModuleOp

import neuc
from integer_on_cpu import on_the_cpu
from neuc.backends.npu.check.checker import violations
from neuc.backends.npu.emit import block_program
from neuc.backends.npu.graph_ir import checked, graph_of
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.residual_fit import Addition, addition_of
from neuc.backends.npu.tiling import Product, product_cost
from neuc.compiler.diagnostics import parse_module
from neuc.compiler.driver import Driver
from neuc.compiler.importers import import_model
from neuc.compiler.npu.products import placed_products
from neuc.compiler.pipeline import graph_passes
from neuc.compiler.universe import new_context
from neuc.dialects.dense import MapOp
from neuc.dialects.interp.core import Env
from neuc.dialects.interp.npu import run_graph
from neuc.dialects.interp.npu_requantize import requantize
from neuc.dialects.interp.npu_residual import add_codes, sums_of_pairs
from neuc.errors import Error
from neuc.runtime.artifact import Artifact
from neuc.runtime.npu.gemm import gemm_graph, residual_shape, with_sizes
from neuc.runtime.npu.gemm_plan import SPREADS, GemmPlan, blocks, finished_weights, tiled_weights
from neuc.runtime.npu.requantize import Finish, Requantize, in_turn
from neuc.runtime.npu.residual import MOST_PAIRS, Residual, added, residual_words
from neuc.runtime.npu.simulator import simulate
from neuc.runtime.npu.windows import Image, Window
from qdq_layers import conv, model_of, pair, residual_network

XDNA1 = find_machine("npu-xdna1")
MODEL_BAND = (0.9, 1.8)
"""Cycles by the cost model over simulated ones, as in test_npu_tiling.py."""
EVERY = np.arange(-128, 128, dtype=np.int8)
SCALES = (0.0513219, 0.0307771, 0.0611337)
"""As calibration finds them; of sums of round ones, such as 0.05 and 0.03, many lie where rounding decides."""
SOURCE = """
func.func @main(%x: tensor<4xi8>, %y: tensor<4xi8>) -> tensor<4xi8> {{
  %s = dense.map(%x, %y) : (tensor<4xi8>, tensor<4xi8>) -> tensor<4xi8> {{
  ^bb0(%a: i8, %b: i8):
    %sa = arith.constant {scales[0]} : f32
    %za = arith.constant {zeros[0]}.0 : f32
    %sb = arith.constant {scales[1]} : f32
    %zb = arith.constant {zeros[1]}.0 : f32
    %sc = arith.constant {scales[2]} : f32
    %zc = arith.constant {zeros[2]}.0 : f32
    %low = arith.constant {low} : f32
    %high = arith.constant 127.0 : f32
    %af = arith.sitofp %a : i8 to f32
    %ad = arith.subf %af, %za : f32
    %ar = arith.mulf %ad, %sa : f32
    %bf = arith.sitofp %b : i8 to f32
    %bd = arith.subf %bf, %zb : f32
    %br = arith.mulf %bd, %sb : f32
    %sum = arith.{operation} %ar, %br : f32
    %over = arith.divf %sum, %sc : f32
    %near = math.roundeven %over : f32
    %code = arith.addf %near, %zc : f32
    %up = arith.maximumf %code, %low : f32
    %down = arith.minimumf %up, %high : f32
    %c = arith.fptosi %down : f32 to i8
    dense.yield %c : i8
  }}
  func.return %s : tensor<4xi8>
}}
"""


def _columns(count: int, reach: int) -> Requantize:
    """Parameters of columns whose sums stay within `reach`."""
    random = np.random.default_rng(count)
    shift = np.full(count, 34)
    limits = np.stack([shift, random.integers(-9, 9, count), np.full(count, -128), np.full(count, 127)], 1)
    multiplier = random.integers(2**40 // reach, 2**41 // reach, count).astype(np.int32)
    none = np.zeros((count, 0, 2), np.int32)
    return Requantize(multiplier, random.integers(-(2**36), 2**36, count), limits.astype(np.int8), none)


def _sum(pairs: int, *, table: bool) -> Residual:
    """How codes are added, with so many pairs corrected."""
    random = np.random.default_rng(pairs)
    corrections = np.concatenate([random.integers(-90, 90, (pairs, 2)), random.choice([-1, 1], (pairs, 1))], 1)
    return Residual(
        np.array([900_000_001, -700_000_003], np.int32),
        np.array([-(2**33) - 5]),
        np.array([30, -3, -100, 99], np.int8),
        corrections.astype(np.int32),
        random.integers(-128, 128, 256).astype(np.int8) if table else None,
    )


def _meant(sums: np.ndarray, columns: Requantize, how: Residual, other: np.ndarray) -> np.ndarray:
    codes = requantize(sums, columns.multiplier, columns.addend, columns.limits, columns.corrections, None)
    return add_codes(codes, other, how.multipliers, how.addend, how.limits, how.corrections, how.table)


@pytest.mark.parametrize(("pairs", "table"), [(0, False), (3, True), (MOST_PAIRS, False)])
def test_cores_add_all_pairs_of_codes_as_the_specification_says(pairs: int, table: bool):
    how = _sum(pairs, table=table)
    meant = sums_of_pairs(how.multipliers, how.addend, how.limits, how.corrections, how.table)
    assert len(np.unique(meant)) > 100
    a, b = np.meshgrid(EVERY, EVERY, indexing="ij")
    np.testing.assert_array_equal(added(a, b, residual_words(how)), meant)


def _program(plan: GemmPlan, sizes: tuple[int, int, int], how: Residual, groups: int = 1):
    """The program of a product with a residual, its buffers, and the codes that are due [groups, m, n]."""
    random = np.random.default_rng(11)
    m, k, n = sizes
    whole = blocks(plan, m, k, n)
    columns = _columns(n, 127 * k)
    low = 1 if plan.operands == "ternary" else 127
    a = random.integers(-127, 128, (m, groups, k), np.int8)
    weights, other = random.integers(-low, low + 1, (groups, n, k), np.int8), random.integers(-128, 128, (groups, m, n))
    padded = np.zeros((whole[0], groups, whole[1]), np.int8)
    padded[:m, :, :k] = a
    b = np.stack([finished_weights(plan, tiled_weights(plan, w), [columns], how) for w in weights])
    finish = in_turn([columns], how)
    design = with_sizes(gemm_graph(plan, XDNA1, 1), plan, XDNA1, whole, groups, finish)
    r = np.zeros(residual_shape(plan, whole[0], whole[2], groups, None), np.int8)
    r[:, :m, :n] = other
    sums = np.einsum("mgk,gnk->gmn", a.astype(np.int64), weights.astype(np.int64)).astype(np.int32)
    meant = np.stack([_meant(s, columns, how, o.astype(np.int8)) for s, o in zip(sums, other)])
    return design, {"a": padded.reshape(whole[0], -1), "b": b, "r": r}, meant


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("k", [8, 16, 48])
@pytest.mark.parametrize("operands", ["ternary", "int8"])
def test_every_spread_brings_each_core_its_own_codes(spread: str, k: int, operands: str):
    """Tokens are narrower than a tile's columns, as wide, or hold several cores' tiles and parts of others."""
    plan = GemmPlan(4, k, 16, 2, 2, operands, spread, finish=True)
    m, depth, n, groups = 13, 20, 37, 2
    design, arrays, meant = _program(plan, (m, depth, n), _sum(2, table=True), groups)
    run = simulate(design, XDNA1, arrays)
    assert run.deadlock is None
    np.testing.assert_array_equal(run.outputs["c"], run_graph(graph_of(checked(design)), arrays)["c"])
    np.testing.assert_array_equal(run.outputs["c"][:, :m, :n], meant)
    assert len(np.unique(meant)) > 50
    other = {**arrays, "r": np.roll(arrays["r"], 1, axis=2)}
    assert (simulate(design, XDNA1, other).outputs["c"][:, :m, :n] != meant).any()


@pytest.mark.parametrize("spread", SPREADS)
def test_programs_with_residuals_break_no_rule_and_the_model_knows_their_time(spread: str):
    plan = GemmPlan.on(XDNA1, (16, 96, 48), "int8", spread, finish=True)
    placed, asked = block_program("npu-xdna1", plan), Finish(1, 5, 1, 1, 3)
    full = with_sizes(placed, plan, XDNA1, blocks(plan, 200, 300, 500), 1, asked)
    assert violations(full, XDNA1) == []
    simulated = simulate(full, XDNA1, {}, values=False)
    predicted = product_cost(plan, XDNA1, Product(200, 300, 500, finish=asked))
    assert MODEL_BAND[0] < predicted.cycles / simulated.cycles < MODEL_BAND[1]
    assert predicted.ddr_bytes == simulated.counts.ddr_bytes
    plain = product_cost(plan, XDNA1, Product(200, 300, 500, finish=Finish(1, 5, 1)))
    assert plain.ddr_bytes < predicted.ddr_bytes
    assert plain.cycles <= predicted.cycles


@pytest.mark.parametrize("spread", SPREADS)
def test_windows_cut_by_transfers_meet_the_same_pixels(spread: str):
    random = np.random.default_rng(3)
    plan = GemmPlan(4, 16, 16, 2, 2, "int8", spread, finish=True)
    window, how, n = Window(5, (3, 3), (2, 1), (1, 1, 1, 1)), _sum(2, table=False), 21
    q, weights = random.integers(-128, 128, (2, 5, 9, 7), np.int8), random.integers(-9, 10, (n, 45), np.int8)
    image = Image.of(window, q.shape, plan)
    other = random.integers(-128, 128, (2, image.out[0] * image.out[1], n)).astype(np.int8)
    columns = _columns(n, 127 * 45)
    size = blocks(plan, image.rows, image.columns(plan.k), n)
    places = weights.reshape(n, 5, 3, 3).transpose(0, 2, 3, 1)
    rows = tiled_weights(plan, window.weights(places, plan.k))
    shape = residual_shape(plan, size[0], size[2], 1, image)
    arrays = {
        "a": np.concatenate([image.laid_out(q).reshape(-1), np.zeros(window.run(plan.k), np.int8)]),
        "b": finished_weights(plan, rows, [columns], how)[None],
        "r": image.filled(other, shape[2]).reshape(shape),
    }
    design = with_sizes(gemm_graph(plan, XDNA1, 1), plan, XDNA1, size, 1, in_turn([columns], how), image)
    got = image.pixels(simulate(design, XDNA1, arrays).outputs["c"][0, :, :n])
    padded = np.pad(q, ((0, 0), (0, 0), (1, 1), (1, 1)))
    cut = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::1]
    flat = cut.transpose(0, 2, 3, 1, 4, 5).reshape(2, -1, 45).astype(np.int64)
    sums = (flat @ weights.T.astype(np.int64)).astype(np.int32)
    np.testing.assert_array_equal(got, _meant(sums, columns, how, other))


def _found(zeros: tuple[int, int, int], scales: tuple[float, ...] = SCALES, operation: str = "addf", first: int = 0):
    """What is found of a sum of two dequantised tensors, quantised again."""
    context = new_context()
    text = SOURCE.format(zeros=zeros, scales=scales, operation=operation, low=float(max(-128, zeros[2] - 20)))
    module = parse_module(text, context, "sum.mlir")
    assert isinstance(module, ModuleOp)
    op = next(op for op in module.walk() if isinstance(op, MapOp))
    return addition_of(op, first, Env(module, context.weights))


def _on_cpu(zeros: tuple[int, int, int], scales: tuple[float, ...], sign: int) -> np.ndarray:
    """All pairs' codes in f32, as ONNX says."""
    a, b = (EVERY.astype(np.float32) - np.float32(zero) for zero in zeros[:2])
    total = a[:, None] * np.float32(scales[0]) + np.float32(sign) * (b * np.float32(scales[1]))
    codes = np.rint(total / np.float32(scales[2])) + np.float32(zeros[2])
    return np.clip(codes, max(-128, zeros[2] - 20), 127).astype(np.int8)


@pytest.mark.parametrize("operation", ["addf", "subf"])
@pytest.mark.parametrize("first", [0, 1])
def test_integers_give_the_cpus_code_for_every_pair_at_every_zero_point(operation: str, first: int):
    some = (-128, -77, 0, 3, 127)
    for zeros in [(a, b, c) for a in some for b in some for c in some]:
        found = _found(zeros, operation=operation, first=first)
        assert isinstance(found, Addition), zeros
        meant = _on_cpu(zeros, SCALES, 1 if operation == "addf" else -1)
        own, other = np.meshgrid(EVERY, EVERY, indexing="ij")
        got = added(own, other, residual_words(found.residual))
        np.testing.assert_array_equal(got, meant if first == 0 else meant.T)


def test_integers_give_the_cpus_code_for_every_pair_at_scales_by_chance():
    random, corrected = np.random.default_rng(0), 0
    own, other = np.meshgrid(EVERY, EVERY, indexing="ij")
    for _ in range(40):
        scales = tuple(float(np.float32(scale)) for scale in random.uniform(0.01, 0.08, 3))
        found = _found((3, -5, 7), scales)
        assert isinstance(found, Addition), scales
        got = added(own, other, residual_words(found.residual))
        np.testing.assert_array_equal(got, _on_cpu((3, -5, 7), scales, 1))
        corrected += len(found.residual.corrections)
    assert corrected, "float rounding shows somewhere"


def test_powers_of_two_need_no_corrections_and_round_scales_too_many():
    exact = _found((3, -5, 7), (0.03125, 0.0625, 0.125))
    assert isinstance(exact, Addition)
    assert not exact.residual.corrections.size
    words = residual_words(exact.residual)
    np.testing.assert_array_equal(
        added(*np.meshgrid(EVERY, EVERY, indexing="ij"), words), _on_cpu((3, -5, 7), (0.03125, 0.0625, 0.125), 1)
    )
    why = _found((3, -5, 7), (0.05, 0.03, 0.06))
    assert isinstance(why, str)
    assert "of 65536 pairs of codes" in why
    assert _found((0, 0, 0), operation="mulf") == "arith.mulf of two tensors comes before its codes"


def _images(model: onnx.ModelProto) -> np.ndarray:
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(12).standard_normal(shape).astype(np.float32)


def _integers_on_cpu(model: onnx.ModelProto, target: str, x: np.ndarray, folder) -> np.ndarray:
    path = folder / "model.onnx"
    onnx.save(model, path)
    context = new_context()
    driver = Driver(import_model(path, context), context)
    driver.run(graph_passes())
    return on_the_cpu(driver, target, {"x": x})[0]


@pytest.mark.parametrize(
    ("target", "batch", "size", "zeros"),
    [
        ("npu-xdna1{residuals=array}", 1, (9, 7), (3, -7, -128)),
        ("npu-xdna2{residuals=array}", 3, (11, 14), (-128, 127, 5)),
        ("npu-xdna2{residuals=array,columns=3}", 2, (8, 8), (0, 0, 127)),
    ],
)
def test_blocks_with_and_without_a_branch_are_the_cpus_bit_for_bit(
    target: str, batch: int, size: tuple[int, int], zeros: tuple[int, int, int], tmp_path
):
    model = residual_network(batch, size, zeros, SCALES)
    x, path = _images(model), tmp_path / "m.neuc"
    compiled = neuc.compile(model, target)
    compiled.save(path)
    got = np.asarray(neuc.load(path).run(None, {"x": x})[0])
    np.testing.assert_array_equal(got, _integers_on_cpu(model, target, x, tmp_path))
    peer = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.abs(got - np.asarray(peer.run(None, {"x": x})[0])).max() <= SCALES[2] * 1.001
    if zeros[2] < 100:
        assert len(np.unique(got)) > 10
    notes = " ".join(compiled.report.hints)
    assert "2 additions of two tensors run in codes on the cores that make one of them: identity behind a2," in notes
    assert "downsampled behind" in notes
    assert "stay" not in notes
    for product in placed_products(Artifact.open(path)):
        assert violations(product.design, product.machine) == []


def test_what_stays_with_the_cpu_is_named_with_the_reason():
    round_scales = neuc.compile(residual_network(1, (5, 5), (0, 0, 0), (0.05, 0.03, 0.06)), "npu-xdna1")
    notes = " ".join(round_scales.report.hints)
    assert "pairs of codes (24 fit): " in notes
    assert "identity" in notes
    model = residual_network(1, (5, 5), (3, -7, -9), SCALES)
    on_cpu = " ".join(neuc.compile(model, "npu-xdna1{residuals=cpu}").report.hints)
    assert "2 operations on two tensors stay on the CPU, because residuals=cpu keeps it there: identity, " in on_cpu
    with pytest.raises(Error, match="residuals=host makes no sense"):
        neuc.compile(model, "npu-xdna1{residuals=host}")


def _two_readers() -> onnx.ModelProto:
    """A gate of one value a channel, and an addition both of whose operands are read by others, too."""
    weights: dict[str, np.ndarray] = {}
    nodes = [
        *pair("x", weights, 0.021),
        *conv("one", "x.d", (8, 3, 1, 1), weights),
        *pair("one.y", weights, SCALES[0]),
        *conv("two", "x.d", (8, 3, 1, 1), weights),
        *pair("two.y", weights, SCALES[1]),
        helper.make_node("Add", ["one.y.d", "two.y.d"], ["s"], name="both"),
        *pair("s", weights, SCALES[2]),
        *conv("three", "one.y.d", (8, 8, 1, 1), weights),
        *pair("three.y", weights, SCALES[0]),
        *conv("four", "two.y.d", (8, 8, 1, 1), weights),
        *pair("four.y", weights, SCALES[1]),
        helper.make_node("GlobalAveragePool", ["three.y.d"], ["p"]),
        *pair("p", weights, 0.031),
        *conv("gate", "p.d", (8, 8, 1, 1), weights),
        *pair("gate.y", weights, 0.033),
        helper.make_node("Mul", ["three.y.d", "gate.y.d"], ["g"], name="gated"),
        *pair("g", weights, 0.0717),
        *conv("five", "s.d", (8, 8, 1, 1), weights),
        *pair("five.y", weights, SCALES[2]),
        helper.make_node("Sum", ["five.y.d", "g.d", "four.y.d"], ["all"], name="three_tensors"),
        *pair("all", weights, 0.0717),
    ]
    return model_of(nodes, weights, (1, 3, 5, 4), ("all.d", (1, 8, 5, 4)))


def test_gates_and_codes_that_others_read_stay():
    model = _two_readers()
    compiled = neuc.compile(model, "npu-xdna1{residuals=array}")
    notes = " ".join(compiled.report.hints)
    assert "because its codes are read by others, too: both" in notes
    assert "because its operands differ in shape: a gate is made of what all cores have finished: gated" in notes
    x = _images(model)
    expected = neuc.compile(model, "npu-xdna1{residuals=cpu}").session().run(None, {"x": x})[0]
    np.testing.assert_array_equal(compiled.session().run(None, {"x": x})[0], expected)


def test_codes_that_a_pool_left_as_images_are_moved_to_where_the_products_lie(tmp_path):
    """ResNet's first block: its identity is a maximum over windows, which the CPU takes."""
    weights: dict[str, np.ndarray] = {}
    nodes = [
        *pair("x", weights, 0.021),
        helper.make_node("MaxPool", ["x.d"], ["m"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        *pair("m", weights, 0.021),
        *conv("body", "m.d", (3, 3, 3, 3), weights, pads=[1, 1, 1, 1]),
        *pair("body.y", weights, SCALES[0], 4),
        helper.make_node("Add", ["m.d", "body.y.d"], ["s"], name="around"),
        *pair("s", weights, SCALES[2], -3),
    ]
    model = model_of(nodes, weights, (2, 3, 9, 7), ("s.d", (2, 3, 5, 4)))
    compiled = neuc.compile(model, "npu-xdna1{residuals=array}")
    notes = " ".join(compiled.report.hints)
    assert "1 addition of two tensors runs in codes on the cores that make one of them: around behind body" in notes
    x = _images(model)
    expected = _integers_on_cpu(model, "npu-xdna1", x, tmp_path)
    np.testing.assert_array_equal(compiled.session().run(None, {"x": x})[0], expected)
