"""`fold-into-matmul`: transposed operands and constant factors around a `dense.matmul` become its properties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import FloatAttr, ModuleOp, UnitAttr, f32
from xdsl.ir import OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from neuc.dialects.context import store_of
from neuc.dialects.dense import MapOp, MatMulOp, TransposeOp
from neuc.dialects.dense_attrs import NO_ACTIVATION
from neuc.dialects.locations import fuse_locations
from neuc.dialects.store import constant_value, dims_of, element_of, tensor_type
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.scalar_expressions import Argument, Expression, Sum, expression_of, number
from neuc.passes.rewriting import rewrite


@dataclass(frozen=True)
class FoldIntoMatMul(ModulePass):
    """Fold what stands around a matrix product into it.

    1. An operand made by a `dense.transpose` that moves x's last axis to the second-last place: the product reads it
       transposed; the transpose loses that exchange, and vanishes if nothing is left of it.
    2. An operand that is a constant times x: the constant goes into `alpha`.
    3. The product times a constant, by its one user: the same, if it has neither bias nor activation.

    Rules 2 and 3 round at another place: results differ by a few units in the last place of their largest summand.
    ``%t = dense.transpose(%b) {perm = [1, 0]}; %y = dense.matmul(%a, %t)`` becomes
    ``%y = dense.matmul(%a, %b) {transpose_b}``.
    """

    name = "fold-into-matmul"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Fold what can be folded in the module."""
        store = store_of(ctx)
        rewrite(op, [FoldTransposes(), FoldOperandFactors(store), FoldResultFactor(store)])


class FoldTransposes(RewritePattern):
    """Rule 1."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MatMulOp, rewriter: PatternRewriter) -> None:
        """Exchange the last two axes of an operand's transpose."""
        for index, flag in ((0, "transpose_a"), (1, "transpose_b")):
            source = op.operands[index].owner
            if not isinstance(source, TransposeOp):
                continue
            perm = list(source.perm.get_values())
            if perm[-2] != len(perm) - 1:
                continue
            perm[-1], perm[-2] = perm[-2], perm[-1]
            new: SSAValue = source.x
            if perm != sorted(perm):
                dims = dims_of(source.x)
                type_ = tensor_type(element_of(source.x), [dims[p] for p in perm])
                transpose = TransposeOp(source.x, perm, type_)
                transpose.location = source.location
                rewriter.insert(transpose)
                new = transpose.result
            op.operands[index] = new
            if flag in op.properties:
                del op.properties[flag]
            else:
                op.properties[flag] = UnitAttr()
            _take_over(op, source, rewriter)
            return


@dataclass(frozen=True)
class FoldOperandFactors(RewritePattern):
    """Rule 2."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MatMulOp, rewriter: PatternRewriter) -> None:
        """Multiply the factors of the operands into alpha."""
        for index in (0, 1):
            source = op.operands[index].owner
            found = factor_of(source, self.store) if isinstance(source, MapOp) else None
            if found is None or not isinstance(source, MapOp):
                continue
            value, factor = found
            op.operands[index] = value
            _multiply_alpha(op, factor)
            _take_over(op, source, rewriter)
            return


@dataclass(frozen=True)
class FoldResultFactor(RewritePattern):
    """Rule 3."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MapOp, rewriter: PatternRewriter) -> None:
        """Multiply a factor that follows into alpha."""
        found = factor_of(op, self.store)
        if found is None or not isinstance(found[0], OpResult):
            return
        value, factor = found
        product = value.owner
        alone = all(use.operation is op for use in value.uses)
        if not isinstance(product, MatMulOp) or not alone:
            return
        if product.bias is not None or product.activation != NO_ACTIVATION:
            return
        _multiply_alpha(product, factor)
        product.location = fuse_locations(product, op)
        rewriter.replace(op, [], [value])
        rewriter.handle_operation_modification(product)


def _take_over(op: MatMulOp, source: TransposeOp | MapOp, rewriter: PatternRewriter) -> None:
    """`op` does what `source` did for it; without another user `source` goes."""
    if source.result.first_use is None:
        op.location = fuse_locations(op, source)
        rewriter.erase(source)
    rewriter.handle_operation_modification(op)


def _multiply_alpha(op: MatMulOp, factor: float) -> None:
    op.alpha = FloatAttr(float(np.float32(op.alpha.value.data * factor)), f32)


def factor_of(op: MapOp, store: WeightStore) -> tuple[SSAValue, float] | None:
    """(x, c) if `op` computes c · x for a constant c, in x's shape."""
    constants: dict[int, Expression] = {}
    tensors: list[SSAValue] = []
    for index, value in enumerate(op.inputs):
        array = constant_value(value, store)
        if array is not None and array.size == 1 and array.dtype == np.float32:
            constants[index] = number(float(array.reshape(-1)[0]))
        else:
            tensors.append(value)
    if len(tensors) != 1 or dims_of(tensors[0]) != dims_of(op.result):
        return None
    match expression_of(op.body.block, constants):
        case Sum(0.0, ((Argument(), factor),)):
            return tensors[0], factor
        case _:
            return None
