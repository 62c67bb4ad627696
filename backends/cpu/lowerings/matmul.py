"""`dense.matmul`: which product kernel, constants packed at compile time, batch axes folded where they allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.ir import SSAValue

from neuc.backends.cpu.kernels.gemm import GemmKernel, PackPanelsKernel, pack_panels, row_block
from neuc.backends.cpu.kernels.gemm_micro import Epilogue, Tile
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.iteration import broadcast_strides
from neuc.backends.cpu.lowerings.movement import broadcast_to
from neuc.dialects.cpu_launch import LaunchArg
from neuc.dialects.dense import MatMulOp
from neuc.dialects.dense_attrs import ActivationAttr
from neuc.dialects.dims import Dim, product
from neuc.dialects.store import dims_of

ZERO = Dim.of(0)


@dataclass
class _Batch:
    """A batch axis: its size, and how far A, B and the bias move along it, in elements."""

    size: Dim
    a: Dim
    b: Dim
    bias: Dim


def epilogue_of(activation: ActivationAttr, *, bias: str, scaled: bool = False) -> Epilogue:
    """The kernels' form of what follows the sums."""
    return Epilogue(scaled, bias, activation.kind.value, activation.alpha, activation.beta)


@lowers(MatMulOp)
def lower_matmul(op: MatMulOp, s: SegmentLowering) -> None:
    """One product launch, after one that packs B unless B is constant or can be read as it lies."""
    *outer, m, n = dims_of(op.result)
    k = dims_of(op.a)[-2 if op.transpose_a is not None else -1]
    lda = m if op.transpose_a is not None else k
    bias, bias_kind, bias_row, bias_outer = _bias(op, s, outer, m, n)
    packed, b_buffer, b_size = _right_side(op, s, k, n)
    batch = [
        _Batch(*axis)
        for axis in zip(
            outer,
            _outer_strides(dims_of(op.a)[:-2], outer, m * k),
            _outer_strides(dims_of(op.b)[:-2], outer, b_size),
            bias_outer,
        )
        if axis[0] != 1
    ]
    batch, m = _fold(batch, m, ZERO if op.transpose_a is not None else lda, bias_row)
    alpha = op.alpha.value.data
    kernel = GemmKernel(
        n=_known(n),
        k=_known(k),
        lda=_known(lda),
        transpose_a=op.transpose_a is not None,
        packed=packed,
        epilogue=epilogue_of(op.activation, bias=bias_kind, scaled=alpha != 1.0),
        batch_rank=len(batch),
    )
    result = s.buffer(op.result)
    args: list[LaunchArg] = [s.buffer(op.a), b_buffer, result]
    args += [result if bias is None else bias, m, n, k, lda, float(alpha), bias_row]
    for axis in batch:
        args += [axis.size, axis.a, axis.b, axis.bias]
    tiles = m.ceildiv(row_block(s.isa, kernel.n)) * n.ceildiv(Tile.of(s.isa).columns)
    work = product(axis.size for axis in batch) * tiles
    s.launch(kernel, args, work=work, scratch=kernel.scratch_bytes(s.isa), op=op)


def _right_side(op: MatMulOp, s: SegmentLowering, k: Dim, n: Dim) -> tuple[bool, SSAValue, Dim]:
    """Whether B is in panels, its buffer, and the elements of one of its matrices."""
    columns = Tile.of(s.isa).columns
    in_panels = n.ceildiv(columns) * k * columns
    array = s.constant(op.b)
    if array is not None:
        matrix = array.swapaxes(-1, -2) if op.transpose_b is not None else array
        return True, s.weight(f"{_entry(op.b)}.panels{columns}", pack_panels(matrix, columns)), in_panels
    if op.transpose_b is None and n.is_static and n.value % columns == 0:
        return False, s.buffer(op.b), k * n
    batch = product(dims_of(op.b)[:-2])
    panels = s.temp(batch * in_panels * 4)
    kernel = PackPanelsKernel(op.transpose_b is not None, columns)
    s.launch(kernel, [s.buffer(op.b), panels, n, k], work=batch * n.ceildiv(columns), op=op)
    return True, panels, in_panels


def _entry(value: SSAValue) -> str:
    entry = getattr(value.owner, "entry", None)
    return "matrix" if entry is None else entry.data


def _bias(
    op: MatMulOp, s: SegmentLowering, outer: Sequence[Dim], m: Dim, n: Dim
) -> tuple[SSAValue | None, str, Dim, Sequence[Dim]]:
    """The bias's buffer, its kind, its stride from row to row, and its strides along the batch axes."""
    if op.bias is None:
        return None, "none", ZERO, [ZERO] * len(outer)
    dims, bias = dims_of(op.bias), s.buffer(op.bias)
    if dims and not dims[-1].is_static and dims[-1] != n:  # 1 or n, which only run time can tell
        wanted = (*dims[:-1], n)
        repeated = s.temp(product(wanted) * 4)
        broadcast_to(s, bias, dims, repeated, wanted, 4, op)
        dims, bias = wanted, repeated
    strides = broadcast_strides(dims, (*outer, m, n))
    kind = "vector" if dims and dims[-1] != 1 else "scalar"
    return bias, kind, strides[-2], strides[:-2]


def _outer_strides(dims: Sequence[Dim], outer: Sequence[Dim], matrix: Dim) -> list[Dim]:
    return [stride * matrix for stride in broadcast_strides(dims, outer)]


def _fold(batch: list[_Batch], m: Dim, a_row: Dim, bias_row: Dim) -> tuple[list[_Batch], Dim]:
    """Merge neighbouring batch axes, and the innermost ones into the rows, where all operands lie evenly."""
    while batch:
        last = batch[-1]
        if a_row == 0 or last.b != 0 or last.a != m * a_row or last.bias != m * bias_row:
            break
        batch = batch[:-1]
        m = last.size * m
    merged: list[_Batch] = []
    for axis in batch:
        before = merged[-1] if merged else None
        if before is not None and (before.a, before.b, before.bias) == (
            axis.size * axis.a,
            axis.size * axis.b,
            axis.size * axis.bias,
        ):
            merged[-1] = _Batch(before.size * axis.size, axis.a, axis.b, axis.bias)
        else:
            merged.append(axis)
    return merged, m


def _known(dim: Dim) -> int | None:
    return dim.value if dim.is_static else None
