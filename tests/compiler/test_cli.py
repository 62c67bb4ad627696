"""The `neuc` command: exit codes, what goes to stdout and stderr, errors that help, no partial files."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from decoder_files import random_decoder, write_gguf_decoder
from neuc import energy
from neuc.compiler.cli import main
from neuc.errors import Error, Exit

# 64 products summed in another order: well below 64 * 2^-24 of the largest sum.
FLOAT_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Done:
    """What a command did."""

    status: int
    out: str
    err: str


def neuc(*arguments: str | Path) -> Done:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return Done(status, out.getvalue(), err.getvalue())


def mlp(path: Path, *, extra: Sequence[onnx.NodeProto] = ()) -> Path:
    """x [N, 64] -> relu(x w1) w2 -> y [N, 8]."""
    rng = np.random.default_rng(1)
    shapes = {"w1": (64, 48), "w2": (48, 8)}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MatMul", ["b", "w2"], ["y"], name="second"),
        *extra,
    ]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mlp(tmp_path_factory.mktemp("model") / "mlp.onnx")


@pytest.fixture(scope="module")
def artifact(model: Path) -> Path:
    path = model.with_suffix(".neuc")
    done = neuc("compile", model, "-o", path)
    assert done.status == Exit.OK, done.err
    return path


def test_compile_reports_every_layer_and_keeps_stdout_empty(model: Path, tmp_path: Path):
    report = tmp_path / "report.json"
    done = neuc("compile", model, "--target", "cpu-tl2", "-o", tmp_path / "m.neuc", "--verify=2", "--report", report)
    assert done.status == Exit.OK, done.err
    assert done.out == ""
    for text in ("first", "second", "ternary tl2", "error against the float model", "verified against onnxruntime"):
        assert text in done.err
    data = json.loads(report.read_text())
    assert [layer["node"] for layer in data["layers"]] == ["first", "second"]
    assert all(layer["ternary"] and 1 <= layer["planes"] <= 4 for layer in data["layers"])
    assert all(layer["bytes_after"] < layer["bytes_before"] for layer in data["layers"])
    assert data["measured"]["error"] <= data["budget"] == 0.05
    assert data["verify_inputs"] == 2
    assert data["hosts"] == []


def test_the_same_input_gives_the_same_bytes(model: Path, tmp_path: Path):
    for name in ("one", "two"):
        assert neuc("compile", model, "--target", "cpu-tl2", "-o", tmp_path / name, "--no-cache").status == Exit.OK
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_second_compile_comes_from_the_cache(model: Path, artifact: Path, tmp_path: Path):
    done = neuc("compile", model, "-o", tmp_path / "again.neuc")
    assert done.status == Exit.OK
    assert "from the cache" in done.err
    assert (tmp_path / "again.neuc").read_bytes() == artifact.read_bytes()
    changed = neuc("compile", model, "-o", tmp_path / "other.neuc", "--cpu", "portable")
    assert "from the cache" not in changed.err


def test_run_computes_what_onnxruntime_does(model: Path, artifact: Path, tmp_path: Path):
    import onnxruntime

    x = np.random.default_rng(2).standard_normal((5, 64)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    expected = np.asarray(onnxruntime.InferenceSession(model).run(None, {"x": x})[0])
    np.savez(tmp_path / "expected.npz", y=expected)
    common = ("run", artifact, "--input", f"x=@{tmp_path}/x.npy")
    done = neuc(*common, "-o", tmp_path / "out.npz", "--expected", tmp_path / "expected.npz")
    assert done.status == Exit.OK, done.err
    got = np.load(tmp_path / "out.npz")["y"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=FLOAT_TOLERANCE * np.abs(expected).max())

    np.savez(tmp_path / "wrong.npz", y=expected + 1)
    done = neuc(*common, "--expected", tmp_path / "wrong.npz", "--json")
    assert done.status == Exit.MISMATCH
    assert json.loads(done.out)["expected"]["equal"] is False


def test_run_writes_a_trace(artifact: Path, tmp_path: Path):
    done = neuc("run", artifact, "--profile", tmp_path / "trace.json", "--threads", "1")
    assert done.status == Exit.OK
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert events
    assert all(event["ph"] == "X" and event["dur"] >= 0 for event in events)


def test_bench_compares_with_onnxruntime(model: Path):
    done = neuc("bench", model, "--seconds", "0", "--threads", "1,2", "--compare", "ort", "--json")
    assert done.status == Exit.OK, done.err
    found = json.loads(done.out)
    assert [(t["engine"], t["threads"]) for t in found["timings"]] == [
        ("neuc", 1),
        ("onnxruntime", 1),
        ("neuc", 2),
        ("onnxruntime", 2),
    ]
    assert all(0 < t["fastest"] <= t["median"] <= t["p90"] <= t["p99"] for t in found["timings"])
    header, *rows = neuc("bench", model, "--seconds", "0", "--threads", "1", "--format", "csv").out.splitlines()
    assert header == "engine,threads,runs,median_ms,p90_ms,p99_ms,fastest_ms"
    assert len(rows) == 1


def test_inspect_shows_what_is_inside(model: Path, artifact: Path):
    text = neuc("inspect", artifact).out
    assert "x: float32[N, 64]" in text
    assert "first" in text
    found = json.loads(neuc("inspect", model, "--json").out)
    assert found["operations"]["onnx.MatMul"] == 2
    assert found["outputs"] == [{"name": "y", "dtype": "float32", "shape": ["N", 8]}]
    assert "dense.matmul" in neuc("inspect", model, "--ir", "paradigm").out
    assert neuc("inspect", model, "--dot").out.startswith("digraph")
    assert neuc("inspect", artifact, "--ir", "graph").status == Exit.FAULT


def test_reports_are_worded_well(model: Path, artifact: Path, tmp_path: Path):
    text = neuc("inspect", artifact).out
    assert "done in" not in text
    assert "{" not in text
    assert "program/kernels/" in text
    staged = neuc("compile", model, "--compile-to", "graph", "-o", tmp_path / "m.mlir").err
    assert staged.startswith("mlp.onnx for cpu\n")
    assert "fallback" not in staged
    missing = neuc("opt", tmp_path / "none.mlir").err
    assert missing == f"error[NEUC-E004]: cannot read {tmp_path}/none.mlir: No such file or directory\n"


def test_check_lists_what_cannot_run_with_reasons(tmp_path: Path):
    strange = helper.make_node("Det", ["s"], ["d"], name="determinant")
    square = helper.make_node("Reshape", ["y", "shape"], ["s"], name="square")
    path = mlp(tmp_path / "m.onnx", extra=[square, strange])
    loaded = onnx.load(path)
    loaded.graph.initializer.append(numpy_helper.from_array(np.array([-1, 2, 2]), "shape"))
    loaded.graph.output.append(helper.make_tensor_value_info("d", TensorProto.FLOAT, [None]))
    onnx.save(loaded, path)
    done = neuc("check", path)
    assert done.status == Exit.UNSUPPORTED
    assert "determinant" in done.out
    assert "Det" in done.out
    nodes = json.loads(neuc("check", path, "--json").out)["unsupported"]
    assert [node["name"] for node in nodes] == ["determinant"]
    refused = neuc("compile", path, "--fallback", "error", "-o", tmp_path / "m.neuc")
    assert refused.status == Exit.UNSUPPORTED
    assert "NEUC-E101" in refused.err
    assert not (tmp_path / "m.neuc").exists()
    assert neuc("compile", path, "-o", tmp_path / "m.neuc", "--verify").status == Exit.OK


def test_check_counts_energies_apart_from_operators(tmp_path: Path):
    model = energy.Model()
    model.grid(model.spin(4, 4, name="spins"), 1.0)
    samples = model.init(chains=1).sample(sweeps=2, beta=1.0)
    (tmp_path / "e.mlir").write_text(model.program(energies=samples.energies()).text())
    made = json.loads(neuc("check", tmp_path / "e.mlir", "--target", "cpu-relax", "--json").out)
    assert (made["operators"], made["energies"]) == (0, 6)  # a variable, a term, the model, a state, samples, energies
    said = neuc("check", tmp_path / "e.mlir", "--target", "cpu-relax").out
    assert said == "e.mlir: its energies (6 operations) run on cpu-relax\n"


def test_check_of_artifacts_and_decoders(model: Path, tmp_path: Path):
    assert neuc("compile", model, "-o", tmp_path / "m.neuc").status == Exit.OK
    assert neuc("check", tmp_path / "m.neuc").out.endswith("run on cpu\n")
    assert neuc("check", tmp_path / "m.neuc", "--target", "cpu").err.startswith("error[NEUC-E002]")
    decoder = write_gguf_decoder(tmp_path / "d.gguf", random_decoder())
    found = json.loads(neuc("check", decoder, "--json").out)
    assert found["unsupported"] == []
    assert found["operators"] > 20


def test_a_missed_budget_is_a_mismatch_and_writes_nothing(model: Path, tmp_path: Path):
    output = tmp_path / "m.neuc"
    done = neuc(
        *("compile", model, "--target", "cpu-tl2", "--quantize", "ternary", "--planes", "1"),
        *("--max-error", "0.001", "-o", output),
    )
    assert done.status == Exit.MISMATCH
    assert "NEUC-E262" in done.err
    assert not output.exists()


def test_verify_finds_damage_and_compares(model: Path, artifact: Path, tmp_path: Path):
    assert neuc("verify", artifact, "--against", model).status == Exit.OK
    damaged = tmp_path / "damaged.neuc"
    data = bytearray(artifact.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    done = neuc("verify", damaged, "--json")
    assert done.status == Exit.FAULT
    assert json.loads(done.out).get("damaged") or json.loads(done.out)["error"]


def test_lists_and_explanations():
    assert {"cpu", "cpu-tl2", "cpu-ref"} <= {target["name"] for target in json.loads(neuc("targets", "--json").out)}
    passes = {item["name"]: item for item in json.loads(neuc("passes", "--json").out)}
    assert passes["quantize-to-ternary"]["summary"]
    assert any(option["name"] == "planes" for option in passes["quantize-to-ternary"]["options"])
    assert "exit code is 4" in neuc("explain", "NEUC-E262").out
    assert neuc("explain", "NEUC-E999").status == Exit.USAGE
    assert "exit code is 4" in json.loads(neuc("explain", "E262", "--json").out)["NEUC-E262"]
    assert "NEUC-E262" in json.loads(neuc("explain", "--json").out)
    assert "artifacts" in json.loads(neuc("cache", "--json").out)["kinds"]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["compiel"], "did you mean compile?"),
        (["compile", "MODEL", "--target", "cpu-tl3"], "did you mean cpu-tl2"),
        (["compile", "MODEL", "--taget", "cpu"], "did you mean --target or --tune?"),
        (["compile", "MODEL", "--target", "cpu-tl2{bn=3}"], "options are group, bm, bk"),
        (["compile", "MODEL", "--quantize", "none", "--max-error", "0.1"], "--quantize auto"),
        (["compile", "MODEL", "--planes", "9"], "choose 1 to 4"),
        (["compile", "MODEL", "--shape", "x"], "NAME=1x3x224x224"),
        (["compile", "MODEL", "--cpu", "avx3"], "avx2"),
        (["opt", "-p", "tile-lot"], "did you mean tile-lut"),
        (["run", "MODEL", "--input", "z=1xf32=0"], "the model's inputs: x"),
        (["run", "MODEL", "--threads", "0"], ""),
        (["bench", "MODEL", "--threads", "many"], "--threads 1,2"),
        (["inspect"], "--help"),
    ],
)
def test_wrong_usage_is_told_in_two_lines(arguments: list[str], hint: str, model: Path, tmp_path: Path):
    filled = [str(model) if word == "MODEL" else word for word in arguments]
    output = ["-o", str(tmp_path / "m.neuc")] if filled[0] == "compile" else []
    done = neuc(*filled, *output)
    assert done.status == Exit.USAGE, done.err
    assert hint in done.err
    assert len(done.err.splitlines()) <= 2
    assert done.out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["compile", "run", "check", "inspect", "bench", "verify"])
@pytest.mark.parametrize("content", [b"", b"\x08\x07nonsense", b"GGUF", b"PK\x03\x04", b"<html>", b"\x80\x02"])
@pytest.mark.parametrize("suffix", [".onnx", ".neuc"])
def test_bad_files_are_told_in_one_line(command: str, content: bytes, suffix: str, tmp_path: Path):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    output = ["-o", str(tmp_path / "out.neuc")] if command == "compile" else []
    done = neuc(command, path, *output)
    assert done.status == Exit.FAULT, done.err
    assert done.err.startswith("error[NEUC-E")
    assert len(done.err.splitlines()) <= 2
    assert "Traceback" not in done.err
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_missing_files_and_unwritable_places(model: Path, tmp_path: Path):
    assert "no such file" in neuc("compile", tmp_path / "none.onnx").err
    for output in (tmp_path / "no" / "m.neuc", tmp_path):
        done = neuc("compile", model, "-o", output)
        assert done.status == Exit.FAULT
        assert "NEUC-E005" in done.err
    assert not list(tmp_path.iterdir())


def test_errors_as_json(tmp_path: Path):
    done = neuc("inspect", tmp_path / "none.onnx", "--json")
    assert json.loads(done.out)["error"]["code"] == "NEUC-E004"


def test_a_bug_leaves_a_report_with_a_reproducer(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from neuc.passes.fuse_maps import FuseMaps

    def explode(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(FuseMaps, "apply", explode)
    done = neuc("compile", model, "--no-cache", "-o", tmp_path / "m.neuc")
    assert done.status == Exit.BUG
    assert "boom" in done.err
    assert "Traceback" not in done.err
    folder = Path(next(line for line in done.err.splitlines() if line.startswith("report: ")).removeprefix("report: "))
    assert "RuntimeError: boom" in (folder / "traceback.txt").read_text()
    assert "fuse-maps" in (folder / "report.txt").read_text()
    monkeypatch.undo()
    assert neuc("opt", folder / "reproducer.mlir").status == Exit.OK


def test_dumped_ir_compiles_to_the_same_results(model: Path, tmp_path: Path):
    dump = tmp_path / "dump"
    done = neuc("compile", model, "--target", "cpu-tl2", "--dump-ir", dump, "-o", tmp_path / "m.neuc")
    assert done.status == Exit.OK, done.err
    names = sorted(path.name for path in dump.iterdir())
    assert names[0].startswith("00-import")
    assert any(name.endswith(".ll") for name in names)
    assert any(name.endswith(".s") for name in names)
    (tiled,) = dump.glob("*-tile-lut.mlir")
    text = tiled.read_text()
    assert "BM = " in text
    assert neuc("compile", tiled, "-o", tmp_path / "again.neuc").status == Exit.OK
    for name in ("m", "again"):
        neuc("run", tmp_path / f"{name}.neuc", "-o", tmp_path / f"{name}.npz")
    assert np.array_equal(np.load(tmp_path / "m.npz")["y"], np.load(tmp_path / "again.npz")["y"])


@pytest.mark.parametrize("level", ["graph", "paradigm", "machine"])
def test_compilation_stops_at_a_level_and_goes_on(level: str, model: Path, tmp_path: Path):
    text = tmp_path / f"m.{level}.mlir"
    target = ("--target", "cpu-ref")  # its kernels are short: xDSL reads some 1500 operations a second
    assert neuc("compile", model, *target, "-o", tmp_path / "whole.neuc").status == Exit.OK
    assert neuc("compile", model, *target, "--compile-to", level, "-o", text).status == Exit.OK
    going_on = target if level == "graph" else ()
    assert neuc("compile", text, *going_on, "-o", tmp_path / "m.neuc").status == Exit.OK
    for source, name in ((tmp_path / "whole.neuc", "direct"), (tmp_path / "m.neuc", "staged")):
        assert neuc("run", source, "-o", tmp_path / f"{name}.npz").status == Exit.OK
    assert np.array_equal(np.load(tmp_path / "direct.npz")["y"], np.load(tmp_path / "staged.npz")["y"])
    back = neuc("compile", text, "--compile-to", "graph", "-o", tmp_path / "back.mlir")
    assert back.status == (Exit.OK if level == "graph" else Exit.USAGE)


def test_print_ir_after_a_pass(model: Path, tmp_path: Path):
    done = neuc("compile", model, "--print-ir-after", "fuse-activation", "-o", tmp_path / "m.neuc")
    assert "IR after fuse-activation" in done.out
    assert "#dense.activation<relu" in done.out


def _start(*arguments: str | Path, **kwargs: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "neuc", *(str(argument) for argument in arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/")


def test_interrupting_a_compile_leaves_nothing(model: Path, tmp_path: Path):
    dump, output = tmp_path / "dump", tmp_path / "m.neuc"
    process = _start("compile", model, "--target", "cpu-tl2", "--dump-ir", dump, "-o", output)
    while not (dump.is_dir() and list(dump.iterdir())):  # until it is well into it
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == Exit.INTERRUPTED
    assert err.decode().splitlines()[-1] == "interrupted"
    assert b"Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["dump"]


def test_a_closed_pipe_is_no_error():
    process = _start("passes")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    assert process.wait() == Exit.OK


def test_a_full_disk_under_stdout_is_told_in_two_lines():
    """A file that may not grow stands for the full disk."""
    limited = "import resource, signal, sys; from neuc.compiler.cli import main; " + (
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)); "
        "sys.exit(main(['passes']))"
    )
    with tempfile.TemporaryFile() as small:
        done = subprocess.run([sys.executable, "-c", limited], stdout=small, stderr=subprocess.PIPE, text=True, cwd="/")
    assert done.returncode == Exit.FAULT, done.stderr
    assert done.stderr.startswith("error[NEUC-E005]: cannot write ")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("kind", [ImportError, Error])
def test_control_c_within_an_import_interrupts(kind: type[Exception], monkeypatch: pytest.MonkeyPatch):
    def interrupted() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as cause:
            raise (Error("NEUC-E404", "no onnxruntime") if kind is Error else kind("initialisation failed")) from cause

    monkeypatch.setattr("neuc.compiler.cache.usage", interrupted)
    done = neuc("cache")
    assert done.status == Exit.INTERRUPTED
    assert done.err == "interrupted\n"


def test_a_swallowed_control_c_writes_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from neuc.compiler import api

    def swallowing(*arguments: Any, **options: Any) -> api.Compiled:
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        return original(*arguments, **options)

    original = api.compile_model
    monkeypatch.setattr(api, "compile_model", swallowing)
    done = neuc("compile", model, "-o", tmp_path / "m.neuc", "--no-cache")
    assert (done.status, done.err.splitlines()[-1]) == (Exit.INTERRUPTED, "interrupted")
    assert list(tmp_path.glob("*.neuc*")) == []


def test_quiet_leaves_errors_only(model: Path, tmp_path: Path):
    done = neuc("-q", "compile", model, "-o", tmp_path / "m.neuc")
    assert (done.status, done.out, done.err) == (Exit.OK, "", "")
    assert neuc("-q", "compile", tmp_path / "none.onnx").err.startswith("error[")
    assert neuc("compile", "-q", model, "-o", tmp_path / "m.neuc") == done
    assert neuc("npu", "show", "--quiet", tmp_path / "none.neuc").err.startswith("error[")
    assert "wrote " in neuc("compile", model, "-o", tmp_path / "m.neuc").err


def test_the_bare_command_prints_help():
    done = neuc()
    assert (done.status, done.err) == (Exit.OK, "")
    assert done.out.startswith("Usage: neuc")


def test_version_and_help_cost_little():
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "neuc", "--help"], capture_output=True, cwd="/")
    assert done.returncode == 0
    imported = {line.rsplit(b"|", 1)[-1].strip().split(b".")[0] for line in done.stderr.splitlines()}
    assert not imported & {b"numpy", b"onnx", b"xdsl", b"llvmlite", b"onnxruntime"}
    assert os.environ["NEUC_CACHE_DIR"], "tests must not use the user's cache"
