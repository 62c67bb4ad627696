"""Sliding windows, shared by conv, depthwise and pool: their geometry, and vector loads that know about padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i1, i32, vec

F32 = 4
_WIDEST_STEP = 4
"""Strides up to this one load whole vectors and drop what is between; beyond, element by element."""


@dataclass(frozen=True)
class Window:
    """A window on 1 to 3 spatial axes, outermost first.

    Attributes:
        taps: kernel size on each axis.
        strides: distance of neighbouring windows.
        pads: padding before each axis (what follows the axis is implied by the output size).
        dilations: distance of neighbouring taps.
    """

    taps: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.taps)

    @property
    def count(self) -> int:
        """Number of taps."""
        total = 1
        for taps in self.taps:
            total *= taps
        return total


def multi_index(b: KernelBuilder, index: Val, sizes: Sequence[Val]) -> list[Val]:
    """A row-major flat index as one index for each axis."""
    found: list[Val] = []
    for size in reversed(sizes[1:]):
        found.append(b.urem(index, size))
        index = b.udiv(index, size)
    return [index, *reversed(found)]


def at_least_one(b: KernelBuilder, sizes: Sequence[Val]) -> list[Val]:
    """Sizes that can be divided by; empty tensors have no units, but divisions come before the first."""
    return [b.max(size, 1) for size in sizes]


def product_of(b: KernelBuilder, sizes: Sequence[Val]) -> Val:
    """The product of run-time sizes."""
    total = b.i64(1)
    for size in sizes:
        total = total * size
    return total


def run_mask(b: KernelBuilder, first: Val, width: Val, step: int) -> Val | None:
    """Which of the elements that `load_run` reads exist: where masks are free, to be made once for many rows."""
    if not b.isa.has_masks or step > _WIDEST_STEP:
        return None
    places = b.splat(b.trunc(first, i32), b.lanes * step) + b.vec_const(range(b.lanes * step), i32)
    return b.icmp("ult", places, b.splat(b.trunc(width, i32), b.lanes * step))


def load_run(b: KernelBuilder, row: Val, first: Val, width: Val, step: int, fill: Val, mask: Val | None = None) -> Val:
    """Elements ``first, first + step, …`` of a row of ``width`` f32, one a lane; `fill` where there is none.

    ``first`` may be negative and the run may reach past the end: what is outside is not read. `mask` is `run_mask`'s,
    if that was asked.
    """
    lanes = b.lanes
    if lanes == 1:
        return b.masked_load(b.elem(row, first, f32), f32, b.icmp("ult", first, width), fill)
    if step > _WIDEST_STEP:
        found = fill
        for lane in range(lanes):
            at = first + lane * step
            element = b.masked_load(b.elem(row, at, f32), f32, b.icmp("ult", at, width), b.extract(fill, lane))
            found = b.insert(found, element, lane)
        return found
    wide = lanes * step
    type_ = vec(f32, wide)
    spread = fill if step == 1 else b.shuffle(fill, None, [0] * wide)

    def masked(mask: Val) -> Val:
        return b.masked_load(b.elem(row, first, f32), type_, mask, spread)

    if (there := run_mask(b, first, width, step) if mask is None else mask) is not None:
        found = masked(there)
    else:
        # Without mask registers the masked load is slow: take it at the borders only.
        inside = b.icmp("sge", first, 0) & b.icmp("sle", first + wide, width)
        with b.if_(inside) as branch:
            branch.yield_([b.load(b.elem(row, first, f32), type_)])
        with branch.else_():
            places = b.splat(b.trunc(first, i32), wide) + b.vec_const(range(wide), i32)
            branch.yield_([masked(b.icmp("ult", places, b.splat(b.trunc(width, i32), wide)))])
        found = branch.results[0]
    return found if step == 1 else b.shuffle(found, None, range(0, wide, step))


def store_run(b: KernelBuilder, value: Val, address: Val, left: Val) -> None:
    """Store a vector, or its first ``left`` lanes if there are fewer."""
    if b.isa.has_masks:
        b.masked_store(value, address, b.mask_below(left, b.lanes))
        return
    with b.if_(b.icmp("sge", left, b.lanes)) as branch:
        b.store(value, address)
    with branch.else_():
        b.masked_store(value, address, b.mask_below(left, b.lanes))


def visit_rows(
    b: KernelBuilder,
    window: Window,
    image: Val,
    outer: Sequence[Val],
    sizes: Sequence[Val],
    body: Callable[[Val, Val, list[Val]], list[Val]],
    init: list[Val],
) -> list[Val]:
    """Visit the input rows under a window: all taps of the outer axes that do not lie in the padding.

    Args:
        b: the builder.
        window: the geometry.
        image: address of the first spatial element.
        outer: the output position on every axis but the innermost.
        sizes: the input's spatial sizes.
        body: called with (flat index of the outer taps, address of the input row, carried values); gives the next.
        init: carried values at first.

    Returns:
        The carried values after the last row.
    """
    count = window.count // window.taps[-1]
    with b.loop(0, count, init=init) as loop:
        taps = multi_index(b, loop.i, [b.i64(taps) for taps in window.taps[:-1]]) if window.rank > 1 else []
        inside, flat = b.const(1, i1), b.i64(0)
        for axis, (position, tap) in enumerate(zip(outer, taps)):
            place = position * window.strides[axis] - window.pads[axis] + tap * window.dilations[axis]
            inside = inside & b.icmp("ult", place, sizes[axis])
            flat = flat * sizes[axis] + place
        with b.if_(inside) as branch:
            branch.yield_(body(loop.i, b.ptr(image, flat * sizes[-1] * F32), loop.carried))
        with branch.else_():
            branch.yield_(loop.carried)
        loop.yield_(branch.results)
    return loop.results


def count_inside(b: KernelBuilder, window: Window, axis: int, position: Val, low: int, high: Val, lanes: int) -> Val:
    """How many taps of an axis fall on ``low .. high-1``, as f32, for `lanes` neighbouring positions."""
    stride, dilation = window.strides[axis], window.dilations[axis]
    first = b.splat(b.trunc(position * stride - window.pads[axis] - low, i32), lanes)
    first = first + b.vec_const([lane * stride for lane in range(lanes)], i32)
    limit = b.splat(b.trunc(high - low, i32), lanes)
    one, none = b.const(1.0, vec(f32, lanes)), b.zero(vec(f32, lanes))
    with b.loop(0, window.taps[axis], init=[none]) as loop:
        place = first + b.splat(b.trunc(loop.i * dilation, i32), lanes)
        loop.yield_([loop.carried[0] + b.select(b.icmp("ult", place, limit), one, none)])
    return loop.results[0]
