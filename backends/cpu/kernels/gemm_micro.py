"""The register-tiled heart of matrix products: one panel of columns times any number of rows.

A panel is `Tile.columns` columns of B, one row of them for each k. A tile of rows keeps its sums in registers over the
whole K loop. What surrounds it, which panel and which rows, is for `gemm` and `conv`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, f32
from neuc.backends.cpu.isa import Isa

Size: TypeAlias = Val | int
"""A number the kernel is specialised on, or one it gets at run time."""

F32 = 4
_CHAINS = 8
"""Independent sums that hide the latency of a multiply-add: 4 cycles, 2 a cycle."""


@dataclass(frozen=True)
class Tile:
    """The register tile of an instruction set.

    Attributes:
        rows: numbers of rows there is code for, the largest first; any count of rows is cut into these.
        vectors: vectors in a panel row.
        lanes: lanes of a vector.
    """

    rows: tuple[int, ...]
    vectors: int
    lanes: int

    @staticmethod
    def of(isa: Isa) -> Tile:
        """Sums, one panel row and one broadcast element fill the registers."""
        match isa.name:
            case "avx512":
                return Tile((12, 8, 4, 2, 1), 2, 16)
            case "avx2":
                return Tile((6, 4, 2, 1), 2, 8)
            case "scalar":
                return Tile((2, 1), 2, 1)
            case _:
                return Tile((8, 4, 2, 1) if isa.registers >= 32 else (4, 2, 1), 2, isa.f32_lanes)

    @property
    def columns(self) -> int:
        """Columns of a panel."""
        return self.vectors * self.lanes

    def for_rows(self, count: int) -> Tile:
        """The tile with just those numbers of rows that `count` rows are cut into."""
        used: list[int] = []
        for rows in self.rows:
            if rows <= count:
                used.append(rows)
                count %= rows
        return Tile(tuple(used), self.vectors, self.lanes)


@dataclass(frozen=True)
class Epilogue:
    """What happens to a sum: times alpha, plus bias, then the activation.

    Attributes:
        scaled: whether alpha is there.
        bias: ``none``, ``vector`` (one number a column) or ``scalar`` (one number a row).
        activation: a kind of the dense dialect.
        alpha: the activation's first parameter.
        beta: its second.
    """

    scaled: bool = False
    bias: str = "none"
    activation: str = "none"
    alpha: float = 0.0
    beta: float = 0.0

    @property
    def is_nothing(self) -> bool:
        """Whether the sums are the result."""
        return not self.scaled and self.bias == "none" and self.activation == "none"


NO_EPILOGUE = Epilogue()


@dataclass(frozen=True)
class Operands:
    """Where one panel's operands are; strides are in bytes.

    Attributes:
        k: products in a sum.
        a: address of A[0, 0]; rows are `a_row` and consecutive k `a_step` apart.
        a_row: see `a`. Known, so that a tile's rows are one pointer and constant displacements: with pointers to
            compute, LLVM loads the elements of all rows ahead and spills the sums.
        a_step: see `a`.
        panel: address of the panel; its rows are `panel_step` apart.
        panel_step: see `panel`.
        c: address of the result's row 0 at the panel's first column; rows are `c_row` apart.
        c_row: see `c`.
        columns: columns of the panel that exist, or None when all do.
        scale: alpha in every lane.
        bias: address of the bias of row 0 (and of the panel's first column); rows are `bias_row` apart.
        bias_row: see `bias`.
        load: gives a vector of a panel row, from the row's address and the vector's number; by default f32 in a row.
    """

    k: Size
    a: Val
    a_row: int
    a_step: Size
    panel: Val
    panel_step: Size
    c: Val
    c_row: Size
    columns: Val | None = None
    scale: Val | None = None
    bias: Val | None = None
    bias_row: Size = 0
    load: Callable[[Val, int], Val] | None = None


def multiply_rows(
    b: KernelBuilder, tile: Tile, ops: Operands, lo: Val, hi: Val, epilogue: Epilogue, accumulate: Val | None = None
) -> None:
    """Rows ``lo .. hi-1`` of one panel.

    Args:
        b: the builder.
        tile: the register tile.
        ops: where everything is.
        lo: first row.
        hi: one past the last row.
        epilogue: applied to the results, in registers if it is cheap, else in a second pass.
        accumulate: if given, an i1 that says whether to add to what is in C (with a trivial epilogue).
    """
    fused = epilogue if vecmath.is_cheap(epilogue.activation) else NO_EPILOGUE
    position = lo
    for index, rows in enumerate(tile.rows):
        if index == 0 or 2 * rows <= tile.rows[index - 1] - 1:
            # More than one tile of this height may be due.
            with b.loop(position, hi - (rows - 1), rows) as loop:
                _tile(b, tile, rows, ops, loop.i, fused, accumulate)
            whole = b.udiv(b.max(hi - position, 0), rows) * rows
            position = position + whole
        else:
            with b.if_(b.icmp("sle", position + rows, hi)) as branch:
                _tile(b, tile, rows, ops, position, fused, accumulate)
                branch.yield_([position + rows])
            with branch.else_():
                branch.yield_([position])
            position = branch.results[0]
    if fused != epilogue:
        finish_rows(b, tile, ops, lo, hi, epilogue)


def finish_rows(b: KernelBuilder, tile: Tile, ops: Operands, lo: Val, hi: Val, epilogue: Epilogue) -> None:
    """Apply the epilogue to rows of a panel whose sums are in C."""
    if epilogue.is_nothing:
        return

    def all_rows(edge: _Edge) -> None:
        with b.loop(lo, hi) as loop:
            row = b.ptr(ops.c, _times(loop.i, ops.c_row))
            sums = [edge.load(row, v) for v in range(tile.vectors)]
            _store_row(b, tile, ops, edge, row, _finish(b, tile, ops, edge, loop.i, sums, epilogue))

    _with_edges(b, tile, ops, all_rows)


def _tile(
    b: KernelBuilder, tile: Tile, rows: int, ops: Operands, m: Val, epilogue: Epilogue, accumulate: Val | None
) -> None:
    """One register tile: the K loop, then the epilogue and the stores."""
    sums = _products(b, tile, rows, ops, m)

    def all_rows(edge: _Edge) -> None:
        row = b.ptr(ops.c, _times(m, ops.c_row))
        for r in range(rows):
            _store_row(b, tile, ops, edge, row, _finish(b, tile, ops, edge, m + r, sums[r], epilogue), accumulate)
            row = b.ptr(row, ops.c_row)

    _with_edges(b, tile, ops, all_rows)


def _store_row(
    b: KernelBuilder,
    tile: Tile,
    ops: Operands,
    edge: _Edge,
    row: Val,
    values: Sequence[Val],
    accumulate: Val | None = None,
) -> None:
    if accumulate is not None:
        with b.if_(accumulate) as branch:
            branch.yield_([edge.load(row, v) + total for v, total in enumerate(values)])
        with branch.else_():
            branch.yield_(values)
        values = branch.results
    for v, total in enumerate(values):
        edge.store(total, row, v)


def _products(b: KernelBuilder, tile: Tile, rows: int, ops: Operands, m: Val) -> list[list[Val]]:
    """The sums over k of a tile of rows: one list of vectors for each row."""
    size = rows * tile.vectors
    sets = max(1, _CHAINS // size)
    unroll = max(sets, 4 if size <= 2 * _CHAINS else 2)
    sums = [b.zero(b.vtype())] * (sets * size)
    a = b.ptr(ops.a, _times(m, ops.a_row))
    k_main: Size = ops.k - ops.k % unroll if isinstance(ops.k, int) else b.udiv(ops.k, unroll) * unroll
    a, panel, sums = _k_loop(b, tile, rows, ops, a, ops.panel, sums, 0, k_main, unroll)
    if not isinstance(ops.k, int) or ops.k % unroll:
        _, _, sums = _k_loop(b, tile, rows, ops, a, panel, sums, k_main, ops.k, 1)
    while len(sums) > size:
        half = len(sums) // 2
        sums = [x + y for x, y in zip(sums[:half], sums[half:])]
    return [sums[r * tile.vectors : (r + 1) * tile.vectors] for r in range(rows)]


def _k_loop(
    b: KernelBuilder,
    tile: Tile,
    rows: int,
    ops: Operands,
    a: Val,
    panel: Val,
    sums: list[Val],
    lo: Size,
    hi: Size,
    unroll: int,
) -> tuple[Val, Val, list[Val]]:
    """`unroll` values of k a round; returns where A and the panel go on, and the sums."""
    load = ops.load or (lambda row, v: b.load(b.ptr(row, v * tile.lanes * F32), b.vtype()))
    with b.loop(lo, hi, unroll, init=[a, panel, *sums]) as loop:
        a, panel, *sums = loop.carried
        for u in range(unroll):
            # Consecutive k use different sums where a tile is too small to hide the latency alone.
            shift = u * rows * tile.vectors % len(sums)
            columns = [load(panel, v) for v in range(tile.vectors)]
            for r in range(rows):
                element = b.splat(b.load(b.ptr(a, r * ops.a_row), f32), tile.lanes)
                for v in range(tile.vectors):
                    at = shift + r * tile.vectors + v
                    sums[at] = b.fma(element, columns[v], sums[at])
            a = b.ptr(a, ops.a_step)
            panel = b.ptr(panel, ops.panel_step)
        loop.yield_([a, panel, *sums])
    a, panel, *sums = loop.results
    return a, panel, sums


def _finish(
    b: KernelBuilder, tile: Tile, ops: Operands, edge: _Edge, m: Val, sums: Sequence[Val], epilogue: Epilogue
) -> list[Val]:
    """The epilogue of one row of a panel."""
    bias: list[Val] = []
    if epilogue.bias != "none":
        assert ops.bias is not None
        address = b.ptr(ops.bias, _times(m, ops.bias_row))
        if epilogue.bias == "scalar":
            bias = [b.splat(b.load(address, f32), tile.lanes)] * tile.vectors
        else:
            bias = [edge.load(address, v) for v in range(tile.vectors)]
    values: list[Val] = []
    for v, total in enumerate(sums):
        if epilogue.scaled:
            assert ops.scale is not None
            total = total * ops.scale
        if bias:
            total = total + bias[v]
        values.append(vecmath.activate(b, total, epilogue.activation, epilogue.alpha, epilogue.beta))
    return values


class _Edge:
    """Loads and stores of a panel row's vectors, masked where columns are missing."""

    def __init__(self, b: KernelBuilder, tile: Tile, columns: Val | None) -> None:
        self._b = b
        self._step = tile.lanes * F32
        self._masks: list[Val] | None = None
        if columns is not None:
            self._masks = [b.mask_below(columns - v * tile.lanes, tile.lanes) for v in range(tile.vectors)]

    def load(self, row: Val, v: int) -> Val:
        b, address = self._b, self._b.ptr(row, v * self._step)
        if self._masks is None:
            return b.load(address, b.vtype())
        return b.masked_load(address, b.vtype(), self._masks[v])

    def store(self, value: Val, row: Val, v: int) -> None:
        b, address = self._b, self._b.ptr(row, v * self._step)
        if self._masks is None:
            b.store(value, address)
        else:
            b.masked_store(value, address, self._masks[v])


def _with_edges(b: KernelBuilder, tile: Tile, ops: Operands, body: Callable[[_Edge], None]) -> None:
    """Run `body` without masks for whole panels, with masks for the others; with masks for all where they are free."""
    if ops.columns is None or b.isa.has_masks:
        body(_Edge(b, tile, ops.columns))
        return
    with b.if_(b.icmp("sge", ops.columns, tile.columns)) as branch:
        body(_Edge(b, tile, None))
    with branch.else_():
        body(_Edge(b, tile, ops.columns))


def _times(index: Size, stride: Size) -> Size:
    """A product, in Python when both are known."""
    if isinstance(index, int) and isinstance(stride, int):
        return index * stride
    return index * stride if isinstance(index, Val) else stride * index
