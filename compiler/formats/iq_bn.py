"""ik_llama.cpp's IQ1_BN (GGUF id 134) and IQ2_BN (id 135): a scale before each row, then blocks of 64 weights.

IQ1_BN: an f16 scale; blocks of 13 bytes. Sixteen weights take three bytes of five digits, the first the least
significant; the last weight of each sixteen is digit i of the thirteenth byte. IQ2_BN: an f32 scale; blocks of 16
bytes, byte j with weights j, 16 + j, 32 + j, 48 + j, the first in the lowest bits.
"""

from __future__ import annotations

import numpy as np

from neuc.compiler.formats import base3, two_bit
from neuc.compiler.formats.block_format import BlockFormat, Bytes, Unpacked
from neuc.compiler.formats.ternary import ROW, Levels, Scales


class _RowScaled(BlockFormat):
    """Rows that begin with their scale."""

    multiple = 64
    granularity = ROW
    block_bytes: int

    def nbytes(self, rows: int, columns: int) -> int:
        return rows * (np.dtype(self.scale_dtype).itemsize + columns // 64 * self.block_bytes)

    def scales(self, data: Bytes, rows: int, columns: int) -> Scales:
        return self._split(data, rows)[1]

    def _split(self, data: Bytes, rows: int) -> tuple[Bytes, Scales]:
        """Blocks [rows, B, block_bytes] and scales [rows, 1]."""
        stored = np.dtype(self.scale_dtype)
        table = data.reshape(rows, -1)
        scales = np.ascontiguousarray(table[:, : stored.itemsize]).view(stored.newbyteorder("<"))
        return table[:, stored.itemsize :].reshape(rows, -1, self.block_bytes), scales.astype(np.float32)

    def _join(self, blocks: Bytes, scales: Scales) -> Bytes:
        stored = np.dtype(self.scale_dtype).newbyteorder("<")
        return np.concatenate([scales.astype(stored).view(np.uint8), blocks.reshape(len(scales), -1)], axis=1)


class Iq1Bn(_RowScaled):
    """1.625 bits a weight and 16 a row."""

    name = "iq1_bn"
    scale_dtype = np.float16
    block_bytes = 13

    def _unpack(self, data: Bytes, rows: int, columns: int) -> Unpacked:
        blocks, scales = self._split(data, rows)
        fives, lasts = blocks[..., :12], blocks[..., 12:]
        base3.refuse_illegal(fives, base3.FIVE)
        base3.refuse_illegal(lasts, base3.FOUR_LOW)
        levels = np.empty((rows, columns // 64, 4, 16), np.int8)
        # [..., digit, byte], the most significant digit first, to [..., byte, digit], the least significant first.
        digits = base3.unpack(fives)[..., ::-1, :].swapaxes(-1, -2)
        levels[..., :15] = digits.reshape(rows, -1, 4, 15)
        levels[..., 15] = base3.unpack(lasts)[..., :0:-1, 0]
        return Unpacked(levels.reshape(rows, columns), scales)

    def _pack(self, levels: Levels, scales: Scales, leftover: bytes) -> Bytes:
        sixteens = levels.reshape(len(levels), -1, 4, 16)
        fives = sixteens[..., :15].reshape(len(levels), -1, 12, 5).swapaxes(-1, -2)[..., ::-1, :]
        lasts = np.full((*sixteens.shape[:2], 5, 1), -1, np.int8)  # digit 0 where there is no weight
        lasts[..., :0:-1, 0] = sixteens[..., 15]
        return self._join(np.concatenate([base3.pack(fives), base3.pack(lasts)], axis=-1), scales)


class Iq2Bn(_RowScaled):
    """2 bits a weight and 32 a row."""

    name = "iq2_bn"
    scale_dtype = np.float32
    block_bytes = 16
    highest = 2

    def _unpack(self, data: Bytes, rows: int, columns: int) -> Unpacked:
        blocks, scales = self._split(data, rows)
        return Unpacked(two_bit.unpack(blocks, two_bit.LOW_FIRST).reshape(rows, columns), scales)

    def _pack(self, levels: Levels, scales: Scales, leftover: bytes) -> Bytes:
        return self._join(two_bit.pack(levels.reshape(len(levels), -1, 4, 16), two_bit.LOW_FIRST), scales)


IQ1_BN = Iq1Bn()
IQ2_BN = Iq2Bn()
