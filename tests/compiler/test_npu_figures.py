"""Time, utilisation, traffic and energy of whole models on an array: predicted, simulated, and as a user sees them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import neuc
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.tiling import Product, choose_plans
from neuc.compiler.cli import main
from neuc.compiler.npu.figures import RESIDUALS, array_figures, figure_lines, kind_of, product_figures, published_error
from neuc.compiler.npu.products import PlacedProduct, free_sizes, placed_products
from neuc.runtime.artifact import Artifact
from neuc.runtime.npu.accounts import account_of, by_operand, energy_marks, energy_of
from neuc.runtime.npu.figures import Figures, energy_text
from neuc.runtime.npu.gemm import gemm_graph, with_sizes
from neuc.runtime.npu.gemm_plan import blocks
from neuc.runtime.npu.machine_file import machine_of
from neuc.runtime.npu.simulator import simulate
from neuc.runtime.npu.usage import run_figures

MODEL_BAND = (0.9, 1.8)
"""Cycles by the cost model over simulated ones, as in tests/backends/test_npu_tiling.py."""
ROWS_BAND = (0.5, 2.0)
BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"
XDNA2 = find_machine("npu-xdna2")


def _model(batch: int | str = 8) -> onnx.ModelProto:
    """A convolution, two linear layers and a softmax."""
    random = np.random.default_rng(0)
    shapes = {"k": (16, 3, 3, 3), "w1": (16 * 36, 48), "w2": (48, 32)}
    weights = [numpy_helper.from_array(random.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    weights.append(numpy_helper.from_array(np.array([-1, 16 * 36]), "flat"))
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], name="conv"),
        helper.make_node("Reshape", ["c", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "w1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["l"], name="second"),
        helper.make_node("Softmax", ["l"], ["y"], name="last"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 32])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model


CASES = (
    ("npu-xdna1", "ternary"),
    ("npu-xdna2", "int8"),
    ("npu-xdna2{float=bf16,elementwise=always}", "none"),
)


@pytest.fixture(scope="module", params=CASES, ids=["ternary", "int8", "bf16"])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model for an array, with all its sizes fixed."""
    target, quantize = request.param
    path = tmp_path_factory.mktemp("figures") / "m.neuc"
    neuc.compile(_model(), target, quantize=quantize).save(path)
    return path


def _products(path: Path) -> list[PlacedProduct]:
    found = placed_products(Artifact.open(path))
    assert found
    return found


def test_counts_without_running_are_the_simulators(artifact: Path):
    for product in _products(artifact):
        counts = simulate(product.design, product.machine, {}, values=False).counts
        account = account_of(product.design)
        assert account.ddr == counts.ddr
        assert sum(account.ddr.values()) == counts.ddr_bytes
        assert account.stream_byte_hops == counts.stream_byte_hops > 0
        assert account.sram_bytes == counts.sram_bytes > 0


def test_a_run_takes_what_was_predicted_for_it(artifact: Path):
    session = neuc.load(artifact, profile=True)
    session.run(None, {"x": np.random.default_rng(1).standard_normal((8, 3, 8, 8)).astype(np.float32)})
    assert session.profile is not None
    ran, marks = run_figures(session.profile)
    by_name = {part.segment: part for part in ran}
    products = _products(artifact)
    assert set(by_name) == {product.segment for product in products}
    assert set(marks.values()) == {"assumed"}
    for product in products:
        said, did = product_figures(product), by_name[product.segment]
        low, high = MODEL_BAND if product.operands else ROWS_BAND
        assert low < said.array_seconds / did.array_seconds < high, product.segment
        assert said.ddr_bytes_by_operand == did.ddr_bytes_by_operand
        assert said.energy_pj_by_source == pytest.approx(did.energy_pj_by_source)
        assert (said.macs, said.padded_macs) == (did.macs, did.padded_macs)
        assert said.peak_seconds == pytest.approx(did.peak_seconds)
        assert (said.dispatches, said.switches) == (did.dispatches, did.switches)
        assert 0 <= said.utilisation <= said.utilisation_at_work < 1
        assert said.seconds == pytest.approx(said.dispatch_seconds + said.switch_seconds + said.array_seconds)


def test_a_model_is_the_sum_of_its_products(artifact: Path):
    products = _products(artifact)
    whole, parts = array_figures(products, 0), [product_figures(product) for product in products]
    assert whole["seconds"] == pytest.approx(sum(part.seconds for part in parts))
    assert whole["ddr_bytes"] == sum(sum(part.ddr_bytes_by_operand.values()) for part in parts)
    assert whole["energy_pj"] == pytest.approx(sum(sum(part.energy_pj_by_source.values()) for part in parts))
    work = sum(part.peak_seconds for part in parts)
    assert whole["utilisation"] == pytest.approx(work / sum(part.seconds for part in parts))
    assert whole["utilisation_at_work"] == pytest.approx(work / sum(part.array_seconds for part in parts))
    assert whole["free_sizes_counted_as"] is None


def test_utilisation_is_multiply_adds_over_what_all_cores_could_do_in_that_time():
    product = Product(2048, 512, 2048)
    choice = choose_plans(XDNA2, (product,))
    plan = choice.plans[0]
    design = with_sizes(gemm_graph(plan, XDNA2, 1), plan, XDNA2, blocks(plan, 2048, 512, 2048))
    facts = {"tile": [plan.m, plan.k, plan.n], "m": 2048, "k": 512, "n": 2048, "cycles": round(choice.costs[0].cycles)}
    figures = product_figures(PlacedProduct("p", facts, XDNA2, design, plan.operands))
    peak = 512 * len(XDNA2.tiles("core"))
    assert figures.utilisation_at_work == pytest.approx(2048 * 512 * 2048 / peak / facts["cycles"])
    assert figures.utilisation < figures.utilisation_at_work < 1
    assert figures.padded_macs >= figures.macs == 2048 * 512 * 2048


def test_energy_is_counts_times_the_machines_figures_and_names_their_provenance():
    found = energy_of(XDNA2, "i8", 1000, 200, 30, 4)
    assert found == pytest.approx({"multiply-adds": 250, "tile memories": 140, "streams": 9, "host memory": 160})
    assert energy_of(XDNA2, "bf16", 1000, 0, 0, 0)["multiply-adds"] == pytest.approx(700)
    provenance = {**XDNA2.data["provenance"], "energy.ddr_byte_pj": "measured: a meter"}  # type: ignore[dict-item]
    metered = machine_of({**XDNA2.data, "provenance": provenance}, "metered")
    marks = energy_marks(metered)
    assert marks == {
        "multiply-adds": "assumed",
        "tile memories": "assumed",
        "streams": "assumed",
        "host memory": "measured",
    }
    figures = Figures("p", 1, 0, 1.0, 0.5, 0.0, 0.5, 0.1, 1, 1, by_operand({"a": 1}), found)
    assert "host memory measured" in energy_text(figures, marks)
    assert energy_text(figures, energy_marks(XDNA2)).endswith("(figures assumed)")


def test_bands_are_those_of_the_published_rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sys.modules.pop("npu_silicon", None)
    import npu_silicon  # pyright: ignore[reportMissingImports]

    assert json.loads(RESIDUALS.read_text(encoding="utf-8")) == npu_silicon.published_errors()
    for kind, generation in (("int8 products", 2), ("bf16 products", 1), ("bf16 products", 2)):
        band = published_error(kind, generation)
        assert band is not None
        assert band["kind"] == kind
        assert 0 < band["median"] < band["nine_of_ten"] <= band["largest"]  # type: ignore[operator]
    other = published_error("int8 products", 1)  # those of this type were used for constants
    assert other is not None
    assert other["kind"] == "products"
    assert published_error("layer norms", 1) is None


def test_compile_show_and_run_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    onnx.save(_model("n"), tmp_path / "m.onnx")
    model, artifact, report = (str(tmp_path / name) for name in ("m.onnx", "m.neuc", "r.json"))
    target = "npu-xdna2{free=4}"
    assert main(["compile", model, "--target", target, "-o", artifact, "--report", report, "--no-cache"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("array")]
    assert len(lines) == 3
    assert lines[0].startswith("array, predicted with free sizes of 4: ")
    assert "published int8 products were within" in lines[0]
    data = json.loads(Path(report).read_text(encoding="utf-8"))["array"]
    assert figure_lines(data) == lines
    assert data["free_sizes_counted_as"] == 4
    assert set(data["ddr_bytes_by_operand"]) == {"A", "B", "C"}
    assert set(data["energy_pj_by_source"]) == set(data["energy_marks"])
    assert all(row["utilisation"] > 0 for row in data["products"])
    opened = Artifact.open(artifact)
    assert free_sizes(opened) == 4
    assert {kind_of(product) for product in placed_products(opened)} == {"int8 products"}

    assert main(["npu", "show", artifact, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {**shown, "products": []} == {**data, "products": []}
    assert [row["energy_pj"] for row in shown["products"]] == [row["energy_pj"] for row in data["products"]]
    assert main(["npu", "show", artifact]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == lines

    run = ["run", artifact, "--input", "x=4x3x8x8xf32=0.5", "--profile", str(tmp_path / "trace.json")]
    assert main([*run, "--json"]) == 0
    ran = json.loads(capsys.readouterr().out)["array"]
    assert ran["ddr_bytes_by_operand"] == data["ddr_bytes_by_operand"]
    assert ran["energy_pj_by_source"] == pytest.approx(data["energy_pj_by_source"])
    assert MODEL_BAND[0] < data["array_seconds"] / ran["array_seconds"] < MODEL_BAND[1]
    assert len(ran["products"]) == len(data["products"])
    assert main(run) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("array")]
    assert len(said) == 3
    assert said[0].startswith("array, as simulated: ")
