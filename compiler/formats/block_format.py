"""What every block format has in common: sizes, what it can hold, checks around unpacking and packing.

The layouts themselves stand in one file each; which formats there are, and their ids in GGUF, in `table.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from neuc.compiler.formats.ternary import Granularity, Leftover, Levels, Scales, Ternary
from neuc.errors import Error

Bytes = NDArray[np.uint8]

INVALID = "NEUC-E122"
CANNOT_HOLD = "NEUC-E123"
_DAMAGED = "the file is damaged, or it was written in another layout (--read-as)"


class InvalidPayload(Exception):
    """A payload no encoder writes; the message says what is wrong with it."""


@dataclass(frozen=True)
class Unpacked:
    """A payload taken apart: levels int8 [N, K], scales f32 of the format's granularity, bytes that hold no weight."""

    levels: Levels
    scales: Scales
    leftover: bytes = b""


class BlockFormat(ABC):
    """A way to store a ternary matrix as bytes.

    Attributes:
        name: what users call it.
        multiple: K has to be a multiple of this.
        granularity: which weights share a scale.
        scale_dtype: how a scale is stored.
        highest: the highest level it can hold; the lowest is -1.
    """

    name: str
    multiple: int
    granularity: Granularity
    scale_dtype: DTypeLike
    highest: int = 1

    @abstractmethod
    def nbytes(self, rows: int, columns: int) -> int:
        """Bytes of a [rows, columns] tensor whose shape the format takes."""

    @abstractmethod
    def scales(self, data: Bytes, rows: int, columns: int) -> Scales:
        """The scales of a payload of `nbytes` bytes, f32 of the format's granularity, without unpacking its levels."""

    @abstractmethod
    def _unpack(self, data: Bytes, rows: int, columns: int) -> Unpacked:
        """Take `nbytes` bytes apart.

        Raises:
            InvalidPayload: no encoder writes such bytes.
        """

    @abstractmethod
    def _pack(self, levels: Levels, scales: Scales, leftover: bytes) -> Bytes:
        """The inverse of `_unpack`; `leftover` is empty where the tensor came from another format."""

    def shape_objection(self, rows: int, columns: int) -> str:
        """Why the format takes no tensor of this shape, or an empty string."""
        if rows < 1 or columns < 1:
            return "it has no elements"
        return f"K = {columns} is not a multiple of {self.multiple}" if columns % self.multiple else ""

    def objection(self, tensor: Ternary, *, lossy_scales: bool = False) -> str:
        """Why the format cannot hold exactly these weights, or an empty string.

        Args:
            tensor: the weights.
            lossy_scales: let scales be rounded to what the format stores; nothing else may change.
        """
        shape = self.shape_objection(tensor.rows, tensor.columns)
        if shape:
            return shape
        for level in (int(tensor.levels.min()), tensor.highest):
            if not -1 <= level <= self.highest:
                return f"level {level} occurs, and {self.name} has -1 to {self.highest}"
        scales = tensor.scales_by(self.granularity)
        if scales is None:
            return f"its scales per {tensor.granularity} differ, and {self.name} has one per {self.granularity}"
        error = rounding(scales, self.scale_dtype)
        if not np.isfinite(error):
            return f"a scale is outside the range of {np.dtype(self.scale_dtype).name}"
        if error and not lossy_scales:
            return (
                f"scales are not exact in {np.dtype(self.scale_dtype).name} (relative error {error:.1e}); "
                "--lossy-scales rounds them"
            )
        return ""

    def decode(self, data: bytes | memoryview | Bytes, shape: Sequence[int], *, name: str = "payload") -> Ternary:
        """Read a tensor.

        Args:
            data: the payload, exactly `nbytes` bytes.
            shape: its dims, outermost first; all but the last are taken together as rows.
            name: what to call it in errors.

        Raises:
            Error: NEUC-E122, size or shape do not fit, or no encoder writes such bytes.
        """
        rows, columns = matrix_shape(shape)
        raw = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
        wrong = self.shape_objection(rows, columns)
        if not wrong and raw.size != self.nbytes(rows, columns):
            wrong = f"{raw.size} bytes, where a [{rows}, {columns}] tensor has {self.nbytes(rows, columns)}"
        if wrong:
            raise invalid(name, self.name, wrong)
        try:
            found = self._unpack(raw, rows, columns)
        except InvalidPayload as problem:
            raise invalid(name, self.name, str(problem)) from None
        if not np.isfinite(found.scales).all():
            raise invalid(name, self.name, "a scale is not a finite number")
        leftover = Leftover(self.name, found.leftover) if any(found.leftover) else None
        return Ternary(found.levels, found.scales, self.granularity, leftover=leftover)

    def encode(self, tensor: Ternary, *, lossy_scales: bool = False, name: str = "tensor") -> bytes:
        """Write a tensor.

        Args:
            tensor: the weights.
            lossy_scales: round scales to what the format stores, if they are not exact in it.
            name: what to call the tensor in errors.

        Raises:
            Error: NEUC-E123, the format cannot hold exactly these weights.
        """
        wrong = self.objection(tensor, lossy_scales=lossy_scales)
        scales = tensor.scales_by(self.granularity)
        if wrong or scales is None:
            raise Error(CANNOT_HOLD, f"{name} cannot be {self.name}: {wrong}", hint="choose another format")
        kept = tensor.leftover
        mine = kept.data if kept is not None and kept.format == self.name else b""
        return self._pack(tensor.levels, scales, mine).tobytes()


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a tensor whose outer dims are taken together."""
    *outer, columns = shape or (1,)
    rows = 1
    for dim in outer:
        rows *= dim
    return rows, columns


def invalid(name: str, format_name: str, why: str) -> Error:
    """NEUC-E122 for a tensor."""
    return Error(INVALID, f"{name} is no valid {format_name}: {why}", hint=_DAMAGED)


def rounding(scales: Scales, dtype: DTypeLike) -> float:
    """The largest relative error of storing `scales` as `dtype`: 0 if they are exact, infinite out of its range."""
    with np.errstate(over="ignore"):
        stored = scales.astype(dtype).astype(np.float32)
    off = stored != scales
    if not off.any():
        return 0.0
    return float(np.max(np.abs(stored[off].astype(np.float64) - scales[off]) / np.abs(scales[off])))


def first(where: NDArray[np.bool_]) -> int:
    """Flat index of the first true element."""
    return int(where.reshape(-1).argmax())
