"""Launches of ternary convolutions that work on a block of pixels at a time: what their lowerings share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.ir import SSAValue

from neuc.backends.cpu.kernels.channels_last import RUN, ChannelsLastKernel
from neuc.backends.cpu.kernels.ternary_conv import TernaryConvKernel
from neuc.backends.cpu.lowering import SegmentLowering
from neuc.backends.cpu.lowerings.ternary_products import epilogue_of, pack, scales_weight, trits_of
from neuc.backends.cpu.packing.direct import DirectLayout
from neuc.backends.cpu.packing.lut import TABLE_BYTES, LutLayout
from neuc.backends.cpu.self_check import add_conv_check
from neuc.dialects.dense_attrs import ActivationAttr
from neuc.dialects.dims import product
from neuc.dialects.store import dims_of
from neuc.dialects.ternary import WeightOp
from neuc.dialects.ternary_types import Window

_L1_TABLES = 32 * 1024
_L2_TABLES = 256 * 1024
_FEW_PIXELS = 16


@dataclass(frozen=True)
class BlockedConv:
    """One convolution.

    Attributes:
        q: int8 [N, C, …], of a known number of channels.
        s: f32 [N].
        weight: of one scale a row.
        bias: f32 [outputs].
        window: the window.
        activation: what follows.
        result: f32 [N, outputs, …].
        kind: encoding of the weights.
        layout: of the packed rows of one channel group.
        groups: channel groups.
    """

    q: SSAValue
    s: SSAValue
    weight: WeightOp
    bias: SSAValue | None
    window: Window
    activation: ActivationAttr
    result: SSAValue
    kind: str
    layout: DirectLayout | LutLayout
    groups: int = 1


def launch_blocks(s: SegmentLowering, conv: BlockedConv) -> None:
    """One launch that lays the images out, channels last and padded, and one for all that follows."""
    type_, trits, scales = trits_of(conv.weight, s)
    dims, window, rank, groups = dims_of(conv.q), conv.window, len(conv.window.kernel), conv.groups
    padded = [dim + window.pads[i] + window.pads[rank + i] for i, dim in enumerate(dims[2:])]
    image = s.temp(product([dims[0], *padded, dims[1]]))
    s.launch(
        ChannelsLastKernel(window.pads[:rank]),
        [s.buffer(conv.q), image, dims[1], *dims[2:], *padded],
        work=dims[0] * product(padded[:-1]) * padded[-1].ceildiv(RUN),
    )
    planes, channels, outputs = type_.plane_count, dims[1].value // groups, type_.rows // groups
    # Group by group; and of each row the window's positions, and for each the channels: the order of the bytes.
    matrices = trits.reshape(planes, groups, outputs, channels, type_.columns // channels).transpose(1, 0, 2, 4, 3)
    matrices = np.ascontiguousarray(matrices).reshape(groups, planes * outputs, type_.columns)
    packed = pack(s, f"{conv.weight.trits.data}.by_position", matrices, conv.kind, conv.layout)
    by_group = scales.reshape(planes, groups, outputs, type_.groups).swapaxes(0, 1)
    tokens, together = _blocks(conv.layout)
    out_dims = window.output_dims(dims[2:])
    pixels = product(out_dims)
    kernel = TernaryConvKernel(
        conv.layout,
        epilogue_of(type_, conv.bias is not None, conv.activation, rows=outputs),
        groups,
        channels,
        window.kernel,
        window.strides,
        window.dilations,
        tokens=tokens,
        together=together,
        whole=not (pixels.is_static and pixels.value < _FEW_PIXELS),
    )
    if not s.has_kernel(kernel):
        add_conv_check(s, kernel, (packed.weights, packed.correction), matrices[0])
    s.launch(
        kernel,
        [
            image,
            packed.weights,
            s.buffer(conv.result),
            s.buffer(conv.s),
            0 if packed.correction is None else packed.correction,
            scales_weight(s, conv.weight.scales.data, by_group),
            0 if conv.bias is None else s.buffer(conv.bias),
            *padded,
            *out_dims,
        ],
        work=dims[0] * pixels.ceildiv(tokens) * groups,
        scratch=kernel.scratch_bytes(s.isa),
    )


def _blocks(layout: DirectLayout | LutLayout) -> tuple[int, int]:
    """Pixels per work unit, and how many of them at a time.

    Few if their tables then stay in the first-level cache; else the more, the less often weights are read again.
    """
    if isinstance(layout, DirectLayout):
        return 32, 32
    size = layout.table_groups * TABLE_BYTES
    for together in (8, 4):
        if together * size <= _L1_TABLES:
            return 32, together
    return (32, 32) if 32 * size <= _L2_TABLES else (16, 16)
