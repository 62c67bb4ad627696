"""Five ternary digits in a byte, as ggml packs them: byte = ceil(256 v / 243) for the number v of five digits.

A digit comes back by multiplying (3 * (byte * 3^n mod 256) >> 8), so no division is needed to decode. Which elements
the digits are is each format's business.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuc.compiler.formats.block_format import Bytes, InvalidPayload, first
from neuc.compiler.formats.ternary import Levels

_BYTES = np.array([-(-256 * number // 243) for number in range(243)], np.uint8)


def unpack(data: Bytes, digits: int = 5) -> Levels:
    """Bytes [..., B] to levels int8 [..., digits, B], the most significant digit first."""
    levels = np.empty((*data.shape[:-1], digits, data.shape[-1]), np.int8)
    rest = data.copy()
    for row in range(digits):
        levels[..., row, :] = (rest.astype(np.uint16) * 3 >> 8).astype(np.int8) - 1
        rest *= 3
    return levels


def pack(levels: NDArray[np.int8]) -> Bytes:
    """Levels int8 [..., D, B] to bytes [..., B], D of 5 or less; digits that are missing at the end are 0."""
    number = np.zeros((*levels.shape[:-2], levels.shape[-1]), np.uint8)
    for row in range(5):
        number *= 3
        if row < levels.shape[-2]:
            number += (levels[..., row, :] + np.int8(1)).view(np.uint8)
    return _BYTES[number]


def _legal(numbers: range) -> NDArray[np.bool_]:
    table = np.zeros(256, np.bool_)
    table[_BYTES[numbers]] = True
    return table


FIVE = _legal(range(243))
FOUR_HIGH = _legal(range(0, 243, 3))  # the least significant of five digits is 0
FOUR_LOW = _legal(range(81))  # the most significant of five digits is 0


def refuse_illegal(data: Bytes, legal: NDArray[np.bool_]) -> None:
    """Refuse bytes that are no number's: 13 of the 256 for five digits, 175 for four.

    Raises:
        InvalidPayload: one is.
    """
    bad = ~legal[data]
    if bad.any():
        raise InvalidPayload(f"packed byte {first(bad)} is {data.reshape(-1)[first(bad)]}, which packs no digits")
