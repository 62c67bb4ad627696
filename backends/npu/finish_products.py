"""The pass `finish-products`: what follows a product's sums up to int8 codes becomes integers that a core computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr, i8
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern

from neuc.backends.npu.array_products import FREE, by_operand, product_of, work_of
from neuc.backends.npu.code_chains import Chain, chain_of
from neuc.backends.npu.requantize_fit import fit
from neuc.dialects.context import store_of
from neuc.dialects.dense import ReshapeOp, TransposeOp, YieldOp
from neuc.dialects.interp.core import Env
from neuc.dialects.locations import fuse_locations
from neuc.dialects.npu_products import GroupedAccumulateOp, MatmulOp, RequantizeOp
from neuc.dialects.store import ConstantOp, dims_of, make_constant, tensor_type
from neuc.dialects.ternary import AccumulateOp
from neuc.dialects.ternary_weights import defining_weight
from neuc.dialects.weight_store import WeightStore
from neuc.passes.map_building import without
from neuc.passes.partition import drop_unused
from neuc.passes.rewriting import rewrite
from neuc.runtime.npu.requantize import MOST_CORRECTIONS, Requantize

UNFINISHED = "npu.unfinished"
"""Attribute of a `ternary.accumulate` whose sums the CPU finishes: why."""


@dataclass(frozen=True)
class FinishProducts(ModulePass):
    """Rewrite dequantisation and quantisation behind `ternary.accumulate` to one `npu.requantize` with the same codes.

    Rules:
        1. `ternary.dequantize` with a constant scale of the activations, then movements, then a `dense.map` that rounds
           to int8 → `npu.requantize`, then the movements on int8, then what the map does with the codes. Bias, ReLU or
           clip, scales and zero points are in the requantisation's integers, whose codes are those of the float
           operations for every sum there can be (`requantize_fit.py`).
        2. A chain from these codes to further ones in the same map, such as a hard swish between two pairs of
           QuantizeLinear and DequantizeLinear, becomes the requantisation's table.
        3. So does a bias that the model adds with roundings of its own, one value a channel: a second requantisation.
        4. Sums for which that is not possible get the attribute `npu.unfinished` with the reason.

    Before and after::

        %a = ternary.accumulate %q, %p ; %y = ternary.dequantize %a, %s, %w bias %b activation <relu>
        %t = dense.transpose(%y) ; %c = dense.map(%t) {fptosi(clip(roundeven(t / 0.1))) : i8}

        %a = ternary.accumulate %q, %p ; %r = npu.requantize %a, %m, %o, %l, %e ; %c = dense.transpose(%r)

    Options:
        free: what a size left free is taken to be.
        least: products of fewer multiply-adds stay as they are, for the CPU.
    """

    name = "finish-products"
    free: int = FREE
    least: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        store = store_of(ctx)
        main = next(f for f in op.ops if isinstance(f, func.FuncOp))
        large = [p for p in by_operand(main) if work_of(product_of(p, self.free, store)) >= self.least]
        integers = frozenset[Operation](p for p in chain.from_iterable(large) if not isinstance(p, MatmulOp))
        rewrite(op, [_Finish(Env(op, store), store, integers)], recursive=False)
        drop_unused(main.body.block)


@dataclass
class _Finish(RewritePattern):
    """Rules 1 to 4."""

    env: Env
    store: WeightStore
    products: frozenset[Operation]

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        """Finish one product."""
        if op not in self.products:
            return
        assert isinstance(op, AccumulateOp | GroupedAccumulateOp)
        found_chain = chain_of(op, self.env)
        if isinstance(found_chain, str):
            op.attributes[UNFINISHED] = StringAttr(found_chain)
            return
        fitted: list[Requantize] = []
        for stage in found_chain.stages:
            found = fit(stage.codes, stage.line, stage.reach)
            room = MOST_CORRECTIONS - sum(one.finish.corrections for one in fitted)
            if isinstance(found, Requantize) and found.finish.corrections > room:
                found = f"float rounding differs from integers for more than {room} codes of a column"
            if isinstance(found, str):
                if not fitted:
                    op.attributes[UNFINISHED] = StringAttr(found)
                    return
                break
            fitted.append(replace(found, table=stage.table))
        self._replace(found_chain, fitted, rewriter)

    def _replace(self, codes_chain: Chain, fitted: Sequence[Requantize], rewriter: PatternRewriter) -> None:
        made: list[Operation] = []
        value: SSAValue = codes_chain.acc.result
        for given in fitted:
            parameters = self._constants(defining_weight(codes_chain.dequantize.weight).trits.data, given)
            codes = RequantizeOp(value, *(op.results[0] for op in parameters))
            codes.location = fuse_locations(codes_chain.dequantize, codes_chain.map)
            made += [*parameters, codes]
            value = codes.result
        for move in codes_chain.moves:
            dims = dims_of(move.results[0])
            if isinstance(move, TransposeOp):
                moved: Operation = TransposeOp(value, tuple(move.perm.get_values()), tensor_type(i8, dims))
            else:
                assert isinstance(move, ReshapeOp)
                moved = ReshapeOp(value, tensor_type(i8, dims))
            moved.location = move.location
            made.append(moved)
            value = moved.results[0]
        code, rest = codes_chain.stages[len(fitted) - 1].code, codes_chain.map.body.block.last_op
        assert isinstance(rest, YieldOp)
        if rest.value is not code:
            last = without(codes_chain.map, code, value)
            last.location = codes_chain.map.location
            made.append(last)
            value = last.results[0]
        rewriter.replace(codes_chain.map, made, [value])

    def _constants(self, name: str, given: Requantize) -> list[ConstantOp]:
        """The parameters as constants. An empty tensor has no place in a store: a correction of no sums is none."""
        none = np.zeros((len(given.limits), 1, 2), np.int32)
        arrays = {"multiplier": given.multiplier, "addend": given.addend, "limits": given.limits}
        arrays["corrections"] = given.corrections if given.corrections.size else none
        if given.table is not None:
            arrays["table"] = given.table
        return [make_constant(f"{name}.{key}", array, self.store) for key, array in arrays.items()]
