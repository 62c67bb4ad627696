"""Four two-bit codes in a byte. Which elements they are, and what a code means, is each format's business."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuc.compiler.formats.block_format import Bytes, InvalidPayload, first
from neuc.compiler.formats.ternary import Levels

LOW_FIRST = (0, 2, 4, 6)
HIGH_FIRST = (6, 4, 2, 0)


def unpack(data: Bytes, shifts: Sequence[int]) -> Levels:
    """Bytes [..., B] to levels int8 [..., 4, B]: row i holds code - 1 of the code at bit `shifts[i]`."""
    levels = np.empty((*data.shape[:-1], len(shifts), data.shape[-1]), np.int8)
    for row, shift in enumerate(shifts):
        np.subtract((data >> shift & 3).view(np.int8), 1, out=levels[..., row, :])
    return levels


_RUNS = unpack(np.arange(256, dtype=np.uint8)[:, None], LOW_FIRST).reshape(256, 4).view(np.uint32)[:, 0]


def unpack_runs(data: Bytes) -> Levels:
    """Bytes [B] to levels int8 [4 B]: each byte holds four neighbours, the first in the lowest bits."""
    return _RUNS[data].view(np.int8)


def pack(levels: NDArray[np.int8], shifts: Sequence[int]) -> Bytes:
    """Levels int8 [..., 4, B] to bytes [..., B]."""
    data = np.zeros((*levels.shape[:-2], levels.shape[-1]), np.uint8)
    for row, shift in enumerate(shifts):
        data |= (levels[..., row, :] + np.int8(1)).view(np.uint8) << shift
    return data


def refuse_code_3(data: Bytes) -> None:
    """Refuse bytes that hold the code 3, for formats with three levels.

    Raises:
        InvalidPayload: one does.
    """
    threes = (data & data >> 1 & 0x55) != 0
    if threes.any():
        raise InvalidPayload(f"byte {first(threes)} holds the code 3, which stands for no level")
