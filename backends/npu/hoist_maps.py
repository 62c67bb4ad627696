"""The pass `hoist-maps`: maps of one tensor move to where a product's result is made, before its elements are moved."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern
from xdsl.rewriter import InsertPoint

from neuc.dialects.dense import MapOp
from neuc.dialects.dense_movement import ReshapeOp, TransposeOp
from neuc.dialects.npu_products import MatmulOp
from neuc.dialects.store import dims_of, element_of, tensor_type
from neuc.passes.rewriting import rewrite


@dataclass(frozen=True)
class HoistMaps(ModulePass):
    """Rewrite map(move(p)) to move(map(p)), where p is a product of the array, or a map of one.

    So the activation of a convolution stands with its bias behind the product, where `finish-floats` finds it.

    Before and after::

        %t = dense.transpose(%p) ; %y = dense.map(%t) {max(t, 0)}

        %r = dense.map(%p) {max(p, 0)} ; %y = dense.transpose(%r)
    """

    name = "hoist-maps"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        rewrite(op, [_Hoist()])


class _Hoist(RewritePattern):
    """Over all transpositions and reshapes at once."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MapOp, rewriter: PatternRewriter) -> None:
        """Hoist one map."""
        if len(op.inputs) != 1 or dims_of(op.result) != dims_of(op.inputs[0]) or element_of(op.result) != f32:
            return
        value, first = op.inputs[0], None
        while isinstance(value.owner, TransposeOp | ReshapeOp) and value.has_one_use():
            first, value = value.owner, value.owner.operands[0]
        if first is None or not value.has_one_use() or not _is_product(value.owner) or element_of(value) != f32:
            return
        body = op.body.clone()
        made = MapOp([value], tensor_type(f32, dims_of(value)), body)
        made.location = op.location
        rewriter.insert(made, InsertPoint.before(first))
        first.operands[0] = made.result
        rewriter.replace(op, [], [op.inputs[0]])


def _is_product(owner: object) -> bool:
    if isinstance(owner, MapOp):
        return any(isinstance(v.owner, MatmulOp) and dims_of(v) == dims_of(owner.result) for v in owner.inputs)
    return isinstance(owner, Operation) and isinstance(owner, MatmulOp)
