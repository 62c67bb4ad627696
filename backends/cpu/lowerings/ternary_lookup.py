"""`ternary.lookup`: from the weights that a layer has packed anyway, if one has, else from rows of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.ir import SSAValue

from neuc.backends.cpu.kernels.direct_linear import half_if_exact, linear_layout, pack_scales
from neuc.backends.cpu.kernels.ternary_lookup import TernaryLookupKernel
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.ternary_linear_chain import layout_of_chain, linear_chain
from neuc.backends.cpu.lowerings.ternary_products import pack_weight, type_of
from neuc.backends.cpu.packing.direct import TILE_ROWS, DirectEncoding, DirectLayout, levels_of_bytes
from neuc.dialects.dims import product
from neuc.dialects.store import dims_of
from neuc.dialects.ternary import LookupOp, PackOp, WeightOp
from neuc.dialects.ternary_encodings import ENCODINGS
from neuc.dialects.ternary_weights import defining_weight, weight_rows, weight_scales

_SMALL: tuple[DirectEncoding, ...] = ("t5", "i2", "i4")
"""Encodings of less than a byte a weight, the smallest first."""


@dataclass(frozen=True)
class _Source:
    """What the kernel reads."""

    kernel: TernaryLookupKernel
    weights: SSAValue
    scales: SSAValue
    table: SSAValue | int


@lowers(LookupOp)
def lower_lookup(op: LookupOp, s: SegmentLowering) -> None:
    """One launch."""
    weight = defining_weight(op.weight)
    source = _shared(weight, s) or _own(weight, s)
    s.launch(
        source.kernel,
        [s.buffer(op.ids), source.weights, source.scales, s.buffer(op.result), type_of(weight).rows, source.table],
        work=product(dims_of(op.ids)),
        scratch=source.kernel.scratch_bytes,
    )


def _shared(weight: WeightOp, s: SegmentLowering) -> _Source | None:
    """The packed weights of a layer that has the same matrix, say the head of a model that ties them."""
    type_ = type_of(weight)
    packs = [use.operation for use in weight.result.uses if isinstance(use.operation, PackOp)]
    for pack in packs:
        chain = linear_chain(pack, s)
        if chain is None or type_.plane_count > 1:
            continue
        return _packed(weight, pack.packed.encoding.kind.data, layout_of_chain(chain, s), s)
    return None


def _own(weight: WeightOp, s: SegmentLowering) -> _Source:
    """Rows of its own: in as few bits as hold them, or as they are."""
    type_ = type_of(weight)
    fitting: list[DirectEncoding] = [k for k in _SMALL if ENCODINGS[k].reason_against(type_.level_set, 1) is None]
    if fitting and type_.plane_count == 1 and s.isa.f32_lanes > 1:
        rows, columns, segment = type_.rows, type_.columns, type_.group_size
        whole = DirectLayout.of(fitting[0], s.isa, type_.level_set, rows, columns, segment, TILE_ROWS, columns)
        return _packed(weight, fitting[0], linear_layout(whole), s)
    scales = half_if_exact(weight_scales(weight, s.store))
    half, name = scales.dtype == np.float16, weight.scales.data
    kernel = TernaryLookupKernel(type_.columns, type_.group_size, type_.plane_count, half=half)
    rows = s.weight(f"{weight.trits.data}.rows", weight_rows(weight, s.store))
    return _Source(kernel, rows, s.weight(f"{name}.f16" if half else name, scales), 0)


def _packed(weight: WeightOp, kind: str, layout: DirectLayout, s: SegmentLowering) -> _Source:
    type_ = type_of(weight)
    packed = pack_weight(s, weight, kind, layout)
    scales = pack_scales(weight_scales(weight, s.store), layout)
    half, rows = scales.dtype == np.float16, layout.tiling.block_rows
    kernel = TernaryLookupKernel(type_.columns, type_.group_size, scale_rows=rows, half=half, layout=layout)
    table = s.weight(f"{layout.code}.levels", levels_of_bytes(layout))
    return _Source(kernel, packed.weights, s.weight(f"{weight.scales.data}.by_chunk", scales), table)
