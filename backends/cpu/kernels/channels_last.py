"""Images as [N, padded positions, channels]: what convolutions that read whole windows as runs of bytes start from."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, i8, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec

RUN = 256
"""Neighbouring positions per work unit."""
_SQUARE = 16


@dataclass(frozen=True)
class ChannelsLastKernel(KernelSpec):
    """Slots: 0 q (int8 [N, channels, …spatial]), 1 out (int8 [N, …padded spatial, channels]), 2 channels,

    then the spatial sizes, then the padded ones. Work units: N x the outer padded positions (all axes but the last) x
    ceil(last padded size / `RUN`). Padding is zero.

    Attributes:
        pads: positions before the first, per axis; what comes after the last follows from the sizes.
    """

    pads: tuple[int, ...]

    family = "channels_last"
    written = (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Zeros before and after, squares of bytes transposed in registers between."""
        b, rank = KernelBuilder(self.name, isa), len(self.pads)
        channels = b.arg_int(2)
        sizes = [b.arg_int(3 + axis) for axis in range(rank)]
        padded = [b.arg_int(3 + rank + axis) for axis in range(rank)]
        runs = b.udiv(padded[-1] + (RUN - 1), RUN)
        plane = b.i64(1)
        for size in sizes:
            plane = plane * size
        with b.loop(b.begin, b.end) as unit:
            line = b.udiv(unit.i, runs)
            first = (unit.i - line * runs) * RUN
            until = b.min(first + RUN, padded[-1])
            image, here, scale = line, b.i64(0), sizes[-1]
            inside = b.icmp("eq", here, 0)
            for axis in range(rank - 2, -1, -1):
                following = b.udiv(image, padded[axis])
                at = image - following * padded[axis] - self.pads[axis]
                # Unsigned, so that one comparison also finds what is before the start.
                inside = inside & b.icmp("ult", at, sizes[axis])
                here, scale, image = here + at * scale, scale * sizes[axis], following
            low = b.min(b.max(b.i64(self.pads[-1]), first), until)
            high = b.select(inside, b.max(b.min(sizes[-1] + self.pads[-1], until), low), low)
            out = b.ptr(b.arg_ptr(1), line * padded[-1] * channels)
            _zeros(b, b.ptr(out, first * channels), (low - first) * channels)
            _zeros(b, b.ptr(out, high * channels), (until - high) * channels)
            source = b.ptr(b.arg_ptr(0), image * channels * plane + here + (low - self.pads[-1]))
            _transpose(b, source, plane, b.ptr(out, low * channels), channels, high - low)
        return b.finish()


def _zeros(b: KernelBuilder, address: Val, count: Val) -> None:
    whole = count - b.urem(count, 16)
    with b.loop(0, whole, 16) as at:
        b.store(b.zero(vec(i8, 16)), b.ptr(address, at.i))
    with b.loop(whole, count) as at:
        b.store(b.const(0, i8), b.ptr(address, at.i))


def _transpose(b: KernelBuilder, source: Val, stride: Val, target: Val, channels: Val, count: Val) -> None:
    """Bytes [channels, count], lines `stride` apart, to [count, channels]."""
    large = b.icmp("sge", channels, _SQUARE) & b.icmp("sge", count, _SQUARE)
    with b.if_(large) as branch:
        # The last squares overlap those before: they write the same bytes again.
        with b.loop(0, channels, _SQUARE) as c:
            channel = b.min(c.i, channels - _SQUARE)
            lines = b.ptr(source, channel * stride)
            with b.loop(0, count, _SQUARE) as x:
                at = b.min(x.i, count - _SQUARE)
                rows = [b.load(b.ptr(lines, at + stride * i), vec(i8, _SQUARE)) for i in range(_SQUARE)]
                for i, column in enumerate(_transposed(b, rows)):
                    b.store(column, b.ptr(target, (at + i) * channels + channel))
    with branch.else_(), b.loop(0, channels) as c, b.loop(0, count) as x:
        b.store(b.load(b.ptr(source, c.i * stride + x.i), i8), b.ptr(target, x.i * channels + c.i))


def _transposed(b: KernelBuilder, rows: list[Val]) -> list[Val]:
    """Interleaving row i with row i + n/2, as often as n can be halved, transposes."""
    n = len(rows)
    low = [lane // 2 + n * (lane % 2) for lane in range(n)]
    high = [lane + n // 2 for lane in low]
    for _ in range(n.bit_length() - 1):
        rows = [b.shuffle(rows[i // 2], rows[i // 2 + n // 2], high if i % 2 else low) for i in range(n)]
    return rows
