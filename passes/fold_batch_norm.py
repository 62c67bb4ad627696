"""`fold-batch-norm`: a batch normalisation beside a convolution or a matrix product becomes part of its weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, TensorType, i64
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern

from neuc.dialects.context import store_of
from neuc.dialects.locations import fuse_locations, node_names
from neuc.dialects.onnx import op_class
from neuc.dialects.onnx_base import OnnxOp
from neuc.dialects.store import ConstantOp, constant_value, make_constant
from neuc.dialects.weight_store import WeightStore
from neuc.passes.rewriting import rewrite


@dataclass(frozen=True)
class FoldBatchNorm(ModulePass):
    """Fold inference-mode BatchNormalization into the node before it, or the one behind.

    With a = scale / sqrt(var + epsilon) per channel, in float64:

    1. Conv: w[m,…] := a[m]·w[m,…], bias := a·(bias − mean) + B.
    2. ConvTranspose, group 1: the same along its second weight axis.
    3. Gemm with alpha = beta = 1: the same along the columns of its B.
    4. MatMul with a matrix, or the sum of one and a constant vector: w[:,n] := a[n]·w[:,n], and the rest is an Add.
    5. BatchNormalization before a Conv without pads, a Gemm as in 3 or a MatMul as in 4: inputs of the weights are
       multiplied by a, and what is constant goes into the bias; with pads it would be another one at the border.

    Only when nothing else reads what is between them, all of it is constant f32 and it has one output.
    ``%y = onnx.Conv(%x, %w); %z = onnx.BatchNormalization(%y, …)`` becomes ``%z = onnx.Conv(%x, %w', %b')``.
    """

    name = "fold-batch-norm"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Fold what can be folded in the module."""
        store = store_of(ctx)
        rewrite(op, [FoldIntoProducer(store), FoldIntoMatMul(store)])
        rewrite(op, [FoldIntoReader(store)])


@dataclass(frozen=True)
class _Folding(RewritePattern):
    """What the rules share."""

    store: WeightStore

    def affine(self, op: OnnxOp) -> tuple[np.ndarray, np.ndarray] | None:
        """The normalisation as y = gain·x + shift, float64 per channel."""
        if op.int_attribute("training_mode", 0) or any(r.first_use is not None for r in op.results[1:]):
            return None
        arrays = [self.array(op.operand_at(i)) for i in range(1, 5)]
        if any(a is None for a in arrays):
            return None
        scale, offset, mean, variance = (a.astype(np.float64) for a in arrays if a is not None)
        gain = scale / np.sqrt(variance + op.float_attribute("epsilon", 1e-5))
        return gain, offset - mean * gain

    def array(self, value: SSAValue | None) -> np.ndarray | None:
        """A constant's f32 array."""
        array = None if value is None else constant_value(value, self.store)
        return array if array is not None and array.dtype == np.float32 else None

    def constants(self, source: OnnxOp, weight: np.ndarray, bias: np.ndarray) -> tuple[ConstantOp, ConstantOp]:
        """Folded weights and bias of `source`, as f32."""
        name = next(iter(node_names(source)), source.op_type)
        w = make_constant(f"{name}.folded_weight", np.ascontiguousarray(weight.astype(np.float32)), self.store)
        return w, make_constant(f"{name}.folded_bias", bias.astype(np.float32), self.store)


@dataclass(frozen=True)
class FoldIntoProducer(_Folding):
    """Rules 1 to 3."""

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        """Fold `op` if it is a batch normalisation that a rule covers."""
        if not isinstance(op, OnnxOp) or op.full_name != "BatchNormalization":
            return
        source = op.operands[0].owner
        if not isinstance(source, OnnxOp) or not op.operands[0].has_one_use():
            return
        axis = _channel_axis(source)
        affine = self.affine(op)
        weight = self.array(source.operand_at(1))
        if axis is None or affine is None or weight is None:
            return
        gain, shift = affine
        bias = source.operand_at(2)
        old_bias = np.zeros_like(gain) if bias is None else self.array(bias)
        if old_bias is None or weight.shape[axis] != gain.size or old_bias.size not in (1, gain.size):
            return
        shape = [1] * weight.ndim
        shape[axis] = gain.size
        new_weight = weight.astype(np.float64) * gain.reshape(shape)
        new_bias = np.broadcast_to(old_bias.reshape(-1), gain.shape) * gain + shift
        w, b = self.constants(source, new_weight, new_bias)
        folded = type(source)([source.operands[0], w.result, b.result], [op.results[0].type], dict(source.attributes))
        folded.location = fuse_locations(source, op)
        rewriter.replace(op, [w, b, folded], [folded.results[0], *([None] * (len(op.results) - 1))])
        rewriter.erase(source)


@dataclass(frozen=True)
class FoldIntoMatMul(_Folding):
    """Rule 4."""

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        """Fold `op` into the MatMul before it, over an Add of a constant if there is one."""
        if not isinstance(op, OnnxOp) or op.full_name != "BatchNormalization" or not op.operands[0].has_one_use():
            return
        product, between, old = op.operands[0].owner, None, None
        if isinstance(product, OnnxOp) and product.full_name == "Add":
            between, found = product, self._product_and_constant(product)
            if found is None:
                return
            product, old = found
        if not isinstance(product, OnnxOp) or product.full_name != "MatMul":
            return
        affine, weight = self.affine(op), self.array(product.operand_at(1))
        if affine is None or weight is None or weight.ndim != 2 or _rank(product.results[0]) != 2:
            return
        gain, shift = affine
        if weight.shape[1] != gain.size or (old is not None and old.size not in (1, gain.size)):
            return
        bias = shift if old is None else np.broadcast_to(old.reshape(-1), gain.shape) * gain + shift
        w, b = self.constants(product, weight * gain, bias)
        folded = type(product)([product.operands[0], w.result], [op.results[0].type])
        added = _add(folded.results[0], b.result)
        folded.location = product.location
        added.location = fuse_locations(product, *([between] if between is not None else []), op)
        rewriter.replace(op, [w, b, folded, added], [added.results[0], *([None] * (len(op.results) - 1))])
        for dead in (between, product):
            if dead is not None:
                rewriter.erase(dead)

    def _product_and_constant(self, add: OnnxOp) -> tuple[Operation, np.ndarray] | None:
        for value, other in (add.operands, reversed(add.operands)):
            array = self.array(other)
            if array is not None and array.ndim <= 1 and value.has_one_use() and isinstance(value.owner, OnnxOp):
                return value.owner, array
        return None


@dataclass(frozen=True)
class FoldIntoReader(_Folding):
    """Rule 5."""

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        """Fold the normalisation that `op` alone reads into its weights."""
        if not isinstance(op, OnnxOp) or not op.operands:
            return
        norm = op.operands[0].owner
        if not isinstance(norm, OnnxOp) or norm.full_name != "BatchNormalization" or not op.operands[0].has_one_use():
            return
        affine, weight = self.affine(norm), self.array(op.operand_at(1))
        axis = None if weight is None else _input_axis(op, weight)
        if affine is None or weight is None or axis is None:
            return
        gain, shift = affine
        group = op.int_attribute("group", 1) if op.full_name == "Conv" else 1
        if weight.shape[axis] * group != gain.size:
            return
        bias = op.operand_at(2) if op.full_name != "MatMul" else None
        old = np.zeros(1) if bias is None else self.array(bias)
        if old is None:
            return
        wide = weight.astype(np.float64)
        if op.full_name == "Conv":
            by_group = wide.reshape(group, -1, *wide.shape[1:])
            factors = gain.reshape(group, 1, -1, *[1] * (wide.ndim - 2))
            offsets = shift.reshape(group, 1, -1, *[1] * (wide.ndim - 2))
            constant = np.sum(by_group * offsets, axis=tuple(range(2, by_group.ndim))).reshape(-1)
            wide = (by_group * factors).reshape(weight.shape)
        else:
            constant = np.tensordot(shift, wide, (0, axis))
            wide = wide * gain.reshape([-1 if i == axis else 1 for i in range(2)])
        if old.size not in (1, constant.size):
            return
        w, b = self.constants(op, wide, old.reshape(-1) + constant)
        operands = [norm.operands[0], w.result] + ([] if op.full_name == "MatMul" else [b.result])
        folded = type(op)(operands, [op.results[0].type], dict(op.attributes))
        folded.location = fuse_locations(norm, op)
        new: list[Operation] = [w, b, folded]
        if op.full_name == "MatMul":
            new.append(_add(folded.results[0], b.result))
            new[-1].location = folded.location
        rewriter.replace(op, new, [new[-1].results[0]])
        rewriter.erase(norm)


def _add(x: SSAValue, y: SSAValue) -> OnnxOp:
    found = op_class("Add")
    assert found is not None
    return found([x, y], [x.type])


def _rank(value: SSAValue) -> int | None:
    return len(value.type.get_shape()) if isinstance(value.type, TensorType) else None


def _input_axis(op: OnnxOp, weight: np.ndarray) -> int | None:
    """The axis of the weight that is the input channel, None if no rule covers the node."""
    match op.full_name:
        case "Conv" if op.str_attribute("auto_pad", "NOTSET") in ("NOTSET", "VALID"):
            return None if any(op.ints_attribute("pads") or ()) else 1
        case "Gemm" if op.attributes.get("transA") != IntegerAttr(1, i64):
            plain = op.float_attribute("alpha", 1.0) == op.float_attribute("beta", 1.0) == 1.0
            return (1 if op.attributes.get("transB") == IntegerAttr(1, i64) else 0) if plain else None
        case "MatMul" if weight.ndim == 2 and _rank(op.operands[0]) == 2:
            return 0
        case _:
            return None


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
