"""Operators that pick, join or surround elements: Slice, Split, Gather, Concat, Pad, Resize, OneHot."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import f32, i1, i32, i64
from xdsl.ir import SSAValue

from neuc.dialects.dense_attrs import PadMode
from neuc.dialects.dims import Dim
from neuc.dialects.onnx import OnnxOp
from neuc.dialects.store import element_of
from neuc.passes.onnx_lowerings.builder import Builder, Rule, Unsupported
from neuc.passes.scalar_builder import where

Results = Sequence[SSAValue | None]
FAR = 2**31 - 1
"""Slice bounds from here on mean the end; exporters write INT32_MAX and INT64_MAX."""


def lower_slice(node: OnnxOp, build: Builder) -> Results:
    """Slice; starts and ends may be symbolic, steps and axes must be known."""
    x = build.operand(0)
    dims = build.dims(x)
    given = [node.operand_at(i) for i in range(1, 5)]
    if node.opset < 10:
        starts, ends = (tuple(map(Dim.of, node.ints_attribute(n) or ())) for n in ("starts", "ends"))
        axes, steps = node.ints_attribute("axes"), None
    else:
        bounds = [None if v is None else build.integers(v) for v in given[:2]]
        if bounds[0] is None or bounds[1] is None:
            raise Unsupported("bounds computed at run time")
        starts, ends = bounds[0], bounds[1]
        axes = None if given[2] is None else build.static_integers(given[2], "axes")
        steps = None if given[3] is None else build.static_integers(given[3], "steps")
    axes = range(len(starts)) if axes is None else [build.axis(a, len(dims)) for a in axes]
    begin, sizes, strides = [Dim.of(0)] * len(dims), list(dims), [1] * len(dims)
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(starts)):
        begin[axis], sizes[axis] = slice_bounds(dims[axis], start, end, step)
        strides[axis] = step
    return [build.slice(x, begin, sizes, strides)]


def slice_bounds(dim: Dim, start: Dim, end: Dim, step: int) -> tuple[Dim, Dim]:
    """First element and number of elements of numpy's slice `start:end:step` of an axis of size `dim`."""
    if step == 0:
        raise Unsupported("step 0")
    low, high = (Dim.of(0), dim) if step > 0 else (Dim.of(-1), dim - 1)

    def clamp(bound: Dim) -> Dim:
        if bound.is_static:
            if bound.value >= FAR:
                return high
            if bound.value <= -FAR:
                return low
            if bound.value < 0:
                bound = dim + bound
        return bound.maximum(low).minimum(high)

    first, last = clamp(start), clamp(end)
    length = last - first if step > 0 else first - last
    size = length.ceildiv(abs(step))
    # Between clamped bounds only an inverted pair can be negative.
    return first, size if _ordered(dim, start, end, step) else size.maximum(0)


def _ordered(dim: Dim, start: Dim, end: Dim, step: int) -> bool:
    """Whether the first bound certainly does not come after the last one."""
    whole = (start == 0 or (start.is_static and start.value <= -FAR)) if step > 0 else start == -1
    if step > 0:
        return whole or (end.is_static and end.value >= FAR) or end == dim
    return whole or (end.is_static and end.value <= -FAR)


def lower_split(node: OnnxOp, build: Builder) -> Results:
    """Split into the given sizes, or into equal parts, the last one smaller."""
    x = build.operand(0)
    dims = build.dims(x)
    axis = build.axis(node.int_attribute("axis", 0), len(dims))
    given, count = node.operand_at(1), len(node.results)
    if given is not None:
        found = build.integers(given)
        if found is None:
            raise Unsupported("sizes computed at run time")
        parts = list(found)
    elif (sizes := node.ints_attribute("split")) is not None:
        parts = [Dim.of(s) for s in sizes]
    else:
        each = dims[axis].ceildiv(count)
        parts = [*[each] * (count - 1), dims[axis] - each * (count - 1)]
        if not dims[axis].is_static:
            raise Unsupported("equal parts of an axis of unknown size")
    results: list[SSAValue | None] = []
    begin = Dim.of(0)
    for part in parts:
        starts = [begin if i == axis else Dim.of(0) for i in range(len(dims))]
        results.append(build.slice(x, starts, [part if i == axis else d for i, d in enumerate(dims)]))
        begin = begin + part
    return results


def lower_gather(node: OnnxOp, build: Builder) -> Results:
    """Gather; one constant index is a slice."""
    data, indices = build.operand(0), build.operand(1)
    build.require((i32, i64), indices)
    dims = build.dims(data)
    axis = build.axis(node.int_attribute("axis", 0), len(dims))
    index = build.array(indices)
    if index is not None and index.size == 1:
        at = Dim.of(int(index.reshape(-1)[0]))
        first = dims[axis] + at if at.value < 0 else at
        starts = [first if i == axis else Dim.of(0) for i in range(len(dims))]
        part = build.slice(data, starts, [Dim.of(1) if i == axis else d for i, d in enumerate(dims)])
        return [build.reshape(part, [*dims[:axis], *build.dims(indices), *dims[axis + 1 :]])]
    return [build.gather(data, indices, axis)]


def lower_concat(node: OnnxOp, build: Builder) -> Results:
    """Concat."""
    rank = len(build.dims(build.operand(0)))
    return [build.concat(list(node.operands), build.axis(node.int_attribute("axis"), rank))]


def lower_pad(node: OnnxOp, build: Builder) -> Results:
    """Pad; negative pads cut off."""
    x = build.operand(0)
    rank = len(build.dims(x))
    mode, value = node.str_attribute("mode", "constant"), 0.0
    if mode == "wrap":
        raise Unsupported("mode wrap")
    if node.opset < 11:
        given = node.ints_attribute("pads") or ()
        axes, value = range(rank), node.float_attribute("value", 0.0)
    else:
        given = build.static_integers(build.operand(1), "pads")
        axes_input = node.operand_at(3)
        named = range(rank) if axes_input is None else build.static_integers(axes_input, "axes")
        axes = [build.axis(a, rank) for a in named]
        if (fill := node.operand_at(2)) is not None:
            array = build.array(fill)
            if array is None:
                raise Unsupported("a fill value computed at run time")
            value = float(array.reshape(-1)[0])
    if math.isfinite(value) and float(np.float32(value)) != value:
        raise Unsupported(f"fill value {value}, which is no f32")
    pads = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        pads[axis], pads[rank + axis] = given[i], given[len(axes) + i]
    cut = [(max(0, -pads[i]), max(0, -pads[rank + i])) for i in range(rank)]
    if any(a or b for a, b in cut):
        kept = [d - a - b for d, (a, b) in zip(build.dims(x), cut)]
        x = build.slice(x, [a for a, _ in cut], kept)
    return [build.pad(x, [max(0, p) for p in pads], PadMode(mode), value)]


def lower_one_hot(node: OnnxOp, build: Builder) -> Results:
    """OneHot of a known depth: indices compared with 0, 1, 2 …"""
    indices, values = build.operand(0), build.operand(2)
    build.require((f32, i64, i32), indices)
    build.require((f32, i64, i32, i1), values)
    (depth,) = build.static_integers(build.operand(1), "depth")
    dims = build.dims(indices)
    axis = build.axis(node.int_attribute("axis", -1), len(dims) + 1)
    dtype = {f32: np.float32, i64: np.int64, i32: np.int32}[element_of(indices)]  # pyright: ignore
    classes = build.constant(np.arange(depth, dtype=dtype).reshape(-1, *[1] * (len(dims) - axis)), "classes")
    wanted = build.reshape(indices, [*dims[:axis], 1, *dims[axis:]])
    off, on = (build.reshape(build.slice(values, [i], [1]), ()) for i in range(2))
    return [
        build.map(
            [wanted, classes, off, on],
            lambda index, c, low, high: where(where(index < 0, index + depth, index).equals(c), high, low),
        )
    ]


RULES: dict[str, Rule] = {
    "Slice": lower_slice,
    "Split": lower_split,
    "Gather": lower_gather,
    "Concat": lower_concat,
    "Pad": lower_pad,
    "OneHot": lower_one_hot,
}
