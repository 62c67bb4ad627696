"""Lowerings of the `ternary` operations but convolutions (`ternary_conv.py`)."""

from __future__ import annotations

from neuc.backends.cpu.kernels.direct_i8 import DirectI8Kernel
from neuc.backends.cpu.kernels.im2col import RUN, Im2ColKernel
from neuc.backends.cpu.kernels.ternary_quantize import (
    PART,
    AbsMaxPartsKernel,
    QuantizePartsKernel,
    TernaryQuantizeKernel,
)
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.ternary_conv_chain import ConvChain, conv_chain, launch_conv
from neuc.backends.cpu.lowerings.ternary_products import (
    MAX_COLUMNS,
    Packed,
    default_block_rows,
    fits_i2,
    launch_dequantize,
    launch_direct,
    pack,
    rows_of,
    trits_of,
)
from neuc.backends.cpu.packing.i2 import I2Layout
from neuc.backends.cpu.packing.tl2 import Tl2Layout
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
    packed_type,
)
from neuc.dialects.ternary_types import TritsType
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
    if op.shared_axes == 1:
        s.launch(TernaryQuantizeKernel(), [x, q, scale, length], work=rows)
        return
    # One part even of nothing, so that the scale of an empty image is written.
    parts = length.ceildiv(PART).maximum(1)
    maxima = s.temp(rows * parts * 4)
    s.launch(AbsMaxPartsKernel(), [x, maxima, length, parts], work=rows * parts)
    s.launch(QuantizePartsKernel(), [x, maxima, length, parts, q, scale], work=rows * parts)


def _few_columns(type_: TritsType) -> str | None:
    if type_.columns > MAX_COLUMNS:
        return f"{type_.columns} columns are more than the {MAX_COLUMNS} that int32 sums stand"
    return None


@lowers(LinearOp, supports=lambda op: _few_columns(op.trits))
def lower_linear(op: LinearOp, s: SegmentLowering) -> None:
    """Without `tile-lut`: a direct product and dequantization."""
    weight = defining_weight(op.weight)
    type_, trits, _ = trits_of(weight, s)
    rows, columns, segment = rows_of(type_), type_.columns, type_.group_size
    layout: I2Layout | DirectI8Kernel = DirectI8Kernel(rows, columns, segment)
    if s.isa.name != "scalar" and fits_i2(type_):
        layout = I2Layout.of(type_.level_set, rows, columns, segment, default_block_rows(rows), columns)
    packed = pack(s, weight.trits.data, trits.reshape(rows, columns), segment, layout)
    tokens = product(dims_of(op.q)[:-1])
    acc = s.temp(tokens * (4 * type_.groups * rows))
    launch_direct(s, s.buffer(op.q), tokens, packed, acc)
    bias = None if op.bias is None else s.buffer(op.bias)
    launch_dequantize(s, acc, s.buffer(op.s), tokens, Dim.of(1), weight, bias, op.activation, s.buffer(op.result))


def _packable(op: PackOp) -> str | None:
    packed = op.packed
    kind, g = packed.encoding.kind.data, packed.encoding.g.data
    type_ = op.weight.type
    assert isinstance(type_, TritsType)
    if kind == "i2" and not fits_i2(type_):
        return f"encoding i2 cannot hold the levels {list(type_.level_set)}"
    if kind == "tl2" and packed.groups > 1 and packed.group_size % (4 * g):
        return f"scale groups of {packed.group_size} columns are not a multiple of 4·g = {4 * g}"
    return _few_columns(type_)


@lowers(PackOp, supports=_packable)
def lower_pack(op: PackOp, s: SegmentLowering) -> None:
    """Pack at compile time."""
    weight = defining_weight(op.weight)
    type_, trits, _ = trits_of(weight, s)
    rows, columns, segment = rows_of(type_), type_.columns, type_.group_size
    bm, bk = op.BM.value.data, op.BK.value.data
    layout: I2Layout | Tl2Layout | DirectI8Kernel
    match op.packed.encoding.kind.data:
        case "tl2":
            layout = Tl2Layout.of(s.isa, op.packed.encoding.g.data, rows, columns, segment, bm, bk)
        case "i2":
            layout = I2Layout.of(type_.level_set, rows, columns, segment, bm, bk)
        case _:
            layout = DirectI8Kernel(rows, columns, segment)
    s.remember(op.result, pack(s, weight.trits.data, trits.reshape(rows, columns), segment, layout))


@lowers(AccumulateOp)
def lower_accumulate(op: AccumulateOp, s: SegmentLowering) -> None:
    """One launch of the direct kernel for the encoding."""
    packed = s.fact(op.packed)
    if not isinstance(packed, Packed):
        raise InternalError(f"{packed_type(op.packed)} was not packed in this segment")
    launch_direct(s, s.buffer(op.q), product(dims_of(op.q)[:-1]), packed, s.buffer(op.result))


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
