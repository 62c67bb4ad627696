"""Images made larger: ConvTranspose, and Resize (Upsample) to whole multiples or, linear, between known sizes.

Both become operations that every target has: a convolution whose channels are then interleaved, repetition, gathers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from neuc.dialects import dense
from neuc.dialects.dims import Dim
from neuc.dialects.onnx import OnnxOp
from neuc.dialects.store import tensor_type
from neuc.passes.onnx_lowerings.builder import Builder, Rule, Unsupported

Results = Sequence[SSAValue | None]


class _Transposed:
    """The geometry of a ConvTranspose: all its attributes, resolved for each spatial axis."""

    def __init__(self, node: OnnxOp, kernel: Sequence[int]) -> None:
        n = len(kernel)
        self.kernel = tuple(kernel)
        self.strides = node.ints_attribute("strides") or (1,) * n
        self.dilations = node.ints_attribute("dilations") or (1,) * n
        self.extra = node.ints_attribute("output_padding") or (0,) * n
        if node.ints_attribute("output_shape") is not None:
            raise Unsupported("output_shape")
        self.window = tuple((k - 1) * d + 1 for k, d in zip(kernel, self.dilations))
        pads = node.ints_attribute("pads") or (0,) * (2 * n)
        match node.str_attribute("auto_pad", "NOTSET"):
            case "VALID":
                pads = (0,) * (2 * n)
            case "SAME_UPPER" | "SAME_LOWER" as same:
                total = [w + e - s for w, e, s in zip(self.window, self.extra, self.strides)]
                less, more = [t // 2 for t in total], [t - t // 2 for t in total]
                pads = (*less, *more) if same == "SAME_UPPER" else (*more, *less)
        if min(pads, default=0) < 0:
            raise Unsupported("negative pads")
        self.before, self.after = pads[:n], pads[n:]

    def result(self, axis: int, size: Dim) -> Dim:
        """How long an axis becomes."""
        whole = (size - 1) * self.strides[axis] + self.window[axis] + self.extra[axis]
        return whole - self.before[axis] - self.after[axis]

    def reach(self, axis: int) -> int:
        """From how many inputs an output gets something at most."""
        return -(-(self.window[axis] + self.extra[axis]) // self.strides[axis])


def lower_conv_transpose(node: OnnxOp, build: Builder) -> Results:
    """ConvTranspose: one convolution for all outputs between two inputs, which become channels, then interleaved.

    Output ``i·stride + r`` of an axis is the sum over ``t`` of ``x[i - t] · w[r + t·stride]``.
    """
    x, weights, bias = build.operand(0), build.array(build.operand(1)), node.operand_at(2)
    build.require_float(x, bias)
    if weights is None or weights.dtype != np.float32:
        raise Unsupported("filters that are not constants of f32")
    group, (images, _, *sizes) = node.int_attribute("group", 1), build.dims(x)
    shape = _Transposed(node, weights.shape[2:])
    rank, filters = len(sizes), weights.shape[1] * group
    reach = [shape.reach(axis) for axis in range(rank)]
    phases = int(np.prod(shape.strides))
    kernel = build.constant(_phase_filters(weights, shape, group), "phases")
    if bias is not None:
        known = build.array(bias)
        if known is None:
            raise Unsupported("a bias that is not constant")
        bias = build.constant(np.repeat(known, phases), "bias")
    wide = [size + (taps - 1) for size, taps in zip(sizes, reach)]
    y = build.add(
        dense.ConvOp(
            x,
            kernel,
            bias,
            tensor_type(f32, (images, filters * phases, *wide)),
            strides=(1,) * rank,
            pads=tuple(taps - 1 for taps in reach) * 2,
            dilations=(1,) * rank,
            group=group,
        )
    )
    y = build.reshape(y, (images, filters, *shape.strides, *wide))
    y = build.transpose(y, (0, 1, *(a for axis in range(rank) for a in (2 + rank + axis, 2 + axis))))
    y = build.reshape(y, (images, filters, *(size * stride for size, stride in zip(wide, shape.strides))))
    result = [shape.result(axis, size) for axis, size in enumerate(sizes)]
    return [build.slice(y, (0, 0, *shape.before), (images, filters, *result))]


def _phase_filters(w: np.ndarray, shape: _Transposed, group: int) -> np.ndarray:
    """w[C, M / g, taps] as filters [M · phases, C / g, reach] of the convolution in `lower_conv_transpose`."""
    rank = w.ndim - 2
    channels, each = w.shape[0] // group, w.shape[1]
    reach = [shape.reach(axis) for axis in range(rank)]
    padded = np.zeros((*w.shape[:2], *(t * s for t, s in zip(reach, shape.strides))), np.float32)
    padded[(..., *(slice(0, n, d) for n, d in zip(shape.window, shape.dilations)))] = w
    split = padded.reshape(
        group, channels, each, *(n for pair in zip(reach, shape.strides) for n in pair)
    )  # [g, C / g, M / g, (reach, phase) of each axis]
    taps, phases = [3 + 2 * axis for axis in range(rank)], [4 + 2 * axis for axis in range(rank)]
    turned = np.flip(split, tuple(taps)).transpose(0, 2, *phases, 1, *taps)
    return np.ascontiguousarray(turned.reshape(-1, channels, *reach))


def lower_resize(node: OnnxOp, build: Builder) -> Results:
    """Resize and Upsample: nearest to whole multiples of any size, linear between sizes that are known."""
    x = build.operand(0)
    dims, result = build.dims(x), build.result_dims()
    old = node.op_type == "Upsample" or node.opset < 11
    place = "asymmetric" if old else node.str_attribute("coordinate_transformation_mode", "half_pixel")
    mode = node.str_attribute("mode", "nearest")
    if node.int_attribute("antialias", 0) or node.int_attribute("exclude_outside", 0):
        raise Unsupported("antialias or exclude_outside")
    if place == "tf_crop_and_resize" or node.str_attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unsupported("a part of the image, or an aspect ratio to keep")
    scales = _scales(node, build, dims, result, old)
    if mode == "nearest":
        rounding = "floor" if old else node.str_attribute("nearest_mode", "round_prefer_floor")
        return [_repeated(build, x, [_whole(scale, place, rounding) for scale in scales])]
    build.require_float(x)
    if mode != "linear" or place not in _PLACES:
        raise Unsupported(f"mode {mode} with {place}")
    for axis, (size, wanted, scale) in enumerate(zip(dims, result, scales)):
        if size != wanted or scale != 1:
            if not (size.is_static and wanted.is_static):
                raise Unsupported("linear resizing of an axis of unknown size")
            x = _blended(build, x, axis, size.value, wanted.value, scale, place)
    return [x]


def _scales(node: OnnxOp, build: Builder, dims: Sequence[Dim], result: Sequence[Dim], old: bool) -> list[float]:
    """How much longer each axis becomes."""
    axes = node.ints_attribute("axes") or tuple(range(len(dims)))
    at = node.operand_at(1 if old else 2)
    array = None if at is None else build.array(at)
    given = node.attribute("scales")
    if isinstance(given, tuple):
        array = np.array(given, np.float32)
    found = [1.0] * len(dims)
    if array is not None and array.size == len(axes):
        for axis, scale in zip(axes, array.reshape(-1)):
            found[axis] = float(scale)
        return found
    for axis in axes:
        if dims[axis] != result[axis]:
            if not (dims[axis].is_static and result[axis].is_static and dims[axis].value):
                raise Unsupported("sizes that only run time knows")
            found[axis] = result[axis].value / dims[axis].value
    return found


def _whole(scale: float, place: str, rounding: str) -> int:
    """The scale, if output ``i`` is input ``floor(i / scale)``."""
    if place in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"):
        plain = rounding.startswith("round")  # the middle of a pixel is never halfway between two inputs
    else:
        plain = place == "asymmetric" and (rounding == "floor" or (rounding == "round_prefer_floor" and scale <= 2))
    if scale == 1 or (scale > 0 and scale.is_integer() and plain):
        return int(scale)
    raise Unsupported(f"nearest by {scale:g}, {place}, {rounding}")


def _repeated(build: Builder, x: SSAValue, times: Sequence[int]) -> SSAValue:
    """Each element of each axis so many times in a row."""
    dims = build.dims(x)
    parts: list[tuple[Dim, int]] = [(size, count) for size, count in zip(dims, times)]
    apart = [d for size, count in parts for d in ((size, Dim.of(1)) if count > 1 else (size,))]
    repeated = [d for size, count in parts for d in ((size, Dim.of(count)) if count > 1 else (size,))]
    y = build.broadcast(build.reshape(x, apart), repeated)
    return build.reshape(y, [size * count for size, count in parts])


_PLACES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")


def _blended(build: Builder, x: SSAValue, axis: int, size: int, wanted: int, scale: float, place: str) -> SSAValue:
    """One axis interpolated between neighbours."""
    i = np.arange(wanted, dtype=np.float64)
    match place:
        case "asymmetric":
            at = i / scale
        case "align_corners":
            at = i * (size - 1) / max(wanted - 1, 1)
        case "pytorch_half_pixel" if wanted == 1:
            at = np.zeros(1)
        case _:
            at = (i + 0.5) / scale - 0.5
    low = np.floor(at)
    share = (at - low).astype(np.float32)
    first, second = (np.clip(low + step, 0, size - 1).astype(np.int64) for step in (0, 1))
    rest = len(build.dims(x)) - axis - 1
    weight = build.constant(share.reshape(-1, *[1] * rest), f"weights{axis}")
    a, b = (
        build.gather(x, build.constant(index, f"{name}{axis}"), axis)
        for index, name in ((first, "low"), (second, "high"))
    )
    return build.map([a, b, weight], lambda a, b, w: a * (1.0 - w) + b * w)


RULES: dict[str, Rule] = {
    "ConvTranspose": lower_conv_transpose,
    "Resize": lower_resize,
    "Upsample": lower_resize,
}
