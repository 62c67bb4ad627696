"""GGUF files that lie, by what is wrong with them, each with the code and a part of the message it is refused with."""

from __future__ import annotations

import struct

import weight_files as wf
from neuc.errors import Error
from weight_files import Gguf, T, entry, f32, text

HUGE = 2**63 - 1
ALL = 2**64 - 1


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def raw_entry(key: bytes, kind: int, rest: bytes) -> Gguf:
    return Gguf([wf.ARCH, text(key) + u32(kind) + rest], [f32()])


def tensors(*what: T) -> Gguf:
    return Gguf(tensors=list(what))


def key_of_length(length: int) -> Gguf:
    return Gguf([u64(length) + b"x" * 8])


# A file with nothing wrong.
SOUND = Gguf([wf.ARCH, entry("a.b", wf.ARRAY, (wf.STRING, ["x", "y"]))], [f32("first"), f32("second")]).build()
NESTED = u32(wf.ARRAY) + u64(1)

# name: (bytes, code, part of the message)
GGUF: dict[str, tuple[bytes | Gguf, str, str]] = {
    "empty": (b"", "NEUC-E103", "is empty"),
    "one byte": (b"G", "NEUC-E120", "the file ends within the magic number"),
    "magic only": (b"GGUF", "NEUC-E120", "the file ends within the version"),
    "no counts": (b"GGUF" + u32(3), "NEUC-E120", "the number of tensors"),
    "another magic": (Gguf(magic=b"ggjt"), "NEUC-E120", "it begins with b'ggjt'"),
    "magic reversed": (Gguf(magic=b"FUGG"), "NEUC-E120", "little-endian"),
    "a zip archive": (b"PK\3\4" + bytes(60), "NEUC-E120", "no GGUF file"),
    "version 0": (Gguf(version=0), "NEUC-E120", "big-endian"),
    "version 1": (Gguf(version=1), "NEUC-E120", "version 1"),
    "version 4": (Gguf(version=4), "NEUC-E120", "version 4"),
    "version of the other byte order": (Gguf(version=3 << 24), "NEUC-E120", "big-endian"),
    "a huge count of tensors": (Gguf(tensor_count=ALL), "NEUC-E120", f"claims {ALL} tensors"),
    "one tensor too many": (Gguf(tensors=[f32()], tensor_count=2), "NEUC-E120", "tensor 1"),
    "a million tensors": (Gguf(tensors=[f32()], tensor_count=10**6), "NEUC-E120", "claims 1000000 tensors"),
    "a huge count of entries": (Gguf(entry_count=ALL), "NEUC-E120", f"claims {ALL} metadata entries"),
    "more entries than bytes": (Gguf(entry_count=40), "NEUC-E120", "claims 40 metadata entries"),
    "entries read as tensors": (Gguf([wf.ARCH, wf.ARCH], [f32()], entry_count=1), "NEUC-E120", "tensor"),
    "a key twice": (Gguf([wf.ARCH, wf.ARCH]), "NEUC-E120", "'general.architecture' stands there twice"),
    "an empty key": (Gguf([entry("", wf.U8, 1)]), "NEUC-E120", "metadata key 0 has 0 bytes"),
    "a long key": (Gguf([entry("k" * 5000, wf.U8, 1)]), "NEUC-E120", "metadata key 0 has 5000 bytes"),
    "a key of 2^63 bytes": (key_of_length(HUGE), "NEUC-E120", f"has {HUGE} bytes"),
    "a key beyond the end": (key_of_length(1000), "NEUC-E120", "the file ends within metadata key 0"),
    "a key that is no text": (Gguf([entry(b"\xff\xfe", wf.U8, 1)]), "NEUC-E120", "no UTF-8"),
    "a key with a line break": (Gguf([entry("a\nb", wf.U8, 1)]), "NEUC-E120", r"control characters: 'a\nb'"),
    "an unknown value type": (raw_entry(b"k", 13, bytes(8)), "NEUC-E120", "'k' has the unknown type 13"),
    "a value type of 2^32 - 1": (raw_entry(b"k", 2**32 - 1, b""), "NEUC-E120", "unknown type 4294967295"),
    "a truth value of 2": (raw_entry(b"k", wf.BOOL, b"\2"), "NEUC-E120", "'k' is no truth value: 2"),
    "truth values of 255": (raw_entry(b"k", wf.ARRAY, u32(wf.BOOL) + u64(2) + b"\1\xff"), "NEUC-E120", "255"),
    "a string of 2^64 - 1 bytes": (raw_entry(b"k", wf.STRING, u64(ALL)), "NEUC-E120", f"{ALL} bytes wanted"),
    "a string beyond the end": (raw_entry(b"k", wf.STRING, u64(5000) + b"x"), "NEUC-E120", "value of 'k'"),
    "an array of 2^64 - 1": (raw_entry(b"k", wf.ARRAY, u32(wf.U8) + u64(ALL)), "NEUC-E120", f"claims {ALL} elements"),
    "an array whose bytes overflow": (
        raw_entry(b"k", wf.ARRAY, u32(wf.U64) + u64(2**61)),
        "NEUC-E120",
        f"claims {2**61} elements",
    ),
    "an array of strings beyond the end": (
        raw_entry(b"k", wf.ARRAY, u32(wf.STRING) + u64(2**40)),
        "NEUC-E120",
        f"claims {2**40} elements",
    ),
    "an array of an unknown type": (raw_entry(b"k", wf.ARRAY, u32(99) + u64(1)), "NEUC-E120", "type 99"),
    "an array of arrays beyond the end": (
        raw_entry(b"k", wf.ARRAY, u32(wf.ARRAY) + u64(2**33)),
        "NEUC-E120",
        "claims 8589934592 elements",
    ),
    "arrays nested without end": (raw_entry(b"k", wf.ARRAY, NESTED * 1000), "NEUC-E120", "more than 4 deep"),
    "alignment 0": (Gguf([entry("general.alignment", wf.U32, 0)], [f32()]), "NEUC-E120", "general.alignment"),
    "alignment 24": (Gguf([entry("general.alignment", wf.U32, 24)], [f32()]), "NEUC-E120", "power of two"),
    "alignment 2^31": (Gguf([entry("general.alignment", wf.U32, 2**31)], [f32()]), "NEUC-E120", "up to 2^20"),
    "alignment of another type": (Gguf([entry("general.alignment", wf.U64, 32)], [f32()]), "NEUC-E120", "32-bit"),
    "alignment as text": (Gguf([entry("general.alignment", wf.STRING, "32")], [f32()]), "NEUC-E120", "32-bit"),
    "a tensor without a name": (tensors(T("", [8], 0, bytes(32))), "NEUC-E120", "name of tensor 0 has 0 bytes"),
    "a tensor with a long name": (tensors(T("n" * 2000, [8], 0, bytes(32))), "NEUC-E120", "2000 bytes"),
    "a name that is no text": (tensors(T(b"\xc0\x80", [8], 0, bytes(32))), "NEUC-E120", "no UTF-8"),
    "a name with an escape": (tensors(T("a\x1b[31m", [8], 0, bytes(32))), "NEUC-E120", "control characters"),
    "a name twice": (tensors(f32("w"), f32("w")), "NEUC-E120", "two tensors are called 'w'"),
    "rank 5": (tensors(T("w", [1, 1, 1, 1, 8], 0, bytes(32))), "NEUC-E120", "tensor 'w' has rank 5"),
    "a dim of 0": (tensors(T("w", [4, 0], 0, bytes(32))), "NEUC-E120", "absurd shape [4, 0]"),
    "a dim of 2^64 - 1": (tensors(T("w", [ALL], 0, bytes(32))), "NEUC-E120", "absurd shape"),
    "a product that wraps around": (tensors(T("w", [2**32, 2**32], 0, bytes(32))), "NEUC-E120", "absurd shape"),
    "more elements than bytes": (tensors(T("w", [1000], 0, bytes(32))), "NEUC-E121", "f32 takes 4000 bytes, but"),
    "bytes that wrap around": (tensors(T("w", [2**61], 0, bytes(32))), "NEUC-E121", "tensor 'w'"),
    "an unknown type": (tensors(T("w", [8], 99, bytes(32))), "NEUC-E121", "tensor 'w' of type 99"),
    "a type of 2^32 - 1": (tensors(T("w", [8], 2**32 - 1, bytes(32))), "NEUC-E121", "of type 4294967295"),
    "a removed type": (tensors(T("w", [32], 31, bytes(32))), "NEUC-E121", "of type 31"),
    "half a block": (tensors(T("w", [2, 16], 8, bytes(64))), "NEUC-E121", "no q8_0 tensor has the shape [2, 16]"),
    "an offset that is not aligned": (tensors(T("w", [8], 0, bytes(64), 4)), "NEUC-E120", "no multiple of 32"),
    "an offset beyond the end": (tensors(T("w", [8], 0, bytes(32), 2**20)), "NEUC-E120", "beyond the end"),
    "an offset of 2^64 - 32": (tensors(T("w", [8], 0, bytes(32), 2**64 - 32)), "NEUC-E120", "beyond the end"),
    "tensors at one place": (tensors(f32("a"), T("b", [8], 0, b"", 0)), "NEUC-E121", "'a' of type 0: f32 takes 32"),
    "tensors that overlap": (
        tensors(T("a", [16], 0, bytes(64)), T("b", [8], 0, b"", 32)),
        "NEUC-E121",
        "f32 takes 64 bytes, but the next tensor begins after 32",
    ),
    "the last tensor cut off": (SOUND[:-33], "NEUC-E120", "'second' lies beyond the end"),
    "the last byte missing": (SOUND[:-1], "NEUC-E121", "takes 32 bytes, but the file ends after 31"),
    "no data at all": (tensors(T("w", [8], 0, b"")), "NEUC-E120", "beyond the end"),
    "I2_S without its tail": (tensors(T("w", [1, 128], 36, bytes(32))), "NEUC-E121", "i2_s takes 64, and it has 32"),
    "Q2_0 of neither kind": (tensors(T("w", [128, 128], 42, bytes(64))), "NEUC-E121", "q2_0-g128 takes 4352"),
    "TL2 as MXFP4": (
        Gguf([entry("general.architecture", wf.STRING, "gpt-oss")], [T("w", [32, 256], 39, bytes(2080))]),
        "NEUC-E121",
        "only tl2 fits its bytes",
    ),
    "MXFP4 as TL2": (
        Gguf([entry("general.architecture", wf.STRING, "bitnet")], [T("w", [32, 256], 39, bytes(4352))]),
        "NEUC-E121",
        "only mxfp4 fits its bytes",
    ),
    "a rotation by halves": (
        Gguf([wf.ARCH, entry("prism.hadamard.version", wf.U32, 1)], [f32()]),
        "NEUC-E125",
        "prism.hadamard.transform is None",
    ),
}  # fmt: skip


def check_error(error: Error, code: str, says: str) -> None:
    assert error.code == code, str(error)
    assert says in error.message
    assert error.message.isprintable(), "one line, nothing that a terminal obeys"
    assert len(error.message) < 400
    assert error.hint
