"""GGUF containers: read as the gguf package reads them, written as it writes them, ids told apart."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

import weight_files as wf
from neuc.compiler.formats.gguf import GgufFile
from neuc.compiler.formats.gguf_values import Array, Field, ValueType
from neuc.compiler.formats.gguf_writer import NewTensor, write_gguf
from neuc.errors import Error
from weight_files import Gguf, T, entry

SCALARS = {
    "u8": (wf.U8, 200),
    "i8": (wf.I8, -5),
    "u16": (wf.U16, 60000),
    "i16": (wf.I16, -300),
    "u32": (wf.U32, 2**32 - 1),
    "i32": (wf.I32, -(2**31)),
    "f32": (wf.F32, 0.1),
    "bool": (wf.BOOL, True),
    "string": (wf.STRING, "grüße\n"),
    "bytes": (wf.STRING, b"\xff no text"),
    "empty": (wf.STRING, ""),
    "u64": (wf.U64, 2**64 - 1),
    "i64": (wf.I64, -(2**63)),
    "f64": (wf.F64, 1e-300),
}
ARRAYS = {
    **{f"{key}s": (wf.ARRAY, (kind, [what, what])) for key, (kind, what) in SCALARS.items()},
    "none": (wf.ARRAY, (wf.F32, [])),
    "nested": (wf.ARRAY, (wf.ARRAY, [(wf.U8, [1, 2]), (wf.STRING, ["a", ""])])),
}


def write(path: Path, what: Gguf) -> Path:
    path.write_bytes(what.build())
    return path


def rewrite(source: GgufFile, path: Path) -> Path:
    """Write what was read."""
    tensors = [
        NewTensor(t.name, t.shape, t.type_id, t.nbytes, lambda t=t: source.payload(t)) for t in source.tensors.values()
    ]
    write_gguf(path, source.fields, tensors, version=source.version)
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_every_type_of_metadata_comes_back(tmp_path: Path, version: int):
    entries = [entry(key, kind, what) for key, (kind, what) in (SCALARS | ARRAYS).items()]
    path = write(tmp_path / "a.gguf", Gguf([wf.ARCH, *entries], [wf.f32()], version=version))
    file = GgufFile.open(path)
    assert file.version == version
    for key, (kind, what) in SCALARS.items():
        found = file.fields[key]
        assert found.type == kind
        if kind == wf.STRING:
            assert isinstance(found.value, str)
            raw = what.encode() if isinstance(what, str) else what
            assert found.value.encode("utf-8", "surrogateescape") == raw
        else:
            assert found.value == (np.float32(what) if kind == wf.F32 else what)
    nested = file.fields["nested"].value
    assert isinstance(nested, Array)
    assert [len(item) for item in nested.items if isinstance(item, Array)] == [2, 2]
    assert rewrite(file, tmp_path / "b.gguf").read_bytes() == path.read_bytes()


def test_bits_of_a_float_survive(tmp_path: Path):
    """A signalling NaN is no number Python keeps as it is."""
    raw = wf.text("x") + bytes([wf.F32, 0, 0, 0]) + b"\x01\x00\x80\x7f"
    path = write(tmp_path / "a.gguf", Gguf([raw], [wf.f32()]))
    assert rewrite(GgufFile.open(path), tmp_path / "b.gguf").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("alignment", [None, 8, 64])
def test_the_gguf_package_writes_what_is_read(tmp_path: Path, alignment: int | None):
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "bitnet")
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    writer.add_uint32("x.number", 7)
    writer.add_array("x.words", ["a", "", "ü"])
    arrays = {"a": rng.random((3, 5)).astype(np.float32), "b": rng.random(7).astype(np.float16)}
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    packed = gguf.quantize(rng.standard_normal((4, 512)).astype(np.float32), gguf.GGMLQuantizationType.TQ2_0)
    writer.add_tensor("c", packed, raw_dtype=gguf.GGMLQuantizationType.TQ2_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile.open(tmp_path / "a.gguf")
    assert file.alignment == (alignment or 32)
    assert file.architecture == "bitnet"
    assert not file.warnings
    for name, array in arrays.items():
        assert file.tensors[name].shape == array.shape
        assert bytes(file.payload(file.tensors[name])) == array.tobytes()
    assert file.tensors["c"].shape == (4, 512)
    assert bytes(file.payload(file.tensors["c"])) == packed.tobytes()
    assert rewrite(file, tmp_path / "b.gguf").read_bytes() == (tmp_path / "a.gguf").read_bytes()


def test_the_gguf_package_reads_what_is_written(tmp_path: Path):
    data = np.arange(512, dtype=np.float32)
    fields = {
        "general.architecture": Field.text("llama"),
        "general.alignment": Field.u32(64),
        "x.words": Field.texts(["a", "bc"]),
        "x.numbers": Field(ValueType.ARRAY, Array(ValueType.INT16, np.array([1, -2], np.int16))),
    }
    tensors = [
        NewTensor("a", (2, 256), 0, data.nbytes, lambda: data.tobytes()),
        NewTensor("b", (256,), 34, 54, lambda: bytes(54)),
    ]
    write_gguf(tmp_path / "a.gguf", fields, tensors)
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    assert [tensor.name for tensor in reader.tensors] == ["a", "b"]
    np.testing.assert_array_equal(reader.tensors[0].data, data.reshape(2, 256))
    assert reader.fields["x.words"].contents() == ["a", "bc"]
    assert reader.fields["x.numbers"].contents() == [1, -2]
    assert reader.tensors[1].data_offset % 64 == 0
    again = tmp_path / "b.gguf"
    write_gguf(again, fields, tensors)
    assert again.read_bytes() == (tmp_path / "a.gguf").read_bytes()


def test_tensors_may_lie_in_any_order_and_a_scalar_has_no_dims(tmp_path: Path):
    first, second = T("late", [8], 0, b"", offset=32), T("early", [], 0, b"\1\2\3\4" + bytes(60), offset=0)
    file = GgufFile.open(write(tmp_path / "a.gguf", Gguf(tensors=[first, second])))
    assert list(file.tensors) == ["late", "early"]
    assert file.tensors["early"].shape == ()
    assert bytes(file.payload(file.tensors["early"])) == b"\1\2\3\4"


def test_gaps_are_told(tmp_path: Path):
    file = GgufFile.open(write(tmp_path / "a.gguf", Gguf(tensors=[wf.f32("a"), wf.f32("b")], tail=bytes(100))))
    assert file.warnings == ("bytes after 'b' (1 gaps in all) belong to no tensor",)


ROWS, COLUMNS = 64, 256
WEIGHTS = ROWS * COLUMNS
Q2_64, Q2_128 = WEIGHTS // 64 * 18, WEIGHTS // 128 * 34
MXFP4 = WEIGHTS // 32 * 17
TL2 = 256 * ROWS // 4  # a multiple of 32
TL1 = WEIGHTS // 4


def opened(tmp_path: Path, tensors: list[T], arch: str = "llama", read_as: tuple[str, ...] = ()) -> GgufFile:
    what = Gguf([entry("general.architecture", wf.STRING, arch)], tensors)
    return GgufFile.open(write(tmp_path / "a.gguf", what), read_as=read_as)


def w(type_id: int, size: int, name: str = "w", shape: tuple[int, ...] = (ROWS, COLUMNS)) -> T:
    return T(name, shape, type_id, bytes(size))


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(
    ("type_id", "size", "arch", "layout"),
    [
        (36, TL1 + 32, "bitnet-b1.58", "i2_s"),
        (38, TL1, "bitnet", "tl1"),
        (38, TL1 + 32, "bitnet", "tl1"),
        (39, MXFP4, "gpt-oss", "mxfp4"),
        (39, MXFP4, "llama", "mxfp4"),
        (39, TL2, "bitnet", "tl2"),
        (39, TL2 + 32, "bitnet", "tl2"),
        (39, TL2 + 32, "llama", "tl2"),
        (42, Q2_64, "qwen3", "q2_0"),
        (42, Q2_128, "qwen3", "q2_0-g128"),
        (142, Q2_128, "qwen35", "pq2_0"),
        (143, WEIGHTS // 128 * 28, "qwen35", "ptq1_0"),
        (134, ROWS * (2 + COLUMNS // 64 * 13), "bitnet", "iq1_bn"),
        (135, ROWS * (4 + COLUMNS // 64 * 16), "bitnet", "iq2_bn"),
    ],
)
def test_an_id_means_what_its_place_in_the_file_fits(
    tmp_path: Path, type_id: int, size: int, arch: str, layout: str, last: bool
):
    tensors = [w(type_id, size)] if last else [w(type_id, size), wf.f32("after")]
    found = opened(tmp_path, tensors, arch).tensors["w"]
    assert (found.layout.name, found.nbytes) == (layout, size)


def test_one_large_tensor_tells_what_the_small_ones_of_its_id_are(tmp_path: Path):
    """36 and 34 bytes take 64 each with padding; 2 * 128 weights take 72 or 68."""
    small = T("small", [1, 128], 42, bytes(34))
    with pytest.raises(Error, match="q2_0 and q2_0-g128 fit its bytes equally") as caught:
        opened(tmp_path, [small, wf.f32()])
    assert caught.value.code == "NEUC-E121"
    file = opened(tmp_path, [small, w(42, Q2_128, "large"), wf.f32()])
    assert {t.layout.name for t in file.tensors.values()} == {"q2_0-g128", "f32"}
    file = opened(tmp_path, [small, wf.f32()], read_as=("q2_0",))
    assert (file.tensors["small"].layout.name, file.tensors["small"].nbytes) == ("q2_0", 36)


@pytest.mark.parametrize(
    ("tensors", "arch", "says"),
    [
        ([w(42, Q2_64, "a"), w(42, Q2_128, "b")], "qwen3", "tensor 'b' of type 42"),
        ([w(42, Q2_64 - 96)], "qwen3", "q2_0 takes 4608, q2_0-g128 takes 4352, and it has 4512 bytes"),
        ([T("w", [4, 64], 42, bytes(40))], "qwen3", "q2_0-g128 takes no such shape"),
        ([w(39, MXFP4)], "bitnet", "an architecture 'bitnet' has tl2 under this id, but only mxfp4 fits"),
        ([w(39, TL2 + 32)], "gpt-oss", "has mxfp4 under this id, but only tl2 fits"),
        ([w(39, TL2 + 64)], "llama", "and it has 4160 bytes"),
        ([w(36, WEIGHTS // 32 * 18)], "llama", "i2_s takes 4128, and it has 9216 bytes (this id is also a type llama"),
        ([w(38, WEIGHTS // 32 * 18)], "llama", "tl1 takes 4128 or 4096"),
        ([w(142, Q2_128 + 64)], "llama", "IQ2_TN"),
        ([w(40, 100)], "llama", "this id is also a type of vlut.cpp"),
        ([w(37, 100)], "llama", "no known type has this id"),
        ([w(4, 100)], "llama", "tensor 'w' of type 4: no known type"),
        ([w(2**32 - 1, 100)], "llama", "no known type has this id"),
        ([w(34, 54, shape=(1, 100))], "llama", "no tq1_0 tensor has the shape [1, 100]"),
    ],
)
def test_ids_whose_meaning_cannot_be_told(tmp_path: Path, tensors: list[T], arch: str, says: str):
    with pytest.raises(Error) as caught:
        opened(tmp_path, tensors, arch)
    assert caught.value.code == "NEUC-E121"
    assert says in caught.value.message
    assert caught.value.message.startswith("a.gguf: ")
    assert caught.value.hint


def test_names_too_long_for_other_programs_are_not_written(tmp_path: Path):
    with pytest.raises(Error, match="more than 63 bytes"):
        write_gguf(tmp_path / "a.gguf", {}, [NewTensor("n" * 64, (1,), 24, 1, lambda: b"1")])
    assert not list(tmp_path.iterdir())


def test_a_payload_that_fails_leaves_the_old_file(tmp_path: Path):
    path = write(tmp_path / "a.gguf", Gguf())

    def broken() -> bytes:
        raise Error("NEUC-E122", "no")

    with pytest.raises(Error, match="no"):
        write_gguf(path, {}, [NewTensor("n", (1,), 24, 1, broken)])
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == Gguf().build()


def hadamard(**changes: bytes) -> list[bytes]:
    keys = {
        "version": entry("prism.hadamard.version", wf.U32, 1),
        "block_size": entry("prism.hadamard.block_size", wf.U32, 1024),
        "transform": entry("prism.hadamard.transform", wf.STRING, "normalized-sylvester-walsh-hadamard"),
        "axis": entry("prism.hadamard.axis", wf.STRING, "input-last-dimension"),
        "sign_mode": entry("prism.hadamard.sign_mode", wf.STRING, "explicit"),
        "sign_widths": entry("prism.hadamard.sign_widths", wf.ARRAY, (wf.I32, [4, 2])),
        "sign_values": entry("prism.hadamard.sign_values", wf.ARRAY, (wf.I32, [1, -1, 1, 1, -1, -1])),
        "weight_names": entry("prism.hadamard.weight_names", wf.ARRAY, (wf.STRING, ["w"])),
        "inverse": entry("prism.hadamard.inverse_weight_names", wf.ARRAY, (wf.STRING, [])),
    }
    return [raw for raw in (keys | changes).values() if raw]


def test_a_rotated_file_is_refused_by_whoever_does_not_rotate(tmp_path: Path):
    file = GgufFile.open(write(tmp_path / "a.gguf", Gguf(hadamard(), [wf.f32()])))
    assert file.hadamard is not None
    assert file.hadamard.block_size == 1024
    assert {width: signs.tolist() for width, signs in file.hadamard.signs.items()} == {4: [1, -1, 1, 1], 2: [-1, -1]}
    with pytest.raises(Error, match=r"a\.gguf: its weights are rotated") as caught:
        file.refuse_unapplied()
    assert caught.value.code == "NEUC-E125"
    file.refuse_unapplied({"prism.hadamard"})
    plain = GgufFile.open(write(tmp_path / "b.gguf", Gguf(tensors=[wf.f32()])))
    plain.refuse_unapplied()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": entry("prism.hadamard.version", wf.U32, 2)}, "version is"),
        ({"version": b""}, "version is None"),
        ({"transform": entry("prism.hadamard.transform", wf.STRING, "dct")}, "transform is 'dct'"),
        ({"axis": b""}, "axis is None"),
        ({"block_size": entry("prism.hadamard.block_size", wf.U32, 1000)}, "no power of two"),
        ({"sign_mode": entry("prism.hadamard.sign_mode", wf.STRING, "random")}, "sign_mode is 'random'"),
        ({"sign_values": entry("prism.hadamard.sign_values", wf.ARRAY, (wf.I32, [1, 1]))}, "do not fit"),
        ({"sign_values": entry("prism.hadamard.sign_values", wf.ARRAY, (wf.I32, [1, 1, 1, 1, 1, 0]))}, "not all 1"),
        ({"sign_widths": entry("prism.hadamard.sign_widths", wf.ARRAY, (wf.I64, [-(2**62), 2**62 + 6]))}, "do not fit"),
        ({"weight_names": b""}, "names no tensor"),
        ({"weight_names": entry("prism.hadamard.weight_names", wf.ARRAY, (wf.STRING, ["v"]))}, "'v', which is no"),
    ],
)
def test_rotations_that_are_not_known(tmp_path: Path, changes: dict[str, bytes], says: str):
    path = write(tmp_path / "a.gguf", Gguf(hadamard(**changes), [wf.f32()]))
    with pytest.raises(Error) as caught:
        GgufFile.open(path)
    assert caught.value.code == "NEUC-E125"
    assert says in caught.value.message
