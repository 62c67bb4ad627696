"""Packing weights and launching exact ternary products: what the `ternary` and `lut` lowerings share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.ir import SSAValue

from neuc.backends.cpu.encodings import CPU_ENCODINGS, Matrix, PackedLayout, encoding_named
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.ternary_dequantize import Epilogue, TernaryDequantizeKernel
from neuc.backends.cpu.lowering import SegmentLowering
from neuc.backends.cpu.self_check import add_check, checked_rows
from neuc.dialects.dense_attrs import ActivationAttr
from neuc.dialects.dims import Dim
from neuc.dialects.lazy_array import LazyArray
from neuc.dialects.ternary import PackOp, WeightOp
from neuc.dialects.ternary_encodings import ENCODINGS
from neuc.dialects.ternary_packed import ROW_MULTIPLE
from neuc.dialects.ternary_types import PackedType, TritsType
from neuc.dialects.ternary_weights import weight_arrays, weight_rows, weight_scales


@dataclass(frozen=True)
class Packed:
    """Weights in a kernel's layout, as `SegmentLowering.remember` keeps them for a packed value.

    Attributes:
        kind: the encoding.
        layout: how they lie.
        weights: the packed bytes.
        first_rows: some rows before packing, for the kernel's check (`self_check.py`).
        correction: what sums start from, if that is not zero.
    """

    kind: str
    layout: PackedLayout
    weights: SSAValue
    first_rows: np.ndarray
    correction: SSAValue | None = None


def too_many_columns(type_: TritsType | PackedType) -> str | None:
    """Why int32 sums of a scale group could overflow, if they could. What wraps on the way there does not matter."""
    largest = 128 * max(map(abs, type_.level_set)) * type_.group_size
    if largest < 2**31:
        return None
    return f"int32 does not hold sums of {type_.group_size} columns at levels up to {max(map(abs, type_.level_set))}"


def rows_of(type_: TritsType) -> int:
    """P·N, the rows of the packed matrix."""
    return type_.plane_count * type_.rows


def default_block_rows(rows: int) -> int:
    """BM where the IR does not say: tiles of 64 rows if there are so many, enough blocks for several threads."""
    return 128 if rows >= 2048 else min(64, -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE)


def type_of(op: WeightOp) -> TritsType:
    """The type of a weight."""
    type_ = op.result.type
    assert isinstance(type_, TritsType)
    return type_


def trits_of(op: WeightOp, s: SegmentLowering) -> tuple[TritsType, np.ndarray, np.ndarray]:
    """Type, trits [P, N, K] and scales [P, N, G] of a weight."""
    trits, scales = weight_arrays(op, s.store)
    return type_of(op), trits, scales


def untiled(s: SegmentLowering, type_: TritsType, rows: int) -> tuple[str, PackedLayout]:
    """Encoding and layout where the IR does not say: direct products of the fewest bits that hold the levels."""
    matrix = Matrix(type_.level_set, 1, rows, type_.columns, type_.group_size, default_block_rows(rows), type_.columns)
    named = ("i8",) if s.isa.name == "scalar" else ("i2", "i4", "i8")
    kind = next(kind for kind in named if ENCODINGS[kind].reason_against(matrix.levels, 1) is None)
    return kind, CPU_ENCODINGS[kind].layout(s.isa, matrix)


def layout_of(op: PackOp, isa: Isa) -> PackedLayout:
    """The layout that `ternary.pack` asks for."""
    matrix = Matrix.of(op.packed, op.BM.value.data, op.BK.value.data)
    return encoding_named(op.packed.encoding.kind.data).layout(isa, matrix)


def pack(s: SegmentLowering, name: str, weights: np.ndarray, kind: str, layout: PackedLayout) -> Packed:
    """Pack int8 [rows, K], or [groups, rows, K] one after the other, and put the result into the weight store."""
    encoding = encoding_named(kind)
    matrices = weights.reshape(-1, *weights.shape[-2:])
    packed = [encoding.pack(matrix, layout) for matrix in matrices]
    data = s.weight(f"{name}.{kind}", np.concatenate([data for data, _ in packed]))
    starts = [start for _, start in packed if start is not None]
    start = s.weight(f"{name}.{kind}.bias", np.concatenate(starts)) if starts else None
    return Packed(kind, layout, data, matrices[0, : checked_rows(layout)].copy(), start)


def pack_weight(s: SegmentLowering, op: WeightOp, kind: str, layout: PackedLayout) -> Packed:
    """Pack the rows of a `ternary.weight`, lazily if its trits are lazy; only the rows of its check are read now.

    Asked again for the same layout of the weight packed last, it gives what it gave.
    """
    known = s.fact(op.result)
    if isinstance(known, Packed) and (known.kind, known.layout) == (kind, layout):
        return known
    made = _pack_weight(s, op, kind, layout)
    s.remember(op.result, made)
    return made


def _pack_weight(s: SegmentLowering, op: WeightOp, kind: str, layout: PackedLayout) -> Packed:
    name, rows = op.trits.data, weight_rows(op, s.store)
    if not isinstance(rows, LazyArray):
        return pack(s, name, rows, kind, layout)
    data, start = encoding_named(kind).pack_lazy(rows, layout)
    return Packed(
        kind,
        layout,
        s.weight(f"{name}.{kind}", data),
        rows.part(0, checked_rows(layout)),
        None if start is None else s.weight(f"{name}.{kind}.bias", start),
    )


def launch_product(
    s: SegmentLowering, activations: SSAValue, tokens: Dim, packed: Packed, out: SSAValue, tables: int = 0
) -> None:
    """The int32 sums; `activations` is a buffer of int8 rows, or of so many `tables` a token, `out` one of sums."""
    encoding = encoding_named(packed.kind)
    product = encoding.product(s.isa, packed.layout)
    if not s.has_kernel(product.kernel):
        matrix = (packed.weights, packed.correction)
        add_check(s, encoding, packed.layout, matrix, packed.first_rows, tables)
    correction = 0 if packed.correction is None else packed.correction
    s.launch(
        product.kernel,
        [activations, packed.weights, out, tokens, correction, tables],
        work=product.units(tokens),
        grain=product.grain,
        scratch=product.scratch,
    )


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
    """Scales [..., P, N, G] as the kernels read them, [..., P, G, N]."""
    return s.weight(f"{name}.by_output", np.ascontiguousarray(scales.swapaxes(-1, -2)))


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
    type_, scales = type_of(weight), weight_scales(weight, s.store)
    kernel = TernaryDequantizeKernel(epilogue_of(type_, bias is not None, activation))
    s.launch(
        kernel,
        [acc, scale, scales_weight(s, weight.scales.data, scales), 0 if bias is None else bias, out, shared],
        work=tokens * kernel.units_per_token,
    )
