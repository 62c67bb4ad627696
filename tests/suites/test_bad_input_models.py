"""Broken and hostile ONNX models through `neuc compile`, `check` and `run`: each is refused in one line, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_models import F, model, node, value
from refusals import neuc, refuse

WEIGHT = np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)
BYTES = WEIGHT.nbytes
OUT = ["-o", "out.neuc"]


def named(name: str, made: NodeProto) -> NodeProto:
    made.name = name
    return made


def tensor(dims: Sequence[int], data: int = BYTES, number: int = F) -> TensorProto:
    """Initializer `w` with `data` bytes of zeros."""
    return TensorProto(name="w", data_type=number, dims=dims, raw_data=bytes(data))


def external(location: str | None, offset: object = None, length: object = None) -> TensorProto:
    """Initializer `w` kept in another file."""
    made = TensorProto(name="w", data_type=F, dims=WEIGHT.shape, data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("offset", offset), ("length", length)):
        if text is not None:
            made.external_data.add(key=key, value=str(text))
    return made


def linear(weight: TensorProto | None = None, *, opset: int = 21) -> ModelProto:
    """MatMul `fc` and Relu `act`; x[B, 8] gives y[B, 4]."""
    nodes = [named("fc", node("MatMul", "x w", "h")), named("act", node("Relu", "h", "y"))]
    made = model(nodes, [value("x", ["B", 8])], [value("y", ["B", 4])], opset=opset)
    made.graph.initializer.append(numpy_helper.from_array(WEIGHT, "w") if weight is None else weight)
    return made


def small(nodes: Sequence[NodeProto], shape: Sequence[int | str] = (2, 4), **options: object) -> ModelProto:
    """Nodes from input x to output y of the same shape."""
    return model(nodes, [value("x", shape)], [value("y", shape)], **options)  # type: ignore[arg-type]


def changed(made: ModelProto, change: Callable[[ModelProto], object]) -> ModelProto:
    change(made)
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, inside another one that has a secret."""
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    made = tmp_path / "here"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


@pytest.mark.parametrize(
    "data",
    [b"", linear().SerializeToString()[:120], np.random.default_rng(0).bytes(2000), b"\x08", b"hello\n" * 50],
    ids=["empty", "truncated", "random", "one byte", "text"],
)
@pytest.mark.parametrize("command", [["compile", "m.onnx", *OUT], ["check", "m.onnx"], ["run", "m.onnx"]], ids=" ".join)
def test_files_that_are_no_models(folder: Path, data: bytes, command: list[str]):
    (folder / "m.onnx").write_bytes(data)
    refuse(folder, 1, command, "m.onnx", "hint: ")


@pytest.mark.parametrize(
    ("file", "says"),
    [("missing.onnx", "no such file"), ("is_a_folder.onnx", "folder"), ("notes.txt", "format")],
)
def test_paths_that_are_no_models(folder: Path, file: str, says: str):
    (folder / "is_a_folder.onnx").mkdir()
    (folder / "notes.txt").write_text("hello")
    refuse(folder, 1, ["compile", file, *OUT], file, says)


def test_any_flipped_bit_compiles_or_is_refused(folder: Path):
    """A flip in a number or a name may leave a sound model; nothing may leave a crash or a half-written file."""
    sound = linear().SerializeToString()
    positions = [bit for bit in range(0, 8 * len(sound), 7) if not 8 * 70 < bit < 8 * (70 + BYTES // 2)]
    codes = set()
    for bit in positions[::5]:
        data = bytearray(sound)
        data[bit // 8] ^= 1 << (bit % 8)
        Path("m.onnx").write_bytes(data)
        outcome = neuc("check", "m.onnx")
        assert outcome.code in (0, 1, 3), f"bit {bit}: exit code {outcome.code}\n{outcome.err}"
        assert "Traceback" not in outcome.err, f"bit {bit}"
        assert len([line for line in outcome.err.splitlines() if line.startswith("error")]) <= 1, f"bit {bit}"
        codes.add(outcome.code)
    assert codes >= {0, 1}, "the sweep met both kinds"
    assert [path.name for path in folder.iterdir()] == ["m.onnx"]


EXTERNAL = {
    "absolute path": (external("/etc/hostname"), "/etc/hostname"),
    "parent folder": (external("../secret.bin"), "../secret.bin"),
    "parent of a subfolder": (external("sub/../../secret.bin"), "sub/../../secret.bin"),
    "symbolic link": (external("link.bin"), "link.bin"),
    "missing file": (external("missing.bin"), "missing.bin"),
    "a folder": (external("sub"), "'sub'"),
    "no location": (external(None), "'w'"),
    "too long": (external("w.bin", 0, 2 * BYTES), str(2 * BYTES)),
    "too short": (external("w.bin", 0, BYTES - 4), str(BYTES - 4)),
    "huge length": (external("w.bin", 0, 2**62), str(2**62)),
    "offset past the end": (external("w.bin", BYTES // 2, BYTES), "w.bin"),
    "negative offset": (external("w.bin", -4, BYTES), "-4"),
    "offset is no number": (external("w.bin", "first", BYTES), "'w'"),
}


@pytest.mark.parametrize("case", EXTERNAL)
def test_external_data(folder: Path, case: str):
    weight, says = EXTERNAL[case]
    (folder / "w.bin").write_bytes(WEIGHT.tobytes())
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    (folder / "sub").mkdir()
    onnx.save(linear(weight), "m.onnx")
    refuse(folder, 1, ["compile", "m.onnx", *OUT], "tensor 'w'", says)


def test_sound_external_data_is_read(folder: Path):
    """The twin of the refusals: the same file, told right, compiles."""
    (folder / "w.bin").write_bytes(bytes(16) + WEIGHT.tobytes())
    onnx.save(linear(external("w.bin", 16, BYTES)), "m.onnx")
    assert neuc("check", "m.onnx").code == 0


TENSORS = {
    "astronomic": (tensor([2**40, 4]), "1099511627776"),
    "more than 64 bits": (tensor([2**33, 2**33], 0), "8589934592"),
    "negative": (tensor([-8, 4]), "-8"),
    "too few bytes": (tensor([8, 4], BYTES - 4), str(BYTES - 4)),
    "too many bytes": (tensor([8, 4], 2 * BYTES), str(2 * BYTES)),
    "no element type": (tensor([8, 4], number=0), "element type 0"),
    "unknown element type": (tensor([8, 4], number=99), "element type 99"),
    "strings without strings": (tensor([8, 4], number=TensorProto.STRING), "string"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_contradict_themselves(folder: Path, case: str):
    weight, says = TENSORS[case]
    onnx.save(linear(weight), "m.onnx")
    refuse(folder, 1, ["compile", "m.onnx", *OUT], "tensor 'w'", says)


def conv(**attributes: object) -> ModelProto:
    return model(
        [named("stem/conv", node("Conv", "x w", "y", **attributes))],
        [value("x", [1, 3, 2, 8])],
        [value("y", None)],
        {"w": np.ones((4, 3, 3, 3), np.float32)},
    )


SHAPES = {
    "inner dims": (linear(tensor([7, 4], 7 * 4 * 4)), "fc", "7"),
    "broadcast": (small([named("add", node("Add", "x w", "y"))], weights={"w": WEIGHT[:3]}), "add", "broadcast"),
    "axis": (small([named("sm", node("Softmax", "x", "y", axis=7))]), "sm", "axis 7"),
    "perm": (small([named("tr", node("Transpose", "x", "y", perm=[0, 0]))]), "tr", "perm"),
    "stride 0": (conv(strides=[0, 1]), "stem/conv", "stride 0"),
    "groups": (conv(group=2), "stem/conv", "channels"),
    "window": (conv(), "stem/conv", "window"),
    "reshape": (small([named("rs", node("Reshape", "x s", "y"))], weights={"s": np.array([3, 5])}), "rs", "15"),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPES)
def test_shapes_that_contradict_each_other(folder: Path, case: str):
    made, *says = SHAPES[case]
    onnx.save(made, "m.onnx")
    refuse(folder, 1, ["compile", "m.onnx", *OUT], *says)


RELU, ABS = node("Relu", "x", "y"), node("Abs", "x", "y")
GRAPHS = {
    "cycle": (small([named("n1", node("Add", "x y", "a")), named("n2", node("Relu", "a", "y"))]), "cycle", "n1", "n2"),
    "value made twice": (small([named("n1", RELU), named("n2", ABS)]), "'y'", "n2"),
    "input twice": (model([RELU], [value("x", [2]), value("x", [2])], [value("y", [2])]), "'x'"),
    "initializer twice": (changed(linear(), lambda m: m.graph.initializer.append(tensor([8, 4]))), "'w'"),
    "undefined input": (small([named("n1", node("Add", "x ghost", "y"))]), "'ghost'", "n1"),
    "undefined output": (changed(linear(), lambda m: setattr(m.graph.output[0], "name", "ghost")), "'ghost'"),
    "no outputs": (changed(linear(), lambda m: m.graph.ClearField("output")), "no outputs"),
    "no graph": (changed(linear(), lambda m: m.ClearField("graph")), "m.onnx"),
    "unknown attribute": (small([node("Relu", "x", "y", zork=7)]), "zork", "Relu"),
    "too many inputs": (small([named("r", node("Relu", "x x", "y"))]), "Relu"),
    "wrong element type": (
        model([named("r", RELU)], [value("x", [2], TensorProto.STRING)], [value("y", [2], TensorProto.STRING)]),
        "r (Relu)",
        "string",
    ),
    "no opset": (changed(linear(), lambda m: m.ClearField("opset_import")), "ai.onnx"),
    "future opset": (linear(opset=99), "version 99"),
    "opset 0": (linear(opset=0), "version 0"),
    "future IR version": (changed(linear(), lambda m: setattr(m, "ir_version", 99)), "version 99", "m.onnx"),
    "no IR version": (changed(linear(), lambda m: m.ClearField("ir_version")), "m.onnx"),
    "input without a rank": (model([RELU], [value("x", None)], [value("y", None)]), "'x'", "rank"),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_graphs_that_make_no_sense(folder: Path, case: str):
    made, *says = GRAPHS[case]
    onnx.save(made, "m.onnx")
    refuse(folder, 1, ["compile", "m.onnx", *OUT], *says)


FANCY = small(
    [
        named("layer2/fancy", node("FancyOp", "x", "a")),
        named("act", node("Relu", "a", "b")),
        named("layer3/fancy", node("FancyOp", "b", "c")),
        named("layer4/plain", node("PlainOp", "c", "y")),
    ]
)


@pytest.mark.parametrize(
    "command",
    [
        ["compile", "m.onnx", *OUT, "--fallback", "error"],
        ["compile", "m.onnx", *OUT],
        ["check", "m.onnx"],
        ["run", "m.onnx"],
    ],
    ids=" ".join,
)
def test_operators_nobody_knows_are_reported_together(folder: Path, command: list[str]):
    onnx.save(FANCY, "m.onnx")
    outcome = refuse(folder, 3, command, "FancyOp", "layer2/fancy", "layer3/fancy", "PlainOp", "layer4/plain")
    assert "act" not in outcome.err.replace("exact", "")


# Operators of ONNX that onnxruntime knows and neuc has no kernels for, from two inputs to two outputs.
HOSTED = model(
    [
        named("act", node("Relu", "x", "a")),
        named("tail/det", node("Det", "a", "d")),
        named("tail/unique", node("Unique", "a", "u")),
    ],
    [value("x", [4, 4])],
    [value("d", []), value("u", None)],
)
# Operators of domains that only some other runtime knows.
FOREIGN = small(
    [
        named("act", node("Relu", "x", "a")),
        named("layer4/blur", helper.make_node("Blur", ["a"], ["b"], domain="com.acme")),
        named("layer5/sharpen", helper.make_node("Sharpen", ["b"], ["y"], domain="org.other")),
    ],
    domains={"com.acme": 1, "org.other": 1},
)


@pytest.mark.parametrize("made", [HOSTED, FOREIGN], ids=["hosted", "foreign"])
def test_fallback_error_reports_everything_unsupported(folder: Path, made: ModelProto):
    onnx.save(made, "m.onnx")
    nodes = [n for n in made.graph.node if n.name != "act"]
    says = [text for n in nodes for text in (n.op_type, n.name)]
    refuse(folder, 3, ["compile", "m.onnx", *OUT, "--fallback", "error"], *says)


def test_check_lists_what_stays_on_the_host(folder: Path):
    onnx.save(HOSTED, "m.onnx")
    outcome = neuc("check", "m.onnx")
    assert outcome.code == 3
    assert not outcome.err
    for text in ("Det", "tail/det", "Unique", "tail/unique", "2 of 3"):
        assert text in outcome.out
