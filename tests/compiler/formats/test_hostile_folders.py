"""Safetensors files and Hugging Face folders that lie are refused in one line that names the thing."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

import weight_files as wf
from hostile_gguf import check_error
from neuc.compiler.formats.hf_folder import HfFolder
from neuc.compiler.formats.safetensors_file import SafetensorsFile
from neuc.compiler.formats.sources import open_source
from neuc.errors import Error

TENSOR = ("w", "F32", [2], bytes(8))


def header(**changes: object) -> bytes:
    described = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}
    return wf.safetensors([TENSOR], header=described)


def two(first: list[int], second: list[int]) -> bytes:
    described = {
        name: {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]}
        for name, (begin, end) in (("a", first), ("b", second))
    }
    return wf.safetensors([("x", "F32", [4], bytes(16))], header=described)


SAFETENSORS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "seven bytes": (bytes(7), "ends within its first number"),
    "a header of 2^64 - 1 bytes": (wf.safetensors([TENSOR], length=2**64 - 1), f"claims a header of {2**64 - 1} bytes"),
    "a header one byte too long": (wf.safetensors([], length=3), "claims a header of 3 bytes"),
    "no JSON": (wf.safetensors([], header=b"not json"), "not valid JSON"),
    "no UTF-8": (wf.safetensors([], header=b'{"\xff":1}'), "not valid JSON"),
    "JSON nested without end": (wf.safetensors([], header=b"[" * 100_000), "not valid JSON"),
    "a list": (wf.safetensors([], header=[]), "expected an object"),
    "a name twice": (wf.safetensors([], header=b'{"a":{},"a":{}}'), "a key is repeated"),
    "a name with a line break": (wf.safetensors([("a\nb", "F32", [1], bytes(4))]), r"'a\nb' is no name"),
    "no name": (wf.safetensors([("", "F32", [1], bytes(4))]), "'' is no name"),
    "an unknown element type": (header(dtype="F7"), "element type 'F7'"),
    "an element type that is a number": (header(dtype=3), "expected a string"),
    "a negative dim": (header(shape=[-2]), "outside"),
    "a fraction as dim": (header(shape=[2.5]), "expected an integer"),
    "a huge dim": (header(shape=[2**70]), "outside"),
    "a product beyond the bytes": (header(shape=[2**40, 2**40]), "do not match F32"),
    "offsets the wrong way round": (header(data_offsets=[8, 0]), "do not match"),
    "one offset": (header(data_offsets=[0]), "do not match"),
    "three offsets": (header(data_offsets=[0, 8, 9]), "more than 2"),
    "offsets beyond the end": (header(shape=[4], data_offsets=[0, 16]), "its tensors end at byte"),
    "bytes of nobody": (wf.safetensors([TENSOR]) + b"x", "its tensors end at byte"),
    "a gap": (two([0, 4], [8, 16]), "overlaps the one before it or leaves a gap"),
    "an overlap": (two([0, 12], [8, 16]), "tensor 'b' overlaps"),
    "an unknown field": (header(strides=[1]), "unknown field 'strides'"),
    "a field missing": (wf.safetensors([], header={"w": {"dtype": "F32"}}), "field 'shape' is missing"),
    "metadata that are no text": (wf.safetensors([], header={"__metadata__": {"a": 1}}), "expected a string"),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_safetensors_that_lie(tmp_path: Path, case: str):
    what, says = SAFETENSORS[case]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(what)
    with pytest.raises(Error) as caught:
        SafetensorsFile.open(path)
    check_error(caught.value, "NEUC-E103" if case == "empty" else "NEUC-E124", says)


PACKED = [("l.weight", "U8", [2, 3], bytes(6)), ("l.weight_scale", "F32", [1], struct.pack("<f", 2.0))]


def index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_a_sound_folder(tmp_path: Path):
    folder = HfFolder.open(wf.hf_folder(tmp_path / "m", PACKED))
    np.testing.assert_array_equal(folder.ternary("l.weight").dequantize(), np.full((8, 3), -0.5))


@pytest.mark.parametrize("case", ["no file", "no JSON", "a list", "too deep"])
def test_configurations_that_are_none(tmp_path: Path, case: str):
    folder = wf.hf_folder(tmp_path / "m", PACKED)
    path = folder / "config.json"
    match case:
        case "no file":
            path.unlink()
        case "no JSON":
            path.write_text("{")
        case "a list":
            path.write_text("[]")
        case _:
            path.write_text("[" * 200_000)
    with pytest.raises(Error) as caught:
        HfFolder.open(folder)
    check_error(caught.value, "NEUC-E124", "config.json")


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"linear_class": "bilinear"}, "linear_class is 'bilinear', and bitlinear or autobitlinear are known"),
        ({"linear_class": 3}, "expected a string"),
        ({"quantization_mode": "sideways"}, "quantization_mode is 'sideways'"),
        ({"quantization_mode": "online"}, "does not say how it is scaled"),
        ({"quant_method": "gptq"}, "'l.weight' is packed, and quantization_config"),
    ],
)
def test_configurations_that_do_not_say_how_weights_are_scaled(tmp_path: Path, section: dict[str, object], says: str):
    with pytest.raises(Error) as caught:
        HfFolder.open(wf.hf_folder(tmp_path / "m", PACKED, **section))
    check_error(caught.value, "NEUC-E124", says)


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (PACKED[:1], "'l.weight' has no weight_scale of one number"),
        ([PACKED[0], ("l.weight_scale", "F32", [2], bytes(8))], "has no weight_scale of one number"),
        ([PACKED[0], ("l.weight_scale", "I32", [1], bytes(4))], "has no weight_scale of one number"),
        ([("l.weight", "U8", [6], bytes(6)), PACKED[1]], "has the shape [6]"),
        ([("l.weight", "U8", [2, 0], b""), PACKED[1]], "has the shape [2, 0]"),
        ([*PACKED, ("l.bias", "F32", [4], bytes(16))], "packs 8 rows, but its bias has 4"),
    ],
)
def test_packed_weights_that_contradict_themselves(
    tmp_path: Path, stored: list[tuple[str, str, list[int], bytes]], says: str
):
    with pytest.raises(Error) as caught:
        HfFolder.open(wf.hf_folder(tmp_path / "m", stored))
    check_error(caught.value, "NEUC-E124", says)


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (
            [("l.weight", "U8", [2, 3], b"\xff" * 6), PACKED[1]],
            "l.weight is no valid hf-bitlinear: byte 0 holds",
        ),
        ([PACKED[0], ("l.weight_scale", "F32", [1], bytes(4))], "weight_scale is 0"),
        ([PACKED[0], ("l.weight_scale", "BF16", [1], b"\xc0\x7f")], "weight_scale is nan"),
        ([PACKED[0], ("l.weight_scale", "F16", [1], b"\x00\x7c")], "weight_scale is inf"),
    ],
)
def test_packed_weights_no_packer_writes(tmp_path: Path, stored: list[tuple[str, str, list[int], bytes]], says: str):
    folder = HfFolder.open(wf.hf_folder(tmp_path / "m", stored))
    with pytest.raises(Error) as caught:
        folder.ternary("l.weight")
    check_error(caught.value, "NEUC-E122", says)


@pytest.mark.parametrize(
    ("weight_map", "says"),
    [
        ({"l.weight": "../model.safetensors"}, "'../model.safetensors' is no safetensors file of this folder"),
        ({"l.weight": "/etc/passwd"}, "'/etc/passwd' is no"),
        ({"l.weight": "a\n.safetensors"}, r"'a\n.safetensors' is no"),
        ({"l.weight": "model.bin"}, "'model.bin' is no"),
        ({"l.weight": "gone.safetensors"}, "gone.safetensors"),
        ({"absent": "model.safetensors"}, "tensor 'absent' is not in model.safetensors"),
        ({"l.weight": "model.safetensors", "m": "copy.safetensors"}, "is not in copy.safetensors"),
        (
            {"l.weight": "model.safetensors", "l.weight_scale": "copy.safetensors"},
            "is in copy.safetensors and in",
        ),
        (["l.weight"], "expected an object"),
        ({"l.weight": 7}, "expected a string"),
    ],
)
def test_indices_that_lie(tmp_path: Path, weight_map: object, says: str):
    folder = wf.hf_folder(tmp_path / "m", PACKED)
    (folder / "copy.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    index(folder, weight_map)
    with pytest.raises(Error) as caught:
        HfFolder.open(folder)
    code = "NEUC-E103" if "gone" in says else "NEUC-E124"
    check_error(caught.value, code, says)


def test_pickles_are_not_opened(tmp_path: Path):
    folder = wf.hf_folder(tmp_path / "m", PACKED)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(Error) as caught:
        open_source(folder)
    check_error(caught.value, "NEUC-E124", "only pickled weights, which are not read")
