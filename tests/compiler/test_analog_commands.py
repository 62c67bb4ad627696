"""Analog crossbars on the command line: accuracy against time, costs, tile maps, exports, fitted devices."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import neuc as package
from neuc.compiler.analog.sweep import AtTime, parse_times, spell_time, student, sweep
from neuc.compiler.cli import main
from neuc.errors import Error, Exit
from neuc.runtime.analog.costs import FIGURES, estimate
from neuc.runtime.analog.device_table import read_table
from neuc.runtime.analog.models import make_model
from neuc.runtime.analog.program import CrossbarProgram, TileEntry
from neuc.runtime.analog.spice import printed_currents
from neuc.runtime.analog.tiles import Chip

CLASSES, FEATURES, SAMPLES = 4, 12, 90


def neuc(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact that tells the nearest of four random directions, and data for it."""
    path = tmp_path_factory.mktemp("analog")
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((FEATURES, CLASSES)).astype(np.float32)
    labels = rng.integers(0, CLASSES, SAMPLES)
    x = (centres.T[labels] + 0.8 * rng.standard_normal((SAMPLES, FEATURES))).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="nearest")],
        "nearest",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", CLASSES])],
        [numpy_helper.from_array(centres, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path / "model.onnx"))
    package.compile(path / "model.onnx", "xbar-pcm{tile=16x8}").save(path / "model.neuc")
    np.savez(path / "data.npz", x=x, labels=labels)
    return path


def test_accuracy_against_time(folder: Path) -> None:
    arguments = ["--time", "0,1d", "--seeds", 2, "--eval", f"{folder / 'data.npz'}:labels"]
    status, out, err = neuc("run", folder / "model.neuc", *arguments, "--tile-map", folder / "map.png")
    assert status == Exit.OK, err
    lines = out.splitlines()
    assert lines[0].startswith("device pcm: Nandakumar")
    assert [line.split()[0] for line in lines[2:4]] == ["0s", "1d"]
    assert "2 draws of 90 samples" in out
    assert "TOPS/W" in out
    assert (folder / "map.png").read_bytes().startswith(b"\x89PNG")
    status, out, _ = neuc("run", folder / "model.neuc", *arguments, "--json")
    report = json.loads(out)
    assert [row["time_s"] for row in report["times"]] == [0.0, 86400.0]
    assert all(0.5 < a <= 1 for row in report["times"] for a in row["all"])
    assert report["arrays"]["figures"]["adc energy"]["label"] == "published"


@pytest.mark.slow
def test_processes_and_one_process_agree(folder: Path) -> None:
    data = f"{folder / 'data.npz'}:labels"
    one = sweep(folder / "model.neuc", data, (0.0, 3.2e7), 2, processes=1)
    two = sweep(folder / "model.neuc", data, (0.0, 3.2e7), 2, processes=2)
    assert one == two


def test_without_dask_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    data = f"{folder / 'data.npz'}:labels"
    with pytest.raises(Error, match="Dask is not installed") as caught:
        sweep(folder / "model.neuc", data, (0.0,), 2, scheduler="tcp://127.0.0.1:8786")
    assert caught.value.code == "NEUC-E656"
    assert "neuc[cluster]" in caught.value.hint


@pytest.mark.slow
def test_a_dask_cluster_and_one_process_agree(folder: Path) -> None:
    distributed = pytest.importorskip("distributed")
    data = f"{folder / 'data.npz'}:labels"
    one = sweep(folder / "model.neuc", data, (0.0, 3.2e7), 3, processes=1)
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**settings) as cluster:
        assert sweep(folder / "model.neuc", data, (0.0, 3.2e7), 3, scheduler=cluster.scheduler_address) == one


def test_times_are_read_and_spelled() -> None:
    assert parse_times("5,30s,1m,2h,1d,1y") == (5.0, 30.0, 60.0, 7200.0, 86400.0, 31536000.0)
    assert [spell_time(t) for t in (0.0, 1.5, 3600.0, 86400.0, 2592000.0)] == ["0s", "1.5s", "1h", "1d", "30d"]


@pytest.mark.parametrize("text", ["", "1w", "-1d", "d", "nan", "1d,,2d", "1e999"])
def test_times_that_make_no_sense(text: str) -> None:
    with pytest.raises(Error) as caught:
        parse_times(text)
    assert caught.value.code == "NEUC-E644"


def test_intervals_follow_student() -> None:
    low, high = AtTime(0.0, (0.8, 0.9, 1.0)).interval()
    assert (low, high) == pytest.approx((0.9 - 4.303 * 0.1 / 3**0.5, 1.0))
    # scipy.stats.t.ppf(0.975, 19) and (0.975, 100)
    assert student(19) == pytest.approx(2.0930, rel=0.005)
    assert student(100) == pytest.approx(1.9840, rel=0.005)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--time", "1d"], "NEUC-E002"),
        (["--seeds", 0, "--eval", "DATA"], "NEUC-E648"),
        (["--time", "-1", "--eval", "DATA"], "NEUC-E644"),
        (["--time", "", "--eval", "DATA"], "NEUC-E644"),
        (["--time", "1d", "--eval", "DATA", "-o", "ignored.npz"], "NEUC-E002"),
        (["--time", "1d", "--eval", "DATA", "--profile", "ignored.json"], "NEUC-E002"),
        (["--eval", "DATA", "--seed", 3], "NEUC-E002"),
        (["--time", "1d", "--eval", "DATA", "--scheduler", "tcp://127.0.0.1:1"], "NEUC-E656"),
    ],
)
def test_runs_that_make_no_sense(folder: Path, arguments: list[object], code: str) -> None:
    filled = [f"{folder / 'data.npz'}:labels" if a == "DATA" else a for a in arguments]
    status, out, err = neuc("run", folder / "model.neuc", *filled)
    assert status != Exit.OK
    assert code in err
    assert not out


def test_what_has_no_devices_does_not_age(folder: Path) -> None:
    package.compile(folder / "model.onnx", "cpu").save(folder / "cpu.neuc")
    status, _, err = neuc("run", folder / "cpu.neuc", "--time", "1d", "--eval", f"{folder / 'data.npz'}:labels")
    assert (status, "xbar-pcm" in err) == (Exit.USAGE, True)


def test_meshes_say_that_they_do_not_age(folder: Path) -> None:
    package.compile(folder / "model.onnx", "xbar-mesh{tile=16x8}").save(folder / "mesh.neuc")
    data = ("--eval", f"{folder / 'data.npz'}:labels")
    status, _, err = neuc("run", folder / "mesh.neuc", "--time", "1d", *data)
    assert (status, "do not age" in err) == (Exit.OK, True), err
    assert "do not age" not in neuc("run", folder / "mesh.neuc", "--time", "0", *data)[2]


def test_what_a_compilation_does_not_measure_is_said(folder: Path) -> None:
    _, _, err = neuc("compile", folder / "model.onnx", "--target", "xbar-pcm", "-o", folder / "noted.neuc")
    assert "--verify right after programming" in err
    _, _, err = neuc("compile", folder / "model.onnx", "--target", "xbar-sim", "-o", folder / "ideal.neuc")
    assert "--verify" not in err


def test_a_target_without_anything_to_do_says_so(folder: Path) -> None:
    shapes = {"w": (1, 24, 6), "r": (1, 24, 8)}
    graph = helper.make_graph(
        [helper.make_node("GRU", ["x", *shapes], ["y"], name="gru", hidden_size=8)],
        "gru",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 2, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 1, 2, 8])],
        [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in shapes.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "gru.onnx"))
    _, _, err = neuc("compile", folder / "gru.onnx", "--target", "xbar-pcm", "-o", folder / "gru.neuc")
    assert "no layer of this model is on a crossbar" in err
    assert "only LSTM has a lowering" in err


def test_conductances_are_exported(folder: Path) -> None:
    for name in ("g.csv", "g.h5"):
        status, out, err = neuc("device", "export", folder / "model.neuc", "--time", "1d", "-o", folder / name)
        assert (status, out.strip()) == (Exit.OK, f"{folder / name}: 1 tile"), err
    with h5py.File(folder / "g.h5") as file:
        plus, minus = (np.asarray(file[f"tile0/{name}"]) for name in ("g_plus", "g_minus"))
    table = np.loadtxt(folder / "g.csv", delimiter=",", skiprows=1, usecols=(2, 3, 4, 5))
    assert plus.shape == (FEATURES, CLASSES)
    np.testing.assert_allclose(table[:, 2].reshape(plus.shape), plus, rtol=1e-5)
    np.testing.assert_allclose(table[:, 3].reshape(plus.shape), minus, rtol=1e-5)
    _, _, err = neuc("device", "export", folder / "model.neuc", "-o", folder / "g.txt")
    assert "NEUC-E658" in err
    status, _, err = neuc("device", "export", folder / "model.neuc", "--time", "1d,2d", "-o", folder / "two.csv")
    assert (status, "NEUC-E002" in err, (folder / "two.csv").exists()) == (Exit.USAGE, True, False)


def test_a_netlist_without_a_voltage_is_not_written(folder: Path) -> None:
    _, _, err = neuc("device", "netlist", folder / "model.neuc", "--volts", "nan", "-o", folder / "nan.cir")
    assert "NEUC-E646" in err
    assert not (folder / "nan.cir").exists()


@pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed (Debian package ngspice)")
def test_a_tiles_netlist_runs(folder: Path) -> None:
    file = folder / "tile.cir"
    status, _, err = neuc("device", "netlist", folder / "model.neuc", "--tile", 0, "--half", 1, "-o", file)
    assert status == Exit.OK, err
    done = subprocess.run(["ngspice", "-b", str(file)], capture_output=True, text=True, check=False, timeout=60)
    assert (printed_currents(done.stdout, CLASSES) > 0).all()
    _, _, err = neuc("device", "netlist", folder / "model.neuc", "--tile", 9, "-o", file)
    assert "NEUC-E658" in err


def test_a_model_is_fitted_to_measurements(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["target,time,conductance"]
    for target in (0.0, 10.0, 20.0):
        for time in (0.0, 1000.0):
            reads = np.abs(rng.normal(target * (1 - time / 1e4), 0.5, 400))
            lines += [f"{target},{time},{g:.6f}" for g in reads]
    (tmp_path / "reads.csv").write_text("\n".join(lines), encoding="ascii")
    status, out, err = neuc("device", "fit", tmp_path / "reads.csv", "-o", tmp_path / "device.csv")
    assert status == Exit.OK, err
    assert "3 targets at 2 times" in out
    model = make_model("table", read_table(tmp_path / "device.csv"))
    devices = model.program(np.full(50_000, 20.0), rng)
    aged = model.conductance(devices, 1000.0)
    # 400 reads give a mean within 3 standard errors of 0.5 / 20, a deviation within 11 %.
    assert aged.mean() == pytest.approx(18.0, abs=0.1)
    assert aged.std() == pytest.approx(0.5, rel=0.11)


HEADER = "target,time,conductance\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "target,time\n1,2\n",
        f"{HEADER}1,2,x\n",
        f"{HEADER}1,0,1\n",
        HEADER + "1,0,1\n" * 8,
        HEADER + "1,0,1\n" * 8 + "2,5,2\n" * 8,
    ],
    ids=["empty", "no column", "no number", "one read", "one target", "a gap"],
)
def test_measurements_that_cannot_be_fitted(tmp_path: Path, text: str) -> None:
    (tmp_path / "reads.csv").write_text(text, encoding="ascii")
    _, _, err = neuc("device", "fit", tmp_path / "reads.csv", "-o", tmp_path / "device.csv")
    assert "NEUC-E649" in err
    assert not (tmp_path / "device.csv").exists()


def test_models_are_listed_with_their_sources() -> None:
    status, out, _ = neuc("device", "list")
    assert status == Exit.OK
    assert "Wan et al., Nature 608" in out


def test_costs_are_sums_of_labelled_figures() -> None:
    tile = TileEntry(0, "fc", 100, 64, "w", "g", adc_levels=254, dac_levels=254, conversions=10.0)
    program = CrossbarProgram(Chip(make_model("pcm")), (tile,), 128, 128, 1)
    cost = estimate(program)
    assert cost.energy["adc"] == pytest.approx(10 * 64 * 1.56e-12)
    assert cost.energy["dac"] == pytest.approx(10 * 100 * 8 * 0.39e-12)
    assert cost.energy["devices"] == pytest.approx(10 * 100 * 64 * 2 * 0.2**2 * 12.5e-6 * 100e-9)
    assert cost.latency == pytest.approx(10 * 100e-9)
    assert cost.utilisation == pytest.approx(6400 / 128**2)
    assert cost.products == 64000
    assert {figure.label for figure in FIGURES.values()} <= {"measured", "published", "assumed"}
    assert all(figure.source for figure in FIGURES.values())


def test_one_run_at_an_age(folder: Path, tmp_path: Path) -> None:
    given = ("run", folder / "model.neuc", "--input", "x=random:1")
    for name, ages in (("new", ()), ("old", ("--time", "1y"))):
        assert neuc(*given, *ages, "-o", tmp_path / f"{name}.npz")[0] == Exit.OK
    new, old = (np.load(tmp_path / f"{name}.npz")["y"] for name in ("new", "old"))
    assert not np.array_equal(new, old)
    status, _, told = neuc(*given, "--time", "1d,1y")
    assert status == Exit.USAGE
    assert "several ages" in told


@pytest.mark.parametrize("option", ["range=nothere.npz", "device=nothere.csv"])
def test_files_in_braces_that_are_missing(option: str, folder: Path) -> None:
    status, _, told = neuc("compile", folder / "model.onnx", "--target", f"xbar-pcm{{tile=16x8,{option}}}")
    assert status == Exit.FAULT
    assert "NEUC-E004" in told
    assert "Errno" not in told
