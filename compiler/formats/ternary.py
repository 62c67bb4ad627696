"""`Ternary`: what every block format decodes to and encodes from. Layouts of bytes stand elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuc.errors import InternalError

Levels = NDArray[np.int8]
Scales = NDArray[np.float32]


@dataclass(frozen=True)
class Granularity:
    """Which weights share a scale: all of a tensor, a row, or `size` neighbours in a row."""

    kind: Literal["tensor", "row", "group"]
    size: int = 0

    def __str__(self) -> str:
        return f"group<{self.size}>" if self.kind == "group" else self.kind

    def shape(self, rows: int, columns: int) -> tuple[int, int]:
        """Shape of the scales of a [rows, columns] tensor."""
        if self.kind == "tensor":
            return 1, 1
        return rows, 1 if self.kind == "row" else -(-columns // self.size)


TENSOR = Granularity("tensor")
ROW = Granularity("row")


def group(size: int) -> Granularity:
    """One scale for each `size` neighbours in a row."""
    return Granularity("group", size)


@dataclass(frozen=True)
class Leftover:
    """Bytes of a payload that hold no weight, and the format that keeps them there."""

    format: str
    data: bytes


@dataclass(frozen=True, eq=False)
class Ternary:
    """A matrix of small integers with scales: weight[n, k] = levels[n, k] * scale.

    Attributes:
        levels: int8 [N, K], in -1..1, or in -1..2 where a format has a fourth level.
        scales: float32, [1, 1] for a tensor, [N, 1] for rows, [N, ceil(K / size)] for groups; they multiply.
        granularity: which weights share a scale.
        divisors: float32 like `scales`, where the source divides by its scale: scales = 1 / divisors, rounded once.
        leftover: what else the payload held, so that encoding it again gives the same bytes.
    """

    levels: Levels
    scales: Scales
    granularity: Granularity
    divisors: Scales | None = None
    leftover: Leftover | None = None

    def __post_init__(self) -> None:
        wanted = self.granularity.shape(self.rows, self.columns)
        fits = self.scales.shape == wanted and (self.divisors is None or self.divisors.shape == wanted)
        if not fits or self.levels.dtype != np.int8 or self.scales.dtype != np.float32:
            raise InternalError(f"a {self.granularity} scaled [{self.rows}, {self.columns}] needs {wanted} f32 scales")

    @property
    def rows(self) -> int:
        """N, output features."""
        return self.levels.shape[0]

    @property
    def columns(self) -> int:
        """K, input features."""
        return self.levels.shape[1]

    @property
    def zeros(self) -> int:
        """How many weights are zero."""
        return self.levels.size - int(np.count_nonzero(self.levels))

    @property
    def highest(self) -> int:
        """The highest level that occurs."""
        return int(self.levels.max(initial=-1))

    def dequantize(self) -> NDArray[np.float32]:
        """The weights, float32 [N, K]; infinite where a level of 2 leads out of the range."""
        spread = np.repeat(self.scales, self.granularity.size or self.columns, axis=1)[:, : self.columns]
        with np.errstate(over="ignore"):
            return self.levels * spread

    def scales_by(self, granularity: Granularity) -> Scales | None:
        """The scales at another granularity, or None if the same weights need more scales than it has.

        A group of zeros takes whatever scale its neighbours have, since its weights are zero under any.
        """
        if granularity == self.granularity:
            return self.scales
        # Columns over which neither the scale we have nor the one we want changes.
        unit = math.gcd(self.granularity.size, granularity.size) or self.columns
        starts = np.arange(0, self.columns, unit)
        have = self.scales[:, starts // (self.granularity.size or self.columns)]
        have = np.broadcast_to(have, (self.rows, starts.size))
        if granularity.kind != "tensor" and unit == (granularity.size or self.columns):
            return np.ascontiguousarray(have)
        runs = granularity.size // unit or starts.size
        used = np.logical_or.reduceat(self.levels != 0, starts, axis=1)
        beyond = ((0, 0), (0, -starts.size % runs))
        shape = granularity.shape(self.rows, self.columns)
        have = np.pad(have, beyond).reshape(*shape, -1)
        used = np.pad(used, beyond).reshape(*shape, -1)
        chosen = np.take_along_axis(have, used.argmax(axis=2, keepdims=True), axis=2)
        if np.any(used & (have != chosen)):
            return None
        return np.ascontiguousarray(chosen[:, :, 0])
