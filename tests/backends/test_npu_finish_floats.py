"""bf16 products finished on their cores: bias, scales, activations and rounding in the same program, the same bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import neuc
from neuc.backends.npu.check.checker import violations
from neuc.backends.npu.curves import fit_curve
from neuc.backends.npu.emit import block_program
from neuc.backends.npu.graph_ir import checked, graph_of
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.target import round_xdna1
from neuc.backends.npu.tiling import Product, candidates, choose_plans, product_cost
from neuc.compiler.driver import Driver
from neuc.compiler.importers import import_model
from neuc.compiler.npu.products import placed_products
from neuc.compiler.options import CompileOptions
from neuc.compiler.pipeline import float_passes, graph_passes
from neuc.compiler.universe import new_context
from neuc.dialects.context import store_of
from neuc.dialects.interp import npu_finish as spec
from neuc.dialects.interp.core import interpret
from neuc.dialects.interp.npu import run_graph
from neuc.dialects.interp.npu_bf16 import bf16
from neuc.errors import Error
from neuc.runtime.artifact import Artifact
from neuc.runtime.executors.base import Setting
from neuc.runtime.native.pool import Pool
from neuc.runtime.npu.executor import NpuExecutor
from neuc.runtime.npu.float_finish import FloatFinish, FloatStage, finished_floats, float_block
from neuc.runtime.npu.functions import from_bf16, to_bf16
from neuc.runtime.npu.gemm import gemm_graph, with_sizes, with_tables
from neuc.runtime.npu.gemm_plan import SPREADS, GemmPlan, blocks, finished_float_weights, tiled_weights
from neuc.runtime.npu.program import Design, Transfer
from neuc.runtime.npu.simulator import simulate
from neuc.runtime.program import OtherSegment

XDNA1 = find_machine("npu-xdna1")
MODEL_BAND = (0.9, 1.8)
"""Cycles by the cost model over simulated ones, as in test_npu_tiling.py."""
BF16_ERROR = 0.02
"""Relative L2 of a few products and tables in a row, each off by up to 2^-8."""
SIZES = (13, 20, 37)


def _words(function) -> np.ndarray:
    curve = fit_curve(function)
    assert curve is not None
    return curve.words


TANH, SWISH = _words(np.tanh), _words(lambda x: x / (1 + np.exp(-x)))


def _stages(columns: int, *, resident: bool) -> list[FloatStage]:
    random = np.random.default_rng(columns)
    scale, shift, more = random.standard_normal((3, columns)).astype(np.float32)
    first = FloatStage(scale, shift, None, None, TANH, 0 if resident else -1)
    return [first, FloatStage(None, more, 0.1, (-0.5, np.inf), SWISH, len(TANH) if resident else -1)]


def _meant(y: np.ndarray, stages: list[FloatStage]) -> np.ndarray:
    for stage in stages:
        y = spec.stage(y, stage.scale, stage.shift, stage.slope, stage.limits, stage.table)
    return y


@pytest.mark.parametrize("resident", [False, True])
def test_parameters_say_what_the_specification_means(resident: bool):
    random = np.random.default_rng(1)
    stages = _stages(21, resident=resident)
    sums = (random.standard_normal((50, 21)) * 4).astype(np.float32)
    expected = _meant(sums, stages)
    assert len(np.unique(expected)) > 100
    tables = np.concatenate([TANH, SWISH]) if resident else None
    for begin in (0, 16):
        part = np.zeros((50, 16), np.float32)
        part[:, : 21 - begin] = sums[:, begin : begin + 16]
        block = float_block(stages, begin, 16)
        got = finished_floats(part, block.view("<i4"), tables)
        np.testing.assert_array_equal(got[:, : 21 - begin], expected[:, begin : begin + 16])
        np.testing.assert_array_equal(spec.finished(part, block.tobytes(), tables), got)
        assert (len(block) > 4 * len(TANH)) != resident


def _finished(plan: GemmPlan, stages: list[FloatStage], finish: FloatFinish | None):
    """A product's program, its buffers, and what is due of it."""
    random = np.random.default_rng(11)
    m, k, n = SIZES
    whole = blocks(plan, m, k, n)
    a, weights = random.standard_normal((m, k)).astype(np.float32), random.standard_normal((n, k)).astype(np.float32)
    padded = np.zeros(whole[:2], np.uint16)
    padded[:m, :k] = to_bf16(a)
    b = tiled_weights(plan, to_bf16(weights))
    sums = np.zeros((m, n), np.float32)
    for i in range(k):
        sums = sums + np.multiply.outer(bf16(a)[:, i], bf16(weights)[:, i])
    due = sums
    if finish is not None:
        b = finished_float_weights(plan, b, stages, finish)
        due = _meant(sums, stages)
        due = bf16(due) if finish.narrow else due
    design = with_sizes(gemm_graph(plan, XDNA1, 1), plan, XDNA1, whole, 1, finish)
    return with_tables(design, [*TANH, *SWISH] if plan.resident else []), {"a": padded, "b": b[None]}, due


def _floats(c: np.ndarray) -> np.ndarray:
    return from_bf16(c) if c.dtype == np.uint16 else c


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("resident", [False, True])
def test_every_spread_gives_the_bits_and_one_program_gives_sums_too(spread: str, resident: bool):
    words = len(TANH) + len(SWISH)
    plan = GemmPlan(4, 16, 16, 2, 2, "bf16", spread, finish=True, tables=words, resident=resident)
    stages = _stages(SIZES[2], resident=resident)
    both = FloatFinish(2, 3, 9, (len(TANH), len(SWISH)))
    cases: list[tuple[list[FloatStage], FloatFinish | None]] = [
        (stages, both),
        (stages, replace(both, narrow=True)),
        ([], FloatFinish(narrow=True)),
        ([], None),
    ]
    graphs: list[Design] = []
    for own, finish in cases:
        design, arrays, due = _finished(plan, own, finish)
        run = simulate(design, XDNA1, arrays)
        assert run.deadlock is None
        got = np.asarray(run.outputs["c"])
        assert (got.dtype == np.uint16) == (finish is not None and finish.narrow)
        np.testing.assert_array_equal(_floats(got)[0, : SIZES[0], : SIZES[2]], due)
        np.testing.assert_array_equal(got, run_graph(graph_of(checked(design)), arrays)["c"])
        graphs.append(design)
    assert len({(d.channels, d.links, d.ports) for d in graphs}) == 1, "only rates and the sequence differ"


def test_a_corrupted_stride_or_parameter_gives_wrong_numbers_and_a_missing_transfer_a_named_deadlock():
    plan = GemmPlan(4, 16, 16, 2, 2, "bf16", "grid", finish=True)
    stages = [FloatStage(shift=np.arange(37, dtype=np.float32))]
    design, arrays, due = _finished(plan, stages, FloatFinish(1, 1, 1))
    np.testing.assert_array_equal(simulate(design, XDNA1, arrays).outputs["c"][0, :13, :37], due)
    steps = list(design.sequence)
    at = next(i for i, step in enumerate(steps) if isinstance(step, Transfer) and step.buffer == "c")
    first = steps[at]
    assert isinstance(first, Transfer)
    steps[at] = replace(first, strides=(first.strides[0] // 2, *first.strides[1:]))
    wrong = simulate(replace(design, sequence=tuple(steps)), XDNA1, arrays)
    assert (np.asarray(wrong.outputs["c"])[0, :13, :37] != due).any()
    late = arrays["b"].copy()
    late[:, :, 2, 0, 0, 11] ^= 1 << 15  # a shift's sign
    assert (np.asarray(simulate(design, XDNA1, {**arrays, "b": late}).outputs["c"])[0, :13, :37] != due).any()
    lost = replace(design, sequence=tuple(s for s in design.sequence if getattr(s, "buffer", "") != "b"))
    stuck = simulate(lost, XDNA1, arrays).deadlock
    assert stuck is not None
    assert "b0" in str(stuck)


@pytest.mark.parametrize("resident", [False, True])
def test_programs_that_finish_break_no_rule_and_the_model_knows_their_time(resident: bool):
    plan = GemmPlan.on(XDNA1, (16, 48, 48), "bf16", "grid", finish=True, tables=1400, resident=resident)
    placed = block_program("npu-xdna1", plan)
    for asked in (FloatFinish(2, 3, 9, (1400,)), FloatFinish(1, 1, 1, narrow=True), FloatFinish(narrow=True), None):
        full = with_sizes(placed, plan, XDNA1, blocks(plan, 200, 300, 500), 1, asked)
        assert violations(full, XDNA1) == []
        simulated = simulate(full, XDNA1, {}, values=False)
        assert simulated.deadlock is None
        predicted = product_cost(plan, XDNA1, Product(200, 300, 500, 1, "bf16", asked))
        assert MODEL_BAND[0] < predicted.cycles / simulated.cycles < MODEL_BAND[1]
        assert predicted.ddr_bytes == simulated.counts.ddr_bytes


def test_tables_count_in_the_choice_of_tiles_and_the_program_holds_them_where_they_fit():
    def product(*tables: int, narrow: bool = True) -> Product:
        contents = tuple(map(str, tables))
        return Product(64, 256, 64, 1, "bf16", FloatFinish(1, 1, 1, tables, narrow, contents))

    one = choose_plans(XDNA1, (product(1500), product(), product(1500)))
    assert (one.switches, one.plans[0].resident, one.plans[0].tables) == (0, True, 1500)
    assert one.costs[1].ddr_bytes < choose_plans(XDNA1, (product(narrow=False),)).costs[0].ddr_bytes
    limit = XDNA1.classes["core"].memory_bytes
    for plan in candidates(XDNA1, "bf16", [product(1500)], True):
        assert plan.room >= 4 * 1500
        tiles = 2 * 2 * (plan.m * plan.k + plan.k * plan.n) + 6 * plan.m * plan.n
        assert tiles + plan.room < limit
    many = [product(4000 + i) for i in range(4)]  # 64 KB of tables
    several = choose_plans(XDNA1, tuple(many))
    assert (several.switches, several.plans[0].resident, several.plans[0].tables) == (0, False, 4003)


def _model(nodes: list[onnx.NodeProto], weights: dict[str, tuple[int, ...]], ins: dict[str, list], outs: list[str]):
    random = np.random.default_rng(7)
    tensors = [
        numpy_helper.from_array((random.standard_normal(size) * 0.4).astype(np.float32), name)
        for name, size in weights.items()
    ]
    tensors += [numpy_helper.from_array(np.array(v, np.float32), name) for name, v in (("quarter", 0.25), ("six", 6))]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ins.items()]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outs]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _node(kind: str, ins: str, out: str, name: str = "", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, ins.split(), [out], name=name or out, **attributes)  # pyright: ignore[reportArgumentType]


LAYERS = _model(
    [
        _node("MatMul", "x w1", "a"),
        _node("Add", "a b1", "ab"),
        _node("Gelu", "ab", "g"),
        _node("MatMul", "g w2", "c"),
        _node("Add", "c b2", "cb"),
        _node("LeakyRelu", "cb", "l", alpha=0.1),
        _node("MatMul", "l w3", "d"),
        _node("Tanh", "d", "t"),
        _node("Mul", "t b1", "y"),
    ],
    {"w1": (24, 40), "b1": (40,), "w2": (40, 9), "b2": (9,), "w3": (9, 40)},
    {"x": ["N", 5, 24]},
    ["y"],
)
"""Biases, two tables, a slope, and a vector of columns behind a table."""
HEADS = _model(
    [
        _node("MatMul", "q k", "s", name="scores"),
        _node("Mul", "s quarter", "scaled"),
        _node("Add", "scaled mask", "masked"),
        _node("Softmax", "masked", "p", axis=-1),
        _node("MatMul", "p v", "c", name="context"),
        _node("Transpose", "c", "ct", perm=[0, 2, 1, 3]),
        _node("MatMul", "ct w", "y", name="out"),
    ],
    {"w": (16, 12)},
    {"q": ["B", 3, "S", 16], "k": ["B", 3, 16, "S"], "v": ["B", 3, "S", 16], "mask": ["B", 1, 1, "S"]},
    ["y"],
)
"""A scale and a mask known at run time behind a product of activations; a result that another product rounds."""
CONVS = _model(
    [
        _node("Conv", "x w1 b1", "c", pads=[1, 1, 1, 1], group=70),
        _node("HardSwish", "c", "h"),
        _node("Conv", "h w2 b2", "d", strides=[2, 1]),
        _node("Clip", "d lowest six", "y"),
    ],
    {"w1": (70, 1, 3, 3), "b1": (70,), "w2": (5, 70, 2, 3), "b2": (5,), "lowest": ()},
    {"x": ["N", 70, 5, 6]},
    ["y"],
)
"""Groups, a table behind a transposition, limits."""
RESIDUAL = _model(
    [
        _node("MatMul", "x w1", "a"),
        _node("Add", "a b1", "ab"),
        _node("Sigmoid", "ab", "s"),
        _node("Add", "s r", "y"),
    ],
    {"w1": (24, 40), "b1": (40,)},
    {"x": ["N", 24], "r": ["N", 40]},
    ["y"],
)
"""Another tensor behind a table: that stays."""
CASES: dict[str, tuple[onnx.ModelProto, dict[str, tuple[int, ...]], int, int]] = {
    "layers": (LAYERS, {"x": (2, 5, 24)}, 3, 2),
    "heads": (HEADS, {"q": (2, 3, 7, 16), "k": (2, 3, 16, 7), "v": (2, 3, 7, 16), "mask": (2, 1, 1, 7)}, 1, 0),
    "convs": (CONVS, {"x": (2, 70, 5, 6)}, 2, 1),
    "residual": (RESIDUAL, {"x": (3, 24), "r": (3, 40)}, 1, 1),
}
"""A model, sizes of a run, products that cores finish, and how many of them by tables."""


@pytest.mark.parametrize("case", CASES)
def test_models_have_the_interpreters_bits(case: str, tmp_path: Path):
    model, shapes, finished, tables = CASES[case]
    random = np.random.default_rng(len(case))
    feeds = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    options = {"float": "bf16", "columns": "2", "elementwise": "always"}
    target = f"npu-xdna1{{{','.join(f'{key}={value}' for key, value in options.items())}}}"
    compiled = neuc.compile(model, target, quantize="none")
    compiled.save(tmp_path / "m.neuc")
    got = np.asarray(neuc.load(tmp_path / "m.neuc").run(None, feeds)[0], np.float32)
    onnx.save(model, tmp_path / "m.onnx")
    context = new_context()
    driver = Driver(import_model(tmp_path / "m.onnx", context), context)
    driver.run([*graph_passes(), *float_passes(CompileOptions()), *round_xdna1(options)])
    (expected,) = interpret(driver.module, list(feeds.values()), store_of(context))
    np.testing.assert_array_equal(got, expected)
    exact = np.asarray(neuc.compile(model, "cpu").session().run(None, feeds)[0], np.float32)
    assert 1e-5 < np.linalg.norm(got - exact) / np.linalg.norm(exact) < BF16_ERROR
    notes = " ".join(compiled.report.hints)
    many = f"{finished} products are" if finished > 1 else "1 product is"
    assert f"{many} finished in their own program on the cores of npu-xdna1" in notes
    assert f"{tables} of them by tables" in notes
    for product in placed_products(Artifact.open(tmp_path / "m.neuc")):
        assert violations(product.design, product.machine) == []


def test_auto_finishes_what_pays_and_says_what_does_not(tmp_path: Path):
    large = {"x": (64, 5, 24)}
    compiled = neuc.compile(LAYERS, "npu-xdna2{float=bf16}", quantize="none", shapes=large)
    compiled.save(tmp_path / "m.neuc")
    rows = placed_products(Artifact.open(tmp_path / "m.neuc"))
    assert [str(row.facts["finished"]) for row in rows] == [
        "on the cores: a vector of columns, a table, bf16",
        "on the cores: a vector of columns, bf16",
        "on the cores: a vector of columns, a table, float32",
    ]
    assert len({tuple(row.design.channels) for row in rows}) == 1, "one program"
    assert {kernel.function for row in rows for kernel in row.design.kernels} == {"finished_bf16_gemm"}
    assert [row.design.buffer("c").dtype for row in rows] == ["bf16", "bf16", "f32"]
    notes = " ".join(compiled.report.hints)
    assert "3 products are finished" in notes
    assert "one program for all" in notes
    x = np.random.default_rng(2).standard_normal(large["x"]).astype(np.float32)
    exact = np.asarray(neuc.compile(LAYERS, "cpu").session().run(None, {"x": x})[0], np.float32)
    got = np.asarray(compiled.session().run(None, {"x": x})[0], np.float32)
    assert 1e-4 < np.linalg.norm(got - exact) / np.linalg.norm(exact) < BF16_ERROR
    residual = neuc.compile(RESIDUAL, "npu-xdna1{float=bf16,columns=2}", quantize="none", shapes={"x": (3, 24)})
    notes = " ".join(residual.report.hints)
    assert "the sums of 1 product are finished on the CPU, because npu-xdna1-2col would take longer for it" in notes
    on_cpu = " ".join(neuc.compile(LAYERS, "npu-xdna2{float=bf16,finish=cpu}", quantize="none").report.hints)
    assert "in their own program" not in on_cpu
    never = " ".join(neuc.compile(LAYERS, "npu-xdna2{float=bf16,elementwise=never}", quantize="none").report.hints)
    assert "in their own program" not in never


def test_products_of_the_same_floats_are_finished_alike_or_not_at_all():
    gated = _model(
        [
            _node("MatMul", "x w1", "a", "gate"),
            _node("MatMul", "x w2", "b", "up"),
            _node("Tanh", "a", "t"),
            _node("Relu", "b", "u"),
        ],
        {"w1": (24, 40), "w2": (24, 40)},
        {"x": [64, 24]},
        ["t", "u"],
    )
    compiled = neuc.compile(gated, "npu-xdna2{float=bf16}", quantize="none")
    notes = " ".join(compiled.report.hints)
    assert "products that read the same floats run as one, and end in different ways: gate, up" in notes
    assert "2 products run on npu-xdna2 in 1 dispatches" in notes


def test_damaged_tables_and_parameters_are_refused(tmp_path: Path):
    compiled = neuc.compile(HEADS, "npu-xdna1{float=bf16,elementwise=always}", quantize="none")
    compiled.save(tmp_path / "m.neuc")
    artifact = Artifact.open(tmp_path / "m.neuc")
    segments = {key: s for key, s in artifact.program.segments.items() if isinstance(s, OtherSegment)}
    name = next(key for key, s in segments.items() if '"sources": [[' in json.dumps(s.data))
    segment = segments[name]
    floats = cast("dict[str, object]", segment.data["floats"])
    setting = Setting(Pool(1), {}, artifact.weights, {})
    for change, message in (
        ({"floats": {**floats, "stages": 9}}, "outside"),
        ({"floats": {**floats, "more": 1}}, "unknown field"),
        ({"codes": {"stages": 1, "corrections": 0, "tables": 0, "residual": 0, "pairs": 0}}, "make no codes"),
        ({"tables": [1000]}, "tables"),
        ({"finishing": False}, "makes no"),
        ({"operands": "int8"}, "of floats"),
        ({"floats": {**floats, "sources": [[-1, -1]]}}, "missing"),
    ):
        with pytest.raises(Error, match=message) as caught:
            NpuExecutor(name, replace(segment, data={**segment.data, **change}), setting)
        assert caught.value.code == "NEUC-E687"
