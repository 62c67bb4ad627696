"""Builds GGUF and safetensors files field by field, sound ones and others, without any code of neuc's."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, what: object) -> bytes:
    """A value without its type; arrays are (type of elements, list)."""
    if kind == STRING:
        assert isinstance(what, (str, bytes))
        return text(what)
    if kind == ARRAY:
        assert isinstance(what, tuple)
        of, items = what
        return struct.pack("<IQ", of, len(items)) + b"".join(value(of, item) for item in items)
    return struct.pack("<" + CODES[kind], what)


def entry(key: str | bytes, kind: int, what: object) -> bytes:
    """A metadata entry."""
    return text(key) + struct.pack("<I", kind) + value(kind, what)


ARCH = entry("general.architecture", STRING, "llama")


@dataclass
class T:
    """A tensor: shape outermost first; offset within the data, behind the one before it if None."""

    name: str | bytes
    shape: Sequence[int]
    type_id: int
    data: bytes
    offset: int | None = None


@dataclass
class Gguf:
    """A GGUF file whose every field may be set to something else than what is true."""

    entries: list[bytes] = field(default_factory=lambda: [ARCH])
    tensors: list[T] = field(default_factory=list)
    magic: bytes = b"GGUF"
    version: int = 3
    tensor_count: int | None = None
    entry_count: int | None = None
    alignment: int = 32
    pad_last: bool = True
    tail: bytes = b""

    def build(self) -> bytes:
        counts = (
            len(self.tensors) if self.tensor_count is None else self.tensor_count,
            len(self.entries) if self.entry_count is None else self.entry_count,
        )
        head = self.magic + struct.pack("<IQQ", self.version, *counts) + b"".join(self.entries)
        data = b""
        for tensor in self.tensors:
            offset = len(data) if tensor.offset is None else tensor.offset
            dims = list(tensor.shape)[::-1]
            head += text(tensor.name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, tensor.type_id, offset)
            data += tensor.data
            if self.pad_last or tensor is not self.tensors[-1]:
                data += bytes(-len(data) % self.alignment)
        if self.tensors:
            head += bytes(-len(head) % self.alignment)
        return head + data + self.tail


def f32(name: str = "w", count: int = 8) -> T:
    """A small sound tensor."""
    return T(name, [count], 0, bytes(range(4 * count)))


def safetensors(
    tensors: Sequence[tuple[str, str, Sequence[int], bytes]], *, header: object = None, length: int | None = None
) -> bytes:
    """A safetensors file; `header` and `length` replace what is true."""
    described: dict[str, object] = {}
    data = b""
    for name, dtype, shape, raw in tensors:
        described[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    raw = header if isinstance(header, bytes) else json.dumps(described if header is None else header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def hf_folder(
    folder: Path,
    tensors: Sequence[tuple[str, str, Sequence[int], bytes]],
    config: object = None,
    **section: object,
) -> Path:
    """A Hugging Face folder; `section` are fields of quantization_config."""
    folder.mkdir()
    described = {"model_type": "bitnet", "quantization_config": {"quant_method": "bitnet", **section}}
    (folder / "config.json").write_text(json.dumps(described if config is None else config))
    (folder / "model.safetensors").write_bytes(safetensors(tensors))
    return folder
