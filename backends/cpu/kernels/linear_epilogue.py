"""How a fused linear layer ends: sums of one token's rows to values, in registers. No products here.

y = 0; for each plane, for each scale group: y += f32(sum)·scale; then y·s, then + bias, each rounded once, then the
activation; all as `ternary.dequantize` says. Then perhaps the body of an element-wise operation that reads y.

Outputs that are too many for the second-level cache are written past the caches: a line that is written whole need not
be read before. With AMX a layer is 1.2 times as fast for that, and a decoder's prompt 1.1 times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from xdsl.ir import Attribute

from neuc.backends.cpu.builder import KernelBuilder, Operand, Val, f16, f32, i1, i32, vec
from neuc.backends.cpu.kernels.map_body import Instr, emit_body
from neuc.backends.cpu.kernels.map_half import half_to_float
from neuc.backends.cpu.kernels.ternary_dequantize import Epilogue
from neuc.backends.cpu.kernels.ternary_tiles import CACHE_LINE

_STREAMED = 1 << 20
"""From so many bytes on, half of a core's second-level cache, outputs are written past the caches."""

TailOperand = Literal["y", "full", "row", "scalar"]
"""Where a tail's operand comes from: the layer itself, f32 [tokens, N], f32 [N], or one f32."""


@dataclass(frozen=True)
class Tail:
    """An element-wise operation on the outputs.

    Attributes:
        body: its instructions, all f32 in and out.
        result: number of the value that is stored.
        operands: what they are, in the body's order.
    """

    body: tuple[Instr, ...]
    result: int
    operands: tuple[TailOperand, ...]

    @property
    def slots(self) -> int:
        """How many of them come in argument slots."""
        return sum(operand != "y" for operand in self.operands)


@dataclass(frozen=True)
class LinearPlaces:
    """Where a block of tokens and rows has what it ends with.

    Attributes:
        sums: [tokens, `stride`] of 4 bytes: int32 sums of the rows if there is one scale a row, else f32 Σ sum·scale.
        scales: of the block's rows, if there is one a row.
        first_token: number of the first token.
        first_row: number of the first row.
        stride: numbers from one token's sums to the next's.
        s: each token's activation scale (`LinearWriter.prepare`).
        low: what is to be added to each token's sums, int32, if anything.
        step: what sums are to be multiplied by before.
    """

    sums: Val
    scales: Val
    first_token: Val
    first_row: Val
    stride: int
    s: Val
    low: Val | None = None
    step: int = 1


@dataclass(frozen=True)
class LinearWriter:
    """Writes the end of a layer. Slots: 2 y, 4 s, 6 bias, 7 tokens that share one s, from 8 on the tail's operands.

    Attributes:
        b: where to write.
        epilogue: from sums to outputs.
        half: whether scales are f16.
        tail: what follows.
    """

    b: KernelBuilder
    epilogue: Epilogue
    half: bool
    tail: Tail | None

    @property
    def one_term(self) -> bool:
        """Whether there is one scale a row."""
        return self.epilogue.planes * self.epilogue.segments == 1

    def scales(self, scales: Val, row: Operand, lanes: int) -> Val:
        """Scales of neighbouring rows, as f32."""
        b = self.b
        if self.half:
            return half_to_float(b, b.load(b.elem(scales, row, f16), vec(f16, lanes)))
        return b.load(b.elem(scales, row, f32), vec(f32, lanes))

    def add_term(self, y: Val, sums: Val, scales: Val) -> Val:
        """Add f32(sums)·scales to y."""
        return y + self.b.sitofp(sums, f32) * scales

    def scales_from(self, scales: Val, row: Operand) -> Val:
        """Address of the scales from `row` on."""
        return self.b.elem(scales, row, f16 if self.half else f32)

    def prepare(self, first_token: Val, tokens: Val, s: Val) -> None:
        """Look up the activation scales of a block of tokens, to `s`: a division for each is better done once."""
        b = self.b
        with b.loop(0, tokens) as token:
            number = b.udiv(first_token + token.i, b.arg_int(7))
            b.store(b.load(b.elem(b.arg_ptr(4), number, f32), f32), b.elem(s, token.i, f32))

    def write(self, at: LinearPlaces, tokens: Val, rows: Val) -> None:
        """The outputs of so many tokens and rows."""
        b, n = self.b, self.epilogue.rows
        with b.loop(0, tokens) as token:
            number, of_token = at.first_token + token.i, self._of_token(at, token.i)
            whole = rows - b.urem(rows, b.lanes)
            with b.loop(0, whole, b.lanes) as row:
                b.store(*self._value(at, of_token, number, row.i, None))
            if n % b.lanes:
                with b.if_(b.icmp("slt", whole, rows)):
                    mask = b.mask_below(rows - whole, b.lanes)
                    b.masked_store(*self._value(at, of_token, number, whole, mask), mask)

    def write_panel(self, at: LinearPlaces, tokens: Val, rows: Val, vectors: int) -> None:
        """As `write`, for one scale a row and at most so many vectors of 16 rows, whose scales stay in registers."""
        b, lanes, whole = self.b, self.b.lanes, self._whole(vectors)
        scales = [self.scales(at.scales, vector * lanes, lanes) for vector in range(vectors)]
        streams = self._streams()
        masks = [b.mask_below(rows - vector * lanes, lanes) for vector in range(vectors)]
        with b.loop(0, tokens) as token:
            of_token = self._of_token(at, token.i)
            for vector, (scale, mask) in enumerate(zip(scales, masks, strict=True)):
                read = None if whole else mask
                y, target = self._value(at, of_token, at.first_token + token.i, b.i64(vector * lanes), read, scale)
                # Masked even where all rows are there: LLVM would make one store of two plain ones, past no cache.
                with b.if_(streams if whole else b.const(0, i1)) as branch:
                    b.intrinsic("llvm.x86.avx512.storent.ps.512", None, [target, y])
                with branch.else_():
                    b.masked_store(y, target, mask)

    def finish_panels(self) -> None:
        """Make streamed outputs seen before whatever tells other threads that they are there."""
        self.b.intrinsic("llvm.x86.sse.sfence", None, [])

    def fetch(self, at: LinearPlaces, tokens: Val, rows: Val, vectors: int) -> None:
        """Ask for the memory of outputs, to be written, and of the tail's operands, ahead of `write_panel`."""
        b, slot, read = self.b, 8, list[Val]()
        for operand in () if self.tail is None else self.tail.operands:
            if operand == "full":
                read.append(b.arg_ptr(slot))
            slot += operand != "y"
        streams = self._streams() if self._whole(vectors) else b.const(0, i1)
        with b.loop(0, tokens) as token, b.loop(0, rows, CACHE_LINE // 4) as row:
            number = (at.first_token + token.i) * self.epilogue.rows + at.first_row + row.i
            for base in read:
                self._ask(b.elem(base, number, f32), write=False)
            with b.if_(b.icmp("eq", streams, 0)):
                self._ask(b.elem(b.arg_ptr(2), number, f32), write=True)

    def _ask(self, address: Val, *, write: bool) -> None:
        b = self.b
        b.intrinsic("llvm.prefetch.p0", None, [address, b.i32(int(write)), b.i32(3), b.i32(1)])

    def _whole(self, vectors: int) -> bool:
        """Whether panels of so many vectors end with the rows."""
        return self.epilogue.rows % (vectors * self.b.lanes) == 0

    def _streams(self) -> Val:
        """Whether outputs are written past the caches: there are many, and lines are where lines should be."""
        b = self.b
        aligned = b.icmp("eq", b.arg_int(2) & (CACHE_LINE - 1), 0)
        return aligned & b.icmp("sge", b.arg_int(3), -(-_STREAMED // (4 * self.epilogue.rows)))

    def _of_token(self, at: LinearPlaces, token: Val) -> tuple[Val, Val, Val | None]:
        """Where a token's sums are; in every lane its scale, and what is to be added to its sums, if anything."""
        b = self.b
        s = b.splat(b.load(b.elem(at.s, token, f32), f32), b.lanes)
        low = None if at.low is None else b.splat(b.load(b.elem(at.low, token, i32), i32), b.lanes)
        return b.elem(at.sums, token * at.stride, i32), s, low

    def _value(
        self,
        at: LinearPlaces,
        of_token: tuple[Val, Val, Val | None],
        token: Val,
        row: Val,
        mask: Val | None,
        scale: Val | None = None,
    ) -> tuple[Val, Val]:
        """Outputs of `b.lanes` rows, and their address; scratch memory and packed scales are whole vectors."""
        b, e, n, (sums, s, low) = self.b, self.epilogue, at.first_row + row, of_token
        if self.one_term:
            total = b.load(b.elem(sums, row, i32), b.vtype(i32))
            total = total * at.step if at.step != 1 else total
            total = total if low is None else total + low
            scale = self.scales(at.scales, row, b.lanes) if scale is None else scale
            y = self.add_term(b.zero(b.vtype(f32)), total, scale)
        else:
            y = b.load(b.elem(sums, row, f32), b.vtype(f32))
        y = y * s
        if e.bias:
            y = y + self._load(b.elem(b.arg_ptr(6), n, f32), mask)
        y, place = e.activate(b, y), token * e.rows + n
        if self.tail is not None:
            y = emit_body(b, self.tail.body, self.tail.result, self._operands(self.tail, y, place, n, mask), b.lanes)
        return y, b.elem(b.arg_ptr(2), place, f32)

    def _operands(self, tail: Tail, y: Val, place: Val, n: Val, mask: Val | None) -> Sequence[Val]:
        b, slot, values = self.b, 8, list[Val]()
        for operand in tail.operands:
            if operand == "y":
                values.append(y)
                continue
            base = b.arg_ptr(slot)
            slot += 1
            if operand == "scalar":
                values.append(b.splat(b.load(base, f32), b.lanes))
            else:
                values.append(self._load(b.elem(base, place if operand == "full" else n, f32), mask))
        return values

    def _load(self, address: Val, mask: Val | None) -> Val:
        type_: Attribute = self.b.vtype(f32)
        return self.b.load(address, type_) if mask is None else self.b.masked_load(address, type_, mask)
