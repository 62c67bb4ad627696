"""Lowerings of the `ternary` operations but convolutions (`ternary_conv.py`)."""

from __future__ import annotations

from neuc.backends.cpu.encodings import CPU_ENCODINGS, Matrix
from neuc.backends.cpu.kernels.im2col import RUN, Im2ColKernel
from neuc.backends.cpu.kernels.ternary_quantize import (
    PART,
    AbsMaxPartsKernel,
    QuantizePartsKernel,
    TernaryQuantizeKernel,
)
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.ternary_conv_chain import ConvChain, conv_chain, launch_conv
from neuc.backends.cpu.lowerings.ternary_linear_chain import launch_linear, linear_chain
from neuc.backends.cpu.lowerings.ternary_products import (
    Packed,
    launch_dequantize,
    launch_product,
    layout_of,
    pack_weight,
    rows_of,
    too_many_columns,
    type_of,
    untiled,
)
from neuc.dialects.dims import Dim, product
from neuc.dialects.store import dims_of
from neuc.dialects.ternary import (
    AccumulateOp,
    DequantizeOp,
    Im2ColOp,
    LinearOp,
    PackOp,
    QuantizeOp,
    WeightOp,
)
from neuc.dialects.ternary_types import packed_type
from neuc.dialects.ternary_weights import defining_weight
from neuc.errors import InternalError


@lowers(WeightOp)
def lower_weight(op: WeightOp, s: SegmentLowering) -> None:
    """Nothing: whoever uses the trits packs them."""


@lowers(QuantizeOp)
def lower_quantize(op: QuantizeOp, s: SegmentLowering) -> None:
    """One launch for rows; for images two, so that one image is the work of all threads."""
    dims = dims_of(op.x)
    rows, length = product(dims[: len(dims) - op.shared_axes]), product(dims[len(dims) - op.shared_axes :])
    x, q, scale = s.buffer(op.x), s.buffer(op.q), s.buffer(op.s)
    reciprocal = op.reciprocal is not None
    if op.shared_axes == 1:
        s.launch(TernaryQuantizeKernel(reciprocal), [x, q, scale, length], work=rows)
        return
    # One part even of nothing, so that the scale of an empty image is written.
    parts = length.ceildiv(PART).maximum(1)
    maxima = s.temp(rows * parts * 4)
    s.launch(AbsMaxPartsKernel(), [x, maxima, length, parts], work=rows * parts)
    s.launch(QuantizePartsKernel(reciprocal), [x, maxima, length, parts, q, scale], work=rows * parts)


def _linear_supported(op: LinearOp) -> str | None:
    return "an offset of the activations is tile-lut's business" if op.code_offset else too_many_columns(op.trits)


@lowers(LinearOp, supports=_linear_supported)
def lower_linear(op: LinearOp, s: SegmentLowering) -> None:
    """Without `tile-lut`: a direct product and dequantization."""
    weight = defining_weight(op.weight)
    type_ = type_of(weight)
    rows = rows_of(type_)
    kind, layout = untiled(s, type_, rows)
    packed = pack_weight(s, weight, kind, layout)
    tokens = product(dims_of(op.q)[:-1])
    acc = s.temp(tokens * (4 * type_.groups * rows))
    launch_product(s, s.buffer(op.q), tokens, packed, acc)
    bias = None if op.bias is None else s.buffer(op.bias)
    launch_dequantize(s, acc, s.buffer(op.s), tokens, Dim.of(1), weight, bias, op.activation, s.buffer(op.result))


def _packable(op: PackOp) -> str | None:
    kind = op.packed.encoding.kind.data
    if kind not in CPU_ENCODINGS:
        return f"no CPU kernels read encoding {kind}"
    matrix = Matrix.of(op.packed, op.BM.value.data, op.BK.value.data)
    return CPU_ENCODINGS[kind].reason_against(matrix) or too_many_columns(op.packed)


@lowers(PackOp, supports=_packable)
def lower_pack(op: PackOp, s: SegmentLowering) -> None:
    """Pack at compile time; nothing here if what follows goes together with it."""
    chain = linear_chain(op, s)
    if chain is not None:
        s.absorb(chain.absorbed)
        s.lower_instead(chain.last, lambda: launch_linear(chain, s))
        return
    weight, kind = defining_weight(op.weight), op.packed.encoding.kind.data
    s.remember(op.result, pack_weight(s, weight, kind, layout_of(op, s.isa)))


@lowers(AccumulateOp)
def lower_accumulate(op: AccumulateOp, s: SegmentLowering) -> None:
    """One launch of the direct kernel for the encoding."""
    packed = s.fact(op.packed)
    if not isinstance(packed, Packed):
        raise InternalError(f"{packed_type(op.packed)} was not packed in this segment")
    launch_product(s, s.buffer(op.q), product(dims_of(op.q)[:-1]), packed, s.buffer(op.result))


@lowers(DequantizeOp)
def lower_dequantize(op: DequantizeOp, s: SegmentLowering) -> None:
    """One launch; two if it ends the operations of a convolution that go together."""
    chain = s.fact(op.acc)
    if isinstance(chain, ConvChain):
        launch_conv(chain, s)
        return
    leading, scale_dims = dims_of(op.acc)[:-2], dims_of(op.s)
    launch_dequantize(
        s,
        s.buffer(op.acc),
        s.buffer(op.s),
        product(leading),
        product(leading[len(scale_dims) :]),
        defining_weight(op.weight),
        None if op.bias is None else s.buffer(op.bias),
        op.activation,
        s.buffer(op.result),
    )


@lowers(Im2ColOp)
def lower_im2col(op: Im2ColOp, s: SegmentLowering) -> None:
    """One launch, or none here if what follows goes together with it."""
    chain = conv_chain(op)
    if chain is not None and s.isa.name != "scalar":
        s.absorb(chain.absorbed)
        s.remember(chain.dequantize.acc, chain)
        return
    dims, window = dims_of(op.q), op.window()
    out_dims = window.output_dims(dims[2:])
    kernel = Im2ColKernel(dims[1].value, window.kernel, window.strides, window.pads[: len(out_dims)], window.dilations)
    s.launch(
        kernel,
        [s.buffer(op.q), s.buffer(op.result), 0, dims[1], *dims[2:], *out_dims],
        work=dims[0] * product(out_dims[:-1]) * out_dims[-1].ceildiv(RUN),
    )
