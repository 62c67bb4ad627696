"""The pass `quantize-to-ternary`: constant matmuls and convolutions become ternary planes times int8 activations.

Which layers can is decided in `analysis/ternary_layers.py`, planes are fitted in `analysis/ternary_fit.py`; how many
each layer gets is the caller's choice (`analysis/error_budget.py` makes it by measuring). With `bits` = 8 the same
layers get int8 weights, which are one plane of more levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from neuc.dialects.context import store_of
from neuc.dialects.dense import ConvOp, MatMulOp
from neuc.dialects.locations import fuse_locations
from neuc.dialects.store import dims_of
from neuc.dialects.ternary import QuantizeOp, WeightOp
from neuc.dialects.ternary_encodings import LEVELS
from neuc.dialects.ternary_types import ScaleAttr
from neuc.dialects.ternary_weights import make_weight
from neuc.dialects.weight_store import WeightStore, array_sha
from neuc.errors import Error
from neuc.passes.analysis.exact_weights import exact_weight
from neuc.passes.analysis.int8_fit import LEVELS as INT8_LEVELS
from neuc.passes.analysis.int8_fit import fit_int8
from neuc.passes.analysis.ternary_fit import MAX_PLANES, fit_ternary
from neuc.passes.analysis.ternary_layers import (
    FLOAT_LAYERS,
    KEPT,
    MIN_K,
    is_own_rounding,
    layers,
    reason_to_keep,
    weight_entry,
    weight_matrix,
)
from neuc.passes.rewriting import rewrite
from neuc.passes.ternary_replacement import replace_conv, replace_matmul

SCALES = {"row": ScaleAttr.of("row"), "tensor": ScaleAttr.of("tensor"), "group": ScaleAttr.of("group", 128)}


@dataclass
class FitCache:
    """Fitted weights by content, planes (0: int8) and scale, so that trying assignments of planes fits each layer once.

    Weights that hold few levels already are not fitted: they are what they are, in one plane.
    """

    _made: dict[tuple[str, int, str], WeightOp] = field(default_factory=dict)
    _exact: dict[str, WeightOp | None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._made)

    def weight(self, op: MatMulOp | ConvOp, name: str, planes: int, scale: str, store: WeightStore) -> WeightOp:
        """A `ternary.weight` for a layer's constant, its arrays in `store`."""
        matrix = weight_matrix(op, store)
        sha = array_sha(matrix)
        exact = self._exact.get(sha)
        if sha not in self._exact or (exact is not None and exact.trits.data not in store):
            exact = self._exact[sha] = exact_weight(matrix, name, store)
        if exact is not None:
            return exact.clone()
        key = (sha, planes, scale)
        known = self._made.get(key)
        if known is None or known.trits.data not in store:
            kind = f"{planes}x{scale}" if planes else f"int8.{scale}"
            fit = fit_ternary(matrix, planes, scale) if planes else fit_int8(matrix, scale)
            levels = LEVELS if planes else INT8_LEVELS
            known = make_weight(
                f"{name}.{kind}", fit.trits, fit.scales, store, scale=SCALES[scale], levels=levels, sqnr=fit.sqnr_db
            )
            self._made[key] = known
        return known.clone()


@dataclass(frozen=True)
class QuantizeToTernary(ModulePass):
    """Replace float layers with constant weights by ternary ones.

    Rules:
        1. `dense.matmul %a, <constant [K, N]>` → `ternary.quantize %a`, `ternary.linear` on W = Σ_p scale_p·trits_p;
           `transpose_b`, `alpha`, a bias per column and the activation are carried over.
        2. `dense.conv %x, <constant>` → `ternary.quantize %x axes R-1`, `ternary.conv`.
        3. Layers that read the same value share its `ternary.quantize`.
        4. Weights that hold few levels already (see `recognize-ternary`) are taken as they are, in one plane.
        5. With `bits` = 8, weights are the nearest of -127 … 127 times a scale, in one plane.
        6. A layer that stays float gets the attribute `ternary.kept` with the reason.

    Before and after::

        %y = dense.matmul(%x, %w, %b) : (tensor<2x32xf32>, tensor<32x8xf32>, tensor<8xf32>) -> tensor<2x8xf32>

        %t = ternary.weight trits "w.2xrow.trits" sha … : !ternary.trits<8x32, scale = row, planes = 2>
        %q, %s = ternary.quantize %x : tensor<2x32xf32> -> tensor<2x32xi8>, tensor<2xf32>
        %y = ternary.linear %q, %s, %t bias %b : … -> tensor<2x8xf32>

    It changes numbers: per layer, the relative error of the result is about 10^(-SQNR/20) of the weights (attribute
    `sqnr` of `ternary.weight`; 0 where that is missing) plus about 1 % from int8 activations.

    Options:
        planes: P of every layer, 1 to 4.
        scale: which weights share a scale: row, group (128 columns) or tensor.
        layers: "name=planes" for single layers; 0 keeps one as float.
        min_k: layers with fewer columns stay float.
        bits: 8 for int8 weights; 0 for ternary ones.
    """

    name = "quantize-to-ternary"
    planes: int = 2
    scale: str = "row"
    layers: tuple[str, ...] = ()
    min_k: int = MIN_K
    bits: int = 0
    fits: FitCache = field(default_factory=FitCache, init=False, compare=False, repr=False)
    kept: str = field(default="asked to stay float", init=False, compare=False, repr=False)

    def using(self, fits: FitCache, kept: str = "asked to stay float") -> Self:
        """Take fits that were made before from `fits`, and say `kept` of layers without planes; returns this pass."""
        object.__setattr__(self, "fits", fits)
        object.__setattr__(self, "kept", kept)
        return self

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        if not 0 <= self.planes <= MAX_PLANES:
            raise Error("NEUC-E220", f"planes = {self.planes} is out of range", hint=f"choose 0 to {MAX_PLANES}")
        if self.scale not in SCALES:
            raise Error("NEUC-E220", f"scale = {self.scale!r} is unknown", hint=f"choose {', '.join(SCALES)}")
        if self.bits not in (0, 8):
            raise Error("NEUC-E220", f"bits = {self.bits} is unknown", hint="choose 8 for int8, 0 for ternary planes")
        store, named = store_of(ctx), dict(layers(op))
        chosen = self._chosen(named)
        plan: dict[Operation, WeightOp] = {}
        for name, layer in named.items():
            if not isinstance(layer, FLOAT_LAYERS):
                continue
            planes = chosen.get(name, self.planes)
            reason = reason_to_keep(layer, store, self.min_k, form="int8" if self.bits else "ternary")
            if not reason and planes == 0:
                reason = self.kept
            if reason:
                layer.attributes[KEPT] = StringAttr(reason)
                continue
            assert isinstance(layer, MatMulOp | ConvOp)
            kind = 0 if self.bits else planes
            plan[layer] = self.fits.weight(layer, weight_entry(layer, name), kind, self.scale, store)
        rewrite(op, [QuantizeMatMul(plan, store), QuantizeConv(plan, store)], recursive=False)

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


@dataclass
class QuantizeMatMul(RewritePattern):
    """Rule 1."""

    plan: Mapping[Operation, WeightOp]
    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MatMulOp, rewriter: PatternRewriter) -> None:
        """Replace a planned matmul."""
        weight = self.plan.get(op)
        if weight is not None:
            replace_matmul(op, _quantized(op.a, 1, op, rewriter), weight, self.store, rewriter)


@dataclass
class QuantizeConv(RewritePattern):
    """Rule 2."""

    plan: Mapping[Operation, WeightOp]
    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: ConvOp, rewriter: PatternRewriter) -> None:
        """Replace a planned convolution."""
        weight = self.plan.get(op)
        if weight is not None:
            codes = _quantized(op.x, len(dims_of(op.x)) - 1, op, rewriter)
            replace_conv(op, codes, weight, self.store, rewriter)


def _quantized(x: SSAValue, axes: int, reader: Operation, rewriter: PatternRewriter) -> tuple[SSAValue, SSAValue]:
    """Rule 3: the codes and scales of `x`, quantised once for all layers of a block that read it."""
    for use in x.uses:
        other = use.operation
        if is_own_rounding(other) and other.shared_axes == axes and other.is_before_in_block(reader):
            other.location = fuse_locations(other, reader)
            return other.q, other.s
    quantize = rewriter.insert(QuantizeOp(x, axes))
    return quantize.q, quantize.s
