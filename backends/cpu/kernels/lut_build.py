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
from neuc.backends.cpu.packing.lut import TABLE_BYTES, TableKind
from neuc.backends.cpu.packing.lut_code import ENTRIES, TableCode

_COPY = 16
GROUPS_PER_UNIT = 64
"""Tables per work unit."""


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

    @property
    def units_per_token(self) -> int:
        """Work units per row of activations."""
        return -(-self.groups // GROUPS_PER_UNIT)

    @property
    def scratch(self) -> int:
        """Bytes of scratch memory."""
        return 2 * (GROUPS_PER_UNIT * self.code.g + 64)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """A loop over units: widen or re-bias their activations into scratch memory, then make tables from there."""
        b, g = KernelBuilder(self.name, isa), self.code.g
        builder = TableBuilder(b, self.kind, self.code)
        with b.loop(b.begin, b.end) as unit:
            token = b.udiv(unit.i, self.units_per_token)
            first = (unit.i - token * self.units_per_token) * GROUPS_PER_UNIT
            count = b.min(self.groups - first, b.i64(GROUPS_PER_UNIT))
            source = b.ptr(b.arg_ptr(0), token * self.columns + first * g)
            here = b.max(b.min(self.columns - first * g, count * g), b.i64(0))
            whole = here - b.urem(here, _COPY)
            with b.loop(0, whole, _COPY) as copy:
                builder.copy(b.ptr(source, copy.i), b.scratch, copy.i, _COPY)
            with b.loop(whole, here) as copy:
                builder.copy(b.ptr(source, copy.i), b.scratch, copy.i, 1)
            # Four more than the groups take: `quads` reads a whole dword per group.
            with b.loop(here, count * g + 4) as fill:
                builder.fill(b.scratch, fill.i)
            builder.tables(b.scratch, b.ptr(b.arg_ptr(1), (token * self.groups + first) * TABLE_BYTES), count)
        return b.finish()


class TableBuilder:
    """Writes the code that makes tables out of *digits*: activations widened to int16, or for `quads` biased."""

    def __init__(self, b: KernelBuilder, kind: TableKind, code: TableCode) -> None:
        self.b = b
        self.kind = kind
        self.code = code
        self.digit = i8 if kind == "quads" else i16
        self.digit_bytes = 1 if kind == "quads" else 2

    def copy(self, source: Val, digits: Val, at: Operand, count: int) -> None:
        """`count` activations at `source` as digits, from number `at` on."""
        b = self.b
        value = b.load(source, vec(i8, count))
        b.store(value ^ 0x80 if self.kind == "quads" else b.sext(value, i16), b.elem(digits, at, self.digit))

    def fill(self, digits: Val, at: Operand) -> None:
        """A digit of a zero activation."""
        self.b.store(self.b.const(0x80 if self.kind == "quads" else 0, self.digit), self.b.elem(digits, at, self.digit))

    def tables(self, digits: Val, target: Val, count: Operand) -> None:
        """`count` tables; for `quads` a multiple of 4, and it reads 4 digits past the last one's first."""
        b, at_once = self.b, 4 if self.kind == "quads" else 1
        make = {"quads": self._quad, "bytes": self._bytes, "words": self._words}[self.kind]
        with b.loop(0, count, at_once) as group:
            make(b.ptr(digits, group.i * (self.code.g * self.digit_bytes)), b.ptr(target, group.i * TABLE_BYTES))

    def _quad(self, activations: Val, tables: Val) -> None:
        b, bytes_, words, dwords = self.b, vec(i8, 64), vec(i16, 32), vec(i32, 16)
        factors = np.zeros((ENTRIES, 4), np.int8)
        factors[:, : self.code.g] = self.code.digits()
        # Activations come as q + 128 because vpdpbusd multiplies unsigned by signed; this takes it out again.
        start = b.vec_const([int(v) for v in self.code.quads_bias - 128 * factors.sum(axis=1, dtype=np.int64)], i32)
        spread = b.vec_const([int(v) for v in factors.reshape(-1)], i8)
        entries: list[Val] = []
        for table in range(4):
            dword = b.load(b.ptr(activations, table * self.code.g), i32)
            repeated = b.bitcast(b.splat(dword, 16), bytes_)
            entries.append(b.intrinsic("llvm.x86.avx512.vpdpbusd.512", dwords, [start, repeated, spread]))
        pack_words = "llvm.x86.avx512.packusdw.512"
        pairs = [b.intrinsic(pack_words, words, entries[i : i + 2]) for i in (0, 2)]
        for part, halves in enumerate(([p & 0xFF for p in pairs], [p >> 8 for p in pairs])):
            packed = b.intrinsic("llvm.x86.avx512.packuswb.512", bytes_, halves)
            b.store(packed, b.ptr(tables, 64 * part))

    def _words(self, activations: Val, tables: Val) -> None:
        self.b.store(self._sums(activations, 0), tables)

    def _bytes(self, activations: Val, tables: Val) -> None:
        b, split = self.b, self.code.byte_split()
        total = self._sums(activations, split.bias)
        rounded = total + split.base // 2
        if split.shift is not None:
            high = rounded.ashr(split.shift)
        else:
            # An upper half of a product is one instruction. The reciprocal is a little too large, so an exact multiple
            # below zero may be divided to one less; what is then left is base/2, which the sums stand, too.
            reciprocal = (1 << 16) // split.base + 1
            product = b.sext(rounded, i32) * reciprocal
            high = b.trunc(product >> 16, i16)
        low = total - high * split.base
        b.store(b.trunc(b.concat(low, high), i8), tables)

    def _sums(self, activations: Val, bias: int) -> Val:
        """All entries, plus a bias."""
        b, total = self.b, None if bias == 0 else self.b.const(bias, vec(i16, ENTRIES))
        for place, column in enumerate(self.code.digits().T):
            value = b.splat(b.load(b.elem(activations, place, i16), i16), ENTRIES)
            value = value * b.vec_const([int(v) for v in column], i16)
            total = value if total is None else total + value
        assert total is not None
        return total
