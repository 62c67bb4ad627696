"""`ternary-synapses`: weights that spikes meet become ternary, so that a spike adds, subtracts or skips."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from neuc.dialects import spike
from neuc.dialects.context import store_of
from neuc.dialects.locations import node_names
from neuc.dialects.store import constant_value
from neuc.dialects.ternary_types import ScaleAttr
from neuc.dialects.ternary_weights import make_weight
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.ternary_fit import fit_ternary
from neuc.passes.rewriting import rewrite


@dataclass(frozen=True)
class TernarySynapses(ModulePass):
    """Fit ternary planes, with a scale for each row and plane, to constant f32 weights of synapses over events.

    `spike.linear` and `spike.conv`; a row is an output channel of all its filters. Synapses over numbers (the analog
    input's layer) keep their weights. What is lost stands at each `ternary.weight` (sqnr).

    Options:
        planes: how many planes, 1 to 4.
    """

    name = "ternary-synapses"
    planes: int = 2

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Replace every such weight.

        Raises:
            Error: NEUC-E220, planes out of range, or weights that are not finite.
        """
        rewrite(op, [_Fit(self.planes, store_of(ctx))])


@dataclass(frozen=True)
class _Fit(RewritePattern):
    planes: int
    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: spike.LinearOp | spike.ConvOp, rewriter: PatternRewriter) -> None:
        """Fit the weights of one synapse."""
        if op.trits is not None or spike.event_of(op.x) is None:
            return
        weight = constant_value(op.weight, self.store)
        if weight is None or weight.dtype.kind != "f":
            return
        fit = fit_ternary(weight.reshape(weight.shape[0], -1), self.planes)
        name = next(iter(node_names(op)), "synapse")
        planes = make_weight(name, fit.trits, fit.scales, self.store, scale=ScaleAttr.of("row"), sqnr=fit.sqnr_db)
        old = op.weight.owner
        trits = rewriter.insert(planes).result
        if isinstance(op, spike.ConvOp):
            new = spike.ConvOp(
                op.x,
                trits,
                op.bias,
                strides=op.strides.get_values(),
                pads=op.pads.get_values(),
                dilations=op.dilations.get_values(),
                group=op.group.value.data,
                kernel=weight.shape[2:],
            )
        else:
            new = spike.LinearOp(op.x, trits, op.bias)
        new.attributes.update(op.attributes)
        rewriter.replace(op, new)
        if isinstance(old, Operation) and not any(result.uses for result in old.results):
            rewriter.erase(old)
