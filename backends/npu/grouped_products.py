"""The pass `grouped-products`: grouped convolutions become windows and sums over each group's own, for arrays."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from neuc.backends.npu.array_products import FREE
from neuc.dialects.context import store_of
from neuc.dialects.dense import ReshapeOp, TransposeOp
from neuc.dialects.npu_products import GroupedAccumulateOp
from neuc.dialects.store import dims_of, tensor_type
from neuc.dialects.ternary import ConvOp, DequantizeOp, Im2ColOp, PackOp
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.multiply_adds import multiply_adds
from neuc.passes.rewriting import rewrite
from neuc.passes.tile_lut import TileLut, with_offset


@dataclass(frozen=True)
class GroupedProducts(ModulePass):
    """Rewrite grouped `ternary.conv`, depthwise ones too, to `ternary.im2col` and `npu.grouped_accumulate`.

    Rules:
        1. A convolution of more than one group whose weights have one scale a row → windows of all channels, side by
           side, sums of each group's columns, `ternary.dequantize`, then transpose and reshape to [N, C, …].
        2. Activations with an offset: the sums get what it adds to them, as in `tile-lut`.
        3. Those of fewer multiply-adds than `least` stay if they have no offset, with which CPUs have no kernels; so do
           those with several scales a row.

    Results are equal bit for bit.

    Options:
        free: what a size left free is taken to be.
        least: convolutions of fewer multiply-adds stay as they are, for the CPU.
    """

    name = "grouped-products"
    free: int = FREE
    least: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        rewrite(op, [_GroupedConv(self, store_of(ctx))], recursive=False)


@dataclass
class _GroupedConv(RewritePattern):
    """All rules."""

    options: GroupedProducts
    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: ConvOp, rewriter: PatternRewriter) -> None:
        """Tile one convolution."""
        if op.group_count == 1 or op.trits.columns > op.trits.group_size:
            return
        symbols = {symbol for value in (op.q, op.result) for dim in dims_of(value) for symbol in dim.symbols}
        small = multiply_adds(op, dict.fromkeys(symbols, self.options.free)) < self.options.least
        if small and not op.code_offset:
            return
        encoding, tile = TileLut(encoding="i2").layout(op.trits)
        patches = rewriter.insert(Im2ColOp(op.q, op.window()))
        packed = rewriter.insert(PackOp(op.weight, encoding, tile.bm, tile.bk))
        acc = rewriter.insert(GroupedAccumulateOp(patches.result, packed.result, op.group_count))
        sums = with_offset(op, acc.result, self.store, rewriter)
        rows = rewriter.insert(DequantizeOp(sums, op.s, op.weight, op.bias, op.activation))
        batch, pixels, channels = dims_of(rows.result)
        planar = rewriter.insert(TransposeOp(rows.result, (0, 2, 1), tensor_type(f32, [batch, channels, pixels])))
        rewriter.replace(op, ReshapeOp(planar.result, op.result.type))
