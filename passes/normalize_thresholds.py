"""`normalize-thresholds`: thresholds of integrate-and-fire neurons become 1; their size goes into the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from neuc.dialects import spike
from neuc.dialects.context import store_of
from neuc.dialects.dense import BroadcastOp, ConvOp, MatMulOp
from neuc.dialects.dense_attrs import NO_ACTIVATION
from neuc.dialects.locations import node_names
from neuc.dialects.store import constant_value, make_constant
from neuc.dialects.weight_store import WeightStore

KEPT = "spike.kept"
"""Attribute of a neuron whose threshold stays what it is: why."""
_PRODUCTS = (spike.LinearOp, spike.ConvOp, MatMulOp, ConvOp)


@dataclass(frozen=True)
class NormalizeThresholds(ModulePass):
    """Divide what a `spike.if` gets, and begins with, by its threshold, which is then 1.

    For a soft reset, a constant threshold θ per output channel, a current that one product with constant weights makes
    for this neuron alone, and a constant first potential: w := w/θ, b := b/θ, v₀ := v₀/θ. The spikes are the same but
    where a potential meets its threshold within rounding. Other neurons stay, with the reason as `spike.kept`.

    ``%i = spike.linear(%s, %w, %b); spike.if(%i, %v, %theta)`` becomes ``%i = spike.linear(%s, %w', %b')`` and
    ``spike.if(%i, %v, %one)``.
    """

    name = "normalize-thresholds"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Normalise the neurons of every loop."""
        store = store_of(ctx)
        for loop in [inner for inner in op.walk() if isinstance(inner, spike.LoopOp)]:
            for neuron in [inner for inner in loop.body.block.ops if isinstance(inner, spike.IfOp)]:
                reason = _normalized(loop, neuron, store)
                if reason:
                    neuron.attributes[KEPT] = StringAttr(reason)


def _normalized(loop: spike.LoopOp, neuron: spike.IfOp, store: WeightStore) -> str:
    """Normalise one neuron; the reason if that cannot be."""
    theta = constant_value(neuron.threshold, store)
    product, state = neuron.current.owner, neuron.potential
    if theta is None or theta.dtype != np.float32 or not (theta > 0).all():
        return "its threshold is no positive constant"
    if not neuron.is_soft or neuron.reset_operand is not None:
        return "its reset is not by the threshold"
    if not isinstance(product, _PRODUCTS) or not neuron.current.has_one_use():
        return "its current is not that of a product of its own"
    if isinstance(product, MatMulOp | ConvOp) and product.activation != NO_ACTIVATION:
        return "its current is not that of a product of its own"
    if state not in loop.states:
        return "its potential is no state of the loop"
    weight = constant_value(product.operands[1], store)
    bias = None if product.bias is None else constant_value(product.bias, store)
    initial = loop.initial[loop.states.index(state)]
    broadcast = initial.owner if isinstance(initial.owner, BroadcastOp) else None
    start = constant_value(initial if broadcast is None else broadcast.x, store)
    if weight is None or start is None or (product.bias is not None and bias is None):
        return "its weights, or its first potential, are not constant"
    rows_first = not (isinstance(product, MatMulOp) and product.transpose_b is None)
    channels, flat = weight.shape[0 if rows_first else -1], theta.reshape(-1)
    if flat.size not in (1, channels) or (bias is not None and bias.ndim > 1):
        return "its threshold is not one number for each channel"
    by_row = np.broadcast_to(flat, (channels,)).reshape(
        [channels] + [1] * (weight.ndim - 1) if rows_first else [channels]
    )
    name = next(iter(node_names(neuron)), "neuron")
    product.operands[1] = _constant(f"{name}.normal_weight", weight / by_row, product, store)
    if bias is not None:
        product.operands[2] = _constant(f"{name}.normal_bias", bias / flat, product, store)
    began = _constant(f"{name}.normal_potential", start / theta, loop, store)
    if broadcast is not None:
        spread = BroadcastOp(began, initial.type)
        Rewriter.insert_op(spread, InsertPoint.before(loop))
        began = spread.result
    loop.operands[len(loop.scanned) + loop.states.index(state)] = began
    neuron.operands[2] = _constant(f"{name}.one", np.ones_like(theta), loop, store)
    return ""


def _constant(name: str, array: np.ndarray, before: Operation, store: WeightStore) -> SSAValue:
    constant = make_constant(name, np.array(array, np.float32, order="C"), store)
    constant.location = before.location
    Rewriter.insert_op(constant, InsertPoint.before(before))
    return constant.result
