"""Float convolutions as products in bf16: windows, side by side, times a matrix of weights.

Windows that no DMA cuts become dense operations on tensors of any number of spatial axes, so that open sizes, dilations
and strides are no special cases. Who cuts which is decided in `window_choice.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from neuc.backends.npu.tiling import merged
from neuc.dialects.dense import ConvOp
from neuc.dialects.dense_attrs import NO_ACTIVATION
from neuc.dialects.dense_movement import ConcatOp, PadOp, ReshapeOp, SliceOp, TransposeOp
from neuc.dialects.dims import Dim, product
from neuc.dialects.npu_products import MatmulOp
from neuc.dialects.npu_windows import WindowsOp
from neuc.dialects.store import ConstantOp, constant_value, dims_of, element_of, make_constant, tensor_type
from neuc.dialects.ternary_types import Window
from neuc.dialects.weight_store import WeightStore
from neuc.passes.expand_activations import SplitFused
from neuc.passes.map_building import map_of


def conv_obstacle(op: ConvOp) -> str:
    """Why a float convolution cannot be a product of bf16; "" if it can."""
    if element_of(op.x) != f32:
        return "operands are no float32"
    if not isinstance(op.w.owner, ConstantOp):
        return "weights of a convolution are activations"
    if any(not dim.is_static for dim in dims_of(op.x)[1:2]):
        return "its channels are an open size"
    return ""


@dataclass
class ConvToBf16(RewritePattern):
    """`dense.conv` to `npu.windows`, `npu.matmul`, and its bias and activation behind it.

    A window's columns are ordered (place in the kernel, channel). Groups are merged up to 64 columns, their weights
    along a diagonal, as those of integer products are.
    """

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: ConvOp, rewriter: PatternRewriter) -> None:
        """Rewrite one convolution."""
        if conv_obstacle(op):
            return
        if op.activation != NO_ACTIVATION:
            SplitFused().match_and_rewrite(op, rewriter)
        weight = constant_value(op.w, self.store)
        assert weight is not None
        groups = op.group.value.data
        together = merged(groups, len(weight) // groups)
        rows = _matrices(weight, groups, together)
        name = op.w.owner.entry.data if isinstance(op.w.owner, ConstantOp) and op.w.owner.entry is not None else "conv"
        b = rewriter.insert(make_constant(f"{name}.rows", rows if len(rows) > 1 else rows[0], self.store))
        window = Window(weight.shape[2:], *(tuple(a.get_values()) for a in (op.strides, op.pads, op.dilations)))
        windows = rewriter.insert(WindowsOp(op.x, window, len(rows)))
        multiplied = MatmulOp(windows.result, b.result, transpose_b=True, groups=len(rows) if len(rows) > 1 else 0)
        y = rewriter.insert(multiplied).result
        if op.bias is not None:
            y = rewriter.insert(map_of([y, op.bias], lambda y, bias: y + bias, dims_of(y))).result
        batch, pixels, channels = dims_of(y)
        planar = rewriter.insert(TransposeOp(y, (0, 2, 1), tensor_type(f32, [batch, channels, pixels])))
        rewriter.replace(op, ReshapeOp(planar.result, op.result.type))


def _matrices(weight: np.ndarray, groups: int, together: int) -> np.ndarray:
    """Weights [M, C / groups, …] as [groups / together, rows, columns (place, channel)], groups along the diagonals."""
    outputs, channels = len(weight) // groups, weight.shape[1]
    places = int(np.prod(weight.shape[2:]))
    own = weight.reshape(groups // together, together, outputs, channels, places).transpose(1, 0, 2, 4, 3)
    made = np.zeros((groups // together, together, outputs, places, together, channels), np.float32)
    inside = np.arange(together)
    made[:, inside, :, :, inside] = own
    return made.reshape(groups // together, together * outputs, places * together * channels)


def expand_windows(op: WindowsOp) -> None:
    """Write windows as dense operations, for a CPU."""
    rewriter = PatternRewriter(op)
    rank, groups = len(dims_of(op.x)) - 2, op.group_count
    strides, pads, dilations = (tuple(a.get_values()) for a in (op.strides, op.pads, op.dilations))
    batch, channels = dims_of(op.x)[:2]
    kernel = tuple(op.kernel.get_values())
    out = op.window().output_dims(dims_of(op.x)[2:])
    pixels, places = product(out), math.prod(kernel)

    def add(made: Operation) -> SSAValue:
        made.location = op.location
        return rewriter.insert(made).results[0]

    x = op.x
    if any(pads):
        sizes = [d + pads[i] + pads[rank + i] for i, d in enumerate(dims_of(x)[2:])]
        all_pads = (0, 0, *pads[:rank], 0, 0, *pads[rank:])
        x = add(PadOp(x, all_pads, tensor_type(f32, [batch, channels, *sizes])))
    parts: list[SSAValue] = []
    whole = places == 1 and all(stride == 1 for stride in strides)
    for place in np.ndindex(*kernel):
        starts = (0, 0, *(i * d for i, d in zip(place, dilations)))
        part = x if whole else add(SliceOp(x, starts, (1, 1, *strides), tensor_type(f32, [batch, channels, *out])))
        parts.append(add(ReshapeOp(part, tensor_type(f32, [batch, channels, pixels]))))
    columns = channels * places
    planes = parts[0] if places == 1 else add(ConcatOp(parts, 1, tensor_type(f32, [batch, columns, pixels])))
    if groups == 1:
        turned = TransposeOp(planes, (0, 2, 1), tensor_type(f32, [batch, pixels, columns]))
        turned.location = op.location
        rewriter.replace(op, turned)
        return
    sizes = [batch, Dim.of(places), Dim.of(groups), channels // groups, pixels]
    split = add(ReshapeOp(planes, tensor_type(f32, sizes)))
    perm: Sequence[int] = (0, 4, 2, 1, 3)
    turned = add(TransposeOp(split, perm, tensor_type(f32, [sizes[i] for i in perm])))
    side_by_side = ReshapeOp(turned, op.result.type)
    side_by_side.location = op.location
    rewriter.replace(op, side_by_side)
