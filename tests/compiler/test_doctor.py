"""`neuc doctor`, and artifacts whose kernels do not compute what they should: told by it, refused by all others."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from neuc.backends.cpu.encodings import CPU_ENCODINGS
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernel_samples import host_isas, sample
from neuc.backends.cpu.kernels.direct_linear import panel_products
from neuc.backends.cpu.self_check import activations
from neuc.backends.cpu.target import host_isa
from neuc.compiler.cli import main
from neuc.dialects.ternary_encodings import ENCODINGS
from neuc.errors import Exit
from neuc.runtime.artifact import Artifact, write_artifact
from neuc.runtime.loader import load_kernels
from neuc.runtime.program import NativeSegment, WeightBuffer
from neuc.runtime.self_check import run_checks


def neuc(*arguments: str | Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x [N, 3, 9, 9] -> conv and ReLU -> matrix product -> y [N, 6]."""
    rng = np.random.default_rng(4)
    arrays = {"k": rng.standard_normal((8, 3, 3, 3)), "w": rng.standard_normal((392, 6)), "b": rng.standard_normal(8)}
    nodes = [
        helper.make_node("Conv", ["x", "k", "b"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "checked",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 9, 9])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 6])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    path = tmp_path_factory.mktemp("model") / "checked.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def artifact(model: Path) -> Path:
    path = model.with_suffix(".neuc")
    status, _, err = neuc("compile", model, "--target", "cpu-tl2", "--quantize", "ternary", "-o", path)
    assert status == Exit.OK, err
    return path


def test_doctor_tries_the_kernels_of_an_artifact(artifact: Path):
    status, out, _ = neuc("doctor", artifact, "--json")
    assert status == Exit.OK
    checks = json.loads(out)["checks"]
    assert sorted(name.split(" ")[0] for name in checks) == ["conv", "product"]
    assert all(outcome.startswith("ok, ") for outcome in checks.values())
    assert "lut_accumulate" in checks["product"]


def test_an_artifact_carries_one_check_for_each_kernel_of_products(artifact: Path):
    program = Artifact.open(artifact).program
    checked = {check.launches[-1].kernel for check in program.checks()}
    products = {k for k in program.kernels() if k.startswith(("lut_accumulate", "direct", "ternary_conv"))}
    assert checked == products
    assert len(program.checks()) == len(products) == 2
    look_up = next(c for c in program.checks() if c.launches[-1].kernel.startswith("lut_accumulate"))
    assert look_up.launches[0].kernel.startswith("lut_build")


def damaged(artifact: Path, path: Path, prefix: str) -> Path:
    """The artifact with another byte in a weight that some check reads, all hashes right."""
    found = Artifact.open(artifact)
    keys = [b.key for c in found.program.checks() for b in c.buffers if isinstance(b, WeightBuffer)]
    keys += [check.expected for check in found.program.checks()]
    key = next(key for key in keys if prefix in key)
    changed = np.array(found.weights[key])
    changed.reshape(-1).view(np.uint8)[0] ^= 0x11
    write_artifact(
        path,
        program=found.program,
        kernels=found.kernels,
        weights={**found.weights, key: changed},
        manifest={k: v for k, v in found.manifest.items() if k in ("features", "architecture", "target")},
    )
    return path


@pytest.mark.parametrize("prefix", ["check.lut_accumulate", "check.ternary_conv", "w.2xrow.trits.tl2"])
def test_damaged_weights_and_expectations_are_refused_and_told(artifact: Path, tmp_path: Path, prefix: str):
    path = damaged(artifact, tmp_path / "damaged.neuc", prefix)
    for command in ("run", "bench"):
        status, out, err = neuc(command, path)
        assert status == Exit.FAULT
        assert err.startswith("error[NEUC-E319]: kernel ")
        assert "cpu-ref" in err
        assert out == ""
    status, out, _ = neuc("doctor", path)
    assert status == Exit.FAULT
    assert "NOT healthy" in out
    assert len([line for line in out.splitlines() if "FAILED" in line]) == 1
    assert len([line for line in out.splitlines() if "  ok, " in line]) == 1


def test_a_damaged_kernel_is_refused(model: Path, tmp_path: Path):
    staged, good, bad = tmp_path / "m.mlir", tmp_path / "good.neuc", tmp_path / "bad.neuc"
    options = ("--target", "cpu-ref", "--quantize", "ternary", "--compile-to", "machine")
    assert neuc("compile", model, *options, "-o", staged)[0] == Exit.OK
    assert neuc("compile", staged, "-o", good)[0] == Exit.OK
    assert neuc("run", good, "--json")[0] == Exit.OK
    text = staged.read_text()
    start = text.index("llvm.func @direct_i8")
    end = text.index("llvm.return", start)
    kernel, count = re.subn(r"llvm\.mul(.*: i32)", r"llvm.add\1", text[start:end])
    assert count
    staged.write_text(text[:start] + kernel + text[end:])
    assert neuc("compile", staged, "-o", bad)[0] == Exit.OK
    status, out, err = neuc("run", bad)
    assert (status, out) == (Exit.FAULT, "")
    assert "error[NEUC-E319]: kernel direct_i8" in err


def test_an_artifact_without_ternary_layers_has_nothing_to_try(model: Path, tmp_path: Path):
    path = tmp_path / "float.neuc"
    assert neuc("compile", model, "--quantize", "none", "-o", path)[0] == Exit.OK
    status, out, _ = neuc("doctor", path)
    assert status == Exit.OK
    assert "there are none" in out


@pytest.mark.parametrize("name", ["none.neuc", "."])
def test_doctor_of_no_artifact(tmp_path: Path, name: str):
    status, _, err = neuc("doctor", tmp_path / name)
    assert status == Exit.FAULT
    assert "NEUC-E004" in err


@pytest.mark.parametrize("kind", CPU_ENCODINGS)
def test_a_sample_of_each_encoding_passes_and_a_wrong_weight_does_not(kind: str):
    made = sample(host_isa(), kind)
    isa = host_isa()
    code = load_kernels(made.kernels, made.program.kernels(), features=isa.features)
    outcomes = run_checks(made.program, code.addresses, made.weights)
    assert [outcome.problem for outcome in outcomes] == [""] * len(outcomes)
    # A product; of direct encodings the fused layer for one token, and for many where there are panels.
    assert len(outcomes) == (1 if ENCODINGS[kind].lookup else 2 if panel_products(isa) is None else 3)
    keys = [key for key in made.weights if key in (f"{kind}.{kind}", f"{kind}.fused.{kind}")]
    wrong = {key: made.weights[key].copy() for key in keys}
    for array in wrong.values():
        array.reshape(-1).view(np.uint8)[:16] ^= 0x5
    outcomes = run_checks(made.program, code.addresses, {**made.weights, **wrong})
    assert all("is right" in outcome.problem for outcome in outcomes)


def test_samples_are_for_every_instruction_set_of_this_cpu(monkeypatch: pytest.MonkeyPatch):
    names = [isa.name for isa in host_isas()]
    assert names[0] == host_isa().name
    assert names[-2:] == ["portable", "scalar"]
    assert len(set(host_isas())) == len(names)
    monkeypatch.setenv("NEUC_CPU_FEATURES", "-avx512f,-avx2,-sse4.2")
    assert [isa.name for isa in host_isas()] == ["portable", "scalar"]


def test_activations_have_the_extremes_and_are_the_same_always():
    assert activations(3).tolist() == [127, -128, -128]
    codes = activations(600)
    assert set(codes.tolist()) == set(range(-128, 128))
    assert codes[:600].tolist() == activations(700)[:600].tolist()


@pytest.mark.slow
def test_doctor_finds_this_machine_healthy():
    status, out, _ = neuc("doctor", "--json")
    found = json.loads(out)
    assert status == Exit.OK, found
    assert {f"{kind} kernel on {Isa.scalar().name}" for kind in CPU_ENCODINGS} <= found["checks"].keys()


def test_checks_do_not_slow_loading(artifact: Path):
    """What the runtime has to do for all checks of a program is bounded by what they are: a token each."""
    for check in Artifact.open(artifact).program.checks():
        assert sum(int(launch.work) for launch in check.launches) < 100
        assert len(check.launches) <= 2


def test_segments_without_checks_load(artifact: Path, tmp_path: Path):
    found = Artifact.open(artifact)
    segments = {
        name: replace(segment, checks=()) if isinstance(segment, NativeSegment) else segment
        for name, segment in found.program.segments.items()
    }
    path = tmp_path / "old.neuc"
    program = replace(found.program, segments=segments)
    write_artifact(path, program=program, kernels=found.kernels, weights=found.weights)
    assert neuc("run", path, "--json")[0] == Exit.OK
