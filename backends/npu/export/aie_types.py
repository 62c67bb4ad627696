"""MLIR's names of element types and tokens; its integers have no sign."""

from __future__ import annotations

from collections.abc import Mapping

from neuc.runtime.npu.program import Channel

MLIR_TYPES: Mapping[str, str] = {
    "i8": "i8",
    "u8": "i8",
    "i16": "i16",
    "u16": "i16",
    "i32": "i32",
    "u32": "i32",
    "bf16": "bf16",
    "f32": "f32",
}


def memref(channel: Channel) -> str:
    """The memref type of a channel's token."""
    return f"memref<{'x'.join([*map(str, channel.shape), MLIR_TYPES[channel.dtype]])}>"


def extension(channel: Channel) -> str:
    """The operation of `arith` that widens a channel's integers."""
    return "extui" if channel.dtype.startswith("u") else "extsi"
