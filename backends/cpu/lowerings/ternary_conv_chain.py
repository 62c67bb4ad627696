"""Convolutions as `tile-lut` writes them, found as a whole: two launches for what would be six.

The operations stay apart in the IR, where they can be edited. Here they are found to go together, when nothing else
uses what is between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from xdsl.ir import Operation, SSAValue

from neuc.backends.cpu.lowering import SegmentLowering
from neuc.backends.cpu.lowerings.ternary_conv_blocks import BlockedConv, launch_blocks
from neuc.backends.cpu.lowerings.ternary_products import layout_of
from neuc.backends.cpu.packing.direct import DirectLayout
from neuc.backends.cpu.packing.lut import LutLayout
from neuc.dialects.dense import ReshapeOp, TransposeOp
from neuc.dialects.lut import AccumulateOp as LutAccumulateOp
from neuc.dialects.lut import BuildOp
from neuc.dialects.store import dims_of
from neuc.dialects.ternary import AccumulateOp, DequantizeOp, Im2ColOp, PackOp
from neuc.dialects.ternary_types import packed_type
from neuc.dialects.ternary_weights import defining_weight

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
    # Columns go in another order than the scale groups would need.
    if packed.groups != 1 or dequantize.weight != pack.weight:
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
    launch_blocks(
        s,
        BlockedConv(
            q=chain.unfold.q,
            s=chain.dequantize.s,
            weight=defining_weight(chain.dequantize.weight),
            bias=chain.dequantize.bias,
            window=chain.unfold.window(),
            activation=chain.dequantize.activation,
            result=chain.reshape.result,
            kind=chain.pack.packed.encoding.kind.data,
            layout=_layout(chain, s),
        ),
    )


def _layout(chain: ConvChain, s: SegmentLowering) -> DirectLayout | LutLayout:
    """What `ternary.pack` says."""
    layout = layout_of(chain.pack, s.isa)
    assert isinstance(layout, DirectLayout | LutLayout)
    return layout
