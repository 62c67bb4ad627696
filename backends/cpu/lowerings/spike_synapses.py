"""Synapses of the `spike` dialect, one step at a time: rows of weights where inputs are not zero, and windows.

All steps in one go are `spike_layers.py`'s business.
"""

from __future__ import annotations

import numpy as np
from xdsl.dialects.builtin import f32, i8, i32
from xdsl.ir import SSAValue

from neuc.backends.cpu.kernels.im2col import RUN, Im2ColKernel
from neuc.backends.cpu.kernels.spike_rows import SpikeRowsKernel
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.spike_maps import as_type, casted, converted, mapped, numbers, value_of
from neuc.backends.cpu.lowerings.ternary_products import (
    launch_dequantize,
    launch_product,
    pack_weight,
    rows_of,
    too_many_columns,
    type_of,
    untiled,
)
from neuc.dialects import dense, spike
from neuc.dialects.dense_attrs import NO_ACTIVATION, PoolKind
from neuc.dialects.dims import Dim, DimLike, product
from neuc.dialects.store import ConstantOp, dims_of, element_of, make_constant, tensor_type
from neuc.dialects.ternary import WeightOp
from neuc.dialects.ternary_weights import defining_weight, make_weight, weight_arrays

_MOST_AXES = 3


def launch_rows(
    s: SegmentLowering,
    x: SSAValue,
    kind: str,
    rows: DimLike,
    weight: np.ndarray,
    bias: SSAValue | None,
    y: SSAValue,
    *,
    times: DimLike = 1,
) -> None:
    """y[rows, N] = x[rows, K]·Wᵀ + bias·times from the inputs that are not zero; x, bias and y are buffers."""
    n, k = weight.shape
    kernel = SpikeRowsKernel(k, n, kind, "i8" if weight.dtype == np.int8 else "f32", bias is not None)
    packed = s.weight("spike.rows", kernel.slabs(s.isa).pack(weight))
    s.launch(
        kernel,
        [x, packed, y if bias is None else bias, y, times, rows],
        work=kernel.work(rows, s.isa),
        scratch=kernel.scratch_bytes(s.isa),
    )


def kind_of(value: SSAValue) -> str:
    """The kernels' name of what a value holds."""
    element = element_of(value)
    return "f32" if element == f32 else "i32" if element == i32 else "i8"


def weight_is_known(op: spike.SynapseOp) -> str | None:
    """Why the weights are none that can be packed ahead; None if they are."""
    if op.trits is not None:
        return too_many_columns(op.trits)
    if not isinstance(op.weight.owner, ConstantOp):
        return f"{op.name} with weights that are not constant has no CPU kernel"
    return None


def launch_trits(
    weight: WeightOp, s: SegmentLowering, x: SSAValue, rows: Dim, bias: SSAValue | None, y: SSAValue
) -> None:
    """y[rows, N] = x[rows, K]·Wᵀ + bias for a ternary weight, its integer sums exact; x, bias and y are buffers."""
    type_ = type_of(weight)
    kind, layout = untiled(s, type_, rows_of(type_))
    acc = s.temp(rows * (4 * type_.groups * rows_of(type_)))
    launch_product(s, x, rows, pack_weight(s, weight, kind, layout), acc)
    one = s.weight("spike.one", np.ones(1, np.float32))
    launch_dequantize(s, acc, one, rows, rows.maximum(1), weight, bias, NO_ACTIVATION, y)


@lowers(spike.LinearOp, supports=weight_is_known)
def lower_linear(op: spike.LinearOp, s: SegmentLowering) -> None:
    """One launch, and before it one that makes i32 floats where weights are."""
    rows, bias = product(dims_of(op.x)[:-1]), None if op.bias is None else s.buffer(op.bias)
    weight = s.constant(op.weight) if op.trits is None else None
    if weight is None:
        launch_trits(defining_weight(op.weight), s, s.buffer(op.x), rows, bias, s.buffer(op.current))
        return
    x = numbers(op.x, s)
    if element_of(x) == i32 and weight.dtype != np.int8:
        x = converted(x, f32, s)
    launch_rows(s, s.buffer(x), kind_of(x), rows, weight, bias, s.buffer(op.current))


def _unsupported_conv(op: spike.ConvOp) -> str | None:
    if (reason := weight_is_known(op)) is not None:
        return reason
    if len(dims_of(op.x)) - 2 > _MOST_AXES:
        return f"{op.name} over {len(dims_of(op.x)) - 2} spatial axes; kernels take up to {_MOST_AXES}"
    if op.trits is None and element_of(op.weight) == i8 and element_of(op.x) == i32:
        return f"{op.name} of i32 with weights in i8 has no CPU kernel"
    return None


@lowers(spike.ConvOp, supports=_unsupported_conv)
def lower_conv(op: spike.ConvOp, s: SegmentLowering) -> None:
    """In f32 as `dense.conv`; in integers the windows as rows, their products, and a transpose."""
    if op.trits is not None or element_of(op.weight) == i8:
        _lower_integer_conv(op, s)
        return
    made = dense.ConvOp(
        converted(op.x, f32, s),
        op.weight,
        op.bias,
        op.current.type,
        strides=op.strides.get_values(),
        pads=op.pads.get_values(),
        dilations=op.dilations.get_values(),
        group=op.group.value.data,
    )
    s.alias(made.result, s.buffer(op.current))
    s.lower(made)


def _lower_integer_conv(op: spike.ConvOp, s: SegmentLowering) -> None:
    images, channels, *sizes = dims_of(op.x)
    filters, positions = dims_of(op.current)[1].value, dims_of(op.current)[2:]
    weight = s.constant(op.weight) if op.trits is None else None
    kernel = list(op.kernel.get_values()) if op.kernel is not None else [dim.value for dim in dims_of(op.weight)[2:]]
    group, rank = op.group.value.data, len(sizes)
    per_group = channels.value // group
    k, own = per_group * int(np.prod(kernel)), filters // group
    windows = Im2ColKernel(
        channels=per_group,
        kernel=tuple(kernel),
        strides=tuple(op.strides.get_values()),
        pads=tuple(op.pads.get_values()[:rank]),
        dilations=tuple(op.dilations.get_values()),
    )
    rows = images * product(positions)
    work = images * product(positions[:-1]) * positions[-1].ceildiv(RUN)
    parts: list[SSAValue] = []
    for g in range(group):
        patches, sums = s.temp(rows * k), s.temp(rows * (4 * own))
        s.launch(windows, [s.buffer(op.x), patches, g * per_group, channels, *sizes, *positions], work=work)
        if weight is None:
            launch_trits(_rows_of_group(op, g, s), s, patches, rows, None, sums)
        else:
            launch_rows(s, patches, "i8", rows, weight[g * own : (g + 1) * own].reshape(-1, k), None, sums)
        shape = [images, product(positions), Dim.of(own)]
        parts.append(value_of(sums, tensor_type(element_of(op.current), shape), s))
    _channels_first(op, s, parts, own)


def _rows_of_group(op: spike.ConvOp, g: int, s: SegmentLowering) -> WeightOp:
    """The ternary weight of one group's output channels."""
    weight, group = defining_weight(op.weight), op.group.value.data
    if group == 1:
        return weight
    type_, (trits, scales) = type_of(weight), weight_arrays(weight, s.store)
    own = type_.rows // group
    part = (slice(None), slice(g * own, (g + 1) * own))
    name = f"{weight.trits.data}.group{g}"
    parts = np.ascontiguousarray(trits[part]), np.ascontiguousarray(scales[part])
    return make_weight(name, *parts, s.store, scale=type_.scale, levels=type_.level_set)


def _channels_first(op: spike.ConvOp, s: SegmentLowering, parts: list[SSAValue], filters: int) -> None:
    """Sums [N, P, M/group] of each group as one [N, M, …], with the bias."""
    held, (images, every, *positions) = element_of(op.current), dims_of(op.current)
    turned: list[SSAValue] = []
    for part in parts:
        turn = dense.TransposeOp(part, [0, 2, 1], tensor_type(held, [images, filters, product(positions)]))
        s.lower(turn)
        turned.append(turn.result)
    whole = turned[0]
    if len(turned) > 1:
        join = dense.ConcatOp(turned, 1, tensor_type(held, [images, every, product(positions)]))
        s.lower(join)
        whole = join.result
    shaped = as_type(whole, held, dims_of(op.current), s)
    if op.bias is not None:
        bias = as_type(op.bias, held, [every, *[Dim.of(1)] * len(positions)], s)
        shaped = mapped(s, [shaped, bias], held, dims_of(op.current), lambda x: x[0] + x[1])
    s.alias(op.current, shaped)


@lowers(spike.ScaleOp, supports=weight_is_known)
def lower_scale(op: spike.ScaleOp, s: SegmentLowering) -> None:
    """One element-wise launch."""
    held = element_of(op.current)
    inputs = [op.x, op.weight, *([] if op.bias is None else [op.bias])]
    made = mapped(
        s,
        inputs,
        held,
        dims_of(op.current),
        lambda x: sum(x[2:], casted(x[0], held) * casted(x[1], held)),
    )
    s.alias(op.current, made)


def _unsupported_sum(op: spike.SumPoolOp) -> str | None:
    if element_of(op.x) == i32:
        return f"{op.name} of i32 has no CPU kernel; of events and f32 it has"
    if not dims_of(op.x)[1].is_static:
        return f"{op.name} over a number of channels that only run time knows"
    if len(dims_of(op.x)) - 2 > _MOST_AXES:
        return f"{op.name} over {len(dims_of(op.x)) - 2} spatial axes; kernels take up to {_MOST_AXES}"
    return None


@lowers(spike.SumPoolOp, supports=_unsupported_sum)
def lower_sum_pool(op: spike.SumPoolOp, s: SegmentLowering) -> None:
    """A depthwise convolution by ones; sums of events and int8 are exact in f32."""
    channels, kernel = dims_of(op.x)[1].value, op.kernel.get_values()
    ones = make_constant("spike.ones", np.ones((channels, 1, *kernel), np.float32), s.store)
    made = dense.ConvOp(
        converted(op.x, f32, s),
        ones.result,
        None,
        tensor_type(f32, dims_of(op.current)),
        strides=op.strides.get_values(),
        pads=op.pads.get_values(),
        dilations=[1] * len(kernel),
        group=channels,
    )
    s.lower(made)
    s.alias(op.current, converted(made.result, element_of(op.current), s))


def _unsupported_max(op: spike.MaxPoolOp) -> str | None:
    return f"{op.name} of i32 has no CPU kernel; of f32 it has" if element_of(op.x) == i32 else None


@lowers(spike.MaxPoolOp, supports=_unsupported_max)
def lower_max_pool(op: spike.MaxPoolOp, s: SegmentLowering) -> None:
    """The new total, two poolings and their difference."""
    after = mapped(s, [op.total, op.x], f32, dims_of(op.total), lambda x: x[0] + x[1])
    s.alias(op.next_total, after)
    pooled: list[SSAValue] = []
    for total in (after, op.total):
        made = dense.PoolOp(
            total,
            PoolKind.MAX,
            op.current.type,
            kernel=op.kernel.get_values(),
            strides=op.strides.get_values(),
            pads=op.pads.get_values(),
            dilations=[1] * len(op.kernel.get_values()),
        )
        s.lower(made)
        pooled.append(made.result)
    s.alias(op.current, mapped(s, pooled, f32, dims_of(op.current), lambda x: x[0] - x[1]))
