"""How many weights a spike meets: fan-outs of inputs, and from them counts of operations as NeuroBench defines them.

An operation counts where both the input and the weight are not 0 (Yik et al., "NeuroBench", 2025: effective ACs and
MACs); what padding adds never counts.
"""

from __future__ import annotations

from itertools import product as each

import numpy as np
from xdsl.ir import Operation

from neuc.dialects import spike
from neuc.dialects.dense import ConvOp, MatMulOp
from neuc.dialects.store import constant_value
from neuc.dialects.weight_store import WeightStore

Array = np.ndarray


def fan_out(op: Operation, shape: tuple[int, ...], store: WeightStore, *, dense: bool = False) -> Array | None:
    """For each element of an input of `shape`, how many weights that are not 0 (all of them if `dense`) it meets.

    Args:
        op: a product.
        shape: of its first operand, batch included.
        store: the weights.
        dense: count zeros among the weights, too.

    Returns:
        f64, broadcasts to `shape`; None if the product has no constant weights on the right.
    """
    if isinstance(op, MatMulOp):
        weight = constant_value(op.b, store)
        if weight is None or weight.ndim != 2:
            return None
        rows = weight if op.transpose_b is not None else weight.T
        counted = np.ones(rows.shape) if dense else rows != 0
        return np.asarray(np.sum(counted, axis=0, dtype=np.float64))
    if isinstance(op, spike.LinearOp):
        weight = constant_value(op.weight, store)
        if weight is None:
            return None
        return np.asarray(np.sum(np.ones(weight.shape) if dense else weight != 0, axis=0, dtype=np.float64))
    if isinstance(op, ConvOp | spike.ConvOp):
        weight = constant_value(op.operands[1], store)
        return None if weight is None else _conv_fan_out(op, shape, np.ones_like(weight) if dense else weight)
    return None


def _conv_fan_out(op: ConvOp | spike.ConvOp, shape: tuple[int, ...], weight: Array) -> Array:
    group, n = op.group.value.data, weight.ndim - 2
    strides, pads, dilations = op.strides.get_values(), op.pads.get_values(), op.dilations.get_values()
    met = (weight != 0).reshape(group, -1, *weight.shape[1:]).sum(axis=1)  # [group, C/group, …kernel]
    met = met.reshape(shape[1], *weight.shape[2:]).astype(np.float64)
    sizes, kernel = shape[2:], weight.shape[2:]
    found = np.zeros((shape[1], *sizes))
    for offset in each(*(range(k) for k in kernel)):
        places = []
        for i in range(n):
            windows = (sizes[i] + pads[i] + pads[i + n] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1
            at = np.arange(windows) * strides[i] + offset[i] * dilations[i] - pads[i]
            places.append(at[(at >= 0) & (at < sizes[i])])
        found[(slice(None), *np.ix_(*places))] += met[(slice(None), *offset)].reshape(-1, *[1] * n)
    return found


def met_weights(x: Array, fans: Array) -> float:
    """Operations that the elements of `x` that are not 0 make."""
    if fans.ndim == 1 and x.ndim > 1:
        return float(np.count_nonzero(x.reshape(-1, x.shape[-1]), axis=0) @ fans)
    return float(np.sum(np.count_nonzero(x, axis=0) * fans))
