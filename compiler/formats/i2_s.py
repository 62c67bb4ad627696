"""I2_S of bitnet.cpp (GGUF id 36): two bits a weight, one f32 scale for the tensor, in a 32-byte tail after the codes.

Three layouts share the id, and nothing in a file tells which one it is (microsoft/BitNet issues 411, 600, 348):

- `i2_s`, what x86 builds write and every released file holds: 128 weights in 32 bytes, byte p has weights p, 32 + p,
  64 + p and 96 + p, the first in the highest bits;
- `i2_s-neon`, what ARM builds since November 2025 write: 64 weights in 16 bytes, byte p has p, 16 + p, 32 + p, 48 + p;
- `i2_s-rows4`, what x86 builds without ACT_PARALLEL write: a byte has one column of four rows, the first highest.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from neuc.compiler.formats import two_bit
from neuc.compiler.formats.block_format import BlockFormat, Bytes, Unpacked
from neuc.compiler.formats.ternary import TENSOR, Levels, Scales

TAIL = 32


def split_tail(data: Bytes) -> tuple[Bytes, Scales, bytes]:
    """Codes, the scale f32 [1, 1] and the rest of a payload that ends in a 32-byte tail."""
    body, tail = data[:-TAIL], data[-TAIL:].tobytes()
    return body, np.frombuffer(tail[:4], "<f4").astype(np.float32).reshape(1, 1), tail[4:]


def tail_bytes(scales: Scales, rest: bytes) -> Bytes:
    """The tail that holds `scales` f32 [1, 1]; `rest` is its 28 other bytes, or empty for zeros."""
    return np.frombuffer(scales.astype("<f4").tobytes() + (rest or bytes(TAIL - 4)), np.uint8)


class _I2s(BlockFormat):
    """What the layouts share."""

    granularity = TENSOR
    scale_dtype = np.float32

    def nbytes(self, rows: int, columns: int) -> int:
        return rows * columns // 4 + TAIL

    def scales(self, data: Bytes, rows: int, columns: int) -> Scales:
        return split_tail(data)[1]

    def _unpack(self, data: Bytes, rows: int, columns: int) -> Unpacked:
        body, scales, rest = split_tail(data)
        two_bit.refuse_code_3(body)
        return Unpacked(self._levels(body, columns).reshape(rows, columns), scales, rest)

    def _pack(self, levels: Levels, scales: Scales, leftover: bytes) -> Bytes:
        return np.concatenate([self._codes(levels).reshape(-1), tail_bytes(scales, leftover)])

    @abstractmethod
    def _levels(self, body: Bytes, columns: int) -> Levels:
        """Levels in row-major order, of any shape."""

    @abstractmethod
    def _codes(self, levels: Levels) -> Bytes:
        """The inverse of `_levels`."""


class I2s(_I2s):
    """Blocks of 4 * `lanes` weights of a row: byte p of a block has weights p, lanes + p, 2 lanes + p, 3 lanes + p."""

    def __init__(self, name: str, lanes: int) -> None:
        self.name = name
        self.lanes = lanes
        self.multiple = 4 * lanes

    def _levels(self, body: Bytes, columns: int) -> Levels:
        return two_bit.unpack(body.reshape(-1, self.lanes), two_bit.HIGH_FIRST)

    def _codes(self, levels: Levels) -> Bytes:
        return two_bit.pack(levels.reshape(-1, 4, self.lanes), two_bit.HIGH_FIRST)


class I2sRows4(_I2s):
    """Byte r * K + k has column k of rows 4 r to 4 r + 3."""

    name = "i2_s-rows4"
    multiple = 1

    def shape_objection(self, rows: int, columns: int) -> str:
        return super().shape_objection(rows, columns) or (f"N = {rows} is not a multiple of 4" if rows % 4 else "")

    def _levels(self, body: Bytes, columns: int) -> Levels:
        return two_bit.unpack(body.reshape(-1, columns), two_bit.HIGH_FIRST)

    def _codes(self, levels: Levels) -> Bytes:
        return two_bit.pack(levels.reshape(-1, 4, levels.shape[1]), two_bit.HIGH_FIRST)


I2_S = I2s("i2_s", 32)
I2_S_NEON = I2s("i2_s-neon", 16)
I2_S_ROWS4 = I2sRows4()
