"""Chains, softmax and norms on the array in bf16: the specification's bits, tables' errors, prices, exports, faults."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import neuc
from neuc.backends.npu.curves import MOST_SEGMENTS, RELATIVE, fit_curve
from neuc.backends.npu.emit_rows import row_program
from neuc.backends.npu.export.forms import export
from neuc.backends.npu.export.mlir_aie import read_mlir_aie
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.row_costs import Work, planned, row_cost
from neuc.compiler.npu.products import placed_products
from neuc.dialects.interp import npu_rows as spec
from neuc.dialects.interp.npu_bf16 import bf16
from neuc.dialects.interp.scalar import erf
from neuc.dialects.npu_rows import ChainStep
from neuc.errors import Error
from neuc.runtime.artifact import Artifact
from neuc.runtime.checked_json import Node
from neuc.runtime.npu.functions import FUNCTIONS, from_bf16, to_bf16
from neuc.runtime.npu.program import Transfer
from neuc.runtime.npu.row_executor import plan_from
from neuc.runtime.npu.row_functions import checked_curve
from neuc.runtime.npu.rows import RowPlan, laid_out, with_tokens
from neuc.runtime.npu.simulator import simulate
from neuc.runtime.program import OtherSegment

TARGET = "npu-xdna1{float=bf16,elementwise=always,finish=cpu,columns=1}"
XDNA1 = find_machine("npu-xdna1")
ONE_COLUMN = "npu-xdna1-1col"
CURVE_ERROR = 2**-8 + RELATIVE + 2**-10
"""Relative error of a table's results above 2^-10: rounding to bf16, what lines may miss, and 2^-20 beside."""
BF16_ERROR = 0.02
"""Relative L2 of a product, a chain, a norm and a softmax, each of which rounds a few times by up to 2^-8."""
MODEL_ERROR = 0.1
"""How far the cost model's cycles may be from the simulator's."""


def _gelu(x: np.ndarray) -> np.ndarray:
    return (0.5 * x * (1 + erf(x / np.sqrt(np.float32(2))))).astype(np.float32)


CURVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": erf,
    "gelu": _gelu,
    "sqrt": np.sqrt,
    "hardswish": lambda x: x * np.clip(x / 6 + np.float32(0.5), 0, 1),
}


@pytest.mark.parametrize("name", CURVES)
def test_a_table_is_near_its_function_everywhere(name: str):
    made = fit_curve(CURVES[name])
    assert made is not None
    assert made.segments <= MOST_SEGMENTS
    assert made.relative < CURVE_ERROR
    x = bf16(np.linspace(0.001, 80, 5000).astype(np.float32))
    with np.errstate(over="ignore"):
        wanted = CURVES[name](x)
    np.testing.assert_allclose(spec.curve(x, made.words), wanted, rtol=CURVE_ERROR, atol=2**-19)


def test_functions_that_need_large_tables_are_refused():
    assert fit_curve(np.sin) is None
    assert fit_curve(np.reciprocal) is None


EXP = fit_curve(np.exp)
assert EXP is not None
KERNELS: dict[str, tuple[RowPlan, dict[str, object]]] = {
    "bf16_chain": (RowPlan("chain", 3, 2, 64, 64), {"steps": "mul 0 1; constant 0.5; sub 3 4; curve 5 0; max 6 2"}),
    "bf16_softmax": (RowPlan("softmax", 1, 5, 48, 37), {}),
    "bf16_layer_norm": (RowPlan("layer_norm", 1, 5, 48, 37), {"eps": 1e-5, "rms": 0}),
    "rms": (RowPlan("layer_norm", 1, 5, 48, 48), {"eps": 1e-5, "rms": 1}),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("values", ["normal", "any bits"])
def test_kernels_have_the_specifications_bits(name: str, values: str):
    assert EXP is not None
    plan, more = KERNELS[name]
    random = np.random.default_rng(len(name))
    shape = (plan.lines, plan.width)
    token = to_bf16(random.standard_normal(shape).astype(np.float32) * 3)
    if values == "any bits":
        token = random.integers(0, 1 << 16, shape, dtype=np.uint16)
    function = "bf16_layer_norm" if name == "rms" else name
    params = {"rows": plan.rows, "columns": plan.columns, "curve0": EXP.words.tolist(), **more}
    got = np.asarray(FUNCTIONS[function](params, 0, [[token]], {})[0][0], np.uint16)  # type: ignore[arg-type]
    expected = spec.kernel(function, params, token)
    nan = np.isnan(from_bf16(expected))
    assert np.isnan(from_bf16(got)).tolist() == nan.tolist()
    np.testing.assert_array_equal(got[~nan], expected[~nan])
    assert values == "any bits" or not nan.any()


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """A product with bias and Gelu, a residual, a norm, softmax."""
    random = np.random.default_rng(3)
    sizes = {"w": (24, 40), "b": (40,), "g": (40,), "h": (40,)}
    weights = {name: random.standard_normal(size).astype(np.float32) * np.float32(0.4) for name, size in sizes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="linear"),
        helper.make_node("Add", ["m", "b"], ["mb"]),
        helper.make_node("Gelu", ["mb"], ["a"], name="gelu"),
        helper.make_node("Add", ["a", "r"], ["s"], name="residual"),
        helper.make_node("LayerNormalization", ["s", "g", "h"], ["n"], name="norm"),
        helper.make_node("Softmax", ["n"], ["y"], name="softmax"),
    ]
    ins = {"x": ["N", 5, 24], "r": ["N", 5, 40]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ins.items()]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="module")
def saved(model: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], float]:
    """The model with everything on the array: its artifact, notes, and error."""
    compiled = neuc.compile(model, TARGET, quantize="none")
    path = tmp_path_factory.mktemp("rows") / "m.neuc"
    compiled.save(path)
    assert compiled.report.measured is not None
    return path, compiled.report.hints, float(str(compiled.report.measured["error"]))


def test_a_model_runs_with_the_specifications_bits(saved: tuple[Path, list[str], float], model: onnx.ModelProto):
    path, notes, error = saved
    random = np.random.default_rng(4)
    x, r = (random.standard_normal(size).astype(np.float32) for size in ((2, 5, 24), (2, 5, 40)))
    w, b, g, h = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    artifact = Artifact.open(path)
    product = np.zeros((2, 5, 40), np.float32)
    for k in range(24):
        product = product + bf16(x)[..., k, None] * bf16(w)[k]
    segment = artifact.program.segments["rows0"]
    assert isinstance(segment, OtherSegment)
    steps = [ChainStep.read(step) for step in str(segment.data["steps"]).split("; ")]
    assert [step.kind for step in steps] == ["add", "curve", "add"]
    operands = [bf16(np.broadcast_to(value, (2, 5, 40))) for value in (product, b, r)]
    s = spec.chain(operands, steps, [np.asarray(artifact.weights["rows0.curve0"])])
    n = spec.layer_norm(s, bf16(g), bf16(h), 1e-5, False)
    expected = spec.softmax(n, np.asarray(artifact.weights["rows2.curve0"]))
    session = neuc.load(path)
    got = np.asarray(session.run(None, {"x": x, "r": r})[0], np.float32)
    np.testing.assert_array_equal(got, expected)
    exact = np.asarray(neuc.compile(model, "cpu").session().run(None, {"x": x, "r": r})[0], np.float32)
    assert 1e-4 < np.linalg.norm(got - exact) / np.linalg.norm(exact) < BF16_ERROR
    assert 1e-4 < error < BF16_ERROR
    said = " ".join(notes)
    assert "1 element-wise chains, 1 layer norms, 1 softmax" in said
    assert "switches of program" in said
    assert "2 functions of one value are tables" in said


def test_where_it_does_not_pay_the_cpu_keeps_it_and_the_report_says_why(model: onnx.ModelProto, tmp_path: Path):
    notes = neuc.compile(model, "npu-xdna1{float=bf16,finish=cpu,columns=1}", quantize="none").report.hints
    (stays,) = [note for note in notes if "operations on floats stay" in note]
    assert "two switches of program takes at least 4.9 ms" in stays
    assert re.search(r"the CPU at most \S+ ms", stays)
    assert stays.endswith("residual, norm, softmax"), "the product itself is on the array"
    text = (Path(neuc.__file__).parent / "backends/npu/machines/npu-xdna1.toml").read_text(encoding="utf-8")
    quick = text.replace("program_switch_us = 2400", "program_switch_us = 0")
    quick = re.sub(r"(\[host\]\s+dispatch_us = )\S+", r"\g<1>0", quick)
    assert quick != text
    machine = tmp_path / "quick.toml"
    machine.write_text(quick.replace("cpu_functions_per_second = 2e9", "cpu_functions_per_second = 2e6"), "utf-8")
    taken = neuc.compile(model, f"npu-xdna1{{float=bf16,finish=cpu,machine={machine}}}", quantize="none").report.hints
    assert any("1 softmax" in note for note in taken), taken
    assert any("1 operation on floats stays on the CPU" in note and note.endswith("norm") for note in taken), taken


def test_options_that_make_no_sense(model: onnx.ModelProto, tmp_path: Path):
    with pytest.raises(Error, match="elementwise=often makes no sense"):
        neuc.compile(model, "npu-xdna1{float=bf16,elementwise=often}", quantize="none")
    with pytest.raises(Error, match="elementwise=always makes no sense") as caught:
        neuc.compile(model, "npu-xdna1{elementwise=always}", quantize="none")
    assert "float=bf16" in caught.value.hint
    text = (Path(neuc.__file__).parent / "backends/npu/machines/npu-xdna1.toml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if "cpu_functions_per_second" not in line]
    (tmp_path / "old.toml").write_text("\n".join(lines), "utf-8")
    with pytest.raises(Error, match=r"no figure host\.cpu_functions_per_second for element-wise work") as lacking:
        neuc.compile(model, f"npu-xdna1{{float=bf16,machine={tmp_path / 'old.toml'}}}", quantize="none")
    assert lacking.value.code == "NEUC-E688"


@pytest.mark.parametrize(
    ("plan", "rows"),
    [
        (RowPlan("chain", 2, 1, 1, 1, "add 0 1"), 400_000),
        (RowPlan("chain", 1, 1, 1, 1, "curve 0 0", (1738,)), 400_000),
        (RowPlan("softmax", 1, 1, 128, 128, curves=(1268,)), 1536),
        (RowPlan("layer_norm", 1, 1, 384, 384), 500),
    ],
)
def test_the_cost_model_is_near_the_simulator(plan: RowPlan, rows: int):
    machine = find_machine(ONE_COLUMN)
    best = planned(machine, Work(plan, rows, 0))
    assert best is not None
    chosen, cost = best
    design = row_program(ONE_COLUMN, chosen)
    results = -(-rows // chosen.width) if chosen.kind == "chain" else rows
    tokens = -(-results // (4 * chosen.rows))
    run = simulate(with_tokens(design, chosen, machine, tokens), machine, {}, values=False)
    assert run.deadlock is None
    assert abs(cost.cycles / run.cycles - 1) < MODEL_ERROR
    worst = row_cost(
        replace(plan, width=64, columns=64) if plan.kind == "chain" else chosen, machine, Work(plan, rows, 0)
    )
    assert cost.seconds <= worst.seconds


def test_rows_too_wide_for_a_core_stay():
    assert planned(XDNA1, Work(RowPlan("softmax", 1, 1, 9000, 9000, curves=(1268,)), 10, 1)) is None


@pytest.mark.parametrize("version", ["1.3", "1.4"])
def test_every_core_of_an_export_has_a_body(saved: tuple[Path, list[str], float], version: str):
    products = placed_products(Artifact.open(saved[0]))
    assert [product.facts["operands"] for product in products[1:]] == [
        "bf16 chain of 3 steps",
        "bf16 layer_norm",
        "bf16 softmax",
    ]
    for product, what in zip(products[1:], ("arith.addf", "math.sqrt", "arith.maximumf")):
        text = export(product.design, product.machine, f"mlir-aie-{version}")
        assert "link_with" not in text
        assert text.count("aie.core(") == len(product.design.kernels) == text.count(what + " ") // _each(text, what)
        tables = text.count("initial_value = dense<[")
        assert tables == (0 if what == "math.sqrt" else len(product.design.kernels)), "each core has its own"
        read = read_mlir_aie(text)
        assert len(read.cores) == len(product.design.kernels)
        assert len(read.transfers) == 2 * product.machine.cols
        for form in ("svg", "html", "riallto", "checkable"):
            assert "core0_0" in export(product.design, product.machine, form)


def _each(text: str, what: str) -> int:
    """How often an operation stands in the first core."""
    return text.split("aie.core(")[1].count(what + " ")


def test_kernels_without_tables_are_not_exported():
    design = row_program(ONE_COLUMN, RowPlan("chain", 1, 1, 64, 64, "curve 0 0", (1738,)))
    with pytest.raises(Error, match="has no table curve0"):
        export(design, find_machine(ONE_COLUMN), "mlir-aie-1.4")


def test_a_corrupted_transfer_gives_wrong_numbers_and_a_missing_one_a_named_deadlock():
    machine, plan = find_machine(ONE_COLUMN), RowPlan("chain", 2, 1, 64, 64, "sub 0 1")
    design = with_tokens(row_program(ONE_COLUMN, plan), plan, machine, 3)
    a, b = (np.arange(700, dtype=np.float32).reshape(7, 100) % 13 * scale for scale in (1, 2))
    x, count = laid_out(plan, machine, [to_bf16(a), to_bf16(b)])
    assert count == 11
    got = from_bf16(np.asarray(simulate(design, machine, {"x": x}).outputs["y"])).reshape(-1)[:700]
    np.testing.assert_array_equal(got.reshape(7, 100), bf16(a - b))
    first, *rest = design.sequence
    assert isinstance(first, Transfer)
    wide = replace(first, sizes=(first.sizes[0] // 2, 2), strides=(1, 1))
    wrong = simulate(replace(design, sequence=(wide, *rest)), machine, {"x": x})
    assert wrong.deadlock is None
    assert not np.array_equal(from_bf16(np.asarray(wrong.outputs["y"])).reshape(-1)[:700].reshape(7, 100), bf16(a - b))
    stuck = simulate(replace(design, sequence=tuple(rest)), machine, {"x": x}).deadlock
    assert stuck is not None
    assert "host waits for the tasks on y0_out" in str(stuck)


def test_damaged_segments_are_refused():
    sound: dict[str, object] = {
        "kind": "chain",
        "operands": 2,
        "rows": 1,
        "width": 64,
        "columns": 64,
        "steps": "add 0 1; curve 2 0",
        "curves": [1738],
        "eps": 0.0,
        "rms": False,
    }

    def read(**changes: object) -> RowPlan:
        return plan_from(Node({**sound, **changes}, "segment", "NEUC-E687", "cure"))

    assert read().steps == "add 0 1; curve 2 0"
    for changes in (
        {"kind": "sort"},
        {"columns": 65},
        {"width": 63, "columns": 63},
        {"steps": "add 0 2"},
        {"steps": "curve 0 1"},
        {"steps": "add 0"},
        {"steps": "constant x"},
        {"steps": "run 0 1"},
        {"kind": "softmax", "curves": []},
        {"operands": 0},
    ):
        with pytest.raises(Error) as caught:
            read(**changes)
        assert caught.value.code == "NEUC-E687"
    words = EXP.words.copy() if EXP is not None else np.zeros(0, np.int32)
    assert checked_curve(words, len(words), "s").shape == words.shape
    words[7] += 1 << 14
    with pytest.raises(Error, match="a table is damaged"):
        checked_curve(words, len(words), "s")


def test_a_constant_may_be_wider_than_the_activations():
    scale = np.arange(1, 9, dtype=np.float32)
    node = helper.make_node("Mul", ["x", "w"], ["y"], name="scale")
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [3, 1]), ("y", [3, 8])))
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(scale, "w")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    value = np.array([[1], [-2], [0.5]], np.float32)
    got = neuc.compile(made, TARGET, quantize="none").session().run(None, {"x": value})[0]
    np.testing.assert_array_equal(got, value * scale)
