"""`expand-activations`: each activation becomes a `dense.map` of its own, written with ReLU and clip if that is exact.

Which of these maps become neurons is `mark_neurons.py`'s business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import FloatAttr, ModuleOp, f32
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern
from xdsl.rewriter import InsertPoint

from neuc.dialects.dense import ConvOp, MapOp, MatMulOp, YieldOp
from neuc.dialects.dense_attrs import NO_ACTIVATION, ActivationAttr, ActivationKind
from neuc.passes import scalar_builder as sb
from neuc.passes.analysis.activation_trees import activation_of
from neuc.passes.map_building import map_of, outlined, without
from neuc.passes.onnx_lowerings.elementwise import gelu, gelu_tanh, silu
from neuc.passes.rewriting import rewrite
from neuc.passes.scalar_builder import Scalar

_SMOOTH = (
    ActivationKind.GELU,
    ActivationKind.GELU_TANH,
    ActivationKind.SILU,
    ActivationKind.SIGMOID,
    ActivationKind.TANH,
    ActivationKind.HARDSWISH,
)


@dataclass(frozen=True)
class ExpandActivations(ModulePass):
    """Give every activation a map of its own and write piecewise linear ones with ReLU and clip.

    1. `dense.matmul` or `dense.conv` with an activation → without, then a map.
    2. max(v, c), min(v, c) or both in the middle of a map → a map for v, one for the activation, one for the rest.
    3. LeakyReLU, PReLU: x < 0 ? s·x : x → relu(x) − s·relu(−x).
    4. clip to [lo, hi] → clip(x − lo, 0, hi − lo) + lo; max(x, lo) → relu(x − lo) + lo; min(x, hi) → hi − relu(hi − x).
    5. HardSigmoid → clip(alpha·x + beta, 0, 1).

    All equal but for the rounding of shifts. Smooth activations (GELU, SiLU, sigmoid, tanh) and HardSwish stay.
    ``%y = dense.conv(%x, %w) {activation = #dense.activation<relu>}`` becomes
    ``%c = dense.conv(%x, %w); %y = dense.map(%c) {max(x, 0)}``.
    """

    name = "expand-activations"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Expand the activations of the module."""
        rewrite(op, [SplitFused(), Rewritten(), Outline()])


class SplitFused(RewritePattern):
    """Rule 1."""

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        """Put the activation of a product behind it."""
        if not isinstance(op, MatMulOp | ConvOp) or op.activation == NO_ACTIVATION:
            return
        activation = op.activation
        op.properties["activation"] = NO_ACTIVATION
        activated = map_of([op.result], lambda x: _apply(x, activation))
        activated.location = op.location
        rewriter.insert(activated, InsertPoint.after(op))
        for use in list(op.result.uses):
            if use.operation is not activated:
                use.operation.operands[use.index] = activated.result
        rewriter.handle_operation_modification(op)


class Rewritten(RewritePattern):
    """Rules 3 to 5, for maps that are one activation."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MapOp, rewriter: PatternRewriter) -> None:
        """Replace the map by ReLUs or a clip."""
        if (slope := _leaky_slope(op)) is not None:
            self._leaky(op, slope, rewriter)
            return
        bounds = _bounds(op)
        if bounds is None or bounds[0] == 0.0:
            activation = activation_of(op)
            if activation is not None and activation.kind is ActivationKind.HARDSIGMOID:
                alpha, beta = activation.alpha, activation.beta
                inner = map_of(op.inputs, lambda x: x * alpha + beta)
                rewriter.replace(op, [inner, map_of([inner.result], lambda x: _clip(x, 0.0, 1.0))])
            return
        low, high = bounds
        if low == -math.inf:
            below = map_of(op.inputs, lambda x: high - x)
            kept = map_of([below.result], lambda x: sb.maximum(x, 0.0))
            rewriter.replace(op, [below, kept, map_of([kept.result], lambda x: high - x)])
            return
        shifted = map_of(op.inputs, lambda x: x - low)
        kept = map_of([shifted.result], lambda x: _clip(x, 0.0, high - low))
        rewriter.replace(op, [shifted, kept, map_of([kept.result], lambda x: x + low)])

    @staticmethod
    def _leaky(op: MapOp, slope: float | int, rewriter: PatternRewriter) -> None:
        x = op.inputs[0]
        up = map_of([x], lambda v: sb.maximum(v, 0.0))
        negated = map_of([x], lambda v: -v)
        down = map_of([negated.result], lambda v: sb.maximum(v, 0.0))
        if isinstance(slope, float):
            merged = map_of([up.result, down.result], lambda a, b: a - b * slope)
        else:
            merged = map_of([up.result, down.result, op.inputs[slope]], lambda a, b, s: a - b * s)
        rewriter.replace(op, [up, negated, down, merged])


class Outline(RewritePattern):
    """Rule 2."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MapOp, rewriter: PatternRewriter) -> None:
        """Take the last bounded expression out of a larger body."""
        activation = activation_of(op)
        if activation is not None and activation.kind in _SMOOTH:
            return
        last = op.body.block.last_op
        assert isinstance(last, YieldOp)
        for inner in reversed(list(op.body.block.ops)):
            found = _bounded(inner)
            if found is None or inner.results[0].type != f32:
                continue
            value, low, high = found
            if last.value is inner.results[0] and value in op.body.block.args and len(op.inputs) == 1:
                return  # It is a map of its own.
            before = None if value in op.body.block.args else outlined(op, value)
            source = op.inputs[op.body.block.args.index(value)] if before is None else before.result  # pyright: ignore[reportArgumentType]
            kept = map_of([source], lambda x, a=low, b=high: _clip(x, a, b))
            new: list[Operation] = [kept] if before is None else [before, kept]
            if last.value is not inner.results[0]:
                new.append(without(op, inner.results[0], kept.result))
            rewriter.replace(op, new)
            return


def _apply(x: Scalar, activation: ActivationAttr) -> Scalar:
    alpha, beta = activation.alpha, activation.beta
    match activation.kind:
        case ActivationKind.RELU:
            return sb.maximum(x, 0.0)
        case ActivationKind.CLIP:
            return _clip(x, alpha, beta)
        case ActivationKind.LEAKY_RELU:
            return sb.where(x < 0.0, x * alpha, x)
        case ActivationKind.SIGMOID:
            return sb.sigmoid(x)
        case ActivationKind.TANH:
            return sb.tanh(x)
        case ActivationKind.GELU:
            return gelu(x)
        case ActivationKind.GELU_TANH:
            return gelu_tanh(x)
        case ActivationKind.SILU:
            return silu(x)
        case ActivationKind.HARDSIGMOID:
            return _clip(x * alpha + beta, 0.0, 1.0)
        case ActivationKind.HARDSWISH:
            return x * _clip(x * (1 / 6) + 0.5, 0.0, 1.0)
        case ActivationKind.NONE:
            return x


def _clip(x: Scalar, low: float, high: float) -> Scalar:
    """Max and min, without those that change nothing."""
    lower = x if low == -math.inf else sb.maximum(x, low)
    return lower if high == math.inf else sb.minimum(lower, high)


def _number(value: SSAValue) -> float | None:
    op = value.owner
    if isinstance(op, arith.ConstantOp) and isinstance(op.value, FloatAttr):
        return float(op.value.value.data)
    return None


def _bound(op: object) -> tuple[SSAValue, float, float] | None:
    """v, lo and hi if `op` is max(v, lo) or min(v, hi) with a constant bound."""
    if not isinstance(op, arith.MaximumfOp | arith.MinimumfOp):
        return None
    for value, other in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        number = _number(other)
        if number is not None:
            upper = isinstance(op, arith.MinimumfOp)
            return (value, -math.inf, number) if upper else (value, number, math.inf)
    return None


def _bounded(op: Operation) -> tuple[SSAValue, float, float] | None:
    """v, lo and hi if `op` bounds v from one side or both."""
    outer = _bound(op)
    if outer is None:
        return None
    value, low, high = outer
    inner = _bound(value.owner)
    if inner is not None and value.has_one_use() and (low == -math.inf) != (inner[1] == -math.inf):
        below, above = max(low, inner[1]), min(high, inner[2])
        return (inner[0], below, above) if below <= above else outer
    return outer


def _bounds(op: MapOp) -> tuple[float, float] | None:
    """Lo and hi of a map that is nothing but bounds on its operand."""
    last = op.body.block.last_op
    assert isinstance(last, YieldOp)
    if len(op.inputs) != 1 or not isinstance(last.value.owner, Operation):
        return None
    found = _bounded(last.value.owner)
    return found[1:] if found is not None and found[0] is op.body.block.args[0] else None


def _leaky_slope(op: MapOp) -> float | int | None:
    """The slope below 0 of x < 0 ? s·x : x, or the number of the operand that holds it; None for other maps."""
    block = op.body.block
    last = block.last_op
    assert isinstance(last, YieldOp)
    select = last.value.owner
    if not isinstance(select, arith.SelectOp) or len(block.args) > 2:
        return None
    x: SSAValue = next(iter(block.args))
    condition, product = select.cond.owner, select.lhs.owner
    if select.rhs is not x or not isinstance(condition, arith.CmpfOp) or not isinstance(product, arith.MulfOp):
        return None
    if condition.predicate.value.data != 4 or condition.lhs is not x or _number(condition.rhs) != 0.0:  # olt
        return None
    factor = product.rhs if product.lhs is x else product.lhs
    if x not in product.operands:
        return None
    if len(block.args) == 2 and factor is block.args[1]:
        return 1
    return _number(factor)


def is_relu(op: MapOp) -> bool:
    """Whether a map is max(x, 0)."""
    return _bounds(op) == (0.0, math.inf)


def clip_bound(op: MapOp) -> float | None:
    """The upper bound of a map that is min(max(x, 0), bound); None for other maps."""
    bounds = _bounds(op)
    return bounds[1] if bounds is not None and bounds[0] == 0.0 and bounds[1] < math.inf else None
