"""`pool-before-activation`: max-pooling moves in front of the activation before it, so that neurons come last."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from neuc.dialects.dense import MapOp, PoolOp
from neuc.dialects.dense_attrs import PoolKind
from neuc.passes.analysis.neuron_sites import is_site
from neuc.passes.expand_activations import clip_bound, is_relu
from neuc.passes.rewriting import rewrite


@dataclass(frozen=True)
class PoolBeforeActivation(ModulePass):
    """max-pool(f(x)) → f(max-pool(x)) for f = ReLU or clip, if nothing else reads f(x).

    Equal to the bit, since f never falls: the largest element stays the largest. A spike has no size, so a maximum over
    spikes of several steps is not the spike train of the maximum; over currents it can be told.
    """

    name = "pool-before-activation"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Move every max-pool that can be moved."""
        rewrite(op, [Exchange()])


class Exchange(RewritePattern):
    """Exchange a max-pool and the activation before it."""

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
