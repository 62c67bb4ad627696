"""Q2_0: two bits a weight, four levels, an f16 scale first. Byte j / 4 of a block holds weight j at bit 2 (j mod 4).

llama.cpp's own (GGUF id 42) has blocks of 64 weights. PrismML's and CAT-Q's first files use the same id for blocks of
128, here `q2_0-g128`; later ones call that PQ2_0 and give it id 142. `gguf_layouts.py` tells the two uses of 42 apart.
"""

from __future__ import annotations

import numpy as np

from neuc.compiler.formats import two_bit
from neuc.compiler.formats.block_format import BlockFormat, Bytes, Unpacked
from neuc.compiler.formats.ternary import Levels, Scales, group
from neuc.compiler.formats.tq import f16_bytes, f16_scales


class Q2(BlockFormat):
    """Blocks of `size` weights."""

    scale_dtype = np.float16
    highest = 2

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.multiple = size
        self.granularity = group(size)
        self.block_bytes = 2 + size // 4

    def nbytes(self, rows: int, columns: int) -> int:
        return rows * columns // self.multiple * self.block_bytes

    def scales(self, data: Bytes, rows: int, columns: int) -> Scales:
        return f16_scales(data.reshape(-1, self.block_bytes)[:, :2], rows)

    def _unpack(self, data: Bytes, rows: int, columns: int) -> Unpacked:
        blocks = data.reshape(-1, self.block_bytes)
        levels = two_bit.unpack_runs(blocks[:, 2:].reshape(-1))
        return Unpacked(levels.reshape(rows, columns), f16_scales(blocks[:, :2], rows))

    def _pack(self, levels: Levels, scales: Scales, leftover: bytes) -> Bytes:
        weights = levels.reshape(-1, self.multiple // 4, 4).swapaxes(1, 2)
        return np.concatenate([f16_bytes(scales), two_bit.pack(weights, two_bit.LOW_FIRST)], axis=1)


Q2_0 = Q2("q2_0", 64)
Q2_0_G128 = Q2("q2_0-g128", 128)
PQ2_0 = Q2("pq2_0", 128)
