"""Shapes of results for operators that slide windows or resample: convolutions, pools, resizing, depth and space."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from neuc.dialects.dims import Dim
from neuc.dialects.onnx import OnnxOp
from neuc.passes.analysis.symbolic_facts import Contradiction, Facts, Shape
from neuc.passes.analysis.symbolic_rules import ONE, Rule, require_equal


def window_size(
    size: Dim | None, window: int, stride: int, pad: int, pad_begin: int, ceil: bool, pool: bool = False
) -> Dim | None:
    """How many windows fit.

    Args:
        size: of the input.
        window: with dilation.
        stride: between windows.
        pad: begin and end together.
        pad_begin: at the begin.
        ceil: count a last window that hangs over the end, if it starts inside.
        pool: of a pool, which has one window where less than a stride is missing, as in onnxruntime.

    Raises:
        Contradiction: not even one fits, or the stride is not positive.
    """
    if stride < 1:
        raise Contradiction(f"stride {stride}")
    if size is None:
        return None
    room = size + (pad - window)
    if pool and not ceil and pool_has_a_window(window, stride, pad):
        return (room // stride + 1).maximum(1)
    if room.is_static and room.value < 0:
        raise Contradiction(f"a window of {window} does not fit into {size} with padding {pad}")
    if not ceil:
        return room // stride + 1
    return (room.ceildiv(stride) + 1).minimum((size + (pad_begin - 1)) // stride + 1)


def pool_has_a_window(window: int, stride: int, pad: int) -> bool:
    """Whether a pool that a single element cannot fill gives a result for it all the same.

    onnxruntime's quotient of a negative room is rounded towards 0: window 2, stride 2, no padding, size 1 is 1 result.
    """
    return 0 < window - pad - 1 < stride


def spatial(op: OnnxOp, sizes: Shape, kernel: tuple[int, ...], *, pool: bool = False) -> Shape:
    """Output sizes of a convolution or pool over `sizes` by its strides, dilations, pads and auto_pad.

    Raises:
        Contradiction: attributes have the wrong length or no window fits.
    """
    rank = len(sizes)
    if len(kernel) != rank:
        raise Contradiction(f"a kernel of rank {len(kernel)} over {rank} spatial dims")
    strides = op.ints_attribute("strides") or (1,) * rank
    dilations = op.ints_attribute("dilations") or (1,) * rank
    pads = op.ints_attribute("pads") or (0,) * (2 * rank)
    if len(strides) != rank or len(dilations) != rank or len(pads) != 2 * rank:
        raise Contradiction("strides, dilations or pads have the wrong length")
    auto = op.attribute("auto_pad") or "NOTSET"
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return tuple(None if d is None else d.ceildiv(s) for d, s in zip(sizes, strides))
    if auto == "VALID":
        pads = (0,) * (2 * rank)
    ceil = op.attribute("ceil_mode") == 1
    return tuple(
        window_size(
            sizes[i], (kernel[i] - 1) * dilations[i] + 1, strides[i], pads[i] + pads[i + rank], pads[i], ceil, pool
        )
        for i in range(rank)
    )


def _weight_index(op: OnnxOp) -> int:
    return 3 if op.op_type == "QLinearConv" else 1


def _kernel(op: OnnxOp, weight: Shape | None) -> tuple[int, ...] | None:
    given = op.ints_attribute("kernel_shape")
    if given is not None:
        return given
    if weight is None:
        return None
    known = [dim.value for dim in weight[2:] if dim is not None and dim.is_static]
    return tuple(known) if len(known) == len(weight) - 2 else None


def _conv(op: OnnxOp, facts: Facts) -> Sequence[Shape | None] | None:
    x, w = facts.shape(op.operands[0]), facts.shape(op.operands[_weight_index(op)])
    if x is None or w is None:
        return None
    if len(x) < 3 or len(w) != len(x):
        raise Contradiction(f"convolution of rank {len(x)} with weights of rank {len(w)}")
    kernel = _kernel(op, w)
    if kernel is None:
        return [(x[0], w[0], *(None,) * (len(x) - 2))]
    if w[1] is not None:
        require_equal(x[1], w[1] * op.int_attribute("group", 1), "input channels of a convolution")
    return [(x[0], w[0], *spatial(op, x[2:], kernel))]


def _conv_transpose(op: OnnxOp, facts: Facts) -> Sequence[Shape | None] | None:
    x, w = facts.shape(op.operands[0]), facts.shape(op.operands[1])
    kernel = _kernel(op, w)
    if x is None or w is None or kernel is None or len(w) < 2:
        return None
    require_equal(x[1], w[0], "input channels of a transposed convolution")
    rank = len(x) - 2
    channels = None if w[1] is None else w[1] * op.int_attribute("group", 1)
    given = op.ints_attribute("output_shape")
    if given is not None:
        return [(x[0], channels, *(Dim.of(d) for d in given[-rank:]))]
    strides = op.ints_attribute("strides") or (1,) * rank
    dilations = op.ints_attribute("dilations") or (1,) * rank
    extra = op.ints_attribute("output_padding") or (0,) * rank
    pads = op.ints_attribute("pads") or (0,) * (2 * rank)
    same = str(op.attribute("auto_pad") or "").startswith("SAME")
    sizes: list[Dim | None] = []
    for i in range(rank):
        d = x[2 + i]
        if d is None:
            sizes.append(None)
        elif same:
            sizes.append(d * strides[i])
        else:
            window = (kernel[i] - 1) * dilations[i] + 1
            sizes.append((d - 1) * strides[i] + extra[i] + window - pads[i] - pads[i + rank])
    return [(x[0], channels, *sizes)]


def _pool(op: OnnxOp, facts: Facts) -> Sequence[Shape | None] | None:
    x, kernel = facts.shape(op.operands[0]), op.ints_attribute("kernel_shape")
    if x is None or kernel is None:
        return None
    result = (*x[:2], *spatial(op, x[2:], kernel, pool=True))
    return [result] * len(op.results)


def _global_pool(op: OnnxOp, facts: Facts) -> Sequence[Shape | None] | None:
    x = facts.shape(op.operands[0])
    return None if x is None else [(*x[:2], *(ONE,) * (len(x) - 2))]


def _resize(op: OnnxOp, facts: Facts) -> Sequence[Shape | None] | None:
    x = facts.shape(op.operands[0])
    if x is None:
        return None
    rank = len(x)
    if op.attribute("keep_aspect_ratio_policy") not in (None, "stretch"):
        return [(None,) * rank]
    axes = op.ints_attribute("axes") or tuple(range(rank))
    old = op.op_type == "Upsample" or op.opset < 11
    sizes = None if old else facts.dims(op.operand_at(3))
    if sizes and len(sizes) == len(axes):
        result = list(x)
        for axis, size in zip(axes, sizes):
            result[axis] = size
        return [tuple(result)]
    if op.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        return [(None,) * rank]
    scales = facts.array(op.operand_at(1 if old else 2))
    given = op.attribute("scales")
    if isinstance(given, tuple):
        scales = np.array(given, np.float32)
    if scales is None or scales.size != len(axes):
        return [(None,) * rank]
    result = list(x)
    for axis, scale in zip(axes, scales.reshape(-1)):
        result[axis] = _scaled(x[axis], float(scale))
    return [tuple(result)]


def _scaled(size: Dim | None, scale: float) -> Dim | None:
    """floor(size * scale); symbolic sizes need a scale that is exactly a small fraction."""
    if size is None or not np.isfinite(scale) or scale <= 0:
        return None
    if size.is_static:
        return Dim.of(int(np.floor(size.value * scale)))
    exact = Fraction(scale)
    return size * exact.numerator // exact.denominator if exact.denominator <= 64 else None


def _depth_space(op: OnnxOp, facts: Facts) -> Sequence[Shape | None] | None:
    x, block = facts.shape(op.operands[0]), op.int_attribute("blocksize")
    if x is None or len(x) != 4 or block < 1:
        return None
    n, c, h, w = x
    if op.op_type == "DepthToSpace":
        return [(n, _div(c, block * block), _mul(h, block), _mul(w, block))]
    return [(n, _mul(c, block * block), _div(h, block), _div(w, block))]


def _mul(dim: Dim | None, by: int) -> Dim | None:
    return None if dim is None else dim * by


def _div(dim: Dim | None, by: int) -> Dim | None:
    return None if dim is None else dim // by


WINDOW_RULES: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv"), _conv),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _global_pool),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _depth_space),
    "ConvTranspose": _conv_transpose,
}
