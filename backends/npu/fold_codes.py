"""The pass `fold-codes`: what a model does with int8 codes between products on the array goes into them, or goes away.

Codes are what `finish_products.py` made of sums; nothing here changes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

import numpy as np
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, i8
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from neuc.backends.npu.code_chains import function_of_codes, only_user
from neuc.dialects.context import store_of
from neuc.dialects.dense import MapOp, ReshapeOp, TransposeOp, YieldOp
from neuc.dialects.interp.core import Env
from neuc.dialects.locations import fuse_locations
from neuc.dialects.npu_products import RequantizeOp
from neuc.dialects.store import constant_value, dims_of, element_of, make_constant, tensor_type
from neuc.dialects.ternary import Im2ColOp
from neuc.dialects.weight_store import WeightStore
from neuc.passes.map_building import without
from neuc.passes.partition import drop_unused
from neuc.passes.rewriting import rewrite

_CODES = np.arange(-128, 128, dtype=np.int8)
Move: TypeAlias = TransposeOp | ReshapeOp


@dataclass(frozen=True)
class FoldCodes(ModulePass):
    """Fold maps and movements of int8 codes.

    Rules:
        1. The part of a `dense.map` that makes the codes they were of codes alone goes away.
        2. The part that makes other codes of the codes of an `npu.requantize`, which nothing else reads, becomes that
           requantisation's table.
        3. A map to codes all of whose operands are moved the same way is computed first and moved then.
        4. `ternary.im2col` of single pixels, one after the other, whose codes were moved from [N, pixels, C] to
           [N, C, H, W] → the codes before they were moved.

    Before and after::

        %r = npu.requantize … ; %t = dense.transpose(%r) ; %i = dense.reshape(%t) ; %c = dense.map(%i) {i8 → i8}
        %w = ternary.im2col %c kernel [1, 1] …

        %w = npu.requantize … table %table
    """

    name = "fold-codes"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        store = store_of(ctx)
        rewrite(op, [_FoldMap(Env(op, store), store), _MoveLater(), _OwnPixels()])
        drop_unused(next(f for f in op.ops if isinstance(f, func.FuncOp)).body.block)


@dataclass(frozen=True)
class _FoldMap(RewritePattern):
    """Rules 1 and 2."""

    env: Env
    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MapOp, rewriter: PatternRewriter) -> None:
        """Fold what one map does with codes alone."""
        if len(op.inputs) != 1 or element_of(op.inputs[0]) != i8 or dims_of(op.inputs[0]) != dims_of(op.result):
            return
        found = function_of_codes(op, self.env)
        if found is None:
            return
        table, code = found
        if not np.array_equal(table, _CODES) and not self._joined(op, table, rewriter):
            return
        last = op.body.block.last_op
        assert isinstance(last, YieldOp)
        if last.value is code:
            rewriter.replace(op, [], [op.inputs[0]])
        else:
            rewriter.replace(op, without(op, code, op.inputs[0]))

    def _joined(self, reader: MapOp, table: np.ndarray, rewriter: PatternRewriter) -> bool:
        """Whether a function of codes became part of the requantisation they come from."""
        value = reader.inputs[0]
        if only_user(value) is None:
            return False
        while isinstance(value.owner, TransposeOp | ReshapeOp):
            value = value.owner.operands[0]
            if only_user(value) is None:
                return False
        made = value.owner
        if not isinstance(made, RequantizeOp):
            return False
        before = _CODES if made.table is None else constant_value(made.table, self.store)
        assert before is not None
        both = table[before.astype(np.int64) + 128]
        constant = make_constant("codes.table", both, self.store)
        joined = RequantizeOp(made.acc, made.multiplier, made.addend, made.limits, made.corrections, constant.result)
        joined.location = fuse_locations(made, reader)
        rewriter.replace(made, [constant, joined])
        return True


class _MoveLater(RewritePattern):
    """Rule 3."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MapOp, rewriter: PatternRewriter) -> None:
        """Compute a map before its operands are moved."""
        moves = [moves_of(value) for value in op.inputs]
        dims = dims_of(op.result)
        if not moves or not moves[0] or element_of(op.result) != i8 or any(dims_of(v) != dims for v in op.inputs):
            return
        if any(not alike(moves[0], others) for others in moves[1:]):
            return
        sources = [chain[0].operands[0] for chain in moves]
        early = MapOp(sources, tensor_type(i8, dims_of(sources[0])), op.body.clone())
        made: list[Operation] = [early]
        for move in moves[0]:
            made.append(move.clone(value_mapper={move.operands[0]: made[-1].results[0]}))
        rewriter.replace(op, made)


class _OwnPixels(RewritePattern):
    """Rule 4."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: Im2ColOp, rewriter: PatternRewriter) -> None:
        """Read rows of pixels as they were made."""
        window = [*op.kernel.get_values(), *op.strides.get_values()]
        reshape = op.q.owner
        if any(n != 1 for n in window) or any(op.pads.get_values()) or not isinstance(reshape, ReshapeOp):
            return
        transpose = reshape.x.owner
        if not isinstance(transpose, TransposeOp) or list(transpose.perm.get_values()) != [0, 2, 1]:
            return
        channels_first = dims_of(op.q)[:2] == dims_of(transpose.result)[:2]
        if channels_first and dims_of(transpose.x) == dims_of(op.result):
            rewriter.replace(op, [], [transpose.x])


def moves_of(value: SSAValue) -> list[Move]:
    """The movements of codes of an array's product that end in `value`, the first first; [] if there are none."""
    found: list[Move] = []
    while is_move(value.owner):
        found.insert(0, value.owner)
        value = value.owner.operands[0]
    return found


def is_move(op: object) -> TypeGuard[Move]:
    """Whether an operation only moves codes."""
    return isinstance(op, TransposeOp | ReshapeOp) and element_of(op.results[0]) == i8


def alike(a: Sequence[Move], b: Sequence[Move]) -> bool:
    """Whether two chains of movements put every element to the same place."""

    def spelt(move: Move) -> tuple[object, ...]:
        order = tuple(move.perm.get_values()) if isinstance(move, TransposeOp) else ()
        return type(move), order, dims_of(move.operands[0]), dims_of(move.results[0])

    return [spelt(move) for move in a] == [spelt(move) for move in b]
