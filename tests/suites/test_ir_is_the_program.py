"""The IR is the program: what a user edits in a dumped file is what runs, on every level, and names survive.

Everything goes through the command line, as a compiler engineer would.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from neuc.compiler.cli import main
from neuc.runtime.session import load


@pytest.fixture(autouse=True)
def _no_shared_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUC_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    weights = {"w1": rng.standard_normal((400, 200)), "w2": rng.standard_normal((200, 9))}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="first/MatMul"),
        helper.make_node("Relu", ["a"], ["b"], name="first/Relu"),
        helper.make_node("MatMul", ["b", "w2"], ["y"], name="second/MatMul"),
    ]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["B", 400])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["B", 9])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()],
    )
    path = tmp_path / "mlp.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def neuc(*arguments: object) -> None:
    assert main([str(a) for a in arguments]) == 0


def run(path: Path, batch: int = 5) -> np.ndarray:
    x = np.random.default_rng(1).standard_normal((batch, 400)).astype(np.float32)
    with load(path, threads=2) as session:
        return session.run(None, {"x": x})[0]


def kernels(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.startswith("program/kernels/")]
        return {Path(n).stem: archive.read(n) for n in names}


def dumped(model: Path, folder: Path, step: str) -> Path:
    neuc(
        "compile",
        model,
        "--target=cpu-tl2",
        "--quantize=ternary",
        "--no-cache",
        "--dump-ir",
        folder,
        "-o",
        folder.with_suffix(".neuc"),
    )
    (path,) = folder.glob(f"*-{step}.mlir")
    return path


EDITS = {
    "BM": (r"BM = \d+", "BM = 112"),
    "BK": (r"BK = \d+", "BK = 96"),
    "g": (r"\bg = 3", "g = 2"),
}


@pytest.mark.parametrize("what", list(EDITS))
def test_editing_the_tiling_changes_the_kernel_and_not_the_result(what: str, model: Path, tmp_path: Path) -> None:
    tiled = dumped(model, tmp_path / "dump", "tile-lut")
    before = tmp_path / "dump.neuc"
    text = tiled.read_text()
    pattern, value = EDITS[what]
    edited = re.sub(pattern, value, text)
    if what == "g":
        edited = re.sub(r"BK = \d+", "BK = 24", edited)
    assert edited != text
    tiled.write_text(edited)
    after = tmp_path / "after.neuc"
    neuc("compile", tiled, "-o", after, "--no-cache")
    accumulate = {name for name in kernels(after) if "accumulate" in name}
    assert accumulate
    assert accumulate.isdisjoint(set(kernels(before)))
    for batch in (1, 2, 33):
        np.testing.assert_array_equal(run(after, batch), run(before, batch))


@pytest.mark.parametrize("level", ["graph", "paradigm", "machine"])
def test_compilation_goes_on_from_every_level(level: str, model: Path, tmp_path: Path) -> None:
    options = ["--target=cpu-tl2", "--quantize=ternary", "--no-cache"]
    whole, stopped, resumed = tmp_path / "whole.neuc", tmp_path / f"{level}.mlir", tmp_path / "resumed.neuc"
    neuc("compile", model, *options, "-o", whole)
    neuc("compile", model, *options, "--compile-to", level, "-o", stopped)
    neuc("compile", stopped, *options[: 1 if level != "graph" else None], "--no-cache", "-o", resumed)
    assert kernels(resumed) == kernels(whole)
    np.testing.assert_array_equal(run(resumed), run(whole))


def test_kernels_are_llvm_ir_that_can_be_edited(model: Path, tmp_path: Path) -> None:
    machine, artifact = tmp_path / "m.mlir", tmp_path / "m.neuc"
    neuc("compile", model, "--quantize=none", "--no-cache", "--compile-to=machine", "-o", machine)
    neuc("compile", machine, "--no-cache", "-o", artifact)
    before = run(artifact)
    text = machine.read_text()
    assert text.count("llvm.func @gemm") == 2
    # The first product's ReLU starts from 0: let it start from 1.5 instead.
    start = text.index("llvm.func @gemm")
    kernel = text[start : text.index("llvm.func", start + 1)]
    assert "activation_relu" in kernel.splitlines()[0]
    zero = re.search(r"(%\S+ = llvm.mlir.constant\()(dense<)?0.0+e\+00", kernel)
    assert zero is not None
    changed = kernel[: zero.end()].removesuffix("0.000000e+00") + "1.500000e+00" + kernel[zero.end() :]
    machine.write_text(text.replace(kernel, changed))
    neuc("compile", machine, "--no-cache", "-o", artifact)
    assert not np.array_equal(run(artifact), before)


def test_a_node_name_survives_to_the_machine_level_and_the_artifact(model: Path, tmp_path: Path) -> None:
    machine, artifact = tmp_path / "m.mlir", tmp_path / "m.neuc"
    neuc(
        "compile", model, "--target=cpu-tl2", "--quantize=ternary", "--no-cache", "--compile-to=machine", "-o", machine
    )
    launches = [line for line in machine.read_text().splitlines() if "cpu.launch" in line]
    assert sum('"first/MatMul"' in line for line in launches) >= 3
    assert sum('"second/MatMul"' in line for line in launches) >= 3
    neuc("compile", machine, "--no-cache", "-o", artifact)
    with zipfile.ZipFile(artifact) as archive:
        program = json.loads(archive.read("program/program.json"))
    labels = {launch["label"] for s in program["segments"].values() for launch in s["launches"]}
    assert {"first/MatMul + first/Relu", "second/MatMul"} <= labels
