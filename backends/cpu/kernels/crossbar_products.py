"""Several matrix products with the same weights in one pass over them: what a non-ideal crossbar adds up.

The rows of A hold, for each input line, the numbers that go into the products side by side (v, |v|, …); a product takes
one of them and multiplies it with the weights or with their magnitudes. Nothing here knows what the sums are for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from neuc.backends.cpu.builder import KernelBuilder, Val, f32
from neuc.backends.cpu.isa import Isa

F32 = 4
_SPARE_REGISTERS = 4
"""Registers for the weights of one step, and for broadcast elements."""


@dataclass(frozen=True)
class Product:
    """One product: Σ_k a[k][variant] · w[k], or · |w[k]| with `magnitude`."""

    variant: int
    magnitude: bool = False


@dataclass(frozen=True)
class Panel:
    """Where the operands of one panel of weight columns are.

    Attributes:
        k: input lines.
        a: address of row 0: k groups of `variants` floats, rows `a_row` bytes apart.
        a_row: see `a`.
        variants: floats for each input line.
        weights: address of the panel: k rows of `vectors` vectors.
        vectors: vectors in a panel row.
    """

    k: int
    a: Val
    a_row: int
    variants: int
    weights: Val
    vectors: int


def row_counts(isa: Isa, products: int, vectors: int) -> tuple[int, ...]:
    """Numbers of rows there is code for, the largest first: their sums fill the registers."""
    most = max(1, (isa.registers - _SPARE_REGISTERS) // (products * vectors))
    counts = [most]
    while counts[-1] > 1:
        counts.append(max(1, counts[-1] // 2))
    return tuple(counts)


def multiply_panel(
    b: KernelBuilder,
    panel: Panel,
    products: Sequence[Product],
    until: Val,
    finish: Callable[[Val, list[list[Val]]], None],
) -> None:
    """All rows ``0 .. until-1`` of one panel.

    Args:
        b: the builder.
        panel: the operands.
        products: which sums to make.
        until: number of rows.
        finish: called with a row's number and its sums, [vector][product].
    """
    position = b.i64(0)
    for rows in row_counts(b.isa, len(products), panel.vectors):
        with b.loop(position, until - (rows - 1), rows) as loop:
            sums = _sums(b, panel, products, rows, loop.i)
            for r in range(rows):
                finish(loop.i + r, sums[r])
        position = position + b.udiv(b.max(until - position, 0), rows) * rows


def _sums(b: KernelBuilder, panel: Panel, products: Sequence[Product], rows: int, first: Val) -> list[list[list[Val]]]:
    """The sums of a tile of rows, [row][vector][product]."""
    lanes, step = b.lanes, panel.variants * F32
    count = rows * panel.vectors * len(products)
    unroll = 2 if panel.k % 2 == 0 else 1
    start = b.ptr(panel.a, first * panel.a_row)
    with b.loop(0, panel.k, unroll, init=[start, panel.weights, *[b.zero(b.vtype())] * count]) as loop:
        a, weights, *flat = loop.carried
        for u in range(unroll):
            row = [
                b.load(b.ptr(weights, (u * panel.vectors + v) * lanes * F32), b.vtype()) for v in range(panel.vectors)
            ]
            sizes = [b.abs(w) for w in row] if any(p.magnitude for p in products) else row
            for r in range(rows):
                for p, product in enumerate(products):
                    at = r * panel.a_row + u * step + product.variant * F32
                    element = b.splat(b.load(b.ptr(a, at), f32), lanes)
                    for v in range(panel.vectors):
                        index = (r * panel.vectors + v) * len(products) + p
                        flat[index] = b.fma(element, (sizes if product.magnitude else row)[v], flat[index])
        loop.yield_([b.ptr(a, unroll * step), b.ptr(weights, unroll * panel.vectors * lanes * F32), *flat])
    _, _, *flat = loop.results
    each = len(products)
    return [
        [flat[(r * panel.vectors + v) * each : (r * panel.vectors + v + 1) * each] for v in range(panel.vectors)]
        for r in range(rows)
    ]
