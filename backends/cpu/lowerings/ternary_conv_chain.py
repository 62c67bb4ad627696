"""Convolutions as `tile-lut` writes them, lowered as a whole: two launches for what would be six.

The operations stay apart in the IR, where they can be edited. Here they are found to go together, when nothing else
uses what is between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from xdsl.ir import Operation, SSAValue

from neuc.backends.cpu.kernels.channels_last import RUN, ChannelsLastKernel
from neuc.backends.cpu.kernels.ternary_conv import TernaryConvKernel
from neuc.backends.cpu.lowering import SegmentLowering
from neuc.backends.cpu.lowerings.ternary_products import epilogue_of, pack, scales_weight, trits_of
from neuc.backends.cpu.packing.i2 import I2Layout
from neuc.backends.cpu.packing.tl2 import TABLE_BYTES, Tl2Layout
from neuc.dialects.dense import ReshapeOp, TransposeOp
from neuc.dialects.dims import product
from neuc.dialects.lut import AccumulateOp as LutAccumulateOp
from neuc.dialects.lut import BuildOp
from neuc.dialects.store import dims_of
from neuc.dialects.ternary import AccumulateOp, DequantizeOp, Im2ColOp, PackOp, packed_type
from neuc.dialects.ternary_weights import defining_weight

_TABLES_BYTES = 256 * 1024
"""What the tables of a block of pixels may take of the second-level cache."""
_OpT = TypeVar("_OpT", bound=Operation)


@dataclass(frozen=True)
class ConvChain:
    """The operations of one convolution, in order."""

    unfold: Im2ColOp
    pack: PackOp
    build: BuildOp | None
    accumulate: LutAccumulateOp | AccumulateOp
    dequantize: DequantizeOp
    transpose: TransposeOp
    reshape: ReshapeOp

    @property
    def absorbed(self) -> list[Operation]:
        """All but the first and `dequantize`, where the launches go."""
        middle = [] if self.build is None else [self.build]
        return [self.pack, *middle, self.accumulate, self.transpose, self.reshape]


def conv_chain(unfold: Im2ColOp) -> ConvChain | None:
    """The convolution that starts here, if its operations can go together."""
    patches, build = unfold.result, _only_user(unfold.result, BuildOp)
    accumulate = _only_user(patches, AccumulateOp) if build is None else _only_user(build.table, LutAccumulateOp)
    if accumulate is None:
        return None
    pack, packed = accumulate.packed.owner, packed_type(accumulate.packed)
    dequantize = _only_user(accumulate.result, DequantizeOp)
    if not isinstance(pack, PackOp) or pack.result.uses.get_length() != 1 or dequantize is None:
        return None
    # Columns go in another order than the scale groups would need; and i8 weights have no tiles.
    if packed.groups != 1 or packed.encoding.kind.data == "i8" or dequantize.weight != pack.weight:
        return None
    transpose = _only_user(dequantize.result, TransposeOp)
    reshape = None if transpose is None else _only_user(transpose.result, ReshapeOp)
    if transpose is None or reshape is None or [int(p) for p in transpose.perm.get_values()] != [0, 2, 1]:
        return None
    dims = dims_of(unfold.q)
    if dims_of(dequantize.s) != dims[:1] or not dims[1].is_static:
        return None
    return ConvChain(unfold, pack, build, accumulate, dequantize, transpose, reshape)


def _only_user(value: SSAValue, kind: type[_OpT]) -> _OpT | None:
    uses = list(value.uses)
    user = uses[0].operation if len(uses) == 1 else None
    return user if isinstance(user, kind) else None


def launch_conv(chain: ConvChain, s: SegmentLowering) -> None:
    """Positions first and channels last, with padding; then the convolution, block of pixels by block."""
    op = chain.dequantize
    weight = defining_weight(op.weight)
    type_, trits, scales = trits_of(weight, s)
    dims, window = dims_of(chain.unfold.q), chain.unfold.window()
    rank = len(window.kernel)
    padded = [dim + window.pads[i] + window.pads[rank + i] for i, dim in enumerate(dims[2:])]
    image = s.temp(product([dims[0], *padded, dims[1]]))
    s.launch(
        ChannelsLastKernel(window.pads[:rank]),
        [s.buffer(chain.unfold.q), image, dims[1], *dims[2:], *padded],
        work=dims[0] * product(padded[:-1]) * padded[-1].ceildiv(RUN),
    )
    channels, columns = dims[1].value, type_.columns
    layout = _layout(chain, s)
    by_position = trits.reshape(-1, channels, columns // channels).transpose(0, 2, 1)
    packed = pack(s, f"{weight.trits.data}.by_position", _contiguous(by_position, columns), columns, layout)
    joined = window.dilations[-1] == 1
    kernel = TernaryConvKernel(
        layout,
        epilogue_of(type_, op.bias is not None, op.activation),
        channels,
        window.kernel,
        window.strides,
        window.dilations,
        joined,
        _tokens(layout),
    )
    out_dims = window.output_dims(dims[2:])
    s.launch(
        kernel,
        [
            image,
            packed.weights,
            s.buffer(chain.reshape.result),
            s.buffer(op.s),
            0 if packed.correction is None else packed.correction,
            scales_weight(s, weight.scales.data, scales),
            0 if op.bias is None else s.buffer(op.bias),
            0,
            dims[1],
            0,
            type_.rows,
            *padded,
            *out_dims,
        ],
        work=dims[0] * product(out_dims).ceildiv(kernel.tokens),
        scratch=kernel.scratch,
    )


def _contiguous(trits: np.ndarray, columns: int) -> np.ndarray:
    return np.ascontiguousarray(trits).reshape(-1, columns)


def _layout(chain: ConvChain, s: SegmentLowering) -> I2Layout | Tl2Layout:
    """What `ternary.pack` says."""
    type_ = trits_of(defining_weight(chain.dequantize.weight), s)[0]
    packed, rows = packed_type(chain.accumulate.packed), type_.plane_count * type_.rows
    bm, bk = chain.pack.BM.value.data, chain.pack.BK.value.data
    if packed.encoding.kind.data == "i2":
        return I2Layout.of(type_.level_set, rows, type_.columns, type_.columns, bm, bk)
    return Tl2Layout.of(s.isa, packed.encoding.g.data, rows, type_.columns, type_.columns, bm, bk)


def _tokens(layout: I2Layout | Tl2Layout) -> int:
    """Pixels per block: 32, or 16 where their tables would be too many."""
    if isinstance(layout, Tl2Layout) and 32 * layout.table_groups * TABLE_BYTES > _TABLES_BYTES:
        return 16
    return 32
