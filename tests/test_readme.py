"""The commands and the Python of the README do what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import neuc
from decoder_files import metadata, random_decoder, write_gguf_decoder
from neuc.compiler.cli import main
from weight_files import ARRAY, F32, I32, STRING

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


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


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The `bitnet-2b.gguf` the README speaks of, smaller and with made-up weights, in the current folder."""
    d = random_decoder()
    letters = ["<unk>", "<s>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyzT"]
    tokens = [*letters, *(f"filler{i}" for i in range(d.vocab - len(letters)))]
    fields = metadata(d, tokens=(STRING, tokens), context_length=512)
    fields |= {
        "tokenizer.ggml.model": (STRING, "llama"),
        "tokenizer.ggml.scores": (ARRAY, (F32, [0.0] * d.vocab)),
        "tokenizer.ggml.token_type": (ARRAY, (I32, [2, 3, 3, *[1] * (d.vocab - 3)])),
    }
    write_gguf_decoder(tmp_path / "bitnet-2b.gguf", d, fields=fields)
    monkeypatch.chdir(tmp_path)


def _run_commands(block: str, capsys: pytest.CaptureFixture[str]) -> int:
    """Run the commands of a block; how many there were."""
    lines = [line for line in block.splitlines() if line]
    for line in lines:
        program, *arguments = shlex.split(line, comments=True)
        if program == "python":
            subprocess.run([sys.executable, ROOT / arguments[0], *arguments[1:]], check=True)
            continue
        assert program == "neuc"
        quick = ["--seconds", "0"] if arguments[0] == "bench" else []
        assert main([*arguments, *quick]) == 0, capsys.readouterr().err
    return len(lines)


def test_commands(model: np.ndarray, capsys: pytest.CaptureFixture[str]):
    block, _ = _blocks("sh", "Use it")
    assert _run_commands(block, capsys) >= 3
    assert np.load("out.npz")["y"].shape == (3, 16)


@pytest.mark.usefixtures("decoder")
def test_a_language_model(capsys: pytest.CaptureFixture[str]):
    _, commands = _blocks("sh", "Use it")
    _, code = _blocks("python", "Use it")
    assert _run_commands(commands, capsys) == 2
    capsys.readouterr()
    exec(code, {"neuc": neuc})
    printed = capsys.readouterr().out.split()
    assert 0 < len(printed) <= 64
    assert all(token.isdigit() for token in printed)


def test_python(model: np.ndarray):
    block, _ = _blocks("python", "Use it")
    scope: dict[str, object] = {"x": model}
    exec(block, scope)
    (y,) = scope["outputs"]  # type: ignore[misc]
    assert np.asarray(y).shape == (3, 16)


def test_spiking_crossbars_and_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (spiking,) = _blocks("sh", "Spiking networks")
    assert _run_commands(spiking, capsys) == 4
    with np.load("digits_test.npz") as test:
        images, labels = next(test[name] for name in test.files if name != "labels"), test["labels"]
    scope: dict[str, object] = {"neuc": neuc, "images": images}
    (code,) = _blocks("python", "Spiking networks")
    exec(code, scope)
    logits = np.asarray(scope["logits"])
    assert (logits.argmax(-1) == labels).mean() > 0.95  # 97.1 % in float
    (machines,) = _blocks("sh", "Analog crossbars, NPU arrays, energies")
    assert _run_commands(machines, capsys) == 3


def test_an_energy(capsys: pytest.CaptureFixture[str]):
    (code,) = _blocks("python", "Analog crossbars, NPU arrays, energies")
    exec(code, {})
    assert capsys.readouterr().out.startswith("[[")


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for (block,) in [_blocks("sh", "Try it")]:
        for line in block.splitlines():
            target = line.split("#")[0].split()[1]
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_extras_to_install_exist():
    (install,) = _blocks("sh", "Install it")
    (named,) = re.findall(r'"\.\[([a-z,]+)\]"', install)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(named.split(",")) <= extras.keys()


def test_every_command_is_listed_and_exists():
    from neuc.compiler.cli.app import COMMANDS

    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `neuc")]
    listed = set(re.findall(r"`(?:neuc )?([a-z]+)`", " ".join(rows)))
    assert listed == COMMANDS.keys()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
