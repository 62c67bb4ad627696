"""`neuc convert --to snn`: files, report, pictures, and refusals, through the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

import neuc
from neuc.compiler.cli import main
from neuc.compiler.cli.check_command import check_command
from neuc.compiler.cli.convert_command import convert_command
from neuc.compiler.driver import read_module
from neuc.errors import Error, Exit
from snn_models import inputs, mlp


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    proto = mlp()
    onnx.save(proto, tmp_path / "net.onnx")
    x = inputs(proto, 40)
    np.savez(tmp_path / "calib.npz", x=x)
    np.savez(tmp_path / "eval.npz", x=x, labels=np.arange(40) % 5)
    return tmp_path


def convert(folder: Path, *options: str) -> Result:
    arguments = [str(folder / "net.onnx"), str(folder / "out.mlir"), "--to", "snn", *options]
    return CliRunner().invoke(convert_command, arguments, catch_exceptions=True, standalone_mode=False)


def refused(folder: Path, *options: str) -> Error:
    error = convert(folder, *options).exception
    assert isinstance(error, Error)
    return error


def test_everything_that_is_written(folder: Path):
    result = convert(
        folder,
        *("--calib", str(folder / "calib.npz"), "--recipe", "a", "--steps", "4", "--sweep", "1,2,4"),
        *("--eval", f"{folder / 'eval.npz'}:labels", "--plots", str(folder / "plots")),
        *("--report", str(folder / "report.json"), "--json"),
    )
    assert result.exception is None, result.exception
    module, _ = read_module(folder / "out.mlir")
    assert "spike.loop" in str(module)
    report = json.loads((folder / "report.json").read_text())
    assert [row["steps"] for row in report["sweep"]["rows"]] == [1, 2, 4]
    assert report["limiting_layer"]["cause"] in ("clipping", "quantisation", "unevenness")
    assert {v["verdict"] for v in report["support"]} == {"exact"}
    assert sorted(p.name for p in (folder / "plots").iterdir()) == ["raster.png", "rates.png", "steps.png"]
    assert all(p.stat().st_size > 1000 for p in (folder / "plots").iterdir())
    assert report["neurobench"]["effective_acs"] > 0
    assert json.loads(result.stdout) == report


def test_latency_stands_in_the_sweep(folder: Path):
    calib = ("--calib", str(folder / "calib.npz"), "--recipe", "a", "--steps", "4")
    rows = json.loads(convert(folder, *calib, "--sweep", "2,8", "--time", "--json").stdout)["sweep"]["rows"]
    assert all(0 < row["cpu_seconds"] < 1 for row in rows)
    plain = convert(folder, *calib, "--sweep", "2,8")
    assert plain.exception is None, plain.exception
    text = plain.output
    assert "chip, µs" in text
    assert "chip: Loihi-2-like, estimated" in text
    assert "CPU, ms" not in text, "nothing was timed"
    assert "CPU, ms" in convert(folder, *calib, "--sweep", "2", "--time").output


def test_the_text_names_what_matters(folder: Path):
    result = convert(folder, "--calib", str(folder / "calib.npz"), "--recipe", "b", "--sweep", "1,2", "--steps", "2")
    assert result.exception is None
    for part in ("support:", "weights meet spikes in each step", "most is lost in", "agreement", "warning:", "wrote"):
        assert part in result.stderr, part


def test_refusals(folder: Path):
    calib = ("--calib", str(folder / "calib.npz"))
    assert refused(folder).code == "NEUC-E002"
    assert refused(folder, *calib, "--recipe", "a", "--steps", "0").code == "NEUC-E523"
    assert refused(folder, *calib, "--recipe", "x").code == "NEUC-E527"
    unknown = refused(folder, *calib, "--recipe", "b", "--spiking-after", "nonsense")
    assert (unknown.code, unknown.exit_code) == ("NEUC-E527", Exit.USAGE)
    assert refused(folder, *calib, "--sweep", "a,b").code == "NEUC-E002"
    assert refused(folder, "--calib", str(folder / "none.npz")).code == "NEUC-E006"
    # What does not fit is refused before the conversion, which takes long.
    np.savez(folder / "wide.npz", x=np.zeros((4, 3), np.float32), labels=np.zeros(4, np.int64))
    assert "--eval data" in refused(folder, *calib, "--eval", f"{folder / 'wide.npz'}:labels").message
    np.savez(folder / "far.npz", x=np.zeros((4, 12), np.float32), labels=np.arange(100, 104))
    far = refused(folder, *calib, "--eval", f"{folder / 'far.npz'}:labels")
    assert (far.code, far.message) == ("NEUC-E530", "labels 100 to 103 for a model of 5 outputs")
    assert "is a file" in refused(folder, *calib, "--plots", str(folder / "calib.npz")).message
    assert not (folder / "out.mlir").exists()


IDLE = [
    ("--start", ("--recipe", "b", "--start", "1")),
    ("--start", ("--recipe", "c", "--coding", "differential", "--start", "1")),
    ("--max-drop", ("--recipe", "a", "--max-drop", "0.1")),
    ("--levels", ("--levels", "2")),
    ("--thresholds", ("--recipe", "auto", "--thresholds", "search")),
    ("--keep-weights", ("--keep-weights",)),
    ("--max-steps", ("--steps", "4", "--max-steps", "8")),
    ("--dt", ("--recipe", "b", "--dt", "1e-3")),
    ("--soft-reset", ("--recipe", "b", "--soft-reset", "subgraph")),
    ("--power-of-two", ("--recipe", "b", "--power-of-two")),
    ("--lossy-scales", ("--recipe", "b", "--lossy-scales")),
    ("--format", ("--recipe", "b", "--format", "tq2_0")),
]


@pytest.mark.parametrize(("option", "given"), IDLE, ids=[" ".join(given) for _, given in IDLE])
def test_options_that_would_do_nothing_are_refused(folder: Path, option: str, given: tuple[str, ...]):
    error = refused(folder, "--calib", str(folder / "calib.npz"), *given)
    assert (error.code, error.exit_code) == ("NEUC-E002", Exit.USAGE)
    assert error.message.startswith(f"{option} does nothing")


OTHERS = [
    ("--recipe", ("--to", "nir", "--recipe", "b")),
    ("--calib", ("--to", "nir", "--calib", "calib.npz")),
    ("--layers-only", ("--to", "nir", "--layers-only")),
    ("--traces-on", ("--to", "nir", "--traces-on", "x=random:1")),
    ("--power-of-two", ("--format", "int2-qdq", "--power-of-two")),
    ("--layers-only", ("--format", "int2-qdq", "--layers-only")),
    ("--read-as", ("--format", "int2-qdq", "--read-as", "tl2")),
    ("--dt", ("--format", "qdq-int8", "--calib", "calib.npz", "--dt", "1")),
]


@pytest.mark.parametrize(("option", "given"), OTHERS, ids=[" ".join(given) for _, given in OTHERS])
def test_other_conversions_refuse_options_that_are_not_theirs(folder: Path, option: str, given: tuple[str, ...]):
    arguments = [str(folder / "net.onnx"), str(folder / "out.nir"), *given]
    error = CliRunner().invoke(convert_command, arguments, standalone_mode=False).exception
    assert isinstance(error, Error), error
    assert error.message.startswith(f"{option} does nothing")
    assert not (folder / "out.nir").exists()


def test_options_of_other_conversions_are_refused_beside_weight_files(tmp_path: Path):
    (tmp_path / "w.gguf").write_bytes(b"GGUF")
    for option in (("--power-of-two",), ("--layers-only",), ("--calib", "x.npz"), ("--traces", "t.nir")):
        arguments = [str(tmp_path / "w.gguf"), str(tmp_path / "o.gguf"), "--format", "tq2_0", *option]
        error = CliRunner().invoke(convert_command, arguments, standalone_mode=False).exception
        assert isinstance(error, Error), error
        assert error.message == f"{option[0]} does nothing with --format tq2_0"


def test_the_first_command_of_the_readme(folder: Path):
    result = convert(
        folder,
        *("--recipe", "b", "--steps", "4", "--calib", str(folder / "calib.npz"), "--sweep", "1,4"),
        *("--eval", f"{folder / 'eval.npz'}:labels", "--report", str(folder / "r.json")),
    )
    assert result.exception is None, result.exception
    assert json.loads((folder / "r.json").read_text())["sweep"]["rows"]
    assert "spike.loop" in (folder / "out.mlir").read_text()
    assert "by its rules a step with spikes other than -1, 0, 1 is MACs" in result.stderr
    checked = CliRunner().invoke(check_command, [str(folder / "out.mlir"), "--target", "cpu-spike"])
    spiking = sum(op.name.startswith("spike.") for op in read_module(folder / "out.mlir")[0].walk())
    said = re.search(r"all (\d+) operators run on cpu-spike", checked.output)
    assert said is not None
    assert int(said[1]) >= spiking - 1, "all of them but the yield of the loop"


def test_nothing_is_written_if_the_report_cannot_be_made(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise ValueError("no report")

    monkeypatch.setattr("neuc.compiler.snn.report.ConversionReport.as_json", broken)
    result = convert(folder, "--calib", str(folder / "calib.npz"), "--recipe", "b", "--steps", "2", "--sweep", "1")
    assert isinstance(result.exception, ValueError)
    assert not list(folder.glob("out.*"))


def test_a_target_for_energies_says_that_a_network_gets_nothing_of_it():
    told = [hint for hint in neuc.compile(mlp(), "cpu-relax").report.hints if "no energy" in hint]
    assert len(told) == 1


def test_networks_of_changes_are_told_the_way_to_nir(folder: Path, capsys: pytest.CaptureFixture[str]):
    """Rates instead of changes, and then binary spikes, whose cost `neuc opt` tells."""
    pytest.importorskip("nir")
    net, binary = folder / "out.mlir", folder / "binary.mlir"
    given = ("--calib", str(folder / "calib.npz"), "--sweep", "1", "--recipe", "b", "--steps", "1")
    assert convert(folder, *given).exception is None
    assert main(["convert", str(net), str(folder / "out.nir"), "--to", "nir"]) == Exit.UNSUPPORTED
    assert "with --coding rate first and then neuc opt -p expand-graded-spikes" in capsys.readouterr().err
    assert "power-of-two spikes that carry rates" in convert(folder, *given, "--coding", "rate").stderr
    assert main(["opt", str(net), "-p", "expand-graded-spikes", "-o", str(binary)]) == 0
    said = capsys.readouterr().err
    assert "16 neurons with 4 levels are" in said
    assert f"wrote {binary}" in said
    assert main(["convert", str(binary), str(folder / "out.nir"), "--to", "nir", "--dt", "1e-3"]) == 0
