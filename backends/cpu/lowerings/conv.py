"""`dense.conv`: depthwise directly, everything else as a matrix product over gathered windows.

Where there are few output positions, `conv_few` has filters in the lanes instead.
"""

from __future__ import annotations

import numpy as np
from xdsl.ir import SSAValue

from neuc.backends.cpu.kernels.conv import ConvKernel, filter_block
from neuc.backends.cpu.kernels.conv_window import F32, Window
from neuc.backends.cpu.kernels.depthwise import DepthwiseKernel
from neuc.backends.cpu.kernels.gemm_micro import Tile
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.conv_few import has_few_positions, lower_few_positions
from neuc.backends.cpu.lowerings.matmul import epilogue_of
from neuc.dialects.cpu_launch import LaunchArg
from neuc.dialects.dense import ConvOp
from neuc.dialects.dims import Dim, product
from neuc.dialects.store import dims_of

MAX_RANK = 3
_SET_STRIDE = 4096 // F32
_SKEW = 16
"""Floats between filters whose distance would put them all into the same cache sets."""
_GRAIN = 1024
"""Outputs of a depthwise convolution or a pool a thread takes at least."""


def unsupported_conv(op: ConvOp) -> str | None:
    """Why this convolution has no kernel; None if it has."""
    rank = len(dims_of(op.x)) - 2
    if rank > MAX_RANK:
        return f"convolution over {rank} spatial axes; kernels take up to {MAX_RANK}"
    if not all(dim.is_static for dim in dims_of(op.w)):
        return "convolution by filters of unknown size"
    return None


@lowers(ConvOp, supports=unsupported_conv)
def lower_conv(op: ConvOp, s: SegmentLowering) -> None:
    """One launch; 1x1 convolutions see all positions as one axis."""
    if has_few_positions(op, s):
        lower_few_positions(op, s)
        return
    images, _, *sizes = dims_of(op.x)
    filters, channels, *taps = (dim.value for dim in dims_of(op.w))
    group, rank = op.group.value.data, len(taps)
    out = list(dims_of(op.result)[2:])
    window = Window(tuple(taps), op.strides.get_values(), op.pads.get_values()[:rank], op.dilations.get_values())
    if window.count == 1 and set(window.strides) == {1} and not any(op.pads.get_values()):
        window, sizes, out = Window((1,), (1,), (0,), (1,)), [product(sizes)], [product(out)]
    epilogue = epilogue_of(op.activation, bias="none" if op.bias is None else "scalar")
    result = s.buffer(op.result)
    bias = result if op.bias is None else s.buffer(op.bias)
    if channels == 1 and filters > 0 and group > 1:
        kernel = DepthwiseKernel(window, filters // group, epilogue)
        args: list[LaunchArg] = [s.buffer(op.x), s.buffer(op.w), result, bias, group, *sizes, *out]
        work = images * filters * product(out[:-1])
        s.launch(kernel, args, work=work, grain=row_grain(out[-1]), op=op)
        return
    weights, stride = _filters(op.w, s, channels * window.count)
    kernel = ConvKernel(window, channels, filters // group, stride, epilogue)
    args = [s.buffer(op.x), weights, result, bias, group, *sizes, *out]
    blocks = -(-(filters // group) // filter_block(s.isa))
    work = images * (group * blocks) * product(out).ceildiv(Tile.of(s.isa).columns)
    s.launch(kernel, args, work=work, scratch=kernel.scratch_bytes(s.isa), op=op)


def row_grain(width: Dim) -> int:
    """Rows a thread takes at least."""
    return max(1, _GRAIN // max(1, width.value)) if width.is_static else 1


def _filters(value: SSAValue, s: SegmentLowering, length: int) -> tuple[SSAValue, int]:
    """The buffer with the filters, and the floats from one to the next."""
    array = s.constant(value)
    if array is None or length % _SET_STRIDE:
        return s.buffer(value), length
    rows = array.reshape(array.shape[0], length)
    skewed = np.pad(rows, [(0, 0), (0, _SKEW)])
    return s.weight("filters.skewed", skewed), length + _SKEW
