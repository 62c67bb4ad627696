"""Hugging Face's packed BitNet weights: uint8 [ceil(N / 4), K], byte [r, k] with rows r, Q + r, 2 Q + r, 3 Q + r.

Q is ceil(N / 4) and the first row is in the lowest bits: quarters of the matrix, not four neighbours. The scale is a
tensor of its own, `weight_scale`, and its meaning depends on `quantization_config.linear_class`: `bitlinear` divides by
it, `autobitlinear` (offline) multiplies. Its size says nothing about which of the two it is.
"""

from __future__ import annotations

import numpy as np

from neuc.compiler.formats import two_bit
from neuc.compiler.formats.block_format import BlockFormat, Bytes, InvalidPayload, Unpacked
from neuc.compiler.formats.ternary import TENSOR, Levels, Scales, Ternary


class HfPacked(BlockFormat):
    """The codes; `with_scale` and `stored_scale` go between the tensor `weight_scale` and scales that multiply.

    Attributes:
        divides: whether weights are divided by `weight_scale`.
    """

    multiple = 1
    granularity = TENSOR
    scale_dtype = np.float32

    def __init__(self, name: str, *, divides: bool) -> None:
        self.name = name
        self.divides = divides

    def nbytes(self, rows: int, columns: int) -> int:
        return -(-rows // 4) * columns

    def with_scale(self, tensor: Ternary, weight_scale: float) -> Ternary:
        """What `decode` gave, with the scale of the tensor beside it.

        Raises:
            InvalidPayload: the scale is no finite number, or 0 where weights are divided by it.
        """
        stored = np.full((1, 1), weight_scale, np.float32)
        if not np.isfinite(stored).all() or (self.divides and not stored.all()):
            raise InvalidPayload(f"weight_scale is {weight_scale:g}")
        if not self.divides:
            return Ternary(tensor.levels, stored, TENSOR)
        with np.errstate(over="ignore"):
            scales = np.float32(1) / stored
        if not np.isfinite(scales).all():
            raise InvalidPayload(f"1 / weight_scale is out of range: weight_scale is {weight_scale:g}")
        return Ternary(tensor.levels, scales, TENSOR, divisors=stored)

    def stored_scale(self, tensor: Ternary) -> tuple[float, float]:
        """The `weight_scale` to store, and the relative error reading it back brings about (0 if none)."""
        scales = tensor.scales_by(TENSOR)
        if scales is None:
            raise InvalidPayload(f"its scales per {tensor.granularity} differ")
        if not self.divides:
            return float(scales[0, 0]), 0.0
        if tensor.divisors is not None and tensor.granularity == TENSOR:
            return float(tensor.divisors[0, 0]), 0.0
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            divisor = np.float32(1) / scales
            error = np.abs((np.float32(1) / divisor).astype(np.float64) / scales - 1)
        return float(divisor[0, 0]), float(error[0, 0])

    def objection(self, tensor: Ternary, *, lossy_scales: bool = False) -> str:
        wrong = super().objection(tensor, lossy_scales=lossy_scales)
        if wrong or not self.divides:
            return wrong
        _, error = self.stored_scale(tensor)
        if not np.isfinite(error):
            return "its scale has no reciprocal"
        if error and not lossy_scales:
            return (
                f"its scale is not the reciprocal of a float32 (relative error {error:.1e}); --lossy-scales rounds it"
            )
        return ""

    def scales(self, data: Bytes, rows: int, columns: int) -> Scales:
        return np.ones((1, 1), np.float32)

    def _unpack(self, data: Bytes, rows: int, columns: int) -> Unpacked:
        two_bit.refuse_code_3(data)
        levels = two_bit.unpack(data.reshape(1, -1), two_bit.LOW_FIRST).reshape(-1, columns)
        if (levels[rows:] != -1).any():
            raise InvalidPayload(f"there are codes beyond row {rows}")
        return Unpacked(levels[:rows], np.ones((1, 1), np.float32))

    def _pack(self, levels: Levels, scales: Scales, leftover: bytes) -> Bytes:
        rows, columns = levels.shape
        padded = np.full((-(-rows // 4) * 4, columns), -1, np.int8)
        padded[:rows] = levels
        return two_bit.pack(padded.reshape(4, -1), two_bit.LOW_FIRST)


HF_BITLINEAR = HfPacked("hf-bitlinear", divides=True)
HF_AUTOBITLINEAR = HfPacked("hf-autobitlinear", divides=False)
