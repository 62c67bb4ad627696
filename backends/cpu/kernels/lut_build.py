"""`lut.build`: tables of all sums of g neighbouring int8 activations, in the layout the look-up kernel reads.

What entries there are says `packing/lut_code.py`. A table takes 32 bytes:

* quads: four tables side by side in 128 bytes, entries + bias cut in a low and a high byte: entry e of table j of the
  four is at byte 16·(e div 4) + 4·j + e mod 4 of the first (low) and the second (high) 64 bytes;
* bytes: entry + bias = base·h + l (`ByteSplit`): 16 int8 l, then 16 int8 h;
* words: 16 int16.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Operand, Val, i8, i16, i32, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.lut_bytes_ops import multiply_pairs
from neuc.backends.cpu.packing.lut import TABLE_BYTES, TableKind
from neuc.backends.cpu.packing.lut_code import ENTRIES, TableCode

_COPY = 16
GROUPS_PER_UNIT = 64
"""Tables per work unit."""
READ_PAST = 16
"""How far behind the last table's activations those may be that are read, too."""
_Q_BIAS = 128
"""Added to activations where an instruction multiplies unsigned by signed bytes, and taken out of the sums again."""


def table_arrays(q: np.ndarray, code: TableCode, groups: int) -> np.ndarray:
    """int32 [tokens, groups, 16]: what the tables of int8 rows [tokens, K] mean, whatever their layout."""
    padded = np.zeros((q.shape[0], max(groups * code.g, q.shape[1])), np.int32)
    padded[:, : q.shape[1]] = q
    return padded[:, : groups * code.g].reshape(q.shape[0], groups, code.g) @ code.digits().T.astype(np.int32)


@dataclass(frozen=True)
class LutBuildKernel(KernelSpec):
    """Slots: 0 q (int8 [tokens, columns]), 1 tables (out, 32 bytes x [tokens, groups]), 2 tokens.

    Work units: tokens x `units_per_token`. Scratch: `scratch`.

    Attributes:
        kind: table layout.
        columns: K.
        code: the entries.
        groups: tables per token, for `quads` a multiple of 4; those past K are of zero activations.
    """

    kind: TableKind
    columns: int
    code: TableCode
    groups: int

    family = "lut_build"
    written = (1,)

    @property
    def units_per_token(self) -> int:
        """Work units per row of activations."""
        return -(-self.groups // GROUPS_PER_UNIT)

    @property
    def scratch(self) -> int:
        """Bytes of scratch memory."""
        return self._copy_bytes + (4 * GROUPS_PER_UNIT if self.kind == "quads" else 0)

    @property
    def _copy_bytes(self) -> int:
        return -(-(GROUPS_PER_UNIT * self.code.g + READ_PAST) // _COPY) * _COPY

    def build(self, isa: Isa) -> llvm.FuncOp:
        """A loop over units; activations that end a row are copied, to be read past their end."""
        b, g = KernelBuilder(self.name, isa), self.code.g
        builder = TableBuilder(b, self.kind, self.code)
        with b.loop(b.begin, b.end) as unit:
            token = b.udiv(unit.i, self.units_per_token)
            first = (unit.i - token * self.units_per_token) * GROUPS_PER_UNIT
            count = b.min(self.groups - first, b.i64(GROUPS_PER_UNIT))
            source = b.ptr(b.arg_ptr(0), token * self.columns + first * g)
            needed = count * g + READ_PAST
            with b.if_(b.icmp("slt", self.columns - first * g, needed)) as last:
                here = b.max(b.min(self.columns - first * g, count * g), b.i64(0))
                whole = here - b.urem(here, _COPY)
                with b.loop(0, whole, _COPY) as copy:
                    b.store(b.load(b.ptr(source, copy.i), vec(i8, _COPY)), b.ptr(b.scratch, copy.i))
                with b.loop(whole, here) as copy:
                    b.store(b.load(b.ptr(source, copy.i), i8), b.ptr(b.scratch, copy.i))
                with b.loop(here, needed) as fill:
                    b.store(b.const(0, i8), b.ptr(b.scratch, fill.i))
                last.yield_([b.scratch])
            with last.else_():
                last.yield_([source])
            tables = b.ptr(b.arg_ptr(1), (token * self.groups + first) * TABLE_BYTES)
            if self.kind == "quads":
                spread = b.ptr(b.scratch, self._copy_bytes)
                builder.spread(last.results[0], spread, count)
                builder.tables(spread, tables, count, 4)
            else:
                builder.tables(last.results[0], tables, count, g)
        return b.finish()


class TableBuilder:
    """Writes the code that makes tables out of int8 activations, for `quads` made unsigned by a bias."""

    def __init__(self, b: KernelBuilder, kind: TableKind, code: TableCode) -> None:
        self.b = b
        self.kind = kind
        self.code = code
        self.bias = _Q_BIAS if kind == "quads" else 0
        """Exclusive-or of the activations it reads."""

    def spread(self, activations: Val, target: Val, count: Operand) -> None:
        """Biased activations of each four of `count` tables in 16 bytes.

        What a load of `tables` wants is then in one store, not in two, which is slow shortly after.
        """
        b = self.b
        with b.loop(0, count, 4) as group:
            four = b.load(b.ptr(activations, group.i * self.code.g), vec(i8, 16))
            b.store(four ^ self.bias, b.ptr(target, group.i * 4))

    def tables(self, activations: Val, target: Val, count: Operand, stride: int) -> None:
        """`count` tables of biased activations, for `quads` a multiple of 4; see `READ_PAST`.

        Args:
            activations: their address.
            target: address of the tables.
            count: how many.
            stride: bytes from one table's activations to the next one's; of `quads`, from four's to four's, by 4.
        """
        b, at_once = self.b, 4 if self.kind == "quads" else 1
        make = {"quads": self._quad, "bytes": self._bytes, "words": self._words}[self.kind]
        with b.loop(0, count, at_once) as group:
            make(b.ptr(activations, group.i * stride), b.ptr(target, group.i * TABLE_BYTES))

    def _quad(self, unsigned: Val, tables: Val) -> None:
        b, bytes_, words, dwords = self.b, vec(i8, 64), vec(i16, 32), vec(i32, 16)
        factors = self._factors(4)
        start = b.vec_const([int(v) for v in self.code.quads_bias - _Q_BIAS * factors.sum(axis=1)], i32)
        spread = b.vec_const([int(v) for v in factors.reshape(-1)], i8)
        entries: list[Val] = []
        for table in range(4):
            four = b.splat(b.load(b.ptr(unsigned, table * self.code.g), i32), ENTRIES)
            entries.append(
                b.intrinsic("llvm.x86.avx512.vpdpbusd.512", dwords, [start, b.bitcast(four, bytes_), spread])
            )
        pack_words = "llvm.x86.avx512.packusdw.512"
        pairs = [b.intrinsic(pack_words, words, entries[i : i + 2]) for i in (0, 2)]
        for part, halves in enumerate(([p & 0xFF for p in pairs], [p >> 8 for p in pairs])):
            packed = b.intrinsic("llvm.x86.avx512.packuswb.512", bytes_, halves)
            b.store(packed, b.ptr(tables, 64 * part))

    def _words(self, activations: Val, tables: Val) -> None:
        self.b.store(self._sums(activations, 0), tables)

    def _bytes(self, activations: Val, tables: Val) -> None:
        b, split = self.b, self.code.byte_split()
        rounded = self._sums(activations, split.bias + split.base // 2)
        if split.shift is not None:
            high = rounded.ashr(split.shift)
        else:
            # An upper half of a product is one instruction. The reciprocal is a little too large, so an exact multiple
            # below zero may be divided to one less; what is then left is base/2, which the sums stand, too.
            reciprocal = (1 << 16) // split.base + 1
            high = b.trunc((b.sext(rounded, i32) * reciprocal) >> 16, i16)
        low = rounded - (high * split.base + split.base // 2)
        b.store(b.trunc(b.concat(low, high), i8), tables)

    def _sums(self, activations: Val, bias: int) -> Val:
        """All entries, plus a bias."""
        b, words = self.b, vec(i16, ENTRIES)
        if b.isa.has_ssse3:
            return self._sums_of_pairs(activations, bias)
        total = b.const(bias, words)
        for place, column in enumerate(self.code.digits().T):
            value = b.sext(b.splat(b.load(b.ptr(activations, place), i8), ENTRIES), i16)
            total = total + value * b.vec_const([int(v) for v in column], i16)
        return total

    def _sums_of_pairs(self, activations: Val, bias: int) -> Val:
        """The same, by `pmaddubsw` of two activations."""
        b = self.b
        factors = self._factors(self.code.g + self.code.g % 2)
        total = b.vec_const([int(v) for v in bias - _Q_BIAS * factors.sum(axis=1)], i16)
        unsigned = b.load(activations, vec(i8, factors.shape[1])) ^ _Q_BIAS
        for place in range(0, factors.shape[1], 2):
            two = b.shuffle(unsigned, None, [place, place + 1] * ENTRIES)
            spread = b.vec_const([int(v) for v in factors[:, place : place + 2].reshape(-1)], i8)
            total = total + multiply_pairs(b, two, spread)
        return total

    def _factors(self, places: int) -> np.ndarray:
        """int64 [16, places]: digits, and zeros behind them."""
        return np.pad(self.code.digits().astype(np.int64), ((0, 0), (0, places - self.code.g)))
