"""`neuc convert`: weights are the same in every format, what else a file holds is copied, and what changed is told."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

import weight_files as wf
from neuc.compiler.formats import table
from neuc.compiler.formats.convert import convert
from neuc.compiler.formats.gguf import GgufFile
from neuc.compiler.formats.hf_folder import HfFolder
from neuc.compiler.formats.plan import Conversion, Options
from neuc.compiler.formats.safetensors_file import SafetensorsFile
from neuc.compiler.formats.sources import TlSizes, open_source, parse_tl_sizes, tl_format
from neuc.compiler.formats.ternary import TENSOR, Ternary
from neuc.compiler.formats.tl import TlBlocks
from neuc.errors import Error
from refusals import neuc
from weight_files import Gguf, T, entry

ROWS, COLUMNS = 32, 768
LEVELS = np.random.default_rng(7).integers(-1, 2, (ROWS, COLUMNS)).astype(np.int8)
TL = TlSizes({}, TlBlocks(32, 96, 32))


def payload(name: str, scale: float = 0.375) -> bytes:
    value = Ternary(LEVELS, np.full((1, 1), scale, np.float32), TENSOR)
    form = table.BLOCK_FORMATS.get(name) or tl_format(name, TlBlocks(32, 96, 32))
    return form.encode(value)


def gguf_file(path: Path, name: str, scale: float = 0.375, *more: bytes) -> Path:
    entries = [wf.ARCH, entry("general.name", wf.STRING, "tiny"), *more]
    tensors = [
        wf.f32("output_norm.weight"),
        T("blk.0.ffn_up.weight", [ROWS, COLUMNS], table.GGUF_FORMS[name].type_id, payload(name, scale)),
        wf.f32("last"),
    ]
    path.write_bytes(Gguf(entries, tensors).build())
    return path


def to(source: Path, target: Path, name: str, *, read_as: tuple[str, ...] = (), lossy: bool = False) -> Conversion:
    opened = open_source(source, read_as=read_as, tl_sizes=TL)
    return convert(opened, target, Options(name, opened.tl_sizes, lossy))


def raw(path: Path) -> dict[str, bytes]:
    file = GgufFile.open(path, read_as=("q2_0-g128",) if "g128" in path.name else ())
    return {name: bytes(file.payload(tensor)) for name, tensor in file.tensors.items()}


@pytest.mark.parametrize("first", table.GGUF_FORMS)
def test_to_every_format_and_back_is_the_same_file(tmp_path: Path, first: str):
    start = gguf_file(tmp_path / "start.gguf", first)
    for second in table.GGUF_FORMS:
        there, back = tmp_path / f"{second}.gguf", tmp_path / "back.gguf"
        done = to(start, there, second, read_as=(first,))
        assert (done.tensors, done.scale_error, done.copied) == (("blk.0.ffn_up.weight",), 0, 2)
        assert raw(there) == raw(start) | {"blk.0.ffn_up.weight": payload(second)}
        # What was written says itself how it is to be read: no --read-as, no --tl.
        opened = open_source(there)
        assert not [text for text in opened.warnings if "I2_S" in text or "TL1" in text]
        convert(opened, back, Options(first, TL))
        assert raw(back) == raw(start)


def test_metadata_are_copied_and_the_file_type_follows(tmp_path: Path):
    more = [entry("general.file_type", wf.U32, 40), entry("x.y", wf.ARRAY, (wf.STRING, ["a", "b"]))]
    to(gguf_file(tmp_path / "a.gguf", "i2_s", 0.375, *more), tmp_path / "b.gguf", "tq2_0")
    before, after = GgufFile.open(tmp_path / "a.gguf"), GgufFile.open(tmp_path / "b.gguf")
    assert list(before.fields) == list(after.fields)
    assert (before.file_type, after.file_type) == (40, 37)
    assert after.text("general.name") == "tiny"


def test_the_gguf_package_reads_the_result(tmp_path: Path):
    to(gguf_file(tmp_path / "a.gguf", "i2_s"), tmp_path / "b.gguf", "tq1_0")
    tensor = gguf.GGUFReader(tmp_path / "b.gguf").tensors[1]
    weights = gguf.dequantize(tensor.data, tensor.tensor_type)
    np.testing.assert_array_equal(weights, LEVELS * np.float32(0.375))


def test_scales_are_rounded_only_when_asked_for(tmp_path: Path):
    source = gguf_file(tmp_path / "a.gguf", "i2_s", 0.1)
    with pytest.raises(Error, match="1 of 1 ternary tensors") as caught:
        to(source, tmp_path / "b.gguf", "tq2_0")
    assert caught.value.code == "NEUC-E123"
    assert not (tmp_path / "b.gguf").exists()
    done = to(source, tmp_path / "b.gguf", "tq2_0", lossy=True)
    exact = float(np.float32(0.1))
    assert done.scale_error == pytest.approx(abs(float(np.float16(0.1)) / exact - 1), rel=1e-6)
    assert done.scale_error > 0


def test_the_layout_of_i2_s_is_assumed_with_a_warning(tmp_path: Path):
    source = gguf_file(tmp_path / "a.gguf", "i2_s-neon")
    assumed, told = open_source(source), open_source(source, read_as=("i2_s-neon",))
    assert len(assumed.warnings) == 1
    assert "--read-as i2_s-neon" in assumed.warnings[0]
    assert not told.warnings
    found = [tensor.decode() for opened in (assumed, told) for tensor in opened.tensors if tensor.decode]
    np.testing.assert_array_equal(found[1].levels, LEVELS)
    assert (found[0].levels != LEVELS).any()


@pytest.mark.parametrize("name", ["tl1", "tl2"])
def test_a_scale_beside_a_tl_tensor_moves_into_it(tmp_path: Path, name: str):
    data = payload(name)
    tensors = [
        T("w", [ROWS, COLUMNS], table.GGUF_FORMS[name].type_id, data[:-32]),
        T("w_scale", [1], 0, struct.pack("<f", 0.375)),
    ]
    (tmp_path / "a.gguf").write_bytes(Gguf(tensors=tensors).build())
    done = to(tmp_path / "a.gguf", tmp_path / "b.gguf", "tq2_0")
    assert done.dropped == ("w_scale",)
    assert raw(tmp_path / "b.gguf") == {"w": payload("tq2_0")}
    (tmp_path / "c.gguf").write_bytes(Gguf(tensors=tensors[:1]).build())
    with pytest.raises(Error, match="it has no scale, neither behind it nor in a tensor beside it"):
        to(tmp_path / "c.gguf", tmp_path / "d.gguf", "tq2_0")


def test_block_sizes_as_users_have_them(tmp_path: Path):
    ini = tmp_path / "kernel_config.ini"
    ini.write_text("[Kernels_0]\nm = 3200\nk = 8640\nbm = 160\nbk = 96\nbmm = 32\n")
    sizes = parse_tl_sizes([str(ini), "64x128=32,64,32", "128,96,32"])
    assert sizes.find(3200, 8640) == TlBlocks(160, 96, 32)
    assert sizes.find(64, 128) == TlBlocks(32, 64, 32)
    assert sizes.find(1, 1) == TlBlocks(128, 96, 32)
    assert TlSizes({(1, 1): TlBlocks(9, 9, 9)}).over(sizes).find(1, 1) == TlBlocks(9, 9, 9)


def test_experts_are_rows(tmp_path: Path):
    """A tensor of three dims has one scale for all, or one for each row of each expert."""
    levels = LEVELS.reshape(2, 16, COLUMNS)
    tensors = [T("experts", levels.shape, 36, payload("i2_s"))]
    (tmp_path / "a.gguf").write_bytes(Gguf(tensors=tensors).build())
    to(tmp_path / "a.gguf", tmp_path / "b.gguf", "iq2_bn")
    assert GgufFile.open(tmp_path / "b.gguf").tensors["experts"].shape == levels.shape
    assert raw(tmp_path / "b.gguf") == {"experts": payload("iq2_bn")}


def test_a_rotated_file_stays_rotated(tmp_path: Path):
    more = [
        entry("prism.hadamard.version", wf.U32, 1),
        entry("prism.hadamard.block_size", wf.U32, 256),
        entry("prism.hadamard.transform", wf.STRING, "normalized-sylvester-walsh-hadamard"),
        entry("prism.hadamard.axis", wf.STRING, "input-last-dimension"),
        entry("prism.hadamard.sign_mode", wf.STRING, "identity"),
        entry("prism.hadamard.weight_names", wf.ARRAY, (wf.STRING, ["blk.0.ffn_up.weight"])),
    ]
    source = gguf_file(tmp_path / "a.gguf", "pq2_0", 0.375, *more)
    assert any("stored rotated" in text for text in open_source(source).warnings)
    done = to(source, tmp_path / "b.gguf", "ptq1_0")
    assert any("stay rotated" in text for text in done.notes)
    found = GgufFile.open(tmp_path / "b.gguf").hadamard
    assert found is not None
    assert found.weights == ("blk.0.ffn_up.weight",)


def hf_model(folder: Path, linear_class: str, scale: tuple[str, bytes]) -> Path:
    """Two packed weights of [8, 128], one with a bias that leaves it seven rows, and an embedding."""
    codes = np.random.default_rng(3).choice([0, 1, 2, 4, 5, 6, 8, 9, 10], (2, 128)).astype(np.uint8)
    dtype, value = scale
    stored = [
        ("embed.weight", "BF16", [4, 128], bytes(range(256)) * 4),
        ("l.0.weight", "U8", [2, 128], (codes | codes << 4).tobytes()),
        ("l.0.weight_scale", dtype, [1], value),
        ("l.1.weight", "U8", [2, 128], codes.tobytes()),
        ("l.1.weight_scale", dtype, [1], value),
        ("l.1.bias", "F32", [7], bytes(28)),
    ]
    wf.hf_folder(folder, stored, linear_class=linear_class)
    (folder / "tokenizer.json").write_text("{}")
    return folder


BF16_3 = ("BF16", b"\x40\x40")


def stored_in(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    file = SafetensorsFile.open(folder / "model.safetensors")
    return {name: (t.dtype, t.shape, bytes(file.payload(t))) for name, t in file.tensors.items()}


@pytest.mark.parametrize(("linear_class", "scale"), [("bitlinear", 1 / 3), ("autobitlinear", 3)])
def test_a_folder_through_gguf_and_back(tmp_path: Path, linear_class: str, scale: float):
    folder = hf_model(tmp_path / "m", linear_class, BF16_3)
    done = to(folder, tmp_path / "a.gguf", "i2_s")
    assert len(done.tensors) == 2
    assert any("cannot run it" in text for text in done.notes)
    assert any("reciprocals" in text for text in done.notes) == (linear_class == "bitlinear")
    values = [tensor.decode() for tensor in open_source(tmp_path / "a.gguf").tensors if tensor.decode]
    assert [value.scales[0, 0] for value in values] == [np.float32(scale)] * 2
    assert [value.rows for value in values] == [8, 7]
    to(tmp_path / "a.gguf", tmp_path / "back", f"hf-{linear_class}")
    assert stored_in(tmp_path / "back") == stored_in(folder)
    assert (tmp_path / "back" / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_a_folder_whose_scale_changes_its_meaning(tmp_path: Path):
    folder = hf_model(tmp_path / "m", "bitlinear", ("F32", struct.pack("<f", 0.25)))
    to(folder, tmp_path / "n", "hf-autobitlinear")
    before, after = HfFolder.open(folder), HfFolder.open(tmp_path / "n")
    for name in ("l.0.weight", "l.1.weight"):
        assert after.packed[name].weight_scale == 4
        np.testing.assert_array_equal(before.ternary(name).dequantize(), after.ternary(name).dequantize())
    section = json.loads((tmp_path / "n" / "config.json").read_text())["quantization_config"]
    assert section == {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
    assert (tmp_path / "n" / "tokenizer.json").read_text() == "{}"
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_a_folder_in_several_files(tmp_path: Path):
    folder = hf_model(tmp_path / "m", "bitlinear", BF16_3)
    whole = stored_in(folder)
    names = sorted(whole)
    for number, part in enumerate((names[:3], names[3:])):
        stored = [(name, *whole[name]) for name in part]
        (folder / f"part{number}.safetensors").write_bytes(wf.safetensors(stored))
    weight_map = {name: f"part{number}.safetensors" for number, p in enumerate((names[:3], names[3:])) for name in p}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    to(folder, tmp_path / "n", "hf-bitlinear")
    assert stored_in(tmp_path / "n") == whole
    assert not (tmp_path / "n" / "model.safetensors.index.json").exists()


def test_the_safetensors_package_reads_the_result(tmp_path: Path):
    from safetensors import safe_open

    folder = hf_model(tmp_path / "m", "autobitlinear", ("F32", struct.pack("<f", 0.25)))
    to(folder, tmp_path / "n", "hf-bitlinear")
    with safe_open(tmp_path / "n" / "model.safetensors", framework="np") as file:
        assert file.get_tensor("l.0.weight_scale").tolist() == [4.0]
        assert file.get_tensor("l.0.weight").tobytes() == stored_in(folder)["l.0.weight"][2]


def test_what_the_commands_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: object):
    assert callable(golden)
    monkeypatch.chdir(tmp_path)
    more = [
        entry("general.file_type", wf.U32, 40),
        entry("tokenizer.ggml.model", wf.STRING, "gpt2"),
        entry("tokenizer.ggml.tokens", wf.ARRAY, (wf.STRING, ["a", "b"])),
        entry("x.text", wf.STRING, "two\nlines and \x1b[31m colour"),
        entry("x.nan", wf.F32, float("nan")),
    ]
    gguf_file(Path("a.gguf"), "i2_s", 0.1, *more)
    inspected = neuc("inspect", "a.gguf")
    golden("inspect", inspected.out)
    assert (inspected.code, inspected.err) == (0, "")
    found = json.loads(neuc("inspect", "a.gguf", "--json").out)
    assert found["file_type"] == {"number": 40, "name": "i2_s"}
    assert found["metadata"]["x.nan"] == "nan"
    (ternary,) = found["ternary"]
    assert ternary["zeros"] == pytest.approx(1 - np.count_nonzero(LEVELS) / LEVELS.size, abs=1e-6)
    assert ternary["scale"] == "tensor"
    converted = neuc("convert", "a.gguf", "b.gguf", "--format", "tq2_0", "--lossy-scales")
    golden("convert", converted.err)
    assert (converted.code, converted.out) == (0, "")
    report = json.loads(neuc("convert", "a.gguf", "b.gguf", "--format", "tl1", "--tl", "32,96,32", "--json").out)
    assert report["tensors"] == ["blk.0.ffn_up.weight"]
    assert report["bytes_after"] == ROWS * COLUMNS // 4 + 32
    assert "0.1" in neuc("inspect", "b.gguf", "--json").out


def test_inspecting_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: object):
    assert callable(golden)
    monkeypatch.chdir(tmp_path)
    hf_model(Path("m"), "bitlinear", BF16_3)
    outcome = neuc("inspect", "m")
    golden("inspect_folder", outcome.out)
    assert outcome.code == 0


def test_inspecting_tl_without_block_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    gguf_file(Path("a.gguf"), "tl2")
    without, with_sizes = neuc("inspect", "a.gguf"), neuc("inspect", "a.gguf", "--tl", "32x768=32,96,32")
    assert without.code == with_sizes.code == 0
    assert "give them with --tl" in without.out
    assert "warning" not in with_sizes.out
    assert f"{100 * (1 - np.count_nonzero(LEVELS) / LEVELS.size):.1f} %" in with_sizes.out
