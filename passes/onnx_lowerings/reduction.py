"""Reductions over axes: the Reduce family, ArgMax and ArgMin."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from xdsl.dialects.builtin import i64
from xdsl.ir import SSAValue

from neuc.dialects import dense
from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dense_attrs import ReduceKind
from neuc.dialects.onnx import OnnxOp
from neuc.dialects.store import tensor_type
from neuc.passes import scalar_builder as sb
from neuc.passes.onnx_lowerings.builder import Builder, Rule
from neuc.passes.scalar_builder import Scalar

Results = Sequence[SSAValue | None]


def reduced_axes(node: OnnxOp, build: Builder, rank: int) -> tuple[int, ...] | None:
    """The axes a Reduce node reduces, from its attribute or input; None if it has none and so changes no axis."""
    given = node.operand_at(1)
    axes = build.static_integers(given, "axes") if given is not None else node.ints_attribute("axes") or ()
    if not axes:
        return None if node.int_attribute("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted({build.axis(a, rank) for a in axes}))


def _reduce(
    kind: ReduceKind,
    before: Callable[[Scalar], Scalar] | None = None,
    after: Callable[[Scalar], Scalar] | None = None,
) -> Rule:
    """A rule for: map by `before`, reduce, map by `after`."""

    def rule(node: OnnxOp, build: Builder) -> Results:
        x = build.operand(0)
        build.require_float(x)
        axes = reduced_axes(node, build, len(build.dims(x)))
        keepdims = bool(node.int_attribute("keepdims", 1))
        y = build.map([x], before) if before is not None else x
        y = y if axes is None else build.reduce(y, kind, axes, keepdims)
        return [build.map([y], after) if after is not None else y]

    return rule


def lower_log_sum_exp(node: OnnxOp, build: Builder) -> Results:
    """ReduceLogSumExp, with the largest element taken out so that nothing overflows."""
    x = build.operand(0)
    build.require_float(x)
    dims = build.dims(x)
    axes = reduced_axes(node, build, len(dims))
    if axes is None:
        return [build.map([x], lambda s: sb.log(sb.exp(s)))]
    largest = build.reduce(x, ReduceKind.MAX, axes)
    finite = build.map([largest], lambda s: sb.where(sb.absolute(s).equals(math.inf), 0.0, s))
    total = build.reduce(build.map([x, finite], lambda s, m: sb.exp(s - m)), ReduceKind.SUM, axes)
    y = build.map([total, finite], lambda s, m: sb.log(s) + m)
    return [build.reshape(y, shapes.reduced(dims, axes, bool(node.int_attribute("keepdims", 1))))]


def _arg(kind: ReduceKind) -> Rule:
    def rule(node: OnnxOp, build: Builder) -> Results:
        x = build.operand(0)
        build.require_float(x)
        dims = build.dims(x)
        axis = build.axis(node.int_attribute("axis", 0), len(dims))
        keepdims = bool(node.int_attribute("keepdims", 1))
        last = bool(node.int_attribute("select_last_index", 0))
        result = tensor_type(i64, shapes.reduced(dims, [axis], keepdims))
        return [build.add(dense.ArgReduceOp(x, kind, axis, keepdims, last, result))]

    return rule


RULES: dict[str, Rule] = {
    "ReduceSum": _reduce(ReduceKind.SUM),
    "ReduceMean": _reduce(ReduceKind.MEAN),
    "ReduceMax": _reduce(ReduceKind.MAX),
    "ReduceMin": _reduce(ReduceKind.MIN),
    "ReduceProd": _reduce(ReduceKind.PROD),
    "ReduceL1": _reduce(ReduceKind.SUM, before=sb.absolute),
    "ReduceL2": _reduce(ReduceKind.SUM, before=lambda x: x * x, after=sb.sqrt),
    "ReduceSumSquare": _reduce(ReduceKind.SUM, before=lambda x: x * x),
    "ReduceLogSum": _reduce(ReduceKind.SUM, after=sb.log),
    "ReduceLogSumExp": lower_log_sum_exp,
    "ArgMax": _arg(ReduceKind.MAX),
    "ArgMin": _arg(ReduceKind.MIN),
}
