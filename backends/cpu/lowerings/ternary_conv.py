"""Lowering of `ternary.conv`: windows as rows, a direct product, dequantization into [N, channels, pixels]."""

from __future__ import annotations

import numpy as np

from neuc.backends.cpu.kernels.direct_i8 import DirectI8Kernel
from neuc.backends.cpu.kernels.im2col import RUN, Im2ColKernel
from neuc.backends.cpu.kernels.ternary_dequantize import DequantizeTransposedKernel
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.ternary_conv_blocks import BlockedConv, launch_blocks
from neuc.backends.cpu.lowerings.ternary_products import (
    epilogue_of,
    launch_product,
    pack,
    scales_weight,
    too_many_columns,
    trits_of,
    untiled,
)
from neuc.dialects.dims import product
from neuc.dialects.store import dims_of
from neuc.dialects.ternary import ConvOp
from neuc.dialects.ternary_weights import defining_weight


def _supported(op: ConvOp) -> str | None:
    if op.code_offset:
        return "an offset of the activations is tile-lut's business, and it leaves grouped convolutions alone"
    if not dims_of(op.q)[1].is_static:
        return "a convolution of a symbolic number of channels"
    return too_many_columns(op.trits)


@lowers(ConvOp, supports=_supported)
def lower_conv(op: ConvOp, s: SegmentLowering) -> None:
    """By blocks of pixels; step by step with scale groups, and for the scalar oracle."""
    weight = defining_weight(op.weight)
    type_, trits, scales = trits_of(weight, s)
    dims, window, group = dims_of(op.q), op.window(), op.group_count
    out_dims = window.output_dims(dims[2:])
    pixels, tokens = product(out_dims), dims[0] * product(out_dims)
    channels, outputs = dims[1].value // group, type_.rows // group
    columns, rows = type_.columns, type_.plane_count * outputs
    unfold = Im2ColKernel(channels, window.kernel, window.strides, window.pads[: len(out_dims)], window.dilations)
    epilogue = epilogue_of(type_, op.bias is not None, op.activation, rows=outputs)
    kind, layout = untiled(s, type_, rows)
    if type_.groups == 1 and not isinstance(layout, DirectI8Kernel):
        conv = BlockedConv(op.q, op.s, weight, op.bias, window, op.activation, op.result, kind, layout, group)
        launch_blocks(s, conv)
        return
    for index in range(group):
        part = slice(index * outputs, (index + 1) * outputs)
        patches, acc = s.temp(tokens * columns), s.temp(tokens * (4 * type_.groups * rows))
        s.launch(
            unfold,
            [s.buffer(op.q), patches, index * channels, dims[1], *dims[2:], *out_dims],
            work=dims[0] * product(out_dims[:-1]) * out_dims[-1].ceildiv(RUN),
        )
        matrix = np.ascontiguousarray(trits[:, part]).reshape(rows, columns)
        launch_product(s, patches, tokens, pack(s, weight.trits.data, matrix, kind, layout), acc)
        s.launch(
            DequantizeTransposedKernel(epilogue),
            [
                acc,
                s.buffer(op.s),
                scales_weight(s, weight.scales.data, scales[:, part]),
                0 if op.bias is None else s.buffer(op.bias),
                s.buffer(op.result),
                pixels,
                index * outputs,
                type_.rows,
            ],
            work=dims[0] * pixels.ceildiv(s.isa.f32_lanes),
        )
