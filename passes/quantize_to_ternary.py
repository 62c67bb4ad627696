"""The pass `quantize-to-ternary`: constant matmuls and convolutions become ternary planes times int8 activations.

Which layers can is decided in `analysis/ternary_layers.py`, planes are fitted in `analysis/ternary_fit.py`; how many
each layer gets is the caller's choice (`analysis/error_budget.py` makes it by measuring).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from xdsl.context import Context
from xdsl.dialects.arith import AddfOp
from xdsl.dialects.builtin import ModuleOp, StringAttr, f32
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from neuc.dialects.context import store_of
from neuc.dialects.dense import ConvOp, MapOp, MatMulOp, ReshapeOp, YieldOp
from neuc.dialects.locations import fuse_locations
from neuc.dialects.store import ConstantOp, constant_value, dims_of, make_constant, tensor_type
from neuc.dialects.ternary import ConvOp as TernaryConvOp
from neuc.dialects.ternary import LinearOp, QuantizeOp, WeightOp
from neuc.dialects.ternary_types import ScaleAttr, TritsType, Window
from neuc.dialects.ternary_weights import make_weight
from neuc.dialects.weight_store import WeightStore, array_sha
from neuc.errors import Error
from neuc.passes.analysis.ternary_fit import MAX_PLANES, fit_ternary
from neuc.passes.analysis.ternary_layers import (
    FLOAT_LAYERS,
    KEPT,
    MIN_K,
    layers,
    per_column,
    reason_to_keep,
    weight_matrix,
)
from neuc.passes.rewriting import rewrite

SCALES = {"row": ScaleAttr.of("row"), "tensor": ScaleAttr.of("tensor"), "group": ScaleAttr.of("group", 128)}


@dataclass
class FitCache:
    """Fitted weights by content, planes and scale, so that trying assignments of planes fits each layer once."""

    _made: dict[tuple[str, int, str], WeightOp] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._made)

    def weight(self, op: MatMulOp | ConvOp, name: str, planes: int, scale: str, store: WeightStore) -> WeightOp:
        """A `ternary.weight` for a layer's constant, its arrays in `store`."""
        matrix = weight_matrix(op, store)
        key = (array_sha(matrix), planes, scale)
        known = self._made.get(key)
        if known is None or known.trits.data not in store:
            fit = fit_ternary(matrix, planes, scale)
            known = make_weight(
                f"{name}.{planes}x{scale}", fit.trits, fit.scales, store, scale=SCALES[scale], sqnr=fit.sqnr_db
            )
            self._made[key] = known
        return known.clone()


@dataclass(frozen=True)
class QuantizeToTernary(ModulePass):
    """Replace float layers with constant weights by ternary ones.

    Rules:
        1. `dense.matmul %a, <constant [K, N]>` → `ternary.quantize %a`, `ternary.linear` on W = Σ_p scale_p·trits_p;
           `transpose_b`, `alpha`, a bias per column and the activation are carried over.
        2. `dense.conv %x, <constant>` with group = 1 → `ternary.quantize %x axes R-1`, `ternary.conv`.
        3. Layers that read the same value share its `ternary.quantize`.
        4. A layer that stays float gets the attribute `ternary.kept` with the reason.

    Before and after::

        %y = dense.matmul(%x, %w, %b) : (tensor<2x32xf32>, tensor<32x8xf32>, tensor<8xf32>) -> tensor<2x8xf32>

        %t = ternary.weight trits "w.2xrow.trits" sha … : !ternary.trits<8x32, scale = row, planes = 2>
        %q, %s = ternary.quantize %x : tensor<2x32xf32> -> tensor<2x32xi8>, tensor<2xf32>
        %y = ternary.linear %q, %s, %t bias %b : … -> tensor<2x8xf32>

    It changes numbers: per layer, the relative error of the result is about 10^(-SQNR/20) of the weights (attribute
    `sqnr` of `ternary.weight`) plus about 1 % from int8 activations.

    Options:
        planes: P of every layer, 1 to 4.
        scale: which weights share a scale: row, group (128 columns) or tensor.
        layers: "name=planes" for single layers; 0 keeps one as float.
        min_k: layers with fewer columns stay float.
    """

    name = "quantize-to-ternary"
    planes: int = 2
    scale: str = "row"
    layers: tuple[str, ...] = ()
    min_k: int = MIN_K
    fits: FitCache = field(default_factory=FitCache, init=False, compare=False, repr=False)

    def using(self, fits: FitCache) -> Self:
        """Take fits that were made before from `fits`; returns this pass."""
        object.__setattr__(self, "fits", fits)
        return self

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        if not 0 <= self.planes <= MAX_PLANES:
            raise Error("NEUC-E220", f"planes = {self.planes} is out of range", hint=f"choose 0 to {MAX_PLANES}")
        if self.scale not in SCALES:
            raise Error("NEUC-E220", f"scale = {self.scale!r} is unknown", hint=f"choose {', '.join(SCALES)}")
        store, named = store_of(ctx), dict(layers(op))
        chosen = self._chosen(named)
        plan: dict[Operation, WeightOp] = {}
        for name, layer in named.items():
            if not isinstance(layer, FLOAT_LAYERS):
                continue
            planes = chosen.get(name, self.planes)
            reason = reason_to_keep(layer, store, self.min_k)
            if not reason and planes == 0:
                reason = "asked to stay float"
            if reason:
                layer.attributes[KEPT] = StringAttr(reason)
                continue
            assert isinstance(layer, MatMulOp | ConvOp)
            plan[layer] = self.fits.weight(layer, _entry_name(layer, name), planes, self.scale, store)
        rewrite(op, [QuantizeMatMul(plan, store), QuantizeConv(plan)], recursive=False)

    def _chosen(self, named: Mapping[str, Operation]) -> dict[str, int]:
        chosen: dict[str, int] = {}
        for text in self.layers:
            name, _, planes = text.rpartition("=")
            if name not in named:
                raise Error(
                    "NEUC-E221",
                    f"option layers names {name!r}, which is no layer of this module",
                    hint=f"its layers: {', '.join(list(named)[:8])}{' …' if len(named) > 8 else ''}",
                )
            if not planes.isdigit() or int(planes) > MAX_PLANES:
                raise Error("NEUC-E220", f"option layers: {text!r}", hint=f"write NAME=0 to NAME={MAX_PLANES}")
            chosen[name] = int(planes)
        return chosen


def _entry_name(layer: MatMulOp | ConvOp, name: str) -> str:
    constant = (layer.b if isinstance(layer, MatMulOp) else layer.w).owner
    return constant.entry.data if isinstance(constant, ConstantOp) and constant.entry is not None else name


@dataclass
class QuantizeMatMul(RewritePattern):
    """Rule 1."""

    plan: Mapping[Operation, WeightOp]
    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MatMulOp, rewriter: PatternRewriter) -> None:
        """Replace a planned matmul."""
        weight = self.plan.get(op)
        if weight is None:
            return
        q, s = _quantized(op.a, 1, op, rewriter)
        trits = rewriter.insert(weight).result
        assert isinstance(trits.type, TritsType)
        bias, n, constant = op.bias, trits.type.rows, op.b
        if bias is None or per_column(bias, n):
            bias = None if bias is None else self._vector(bias, n, rewriter)
            rewriter.replace(op, LinearOp(q, s, trits, bias, op.activation, op.result.type))
        else:
            linear = rewriter.insert(LinearOp(q, s, trits, result_type=op.result.type))
            rewriter.replace(op, _sum(linear.result, bias))
        _drop_unused(constant, rewriter)

    def _vector(self, bias: SSAValue, n: int, rewriter: PatternRewriter) -> SSAValue:
        """A bias of shape [N] or [1, …, N] as [N]."""
        if len(dims_of(bias)) == 1:
            return bias
        array, constant = constant_value(bias, self.store), bias.owner
        if array is None or not isinstance(constant, ConstantOp):
            return rewriter.insert(ReshapeOp(bias, tensor_type(f32, [n]))).result
        name = "bias" if constant.entry is None else constant.entry.data
        return rewriter.insert(make_constant(name, array.reshape(n), self.store)).result


def _sum(x: SSAValue, y: SSAValue) -> MapOp:
    """Sum of two values, in the shape of x."""
    result = MapOp([x, y], x.type)
    block = result.body.block
    total = AddfOp(block.args[0], block.args[1])
    block.add_ops([total, YieldOp(total.result)])
    return result


@dataclass
class QuantizeConv(RewritePattern):
    """Rule 2."""

    plan: Mapping[Operation, WeightOp]

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: ConvOp, rewriter: PatternRewriter) -> None:
        """Replace a planned convolution."""
        weight = self.plan.get(op)
        if weight is None:
            return
        kernel = tuple(d.value for d in dims_of(op.w)[2:])
        window = Window(kernel, op.strides.get_values(), op.pads.get_values(), op.dilations.get_values())
        q, s = _quantized(op.x, len(kernel) + 1, op, rewriter)
        trits, constant = rewriter.insert(weight).result, op.w
        conv = TernaryConvOp(q, s, trits, window, op.bias, activation=op.activation, result_type=op.result.type)
        rewriter.replace(op, conv)
        _drop_unused(constant, rewriter)


def _drop_unused(constant: SSAValue, rewriter: PatternRewriter) -> None:
    """Erase the float weights when the last layer that read them is gone."""
    if not any(constant.uses) and isinstance(constant.owner, Operation):
        rewriter.erase(constant.owner)


def _quantized(x: SSAValue, axes: int, reader: Operation, rewriter: PatternRewriter) -> tuple[SSAValue, SSAValue]:
    """Rule 3: the codes and scales of `x`, quantised once for all layers of a block that read it."""
    for use in x.uses:
        other = use.operation
        if isinstance(other, QuantizeOp) and other.shared_axes == axes and other.is_before_in_block(reader):
            other.location = fuse_locations(other, reader)
            return other.q, other.s
    quantize = rewriter.insert(QuantizeOp(x, axes))
    return quantize.q, quantize.s
