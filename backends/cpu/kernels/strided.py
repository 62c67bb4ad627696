"""What the element-wise, movement and reduction kernels share: dtypes in memory, strided rows, chunks with tails.

Nothing here knows an operation; it only says how elements are walked, loaded and stored.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from xdsl.ir import Attribute

from neuc.backends.cpu.builder import KernelBuilder, Val, f16, f32, f64, i8, i16, i32, i64, vec

STORAGE: dict[str, Attribute] = {
    "f32": f32,
    "f64": f64,
    "f16": f16,
    "i64": i64,
    "i32": i32,
    "i16": i16,
    "i8": i8,
    "u8": i8,
    "i1": i8,
}
"""The type each dtype has in memory: booleans are bytes."""

BITS: dict[int, Attribute] = {1: i8, 2: i16, 4: i32, 8: i64}
"""The integer type of an element that is only moved, by its size in bytes."""

Body: TypeAlias = Callable[[Val, list[Val], Val | None, int], Sequence[Val]]


def load_elements(
    b: KernelBuilder, base: Val, index: Val, dtype: str, lanes: int, mask: Val | None = None, fill: Val | None = None
) -> Val:
    """`lanes` elements from ``base[index]`` on; lanes outside `mask` are `fill` (zero) and are not read."""
    memory = STORAGE[dtype]
    moved = i16 if memory == f16 else memory
    address = b.elem(base, index, moved)
    wide = vec(moved, lanes)
    got = b.load(address, wide) if mask is None else b.masked_load(address, wide, mask, fill)
    if dtype == "i1":
        return b.icmp("ne", got, 0)
    return b.bitcast(got, vec(f16, lanes)) if memory == f16 else got


def store_elements(b: KernelBuilder, value: Val, base: Val, index: Val, dtype: str, mask: Val | None = None) -> None:
    """Store the lanes of `value` (those in `mask`) to ``base[index]`` and on."""
    moved = STORAGE[dtype]
    if dtype == "i1":
        value = b.zext(value, i8)
    elif moved == f16:
        moved = i16
        value = b.bitcast(value, vec(i16, value.lanes))
    address = b.elem(base, index, moved)
    if mask is None:
        b.store(value, address)
    else:
        b.masked_store(value, address, mask)


def chunks(b: KernelBuilder, lo: Val, hi: Val, lanes: int, body: Body, init: Sequence[Val] = ()) -> list[Val]:
    """Walk ``lo … hi`` in vectors of `lanes`, then once with a mask for the rest.

    Args:
        b: the builder.
        lo: first index.
        hi: one past the last.
        lanes: elements a step.
        body: called with (index, carried values, mask or None, lanes); returns the next carried values.
        init: carried values before the first step.

    Returns:
        The carried values after the last step.
    """
    with b.loop(lo, hi - (lanes - 1), lanes, init) as main:
        main.yield_(body(main.i, main.carried, None, lanes))
    if lanes == 1:
        return main.results
    rest = lo + b.udiv(b.max(hi - lo, 0), lanes) * lanes
    with b.loop(rest, hi, lanes, main.results) as tail:
        tail.yield_(body(tail.i, tail.carried, b.mask_below(hi - tail.i, lanes), lanes))
    return tail.results


def chunks_wide(b: KernelBuilder, lo: Val, hi: Val, lanes: int, body: Body) -> None:
    """As `chunks`, without carried values, in vectors of four times `lanes` as long as those fit."""
    if lanes == 1:
        chunks(b, lo, hi, 1, body)
        return
    wide = 4 * lanes
    with b.loop(lo, hi - (wide - 1), wide) as main:
        body(main.i, [], None, wide)
    chunks(b, lo + b.udiv(b.max(hi - lo, 0), wide) * wide, hi, lanes, body)


def pieces(width: int, lanes: int) -> list[tuple[int, int]]:
    """(first element, lanes) of vectors of at most `lanes` that cover `width` elements, known ahead, exactly."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < width:
        while lanes > width - at:
            lanes //= 2
        found.append((at, lanes))
        at += lanes
    return found


def tree(b: KernelBuilder, x: Val, combine: Callable[[Val, Val], Val]) -> Val:
    """All lanes of `x` combined, halves first."""
    return narrow(b, x, 1, combine)


def narrow(b: KernelBuilder, x: Val, lanes: int, combine: Callable[[Val, Val], Val]) -> Val:
    """`x` folded in halves until `lanes` lanes are left."""
    while x.lanes > lanes:
        half = x.lanes // 2
        x = combine(b.slice(x, 0, half), b.slice(x, half, half))
    return x


@dataclass(frozen=True)
class Row:
    """A piece of one innermost row: columns `lo … hi` of row `index`, and where each operand's row starts."""

    index: Val
    lo: Val
    hi: Val
    offsets: tuple[Val, ...]


@contextmanager
def rows(b: KernelBuilder, dims: Sequence[Val], strides: Sequence[Sequence[Val]]) -> Generator[Row]:
    """Loop over the rows that the elements ``b.begin … b.end`` of the space `dims` touch.

    Args:
        b: the builder.
        dims: sizes from outermost to innermost; at least one.
        strides: for each operand its element strides over all dims but the last.

    Yields:
        The row, with the columns of it that are this thread's.
    """
    zero = b.i64(0)
    if len(dims) == 1:
        # One row: the whole range at once, and a guard so that nothing is hoisted into an empty range.
        with b.if_(b.icmp("slt", b.begin, b.end)):
            yield Row(zero, b.begin, b.end, tuple(zero for _ in strides))
        return
    inner = b.max(dims[-1], 1)
    first = b.udiv(b.begin, inner)
    last = b.udiv(b.end + inner - 1, inner)
    with b.loop(first, last) as loop:
        start = loop.i * inner
        lo = b.max(b.begin - start, 0)
        hi = b.min(b.end - start, inner)
        yield Row(loop.i, lo, hi, offsets(b, loop.i, dims[:-1], strides))


def unravel(b: KernelBuilder, index: Val, dims: Sequence[Val]) -> list[Val]:
    """The coordinates of the flat `index` in `dims`, none of which is 0 where this is run."""
    coordinates: list[Val] = []
    for dim in reversed(dims[1:]):
        outer = b.udiv(index, dim)
        coordinates.append(index - outer * dim)
        index = outer
    return [index, *reversed(coordinates)]


def offsets(b: KernelBuilder, index: Val, dims: Sequence[Val], strides: Sequence[Sequence[Val]]) -> tuple[Val, ...]:
    """Each operand's element offset at the flat `index` of `dims`."""
    coordinates = unravel(b, index, dims)
    result: list[Val] = []
    for own in strides:
        total = coordinates[0] * own[0]
        for coordinate, stride in zip(coordinates[1:], own[1:], strict=True):
            total = total + coordinate * stride
        result.append(total)
    return tuple(result)


class Args:
    """Hands out a kernel's argument slots in order."""

    def __init__(self, b: KernelBuilder) -> None:
        self._b = b
        self._next = 0

    def _take(self) -> int:
        self._next += 1
        return self._next - 1

    def ptr(self) -> Val:
        """The next slot, a buffer."""
        return self._b.arg_ptr(self._take())

    def int(self) -> Val:
        """The next slot, an integer."""
        return self._b.arg_int(self._take())

    def f32(self) -> Val:
        """The next slot, an f32."""
        return self._b.arg_f32(self._take())

    def ints(self, count: int) -> list[Val]:
        """The next `count` slots, integers."""
        return [self.int() for _ in range(count)]
