"""The instructions `lut_accumulate_bytes.py` is made of, for x86 (AVX2 or SSSE3) and AArch64."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

from neuc.backends.cpu.builder import KernelBuilder, Val, i8, i16, vec
from neuc.backends.cpu.packing.lut_code import ENTRIES

Words: TypeAlias = tuple[Val, Val]
"""Int16 sums of all byte lanes of a vector, in the order `ByteOps.join` leaves them."""


class ByteOps(ABC):
    """One instruction set: reads a table in every byte lane, applies signs, and joins bytes to int16.

    Args:
        b: where to write.
        lanes: byte lanes of a vector.
        at_once: how many vectors times tokens the registers hold sums of.
    """

    def __init__(self, b: KernelBuilder, lanes: int, at_once: int) -> None:
        self.b = b
        self.lanes = lanes
        self.at_once = at_once
        self.bytes = vec(i8, lanes)
        self.words = vec(i16, lanes // 2)

    @abstractmethod
    def table(self, address: Val) -> Val:
        """16 bytes, for all lanes."""

    @abstractmethod
    def look_up(self, table: Val, index: Val) -> Val:
        """The byte each lane names by a number below 16."""

    @abstractmethod
    def sign(self, bits: Val, place: int) -> Val:
        """What `add_signed` takes: minus in lanes where bit `place` is set."""

    @abstractmethod
    def add_signed(self, total: Val | None, value: Val, sign: Val) -> Val:
        """Total plus or minus value."""

    def add(self, total: Val | None, value: Val, sign: Val | None) -> Val:
        """Total plus value, or minus it where there is a sign that says so."""
        if sign is not None:
            return self.add_signed(total, value, sign)
        return value if total is None else total + value

    @abstractmethod
    def join(self, words: Words, low: Val, high: Val, base: int) -> Words:
        """Words + low + base·high, of int8 lanes."""

    @abstractmethod
    def in_order(self, words: Words) -> Words:
        """The sums of the even byte lanes, and those of the odd ones."""


def _name(b: KernelBuilder) -> str:
    return "llvm.x86.avx2.{}" if "avx2" in b.isa.features else "llvm.x86.ssse3.{}.128"


def multiply_pairs(b: KernelBuilder, unsigned: Val, signed: Val) -> Val:
    """x86's `pmaddubsw`: the sum of the products of each two neighbouring bytes, as int16; 16 or 32 bytes."""
    name, result = _name(b).format("pmadd.ub.sw"), vec(i16, unsigned.lanes // 2)
    if unsigned.lanes == 16 or "avx2" in b.isa.features:
        return b.intrinsic(name, result, [unsigned, signed])
    halves = ([b.slice(x, half, 16) for x in (unsigned, signed)] for half in (0, 16))
    return b.concat(*(b.intrinsic(name, vec(i16, 8), half) for half in halves))


class X86Ops(ByteOps):
    """`pshufb`, `psignb`, `pmaddubsw` on 256 (AVX2) or 128 (SSSE3) bits."""

    def __init__(self, b: KernelBuilder) -> None:
        wide = "avx2" in b.isa.features
        super().__init__(b, 32 if wide else 16, at_once=2)
        self._name = _name(b)

    def table(self, address: Val) -> Val:
        """Repeated in both halves of 256 bits."""
        entries = self.b.load(address, vec(i8, ENTRIES))
        return entries if self.lanes == ENTRIES else self.b.concat(entries, entries)

    def look_up(self, table: Val, index: Val) -> Val:
        """`pshufb`."""
        return self.b.intrinsic(self._name.format("pshuf.b"), self.bytes, [table, index])

    def sign(self, bits: Val, place: int) -> Val:
        """The bit moved to the byte's sign, for `psignb`: it negates below zero and clears where it is zero.

        So bit 0 is set, after its own sign has been used. Bits that cross into the next byte stay below its sign.
        """
        b, one = self.b, self.b.const(1, self.bytes)
        if place == 0:
            return b.bitcast(b.bitcast(bits, self.words) << 7, self.bytes) | one
        return b.bitcast(b.bitcast(bits | one, self.words) << (7 - place), self.bytes) if place < 7 else bits | one

    def add_signed(self, total: Val | None, value: Val, sign: Val) -> Val:
        """`psignb`, `paddb`."""
        signed = self.b.intrinsic(self._name.format("psign.b"), self.bytes, [value, sign])
        return signed if total is None else total + signed

    def join(self, words: Words, low: Val, high: Val, base: int) -> Words:
        """`pmaddubsw` with zeros in every other lane: even lanes in the first vector, odd ones in the second."""
        return self._join(words[0], low, high, base, 0), self._join(words[1], low, high, base, 1)

    def _join(self, words: Val, low: Val, high: Val, base: int, odd: int) -> Val:
        for digit, weight in ((low, 1), (high, base)):
            keep = self.b.vec_const([weight if lane % 2 == odd else 0 for lane in range(self.lanes)], i8)
            words = words + multiply_pairs(self.b, keep, digit)
        return words

    def in_order(self, words: Words) -> Words:
        """They are."""
        return words


class NeonOps(ByteOps):
    """`tbl` and `mla` on 128 bits; LLVM makes `saddw` and `smlal` of the widening sums."""

    def __init__(self, b: KernelBuilder) -> None:
        super().__init__(b, 16, at_once=4)

    def table(self, address: Val) -> Val:
        """As it is."""
        return self.b.load(address, self.bytes)

    def look_up(self, table: Val, index: Val) -> Val:
        """`tbl`."""
        return self.b.intrinsic("llvm.aarch64.neon.tbl1.v16i8", self.bytes, [table, index])

    def sign(self, bits: Val, place: int) -> Val:
        """±1, by `cmtst` and `orr`."""
        b = self.b
        chosen = b.icmp("ne", bits & b.const(1 << place, self.bytes), b.zero(self.bytes))
        return b.sext(chosen, i8) | b.const(1, self.bytes)

    def add_signed(self, total: Val | None, value: Val, sign: Val) -> Val:
        """`mla`."""
        return value * sign if total is None else total + value * sign

    def join(self, words: Words, low: Val, high: Val, base: int) -> Words:
        """The first eight lanes, and the others."""
        return self._join(words[0], low, high, base, 0), self._join(words[1], low, high, base, 8)

    def _join(self, words: Val, low: Val, high: Val, base: int, first: int) -> Val:
        b = self.b
        low, high = (b.sext(b.slice(digit, first, 8), i16) for digit in (low, high))
        return words + low + high * base

    def in_order(self, words: Words) -> Words:
        """`uzp1`, `uzp2`."""
        even, odd = (self.b.shuffle(*words, range(first, 16, 2)) for first in range(2))
        return even, odd


def byte_ops(b: KernelBuilder) -> ByteOps:
    """Those of the builder's instruction set, which has a byte shuffle."""
    return NeonOps(b) if b.isa.arch == "aarch64" else X86Ops(b)
