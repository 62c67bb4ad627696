"""Lowerings of the `lut` operations."""

from __future__ import annotations

from neuc.backends.cpu.kernels.lut_accumulate import LutAccumulateKernel
from neuc.backends.cpu.kernels.lut_build import LutBuildKernel
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.ternary_products import Packed
from neuc.backends.cpu.packing.tl2 import TABLE_BYTES, Tl2Layout, table_kind
from neuc.dialects.dims import product
from neuc.dialects.lut import AccumulateOp, BuildOp, table_type
from neuc.dialects.store import dims_of
from neuc.dialects.ternary import packed_type
from neuc.errors import InternalError


def _layout(op: AccumulateOp, s: SegmentLowering) -> Tl2Layout:
    """The layout `ternary.pack` gives the weights of this op."""
    packed = packed_type(op.packed)
    return Tl2Layout.of(
        s.isa,
        op.g.value.data,
        packed.plane_count * packed.rows,
        packed.columns,
        packed.group_size,
        op.BM.value.data,
        op.BK.value.data,
    )


def _tables_per_token(op: BuildOp, s: SegmentLowering) -> int:
    """As many as any reader reads, past K too; the `quads` layout comes in fours."""
    read = [_layout(use.operation, s).table_groups for use in op.table.uses if isinstance(use.operation, AccumulateOp)]
    return -(-max(read, default=table_type(op.table).tables) // 4) * 4


@lowers(BuildOp)
def lower_build(op: BuildOp, s: SegmentLowering) -> None:
    """One launch."""
    dims, table = dims_of(op.q), table_type(op.table)
    groups, tokens = _tables_per_token(op, s), product(dims[:-1])
    kernel = LutBuildKernel(table_kind(s.isa), table.columns, table.group, groups)
    s.remember(op.table, groups)
    tables = s.buffer(op.table, tokens * (groups * TABLE_BYTES))
    s.launch(kernel, [s.buffer(op.q), tables, tokens], work=tokens * kernel.units_per_token, scratch=kernel.scratch)


@lowers(AccumulateOp)
def lower_lut_accumulate(op: AccumulateOp, s: SegmentLowering) -> None:
    """One launch."""
    packed, groups = s.fact(op.packed), s.fact(op.table)
    if not isinstance(packed, Packed) or not isinstance(groups, int):
        raise InternalError(f"{packed_type(op.packed)} and its tables were not made in this segment")
    layout = _layout(op, s)
    if layout != packed.layout:
        raise InternalError(f"weights packed as {packed.layout} are read as {layout}")
    kernel = LutAccumulateKernel(table_kind(s.isa), layout)
    tokens = product(dims_of(op.result)[:-2])
    correction = 0 if packed.correction is None else packed.correction
    s.launch(
        kernel,
        [s.buffer(op.table), packed.weights, s.buffer(op.result), tokens, correction, groups],
        work=tokens.ceildiv(kernel.token_block) * layout.tiling.row_blocks,
        scratch=kernel.scratch,
    )
