"""What would do nothing, or cannot work, is refused before anything is compiled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import neuc
from decoder_files import random_decoder, write_gguf_decoder
from neuc.compiler.cli import main
from neuc.errors import Error, Exit


def layer(path: Path) -> Path:
    """x [2, 4] times a matrix of ones."""
    inputs, outputs = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 4]) for n in "xy")
    weights = [numpy_helper.from_array(np.ones((4, 4), np.float32), "w")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "layer", [inputs], [outputs], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize(
    "options", [{"head": "int4"}, {"kv": "int8"}, {"dt": 1.0}, {"reset": "subtract"}, {"keep_state": True}]
)
def test_options_of_other_kinds_of_models(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(Error, match=r"does nothing with layer\.onnx") as caught:
        neuc.compile(layer(tmp_path / "layer.onnx"), **options)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.exit_code) == ("NEUC-E002", Exit.USAGE)


def test_a_decoder_has_neither_steps_nor_an_onnx_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_gguf_decoder(tmp_path / "m.gguf", random_decoder())
    for option, code in (("--dt=1", "NEUC-E002"), ("--verify", "NEUC-E261")):
        assert main(["compile", str(path), "-o", str(tmp_path / "m.neuc"), option]) == Exit.USAGE
        assert capsys.readouterr().err.startswith(f"error[{code}]")
    assert not (tmp_path / "m.neuc").exists()


@pytest.mark.parametrize("option", ["--rtol=-1", "--rtol=nan", "--atol=-0.1", "--atol=inf"])
def test_tolerances(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert main(["run", str(layer(tmp_path / "layer.onnx")), option]) == Exit.USAGE
    assert f"{option.partition('=')[0]} {option.partition('=')[2]} makes no sense" in capsys.readouterr().err


def test_a_target_for_spikes_without_any(tmp_path: Path) -> None:
    hints = neuc.compile(layer(tmp_path / "layer.onnx"), "cpu-spike").report.hints
    assert any("layer.onnx has no spikes" in hint and "--to snn" in hint for hint in hints)
