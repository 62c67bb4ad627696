"""Random numbers that depend on what they are for and on nothing else: a Philox counter for each purpose.

Whatever order tiles are drawn in, and on however many threads, a seed gives the same bits.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import numpy as np

MASK64 = 2**64 - 1


class Purpose(IntEnum):
    """What a stream is for; the numbers are part of what a seed means."""

    PROGRAMMING = 1
    READ_NOISE = 2
    FAULTS = 3
    CALIBRATION = 4
    PHASES = 5
    CONVERTERS = 6


def stream(seed: int, element: int, purpose: Purpose, time: float = 0.0, part: int = 0) -> np.random.Generator:
    """The generator for one purpose.

    Args:
        seed: the draw: one programmed chip.
        element: which tile (or mesh).
        purpose: what the numbers are for.
        time: seconds after programming, for what is drawn anew at each time.
        part: which half of a pair, or which round.
    """
    (bits,) = struct.unpack("<Q", struct.pack("<d", time))
    key = np.array([seed & MASK64, element & MASK64], np.uint64)
    # The low words of the counter go up with each number drawn; the high ones say what it is for.
    counter = np.array([0, 0, bits, (int(purpose) << 32) | part], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
