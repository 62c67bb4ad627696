"""What a model computes with ternary layers, without rewriting it: trials for the search for planes.

A trial is the float module with the activations of its layers rounded as `ternary.quantize` rounds them, and with the
matrices the planes stand for in place of the weights. It differs from the ternary module by float rounding only, and
assigning other planes costs nothing but the matrices. The rewriting itself is `quantize_to_ternary.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from xdsl.dialects import arith
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.ir import SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from neuc.dialects.dense import ConvOp, MapOp, MatMulOp, ReshapeOp, YieldOp
from neuc.dialects.store import constant_value, dims_of, make_constant, tensor_type
from neuc.dialects.ternary import QuantizeOp, WeightOp
from neuc.dialects.ternary_types import TritsType
from neuc.dialects.ternary_weights import weight_arrays
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.ternary_layers import is_own_rounding, layers, reason_to_keep


@dataclass
class _Place:
    """A layer's operands: as they were, and rounded activations."""

    op: MatMulOp | ConvOp
    activations: SSAValue
    rounded: SSAValue
    weights: SSAValue


class TernaryTrial:
    """A module in which layers take the values of ternary ones.

    Attributes:
        module: the module to run; a copy of the one given.
        scratch: the weights of `module`, matrices of trials included.
    """

    def __init__(self, module: ModuleOp, store: WeightStore, min_k: int) -> None:
        """Prepare a trial.

        Args:
            module: a module of `dense` operations; left unchanged.
            store: its weights; matrices of trials go to `scratch`.
            min_k: layers with fewer columns stay float.
        """
        self.module = module.clone()
        self.scratch = WeightStore()
        for key in store:
            self.scratch.add(key, store.get(key))
        self._made: dict[tuple[str, str], SSAValue] = {}
        self._places: dict[str, _Place] = {}
        for name, op in list(layers(self.module)):
            if isinstance(op, MatMulOp | ConvOp) and not reason_to_keep(op, store, min_k):
                activations, weights = (op.x, op.w) if isinstance(op, ConvOp) else (op.a, op.b)
                self._places[name] = _Place(op, activations, _rounded(op, activations), weights)

    @property
    def names(self) -> tuple[str, ...]:
        """The layers that can be ternary."""
        return tuple(self._places)

    def assign(self, weights: Mapping[str, WeightOp | None], store: WeightStore) -> None:
        """Give each named layer these weights; None makes it float.

        Args:
            weights: fitted weights by layer name.
            store: where their arrays are.
        """
        for name, weight in weights.items():
            place = self._places[name]
            place.op.operands[0] = place.activations if weight is None else place.rounded
            place.op.operands[1] = place.weights if weight is None else self._matrix(name, place, weight, store)

    def _matrix(self, name: str, place: _Place, weight: WeightOp, store: WeightStore) -> SSAValue:
        """A constant with the matrix `weight` stands for, in the layout of the layer's own."""
        key = (name, weight.trits.data)
        if key not in self._made:
            own = constant_value(place.weights, self.scratch)
            assert own is not None
            matrix = matrix_of(weight, store)
            if isinstance(place.op, MatMulOp):
                matrix = matrix / np.float32(place.op.alpha.value.data)
                matrix = matrix if place.op.transpose_b is not None else np.ascontiguousarray(matrix.T)
            constant = make_constant(f"trial.{name}", matrix.reshape(own.shape), self.scratch)
            Rewriter.insert_op(constant, InsertPoint.before(place.op))
            self._made[key] = constant.result
        return self._made[key]


def _rounded(op: MatMulOp | ConvOp, x: SSAValue) -> SSAValue:
    """`x` through int8 and back, as the ternary form of `op` sees it; once for all readers of `x`."""
    axes = len(dims_of(x)) - 1 if isinstance(op, ConvOp) else 1
    for use in x.uses:
        known = use.operation
        if is_own_rounding(known) and known.shared_axes == axes and known.is_before_in_block(op):
            maps = [u.operation for u in known.q.uses if isinstance(u.operation, MapOp)]
            return maps[0].result
    quantize = QuantizeOp(x, axes)
    scale = ReshapeOp(quantize.s, tensor_type(f32, [*dims_of(quantize.s), *([1] * axes)]))
    back = MapOp([quantize.q, scale.result], x.type)
    code, factor = back.body.block.args
    wide = arith.SIToFPOp(code, f32)
    product = arith.MulfOp(wide.result, factor)
    back.body.block.add_ops([wide, product, YieldOp(product.result)])
    Rewriter.insert_op([quantize, scale, back], InsertPoint.before(op))
    return back.result


def matrix_of(weight: WeightOp, store: WeightStore) -> np.ndarray:
    """The f32 matrix [N, K] that ternary weights stand for."""
    trits, scales = weight_arrays(weight, store)
    type_ = weight.result.type
    assert isinstance(type_, TritsType)
    planes, n, k = trits.shape
    matrix = np.zeros((n, k), np.float32)
    per_column = scales if scales.shape[2] == 1 else np.repeat(scales, type_.group_size, axis=2)
    for p in range(planes):
        matrix += trits[p] * per_column[p, :, :k]
    return matrix
