"""Matrix products: C = activation(alpha · A B + bias), B in packed panels; and the kernel that packs B.

The inner loops are in `gemm_micro`; choosing a kernel and packing constants is `lowerings/matmul.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.gemm_micro import (
    F32,
    NO_EPILOGUE,
    Epilogue,
    Operands,
    Size,
    Tile,
    finish_rows,
    multiply_rows,
)

K_WHOLE = 2048
"""Longest known K that is summed up in one go: a panel of so many rows (256 KB at 32 columns) stays in the L2 cache."""
K_BLOCK = 1024
"""Products between two visits to C when K is longer or unknown."""
_SKEW = 16
"""Floats between the copied rows of A, so that they do not fall into the same cache sets."""
_SET_STRIDE = 4096 // F32
"""Rows so many floats (or a multiple) apart compete for the same lines of the L1 cache."""
_TILES_PER_BLOCK = 8
"""Register tiles of rows in a work unit, when B has many panels."""
_FEW_PANELS = 8
_A_STAYS_CACHED = 512 * 1024
"""Bytes of A below which a thread walks all rows of one panel before the next."""


def row_block(isa: Isa, n: int | None) -> int:
    """Most rows in one work unit; fewer when there are too few panels to share out."""
    tiles = 2 if n is not None and n < _FEW_PANELS * Tile.of(isa).columns else _TILES_PER_BLOCK
    return tiles * Tile.of(isa).rows[0]


def pack_panels(matrix: np.ndarray, columns: int) -> np.ndarray:
    """B[..., K, N] as panels [..., ceil(N / columns), K, columns], missing columns zero."""
    *batch, k, n = matrix.shape
    count = -(-n // columns)
    panels = np.empty((*batch, count, k, columns), np.float32)
    for panel in range(count):  # one by one, so that transposed matrices are read along few rows at a time
        part = matrix[..., panel * columns : (panel + 1) * columns]
        panels[..., panel, :, : part.shape[-1]] = part
        panels[..., panel, :, part.shape[-1] :] = 0
    return panels


@dataclass(frozen=True)
class GemmKernel(KernelSpec):
    """C[batch, M, N] = activation(alpha · A[batch, M, K] · B[batch, K, N] + bias).

    Work units are (batch index, block of rows, panel); `batch size · ceil(M / row_block) · ceil(N / columns)` of
    them. All strides are in elements. Arguments:

    0. A
    1. B, packed: panels [ceil(N / columns)][K][columns]; not packed: rows of N
    2. C, contiguous
    3. bias (any address when there is none)
    4. M
    5. N
    6. K
    7. stride of A's rows (of its columns when A is transposed)
    8. alpha (f32)
    9. stride of the bias's rows
    10. and on, for each batch axis, outermost first: its size, and the strides of A, B and the bias along it

    Attributes:
        n: N when it is known.
        k: K when it is known.
        lda: argument 7 when it is known.
        transpose_a: whether A is stored [K, M].
        packed: whether B is in panels; if not, N is known and a multiple of the panel width.
        epilogue: what happens to the sums.
        batch_rank: number of batch axes.
    """

    n: int | None
    k: int | None
    lda: int | None
    transpose_a: bool = False
    packed: bool = True
    epilogue: Epilogue = NO_EPILOGUE
    batch_rank: int = 0
    family: ClassVar[str] = "gemm"
    written = (2,)

    @property
    def copies_a(self) -> bool:
        """Whether rows of A are first copied to scratch memory, where their distance is known and harmless."""
        return not self.transpose_a and (self.lda is None or self.lda % _SET_STRIDE == 0)

    @property
    def _copy_stride(self) -> int:
        return (self.k if self.k is not None and self.k <= K_WHOLE else K_BLOCK) + _SKEW

    def scratch_bytes(self, isa: Isa) -> int:
        """Scratch memory a thread needs."""
        return row_block(isa, self.n) * self._copy_stride * F32 if self.copies_a else 0

    def build(self, isa: Isa) -> llvm.FuncOp:
        b = KernelBuilder(self.name, isa)
        tile = Tile.of(isa)
        m = b.arg_int(4)
        n: Size = b.arg_int(5) if self.n is None else self.n
        k: Size = b.arg_int(6) if self.k is None else self.k
        lda: Size = b.arg_int(7) * F32 if self.lda is None else self.lda * F32
        most = row_block(isa, self.n)
        # Empty matrices have no units, but what follows divides before the first unit.
        blocks = b.max(b.udiv(m + (most - 1), most), 1)
        # Equal blocks: the last one would otherwise leave its thread idle.
        rows = b.udiv(b.udiv(m + (blocks - 1), blocks) + (tile.rows[0] - 1), tile.rows[0]) * tile.rows[0]
        panels = _ceil_div(b, n, tile.columns)
        across = b.max(b.as_val(panels, m.type), 1)
        units = blocks * across
        panel_first = b.icmp("sgt", m * k, _A_STAYS_CACHED // F32)
        bias_row: Size = b.arg_int(9) * F32 if self.epilogue.bias != "none" else 0
        scale = b.splat(b.arg_f32(8), isa.f32_lanes) if self.epilogue.scaled else None
        with b.loop(b.begin, b.end, init=[b.i64(-1)]) as loop:
            batch, unit = b.udiv(loop.i, units), b.urem(loop.i, units)
            block = b.select(panel_first, b.udiv(unit, across), b.urem(unit, blocks))
            panel = b.select(panel_first, b.urem(unit, across), b.udiv(unit, blocks))
            a, packed, bias = self._batch(b, batch)
            column = panel * tile.columns
            c = b.ptr(b.arg_ptr(2), ((batch * m) * n + column) * F32)
            if self.packed:
                packed = b.ptr(packed, panel * k * (tile.columns * F32))
            else:
                packed = b.ptr(packed, column * F32)
            if self.epilogue.bias == "vector":
                bias = b.ptr(bias, column * F32)
            whole = isinstance(n, int) and n % tile.columns == 0
            ops = Operands(
                k=k,
                a=a,
                a_row=self._copy_stride * F32 if self.copies_a else F32 if self.transpose_a else (self.lda or 0) * F32,
                a_step=lda if self.transpose_a else F32,
                panel=packed,
                panel_step=tile.columns * F32 if self.packed else n * F32,
                c=c,
                c_row=n * F32,
                columns=None if whole else n - column,
                scale=scale,
                bias=bias,
                bias_row=bias_row,
            )
            lo = block * rows
            hi = b.min(lo + rows, m)
            if self.copies_a:
                # The first row of the unit is row 0 of what is copied.
                a = b.ptr(a, lo * lda)
                c = b.ptr(c, lo * (n * F32))
                bias = b.ptr(bias, lo * bias_row)
                lo, hi = b.i64(0), hi - lo
                ops = replace(ops, a=a, c=c, bias=bias)
            # Neighbouring units often have the same rows, which are then copied already.
            rows_id = batch * blocks + block
            self._unit(b, tile, ops, lo, hi, lda, b.icmp("ne", rows_id, loop.carried[0]))
            loop.yield_([rows_id])
        return b.finish()

    def _batch(self, b: KernelBuilder, batch: Val) -> tuple[Val, Val, Val]:
        """A, B and bias of a batch index."""
        pointers = [b.arg_ptr(0), b.arg_ptr(1), b.arg_ptr(3)]
        for axis in reversed(range(self.batch_rank)):
            first = 10 + 4 * axis
            size = b.arg_int(first)
            at, batch = (b.urem(batch, size), b.udiv(batch, size)) if axis else (batch, batch)
            pointers = [b.ptr(p, at * b.arg_int(first + 1 + i) * F32) for i, p in enumerate(pointers)]
        return pointers[0], pointers[1], pointers[2]

    def _unit(self, b: KernelBuilder, tile: Tile, ops: Operands, lo: Val, hi: Val, lda: Size, fresh: Val) -> None:
        """All rows of one unit, K in blocks if it may be long."""
        if self.k is not None and self.k <= K_WHOLE:
            ops = self._near(b, ops, hi, lda, fresh)
            multiply_rows(b, tile, ops, lo, hi, self.epilogue)
            return
        k = b.as_val(ops.k, lo.type)
        # An empty K still has to write zeros, so there is one block at least.
        with b.loop(0, b.max(k, 1), K_BLOCK) as loop:
            part = replace(
                ops,
                k=b.min(k - loop.i, b.i64(K_BLOCK)),
                a=b.ptr(ops.a, loop.i * ops.a_step),
                panel=b.ptr(ops.panel, loop.i * ops.panel_step),
            )
            part = self._near(b, part, hi, lda, fresh | b.icmp("sgt", k, K_BLOCK))
            multiply_rows(b, tile, part, lo, hi, NO_EPILOGUE, accumulate=b.icmp("sgt", loop.i, 0))
        finish_rows(b, tile, ops, lo, hi, self.epilogue)

    def _near(self, b: KernelBuilder, ops: Operands, rows: Val, lda: Size, fresh: Val) -> Operands:
        """The operands with A's rows in scratch memory, if this kernel copies them: now if `fresh`, else before."""
        if not self.copies_a:
            return ops
        with b.if_(fresh), b.loop(0, rows) as row:
            source, target = b.ptr(ops.a, row.i * lda), b.ptr(b.scratch, row.i * ops.a_row)
            with b.loop(0, ops.k, b.lanes) as column:
                mask = b.mask_below(ops.k - column.i, b.lanes)
                at = column.i * F32
                b.masked_store(b.masked_load(b.ptr(source, at), b.vtype(), mask), b.ptr(target, at), mask)
        return replace(ops, a=b.scratch)


@dataclass(frozen=True)
class PackPanelsKernel(KernelSpec):
    """B[batch, K, N] (or [batch, N, K]) into panels [batch][ceil(N / columns)][K][columns], missing columns zero.

    Work units are (batch index, panel). Arguments: 0. B, contiguous; 1. panels; 2. N; 3. K.

    Attributes:
        transpose: whether B is stored [N, K].
        columns: columns of a panel.
    """

    transpose: bool
    columns: int
    family: ClassVar[str] = "pack_panels"
    written = (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        b = KernelBuilder(self.name, isa)
        n, k = b.arg_int(2), b.arg_int(3)
        panels = b.udiv(n + (self.columns - 1), self.columns)
        with b.loop(b.begin, b.end) as loop:
            batch, panel = b.udiv(loop.i, panels), b.urem(loop.i, panels)
            source = b.ptr(b.arg_ptr(0), batch * n * k * F32)
            target = b.ptr(b.arg_ptr(1), loop.i * k * (self.columns * F32))
            column = panel * self.columns
            if self.transpose:
                self._transposed(b, source, target, column, n, k)
            else:
                self._straight(b, source, target, column, n, k)
        return b.finish()

    def _straight(self, b: KernelBuilder, source: Val, target: Val, column: Val, n: Val, k: Val) -> None:
        masks = [b.mask_below(n - column - v, b.lanes) for v in range(0, self.columns, b.lanes)]
        with b.loop(0, k) as row:
            from_ = b.ptr(source, (row.i * n + column) * F32)
            to = b.ptr(target, row.i * (self.columns * F32))
            for v, mask in enumerate(masks):
                shift = v * b.lanes * F32
                b.store(b.masked_load(b.ptr(from_, shift), b.vtype(), mask), b.ptr(to, shift))

    def _transposed(self, b: KernelBuilder, source: Val, target: Val, column: Val, n: Val, k: Val) -> None:
        """Column by column of B: reads run along K, writes stay within one panel."""
        f32 = b.vtype() if b.lanes == 1 else b.f32(0.0).type
        with b.loop(0, b.min(n - column, b.i64(self.columns))) as col:
            from_ = b.ptr(source, (column + col.i) * k * F32)
            to = b.ptr(target, col.i * F32)
            with b.loop(0, k) as row:
                b.store(b.load(b.ptr(from_, row.i * F32), f32), b.ptr(to, row.i * (self.columns * F32)))
        with b.loop(n - column, self.columns) as col:
            to = b.ptr(target, col.i * F32)
            with b.loop(0, k) as row:
                b.store(b.f32(0.0), b.ptr(to, row.i * (self.columns * F32)))


def _ceil_div(b: KernelBuilder, x: Size, y: int) -> Size:
    return -(-x // y) if isinstance(x, int) else b.udiv(x + (y - 1), y)
