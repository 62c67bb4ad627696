"""`fuse-activation`: a bias or an activation that follows a matrix product, a convolution or a ternary layer joins it.

Activations are recognised by their expression tree, compared with the trees of the ways exporters write them; which
trees those are is `analysis/activation_trees.py`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from neuc.dialects.context import store_of
from neuc.dialects.dense import MapOp, YieldOp
from neuc.dialects.dense_arithmetic import ConvOp, MatMulOp
from neuc.dialects.dense_attrs import NO_ACTIVATION
from neuc.dialects.locations import fuse_locations, node_names
from neuc.dialects.store import constant_value, dims_of, make_constant
from neuc.dialects.ternary import ConvOp as TernaryConvOp
from neuc.dialects.ternary import LinearOp as TernaryLinearOp
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.activation_trees import activation_of
from neuc.passes.rewriting import rewrite

Fusable = MatMulOp | ConvOp | TernaryConvOp | TernaryLinearOp


@dataclass(frozen=True)
class FuseActivation(ModulePass):
    """Fold biases and activations into the op before them.

    1. `x + c` after a `dense.matmul` without bias and activation, c a constant along the columns: becomes its bias.
    2. `x + c` after a `dense.conv` without bias and activation, c a constant per channel: becomes its bias. Both also
       after a `ternary.linear` or `ternary.conv`.
    3. A map that is an activation, after a matmul, conv or ternary layer without one: becomes its `activation`.

    Each only if the map is the one user. ``%y = dense.matmul(%a, %b); %z = dense.map(%y) {max(x, 0)}`` becomes
    ``%z = dense.matmul(%a, %b) {activation = #dense.activation<relu>}``.
    """

    name = "fuse-activation"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Fold what can be folded in the module."""
        rewrite(op, [FoldBias(store_of(ctx)), FoldActivation()])


def _sole_source(value: SSAValue, user: MapOp) -> Fusable | None:
    """What computes `value` if only `user` reads it and it has no activation yet."""
    op = value.owner
    if not isinstance(op, Fusable) or not isinstance(value, OpResult) or op.activation != NO_ACTIVATION:
        return None
    return op if all(use.operation is user for use in value.uses) else None


class FoldActivation(RewritePattern):
    """Rule 3."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MapOp, rewriter: PatternRewriter) -> None:
        """Set the activation of the producer and drop the map."""
        if len(op.inputs) != 1:
            return
        source = _sole_source(op.inputs[0], op)
        activation = activation_of(op)
        if source is None or activation is None or dims_of(op.result) != dims_of(op.inputs[0]):
            return
        source.properties["activation"] = activation
        source.location = fuse_locations(source, op)
        rewriter.replace(op, [], [op.inputs[0]])
        rewriter.handle_operation_modification(source)


@dataclass(frozen=True)
class FoldBias(RewritePattern):
    """Rules 1 and 2."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MapOp, rewriter: PatternRewriter) -> None:
        """Rebuild the producer with the constant as its bias."""
        if not _is_sum(op):
            return
        for value, other in (op.inputs, reversed(op.inputs)):
            source = _sole_source(value, op)
            array = constant_value(other, self.store)
            if source is None or array is None or source.bias is not None:
                continue
            dims = dims_of(source.result)
            if dims != dims_of(op.result):
                continue
            axis = len(dims) - 1 if isinstance(source, MatMulOp | TernaryLinearOp) else 1
            shape = [1] * (len(dims) - array.ndim) + list(array.shape)
            if (
                len(shape) != len(dims)
                or dims[axis] != shape[axis]
                or any(size != 1 for i, size in enumerate(shape) if i != axis)
            ):
                continue
            name = next(iter(node_names(op)), "bias")
            bias = make_constant(f"{name}.bias", array.reshape(-1), self.store)
            bias.location = other.owner.location if isinstance(other.owner, Operation) else op.location
            fused = _with_bias(source, bias.result)
            fused.attributes.update(source.attributes)
            fused.location = fuse_locations(source, op)
            rewriter.replace(op, [bias, fused], [fused.results[0]])
            rewriter.erase(source)
            return


def _is_sum(op: MapOp) -> bool:
    ops = list(op.body.block.ops)
    if len(op.inputs) != 2 or len(ops) != 2:
        return False
    add, last = ops
    return (
        isinstance(add, arith.AddfOp)
        and isinstance(last, YieldOp)
        and last.value is add.result
        and set(add.operands) == set(op.body.block.args)
    )


def _with_bias(source: Fusable, bias: SSAValue) -> Operation:
    if isinstance(source, TernaryLinearOp):
        return TernaryLinearOp(
            source.q, source.s, source.weight, bias, result_type=source.result.type, offset=source.code_offset
        )
    if isinstance(source, TernaryConvOp):
        return TernaryConvOp(
            source.q,
            source.s,
            source.weight,
            source.window(),
            bias,
            group=source.group_count,
            result_type=source.result.type,
            offset=source.code_offset,
        )
    if isinstance(source, MatMulOp):
        return MatMulOp(
            source.a,
            source.b,
            bias,
            source.result.type,
            transpose_a=source.transpose_a is not None,
            transpose_b=source.transpose_b is not None,
            alpha=source.alpha.value.data,
        )
    return ConvOp(
        source.x,
        source.w,
        bias,
        source.result.type,
        strides=source.strides.get_values(),
        pads=source.pads.get_values(),
        dilations=source.dilations.get_values(),
        group=source.group.value.data,
    )
