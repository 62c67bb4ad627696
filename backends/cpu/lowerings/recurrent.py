"""`dense.lstm`: one matrix product for the inputs of all time steps, then the recurrence in one launch."""

from __future__ import annotations

import numpy as np
from xdsl.ir import SSAValue

from neuc.backends.cpu.kernels.gemm import GemmKernel, PackPanelsKernel, pack_panels, row_block
from neuc.backends.cpu.kernels.gemm_micro import NO_EPILOGUE, Tile
from neuc.backends.cpu.kernels.lstm import GATES, LstmKernel, pack_recurrent
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.movement import copy_strided
from neuc.dialects.dense import LstmOp
from neuc.dialects.dims import Dim
from neuc.dialects.store import dims_of

F32 = 4


@lowers(LstmOp)
def lower_lstm(op: LstmOp, s: SegmentLowering) -> None:
    """Two launches, and one each to lay out weights that are not constant."""
    steps, batch, _ = dims_of(op.x)
    hidden, ways = op.hidden.value.data, dims_of(op.w)[0]
    gates = s.temp(ways * steps * batch * (GATES * hidden) * F32)
    _project(op, s, gates)
    given = [v for v in (op.bias, op.h0, op.c0) if v is not None]
    kernel = LstmKernel(hidden, op.direction.data.value, op.bias is not None, op.h0 is not None)
    s.launch(
        kernel,
        [
            gates,
            _recurrent_weights(op, s),
            *(s.buffer(v) for v in given),
            s.buffer(op.y),
            s.buffer(op.h),
            s.buffer(op.c),
            steps,
            batch,
        ],
        work=ways * batch,
        scratch=kernel.scratch_bytes,
        op=op,
    )


def _project(op: LstmOp, s: SegmentLowering, gates: SSAValue) -> None:
    """``gates[d, t, b] = x[t, b] · w[d]ᵀ``."""
    steps, batch, width = dims_of(op.x)
    rows, ways, n = steps * batch, dims_of(op.w)[0], GATES * op.hidden.value.data
    columns = Tile.of(s.isa).columns
    panels = Dim.of(n).ceildiv(columns)
    array = s.constant(op.w)
    if array is not None:
        packed = s.weight(f"lstm_w.panels{columns}", pack_panels(np.swapaxes(array, -1, -2), columns))
    else:
        packed = s.temp(ways * panels * width * columns * F32)
        s.launch(PackPanelsKernel(True, columns), [s.buffer(op.w), packed, n, width], work=ways * panels, op=op)
    known = width.value if width.is_static else None
    kernel = GemmKernel(n=n, k=known, lda=known, transpose_a=False, packed=True, epilogue=NO_EPILOGUE, batch_rank=1)
    axis = [ways, 0, panels * width * columns, 0]
    s.launch(
        kernel,
        [s.buffer(op.x), packed, gates, gates, rows, n, width, width, 1.0, 0, *axis],
        work=ways * rows.ceildiv(row_block(s.isa, n)) * panels,
        op=op,
    )


def _recurrent_weights(op: LstmOp, s: SegmentLowering) -> SSAValue:
    """R in the kernel's layout, packed now if it is constant and at run time if not."""
    lanes, hidden, ways = s.isa.f32_lanes, op.hidden.value.data, dims_of(op.r)[0]
    array = s.constant(op.r)
    if array is not None:
        return s.weight(f"lstm_r.lanes{lanes}", pack_recurrent(array, lanes))
    groups, whole = -(-hidden // lanes), hidden // lanes
    block = hidden * GATES * lanes
    packed = s.temp(ways * groups * block * F32)
    reading = [Dim.of(v) for v in (GATES * hidden * hidden, lanes * hidden, 1, hidden * hidden, hidden)]
    writing = [Dim.of(v) for v in (groups * block, block, GATES * lanes, lanes, 1)]
    for first, count, width in ((0, whole, lanes), (whole, 1, hidden % lanes)):
        # What the last vector has beyond the hidden size stays as it is: those lanes are never stored.
        if count and width:
            copy_strided(
                s,
                s.buffer(op.r),
                packed,
                F32,
                [ways, *(Dim.of(v) for v in (count, hidden, GATES, width))],
                reading,
                writing,
                source_offset=first * lanes * hidden,
                target_offset=first * block,
                op=op,
            )
    return packed
