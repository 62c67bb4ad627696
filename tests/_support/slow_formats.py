"""Decoders of ternary block formats, one weight at a time in plain Python, written from descriptions of the layouts.

They share nothing with `compiler/formats` and are there to be compared with it. Each takes a payload and a shape and
returns the levels as a list of rows and the scale of each weight likewise (Python floats; f16 and f32 fit exactly).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

Matrix = list[list[int]]
ScaleMatrix = list[list[float]]
Decoded = tuple[Matrix, ScaleMatrix]


def f16(data: bytes, at: int) -> float:
    return struct.unpack_from("<e", data, at)[0]


def f32(data: bytes, at: int) -> float:
    return struct.unpack_from("<f", data, at)[0]


def _empty(rows: int, columns: int) -> Decoded:
    return [[0] * columns for _ in range(rows)], [[math.nan] * columns for _ in range(rows)]


def _by_weight(rows: int, columns: int, weight: Callable[[int, int], tuple[int, float]]) -> Decoded:
    levels, scales = _empty(rows, columns)
    for n in range(rows):
        for k in range(columns):
            levels[n][k], scales[n][k] = weight(n, k)
    return levels, scales


def i2_s(data: bytes, rows: int, columns: int) -> Decoded:
    """128 weights in 32 bytes; weight 32 g + p of a block at bits 7 - 2 g, 6 - 2 g of byte p; f32 scale at N/4."""
    scale = f32(data, rows * columns // 4)

    def weight(n: int, k: int) -> tuple[int, float]:
        block, place = divmod(n * columns + k, 128)
        quarter, byte = divmod(place, 32)
        return (data[block * 32 + byte] >> (6 - 2 * quarter) & 3) - 1, scale

    return _by_weight(rows, columns, weight)


def i2_s_neon(data: bytes, rows: int, columns: int) -> Decoded:
    """The same with 64 weights in 16 bytes."""
    scale = f32(data, rows * columns // 4)

    def weight(n: int, k: int) -> tuple[int, float]:
        block, place = divmod(n * columns + k, 64)
        quarter, byte = divmod(place, 16)
        return (data[block * 16 + byte] >> (6 - 2 * quarter) & 3) - 1, scale

    return _by_weight(rows, columns, weight)


def i2_s_rows4(data: bytes, rows: int, columns: int) -> Decoded:
    """Byte (n / 4) K + k holds column k of four rows, the first in the highest bits."""
    scale = f32(data, rows * columns // 4)
    return _by_weight(rows, columns, lambda n, k: ((data[n // 4 * columns + k] >> (6 - 2 * (n % 4)) & 3) - 1, scale))


def digit(byte: int, n: int) -> int:
    """Digit n of a byte that holds five, the most significant being digit 0, by long division of 243 parts."""
    # byte = ceil(256 v / 243), so v is the largest number with 256 v <= 243 byte.
    return byte * 243 // 256 // 3 ** (4 - n) % 3


def tq1_0(data: bytes, rows: int, columns: int) -> Decoded:
    def weight(n: int, k: int) -> tuple[int, float]:
        at, e = (n * columns + k) // 256 * 54, k % 256
        if e < 160:
            byte, place = at + e % 32, e // 32
        elif e < 240:
            byte, place = at + 32 + (e - 160) % 16, (e - 160) // 16
        else:
            byte, place = at + 48 + (e - 240) % 4, (e - 240) // 4
        return digit(data[byte], place) - 1, f16(data, at + 52)

    return _by_weight(rows, columns, weight)


def ptq1_0(data: bytes, rows: int, columns: int) -> Decoded:
    def weight(n: int, k: int) -> tuple[int, float]:
        at, e = (n * columns + k) // 128 * 28, k % 128
        if e < 80:
            byte, place = at + e % 16, e // 16
        elif e < 120:
            byte, place = at + 16 + (e - 80) % 8, (e - 80) // 8
        else:
            byte, place = at + 24 + (e - 120) % 2, (e - 120) // 2
        return digit(data[byte], place) - 1, f16(data, at + 26)

    return _by_weight(rows, columns, weight)


def tq2_0(data: bytes, rows: int, columns: int) -> Decoded:
    def weight(n: int, k: int) -> tuple[int, float]:
        at, e = (n * columns + k) // 256 * 66, k % 256
        half, place = divmod(e, 128)
        return (data[at + 32 * half + place % 32] >> 2 * (place // 32) & 3) - 1, f16(data, at + 64)

    return _by_weight(rows, columns, weight)


def _q2(size: int) -> Callable[[bytes, int, int], Decoded]:
    def decode(data: bytes, rows: int, columns: int) -> Decoded:
        def weight(n: int, k: int) -> tuple[int, float]:
            at, e = (n * columns + k) // size * (2 + size // 4), k % size
            return (data[at + 2 + e // 4] >> 2 * (e % 4) & 3) - 1, f16(data, at)

        return _by_weight(rows, columns, weight)

    return decode


def iq1_bn(data: bytes, rows: int, columns: int) -> Decoded:
    row_bytes = 2 + columns // 64 * 13

    def weight(n: int, k: int) -> tuple[int, float]:
        at = n * row_bytes + 2 + k // 64 * 13
        sixteen, e = k % 64 // 16, k % 16
        if e < 15:
            byte, place = data[at + 3 * sixteen + e // 5], e % 5
        else:
            byte, place = data[at + 12], sixteen
        return digit(byte, 4 - place) - 1, f16(data, n * row_bytes)

    return _by_weight(rows, columns, weight)


def iq2_bn(data: bytes, rows: int, columns: int) -> Decoded:
    row_bytes = 4 + columns // 64 * 16

    def weight(n: int, k: int) -> tuple[int, float]:
        byte = data[n * row_bytes + 4 + k // 64 * 16 + k % 16]
        return (byte >> 2 * (k % 64 // 16) & 3) - 1, f32(data, n * row_bytes)

    return _by_weight(rows, columns, weight)


def hf_packed(data: bytes, rows: int, columns: int) -> Decoded:
    """Byte [r, k] holds rows r, Q + r, 2 Q + r, 3 Q + r from the lowest bits on, Q = ceil(N / 4); no scale."""
    quarter = -(-rows // 4)

    def weight(n: int, k: int) -> tuple[int, float]:
        part, r = divmod(n, quarter)
        return (data[r * columns + k] >> 2 * part & 3) - 1, 1.0

    return _by_weight(rows, columns, weight)


def tl1(data: bytes, rows: int, columns: int, BM: int, BY: int, bm: int) -> Decoded:
    """Bytes in the order of seven loops; a nibble is 3 a + b + 4."""
    levels, scales = _empty(rows, columns)
    by = 256 // bm
    at = 0
    for mb in range(rows // BM):
        for kb in range(columns // BY):
            for m2 in range(BM // bm):
                for k2 in range(BY // by):
                    for m3 in range(bm // 16):
                        for k3 in range(by // 4):
                            for r in range(16):
                                n, k = mb * BM + m2 * bm + m3 * 16 + r, kb * BY + k2 * by + k3 * 4
                                for pair, index in enumerate((data[at] >> 4, data[at] & 15)):
                                    levels[n][k + 2 * pair] = index // 3 - 1
                                    levels[n][k + 2 * pair + 1] = index % 3 - 1
                                at += 1
    scale = f32(data, -(-at // 32) * 32)
    return levels, [[scale] * columns for _ in scales]


SWAPPED_ROW = [*range(8), *range(16, 24), *range(8, 16), *range(24, 32)]


def tl2_encode(levels: Matrix, BM: int, BY: int, scale: float, padding: int = 0, tail: bytes = bytes(28)) -> bytes:
    """Indices, then signs, then the columns that are left over; up to the size the format reserves, then the tail."""
    rows, columns = len(levels), len(levels[0])
    triples = columns // BY * BY
    out = bytearray()

    def value(n: int, k: int) -> int:
        return 9 * levels[n][k] + 3 * levels[n][k + 1] + levels[n][k + 2]

    for mb in range(rows // BM):
        for kb in range(triples // BY):
            for m2 in range(BM // 32):
                for k2 in range(BY // 6):
                    for place in range(32):
                        n, k = mb * BM + m2 * 32 + SWAPPED_ROW[place], kb * BY + k2 * 6
                        out.append(abs(value(n, k)) << 4 | abs(value(n, k + 3)))
    for mb in range(rows // BM):
        for kb in range(triples // BY):
            for m2 in range(BM // 32):
                for k4 in range(BY // 24):
                    for r in range(16):
                        word = 0
                        for t in range(8):
                            n, k = mb * BM + m2 * 32 + r, kb * BY + k4 * 24 + 3 * t
                            word |= (value(n, k) < 0) << (15 - 2 * t) | (value(n + 16, k) < 0) << (14 - 2 * t)
                        out += struct.pack("<H", word)
    for mb in range(rows // BM):
        for kb in range((columns - triples) // 32):
            for m2 in range(BM // 32):
                for k2 in range(8):
                    for place in range(32):
                        n, k = mb * BM + m2 * 32 + SWAPPED_ROW[place], triples + kb * 32 + 4 * k2
                        high, low = (3 * levels[n][c] + levels[n][c + 1] + 4 for c in (k, k + 2))
                        out.append(high << 4 | low)
    reserved = (columns - 256) * rows // 3 * 5 // 8 + 256 * rows // 2 * 4 // 8
    reserved += -reserved % 32
    return bytes(out) + bytes([padding]) * (reserved - len(out)) + struct.pack("<f", scale) + tail


DECODERS: dict[str, Callable[[bytes, int, int], Decoded]] = {
    "i2_s": i2_s,
    "i2_s-neon": i2_s_neon,
    "i2_s-rows4": i2_s_rows4,
    "iq1_bn": iq1_bn,
    "iq2_bn": iq2_bn,
    "pq2_0": _q2(128),
    "ptq1_0": ptq1_0,
    "q2_0": _q2(64),
    "q2_0-g128": _q2(128),
    "tq1_0": tq1_0,
    "tq2_0": tq2_0,
}
