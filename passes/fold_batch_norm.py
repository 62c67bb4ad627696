"""`fold-batch-norm`: a batch normalisation after a convolution or a matrix product becomes part of its weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, i64
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern

from neuc.dialects.context import store_of
from neuc.dialects.locations import fuse_locations, node_names
from neuc.dialects.onnx_base import OnnxOp
from neuc.dialects.store import constant_value, make_constant
from neuc.dialects.weight_store import WeightStore
from neuc.passes.rewriting import rewrite


@dataclass(frozen=True)
class FoldBatchNorm(ModulePass):
    """Fold inference-mode BatchNormalization into the node before it.

    With a = scale / sqrt(var + epsilon) per channel, in float64:

    1. Conv: w[m,…] := a[m]·w[m,…], bias := a·(bias − mean) + B.
    2. ConvTranspose, group 1: the same along its second weight axis.
    3. Gemm with alpha = beta = 1: the same along the columns of its B.

    Only when the BatchNormalization is the one user, all of it is constant f32 and it has one output.
    ``%y = onnx.Conv(%x, %w); %z = onnx.BatchNormalization(%y, …)`` becomes ``%z = onnx.Conv(%x, %w', %b')``.
    """

    name = "fold-batch-norm"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Fold what can be folded in the module."""
        rewrite(op, [FoldIntoProducer(store_of(ctx))])


@dataclass(frozen=True)
class FoldIntoProducer(RewritePattern):
    """The three rules."""

    store: WeightStore

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        """Fold `op` if it is a batch normalisation that a rule covers."""
        if not isinstance(op, OnnxOp) or op.full_name != "BatchNormalization":
            return
        source = op.operands[0].owner
        if not isinstance(source, OnnxOp) or not op.operands[0].has_one_use():
            return
        axis = _channel_axis(source)
        affine = self._affine(op)
        weight = self._array(source.operand_at(1))
        if axis is None or affine is None or weight is None:
            return
        gain, shift = affine
        bias = source.operand_at(2)
        old_bias = np.zeros_like(gain) if bias is None else self._array(bias)
        if old_bias is None or weight.shape[axis] != gain.size or old_bias.size not in (1, gain.size):
            return
        shape = [1] * weight.ndim
        shape[axis] = gain.size
        new_weight = (weight.astype(np.float64) * gain.reshape(shape)).astype(np.float32)
        new_bias = (np.broadcast_to(old_bias.reshape(-1), gain.shape) * gain + shift).astype(np.float32)
        name = next(iter(node_names(source)), source.op_type)
        w = make_constant(f"{name}.folded_weight", new_weight, self.store)
        b = make_constant(f"{name}.folded_bias", new_bias, self.store)
        folded = type(source)([source.operands[0], w.result, b.result], [op.results[0].type], dict(source.attributes))
        folded.location = fuse_locations(source, op)
        rewriter.replace(op, [w, b, folded], [folded.results[0], *([None] * (len(op.results) - 1))])
        rewriter.erase(source)

    def _affine(self, op: OnnxOp) -> tuple[np.ndarray, np.ndarray] | None:
        """The normalisation as y = gain·x + shift, float64 per channel."""
        if op.int_attribute("training_mode", 0) or any(r.first_use is not None for r in op.results[1:]):
            return None
        arrays = [self._array(op.operand_at(i)) for i in range(1, 5)]
        if any(a is None for a in arrays):
            return None
        scale, offset, mean, variance = (a.astype(np.float64) for a in arrays if a is not None)
        gain = scale / np.sqrt(variance + op.float_attribute("epsilon", 1e-5))
        return gain, offset - mean * gain

    def _array(self, value: SSAValue | None) -> np.ndarray | None:
        array = None if value is None else constant_value(value, self.store)
        return array if array is not None and array.dtype == np.float32 else None


def _channel_axis(source: OnnxOp) -> int | None:
    """The axis of the weight that is the output channel, None if no rule covers the node."""
    match source.full_name:
        case "Conv":
            return 0
        case "ConvTranspose" if source.int_attribute("group", 1) == 1:
            return 1
        case "Gemm" if source.float_attribute("alpha", 1.0) == source.float_attribute("beta", 1.0) == 1.0:
            return 0 if source.attributes.get("transB") == IntegerAttr(1, i64) else 1
        case _:
            return None
