"""`dense.pool`: one launch of the pooling kernel."""

from __future__ import annotations

from neuc.backends.cpu.kernels.conv_window import Window
from neuc.backends.cpu.kernels.pool import PoolKernel
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.conv import MAX_RANK, row_grain
from neuc.dialects.dense import PoolOp
from neuc.dialects.dims import product
from neuc.dialects.store import dims_of


def unsupported_pool(op: PoolOp) -> str | None:
    """Why this pool has no kernel; None if it has."""
    rank = len(dims_of(op.x)) - 2
    return f"pool over {rank} spatial axes; the kernel takes up to {MAX_RANK}" if rank > MAX_RANK else None


@lowers(PoolOp, supports=unsupported_pool)
def lower_pool(op: PoolOp, s: SegmentLowering) -> None:
    """Rows of the result are the work units."""
    _, _, *sizes = dims_of(op.x)
    images, channels, *out = dims_of(op.result)
    rank, pads = len(sizes), op.pads.get_values()
    window = Window(op.kernel.get_values(), op.strides.get_values(), pads[:rank], op.dilations.get_values())
    kernel = PoolKernel(window, op.kind.data.value, pads[rank:] if op.count_include_pad is not None else None)
    s.launch(
        kernel,
        [s.buffer(op.x), s.buffer(op.result), *sizes, *out],
        work=images * channels * product(out[:-1]),
        grain=row_grain(out[-1]),
        op=op,
    )
