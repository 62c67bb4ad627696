"""`neuc inspect` and `neuc convert` on what they cannot use: one line, a documented exit code, nothing left behind."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

import weight_files as wf
from hostile_gguf import GGUF
from refusals import refuse
from weight_files import Gguf, T, f32

CLI_CASES = [
    "empty",
    "magic only",
    "version of the other byte order",
    "a huge count of tensors",
    "a huge count of entries",
    "a key with a line break",
    "arrays nested without end",
    "an array of 2^64 - 1",
    "a name with an escape",
    "a name twice",
    "bytes that wrap around",
    "an unknown type",
    "tensors that overlap",
    "the last byte missing",
    "Q2_0 of neither kind",
    "TL2 as MXFP4",
]


@pytest.mark.parametrize("case", CLI_CASES)
def test_the_command_line_refuses_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str):
    monkeypatch.chdir(tmp_path)
    what, code, _ = GGUF[case]
    Path("bad.gguf").write_bytes(what if isinstance(what, bytes) else what.build())
    refuse(tmp_path, 1, ["inspect", "bad.gguf"], code, "bad.gguf")
    refuse(tmp_path, 1, ["convert", "bad.gguf", "out.gguf", "--format", "tq2_0"], code, "bad.gguf")


def i2s(code: int = 0) -> T:
    return T("blk.0.w", [4, 128], 36, bytes([code] * 128) + struct.pack("<f", 0.1) + bytes(28))


def rows(scales: list[float]) -> T:
    data = b"".join(struct.pack("<f", scale) + bytes(32) for scale in scales)
    return T("blk.0.v", [len(scales), 128], 135, data)


def usable() -> dict[str, bytes]:
    """Files that are sound, though not everything can be done with them."""
    return {
        "damaged.gguf": Gguf(tensors=[i2s(0xFF)]).build(),
        "rows.gguf": Gguf(tensors=[i2s(), rows([1.0, 2.0]), f32()]).build(),
        "plain.gguf": Gguf(tensors=[f32()]).build(),
        "tl1.gguf": Gguf(tensors=[T("blk.0.w", [32, 64], 38, bytes(544))]).build(),
        "two.gguf": Gguf(tensors=[T("small", [1, 128], 42, bytes(34)), f32()]).build(),
        "words.txt": b"hello\n",
        "kernels.ini": b"[a]\nm = 32\n",
    }


REFUSED = {
    "a damaged payload": (["convert", "damaged.gguf", "o", "--format", "tq2_0"], 1, ["NEUC-E122", "blk.0.w"]),
    "inspecting a damaged payload": (["inspect", "damaged.gguf"], 1, ["NEUC-E122", "blk.0.w", "code 3"]),
    "a scale per row": (["convert", "rows.gguf", "o", "--format", "i2_s"], 1, ["blk.0.v", "scales per row"]),
    "K and rounding at once": (
        ["convert", "rows.gguf", "o", "--format", "tq2_0"],
        1,
        ["NEUC-E123", "K = 128 is not a multiple of 256", "2 tensors", "blk.0.w, blk.0.v"],
    ),
    "scales that would be rounded": (
        ["convert", "rows.gguf", "o", "--format", "q2_0"],
        1,
        ["1 of 2 ternary tensors", "blk.0.w", "--lossy-scales"],
    ),
    "no ternary tensors": (["convert", "plain.gguf", "o", "--format", "i2_s"], 1, ["has no ternary tensors"]),
    "a folder without configuration": (
        ["convert", "rows.gguf", "o", "--format", "hf-bitlinear"], 1, ["NEUC-E124", "rows.gguf"]
    ),
    "TL1 without block sizes": (["convert", "tl1.gguf", "o", "--format", "i2_s"], 1, ["--tl 32x64=BM,BY,bm"]),
    "to TL1 without block sizes": (["convert", "rows.gguf", "o", "--format", "tl1"], 1, ["no block sizes for [4,"]),
    "block sizes that do not fit": (
        ["convert", "rows.gguf", "o", "--format", "tl1", "--tl", "32,64,32"], 1, ["N = 4 is not a multiple of BM = 32"]
    ),
    "an id with two meanings": (["inspect", "two.gguf"], 1, ["NEUC-E121", "small", "--read-as"]),
    "no such file": (["convert", "gone.gguf", "o", "--format", "i2_s"], 1, ["NEUC-E004", "gone.gguf"]),
    "a place that is not there": (["convert", "rows.gguf", "no/o", "--format", "q2_0"], 1, ["NEUC-E005", "no/o"]),
    "a folder as place": (["convert", "rows.gguf", ".", "--format", "q2_0"], 1, ["NEUC-E005"]),
    "an unknown format": (["convert", "rows.gguf", "o", "--format", "tq2"], 2, ["tq2", "did you mean", "tq2_0"]),
    "no format": (["convert", "rows.gguf", "o"], 2, ["--format"]),
    "an unknown layout": (["inspect", "rows.gguf", "--read-as", "v2"], 2, ["--read-as v2", "i2_s-neon"]),
    "block sizes that are words": (["inspect", "tl1.gguf", "--tl", "big"], 2, ["--tl big", "kernel_config.ini"]),
    "a configuration without sizes": (["inspect", "tl1.gguf", "--tl", "kernels.ini"], 2, ["--tl kernels.ini"]),
    "block sizes beyond reason": (["inspect", "tl1.gguf", "--tl", "9" * 30 + ",1,1"], 2, ["--tl"]),
    "a file of another kind": (["convert", "words.txt", "o", "--format", "i2_s"], 2, ["words.txt is neither"]),
    "the graph of weights": (["inspect", "rows.gguf", "--dot"], 2, ["no graph"]),
    "a layout for a model": (["inspect", "words.txt", "--read-as", "tl2"], 2, ["for GGUF files"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str):
    monkeypatch.chdir(tmp_path)
    for name, data in usable().items():
        Path(name).write_bytes(data)
    arguments, code, named = REFUSED[case]
    refuse(tmp_path, code, arguments, *named)


def test_a_folder_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    packed = [("l.weight", "U8", [2, 3], bytes(6)), ("l.weight_scale", "F32", [1], struct.pack("<f", 2.0))]
    wf.hf_folder(Path("m"), packed)
    refuse(tmp_path, 1, ["convert", "m", "m", "--format", "hf-bitlinear"], "NEUC-E005", "it exists")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("arguments", [["inspect", "pipe"], ["convert", "pipe", "o", "--format", "i2_s"]])
def test_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    refuse(tmp_path, 1, arguments, "NEUC-E004", "pipe")
