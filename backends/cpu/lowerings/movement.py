"""The operations that move elements: reshape is the same buffer, the others are strided copies, pads and gathers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.ir import Operation, SSAValue

from neuc.backends.cpu.kernels.copy import CopyKernel, TransposeKernel
from neuc.backends.cpu.kernels.copy_pad import PadKernel
from neuc.backends.cpu.kernels.gather import GatherKernel
from neuc.backends.cpu.kernels.iota import DimsKernel, IotaKernel
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.elementwise import GRAIN
from neuc.backends.cpu.lowerings.iteration import broadcast_strides, collapse, contiguous_strides, split_at
from neuc.backends.cpu.lowerings.reduction import grain_of
from neuc.dialects.dense import (
    BroadcastOp,
    ConcatOp,
    DimsOp,
    GatherOp,
    IotaOp,
    PadOp,
    ReshapeOp,
    SliceOp,
    TransposeOp,
)
from neuc.dialects.dense_attrs import dim_list
from neuc.dialects.dims import Dim, DimLike, product
from neuc.dialects.store import dims_of, element_of, numpy_dtype

_IOTA_GRAIN = 1024
"""Numbers so few are not worth a second thread."""


def copy_strided(
    s: SegmentLowering,
    source: SSAValue,
    target: SSAValue,
    size: int,
    dims: Sequence[Dim],
    reading: Sequence[Dim],
    writing: Sequence[Dim],
    *,
    source_offset: DimLike = 0,
    target_offset: DimLike = 0,
    op: Operation | None = None,
) -> None:
    """Launch ``target[Σ i·writing] = source[Σ i·reading]`` over the space `dims`; strides and offsets in elements.

    Args:
        s: the segment.
        source: a buffer.
        target: a buffer.
        size: bytes an element.
        dims: the space, outermost first.
        reading: the source's stride in each dim.
        writing: the target's stride in each dim.
        source_offset: the source's first element.
        target_offset: the target's first element.
        op: whose location the launch has.
    """
    space = collapse(dims, [reading, writing])
    inner = space.inner()
    read, write = space.strides
    # A transpose: the target's inner dim walks the source in steps while another dim walks it element by element.
    swap = next((k for k, stride in enumerate(read[:-1]) if stride == 1), None)
    if inner == ("any", "unit") and swap is not None:
        kernel = TransposeKernel(size, len(space.dims) - 2)
        outer = [k for k in range(len(space.dims) - 1) if k != swap]
        rows, columns, tile = space.dims[swap], space.dims[-1], kernel.tile(s.isa)
        shape = [space.dims[k] for k in outer]
        s.launch(
            kernel,
            [
                source,
                target,
                source_offset,
                target_offset,
                rows,
                columns,
                write[swap],
                read[-1],
                *shape,
                *(read[k] for k in outer),
                *(write[k] for k in outer),
            ],
            work=product([*shape, rows.ceildiv(tile), columns.ceildiv(tile)]),
            grain=max(1, GRAIN // (tile * tile)),
            op=op,
        )
        return
    to = "unit" if inner[1] == "unit" else "any"
    s.launch(
        CopyKernel(size, len(space.dims), inner[0], to),
        [source, target, source_offset, target_offset, *space.dims, *read, *write],
        work=space.size,
        grain=GRAIN,
        op=op,
    )


@lowers(ReshapeOp)
def lower_reshape(op: ReshapeOp, s: SegmentLowering) -> None:
    """No launch: the same bytes under another shape."""
    s.alias(op.result, op.x)


@lowers(TransposeOp)
def lower_transpose(op: TransposeOp, s: SegmentLowering) -> None:
    """A strided copy, or no launch if only axes of size 1 move."""
    perm, dims = [int(p) for p in op.perm.get_values()], dims_of(op.result)
    moving = [p for p in perm if dims_of(op.x)[p] != 1]
    if moving == sorted(moving):
        s.alias(op.result, op.x)
        return
    strides = contiguous_strides(dims_of(op.x))
    reading = [strides[p] for p in perm]
    copy_strided(
        s,
        s.buffer(op.x),
        s.buffer(op.result),
        s.itemsize(op.x),
        dims,
        reading,
        contiguous_strides(dims),
        op=op,
    )


@lowers(SliceOp)
def lower_slice(op: SliceOp, s: SegmentLowering) -> None:
    """A strided copy from an offset; negative steps are negative strides."""
    dims, strides = dims_of(op.result), contiguous_strides(dims_of(op.x))
    offset = Dim.of(0)
    for start, stride in zip(dim_list(op.starts), strides, strict=True):
        offset = offset + start * stride
    reading = [stride * int(step) for stride, step in zip(strides, op.steps.get_values(), strict=True)]
    copy_strided(
        s,
        s.buffer(op.x),
        s.buffer(op.result),
        s.itemsize(op.x),
        dims,
        reading,
        contiguous_strides(dims),
        source_offset=offset,
        op=op,
    )


@lowers(BroadcastOp)
def lower_broadcast(op: BroadcastOp, s: SegmentLowering) -> None:
    """A strided copy whose repeated axes have stride 0."""
    broadcast_to(s, s.buffer(op.x), dims_of(op.x), s.buffer(op.result), dims_of(op.result), s.itemsize(op.x), op)


def broadcast_to(
    s: SegmentLowering,
    source: SSAValue,
    shape: Sequence[Dim],
    target: SSAValue,
    dims: Sequence[Dim],
    size: int,
    op: Operation,
) -> None:
    """Launch the copy of a tensor of `shape` to one of the broadcast shape `dims`."""
    copy_strided(s, source, target, size, dims, broadcast_strides(shape, dims), contiguous_strides(dims), op=op)


@lowers(ConcatOp)
def lower_concat(op: ConcatOp, s: SegmentLowering) -> None:
    """One copy for each operand."""
    axis, size = op.axis.value.data, s.itemsize(op.result)
    outer, total, inner = split_at(dims_of(op.result), axis)
    one, done = Dim.of(1), Dim.of(0)
    for x in op.xs:
        own = dims_of(x)[axis] * inner
        copy_strided(
            s,
            s.buffer(x),
            s.buffer(op.result),
            size,
            [outer, own],
            [own, one],
            [total * inner, one],
            target_offset=done,
            op=op,
        )
        done = done + own


@lowers(PadOp)
def lower_pad(op: PadOp, s: SegmentLowering) -> None:
    """One launch; leading axes without padding are merged."""
    size, dims = s.itemsize(op.x), dims_of(op.x)
    pads = [int(p) for p in op.pads.get_values()]
    before, after = pads[: len(dims)], pads[len(dims) :]
    padded = [k for k in range(len(dims)) if before[k] or after[k]]
    if not padded:
        s.alias(op.result, op.x)
        return
    # Merge what lies before the first padded axis, and what lies after the last, into one dim each.
    first, last = padded[0], padded[-1]
    head, tail = product(dims[:first]), product(dims[last + 1 :])
    sizes, begins, targets = list(dims[first : last + 1]), before[first : last + 1], list(dims_of(op.result))
    targets = targets[first : last + 1]
    if head != 1:
        sizes, begins, targets = [head, *sizes], [0, *begins], [head, *targets]
    if tail != 1:
        sizes, begins, targets = [*sizes, tail], [*begins, 0], [*targets, tail]
    kernel = PadKernel(size, len(sizes), op.mode.data.value)
    dtype = numpy_dtype(element_of(op.x))
    assert dtype is not None
    value = np.array([op.value.value.data]).astype(dtype)
    bits = int(value.view(f"i{size}")[0])
    s.launch(
        kernel,
        [s.buffer(op.x), s.buffer(op.result), bits, *targets, *sizes, *begins],
        work=product(targets),
        grain=GRAIN,
        op=op,
    )


@lowers(GatherOp)
def lower_gather(op: GatherOp, s: SegmentLowering) -> None:
    """One launch, a row a unit."""
    outer, size, inner = split_at(dims_of(op.data), op.axis.value.data)
    count = product(dims_of(op.indices))
    index = "i32" if s.itemsize(op.indices) == 4 else "i64"
    s.launch(
        GatherKernel(s.itemsize(op.data), index, inner == 1),
        [s.buffer(op.data), s.buffer(op.indices), s.buffer(op.result), size, count, inner],
        work=outer * count,
        grain=grain_of(inner),
        op=op,
    )


@lowers(DimsOp)
def lower_dims(op: DimsOp, s: SegmentLowering) -> None:
    """One launch that writes its own arguments."""
    values = dim_list(op.exprs)
    s.launch(DimsKernel(len(values)), [s.buffer(op.result), *values], work=1, op=op)


@lowers(IotaOp)
def lower_iota(op: IotaOp, s: SegmentLowering) -> None:
    """One launch, a number a unit."""
    s.launch(IotaKernel(), [s.buffer(op.result)], work=dims_of(op.result)[0], grain=_IOTA_GRAIN, op=op)
