"""The pass `recognize-ternary`: layers that a model computes with few-level weights and 8-bit codes become ternary.

What counts as few levels is decided in `analysis/level_sets.py`, what as codes in `analysis/activation_codes.py`. No
number is rounded here that the model did not round: layers that need rounding are `quantize_to_ternary.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr, UnitAttr, f32
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from neuc.dialects.context import store_of
from neuc.dialects.dense import ConvOp, MatMulOp, TransposeOp
from neuc.dialects.store import ConstantOp, dims_of, element_of
from neuc.dialects.ternary import WeightOp
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.activation_codes import FLOAT, HIGHEST, LOWEST, CodeFinder, Codes
from neuc.passes.analysis.exact_weights import exact_weight
from neuc.passes.analysis.level_sets import BOUNDS, find_levels, obstacle
from neuc.passes.analysis.ternary_layers import (
    KEPT,
    MIN_K,
    layers,
    reason_to_keep,
    ulp_of,
    weight_entry,
    weight_matrix,
    weight_operand,
)
from neuc.passes.code_builder import CodeBuilder
from neuc.passes.partition import drop_unused
from neuc.passes.rewriting import rewrite
from neuc.passes.ternary_replacement import replace_conv, replace_matmul

FEWEST_COLUMNS = 4
"""Fewer columns are levels times a scale per row by chance, so that nothing is said of their levels."""


@dataclass(frozen=True)
class RecognizeTernary(ModulePass):
    """Replace layers that are ternary in all but name; nothing is quantised that was not.

    Rules:
        1. `dense.matmul %x, <constant>` → `ternary.linear`, if the constant holds levels -15 … 15 times scales (per
           tensor, row or group of columns, within a few units in the last place), and %x is codes times scales: values
           that are provably integers within eight bits, times or divided by what does not change along a row.
           Operations up to the codes stay; from the codes on, scales go to the layer. A straight-through estimator
           x + (y - x) is taken for y.
        2. `dense.conv` likewise, with one scale for each image, grouped ones too.
        3. Codes that fit into eight bits only when shifted (0 … 255) are shifted, and the layer has the `offset` that
           makes up for it in its integer sums. Convolutions then have pads in the codes, and one channel group unless
           `shifted_groups` says otherwise.
        4. A float layer of which one half is there, or that no ternary kernel can do, gets the attribute `ternary.kept`
           with the reason.

    Before and after::

        %c = dense.map(%r) {clip(roundeven(r), -128, 127)} : (tensor<2x32xf32>) -> tensor<2x32xf32>
        %x = dense.map(%c, %a) {c / a} : (tensor<2x32xf32>, tensor<2x1xf32>) -> tensor<2x32xf32>
        %y = dense.matmul(%x, %w) : (tensor<2x32xf32>, tensor<32x8xf32>) -> tensor<2x8xf32>

        %q = dense.map(%c) {fptosi c} : (tensor<2x32xf32>) -> tensor<2x32xi8>
        %s = dense.reshape(dense.map(%a) {1 / a}) : … -> tensor<2xf32>
        %t = ternary.weight … {ternary.ulp = 0} : !ternary.trits<8x32, scale = tensor, planes = 1>
        %y = ternary.linear %q, %s, %t : … -> tensor<2x8xf32>

    Sums of products are exact integers afterwards, so that results differ from the float layer's by its own rounding.

    Options:
        min_k: layers with fewer columns stay float.
        most_level: the largest magnitude of a level; 127 takes int8 layers, too.
        shifted_groups: grouped convolutions of shifted codes become ternary, too; CPUs have no kernels for them.
    """

    name = "recognize-ternary"
    min_k: int = MIN_K
    most_level: int = BOUNDS[-1]
    shifted_groups: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        store = store_of(ctx)
        finder, plan = CodeFinder(store), dict[Operation, _Planned]()
        finder.learn(op)
        for name, layer in list(layers(op)):
            if not isinstance(layer, MatMulOp | ConvOp):
                continue
            if isinstance(layer, MatMulOp):
                _read_through_transpose(layer)
            reason = reason_to_keep(layer, store, self.min_k, grouped=True)
            found = _kept(layer, reason, finder, store) if reason else _planned(layer, name, finder, store, self)
            if isinstance(found, str):
                if found:
                    layer.attributes[KEPT] = StringAttr(found)
                continue
            plan[layer] = found
        if not plan:
            return
        builder = CodeBuilder(store)
        rewrite(op, [RecognizeMatMul(plan, builder), RecognizeConv(plan, builder)], recursive=False)
        for function in op.ops:
            if isinstance(function, func.FuncOp) and not function.is_declaration:
                drop_unused(function.body.block)


@dataclass(frozen=True)
class _Planned:
    """What a layer becomes."""

    codes: Codes
    weight: WeightOp


def _read_through_transpose(layer: MatMulOp) -> None:
    """Let a matmul read a constant that is transposed before it, transposed."""
    source = layer.b.owner
    if isinstance(source, TransposeOp) and isinstance(source.x.owner, ConstantOp) and len(dims_of(source.x)) == 2:
        if list(source.perm.get_values()) != [1, 0]:
            return
        layer.operands[1] = source.x
        if layer.transpose_b is None:
            layer.properties["transpose_b"] = UnitAttr()
        else:
            del layer.properties["transpose_b"]


def _planned(
    layer: MatMulOp | ConvOp, name: str, finder: CodeFinder, store: WeightStore, options: RecognizeTernary
) -> _Planned | str:
    """What becomes of a layer, or why it stays; "" if nothing about it is quantised."""
    codes = _codes(layer, finder)
    matrix = weight_matrix(layer, store)
    weight = exact_weight(matrix, weight_entry(layer, name), store, options.most_level)
    if weight is None:
        return "" if codes == FLOAT else f"its activations are 8-bit codes, but its weights {obstacle(matrix)}"
    if isinstance(codes, str):
        return f"its weights hold {_levels_text(weight.result.type.level_set, ulp_of(weight))}, but {codes}"
    if codes.offset and isinstance(layer, ConvOp):
        grouped = layer.group.value.data != 1
        if grouped and not (options.shifted_groups and weight.result.type.columns <= weight.result.type.group_size):
            return f"its activations are codes {codes.low} to {codes.high}, and it is a grouped convolution"
        if any(layer.pads.get_values()) and not LOWEST <= -codes.offset <= HIGHEST:
            return f"its activations are codes {codes.low} to {codes.high}, and it is padded with zeros"
    return _Planned(codes, weight)


def _kept(layer: MatMulOp | ConvOp, reason: str, finder: CodeFinder, store: WeightStore) -> str:
    """Why a layer stays that can have no ternary form; "" if nothing about it is quantised."""
    operand = weight_operand(layer)
    if operand is None or element_of(operand[0]) != f32:
        return ""
    matrix = weight_matrix(layer, store)
    fit = find_levels(matrix) if matrix.shape[1] >= FEWEST_COLUMNS else None
    if fit is not None:
        return f"its weights hold {_levels_text(fit.levels, fit.ulp)}, but {reason}"
    plain = isinstance(layer, ConvOp) or (operand[0] is layer.b and layer.transpose_a is None)
    coded = plain and isinstance(_codes(layer, finder), Codes)
    return f"its activations are 8-bit codes, but {reason}" if coded else ""


def _codes(layer: MatMulOp | ConvOp, finder: CodeFinder) -> Codes | str:
    """The codes of a layer's activations, or why there are none."""
    x, shared = (layer.a, 1) if isinstance(layer, MatMulOp) else (layer.x, len(dims_of(layer.x)) - 1)
    return finder.find(x, shared)


def _levels_text(levels: Sequence[int], ulp: int | None) -> str:
    return f"{len(levels)} levels ({'exactly' if ulp == 0 else f'exact to {ulp} ULP'})"


@dataclass
class RecognizeMatMul(RewritePattern):
    """Rule 1."""

    plan: Mapping[Operation, _Planned]
    builder: CodeBuilder

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MatMulOp, rewriter: PatternRewriter) -> None:
        """Replace a planned matmul."""
        found = self.plan.get(op)
        if found is not None:
            old, codes = op.result, self.builder.build(found.codes, op.a, 1, rewriter)
            new = replace_matmul(op, codes, found.weight, self.builder.store, rewriter, found.codes.offset)
            self.builder.replaced[old] = new


@dataclass
class RecognizeConv(RewritePattern):
    """Rule 2."""

    plan: Mapping[Operation, _Planned]
    builder: CodeBuilder

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: ConvOp, rewriter: PatternRewriter) -> None:
        """Replace a planned convolution."""
        found = self.plan.get(op)
        if found is not None:
            old, codes = op.result, self.builder.build(found.codes, op.x, len(dims_of(op.x)) - 1, rewriter)
            new = replace_conv(op, codes, found.weight, self.builder.store, rewriter, found.codes.offset)
            self.builder.replaced[old] = new
