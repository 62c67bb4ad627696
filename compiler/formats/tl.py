"""TL1 (GGUF id 38) and TL2 (id 39) of bitnet.cpp: weights in the order in which its generated kernels read them.

The order depends on three block sizes (BM, BY, bm) that are chosen for each shape and written into no file: they stand
in the `kernel_config.ini` the kernels were made with (as bm, bk, bmm). Id 39 is MXFP4 in llama.cpp: `gguf_layouts.py`.

The f32 scale is in a 32-byte tail after the codes, as in I2_S, or, in files of some converters, in a tensor of its own
called `<name>_scale`; then the payload has no tail and `scale=` gives it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuc.compiler.formats.block_format import BlockFormat, Bytes, InvalidPayload, Unpacked, first, matrix_shape
from neuc.compiler.formats.i2_s import TAIL, split_tail, tail_bytes
from neuc.compiler.formats.ternary import TENSOR, Levels, Scales, Ternary

# A kernel's 32 rows lie in groups of eight that are swapped in the middle.
_SWAPPED = [0, 2, 1, 3]


@dataclass(frozen=True)
class TlBlocks:
    """Block sizes: BM rows by BY columns, walked in steps of bm rows."""

    BM: int
    BY: int
    bm: int

    def __str__(self) -> str:
        return f"{self.BM},{self.BY},{self.bm}"


class _Tl(BlockFormat):
    """What both have in common: codes, then, at the next multiple of 32 bytes, the tail."""

    granularity = TENSOR
    scale_dtype = np.float32
    multiple = 4

    def __init__(self, blocks: TlBlocks) -> None:
        self.blocks = blocks

    @abstractmethod
    def code_bytes(self, rows: int, columns: int) -> int:
        """Bytes of the codes alone."""

    @abstractmethod
    def _levels(self, codes: Bytes, rows: int, columns: int) -> tuple[Levels, bytes]:
        """Levels [rows, columns], and the bytes after the last code."""

    @abstractmethod
    def _codes(self, levels: Levels) -> Bytes:
        """The inverse of `_levels`, without the bytes after the last code."""

    def nbytes(self, rows: int, columns: int) -> int:
        return -(-self.code_bytes(rows, columns) // TAIL) * TAIL + TAIL

    def shape_objection(self, rows: int, columns: int) -> str:
        blocks = self.blocks
        if min(blocks.BM, blocks.BY, blocks.bm) < 1:
            return f"block sizes {blocks} are not all positive"
        for what, size, by, divisor in (("N", rows, "BM", blocks.BM), ("BM", blocks.BM, "bm", blocks.bm)):
            if size % divisor:
                return f"{what} = {size} is not a multiple of {by} = {divisor}"
        return super().shape_objection(rows, columns)

    def decode_beside(
        self, data: bytes | memoryview | Bytes, shape: Sequence[int], scale: float, *, name: str = "payload"
    ) -> Ternary:
        """Read a payload without tail, whose scale stands in a tensor of its own.

        Raises:
            Error: NEUC-E122, as `decode`.
        """
        raw = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
        rows, columns = matrix_shape(shape)
        missing = 0 if self.shape_objection(rows, columns) else self.nbytes(rows, columns) - TAIL - raw.size
        padding = np.zeros(missing if 0 <= missing < TAIL else 0, np.uint8)
        return self.decode(np.concatenate([raw, padding, tail_bytes(np.full((1, 1), scale), b"")]), shape, name=name)

    def scales(self, data: Bytes, rows: int, columns: int) -> Scales:
        return split_tail(data)[1]

    def _unpack(self, data: Bytes, rows: int, columns: int) -> Unpacked:
        codes, scales, rest = split_tail(data)
        levels, padding = self._levels(codes, rows, columns)
        return Unpacked(levels, scales, padding + rest)

    def _pack(self, levels: Levels, scales: Scales, leftover: bytes) -> Bytes:
        codes = self._codes(levels)
        padding = self.nbytes(*levels.shape) - TAIL - codes.size
        rest = leftover or bytes(padding + TAIL - 4)
        between = np.frombuffer(rest[:padding], np.uint8)
        return np.concatenate([codes, between, tail_bytes(scales, rest[padding:])])


class Tl1(_Tl):
    """Two weights make an index 3 a + b + 4 of four bits, four weights of a row a byte, the first pair highest.

    Bytes are walked over blocks of BM rows, of BY columns, then bm rows, 256 / bm columns, 16 rows, 4 columns, row.
    """

    name = "tl1"

    def shape_objection(self, rows: int, columns: int) -> str:
        blocks = self.blocks
        if blocks.bm not in (32, 64):
            return f"bm = {blocks.bm} is neither 32 nor 64"
        if blocks.BY % (256 // blocks.bm) or columns % max(blocks.BY, 1):
            return f"K = {columns} is not a multiple of BY = {blocks.BY}, or BY not of {256 // blocks.bm}"
        return super().shape_objection(rows, columns)

    def code_bytes(self, rows: int, columns: int) -> int:
        return rows * columns // 4

    def _grid(self, rows: int, columns: int) -> tuple[int, ...]:
        BM, BY, bm = self.blocks.BM, self.blocks.BY, self.blocks.bm
        by = 256 // bm
        return rows // BM, columns // BY, BM // bm, BY // by, bm // 16, by // 4, 16, 2, 2

    def _levels(self, codes: Bytes, rows: int, columns: int) -> tuple[Levels, bytes]:
        used = codes[: self.code_bytes(rows, columns)]
        walked = _pair_levels(used).reshape(self._grid(rows, columns))
        levels = walked.transpose(0, 2, 4, 6, 1, 3, 5, 7, 8).reshape(rows, columns)
        return levels, codes[used.size :].tobytes()

    def _codes(self, levels: Levels) -> Bytes:
        mb, kb, m2, k2, m3, k3, r, byte, pair = self._grid(*levels.shape)
        walked = levels.reshape(mb, m2, m3, r, kb, k2, k3, byte, pair).transpose(0, 4, 1, 5, 2, 6, 3, 7, 8)
        return _pair_codes(walked.reshape(-1, 2, 2))


class Tl2(_Tl):
    """Three weights make v = 9 a + 3 b + c: |v| in four bits, its sign in another plane; the last columns as in TL1.

    Per block of BM rows, BY columns and 32 rows: first, per 6 columns, 32 bytes with the two indices of each row, the
    first highest, the rows' groups of eight swapped; after all of these, per 24 columns, 16 words in which bit 15 - 2 t
    is the sign of triple t of row r and bit 14 - 2 t that of row 16 + r; then the K mod BY columns that are left over,
    per 32 columns and 4 columns, 32 bytes of pairs. The size leaves room for 256 columns of pairs, whatever K is.
    """

    name = "tl2"
    multiple = 32

    def shape_objection(self, rows: int, columns: int) -> str:
        blocks = self.blocks
        if blocks.bm != 32:
            return f"bm = {blocks.bm} is not 32"
        if blocks.BY < 1 or blocks.BY % 24:
            return f"BY = {blocks.BY} is not a multiple of 24"
        if columns < 256 or columns % blocks.BY % 32 or columns % blocks.BY > 256:
            return f"K = {columns} leaves no multiple of 32 columns, up to 256, after blocks of BY = {blocks.BY}"
        return super().shape_objection(rows, columns)

    def code_bytes(self, rows: int, columns: int) -> int:
        return tl2_code_bytes(rows, columns)

    def _cuts(self, rows: int, columns: int) -> tuple[int, int, int, int]:
        """Columns in triples; where indices, signs and pairs end."""
        triples = columns - columns % self.blocks.BY
        indices = rows * triples // 6
        signs = indices + rows * triples // 24
        return triples, indices, signs, signs + rows * (columns - triples) // 4

    def _levels(self, codes: Bytes, rows: int, columns: int) -> tuple[Levels, bytes]:
        BM, BY = self.blocks.BM, self.blocks.BY
        triples, indices, signs, pairs = self._cuts(rows, columns)
        mb, kb, m2 = rows // BM, triples // BY, BM // 32
        index = _unswap(codes[:indices]).reshape(mb, kb, m2, BY // 6, 32)
        number = np.stack([index >> 4, index & 15], axis=-1).view(np.int8)
        number = number.transpose(0, 2, 4, 1, 3, 5).reshape(rows, triples // 3)
        words = codes[indices:signs].view("<u2").reshape(mb, kb, m2, BY // 24, 16)
        bits = (words[..., None] >> np.arange(15, -1, -1, dtype=np.uint16) & 1).astype(np.bool_)
        # [mb, kb, m2, k4, r, (triple, half)] to rows (mb, m2, half, r) and triples (kb, k4, triple).
        signed = bits.reshape(mb, kb, m2, BY // 24, 16, 8, 2).transpose(0, 2, 6, 4, 1, 3, 5)
        negative = signed.reshape(rows, triples // 3)
        if (number > 13).any():
            raise InvalidPayload(f"an index is {int(number.max())}, and three weights have 0 to 13")
        if (negative & (number == 0)).any():
            raise InvalidPayload("three zeros have a negative sign")
        value = np.where(negative, -number, number) + 13
        levels = np.empty((rows, columns), np.int8)
        three = levels[:, :triples].reshape(rows, -1, 3)
        for place, weight in enumerate((9, 3, 1)):
            three[:, :, place] = value // weight % 3 - 1
        rest = _pair_levels(_unswap(codes[signs:pairs])).reshape(mb, (columns - triples) // 32, m2, 8, 32, 2, 2)
        levels[:, triples:] = rest.transpose(0, 2, 4, 1, 3, 5, 6).reshape(rows, -1)
        return levels, codes[pairs:].tobytes()

    def _codes(self, levels: Levels) -> Bytes:
        rows, columns = levels.shape
        BM, BY = self.blocks.BM, self.blocks.BY
        triples, *_ = self._cuts(rows, columns)
        mb, kb, m2 = rows // BM, triples // BY, BM // 32
        three = levels[:, :triples].reshape(rows, -1, 3)
        value = 9 * three[..., 0] + 3 * three[..., 1] + three[..., 2]
        index = np.abs(value).view(np.uint8).reshape(mb, m2, 32, kb, BY // 6, 2).transpose(0, 3, 1, 4, 2, 5)
        negative = (value < 0).reshape(mb, m2, 2, 16, kb, BY // 24, 8).transpose(0, 4, 1, 5, 3, 6, 2)
        places = np.arange(15, -1, -1, dtype=np.uint16)
        words = np.bitwise_or.reduce(negative.reshape(-1, 16).astype(np.uint16) << places, axis=-1)
        pairs = levels[:, triples:].reshape(mb, m2, 32, -1, 8, 2, 2).transpose(0, 3, 1, 4, 2, 5, 6).reshape(-1, 2, 2)
        return np.concatenate(
            [
                _unswap(_nibbles(index[..., 0], index[..., 1]).reshape(-1)),
                words.astype("<u2").view(np.uint8),
                _unswap(_pair_codes(pairs)),
            ]
        )


def tl2_code_bytes(rows: int, columns: int) -> int:
    """Bytes of a TL2 payload before its tail, whatever its block sizes."""
    return (columns - 256) * rows // 3 * 5 // 8 + 256 * rows // 2 * 4 // 8


def _unswap(data: Bytes) -> Bytes:
    """Swap the middle eights of each 32 bytes, or swap them back."""
    return data.reshape(-1, 4, 8)[:, _SWAPPED].reshape(-1)


def _pair_levels(data: Bytes) -> NDArray[np.int8]:
    """Bytes [B] of two indices of pairs to levels [B, 2, 2].

    Raises:
        InvalidPayload: an index is above 8.
    """
    index = np.stack([data >> 4, data & 15], axis=-1).view(np.int8)
    bad = index > 8
    if bad.any():
        raise InvalidPayload(f"byte {first(bad) // 2} has index {int(index.max())}, and two weights have 0 to 8")
    return np.stack([index // 3 - 1, index % 3 - 1], axis=-1)


def _pair_codes(levels: NDArray[np.int8]) -> Bytes:
    """The inverse of `_pair_levels`."""
    index = (3 * levels[..., 0] + levels[..., 1] + 4).view(np.uint8)
    return _nibbles(index[:, 0], index[:, 1])


def _nibbles(high: Bytes, low: Bytes) -> Bytes:
    return np.bitwise_or(high << 4, low, dtype=np.uint8)
