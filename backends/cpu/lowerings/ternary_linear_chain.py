"""Linear layers as `tile-lut` writes them, found as a whole: one launch for pack, accumulate and dequantize.

One element-wise operation that follows goes with them. The operations stay apart in the IR, where they can be edited;
here they are found to go together when nothing else uses what is between them. Look-up encodings, and one lane at a
time, keep launches of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from xdsl.ir import Operation, SSAValue

from neuc.backends.cpu.kernels.direct_linear import DirectLinearKernel, linear_layout, pack_scales, panel_products
from neuc.backends.cpu.kernels.linear_epilogue import Tail, TailOperand
from neuc.backends.cpu.lowering import SegmentLowering
from neuc.backends.cpu.lowerings.elementwise import dtype_name, read_body
from neuc.backends.cpu.lowerings.ternary_conv_chain import conv_chain
from neuc.backends.cpu.lowerings.ternary_products import (
    Packed,
    epilogue_of,
    layout_of,
    pack,
    pack_weight,
    trits_of,
    type_of,
)
from neuc.backends.cpu.packing.direct import DirectLayout
from neuc.backends.cpu.self_check import add_linear_check
from neuc.dialects.dense import MapOp
from neuc.dialects.dims import Dim, product
from neuc.dialects.locations import fuse_locations
from neuc.dialects.store import dims_of, element_of
from neuc.dialects.ternary import AccumulateOp, DequantizeOp, Im2ColOp, PackOp, WeightOp
from neuc.dialects.ternary_weights import defining_weight, weight_scales


@dataclass(frozen=True)
class LinearTail:
    """The element-wise operation at the end, and what its operands are."""

    op: MapOp
    kinds: tuple[TailOperand, ...]

    @property
    def tail(self) -> Tail:
        """As kernels take it."""
        found = read_body(self.op.body.block)
        assert not isinstance(found, str)
        return Tail(*found, self.kinds)

    @property
    def others(self) -> list[SSAValue]:
        """The operands that are not the layer's own result."""
        return [value for value, kind in zip(self.op.inputs, self.kinds, strict=True) if kind != "y"]


@dataclass(frozen=True)
class LinearChain:
    """The operations of one layer, in order."""

    pack: PackOp
    accumulate: AccumulateOp
    dequantize: DequantizeOp
    tail: LinearTail | None

    @property
    def last(self) -> DequantizeOp | MapOp:
        """Where the launch goes: everything it reads has been computed there."""
        return self.dequantize if self.tail is None else self.tail.op

    @property
    def absorbed(self) -> list[Operation]:
        """Those after the first that have no launch."""
        return [self.accumulate] if self.tail is None else [self.accumulate, self.dequantize]


def linear_chain(pack: PackOp, s: SegmentLowering) -> LinearChain | None:
    """The layer whose weights are packed here, if its operations can go together."""
    accumulate = _only_user(pack.result)
    if s.isa.name == "scalar" or not isinstance(accumulate, AccumulateOp):
        return None
    dequantize = _only_user(accumulate.result)
    if not isinstance(dequantize, DequantizeOp) or dequantize.weight != pack.weight:
        return None
    source = accumulate.q.owner
    if isinstance(source, Im2ColOp) and conv_chain(source) is not None:
        return None
    return LinearChain(pack, accumulate, dequantize, _tail(dequantize))


def _only_user(value: SSAValue) -> Operation | None:
    users = {use.operation for use in value.uses}
    return users.pop() if len(users) == 1 else None


def _tail(dequantize: DequantizeOp) -> LinearTail | None:
    """The `dense.map` that follows, if it is of f32 and this is the last layer among what it reads."""
    op = _only_user(dequantize.result)
    if not isinstance(op, MapOp) or op.parent is not dequantize.parent or isinstance(read_body(op.body.block), str):
        return None
    dims = dims_of(dequantize.result)
    if dims_of(op.result) != dims or dtype_name(element_of(op.result)) != "f32":
        return None
    kinds: list[TailOperand] = []
    for value in op.inputs:
        if dtype_name(element_of(value)) != "f32":
            return None
        kind = "y" if value is dequantize.result else _kind(dims_of(value), dims)
        # Of two layers that meet in one operation, the later one takes it.
        later = isinstance(value.owner, DequantizeOp) and dequantize.is_before_in_block(value.owner)
        if kind is None or later:
            return None
        kinds.append(kind)
    return LinearTail(op, tuple(kinds))


def _kind(dims: Sequence[Dim], wanted: Sequence[Dim]) -> TailOperand | None:
    if tuple(dims) == tuple(wanted):
        return "full"
    if all(dim == 1 for dim in dims):
        return "scalar"
    if dims[-1] == wanted[-1] and all(dim == 1 for dim in dims[:-1]):
        return "row"
    return None


def launch_linear(chain: LinearChain, s: SegmentLowering) -> None:
    """One launch."""
    op, tail = chain.dequantize, chain.tail
    weight = defining_weight(op.weight)
    packed, first_rows = _packed(chain, weight, s)
    layout = packed.layout
    assert isinstance(layout, DirectLayout)
    scales = pack_scales(weight_scales(weight, s.store), layout)
    kernel = DirectLinearKernel(
        layout,
        epilogue_of(type_of(weight), op.bias is not None, op.activation),
        half=scales.dtype == np.float16,
        tail=None if tail is None else tail.tail,
        panels=panel_products(s.isa) is not None and chain.pack.packed.plane_count * chain.pack.packed.groups == 1,
    )
    if not s.has_kernel(kernel):
        add_linear_check(s, kernel, packed.weights, first_rows, None if tail is None else tail.op)
    leading, scale_dims = dims_of(op.acc)[:-2], dims_of(op.s)
    tokens = product(leading)
    s.launch(
        kernel,
        [
            s.buffer(chain.accumulate.q),
            packed.weights,
            s.buffer(chain.last.result),
            tokens,
            s.buffer(op.s),
            s.weight(f"{weight.scales.data}.by_chunk", scales),
            0 if op.bias is None else s.buffer(op.bias),
            product(leading[len(scale_dims) :]),
            *([] if tail is None else map(s.buffer, tail.others)),
        ],
        work=tokens.ceildiv(kernel.token_block) * layout.tiling.row_blocks,
        effort=tokens.minimum(kernel.token_block) * (2 * layout.tiling.block_rows * layout.tiling.columns),
        scratch=kernel.scratch_bytes(s.isa),
        location=fuse_locations(op, chain.last),
    )


def layout_of_chain(chain: LinearChain, s: SegmentLowering) -> DirectLayout:
    """How the weights of each plane lie."""
    whole = layout_of(chain.pack, s.isa)
    assert isinstance(whole, DirectLayout)
    return linear_layout(replace(whole, tiling=replace(whole.tiling, rows=chain.pack.packed.rows)))


def _packed(chain: LinearChain, weight: WeightOp, s: SegmentLowering) -> tuple[Packed, np.ndarray]:
    """The planes one after the other, and the first rows of each, int8 [P, n, K]."""
    type_, kind, layout = chain.pack.packed, chain.pack.packed.encoding.kind.data, layout_of_chain(chain, s)
    if type_.plane_count == 1:
        packed = pack_weight(s, weight, kind, layout)
        return packed, packed.first_rows[None]
    _, trits, _ = trits_of(weight, s)
    packed = pack(s, weight.trits.data, trits, kind, layout)
    return packed, trits[:, : len(packed.first_rows)]
