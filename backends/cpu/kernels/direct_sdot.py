"""Direct products with AArch64's `sdot`: signed codes by signed activations, four a lane, into int32."""

from __future__ import annotations

from xdsl.ir import Attribute

from neuc.backends.cpu.builder import Val, i8, i32, vec
from neuc.backends.cpu.kernels.direct_base import DirectEmitter
from neuc.backends.cpu.packing.direct import QUAD

_VECTOR = 16


class SdotEmitter(DirectEmitter[list[Val]]):
    """Vectors of 4 rows."""

    token_sizes = (8, 4, 1)
    accumulators = 8

    def windows(self, tokens: int) -> tuple[int, ...]:
        """Codes stay below 128, lest they be negative."""
        return (4, 2)

    def taken(self, step: Val, token: int) -> list[Val]:
        """Four planes in a register, of which `sdot` takes a lane; what is left over in every lane."""
        b, planes = self.b, self.layout.planes
        whole = planes // 4 * 4
        row = b.ptr(step, token * self.row_bytes)
        lanes = [b.load(b.ptr(row, QUAD * plane), vec(i32, 4)) for plane in range(0, whole, 4)]
        quads = [b.shuffle(lanes[plane // 4], None, [plane % 4] * 4) for plane in range(whole)]
        quads += [b.splat(b.load(b.ptr(row, QUAD * plane), i32), 4) for plane in range(whole, planes)]
        return [b.bitcast(quad, vec(i8, _VECTOR)) for quad in quads]

    def multiply(self, total: Val, codes: tuple[Val, ...], x: list[Val], plane: int) -> Val:
        """One instruction."""
        return self.b.intrinsic("llvm.aarch64.neon.sdot.v4i32.v16i8", self.partial, [total, *codes, x[plane]])

    @property
    def partial(self) -> Attribute:
        """One lane a row."""
        return vec(i32, _VECTOR // QUAD)
