"""Lowerings of the `lut` operations."""

from __future__ import annotations

from neuc.backends.cpu.encodings import Tables, encoding_named
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.ternary_products import Packed, launch_product, layout_of
from neuc.backends.cpu.packing.lut import TABLE_BYTES
from neuc.dialects.dims import product
from neuc.dialects.lut import AccumulateOp, BuildOp
from neuc.dialects.store import dims_of
from neuc.dialects.ternary import PackOp
from neuc.dialects.ternary_types import packed_type
from neuc.errors import InternalError


def _tables(op: AccumulateOp, s: SegmentLowering) -> Tables:
    """What the reader `op` wants to read."""
    pack = op.packed.owner
    if not isinstance(pack, PackOp):
        raise InternalError(f"{packed_type(op.packed)} was not packed in this segment")
    tables = encoding_named(pack.packed.encoding.kind.data).tables
    assert tables is not None
    return tables(s.isa, layout_of(pack, s.isa))


@lowers(BuildOp)
def lower_build(op: BuildOp, s: SegmentLowering) -> None:
    """One launch, of as many tables as any reader reads."""
    readers = [_tables(use.operation, s) for use in op.table.uses if isinstance(use.operation, AccumulateOp)]
    if not readers:
        return
    groups, tokens = max(reader.per_token for reader in readers), product(dims_of(op.q)[:-1])
    kernel = readers[0].build(groups)
    s.remember(op.table, groups)
    tables = s.buffer(op.table, tokens * (groups * TABLE_BYTES))
    s.launch(kernel, [s.buffer(op.q), tables, tokens], work=tokens * kernel.units_per_token, scratch=kernel.scratch)


@lowers(AccumulateOp)
def lower_lut_accumulate(op: AccumulateOp, s: SegmentLowering) -> None:
    """One launch."""
    packed, groups = s.fact(op.packed), s.fact(op.table)
    if not isinstance(packed, Packed) or not isinstance(groups, int):
        raise InternalError(f"{packed_type(op.packed)} and its tables were not made in this segment")
    tokens = product(dims_of(op.result)[:-2])
    launch_product(s, s.buffer(op.table), tokens, packed, s.buffer(op.result), groups)
