"""`dense.reduce` and `dense.arg_reduce`: one launch for each run of neighbouring axes."""

from __future__ import annotations

from neuc.backends.cpu.kernels.arg_reduce import ArgReduceKernel
from neuc.backends.cpu.kernels.map import MapKernel
from neuc.backends.cpu.kernels.reduce import ReduceKernel
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.elementwise import GRAIN, dtype_name
from neuc.backends.cpu.lowerings.iteration import axis_groups, split_at
from neuc.dialects.dense import ArgReduceOp, ReduceOp
from neuc.dialects.dense_attrs import ReduceKind
from neuc.dialects.dims import Dim
from neuc.dialects.store import dims_of, element_of, num_elements

_DTYPES = ("f32", "i32", "i64")
_TYPICAL = 256
"""What a symbolic extent is taken for when work is cut: it decides speed only."""


def grain_of(extent: Dim) -> int:
    """How many work units of `extent` elements each a thread should take at least."""
    return max(1, GRAIN // max(1, extent.value if extent.is_static else _TYPICAL))


def supports_reduce(op: ReduceOp) -> str | None:
    """Why this reduction has no kernel; None if it has."""
    dtype = dtype_name(element_of(op.x))
    if dtype not in _DTYPES:
        return f"dense.reduce of {element_of(op.x)} has no CPU kernel"
    if op.kind.data is ReduceKind.MEAN and dtype != "f32":
        return f"the mean of {element_of(op.x)} has no CPU kernel"
    return None


@lowers(ReduceOp, supports=supports_reduce)
def lower_reduce(op: ReduceOp, s: SegmentLowering) -> None:
    """Innermost axes first; the means of equally long means are the mean."""
    dtype = dtype_name(element_of(op.x))
    assert dtype is not None
    dims = list(dims_of(op.x))
    groups = axis_groups([int(a) for a in op.axes.get_values()])
    if not groups:
        # Nothing to reduce: a copy, which is the map of an empty body.
        copy = MapKernel((dtype,), dtype, (), 0, 1, ("unit",))
        size = num_elements(op.x)
        s.launch(copy, [s.buffer(op.x), s.buffer(op.result), size, 1], work=size, grain=GRAIN, op=op)
        return
    source = s.buffer(op.x)
    for position, (first, count) in enumerate(groups):
        outer, reduced, inner = split_at(dims, first, count)
        dims[first : first + count] = [Dim.of(1)] * count
        done = position == len(groups) - 1
        target = s.buffer(op.result) if done else s.temp(outer * inner * s.itemsize(op.x))
        kernel = ReduceKernel(op.kind.data.value, dtype, inner == 1)
        s.launch(kernel, [source, target, reduced, inner], work=outer * inner, grain=grain_of(reduced), op=op)
        source = target


def supports_arg_reduce(op: ArgReduceOp) -> str | None:
    """Why there is no kernel; None if there is."""
    if dtype_name(element_of(op.x)) not in _DTYPES:
        return f"dense.arg_reduce of {element_of(op.x)} has no CPU kernel"
    return None


@lowers(ArgReduceOp, supports=supports_arg_reduce)
def lower_arg_reduce(op: ArgReduceOp, s: SegmentLowering) -> None:
    """One launch."""
    dtype = dtype_name(element_of(op.x))
    assert dtype is not None
    outer, reduced, inner = split_at(dims_of(op.x), op.axis.value.data)
    kernel = ArgReduceKernel(op.kind.data.value, dtype, op.select_last is not None, inner == 1)
    s.launch(
        kernel,
        [s.buffer(op.x), s.buffer(op.result), reduced, inner],
        work=outer * inner,
        grain=grain_of(reduced),
        op=op,
    )
