"""Normalisations and softmax."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from neuc.dialects import dense
from neuc.dialects.dense_attrs import PoolKind, ReduceKind
from neuc.dialects.dims import Dim, product
from neuc.dialects.onnx import OnnxOp
from neuc.dialects.store import tensor_type
from neuc.passes import scalar_builder as sb
from neuc.passes.onnx_lowerings.builder import Builder, Rule, Unsupported, only

Results = Sequence[SSAValue | None]


def _softmax(log: bool) -> Rule:
    def rule(node: OnnxOp, build: Builder) -> Results:
        x = build.operand(0)
        build.require_float(x)
        dims = build.dims(x)
        if node.opset >= 13:
            return [build.add(dense.SoftmaxOp(x, build.axis(node.int_attribute("axis", -1), len(dims)), log))]
        # Until opset 12 the axes from `axis` on were one.
        axis = build.axis(node.int_attribute("axis", 1), len(dims)) if dims else 0
        if axis == len(dims) - 1:
            return [build.add(dense.SoftmaxOp(x, axis, log))]
        flat = build.reshape(x, (product(dims[:axis]), product(dims[axis:])))
        return [build.reshape(build.add(dense.SoftmaxOp(flat, 1, log)), dims)]

    return rule


def per_channel(build: Builder, value: SSAValue, rank: int) -> SSAValue:
    """A vector over the channels of an [N, C, …] tensor of rank `rank`, shaped so that it broadcasts."""
    (channels,) = build.dims(value)
    array = build.array(value)
    if array is not None:
        return build.constant(array.reshape(-1, *[1] * (rank - 2)), "per_channel")
    return build.reshape(value, (channels, *[1] * (rank - 2)))


def lower_batch_norm(node: OnnxOp, build: Builder) -> Results:
    """BatchNormalization of inference: an affine map per channel."""
    if node.int_attribute("training_mode", 0):
        raise Unsupported("training_mode")
    x, *parameters = (build.operand(i) for i in range(5))
    build.require_float(x, *parameters)
    rank, eps = len(build.dims(x)), node.float_attribute("epsilon", 1e-5)
    arrays = [build.array(p) for p in parameters]
    if rank < 2:
        raise Unsupported(f"input of rank {rank}")
    if all(a is not None for a in arrays):
        scale, bias, mean, variance = (a.astype(np.float64) for a in arrays if a is not None)
        factor = scale / np.sqrt(variance + eps)
        terms = [(factor, "scale"), (bias - mean * factor, "bias")]
        shape = (-1, *[1] * (rank - 2))
        s, b = (build.constant(t.astype(np.float32).reshape(shape), part) for t, part in terms)
        return only(build.map([x, s, b], lambda v, s, b: v * s + b), node)
    shaped = [per_channel(build, p, rank) for p in parameters]
    y = build.map([x, *shaped], lambda v, s, b, m, var: (v - m) / sb.sqrt(var + eps) * s + b)
    return only(y, node)


def _grouped_norm(build: Builder, x: SSAValue, groups: int, eps: float) -> SSAValue:
    """x[N, C, …] normalised over each of `groups` groups of channels, still as [N, groups, rest]."""
    dims = build.dims(x)
    flat = build.reshape(x, (dims[0], groups, product(dims[1:]) // groups))
    return build.add(dense.LayerNormOp(flat, None, None, axis=2, eps=eps))


def lower_instance_norm(node: OnnxOp, build: Builder) -> Results:
    """InstanceNormalization: every channel by itself."""
    x, scale, bias = (build.operand(i) for i in range(3))
    build.require_float(x, scale, bias)
    dims = build.dims(x)
    if not dims[1].is_static:
        raise Unsupported("an unknown number of channels")
    y = build.reshape(_grouped_norm(build, x, dims[1].value, node.float_attribute("epsilon", 1e-5)), dims)
    s, b = (per_channel(build, p, len(dims)) for p in (scale, bias))
    return [build.map([y, s, b], lambda v, s, b: v * s + b, dims)]


def lower_group_norm(node: OnnxOp, build: Builder) -> Results:
    """GroupNormalization; scale and bias are per group until opset 20, per channel since."""
    x, scale, bias = (build.operand(i) for i in range(3))
    build.require_float(x, scale, bias)
    dims, groups = build.dims(x), node.int_attribute("num_groups")
    if node.int_attribute("stash_type", 1) != 1:
        raise Unsupported("stash_type is not float")
    y = _grouped_norm(build, x, groups, node.float_attribute("epsilon", 1e-5))
    if node.opset < 21:
        s, b = (build.reshape(p, (groups, 1)) for p in (scale, bias))
        return [build.reshape(build.map([y, s, b], lambda v, s, b: v * s + b), dims)]
    y = build.reshape(y, dims)
    s, b = (per_channel(build, p, len(dims)) for p in (scale, bias))
    return [build.map([y, s, b], lambda v, s, b: v * s + b, dims)]


def layer_norm(
    node: OnnxOp, build: Builder, x: SSAValue, scale: SSAValue | None, bias: SSAValue | None, *, rms: bool, eps: float
) -> SSAValue:
    """`x` normalised from the node's `axis` on."""
    build.require_float(x, scale, bias)
    dims = build.dims(x)
    axis = build.axis(node.int_attribute("axis", -1), len(dims))
    for parameter in (scale, bias):
        if parameter is not None and len(build.dims(parameter)) > len(dims) - axis:
            raise Unsupported("scale or bias with more axes than are normalised")
    if bias is not None and scale is None:
        scale = build.scalar(1.0)
    return build.add(dense.LayerNormOp(x, scale, bias, axis=axis, eps=eps, rms=rms))


def _layer_norm(rms: bool) -> Rule:
    def rule(node: OnnxOp, build: Builder) -> Results:
        if node.int_attribute("stash_type", 1) != 1:
            raise Unsupported("stash_type is not float")
        bias = None if rms else node.operand_at(2)
        eps = node.float_attribute("epsilon", 1e-5)
        return only(layer_norm(node, build, build.operand(0), build.operand(1), bias, rms=rms, eps=eps), node)

    return rule


def lower_lp_norm(node: OnnxOp, build: Builder) -> Results:
    """LpNormalization for p = 1 and 2; where the norm is 0 the result is 0."""
    x, p = build.operand(0), node.int_attribute("p", 2)
    build.require_float(x)
    axis = build.axis(node.int_attribute("axis", -1), len(build.dims(x)))
    powers = build.map([x], (lambda v: v * v) if p == 2 else sb.absolute)
    total = build.reduce(powers, ReduceKind.SUM, [axis])
    norm = build.map([total], sb.sqrt) if p == 2 else total
    return [build.map([x, norm], lambda v, n: sb.where(n.equals(0.0), 0.0, v / n))]


def lower_mean_variance(node: OnnxOp, build: Builder) -> Results:
    """MeanVarianceNormalization: (x − mean) / (√var + 1e-9)."""
    x = build.operand(0)
    build.require_float(x)
    axes = [build.axis(a, len(build.dims(x))) for a in node.ints_attribute("axes") or (0, 2, 3)]
    mean = build.reduce(x, ReduceKind.MEAN, axes)
    centred = build.map([x, mean], lambda v, m: v - m)
    variance = build.reduce(build.map([centred], lambda v: v * v), ReduceKind.MEAN, axes)
    return [build.map([centred, variance], lambda v, var: v / (sb.sqrt(var) + 1e-9))]


def lower_lrn(node: OnnxOp, build: Builder) -> Results:
    """LRN: x / (bias + alpha · mean of x² over neighbouring channels) ^ beta; channels beyond the ends are zero."""
    x, size = build.operand(0), node.int_attribute("size")
    build.require_float(x)
    dims = build.dims(x)
    alpha, beta, bias = (node.float_attribute(n, v) for n, v in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    flat = (dims[0], Dim.of(1), dims[1], product(dims[2:]))
    squares = build.reshape(build.map([x], lambda v: v * v), flat)
    before = (size - 1) // 2
    mean = build.add(
        dense.PoolOp(
            squares,
            PoolKind.AVG,
            tensor_type(f32, flat),
            kernel=(size, 1),
            strides=(1, 1),
            pads=(before, 0, size - 1 - before, 0),
            dilations=(1, 1),
            count_include_pad=True,
        )
    )

    def divided(v: sb.Scalar, mean: sb.Scalar) -> sb.Scalar:
        base = mean * alpha + bias
        if beta == 0.75:
            root = sb.sqrt(base)
            return v / (root * sb.sqrt(root))
        return v / sb.power(base, v.constant(beta))

    return [build.map([x, build.reshape(mean, dims)], divided)]


RULES: dict[str, Rule] = {
    "LRN": lower_lrn,
    "Softmax": _softmax(log=False),
    "LogSoftmax": _softmax(log=True),
    "BatchNormalization": lower_batch_norm,
    "InstanceNormalization": lower_instance_norm,
    "GroupNormalization": lower_group_norm,
    "LayerNormalization": _layer_norm(rms=False),
    "RMSNormalization": _layer_norm(rms=True),
    "SimplifiedLayerNormalization": _layer_norm(rms=True),
    "LpNormalization": lower_lp_norm,
    "MeanVarianceNormalization": lower_mean_variance,
}
