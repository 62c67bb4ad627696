"""The pass `tile-lut`: ternary products become packed weights and the tiled kernels that read them.

Tile sizes come from `analysis/tile_cost.py` and are written into the IR, where they can be edited; kernels are chosen
later, by a backend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from xdsl.context import Context
from xdsl.dialects.arith import AddiOp
from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, ModuleOp, StringAttr, f32
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.context import store_of
from neuc.dialects.dense import MapOp, ReshapeOp, TransposeOp, YieldOp
from neuc.dialects.locations import fuse_locations
from neuc.dialects.lut import AccumulateOp as LutAccumulateOp
from neuc.dialects.lut import BuildOp, TableType
from neuc.dialects.store import dims_of, make_constant, tensor_type
from neuc.dialects.ternary import AccumulateOp, ConvOp, DequantizeOp, Im2ColOp, LinearOp, PackOp, ProductOp
from neuc.dialects.ternary_encodings import ENCODINGS
from neuc.dialects.ternary_packed import verify_tile
from neuc.dialects.ternary_types import EncodingAttr, PackedType, TritsType
from neuc.dialects.ternary_weights import defining_weight, weight_arrays
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error
from neuc.passes.analysis.tile_cost import L1_BYTES, L2_BYTES, SHARES, Tile, choose_tile, largest_group
from neuc.passes.choose_encoding import CHOICE, WHY
from neuc.passes.rewriting import rewrite

FALLBACKS = ("i2", "i4", "i8")
"""For weights whose levels the asked encoding cannot hold: the first of these that can."""
OpT = TypeVar("OpT", bound=Operation)


@dataclass(frozen=True)
class TileLut(ModulePass):
    """Rewrite ternary products to packed weights and tiled kernels.

    Rules:
        1. `ternary.linear` → `ternary.pack`, `lut.build` + `lut.accumulate` (look-up encodings) or `ternary.accumulate`
           (direct ones), `ternary.dequantize`; bias and activation go to the last.
        2. `ternary.conv` with group = 1 → `ternary.im2col`, then as 1. on its rows, then transpose and reshape to
           [N, C, …]. A grouped convolution stays as it is.
           An `offset` becomes a constant that a `dense.map` adds to the sums, integers as they are.
        3. Products of the same value with the same g share its `lut.build`; convolutions with the same window share
           their `ternary.im2col`.
        4. Weights with levels that the encoding cannot hold get another (`FALLBACKS`).

    Before and after::

        %y = ternary.linear %q, %s, %w : … !ternary.trits<8x32, scale = row, planes = 2> … -> tensor<2x8xf32>

        %p = ternary.pack %w BM = 16 BK = 36 : … -> !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x32, …>
        %t = lut.build %q : tensor<2x32xi8> -> !lut.table<32, g = 3>
        %a = lut.accumulate %t, %p g = 3 BM = 16 BK = 36 : … -> tensor<2x1x16xi32>
        %y = ternary.dequantize %a, %s, %w : … -> tensor<2x8xf32>

    Results are equal bit for bit.

    A layer's attribute `ternary.choice` (`choose_encoding.py`) goes before the encoding given here and the cost model;
    its reason becomes the attribute `ternary.why` of the `ternary.pack`.

    Options:
        encoding: one of `dialects/ternary_encodings.py`.
        group: g of a look-up encoding; 0 lets the cost model choose.
        bm: rows of a tile, a multiple of 16; 0 lets the cost model choose.
        bk: columns of a tile, a multiple of 4·g; 0 lets the cost model choose.
        l1, l2: cache sizes in bytes the cost model fits tiles into.
    """

    name = "tile-lut"
    encoding: str = "tl2"
    group: int = 0
    bm: int = 0
    bk: int = 0
    l1: int = L1_BYTES
    l2: int = L2_BYTES

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        if self.encoding not in ENCODINGS:
            raise Error("NEUC-E230", f"encoding {self.encoding!r} is unknown", hint=f"choose {', '.join(ENCODINGS)}")
        most = max(ENCODINGS[self.encoding].groups)
        if not 0 <= self.group <= most:
            raise Error("NEUC-E230", f"group = {self.group} is out of range", hint=f"choose 1 to {most}, or 0")
        if min(self.bm, self.bk) < 0 or min(self.l1, self.l2) < 1024:
            raise Error("NEUC-E230", "tile and cache sizes must be positive", hint="caches have at least 1024 bytes")
        store = store_of(ctx)
        rewrite(op, [TileLinear(self, store), TileConv(self, store)], recursive=False)

    def chosen(self, op: ProductOp) -> TileLut:
        """The options for a layer: what was chosen for it goes first."""
        choice = op.attributes.get(CHOICE)
        if not isinstance(choice, DictionaryAttr):
            return self
        encoding, sizes = choice.data.get("encoding"), {}
        for option, name in (("bm", "BM"), ("bk", "BK")):
            size = choice.data.get(name)
            if isinstance(size, IntegerAttr) and not getattr(self, option):
                sizes[option] = size.value.data
        kind = encoding.data if isinstance(encoding, StringAttr) else self.encoding
        if kind not in ENCODINGS:
            raise Error("NEUC-E230", f"encoding {kind!r} is unknown", hint=f"choose {', '.join(ENCODINGS)}")
        return replace(self, encoding=kind, group=self.group if kind == self.encoding else 0, **sizes)

    def layout(self, trits: TritsType, shares: int = SHARES) -> tuple[EncodingAttr, Tile]:
        """Encoding and tile of a weight matrix, which is cut into at least `shares` tiles of rows.

        Raises:
            Error: NEUC-E230, the options do not fit it.
        """
        levels = trits.level_set
        kind = self.encoding
        if ENCODINGS[kind].reason_against(levels, min(ENCODINGS[kind].groups)):
            kind = next(k for k in FALLBACKS if ENCODINGS[k].reason_against(levels, min(ENCODINGS[k].groups)) is None)
        g = self.group if kind == self.encoding and self.group else largest_group(trits, kind)
        encoding = EncodingAttr.of(kind, g if ENCODINGS[kind].lookup else 1)
        try:
            packed = PackedType.of(trits, encoding)
            chosen = choose_tile(trits, encoding, l1=self.l1, l2=self.l2, shares=shares)
            tile = Tile(self.bm or chosen.bm, self.bk or chosen.bk)
            verify_tile(packed, tile.bm, tile.bk)
        except VerifyException as error:
            raise Error("NEUC-E230", f"tile-lut on {trits}: {error}", hint="leave group, bm and bk at 0") from error
        return encoding, tile


@dataclass
class TileLinear(RewritePattern):
    """Rule 1."""

    options: TileLut
    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: LinearOp, rewriter: PatternRewriter) -> None:
        """Tile a linear layer."""
        acc = with_offset(op, _accumulate(op, op.q, self.options, rewriter), self.store, rewriter)
        rewriter.replace(op, DequantizeOp(acc, op.s, op.weight, op.bias, op.activation, op.result.type))


@dataclass
class TileConv(RewritePattern):
    """Rule 2."""

    options: TileLut
    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: ConvOp, rewriter: PatternRewriter) -> None:
        """Tile a convolution over its patches."""
        if op.group_count != 1:
            return
        window = op.window()
        patches = _shared(Im2ColOp, op.q, lambda o: o.window() == window, op)
        if patches is None:
            patches = rewriter.insert(Im2ColOp(op.q, window))
        # Threads share the pixels, so rows need no cutting for their sake.
        acc = _accumulate(op, patches.result, self.options, rewriter, shares=1)
        acc = with_offset(op, acc, self.store, rewriter)
        rows = rewriter.insert(DequantizeOp(acc, op.s, op.weight, op.bias, op.activation))
        batch, pixels, channels = dims_of(rows.result)
        planar = rewriter.insert(TransposeOp(rows.result, (0, 2, 1), tensor_type(f32, [batch, channels, pixels])))
        rewriter.replace(op, ReshapeOp(planar.result, op.result.type))


def _accumulate(
    op: ProductOp, q: SSAValue, options: TileLut, rewriter: PatternRewriter, shares: int = SHARES
) -> SSAValue:
    """The accumulators of a product of `q` with the packed weights of `op`."""
    encoding, tile = options.chosen(op).layout(op.trits, shares)
    pack = rewriter.insert(PackOp(op.weight, encoding, tile.bm, tile.bk))
    packed, why = pack.result, op.attributes.get(CHOICE)
    if isinstance(why, DictionaryAttr) and isinstance(why.data.get("why"), StringAttr):
        pack.attributes[WHY] = why.data["why"]
    if not encoding.rule.lookup:
        return rewriter.insert(AccumulateOp(q, packed)).result
    table = TableType.of(op.trits.columns, encoding.g.data, encoding.rule.table_levels(op.trits.level_set))
    build = _shared(BuildOp, q, lambda o: o.table.type == table, op)
    if build is None:
        build = rewriter.insert(BuildOp(q, table.group, table.level_set))
    leading = dims_of(q)[:-1]
    return rewriter.insert(LutAccumulateOp(build.table, packed, leading, tile.bm, tile.bk)).result


def with_offset(op: ProductOp, acc: SSAValue, store: WeightStore, rewriter: PatternRewriter) -> SSAValue:
    """The sums of activations without `offset` as those with it."""
    if op.code_offset == 0:
        return acc
    weight = defining_weight(op.weight)
    trits = weight_arrays(weight, store)[0].reshape(-1, op.trits.columns).astype(np.int32)
    starts = range(0, op.trits.columns, op.trits.group_size)
    added = np.add.reduceat(trits, list(starts), axis=1, dtype=np.int32).T * np.int32(op.code_offset)
    name = f"{weight.trits.data}.offset{op.code_offset}"
    constant = rewriter.insert(make_constant(name, np.ascontiguousarray(added), store)).result
    total = MapOp([acc, constant], acc.type)
    block = total.body.block
    both = AddiOp(block.args[0], block.args[1])
    block.add_ops([both, YieldOp(both.result)])
    return rewriter.insert(total).result


def _shared(kind: type[OpT], value: SSAValue, same: Callable[[OpT], bool], reader: Operation) -> OpT | None:
    """Rule 3: an operation on `value` before `reader` that can be used again; it then stands for both."""
    for use in value.uses:
        other = use.operation
        if isinstance(other, kind) and same(other) and other.is_before_in_block(reader):
            other.location = fuse_locations(other, reader)
            return other
    return None
