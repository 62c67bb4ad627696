"""`dense.rotary`: pairs of a head's elements turned by the angles of their token."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f32
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.strided import Args, chunks, load_elements, store_elements


@dataclass(frozen=True)
class RotaryKernel(KernelSpec):
    """Slots: 0 x (f32 [S, H, D]), 1 cos, 2 sin (f32 [S, D/2]), 3 out, 4 H, 5 D/2. Work units: S · H.

    Attributes:
        interleaved: pairs are (2i, 2i + 1), not (i, i + D/2).
    """

    interleaved: bool = False

    family = "rotary"
    written = (3,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """One head of a token a unit."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        x, cos, sin, out, heads, half = args.ptr(), args.ptr(), args.ptr(), args.ptr(), args.int(), args.int()
        with b.loop(b.begin, b.end) as unit:
            angles = b.udiv(unit.i, heads) * half
            here, there = (b.elem(base, unit.i * half * 2, f32) for base in (x, out))
            c, s = b.elem(cos, angles, f32), b.elem(sin, angles, f32)
            if self.interleaved:
                self._interleaved(b, here, there, c, s, half)
            else:
                self._halves(b, here, there, c, s, half)
        return b.finish()

    def _halves(self, b: KernelBuilder, here: Val, there: Val, cos: Val, sin: Val, half: Val) -> None:
        def step(j: Val, _: list[Val], mask: Val | None, lanes: int) -> list[Val]:
            first, second, c, s = (
                load_elements(b, base, at, "f32", lanes, mask)
                for base, at in ((here, j), (here, j + half), (cos, j), (sin, j))
            )
            store_elements(b, first * c - second * s, there, j, "f32", mask)
            store_elements(b, second * c + first * s, there, j + half, "f32", mask)
            return []

        chunks(b, b.i64(0), half, b.lanes, step)

    def _interleaved(self, b: KernelBuilder, here: Val, there: Val, cos: Val, sin: Val, half: Val) -> None:
        """Vectors of pairs as long as they are whole, then pair by pair."""
        whole = b.udiv(half, b.lanes) * b.lanes
        for lanes, lo, hi in ((b.lanes, b.i64(0), whole), (1, whole, half)):
            with b.loop(lo, hi, lanes) as loop:
                at = loop.i * 2
                pairs = [load_elements(b, here, at + part * lanes, "f32", lanes) for part in range(2)]
                c, s = (load_elements(b, base, loop.i, "f32", lanes) for base in (cos, sin))
                if lanes == 1:
                    first, second = pairs
                else:
                    first, second = (b.shuffle(pairs[0], pairs[1], range(odd, 2 * lanes, 2)) for odd in range(2))
                turned = first * c - second * s, second * c + first * s
                if lanes > 1:
                    order = [lane for i in range(lanes) for lane in (i, lanes + i)]
                    turned = tuple(b.shuffle(*turned, order[part * lanes : (part + 1) * lanes]) for part in range(2))
                for part, value in enumerate(turned):
                    store_elements(b, value, there, at + part * lanes, "f32")
