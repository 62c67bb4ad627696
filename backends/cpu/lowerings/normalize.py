"""`dense.softmax` and `dense.layer_norm`."""

from __future__ import annotations

import numpy as np
from xdsl.ir import SSAValue

from neuc.backends.cpu.kernels.layer_norm import LayerNormKernel
from neuc.backends.cpu.kernels.rms_norm import RmsNormQuantizeKernel
from neuc.backends.cpu.kernels.softmax import SoftmaxKernel
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.elementwise import dtype_name
from neuc.backends.cpu.lowerings.iteration import split_at
from neuc.backends.cpu.lowerings.movement import broadcast_to
from neuc.backends.cpu.lowerings.reduction import grain_of
from neuc.dialects.dense import LayerNormOp, SoftmaxOp
from neuc.dialects.dims import product
from neuc.dialects.locations import fuse_locations
from neuc.dialects.store import dims_of, element_of
from neuc.dialects.ternary import QuantizeOp

RMS_NORM = LayerNormKernel(scale=True, bias=False, rms=True)


def _f32_only(op: SoftmaxOp | LayerNormOp) -> str | None:
    for value in op.operands:
        if dtype_name(element_of(value)) != "f32":
            return f"{op.name} of {element_of(value)} has no CPU kernel"
    return None


@lowers(SoftmaxOp, supports=_f32_only)
def lower_softmax(op: SoftmaxOp, s: SegmentLowering) -> None:
    """One launch."""
    outer, size, inner = split_at(dims_of(op.x), op.axis.value.data)
    s.launch(
        SoftmaxKernel(op.log is not None, inner == 1),
        [s.buffer(op.x), s.buffer(op.result), size, inner],
        work=outer * inner,
        grain=grain_of(size),
        op=op,
    )


@lowers(LayerNormOp, supports=_f32_only)
def lower_layer_norm(op: LayerNormOp, s: SegmentLowering) -> None:
    """One launch, after one that repeats a scale or bias which is smaller than a row.

    A root-mean-square norm goes with the `ternary.quantize` of its result if that is all it is for.
    """
    axis, dims = op.axis.value.data, dims_of(op.x)
    row = product(dims[axis:])
    kernel = LayerNormKernel(op.scale is not None, op.bias is not None, op.rms is not None)
    parameters = [_as_row(op, value, s) for value in (op.scale, op.bias) if value is not None]
    if kernel == RMS_NORM and axis == len(dims) - 1 and _with_quantize(op, parameters[0], s):
        return
    s.launch(
        kernel,
        [s.buffer(op.x), *parameters, s.buffer(op.result), row, float(op.eps.value.data)],
        work=product(dims[:axis]),
        grain=grain_of(row),
        op=op,
    )


def _with_quantize(op: LayerNormOp, gamma: SSAValue, s: SegmentLowering) -> bool:
    """Launch a root-mean-square norm over the last axis together with its only reader, if that has a scale a row."""
    uses = list(op.result.uses)
    quantize = uses[0].operation if len(uses) == 1 else None
    if not isinstance(quantize, QuantizeOp) or quantize.shared_axes != 1 or quantize.parent is not op.parent:
        return False
    dims = dims_of(op.x)
    s.absorb([quantize])
    s.launch(
        RmsNormQuantizeKernel(quantize.reciprocal is not None),
        [s.buffer(op.x), gamma, s.buffer(quantize.q), s.buffer(quantize.s), dims[-1], float(op.eps.value.data)],
        work=product(dims[:-1]),
        scratch=dims[-1] * 4,
        location=fuse_locations(op, quantize),
    )
    return True


def _as_row(op: LayerNormOp, value: SSAValue, s: SegmentLowering) -> SSAValue:
    wanted, shape = dims_of(op.x)[op.axis.value.data :], dims_of(value)
    if product(shape) == product(wanted):
        return s.buffer(value)
    array = s.constant(value)
    if array is not None and all(d.is_static for d in wanted):
        return s.weight("layer_norm_row", np.ascontiguousarray(np.broadcast_to(array, [d.value for d in wanted])))
    repeated = s.temp(product(wanted) * s.itemsize(value))
    broadcast_to(s, s.buffer(value), shape, repeated, wanted, s.itemsize(value), op)
    return repeated
