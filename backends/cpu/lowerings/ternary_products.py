"""Packing weights and launching exact ternary products: what the `ternary` and `lut` lowerings share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.ir import SSAValue

from neuc.backends.cpu.kernels.direct_i2 import DirectI2Kernel
from neuc.backends.cpu.kernels.direct_i8 import DirectI8Kernel
from neuc.backends.cpu.kernels.ternary_dequantize import Epilogue, TernaryDequantizeKernel
from neuc.backends.cpu.lowering import SegmentLowering
from neuc.backends.cpu.packing.i2 import I2Layout, pack_i2
from neuc.backends.cpu.packing.tl2 import Tl2Layout, pack_tl2
from neuc.dialects.dense_attrs import ActivationAttr
from neuc.dialects.dims import Dim
from neuc.dialects.ternary import WeightOp
from neuc.dialects.ternary_types import TritsType
from neuc.dialects.ternary_weights import weight_arrays

MAX_COLUMNS = 1 << 17
"""Columns a kernel's int32 accumulators stand, whatever the weights and activations."""


@dataclass(frozen=True)
class Packed:
    """Weights in a kernel's layout, as `SegmentLowering.remember` keeps them for a packed value."""

    layout: I2Layout | Tl2Layout | DirectI8Kernel
    weights: SSAValue
    correction: SSAValue | None = None


def rows_of(type_: TritsType) -> int:
    """P·N, the rows of the packed matrix."""
    return type_.plane_count * type_.rows


def fits_i2(type_: TritsType) -> bool:
    """Whether `i2` can hold these levels."""
    levels = type_.level_set
    low, high = min(levels), max(levels)
    return high - low == len(levels) - 1 <= 3 and low <= 0 <= high


def default_block_rows(rows: int) -> int:
    """BM where the IR does not say: tiles of 64 rows, enough blocks for several threads."""
    return 128 if rows >= 2048 else 64


def trits_of(op: WeightOp, s: SegmentLowering) -> tuple[TritsType, np.ndarray, np.ndarray]:
    """Type, trits [P, N, K] and scales [P, N, G] of a weight."""
    type_ = op.result.type
    assert isinstance(type_, TritsType)
    trits, scales = weight_arrays(op, s.store)
    return type_, trits, scales


def pack(
    s: SegmentLowering, name: str, trits: np.ndarray, segment: int, layout: I2Layout | Tl2Layout | DirectI8Kernel
) -> Packed:
    """Pack int8 [rows, K] and put the result into the weight store."""
    match layout:
        case I2Layout():
            return Packed(layout, s.weight(f"{name}.i2", pack_i2(trits, layout)))
        case Tl2Layout():
            data, correction = pack_tl2(trits, layout)
            weights = s.weight(f"{name}.tl2", data)
            return Packed(layout, weights, None if correction is None else s.weight(f"{name}.tl2.bias", correction))
        case DirectI8Kernel():
            return Packed(layout, s.weight(f"{name}.i8", np.ascontiguousarray(trits)))


def launch_direct(s: SegmentLowering, q: SSAValue, tokens: Dim, packed: Packed, out: SSAValue) -> None:
    """The product of `i2` or `i8` weights; `q` and `out` are buffers."""
    match packed.layout:
        case I2Layout() as layout:
            kernel = DirectI2Kernel(layout)
            work = tokens.ceildiv(kernel.token_block) * layout.tiling.row_blocks
            s.launch(kernel, [q, packed.weights, out, tokens], work=work, scratch=kernel.scratch)
        case DirectI8Kernel() as kernel:
            s.launch(kernel, [q, packed.weights, out, tokens], work=kernel.rows, grain=16)
        case Tl2Layout():
            raise AssertionError("tl2 weights are multiplied by lut.accumulate")


def epilogue_of(type_: TritsType, bias: bool, activation: ActivationAttr, rows: int | None = None) -> Epilogue:
    """How sums of `rows` (default all) outputs become values."""
    return Epilogue(
        rows=type_.rows if rows is None else rows,
        planes=type_.plane_count,
        segments=type_.groups,
        bias=bias,
        activation=activation.kind.value,
        alpha=activation.alpha,
        beta=activation.beta,
    )


def scales_weight(s: SegmentLowering, name: str, scales: np.ndarray) -> SSAValue:
    """Scales [P, N, G] as the kernels read them, [P, G, N]."""
    return s.weight(f"{name}.by_output", np.ascontiguousarray(scales.transpose(0, 2, 1)))


def launch_dequantize(
    s: SegmentLowering,
    acc: SSAValue,
    scale: SSAValue,
    tokens: Dim,
    shared: Dim,
    weight: WeightOp,
    bias: SSAValue | None,
    activation: ActivationAttr,
    out: SSAValue,
) -> None:
    """Sums [tokens, G, P·N] to f32 [tokens, N]; `shared` tokens have the same activation scale."""
    type_, _, scales = trits_of(weight, s)
    kernel = TernaryDequantizeKernel(epilogue_of(type_, bias is not None, activation))
    s.launch(
        kernel,
        [acc, scale, scales_weight(s, weight.scales.data, scales), 0 if bias is None else bias, out, shared],
        work=tokens * kernel.units_per_token,
    )
