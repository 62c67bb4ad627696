"""Lists of what is active: the part that spiking kernels share, and the layout of spike trains in memory.

A **train** is ``[batch, frames, neurons]`` of 32-bit **frames**: the events of four steps of one neuron, byte s that of
step ``4·frame + s`` (int8). Steps past the last are 0. One comparison tells whether a neuron is silent in four steps,
binary events of four steps are one number below 16, and signed, graded and counted events have the same place as
binary ones. No arithmetic on currents lives here.
"""

from __future__ import annotations

from xdsl.ir import Attribute

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i16, i32, i64, vec
from neuc.backends.cpu.kernels.strided import chunks

FRAME = 4
"""Steps in a frame."""
FRAME_BYTES = 4
PATTERNS = 1 << FRAME
"""What four binary events can be."""
_GATHER_BITS = 0x10204080
"""Times a frame of bits 0, 8, 16 and 24: those bits side by side on top."""


def frames_of(steps: int) -> int:
    """Frames that hold so many steps."""
    return -(-steps // FRAME)


def compact(b: KernelBuilder, source: Val, count: int, indices: Val, values: Val, element: Attribute) -> Val:
    """Write the places and the values of what is not zero among ``source[0 … count-1]``; how many there are.

    Args:
        b: the builder.
        source: address of i32 or f32 elements.
        count: how many.
        indices: where i32 places go, in order; room for `count` and one vector more.
        values: where the values go, likewise.
        element: i32 or f32.
    """
    if b.isa.name == "avx512":
        return _compact_vectors(b, source, count, indices, values, element)
    with b.loop(0, count, init=[b.i64(0)]) as loop:
        found = loop.carried[0]
        value = b.load(b.elem(source, loop.i, element), element)
        # No branch: what is zero is written, too, and then overwritten.
        b.store(b.trunc(loop.i, i32), b.elem(indices, found, i32))
        b.store(value, b.elem(values, found, element))
        active = b.fcmp("une", value, 0.0) if element == f32 else b.icmp("ne", value, 0)
        loop.yield_([found + b.zext(active, i64)])
    return loop.results[0]


def _compact_vectors(b: KernelBuilder, source: Val, count: int, indices: Val, values: Val, element: Attribute) -> Val:
    lanes = b.lanes
    wide, places = vec(element, lanes), b.vec_const(range(lanes), i32)

    def step(at: Val, found: Val, mask: Val | None) -> Val:
        address = b.elem(source, at, element)
        value = b.load(address, wide) if mask is None else b.masked_load(address, wide, mask)
        active = b.fcmp("une", value, 0.0) if element == f32 else b.icmp("ne", value, 0)
        here = b.splat(b.trunc(at, i32), lanes) + places
        b.intrinsic(f"llvm.masked.compressstore.v{lanes}i32", None, [here, b.elem(indices, found, i32), active])
        kind = "f32" if element == f32 else "i32"
        b.intrinsic(f"llvm.masked.compressstore.v{lanes}{kind}", None, [value, b.elem(values, found, element), active])
        bits = b.bitcast(active, i16)
        return found + b.zext(b.intrinsic("llvm.ctpop.i16", i16, [bits]), i64)

    whole = count - count % lanes
    with b.loop(0, whole, lanes, [b.i64(0)]) as loop:
        loop.yield_([step(loop.i, loop.carried[0], None)])
    found = loop.results[0]
    if count % lanes:
        found = step(b.i64(whole), found, b.mask_below(b.i64(count % lanes), lanes))
    return found


def list_columns(b: KernelBuilder, source: Val, rows: int, count: int, places: Val) -> Val:
    """Write the places of the columns of ``source[rows, count]`` that are not all zero bits; how many there are.

    Args:
        b: the builder.
        source: address of elements of 32 bits. -0.0 has a bit: it is listed, and adds nothing.
        rows: how many.
        count: columns.
        places: where i32 places go, in order; room for `count` and one vector more.
    """

    def step(at: Val, carried: list[Val], mask: Val | None, lanes: int) -> list[Val]:
        found = carried[0]
        wide = i32 if lanes == 1 else vec(i32, lanes)
        bits: Val | None = None
        for row in range(rows):
            address = b.elem(source, at + row * count, i32)
            value = b.load(address, wide) if mask is None else b.masked_load(address, wide, mask)
            bits = value if bits is None else bits | value
        assert bits is not None
        active = b.icmp("ne", bits, 0)
        if lanes == 1:
            # No branch: a column of zeros is written, too, and then overwritten.
            b.store(b.trunc(at, i32), b.elem(places, found, i32))
            return [found + b.zext(active, i64)]
        here = b.splat(b.trunc(at, i32), lanes) + b.vec_const(range(lanes), i32)
        b.intrinsic(f"llvm.masked.compressstore.v{lanes}i32", None, [here, b.elem(places, found, i32), active])
        return [found + b.zext(b.intrinsic("llvm.ctpop.i16", i16, [b.bitcast(active, i16)]), i64)]

    lanes = b.lanes if b.isa.name == "avx512" else 1
    return chunks(b, b.i64(0), b.i64(count), lanes, step, [b.i64(0)])[0]


def sort_by_pattern(b: KernelBuilder, indices: Val, frames: Val, count: Val, lists: Val, room: int, ends: Val) -> None:
    """Put the places of active binary neurons into one list for each pattern of four steps.

    Args:
        b: the builder.
        indices: places of active neurons (i32).
        frames: their frames (i32).
        count: how many there are.
        lists: `PATTERNS` lists of `room` i32 each; pattern p's begins at element ``p·room``.
        room: how many neurons there are at most.
        ends: `PATTERNS` i64; how long each list is.
    """
    for pattern in range(PATTERNS):
        b.store(b.i64(0), b.elem(ends, pattern, i64))
    with b.loop(0, count) as loop:
        frame = b.load(b.elem(frames, loop.i, i32), i32)
        pattern = b.zext((frame * _GATHER_BITS) >> (32 - FRAME), i64)
        end = b.elem(ends, pattern, i64)
        length = b.load(end, i64)
        place = b.load(b.elem(indices, loop.i, i32), i32)
        b.store(place, b.elem(lists, pattern * room + length, i32))
        b.store(length + 1, end)
