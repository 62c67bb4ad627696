"""Products that leave the array as int8 codes: the CPU's bits, from integers, for every sum there can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import neuc
from neuc.backends.npu.check.checker import violations
from neuc.backends.npu.emit import block_program
from neuc.backends.npu.graph_ir import checked, graph_of
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.requantize_fit import Line, fit
from neuc.backends.npu.tiling import Product, choose_plans, product_cost
from neuc.dialects.interp.npu import run_graph
from neuc.dialects.interp.npu_requantize import requantize
from neuc.errors import Error
from neuc.runtime.npu.gemm import gemm_graph, with_sizes
from neuc.runtime.npu.gemm_plan import SPREADS, GemmPlan, blocks, finished_weights, tiled_weights
from neuc.runtime.npu.program import Transfer
from neuc.runtime.npu.requantize import MOST_SHIFT, Finish, Requantize, in_turn, parameter_block, requantized
from neuc.runtime.npu.simulator import simulate
from qdq_layers import conv, model_of, pair

XDNA1 = find_machine("npu-xdna1")
MODEL_BAND = (0.9, 1.8)
"""Cycles by the cost model over simulated ones, as in test_npu_tiling.py."""


def _parameters(columns: int, corrections: int, *, table: bool, reach: int = 1 << 20) -> Requantize:
    random = np.random.default_rng(columns + corrections + reach)
    first, span = random.integers(-reach, reach, (columns, corrections)), random.integers(-9, 9, (columns, corrections))
    limits = [random.integers(low, high, columns) for low, high in ((1, MOST_SHIFT), (-9, 9), (-128, -5), (5, 127))]
    return Requantize(
        random.integers(1 << 20, (1 << 31) - 1, columns).astype(np.int32),
        random.integers(-(2**45), 2**45, columns),
        np.stack(limits, 1).astype(np.int8),
        np.stack([first, span], 2).astype(np.int32),
        random.integers(-128, 128, 256).astype(np.int8) if table else None,
    )


def _meant(acc: np.ndarray, stages: list[Requantize]) -> np.ndarray:
    for stage in stages:
        acc = requantize(acc, stage.multiplier, stage.addend, stage.limits, stage.corrections, stage.table)
    return acc


@pytest.mark.parametrize(("corrections", "table", "twice"), [(0, False, False), (3, True, False), (2, True, True)])
def test_cores_requantise_as_the_specification_says(corrections: int, table: bool, twice: bool):
    random = np.random.default_rng(11)
    stages = [_parameters(21, corrections, table=table)]
    if twice:
        stages.append(_parameters(21, 1, table=False, reach=100))
    acc = np.concatenate([random.integers(-(2**20), 2**20, (60, 21)), random.integers(-40, 40, (60, 21))]).astype(
        np.int32
    )
    expected = _meant(acc, stages)
    assert len(np.unique(expected)) > 10
    for begin in (0, 16):
        part = np.zeros((120, 16), np.int32)
        part[:, : 21 - begin] = acc[:, begin : begin + 16]
        got = requantized(part, parameter_block(stages, begin, 16))
        np.testing.assert_array_equal(got[:, : 21 - begin], expected[:, begin : begin + 16])


@pytest.mark.parametrize("power_of_two", [False, True])
def test_the_codes_of_a_fit_are_those_of_float_arithmetic_for_every_sum(power_of_two: bool):
    random = np.random.default_rng(11)
    columns, reach = (12, 40_000) if power_of_two else (2, 600_000)
    scale = 2.0 ** -random.integers(6, 9, columns) if power_of_two else random.uniform(1e-4, 2e-4, columns)
    scale = scale.astype(np.float32)
    bias = (random.integers(-9, 9, columns) / 8 if power_of_two else random.uniform(-3, 3, columns)).astype(np.float32)
    step, zero = np.float32(0.5 if power_of_two else 0.37), 3

    def codes(sums: np.ndarray) -> np.ndarray:
        y = np.maximum(sums.astype(np.float32) * scale[:, None] + bias[:, None], 0)
        return np.clip(np.rint(y / step) + np.float32(zero), -128, 127).astype(np.int64)

    line = Line(scale.astype(np.float64) / float(step), bias.astype(np.float64) / float(step), zero)
    found = fit(codes, line, np.full(columns, reach))
    assert isinstance(found, Requantize)
    every = np.broadcast_to(np.arange(-reach, reach + 1), (columns, 2 * reach + 1))
    expected = codes(every)
    np.testing.assert_array_equal(_meant(every.T.astype(np.int32), [found]).T, expected)
    assert (expected == zero).any()
    assert (expected == 127).any()
    if power_of_two:  # nothing is rounded in float, and ties go to even on both sides
        assert not found.corrections.size
    else:
        plain = replace(found, corrections=found.corrections[:, :0])
        assert (_meant(every.T.astype(np.int32), [plain]).T != expected).any(), "and they are needed"


def test_what_does_not_fit_is_said():
    flat = Line(np.zeros(1), np.zeros(1), 0)
    assert fit(lambda s: s * 0, flat, np.array([9])) == "codes do not rise with its sums"
    steep = Line(np.ones(1), np.zeros(1), 0)
    assert fit(lambda s: s, steep, np.array([1 << 31])) == "its sums may exceed 32 bits"
    assert fit(lambda s: s, steep, np.array([500])) == "its codes are no int8"


def _finished(plan: GemmPlan, sizes: tuple[int, int, int], stages: list[Requantize]):
    """The program of a finished product, its buffers, and the codes that are due."""
    random = np.random.default_rng(11)
    m, k, n = sizes
    whole = blocks(plan, m, k, n)
    low = 1 if plan.operands == "ternary" else 127
    a, weights = random.integers(-127, 128, (m, k), np.int8), random.integers(-low, low + 1, (n, k), np.int8)
    padded = np.zeros((whole[0], whole[1]), np.int8)
    padded[:m, :k] = a
    b = finished_weights(plan, tiled_weights(plan, weights), stages)
    design = with_sizes(gemm_graph(plan, XDNA1, 1), plan, XDNA1, whole, 1, in_turn(stages))
    sums = (a.astype(np.int64) @ weights.T.astype(np.int64)).astype(np.int32)
    return design, {"a": padded, "b": b[None]}, _meant(sums, stages)


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("operands", ["ternary", "int8"])
def test_every_spread_gives_the_codes_and_one_program_gives_sums_too(spread: str, operands: str):
    m, k, n = 13, 20, 37
    plan = GemmPlan(4, 16, 16, 2, 2, operands, spread, finish=True)
    stages = [_parameters(n, 2, table=True, reach=2000), _parameters(n, 1, table=False, reach=100)]
    design, arrays, expected = _finished(plan, (m, k, n), stages)
    run = simulate(design, XDNA1, arrays)
    assert run.deadlock is None
    np.testing.assert_array_equal(run.outputs["c"], run_graph(graph_of(checked(design)), arrays)["c"])
    np.testing.assert_array_equal(run.outputs["c"][0, :m, :n], expected)
    sums = with_sizes(design, plan, XDNA1, blocks(plan, m, k, n))
    plain = {**arrays, "b": arrays["b"][:, :, : -plan.parameter_tokens(in_turn(stages))]}
    run = simulate(sums, XDNA1, plain)
    np.testing.assert_array_equal(run.outputs["c"], run_graph(graph_of(checked(sums)), plain)["c"])
    assert run.outputs["c"].dtype == np.int32
    np.testing.assert_array_equal(_meant(run.outputs["c"][0, :m, :n], stages), expected)


def test_a_corrupted_stride_or_parameter_gives_wrong_codes():
    plan = GemmPlan(4, 16, 16, 2, 2, "int8", "grid", finish=True)
    design, arrays, expected = _finished(plan, (13, 20, 37), [_parameters(37, 0, table=False)])
    steps = list(design.sequence)
    at = next(i for i, step in enumerate(steps) if isinstance(step, Transfer) and step.buffer == "a")
    first = steps[at]
    assert isinstance(first, Transfer)
    steps[at] = replace(first, strides=(first.strides[0], first.strides[1] - 1, first.strides[2]))
    wrong = simulate(replace(design, sequence=tuple(steps)), XDNA1, arrays).outputs["c"][0, :13, :37]
    assert (wrong != expected).any()
    late = arrays["b"].copy()
    late[:, :, 3, :, 9:12] ^= 1  # high words of addends
    assert (simulate(design, XDNA1, {**arrays, "b": late}).outputs["c"][0, :13, :37] != expected).any()


def test_programs_that_finish_break_no_rule_and_the_model_knows_their_time():
    plan = GemmPlan.on(XDNA1, (16, 96, 48), "int8", "grid", finish=True)
    placed, finish = block_program("npu-xdna1", plan), Finish(2, 5, 1)
    for asked in (finish, None):
        full = with_sizes(placed, plan, XDNA1, blocks(plan, 200, 300, 500), 1, asked)
        assert violations(full, XDNA1) == []
        simulated = simulate(full, XDNA1, {}, values=False)
        predicted = product_cost(plan, XDNA1, Product(200, 300, 500, finish=asked))
        assert MODEL_BAND[0] < predicted.cycles / simulated.cycles < MODEL_BAND[1]
        assert predicted.ddr_bytes == simulated.counts.ddr_bytes


def test_one_program_serves_finished_products_and_others():
    products = (Product(64, 256, 64, finish=Finish(1, 2, 0)), Product(64, 256, 64))
    choice = choose_plans(XDNA1, products)
    assert choice.switches == 0
    assert all(plan.finish for plan in choice.plans)
    assert choice.costs[0].ddr_bytes < choice.costs[1].ddr_bytes


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Layers with ReLU, a hard swish and a bias in int8 of their own, and one whose activation is a sigmoid."""
    weights: dict[str, np.ndarray] = {
        "shift": np.random.default_rng(13).standard_normal((1, 8, 1, 1)).astype(np.float32)
    }
    nodes = [
        *pair("x", weights, 0.02),
        *conv("relu", "x.d", (8, 3, 3, 3), weights, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["relu.y"], ["r"]),
        *pair("r", weights, 0.03, -7),
        *conv("swish", "r.d", (8, 8, 1, 1), weights),
        *pair("swish.y", weights, 0.05, 3),
        helper.make_node("HardSwish", ["swish.y.d"], ["h"]),
        *pair("h", weights, 0.041, -5),
        *conv("late", "h.d", (8, 8, 3, 3), weights, strides=[2, 2]),
        *pair("late.y", weights, 0.043, 1),
        helper.make_node("Add", ["late.y.d", "shift"], ["a"]),
        *pair("a", weights, 0.047, 2),
        *conv("smooth", "a.d", (8, 8, 1, 1), weights),
        helper.make_node("Sigmoid", ["smooth.y"], ["g"]),
        *pair("g", weights, 0.004),
    ]
    return model_of(nodes, weights, (1, 3, 9, 9), ("g.d", (1, 8, 4, 4)))


@pytest.mark.parametrize("target", ["npu-xdna1", "npu-xdna2{columns=3}"])
def test_finished_layers_are_the_cpus_bit_for_bit(model: onnx.ModelProto, target: str):
    plain = target.removesuffix("}") + (",finish=cpu}" if "{" in target else "{finish=cpu}")
    x = np.random.default_rng(12).standard_normal((1, 3, 9, 9)).astype(np.float32)
    compiled, on_cpu = neuc.compile(model, target), neuc.compile(model, plain)
    expected = np.asarray(on_cpu.session().run(None, {"x": x})[0])
    got = np.asarray(compiled.session().run(None, {"x": x})[0])
    np.testing.assert_array_equal(got, expected)
    assert len(np.unique(expected)) > 10
    notes = " ".join(compiled.report.hints)
    assert "3 products leave npu-xdna" in notes
    assert "the sums of 1 product are finished on the CPU, because its activation is sigmoid: smooth" in notes
    assert "leave npu-xdna" not in " ".join(on_cpu.report.hints)


def test_the_report_says_where_each_epilogue_runs_and_what_it_saves(model: onnx.ModelProto, tmp_path):
    from neuc.compiler.npu.products import placed_products
    from neuc.runtime.artifact import Artifact

    path = tmp_path / "m.neuc"
    neuc.compile(model, "npu-xdna1").save(path)
    products = placed_products(Artifact.open(path))
    assert [str(p.facts["finished"]).split(":")[0] for p in products] == ["on the cores"] * 3 + ["on the CPU"]
    assert "then through a table" in str(products[1].facts["finished"])
    assert "requantised twice" in str(products[2].facts["finished"])
    assert [p.design.buffer("c").dtype for p in products] == ["i8"] * 3 + ["i32"]
    assert products[3].facts["saved_bytes"] == 0
    for product in products:
        assert violations(product.design, product.machine) == []


def test_scales_found_at_run_time_stay_with_the_cpu():
    random = np.random.default_rng(11)
    weights = [numpy_helper.from_array(random.standard_normal((32, 16)).astype(np.float32), "w")]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", s]) for n, s in (("x", 32), ("y", 16)))
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], "g", [x], [y], weights)
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    notes = " ".join(neuc.compile(plain, "npu-xdna1", quantize="int8").report.hints)
    assert "because the scale of its activations is found at run time: fc" in notes
    with pytest.raises(Error, match="finish=host makes no sense"):
        neuc.compile(plain, "npu-xdna1{finish=host}")
