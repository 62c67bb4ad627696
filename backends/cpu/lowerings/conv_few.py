"""Convolutions with few output positions: their windows as rows of a matrix product with all filters.

The kernel in `kernels/conv` has positions in its vectors' lanes, and a whole panel of them whatever there is; of four
positions it computes with seven eighths of its lanes for nothing. Here filters are in the lanes, and windows of all
images are rows.
"""

from __future__ import annotations

import numpy as np
from xdsl.ir import SSAValue

from neuc.backends.cpu.kernels.conv_window import F32, Window
from neuc.backends.cpu.kernels.copy_pad import PadKernel
from neuc.backends.cpu.kernels.gemm import GemmKernel, pack_panels, row_block
from neuc.backends.cpu.kernels.gemm_micro import Tile
from neuc.backends.cpu.lowering import SegmentLowering
from neuc.backends.cpu.lowerings.iteration import contiguous_strides
from neuc.backends.cpu.lowerings.matmul import epilogue_of
from neuc.backends.cpu.lowerings.movement import copy_strided
from neuc.dialects.cpu_launch import LaunchArg
from neuc.dialects.dense import ConvOp
from neuc.dialects.dims import Dim, product
from neuc.dialects.store import dims_of

_GRAIN = 4096
"""Elements of a padded image a thread takes at least."""


def has_few_positions(op: ConvOp, s: SegmentLowering) -> bool:
    """Whether positions would fill half a panel at most, and all that the product needs is known."""
    array = s.constant(op.w)
    if op.group.value.data != 1 or array is None or 0 in array.shape:
        return False
    sizes = [*dims_of(op.x)[2:], *dims_of(op.result)[2:]]
    if not all(dim.is_static for dim in sizes):
        return False
    return 0 < 2 * product(dims_of(op.result)[2:]).value <= Tile.of(s.isa).columns


def lower_few_positions(op: ConvOp, s: SegmentLowering) -> None:
    """Padding, windows, the product, and channels put before positions; launches that change nothing are left out."""
    images, out = dims_of(op.x)[0], product(dims_of(op.result)[2:])
    filters = dims_of(op.w)[0]
    array = s.constant(op.w)
    assert array is not None
    matrix = array.reshape(array.shape[0], -1)
    k, rows, columns = Dim.of(matrix.shape[1]), images * out, Tile.of(s.isa).columns
    windows = _windows(op, s, k)
    result = s.buffer(op.result)
    product_ = result if out == 1 else s.temp(rows * filters * F32)
    kernel = GemmKernel(
        n=filters.value,
        k=k.value,
        lda=k.value,
        epilogue=epilogue_of(op.activation, bias="none" if op.bias is None else "vector"),
    )
    panels = s.weight(f"filters.panels{columns}", pack_panels(np.swapaxes(matrix, 0, 1), columns))
    bias = result if op.bias is None else s.buffer(op.bias)
    args: list[LaunchArg] = [windows, panels, product_, bias, rows, filters, k, k, 1.0, 0]
    work = rows.ceildiv(row_block(s.isa, filters.value)) * filters.ceildiv(columns)
    s.launch(kernel, args, work=work, scratch=kernel.scratch_bytes(s.isa), op=op)
    if out != 1:
        dims = [images, filters, out]
        reading = [out * filters, Dim.of(1), filters]
        copy_strided(s, product_, result, F32, dims, reading, contiguous_strides(dims), op=op)


def _windows(op: ConvOp, s: SegmentLowering, k: Dim) -> SSAValue:
    """Rows [images · positions, channels · taps]; x itself where a window is all of an image."""
    images, channels, *sizes = dims_of(op.x)
    taps, out = [dim.value for dim in dims_of(op.w)[2:]], list(dims_of(op.result)[2:])
    rank, pads = len(taps), op.pads.get_values()
    window = Window(tuple(taps), op.strides.get_values(), pads[:rank], op.dilations.get_values())
    source = s.buffer(op.x)
    if any(pads):
        padded = [size + (pads[axis] + pads[axis + rank]) for axis, size in enumerate(sizes)]
        source = s.temp(images * channels * product(padded) * F32)
        dims, old, before = [images * channels, *padded], [images * channels, *sizes], [0, *pads[:rank]]
        args = [s.buffer(op.x), source, 0, *dims, *old, *before]
        s.launch(PadKernel(F32, rank + 1, "constant"), args, work=product(dims), grain=_GRAIN, op=op)
        sizes = padded
    elif window.taps == tuple(size.value for size in sizes):
        return source
    windows = s.temp(images * product(out) * k * F32)
    image, plane, *steps = contiguous_strides([images, channels, *sizes])
    reading = [step * stride for step, stride in zip(steps, window.strides)]
    reaching = [step * dilation for step, dilation in zip(steps, window.dilations)]
    dims = [images, *out, channels, *(Dim.of(count) for count in taps)]
    copy_strided(s, source, windows, F32, dims, [image, *reading, plane, *reaching], contiguous_strides(dims), op=op)
    return windows
