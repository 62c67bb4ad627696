"""The commands and the Python of the README do what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from neuc.compiler.cli import main

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def _blocks(language: str, heading: str) -> list[str]:
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The `model.onnx` and `x.npy` the README speaks of, in the current folder."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "readme",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16])],
        [numpy_helper.from_array(rng.standard_normal((32, 16)).astype(np.float32), "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "model.onnx"
    )
    x = rng.standard_normal((3, 32)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    monkeypatch.chdir(tmp_path)
    return x


def test_commands(model: np.ndarray, capsys: pytest.CaptureFixture[str]):
    (block,) = _blocks("sh", "Use it")
    lines = [line for line in block.splitlines() if line]
    assert len(lines) >= 3
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "neuc"
        quick = ["--seconds", "0"] if arguments[0] == "bench" else []
        assert main([*arguments, *quick]) == 0, capsys.readouterr().err
    assert np.load("out.npz")["y"].shape == (3, 16)


def test_python(model: np.ndarray):
    (block,) = _blocks("python", "Use it")
    scope: dict[str, object] = {"x": model}
    exec(block, scope)
    (y,) = scope["outputs"]  # type: ignore[misc]
    assert np.asarray(y).shape == (3, 16)


def test_make_targets_exist():
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    for (block,) in [_blocks("sh", "Try it")]:
        for line in block.splitlines():
            target = line.split("#")[0].split()[1]
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_command_is_listed_and_exists():
    from neuc.compiler.cli.app import COMMANDS

    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `neuc")]
    listed = set(re.findall(r"`(?:neuc )?([a-z]+)`", " ".join(rows)))
    assert listed == COMMANDS.keys()


def test_links_lead_somewhere():
    root = Path(__file__).parent.parent
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (root / target).exists(), target
