"""llama.cpp's TQ1_0 (GGUF id 34, 54 bytes) and TQ2_0 (id 35, 66 bytes): blocks of 256 weights with one f16 scale,
and PrismML's PTQ1_0 (id 143, 28 bytes): TQ1_0's packing in blocks of 128.

The scale stands last. Base-3 blocks hold stages of five digits a byte, the most significant digit first: in TQ1_0 byte
j of 32 has weights j + 32 n, then byte j of 16 has 160 + j + 16 n; four last bytes have four digits, 240 + j + 4 n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuc.compiler.formats import base3, two_bit
from neuc.compiler.formats.block_format import BlockFormat, Bytes, Unpacked
from neuc.compiler.formats.ternary import Levels, Scales, group


def f16_scales(stored: Bytes, rows: int) -> Scales:
    """Scales f32 [rows, G] of bytes [rows * G, 2]."""
    return np.ascontiguousarray(stored).view("<f2").astype(np.float32).reshape(rows, -1)


def f16_bytes(scales: Scales) -> Bytes:
    """The inverse of `f16_scales`."""
    return scales.astype("<f2").reshape(-1, 1).view(np.uint8)


@dataclass(frozen=True)
class _Stage:
    """Bytes of a block that hold `digits` weights each."""

    bytes: slice
    weights: slice
    digits: int

    @property
    def legal(self) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        return base3.FIVE if self.digits == 5 else base3.FOUR_HIGH


class Base3Blocks(BlockFormat):
    """Blocks of base-3 stages of `lanes` bytes with five digits, then one of `last` bytes with four, then the scale."""

    scale_dtype = np.float16

    def __init__(self, name: str, lanes: tuple[int, ...], last: int) -> None:
        self.name = name
        self.stages: list[_Stage] = []
        byte = weight = 0
        for width, digits in (*((width, 5) for width in lanes), (last, 4)):
            self.stages.append(_Stage(slice(byte, byte + width), slice(weight, weight + width * digits), digits))
            byte, weight = byte + width, weight + width * digits
        self.block_bytes = byte + 2
        self.multiple = weight
        self.granularity = group(weight)

    def nbytes(self, rows: int, columns: int) -> int:
        return rows * columns // self.multiple * self.block_bytes

    def scales(self, data: Bytes, rows: int, columns: int) -> Scales:
        return f16_scales(data.reshape(-1, self.block_bytes)[:, -2:], rows)

    def _unpack(self, data: Bytes, rows: int, columns: int) -> Unpacked:
        blocks = data.reshape(-1, self.block_bytes)
        levels = np.empty((len(blocks), self.multiple), np.int8)
        for stage in self.stages:
            packed = blocks[:, stage.bytes]
            base3.refuse_illegal(packed, stage.legal)
            levels[:, stage.weights] = base3.unpack(packed, stage.digits).reshape(len(blocks), -1)
        return Unpacked(levels.reshape(rows, columns), f16_scales(blocks[:, -2:], rows))

    def _pack(self, levels: Levels, scales: Scales, leftover: bytes) -> Bytes:
        weights = levels.reshape(-1, self.multiple)
        blocks = np.empty((len(weights), self.block_bytes), np.uint8)
        for stage in self.stages:
            blocks[:, stage.bytes] = base3.pack(weights[:, stage.weights].reshape(len(weights), stage.digits, -1))
        blocks[:, -2:] = f16_bytes(scales)
        return blocks


class Tq2(BlockFormat):
    """256 weights in 64 bytes: bytes 0 to 31 hold weights j, 32 + j, 64 + j, 96 + j, the first in the lowest bits."""

    name = "tq2_0"
    multiple = 256
    granularity = group(256)
    scale_dtype = np.float16
    highest = 2

    def nbytes(self, rows: int, columns: int) -> int:
        return rows * columns // 256 * 66

    def scales(self, data: Bytes, rows: int, columns: int) -> Scales:
        return f16_scales(data.reshape(-1, 66)[:, -2:], rows)

    def _unpack(self, data: Bytes, rows: int, columns: int) -> Unpacked:
        blocks = data.reshape(-1, 66)
        levels = two_bit.unpack(blocks[:, :64].reshape(-1, 2, 32), two_bit.LOW_FIRST)
        return Unpacked(levels.reshape(rows, columns), f16_scales(blocks[:, 64:], rows))

    def _pack(self, levels: Levels, scales: Scales, leftover: bytes) -> Bytes:
        codes = two_bit.pack(levels.reshape(-1, 2, 4, 32), two_bit.LOW_FIRST)
        return np.concatenate([codes.reshape(-1, 64), f16_bytes(scales)], axis=1)


TQ1_0 = Base3Blocks("tq1_0", (32, 16), 4)
TQ2_0 = Tq2()
PTQ1_0 = Base3Blocks("ptq1_0", (16, 8), 2)
