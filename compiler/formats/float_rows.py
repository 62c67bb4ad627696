"""Rows of tensors that are no ternary matrices: floats, and the 8-, 6- and 4-bit blocks that embeddings come in.

Q8_0 (34 bytes): f16 scale, 32 levels int8. Q4_0 (18 bytes): f16 scale, 16 bytes, byte j with code j in its low and code
j + 16 in its high bits, weight = (code - 8) scale. Q6_K (210 bytes, 256 weights): 128 bytes of low bits, 64 of high
bits, 16 int8 scales of 16 weights each, f16 scale of these; of each half of 128 weights, weight j + 32 i has its low
four bits in byte j + 32 (i mod 2), the high half of it for i above 1, its high two at bit 2 i of byte j; less 32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from neuc.compiler.formats.block_format import Bytes

Floats = NDArray[np.float32]

BLOCK = 32
"""Weights of a block of Q8_0 and Q4_0."""
_BLOCK_BYTES = {"q8_0": 34, "q4_0": 18}


def row_bytes(kind: str, columns: int) -> int | None:
    """Bytes of a row of `columns` weights; None for types that are not read here."""
    match kind:
        case "f32":
            return 4 * columns
        case "f16" | "bf16":
            return 2 * columns
        case "q8_0" | "q4_0" if columns % BLOCK == 0:
            return columns // BLOCK * _BLOCK_BYTES[kind]
        case "q6_k" if columns % 256 == 0:
            return columns // 256 * 210
        case _:
            return None


def float_rows(kind: str, data: Bytes, columns: int) -> Floats:
    """Whole rows of a type `row_bytes` knows as float32 [n, K]."""
    match kind:
        case "f32":
            found = data.view("<f4").astype(np.float32, copy=False)
        case "f16":
            found = from_f16(data.view("<u2"))
        case "bf16":
            found = (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
        case "q6_k":
            found = _q6_k(data.reshape(-1, 210))
        case _:
            levels, scales = block_levels(kind, data)
            found = levels * scales[:, None]
    return found.reshape(-1, columns)


def block_levels(kind: str, data: Bytes) -> tuple[NDArray[np.int8], Floats]:
    """Levels int8 [B, 32] and scales f32 [B] of Q8_0 or Q4_0 blocks."""
    blocks = data.reshape(-1, _BLOCK_BYTES[kind])
    scales = from_f16(np.ascontiguousarray(blocks[:, :2]).view("<u2")[:, 0])
    if kind == "q8_0":
        return np.ascontiguousarray(blocks[:, 2:]).view(np.int8), scales
    levels = np.empty((len(blocks), BLOCK), np.uint8)
    np.bitwise_and(blocks[:, 2:], 15, out=levels[:, :16])
    np.right_shift(blocks[:, 2:], 4, out=levels[:, 16:])
    levels -= np.uint8(8)
    return levels.view(np.int8), scales


def from_f16(bits: NDArray[np.uint16]) -> Floats:
    """The float32 of float16 bits: exactly, by moving the exponent, several times as fast as numpy's conversion."""
    wide = bits.view(np.int16).astype(np.int32)
    wide <<= 13
    wide &= np.int32(-0x70002000)
    moved = wide.view(np.float32)
    moved *= np.float32(2.0**112)
    if (bits & 0x7FFF).max(initial=0) < 0x7C00:
        return moved
    return np.where((bits & 0x7C00) == 0x7C00, bits.view(np.float16).astype(np.float32), moved)


def _q6_k(blocks: Bytes) -> Floats:
    count = len(blocks)
    low = blocks[:, :128].reshape(count, 2, 2, 32)
    high = blocks[:, 128:192].reshape(count, 2, 1, 32)
    codes = np.empty((count, 2, 4, 32), np.uint8)
    codes[:, :, :2] = low & 15
    codes[:, :, 2:] = low >> 4
    codes |= (high >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3) << 4
    of_block = from_f16(np.ascontiguousarray(blocks[:, 208:]).view("<u2")[:, 0])
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8) * of_block[:, None]
    weights: Floats = codes.reshape(count, 16, 16).astype(np.float32)
    weights -= np.float32(32)
    weights *= scales[:, :, None]
    return weights


def reader(kind: str, data: Bytes, columns: int) -> Callable[[int, int], Floats]:
    """What reads rows `begin` to `end` of a payload as float32."""
    stride = row_bytes(kind, columns)
    assert stride is not None
    return lambda begin, end: float_rows(kind, data[begin * stride : end * stride], columns)
