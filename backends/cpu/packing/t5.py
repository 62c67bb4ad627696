"""How the `t5` encoding puts five trits, codes 0, 1 and 2, into one of 243 values of a byte. No layouts here.

There are two byte codes, each made for the instructions that read it:

- *tables*: two look-ups of six bits, for machines that look up in 64 bytes (AVX-512 VBMI, NEON). With a = FIRST[byte
  mod 64] and b = SECOND[byte div 4], bits 0-1 of a are c0, bits 2-3 of a|b are c1, bits 4-5 of a|b are c2, bits 6-7 of
  a^b are c3, and bits 0-1 of b are c4.
- *thirds*: the number 81·c0 + 27·c1 + 9·c2 + 3·c3 + c4, for machines that multiply 16-bit words. Its quotients by 81,
  27, 9 and 3 are the leading digits, and multiplied by `FRACTION` it is a fraction of 65536, whose digits come out one
  by one when it is multiplied by three.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np

PLANES = 5
FRACTION = 270
"""About 65536 / 243, rounded up so that every product has the digits of its number."""

# fmt: off
FIRST = (
    0, 1, 2, 4, 5, 6, 8, 9, 10, 16, 17, 18, 20, 21, 22, 24,
    25, 26, 32, 33, 34, 36, 37, 38, 40, 41, 42, 149, 0, 4, 1, 2,
    0, 1, 2, 4, 5, 6, 8, 9, 10, 16, 17, 18, 20, 21, 22, 24,
    25, 26, 32, 33, 34, 36, 37, 38, 40, 41, 42, 217, 8, 1, 6, 10,
)
SECOND = (
    2, 2, 2, 2, 2, 2, 2, 130, 66, 66, 66, 66, 66, 66, 66, 134,
    0, 0, 0, 0, 0, 0, 0, 138, 64, 64, 64, 64, 64, 64, 64, 146,
    128, 128, 128, 128, 128, 128, 128, 146, 1, 1, 1, 1, 1, 1, 1, 166,
    65, 65, 65, 65, 65, 65, 65, 162, 129, 129, 129, 129, 129, 129, 129, 170,
)
# fmt: on


def encode_number(numbers: np.ndarray, tables: bool) -> np.ndarray:
    """Bytes of the *tables* code, or of the *thirds* code, for numbers 81·c0 + 27·c1 + 9·c2 + 3·c3 + c4, uint8."""
    if not tables:
        return numbers
    # Four times as fast as indexing, which makes 64-bit indices first.
    found = numbers.tobytes().translate(_inverse())
    return np.frombuffer(found, np.uint8).reshape(numbers.shape)


def codes_of_bytes(tables: bool) -> np.ndarray:
    """The codes of each byte of the *tables* code, or of the *thirds* code: uint8 [256, 5]; 0 if a byte has none."""
    found = np.zeros((256, PLANES), np.uint8)
    found[encode_number(np.arange(3**PLANES, dtype=np.uint8), tables)] = list(product(range(3), repeat=PLANES))
    return found


@cache
def _inverse() -> bytes:
    """The byte of the *tables* code for each of the 243 numbers, the first that decodes to its digits; zeros beyond."""
    found: dict[tuple[int, ...], int] = {}
    for byte in range(256):
        a, b = FIRST[byte % 64], SECOND[byte // 4]
        digits = (a & 3, (a | b) >> 2 & 3, (a | b) >> 4 & 3, (a ^ b) >> 6 & 3, b & 3)
        found.setdefault(digits, byte)
    return bytes(found[digits] for digits in product(range(3), repeat=PLANES)).ljust(256, b"\0")
