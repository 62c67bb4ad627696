"""Whole models for NPU targets: products on the simulated array, the rest on the CPU, and the same bits."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import neuc
from integer_on_cpu import on_the_cpu
from neuc.backends.npu.known_machines import find_machine
from neuc.compiler.driver import Driver
from neuc.compiler.exporters.qdq_file import quantize_onnx
from neuc.compiler.exporters.qdq_int8 import Form
from neuc.compiler.importers import import_model
from neuc.compiler.pipeline import graph_passes
from neuc.compiler.universe import new_context
from neuc.errors import Error
from neuc.runtime.artifact import Artifact
from neuc.runtime.npu.usage import array_usage

RNG = np.random.default_rng(0)
INT8_ERROR = 0.05
"""Relative L2: weights and activations of two layers are off by up to half of 1/127 of their largest value each."""
TARGETS = ("npu-xdna1", "npu-xdna2", "npu-xdna2{columns=2}")


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """A convolution, a grouped one, and a linear layer."""
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 1, 3, 3), "w3": (10, 8 * 6 * 6)}
    weights = [numpy_helper.from_array(RNG.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="depthwise", pads=[1, 1, 1, 1], group=8),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "w3"], ["y"], name="fc", transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("target", TARGETS)
def test_results_are_the_cpus_bit_for_bit(model: onnx.ModelProto, target: str, tmp_path: Path):
    x = RNG.standard_normal((3, 3, 6, 6)).astype(np.float32)
    compiled = neuc.compile(model, target)
    expected = neuc.compile(model, "cpu", quantize="ternary").session().run(None, {"x": x})[0]
    np.testing.assert_array_equal(compiled.session().run(None, {"x": x})[0], expected)
    notes = " ".join(compiled.report.hints)
    assert "products run on npu-xdna" in notes
    path = tmp_path / "m.neuc"
    compiled.save(path)
    np.testing.assert_array_equal(neuc.load(path).run(None, {"x": x})[0], expected)
    facts = Artifact.open(path).manifest["npu"]
    assert isinstance(facts, dict)
    assert facts["digest"]
    assert facts["layers"]


def test_int8_weights_are_the_cpus_bit_for_bit(model: onnx.ModelProto):
    x = RNG.standard_normal((2, 3, 6, 6)).astype(np.float32)
    exact = np.asarray(neuc.compile(model, "cpu").session().run(None, {"x": x})[0], np.float32)
    int8 = neuc.compile(model, "cpu", quantize="int8").session()
    expected = np.asarray(int8.run(None, {"x": x})[0], np.float32)
    compiled = neuc.compile(model, "npu-xdna1", quantize="int8")
    np.testing.assert_array_equal(compiled.session().run(None, {"x": x})[0], expected)
    error = np.linalg.norm(expected - exact) / np.linalg.norm(exact)
    assert 0 < error < INT8_ERROR
    assert compiled.report.quantize == "int8"


def test_what_stays_behind_is_said(model: onnx.ModelProto):
    compiled = neuc.compile(model, "npu-xdna1")
    note = next(note for note in compiled.report.hints if "depthwise" in note)
    assert "on the CPU" in note
    assert re.search(r"as products of bf16 on the array: [\d.]+ ms", note), "what it would cost there"
    plain = neuc.compile(model, "npu-xdna1", quantize="none")
    assert any("nothing runs on npu-xdna1" in note for note in plain.report.hints)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("npu-xdna1{columns=9}", "no partition of 9"),
        ("npu-xdna1{machine=x.toml}", "x.toml"),
        ("npu-xdna1{free=0}", "free=0 makes no sense"),
        ("npu-xdna1{machine=npu-dimc}", "machine=npu-dimc makes no sense"),
        ("npu-xdna1{least=-1}", "least=-1 makes no sense"),
    ],
)
def test_options_are_checked(model: onnx.ModelProto, target: str, words: str):
    with pytest.raises(Error, match=words):
        neuc.compile(model, target)


def _real(name: str) -> tuple[Path, dict[str, np.ndarray]]:
    """A trained model in the folder that NEUC_TEST_MODELS names, and inputs for it."""
    folder = os.environ.get("NEUC_TEST_MODELS")
    found = sorted(Path(folder).rglob(name)) if folder else []
    if not found:
        pytest.skip(f"no {name} in the folder NEUC_TEST_MODELS names")
    ids = RNG.integers(0, 1000, (1, 16))
    feeds = {
        "model_v8.onnx": {"input_1": RNG.standard_normal((1, 900, 120)).astype(np.float32)},
        "minilm.onnx": {"input_ids": ids, "attention_mask": np.ones_like(ids)},
        "ch_ppocr_mobile_v2.0_cls_mobile.onnx": {"x": RNG.standard_normal((1, 3, 48, 192)).astype(np.float32)},
    }[name]
    return found[0], feeds


@pytest.mark.slow
@pytest.mark.parametrize("target", ["npu-xdna1", "npu-xdna2"])
@pytest.mark.parametrize("name", ["model_v8.onnx", "minilm.onnx", "ch_ppocr_mobile_v2.0_cls_mobile.onnx"])
def test_real_models_are_the_cpus_bit_for_bit(name: str, target: str):
    path, feeds = _real(name)
    compiled = neuc.compile(str(path), target)
    expected = neuc.compile(str(path), "cpu", quantize="ternary").session().run(None, feeds)
    for ours, theirs in zip(compiled.session().run(None, feeds), expected):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_cores_finish_all_products_of_a_real_int8_model_with_the_cpus_bits(tmp_path: Path):
    """MobileNetV3, residuals, gates and depthwise layers included, on made-up rows."""
    path, feeds = _real("ch_ppocr_mobile_v2.0_cls_mobile.onnx")
    int8, rows = tmp_path / "int8.onnx", tmp_path / "rows.npz"
    np.savez(rows, x=RNG.standard_normal((4, 3, 48, 192)).astype(np.float32))
    quantize_onnx(path, int8, rows, Form(eight_bits=True))
    compiled = neuc.compile(str(int8), "npu-xdna2{residuals=array}", quantize="none")
    notes = " ".join(compiled.report.hints)
    assert "7 additions of two tensors run in codes on the cores that make one of them: Add@3 behind Conv@11" in notes
    assert "9 operations on two tensors stay on the CPU, because its operands differ in shape: a gate" in notes
    assert "54 products leave npu-xdna2 as int8 codes" in notes
    assert "finished on the CPU" not in notes
    context = new_context()
    driver = Driver(import_model(int8, context), context)
    driver.run(graph_passes())
    expected = on_the_cpu(driver, "npu-xdna2", feeds)
    np.testing.assert_array_equal(compiled.session().run(None, feeds)[0], expected[0])


def test_a_profile_says_what_the_array_would_have_taken(model: onnx.ModelProto, tmp_path: Path):
    path = tmp_path / "m.neuc"
    neuc.compile(model, "npu-xdna1").save(path)
    session = neuc.load(path, profile=True)
    session.run(None, {"x": RNG.standard_normal((1, 3, 6, 6)).astype(np.float32)})
    assert session.profile is not None
    usage = array_usage(session.profile)
    assert usage["dispatches"] == 2
    assert 0 < usage["macs"] < usage["padded_macs"]
    assert usage["seconds"] > usage["cycles"] / find_machine("npu-xdna1").clock_hz
    assert usage["energy_pj"] > 0


def test_a_model_of_energies_is_told_its_targets(tmp_path: Path):
    from neuc import energy

    ising = energy.Model()
    spins = ising.spin(4, 4, name="spins")
    ising.grid(spins, 1.0)
    path = tmp_path / "ising.mlir"
    samples = ising.init(chains=1).sample(sweeps=2, beta=(0.2, 0.6))
    ising_program = ising.program(energies=samples.energies())
    ising_program.save(path)
    with pytest.raises(Error, match=r"runs networks of layers; ising.mlir is a model of energies") as caught:
        neuc.compile(str(path), "npu-xdna1")
    assert caught.value.code == "NEUC-E689"
    assert caught.value.hint is not None
    assert "cpu-relax" in caught.value.hint
    for target in ("cpu", "cpu-ref", "xbar-pcm"):
        with pytest.raises(Error, match=rf"E689.*samples a model of energies, and target {target} does not"):
            neuc.compile(str(path), target)
    with pytest.raises(Error, match=r"E002.*are for networks"):
        neuc.compile(str(path), "cpu-relax", quantize="int8")
