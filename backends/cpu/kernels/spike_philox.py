"""Spikes at a rate: the same pseudo-random numbers on every machine, from counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i8, i32, i64
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.strided import Args, load_elements, store_elements

ROUNDS = 10
WORDS = 4
"""Numbers from one counter."""
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class SpikeRateKernel(KernelSpec):
    """events[i] = u < x[i], u from Philox4x32-10 with the key `seed` and the counter (i div 4, step).

    Slots: x (f32), events (int8), elements, step. Work: ⌈elements / 4⌉ counters. Source of the numbers: Salmon et al.,
    "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

    Attributes:
        seed: the key.
        clock: the step's slot is the address of an i64 that says it.
    """

    seed: int
    clock: bool = False
    family: ClassVar[str] = "spike_rate"
    written = (1,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """A vector of counters at a time."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        x, events, count = args.ptr(), args.ptr(), args.int()
        step = b.load(args.ptr(), i64) if self.clock else args.int()
        with b.loop(b.begin, b.end, b.lanes) as loop:
            # Counters past this thread's are computed and not stored.
            numbers = _interleave(b, self._words(b, loop.i, step))
            for word, value in enumerate(numbers):
                first = loop.i * WORDS + word
                lanes = value.lanes
                left = b.min(count, b.end * WORDS) - first
                mask = b.mask_below(left, lanes)
                u = b.sitofp(value >> 8, f32) * (2.0**-24)
                rates = load_elements(b, x, first, "f32", lanes, mask)
                store_elements(b, b.zext(b.fcmp("olt", u, rates), i8), events, first, "i8", mask)
        return b.finish()

    def _words(self, b: KernelBuilder, counter: Val, step: Val) -> list[Val]:
        """Four vectors: the words of neighbouring counters."""
        lanes = b.lanes
        places = b.splat(counter, lanes) + b.vec_const(range(lanes), i64)
        later = b.splat(step, lanes)
        c = [places & _LOW, places >> 32, later & _LOW, later >> 32]
        keys = [self.seed & _LOW, (self.seed >> 32) & _LOW]
        for _ in range(ROUNDS):
            products = [c[0] * _MULTIPLIERS[0], c[2] * _MULTIPLIERS[1]]
            c = [
                (products[1] >> 32) ^ c[1] ^ keys[0],
                products[1] & _LOW,
                (products[0] >> 32) ^ c[3] ^ keys[1],
                products[0] & _LOW,
            ]
            keys = [(key + weyl) & _LOW for key, weyl in zip(keys, _WEYL, strict=True)]
        return [b.trunc(word, i32) for word in c]


def _interleave(b: KernelBuilder, words: list[Val]) -> list[Val]:
    """One vector, whose lane 4·k + w is lane k of vector w; scalars stay four."""
    if b.lanes == 1:
        return words
    return [_zip(b, _zip(b, words[0], words[2]), _zip(b, words[1], words[3]))]


def _zip(b: KernelBuilder, x: Val, y: Val) -> Val:
    lanes = x.lanes
    return b.shuffle(x, y, [lane for k in range(lanes) for lane in (k, lanes + k)])
