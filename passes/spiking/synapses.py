"""Products with constant weights, poolings and movements of spikes: `dense` operations as synapses.

Scales of spikes go into the weights, so that spikes stay 0, 1 or powers of two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import Operation, SSAValue

from neuc.dialects import spike
from neuc.dialects.dense import ConvOp, GatherOp, MatMulOp, PoolOp, ReduceOp, ReshapeOp
from neuc.dialects.dense_attrs import PoolKind, ReduceKind
from neuc.dialects.locations import node_names
from neuc.dialects.store import constant_value, dims_of, element_of, tensor_type
from neuc.passes.analysis.neuron_sites import RATE
from neuc.passes.spiking.loop_builder import LoopBuilder
from neuc.passes.spiking.values import Array, Value, apply, channel_vector


def product(op: Operation, values: Sequence[Value], build: LoopBuilder) -> SSAValue | None:
    """The current of a product inside the loop, without bias in differential coding; None if no synapse does it."""
    made = None
    if isinstance(op, ConvOp):
        made = _conv(op, values[0], build)
    elif isinstance(op, MatMulOp):
        made = _linear(op, values[0], build)
    if made is not None and RATE in op.attributes and isinstance(made.owner, Operation):
        made.owner.attributes[RATE] = op.attributes[RATE]
    return made


def _linear(op: MatMulOp, x: Value, build: LoopBuilder) -> SSAValue | None:
    weight = constant_value(op.b, build.store)
    bias = None if op.bias is None else constant_value(op.bias, build.store)
    plain_bias = op.bias is None or (bias is not None and bias.ndim == 1)
    if weight is None or weight.ndim != 2 or op.transpose_a is not None or x.inner is None or not plain_bias:
        return None
    rows = (weight if op.transpose_b is not None else weight.T) * np.float32(op.alpha.value.data)
    x, scale = _channel_scale(x, len(dims_of(op.a)), len(dims_of(op.a)) - 1, rows.shape[1], build)
    assert x.inner is not None
    rows = rows if scale is None else rows * scale[None, :]
    w, b = _constants(op, rows, bias, build)
    return build.inside(spike.LinearOp(x.inner, w, b))


def _conv(op: ConvOp, x: Value, build: LoopBuilder) -> SSAValue | None:
    weight = constant_value(op.w, build.store)
    bias = None if op.bias is None else constant_value(op.bias, build.store)
    if weight is None or x.inner is None or (op.bias is not None and bias is None):
        return None
    group = op.group.value.data
    x, scale = _channel_scale(x, len(dims_of(op.x)), 1, weight.shape[1] * group, build)
    assert x.inner is not None
    if scale is not None:
        # Output channel m is in group m // (M / group), whose inputs are channels of that group.
        by_group = scale.reshape(group, 1, -1, *[1] * (weight.ndim - 2))
        weight = (weight.reshape(group, -1, *weight.shape[1:]) * by_group).reshape(weight.shape)
    w, b = _constants(op, weight, bias, build)
    window = [op.strides.get_values(), op.pads.get_values(), op.dilations.get_values()]
    strides, pads, dilations = (list(v) for v in window)
    return build.inside(spike.ConvOp(x.inner, w, b, strides=strides, pads=pads, dilations=dilations, group=group))


def _channel_scale(x: Value, rank: int, axis: int, channels: int, build: LoopBuilder) -> tuple[Value, Array | None]:
    """What a synapse reads, and the factors of its weights by input channel."""
    if x.scale is None:
        return x, None
    scale = channel_vector(x.scale, rank, axis, channels)
    # A scale that differs from place to place cannot go into weights that do not.
    return (Value(inner=build.current(x)), None) if scale is None else (x, scale)


def _constants(
    op: Operation, weight: Array, bias: Array | None, build: LoopBuilder
) -> tuple[SSAValue, SSAValue | None]:
    name = next(iter(node_names(op)), op.name)
    w = build.constant(weight.astype(np.float32), f"{name}.synapses")
    if bias is None or build.differential:
        return w, None
    return w, build.constant(bias.astype(np.float32), f"{name}.current")


def pool(op: Operation, x: Value, build: LoopBuilder) -> Value | None:
    """An average pooling of spikes as sums, 1/k² waiting in the scale; None where it is no plain sum."""
    if x.inner is None:
        return None
    if isinstance(op, ReduceOp):
        return _global_pool(op, x, build)
    if not isinstance(op, PoolOp) or op.kind.data is not PoolKind.AVG:
        return None
    kernel, pads = list(op.kernel.get_values()), list(op.pads.get_values())
    even = all(d == 1 for d in op.dilations.get_values()) and (not any(pads) or op.count_include_pad is not None)
    rank = len(dims_of(op.x))
    if not even or not _flat(x.scale, rank):
        return None
    summed = spike.SumPoolOp(x.inner, kernel=kernel, strides=list(op.strides.get_values()), pads=pads)
    if dims_of(summed.current) != dims_of(op.result):
        summed.erase()  # ceil_mode: windows that hang over the end count fewer elements
        return None
    return Value(inner=build.inside(summed), scale=_times(x.scale, 1.0 / float(np.prod(kernel))))


def _global_pool(op: ReduceOp, x: Value, build: LoopBuilder) -> Value | None:
    dims, axes = dims_of(op.x), list(op.axes.get_values())
    spatial = list(range(2, len(dims)))
    if axes != spatial or not spatial or not all(d.is_static for d in dims[2:]) or not _flat(x.scale, len(dims)):
        return None
    assert x.inner is not None
    kernel = [d.value for d in dims[2:]]
    value = build.inside(spike.SumPoolOp(x.inner, kernel=kernel, strides=kernel, pads=[0] * (2 * len(kernel))))
    scale = _times(x.scale, 1.0 / float(np.prod(kernel)) if op.kind.data is ReduceKind.MEAN else 1.0)
    if op.keepdims is None:
        value = build.inside(ReshapeOp(value, tensor_type(f32, dims[:2])))
        scale = scale.reshape(scale.shape[: max(0, scale.ndim - len(spatial))])
    return Value(inner=value, scale=scale)


def _flat(scale: Array | None, rank: int) -> bool:
    """Whether a scale is the same all over an image."""
    return scale is None or all(size == 1 for size in ((1,) * (rank - scale.ndim) + scale.shape)[2:])


def _times(scale: Array | None, factor: float) -> Array:
    return (np.ones((), np.float32) if scale is None else scale) * np.float32(factor)


def moved(op: Operation, values: Sequence[Value], changing: Sequence[int], build: LoopBuilder) -> Value | None:
    """A movement of what changes, spikes as they are; None if its operands hold different things."""
    inner = {i: v for i in changing if (v := values[i].inner) is not None}
    elements = {element_of(v) for v in inner.values()}
    if len(elements) != 1 or (len(inner) != len(values) and not isinstance(op, GatherOp)):
        return None
    scale = None
    if any(values[i].scale is not None for i in changing):
        arrays = [_scale_or_constant(values[i], op.operands[i], i in inner, build) for i in range(len(values))]
        if any(array is None for array in arrays):
            return None
        scale = apply(op, [array for array in arrays if array is not None], build.env)
        if scale is None:
            return None
    clone = type(op).create(
        operands=[inner[i] if i in inner else build.static(values[i], v) for i, v in enumerate(op.operands)],
        result_types=[tensor_type(elements.pop(), dims_of(op.results[0]))],
        properties=dict(op.properties),
    )
    return Value(inner=build.inside(clone), scale=scale)


def _scale_or_constant(value: Value, operand: SSAValue, changing: bool, build: LoopBuilder) -> Array | None:
    if changing:
        return np.ones((), np.float32) if value.scale is None else value.scale
    return constant_value(operand, build.store)
