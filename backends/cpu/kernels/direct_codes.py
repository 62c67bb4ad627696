"""From packed bytes to codes: how each byte code of `packing/direct.py` is taken apart in registers. No products here.

`planes` gives the planes of a vector of packed bytes one after the other, as vectors of as many bytes. A code may stay
at its place in the byte, a factor of two to some power, if that spares a shift: `shifts` says which power.

`halves` does the same for a vector whose 16-bit words hold one packed byte each; what it gives are words. For `thirds`
they are not the codes but the leading digits, whose products come out right with activations that
`neuc.backends.cpu.kernels.direct_words` has prepared for that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from neuc.backends.cpu.builder import KernelBuilder, Val, i8, i16, i32, vec, with_elem
from neuc.backends.cpu.packing.direct import DirectLayout
from neuc.backends.cpu.packing.t5 import FIRST, FRACTION, PLANES, SECOND
from neuc.errors import InternalError

BYTE = 8
_OR_AND, _XOR_AND = 0xA8, 0x28
"""Truth tables of (a | b) & c and (a ^ b) & c, bit 4a + 2b + c."""


class Codes(ABC):
    """How bytes are read.

    Attributes:
        signed: whether codes are signed bytes.
        most_vectors: how many vectors are taken apart at a time when several tokens need the registers, too.
        most_alone: how many for one token.
        most_in_order: how many for one token where weights are best read in the order that they have.
    """

    signed = False
    most_vectors = 4
    most_alone = 16
    most_in_order = 16

    @abstractmethod
    def planes(self, b: KernelBuilder, packed: Val, window: int) -> Iterator[Val]:
        """Codes of each plane; those within `window` bits of one another are moved down together or not at all."""

    def shifts(self, window: int) -> tuple[int, ...]:
        """For each plane, the power of two that its codes are multiplied by."""
        raise InternalError(f"{type(self).__name__} is not read as bytes")

    def halves(self, b: KernelBuilder, half: Val, window: int) -> Iterator[Val]:
        """Of words with a byte each, what is multiplied for each plane."""
        raise InternalError(f"{type(self).__name__} is not read as words")


@dataclass(frozen=True)
class FieldCodes(Codes):
    """`i2`, `i4` and `u8`: fields of `bits` bits, plane 0 lowest."""

    bits: int

    def planes(self, b: KernelBuilder, packed: Val, window: int) -> Iterator[Val]:
        """A mask each, and a shift for each window."""
        moved = packed
        for place in range(0, BYTE, self.bits):
            if place >= window and place % window == 0:
                moved = shifted(b, packed, place)
            yield moved & b.const(self._mask << place % window, packed.type)

    def shifts(self, window: int) -> tuple[int, ...]:
        """The place in the window."""
        return tuple(place % window for place in range(0, BYTE, self.bits))

    def halves(self, b: KernelBuilder, half: Val, window: int) -> Iterator[Val]:
        """As `planes`."""
        for place in range(0, BYTE, self.bits):
            moved = half >> (place - place % window) if place >= window else half
            yield moved & b.const(self._mask << place % window, half.type)

    @property
    def _mask(self) -> int:
        return (1 << self.bits) - 1


class SignedCodes(Codes):
    """`i8`: the byte is the weight."""

    signed = True

    def planes(self, b: KernelBuilder, packed: Val, window: int) -> Iterator[Val]:
        """As it is."""
        yield packed

    def shifts(self, window: int) -> tuple[int, ...]:
        """No factor."""
        return (0,)

    def halves(self, b: KernelBuilder, half: Val, window: int) -> Iterator[Val]:
        """The byte's sign, too."""
        yield (half << BYTE).ashr(BYTE)


class TableCodes(Codes):
    """`t5` by two look-ups in 64 bytes."""

    # Accumulators of two vectors, tables, masks and what is unpacked fill the registers. With four, one register is
    # stored and loaded in each step, which costs less than reading half of the bytes at a time.
    most_alone = 2
    most_in_order = 4

    def planes(self, b: KernelBuilder, packed: Val, window: int) -> Iterator[Val]:
        """See `packing/t5.py`."""
        first = _look_up(b, FIRST, packed)
        second = _look_up(b, SECOND, shifted(b, packed, 2))
        yield first & b.const(3, packed.type)
        for place, both in ((2, _OR_AND), (4, _OR_AND), (6, _XOR_AND)):
            field = _masked(b, first, second, b.const(3 << place, packed.type), both)
            yield field if place < window else shifted(b, field, place)
        yield second & b.const(3, packed.type)

    def shifts(self, window: int) -> tuple[int, ...]:
        """The place in the byte, or none."""
        return tuple(place if place < window else 0 for place in (0, 2, 4, 6, 0))


class ThirdCodes(Codes):
    """`t5` as numbers to the base of three."""

    most_vectors = 2

    def planes(self, b: KernelBuilder, packed: Val, window: int) -> Iterator[Val]:
        """Digits of 16-bit fractions, of even and odd bytes apart, each product's carry."""
        numbers = b.bitcast(packed, vec(i16, packed.lanes // 2))
        low_byte = b.const(0xFF, numbers.type)
        halves = (numbers & low_byte, numbers >> BYTE)
        for plane in range(PLANES):
            even, odd = (half * b.const(FRACTION * 3**plane % (1 << 16), numbers.type) for half in halves)
            # The odd bytes' carry goes to the upper half of the word, with what remains below it.
            upper = high_product(b, odd, 3 << BYTE) & b.const(0xFF00, numbers.type)
            yield b.bitcast(high_product(b, even, 3) | upper, packed.type)

    def shifts(self, window: int) -> tuple[int, ...]:
        """No factors."""
        return (0,) * PLANES

    def halves(self, b: KernelBuilder, half: Val, window: int) -> Iterator[Val]:
        """The number's quotients: its first digit, its first two digits as one number, and so on."""
        for divisor in (81, 27, 9, 3):
            yield high_product(b, half, -(-(1 << 16) // divisor))
        yield half


def codes_of(layout: DirectLayout) -> Codes:
    """How the bytes of a layout are read."""
    match layout.code:
        case "i2":
            return FieldCodes(2)
        case "i4":
            return FieldCodes(4)
        case "u8":
            return FieldCodes(8)
        case "i8":
            return SignedCodes()
        case "t5_tables":
            return TableCodes()
        case "t5_thirds":
            return ThirdCodes()


def high_product(b: KernelBuilder, x: Val, factor: int) -> Val:
    """Upper halves of unsigned products of 16-bit words."""
    wide = b.zext(x, i32) * b.const(factor, with_elem(x.type, i32))
    return b.trunc(wide >> 16, i16)


def shifted(b: KernelBuilder, packed: Val, count: int) -> Val:
    """Bytes moved down; what comes in from above is left to a mask."""
    if b.isa.arch == "aarch64":
        return packed >> count
    return b.bitcast(b.bitcast(packed, vec(i16, packed.lanes // 2)) >> count, packed.type)


def _masked(b: KernelBuilder, first: Val, second: Val, mask: Val, both: int) -> Val:
    """`(first | second) & mask` or `(first ^ second) & mask`: one instruction with AVX-512, which LLVM makes two of."""
    if not b.isa.has_vbmi:
        return (first | second if both == _OR_AND else first ^ second) & mask
    words = vec(i32, mask.lanes // 4)
    operands = [*(b.bitcast(value, words) for value in (first, second, mask)), b.i32(both)]
    return b.bitcast(b.intrinsic("llvm.x86.avx512.pternlog.d.512", words, operands), mask.type)


def _look_up(b: KernelBuilder, table: tuple[int, ...], index: Val) -> Val:
    """Entries of a table of 64 bytes; only six bits of the index count."""
    if b.isa.has_vbmi:
        return b.intrinsic("llvm.x86.avx512.permvar.qi.512", index.type, [b.const(table, index.type), index])
    parts = [b.const(table[at : at + 16], index.type) for at in range(0, 64, 16)]
    return b.intrinsic("llvm.aarch64.neon.tbl4.v16i8", index.type, [*parts, index & b.const(63, vec(i8, 16))])
