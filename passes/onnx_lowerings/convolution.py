"""Convolution and pooling; `auto_pad` and `ceil_mode` are resolved here into pads and a result size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from neuc.dialects import dense
from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dense_attrs import PoolKind, ReduceKind
from neuc.dialects.dims import Dim
from neuc.dialects.onnx import OnnxOp
from neuc.dialects.store import tensor_type
from neuc.passes import scalar_builder as sb
from neuc.passes.analysis.symbolic_rules_window import pool_has_a_window
from neuc.passes.onnx_lowerings.builder import Builder, Rule, Unsupported, only

Results = Sequence[SSAValue | None]


class Window:
    """Strides, pads and dilations of a node, made explicit."""

    def __init__(self, node: OnnxOp, size: Sequence[Dim], kernel: Sequence[int]) -> None:
        n = len(size)
        self.size, self.kernel = size, tuple(kernel)
        self.strides = node.ints_attribute("strides") or (1,) * n
        self.dilations = node.ints_attribute("dilations") or (1,) * n
        pads = node.ints_attribute("pads") or (0,) * (2 * n)
        match node.str_attribute("auto_pad", "NOTSET"):
            case "VALID":
                pads = (0,) * (2 * n)
            case "SAME_UPPER" | "SAME_LOWER" as same:
                total = [self._same_padding(i) for i in range(n)]
                less, more = [t // 2 for t in total], [t - t // 2 for t in total]
                pads = (*less, *more) if same == "SAME_UPPER" else (*more, *less)
        if not len(self.strides) == len(self.dilations) == len(kernel) == n or len(pads) != 2 * n:
            raise Unsupported(f"a window of {len(kernel)} axes over {n} spatial axes")
        if min(pads) < 0:
            raise Unsupported("negative pads")
        self.pads = tuple(pads)

    def _reach(self, axis: int) -> int:
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def _same_padding(self, axis: int) -> int:
        """How much padding gives ceil(size / stride) windows."""
        stride, reach = self.strides[axis], self._reach(axis)
        if stride == 1:
            return reach - 1
        if not self.size[axis].is_static:
            raise Unsupported("auto_pad over an axis of unknown size")
        size = self.size[axis].value
        return max(0, (-(-size // stride) - 1) * stride + reach - size)

    def result(self, *, ceil: bool = False, pool: bool = False) -> list[Dim]:
        """How many windows each axis has."""
        found: list[Dim] = []
        for axis, size in enumerate(self.size):
            before, after = self.pads[axis], self.pads[axis + len(self.size)]
            stride, kernel, dilation = self.strides[axis], self.kernel[axis], self.dilations[axis]
            count = shapes.window_dim(size, kernel, stride, before, after, dilation)
            if ceil and stride > 1:
                # One more window may hang over the end if it begins before the trailing padding does.
                over = shapes.window_dim(size, kernel, stride, before, after + stride - 1, dilation)
                count = over.minimum((size + before - 1) // stride + 1)
            elif pool and pool_has_a_window(self._reach(axis), stride, before + after):
                count = count.maximum(1)
            found.append(count)
        return found


def lower_conv(node: OnnxOp, build: Builder) -> Results:
    """Conv over any number of spatial axes."""
    x, w, bias = build.operand(0), build.operand(1), node.operand_at(2)
    build.require_float(x, w, bias)
    dims, weight = build.dims(x), build.dims(w)
    if not all(d.is_static for d in weight):
        raise Unsupported("weights of unknown shape")
    window = Window(node, dims[2:], [d.value for d in weight[2:]])
    result = tensor_type(f32, (dims[0], weight[0], *window.result()))
    return [
        build.add(
            dense.ConvOp(
                x,
                w,
                bias,
                result,
                strides=window.strides,
                pads=window.pads,
                dilations=window.dilations,
                group=node.int_attribute("group", 1),
            )
        )
    ]


def _pool(node: OnnxOp, build: Builder, x: SSAValue, kind: PoolKind, count_include_pad: bool) -> SSAValue:
    build.require_float(x)
    dims, kernel = build.dims(x), node.ints_attribute("kernel_shape") or ()
    window = Window(node, dims[2:], kernel)
    result = window.result(ceil=bool(node.int_attribute("ceil_mode", 0)), pool=True)
    return build.add(
        dense.PoolOp(
            x,
            kind,
            tensor_type(f32, (*dims[:2], *result)),
            kernel=kernel,
            strides=window.strides,
            pads=window.pads,
            dilations=window.dilations,
            count_include_pad=count_include_pad,
        )
    )


def lower_max_pool(node: OnnxOp, build: Builder) -> Results:
    """MaxPool without indices."""
    return only(_pool(node, build, build.operand(0), PoolKind.MAX, False), node)


def lower_average_pool(node: OnnxOp, build: Builder) -> Results:
    """AveragePool."""
    include = bool(node.int_attribute("count_include_pad", 0))
    return [_pool(node, build, build.operand(0), PoolKind.AVG, include)]


def lower_lp_pool(node: OnnxOp, build: Builder) -> Results:
    """LpPool: the p-th root of the window's sum of p-th powers, which is its average times its size."""
    p = float(node.int_attribute("p", 2))
    if node.int_attribute("ceil_mode", 0):
        raise Unsupported("ceil_mode")
    x = build.operand(0)
    build.require_float(x)
    count = float(np.prod(node.ints_attribute("kernel_shape") or ()))
    if p == 2.0:
        powers = build.map([x], lambda s: s * s)
        return [build.map([_pool(node, build, powers, PoolKind.AVG, True)], lambda s: sb.sqrt(s * count))]
    powers = build.map([x], lambda s: sb.power(sb.absolute(s), s.constant(p)))
    average = _pool(node, build, powers, PoolKind.AVG, True)
    return [build.map([average], lambda s: sb.power(s * count, s.constant(1 / p)))]


def _global(kind: ReduceKind) -> Rule:
    def rule(node: OnnxOp, build: Builder) -> Results:
        x = build.operand(0)
        return [build.reduce(x, kind, range(2, len(build.dims(x))))]

    return rule


RULES: dict[str, Rule] = {
    "Conv": lower_conv,
    "MaxPool": lower_max_pool,
    "AveragePool": lower_average_pool,
    "LpPool": lower_lp_pool,
    "GlobalAveragePool": _global(ReduceKind.MEAN),
    "GlobalMaxPool": _global(ReduceKind.MAX),
}
