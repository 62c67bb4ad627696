"""`fuse-layer-norm`: a layer normalisation that a model spells out in means, differences and roots becomes one op."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from neuc.dialects.context import store_of
from neuc.dialects.dense import LayerNormOp, MapOp, ReduceOp
from neuc.dialects.dense_attrs import ReduceKind
from neuc.dialects.locations import fuse_locations
from neuc.dialects.store import constant_value, dims_of
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.scalar_expressions import (
    Argument,
    Call,
    Expression,
    Product,
    Sum,
    expression_of,
    multiply,
    number,
    similar,
)
from neuc.passes.rewriting import rewrite


@dataclass(frozen=True)
class FuseLayerNorm(ModulePass):
    """Recognise layer and root-mean-square normalisation over the last axes.

    1. ``d / sqrt(mean(d²) + eps)`` with ``d = x − mean(x)``: `dense.layer_norm` of x; without the difference, `rms`.
    2. A constant vector that multiplies a layer_norm without scale: its scale.
    3. A constant vector that is added to a layer_norm with a scale but no bias: its bias.

    Rules 2 and 3 only for the one user of the layer_norm. Runs before `fuse-maps`, which would mix these maps with
    others. ``mean`` is a `dense.reduce` over the last axes that keeps them; the square may be a product or a power.
    The steps of the original round in f32, those of `dense.layer_norm` in f64: the result is the more exact one.
    """

    name = "fuse-layer-norm"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Fuse what can be fused in the module."""
        store = store_of(ctx)
        rewrite(op, [RecogniseNorm(store), FoldParameter(store)])


@dataclass
class Inliner:
    """The expression of a value over the values it is computed from, looking through maps.

    Attributes:
        store: the weights.
        leaves: what the expression's arguments stand for.
        ops: the maps that were looked through.
    """

    store: WeightStore
    leaves: list[SSAValue]
    ops: list[Operation]

    def expression(self, value: SSAValue, depth: int = 6) -> Expression:
        """`value` as an expression over `leaves`."""
        array = constant_value(value, self.store)
        if array is not None and array.size == 1 and array.dtype == np.float32:
            return number(float(array.reshape(-1)[0]))
        owner = value.owner
        if isinstance(owner, MapOp) and depth and value not in self.leaves:
            before = len(self.leaves)
            inputs = {i: self.expression(v, depth - 1) for i, v in enumerate(owner.inputs)}
            found = expression_of(owner.body.block, inputs)
            if found is not None:
                self.ops.append(owner)
                return found
            del self.leaves[before:]
        if value not in self.leaves:
            self.leaves.append(value)
        return Argument(self.leaves.index(value))


@dataclass(frozen=True)
class RecogniseNorm(RewritePattern):
    """Rule 1."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MapOp, rewriter: PatternRewriter) -> None:
        """Replace the quotient of the pattern."""
        for value in op.inputs:
            found = self._match(op, value)
            if found is None:
                continue
            x, axis, eps, rms, parts = found
            norm = LayerNormOp(x, None, None, axis=axis, eps=eps, rms=rms)
            norm.location = fuse_locations(*parts, op)
            rewriter.replace(op, [norm], [norm.result])
            return

    def _match(self, op: MapOp, d: SSAValue) -> tuple[SSAValue, int, float, bool, list[Operation]] | None:
        """What `op` normalises if it is d over the root of d's mean square."""
        inliner = Inliner(self.store, [d], [])
        match inliner.expression(op.result):
            case Product(factors) if len(factors) == 2 and len(inliner.leaves) == 2:
                powers = dict(factors)
            case _:
                return None
        root = next((f for f, n in factors if n == -1), None)
        if powers.get(Argument(0)) != 1 or not isinstance(root, Call) or root.name != "math.sqrt":
            return None
        match root.args[0]:
            case Sum(eps, ((Argument(1), 1.0),)) if eps > 0:
                pass
            case _:
                return None
        variance = inliner.leaves[1].owner
        axis = self._mean_axis(variance)
        if not isinstance(variance, ReduceOp) or axis is None or dims_of(d) != dims_of(op.result):
            return None
        square = Inliner(self.store, [d], [])
        if not similar(self._square(square.expression(variance.x)), multiply(Argument(0), Argument(0))):
            return None
        parts = [*inliner.ops[:-1], variance, *square.ops]
        centre = Inliner(self.store, [], [])
        match centre.expression(d, depth=1):
            case Sum(0.0, ((Argument(0), 1.0), (Argument(1), -1.0))):
                x, mean = centre.leaves
            case Sum(0.0, ((Argument(0), -1.0), (Argument(1), 1.0))):
                mean, x = centre.leaves
            case _:
                return d, axis, eps, True, parts
        reduced = mean.owner
        if isinstance(reduced, ReduceOp) and reduced.x is x and self._mean_axis(reduced) == axis:
            return x, axis, eps, False, [reduced, *centre.ops, *parts]
        return d, axis, eps, True, parts

    @staticmethod
    def _square(e: Expression) -> Expression:
        match e:
            case Call("math.powf", (base, Sum(2.0, ()))):
                return multiply(base, base)
            case _:
                return e

    @staticmethod
    def _mean_axis(op: object) -> int | None:
        """The first axis of a mean over the last axes, which keeps them."""
        if not isinstance(op, ReduceOp) or op.kind.data is not ReduceKind.MEAN or op.keepdims is None:
            return None
        axes, rank = op.axes.get_values(), len(dims_of(op.x))
        return axes[0] if axes and list(axes) == list(range(rank - len(axes), rank)) else None


@dataclass(frozen=True)
class FoldParameter(RewritePattern):
    """Rules 2 and 3."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MapOp, rewriter: PatternRewriter) -> None:
        """Give the layer_norm before `op` its scale or bias."""
        if len(op.inputs) != 2:
            return
        for index, value in enumerate(op.inputs):
            norm, parameter = value.owner, op.inputs[1 - index]
            if not isinstance(norm, LayerNormOp) or any(use.operation is not op for use in value.uses):
                continue
            axis, dims = norm.axis.value.data, dims_of(norm.result)
            if constant_value(parameter, self.store) is None or dims_of(parameter) != dims[axis:]:
                continue
            e = expression_of(op.body.block)
            scale, bias = norm.scale, norm.bias
            if scale is None and e == multiply(Argument(0), Argument(1)):
                scale = parameter
            elif scale is not None and bias is None and e == Sum(0.0, ((Argument(0), 1.0), (Argument(1), 1.0))):
                bias = parameter
            else:
                continue
            eps, rms = norm.eps.value.data, norm.rms is not None
            new = LayerNormOp(norm.x, scale, bias, axis=axis, eps=eps, rms=rms)
            new.location = fuse_locations(norm, op)
            rewriter.replace(op, [new], [new.result])
            rewriter.erase(norm)
            return
