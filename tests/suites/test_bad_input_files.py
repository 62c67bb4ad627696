"""Broken artifacts, IR text and places to write to, and what a run is fed, through the command line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_models import model, node, value
from refusals import check_refusal, contents, neuc, refuse

WEIGHT = np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with m.onnx, x[B, 8] and z[B, 4] to y[B, 4], and its artifact."""
    folder = tmp_path_factory.mktemp("made")
    nodes = [node("MatMul", "x w", "h"), node("Add", "h z", "y")]
    inputs = [value("x", ["B", 8]), value("z", ["B", 4])]
    onnx.save(model(nodes, inputs, [value("y", ["B", 4])], {"w": WEIGHT}), folder / "m.onnx")
    outcome = neuc("compile", str(folder / "m.onnx"), "-o", str(folder / "m.neuc"))
    assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of `made`."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize(
    "arguments",
    [
        ["compile", "m.onnx", "-o", "pipe"],
        ["compile", "m.onnx", "--no-cache", "-o", "pipe"],
        ["compile", "m.onnx", "--compile-to", "graph", "-o", "pipe"],
        ["compile", "m.onnx", "--report", "pipe"],
        ["compile", "m.onnx", "--dump-ir", "pipe"],
        ["run", "m.neuc", "-o", "pipe"],
        ["run", "m.neuc", "--profile", "pipe"],
        ["opt", "empty.mlir", "-o", "pipe"],
    ],
    ids=" ".join,
)
def test_nothing_takes_the_place_of_a_pipe_or_device(folder: Path, arguments: list[str]):
    Path("empty.mlir").write_text("builtin.module {\n}\n")
    os.mkfifo("pipe")
    refuse(folder, 1, arguments, "NEUC-E005", "pipe")
    assert Path("pipe").is_fifo()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_an_artifact_does_not_take_the_place_of_a_pipe(folder: Path):
    import neuc
    from neuc.errors import Error

    os.mkfifo("pipe")
    with pytest.raises(Error, match="no regular file"):
        neuc.compile("m.onnx").save("pipe")
    assert Path("pipe").is_fifo()


DAMAGE = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "last byte missing": lambda data: data[:-1],
    "random": lambda data: np.random.default_rng(0).bytes(3000),
    "bit flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :],
    "bytes in front": lambda data: b"12345678" + data,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("command", ["run", "inspect", "bench"])
def test_damaged_artifacts(folder: Path, damage: str, command: str):
    Path("bad.neuc").write_bytes(DAMAGE[damage](Path("m.neuc").read_bytes()))
    refuse(folder, 1, [command, "bad.neuc"], "bad.neuc", "hint: ")


def test_verify_says_which_part_is_damaged(folder: Path):
    data = bytearray(Path("m.neuc").read_bytes())
    at = data.index(WEIGHT.tobytes()[:16]) if WEIGHT.tobytes()[:16] in data else data.index(b"\x7fELF") + 99
    data[at] ^= 1
    Path("bad.neuc").write_bytes(data)
    outcome = neuc("verify", "bad.neuc")
    assert outcome.code == 1
    assert "damaged" in outcome.out + outcome.err
    assert "kernels" in outcome.out + outcome.err or "weights" in outcome.out + outcome.err


@pytest.mark.parametrize("command", ["run", "verify", "inspect", "bench"])
@pytest.mark.parametrize(("file", "says"), [("missing.neuc", "no such file"), ("dir.neuc", "folder")])
def test_artifacts_that_are_not_there(folder: Path, command: str, file: str, says: str):
    Path("dir.neuc").mkdir()
    refuse(folder, 1, [command, file], file, says)


@pytest.mark.parametrize("command", [["compile"], ["device", "fit", "-o", "table.csv"], ["npu", "validate"]])
def test_files_that_are_not_there_come_with_a_cure(folder: Path, command: list[str]):
    refuse(folder, 1, [*command, "missing.mlir"], "missing.mlir", "hint: check the path")


LONG = "n" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["compile", f"{LONG}.onnx"],
        ["compile", "m.onnx", "-o", f"{LONG}.neuc"],
        ["compile", "m.onnx", "-o", "out.neuc", "--dump-ir", LONG],
        ["run", f"{LONG}.neuc"],
        ["run", "m.neuc", "--profile", LONG],
        ["inspect", "m.onnx", "--html", f"{LONG}.html"],
        ["verify", LONG],
    ],
)
def test_names_that_are_too_long(folder: Path, arguments: list[str]):
    refuse(folder, 1, arguments, LONG, "File name too long", "hint: ")


def test_names_that_are_too_long_while_they_are_written(folder: Path):
    """Files are written under a longer name first."""
    refuse(folder, 1, ["inspect", "m.onnx", "--html", "n" * 250], "n" * 250, "File name too long", "hint: ")


def test_an_onnx_file_called_neuc_and_the_reverse(folder: Path):
    shutil.copy("m.onnx", "liar.neuc")
    shutil.copy("m.neuc", "liar.onnx")
    refuse(folder, 1, ["run", "liar.neuc"], "liar.neuc")
    refuse(folder, 1, ["compile", "liar.onnx", "-o", "out.neuc"], "liar.onnx")


TEXTS = {
    "words": b"hello world\n",
    "not utf-8": b"\xff\xfe\x00\x01" * 20,
    "half an operation": b'builtin.module {\n  func.func @main(%x: tensor<2xf32>) -> ',
    "undefined value": b"builtin.module {\n  func.func @main() -> f32 {\n    func.return %gone : f32\n  }\n}\n",
    "unknown dialect": b'builtin.module {\n  "zork.op"() : () -> ()\n}\n',
    "no main": b"builtin.module {\n}\n",
    "main without a body": b"builtin.module {\n  func.func private @main(tensor<2xf32>) -> tensor<2xf32>\n}\n",
    "empty": b"",
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_text_that_is_no_ir(folder: Path, case: str):
    Path("bad.mlir").write_bytes(TEXTS[case])
    says = {"empty": "bad.mlir is empty"}.get(case, "main" if "main" in case else "bad.mlir")
    refuse(folder, 1, ["compile", "bad.mlir", "-o", "out.neuc"], says)


def test_text_whose_constants_are_missing(folder: Path):
    """The IR names its weights; without the file beside it, that is said, and by the constant's name."""
    assert neuc("compile", "m.onnx", "--compile-to", "graph", "-o", "g.mlir").code == 0
    shutil.copy("g.mlir", "alone.mlir")
    refuse(folder, 1, ["compile", "alone.mlir", "-o", "out.neuc"], "w", "hint: ")


PLACES = {
    "no/such/out.neuc": "no/such",
    "dir": "dir",
    "m.onnx/out.neuc": "m.onnx",
    "/proc/out.neuc": "/proc/out.neuc",
}


@pytest.mark.parametrize("place", PLACES)
def test_places_that_cannot_be_written(folder: Path, place: str):
    Path("dir").mkdir()
    refuse(folder, 1, ["compile", "m.onnx", "-o", place], PLACES[place], "cannot write")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(folder: Path):
    Path("locked").mkdir(mode=0o500)
    refuse(folder, 1, ["compile", "m.onnx", "-o", "locked/out.neuc"], "locked", "cannot write")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "m.neuc", "-o", "no/out.npz"],
        ["run", "m.neuc", "-o", "dir"],
        ["run", "m.neuc", "--profile", "no/trace.json"],
        ["compile", "m.onnx", "-o", "out.neuc", "--report", "no/report.json"],
        ["compile", "m.onnx", "-o", "out.neuc", "--dump-ir", "m.onnx/dump"],
    ],
    ids=" ".join,
)
def test_other_outputs_that_cannot_be_written(folder: Path, arguments: list[str]):
    """Refused before the work, so that nothing at all is written."""
    Path("dir").mkdir()
    refuse(folder, 1, arguments, arguments[-1].split("/")[0], "cannot write")


X, Z = np.zeros((2, 8), np.float32), np.zeros((2, 4), np.float32)


@pytest.fixture
def feeds(folder: Path) -> Path:
    """`folder` with arrays, sound and unsound."""
    arrays = {"ok": X, "f64": X.astype(np.float64), "i32": X.astype(np.int32), "flat": X[0], "deep": X[None]}
    arrays |= {"narrow": X[:, :7], "batch3": np.zeros((3, 4), np.float32)}
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    np.save("pickled.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    Path("garbage.npy").write_bytes(b"\x93NUMPY\x01\x00 garbage")
    Path("empty.npy").write_bytes(b"")
    Path("cut.npy").write_bytes(Path("ok.npy").read_bytes()[:150])
    np.savez("other.npz", x=X, z=Z, zork=X)
    np.savez("pickled.npz", x=np.array([{}], dtype=object), z=Z)
    Path("garbage.npz").write_bytes(b"PK\x03\x04 garbage")
    Path("dir").mkdir()
    return folder


FEEDS = {
    "unknown name": (2, ["zork=@ok.npy"], "'zork'", "x"),
    "unknown name in an npz": (2, ["@other.npz"], "'zork'", "x"),
    "double": (2, ["x=@f64.npy"], "'x'", "float32", "float64"),
    "integer": (2, ["x=@i32.npy"], "'x'", "float32", "int32"),
    "integer, spelt": (2, ["x=2x8xi64=0"], "'x'", "int64"),
    "rank 1": (2, ["x=@flat.npy"], "'x'", "2 dimensions", "[8]"),
    "rank 3": (2, ["x=@deep.npy"], "'x'", "2 dimensions", "[1, 2, 8]"),
    "size": (2, ["x=@narrow.npy"], "'x'", "[2, 7]", "8"),
    "symbol": (2, ["x=@ok.npy", "z=@batch3.npy"], "'z'", "B = 2"),
    "pickled npy": (1, ["x=@pickled.npy"], "pickled.npy"),
    "pickled npz": (1, ["@pickled.npz"], "pickled.npz"),
    "garbage npy": (1, ["x=@garbage.npy"], "garbage.npy"),
    "garbage npz": (1, ["@garbage.npz"], "garbage.npz"),
    "empty npy": (1, ["x=@empty.npy"], "empty.npy"),
    "cut npy": (1, ["x=@cut.npy"], "cut.npy"),
    "missing npy": (1, ["x=@missing.npy"], "missing.npy"),
    "folder": (1, ["x=@dir"], "dir"),
    "npz for one input": (2, ["x=@other.npz"], "other.npz"),
    "no dtype": (2, ["x=2x8=0"], "2x8=0"),
    "unknown dtype": (2, ["x=2x8xq8=0"], "2x8xq8=0"),
    "no value": (2, ["x=2x8xf32"], "2x8xf32"),
    "value is no number": (2, ["x=2x8xf32=abc"], "abc"),
    "wrong number of values": (2, ["x=2x8xf32=1,2,3"], "1,2,3"),
    "negative size": (2, ["x=-2x8xf32=0"], "-2x8"),
    "seed": (2, ["x=random:abc"], "random:abc"),
    "nothing": (2, ["x="], "x="),
    "no name": (2, ["="], "input"),
    "a word": (2, ["zork"], "zork"),
    "no memory for it": (1, ["x=1099511627776x8xf32=0"], "memory"),
}


@pytest.mark.parametrize("case", FEEDS)
def test_wrong_feeds(feeds: Path, case: str):
    code, specs, *says = FEEDS[case]
    refuse(
        feeds, code, ["run", "m.neuc", *(word for spec in specs for word in ("--input", spec)), "-o", "out.npz"], *says
    )


@pytest.mark.parametrize(
    ("expected", "code"),
    [("missing.npz", 1), ("garbage.npz", 1), ("other.npz", 2)],
)
def test_expected_values_that_cannot_be_compared(feeds: Path, expected: str, code: int):
    outcome = neuc("run", "m.neuc", "--input", "x=@ok.npy", "--expected", expected)
    check_refusal(outcome, code, ["x" if expected == "other.npz" else expected])


def test_other_values_than_expected_exit_4(feeds: Path):
    np.savez("y.npz", y=np.ones((2, 4), np.float32))
    before = contents(feeds)
    outcome = neuc("run", "m.neuc", "--input", "x=@ok.npy", "--input", "z=2x4xf32=0", "--expected", "y.npz")
    assert outcome.code == 4
    assert "max abs 1.00e+00" in outcome.out
    assert contents(feeds) == before
