"""`pool-before-activation`: max-pooling moves in front of the activation before it, so that neurons come last."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from neuc.dialects.dense import MapOp, PoolOp, ReduceOp, ReshapeOp, TransposeOp
from neuc.dialects.dense_attrs import PoolKind, ReduceKind
from neuc.dialects.store import dims_of, element_of, tensor_type
from neuc.passes.analysis.neuron_sites import is_site
from neuc.passes.expand_activations import clip_bound, is_relu
from neuc.passes.rewriting import rewrite


@dataclass(frozen=True)
class PoolBeforeActivation(ModulePass):
    """Bring max-pooling to where spikes can do it.

    1. A maximum over all spatial axes, of static sizes, is a max-pool over all of the image.
    2. max-pool(f(x)) → f(max-pool(x)) for f = ReLU or clip, if nothing else reads f(x).

    Equal to the bit, since f never falls: the largest element stays the largest. A spike has no size, so a maximum over
    spikes of several steps is not the spike train of the maximum; over currents it can be told.
    """

    name = "pool-before-activation"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Move every max-pool that can be moved."""
        rewrite(op, [GlobalMaximum(), Exchange()])


class GlobalMaximum(RewritePattern):
    """Rule 1."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: ReduceOp, rewriter: PatternRewriter) -> None:
        """Make the reduction a pooling, and a reshape where its axes vanish."""
        x, axes, keeps = op.x, list(op.axes.get_values()), op.keepdims is not None
        if isinstance(x.owner, TransposeOp) and not keeps:
            # Channels last, as some exporters have images: the same maximum over the axes before.
            perm = list(x.owner.perm.get_values())
            if [p for i, p in enumerate(perm) if i not in axes] == [0, 1]:
                x, axes = x.owner.x, sorted(perm[axis] for axis in axes)
        dims, n = dims_of(x), len(dims_of(x)) - 2
        if op.kind.data is not ReduceKind.MAX or element_of(x) != f32 or n < 1:
            return
        if axes != list(range(2, n + 2)) or not all(d.is_static for d in dims[2:]):
            return
        kernel = [d.value for d in dims[2:]]
        pooled = tensor_type(f32, [*dims[:2], *[1] * n])
        pool = PoolOp(x, PoolKind.MAX, pooled, kernel=kernel, strides=kernel, pads=[0] * (2 * n), dilations=[1] * n)
        operand = op.x
        rewriter.replace(op, [pool] if keeps else [pool, ReshapeOp(pool.result, op.result.type)])
        if isinstance(operand.owner, TransposeOp) and operand.first_use is None:
            rewriter.erase(operand.owner)


class Exchange(RewritePattern):
    """Rule 2."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: PoolOp, rewriter: PatternRewriter) -> None:
        """Rebuild both the other way round."""
        source = op.x.owner
        if op.kind.data is not PoolKind.MAX or not isinstance(source, MapOp) or not source.result.has_one_use():
            return
        if is_site(source) or not (is_relu(source) or clip_bound(source) is not None):
            return
        pool = PoolOp(
            source.inputs[0],
            PoolKind.MAX,
            op.result.type,
            kernel=op.kernel.get_values(),
            strides=op.strides.get_values(),
            pads=op.pads.get_values(),
            dilations=op.dilations.get_values(),
        )
        activation = MapOp([pool.result], op.result.type, source.body.clone())
        activation.location, pool.location = source.location, op.location
        rewriter.replace(op, [pool, activation])
        rewriter.erase(source)
