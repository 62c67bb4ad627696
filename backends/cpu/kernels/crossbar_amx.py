"""The products of a crossbar tile on AMX tiles of bf16, as exact as sums of f32 are: for codes of converters.

A code of at most nine bits with its sign is a bf16, its square the sum of two; a weight is the sum of three bf16, of
eight bits each. Products of bf16 are exact in f32, and in f32 AMX adds them up. What is left out, the low half of
squares times the last eight bits of weights, is below 2^-23 of a product.

What the products mean is `crossbar_tile.py`'s business; losses in wires weigh lines here by scaling their weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i8, i16, i32, vec
from neuc.backends.cpu.isa import Isa

ROWS = 32
"""Rows of inputs: two tiles."""
COLUMNS = 32
"""Columns of weights: two tiles."""
MOST_LEVELS = 510
"""Codes up to 255 are bf16."""
_TILE_ROWS = 16
_LANES = 16
_LINE = 64
_TILE = _TILE_ROWS * _LINE
_DEPTH = 32
"""Lines in one tile."""
_BF16, _F32 = 2, 4
_HIGH = 0xFFFF0000
_SIGN = 0x80000000
_PARTS = 3


@dataclass(frozen=True)
class CodeTiles:
    """What is multiplied, and where it is in scratch memory.

    Attributes:
        lines: input lines.
        step: what a code of 1 stands for.
        wires: losses in wires ask for Σ profile·w·c and Σ |w||c|.
        noise: noise of reads asks for Σ |w| c².
    """

    lines: int
    step: float
    wires: bool
    noise: bool

    @staticmethod
    def fits(isa: Isa, levels: int, part: str, curvature: float) -> bool:
        """Whether the machine has tiles, and inputs are codes that bf16 holds."""
        return isa.has_amx_bf16 and 0 < levels <= MOST_LEVELS and not part.startswith("bit") and not curvature

    @property
    def padded(self) -> int:
        """Lines in whole tiles."""
        return -(-self.lines // _DEPTH) * _DEPTH

    @property
    def kinds(self) -> tuple[str, ...]:
        """Forms of the weights: as they are, times the wires' profile, magnitudes."""
        return ("w", *(["profile"] if self.wires else []), *(["magnitude"] if self.wires or self.noise else []))

    @property
    def forms(self) -> tuple[str, ...]:
        """Forms of the codes: as they are, magnitudes, halves of squares."""
        return ("c", *(["magnitude"] if self.wires else []), *(["high", "low"] if self.noise else []))

    @property
    def products(self) -> list[list[tuple[str, str, int]]]:
        """For each sum what it adds up: a form of the codes, a form of the weights, and how many of their parts."""
        sums = [[("c", "w", _PARTS)]]
        if self.wires:
            sums += [[("c", "profile", _PARTS)], [("magnitude", "magnitude", _PARTS)]]
        if self.noise:
            sums.append([("high", "magnitude", _PARTS), ("low", "magnitude", _PARTS - 1)])
        return sums

    @property
    def a_row(self) -> int:
        """Bytes of a row of codes in all forms."""
        return self.padded * len(self.forms) * _BF16

    @property
    def scratch_bytes(self) -> int:
        """Codes, weights of 32 lines and columns, sums of 32 rows and columns, the tiles' configuration."""
        return (
            ROWS * self.a_row
            + len(self.kinds) * _PARTS * 2 * _TILE
            + len(self.products) * ROWS * COLUMNS * _F32
            + _LINE
        )


class CodeTilesEmitter:
    """Writes code that multiplies `CodeTiles` in scratch memory from `at` on."""

    def __init__(self, b: KernelBuilder, tiles: CodeTiles, at: Val) -> None:
        self.b, self.tiles, self.codes = b, tiles, at
        self.weights = b.ptr(at, ROWS * tiles.a_row)
        self.sums = b.ptr(self.weights, len(tiles.kinds) * _PARTS * 2 * _TILE)
        self.config = b.ptr(self.sums, len(tiles.products) * ROWS * COLUMNS * _F32)

    def configure(self) -> None:
        """All eight tiles with 16 rows of 64 bytes."""
        b = self.b
        config = [1, *[0] * 15, *[_LINE, 0] * 8, *[0] * 16, *[_TILE_ROWS] * 8, *[0] * 8]
        b.store(b.const(config, vec(i8, _LINE)), self.config)
        b.intrinsic("llvm.x86.ldtilecfg", None, [self.config])

    def release(self) -> None:
        """Let go of the tiles."""
        self.b.intrinsic("llvm.x86.tilerelease", None, [])

    # ------------------------------------------------------------------------------------------------ codes

    def store_codes(self, codes: Val, line: Val, row: Val) -> None:
        """Keep 16 codes (f32; zero where there is no line) of a row, from `line` on, in all forms."""
        b, tiles = self.b, self.tiles
        square = codes * codes
        high = b.bitcast(b.bitcast(square, vec(i32, _LANES)) & _HIGH, square.type)
        forms = {"c": codes, "magnitude": b.abs(codes), "high": high, "low": square - high}
        start = b.ptr(self.codes, row * tiles.a_row + line * _BF16)
        for place, form in enumerate(tiles.forms):
            bits = b.bitcast(forms[form], vec(i32, _LANES))
            b.store(b.trunc(bits >> 16, i16), b.ptr(start, place * tiles.padded * _BF16))

    def fill(self, rows: Val) -> None:
        """Zeros for the lines and rows that fill up tiles: lines of the first `rows`, and all other rows."""
        b, tiles = self.b, self.tiles
        zero = b.zero(vec(i16, _LANES))
        if -(-tiles.lines // _LANES) * _LANES < tiles.padded:
            with b.loop(0, rows) as row:
                for place in range(len(tiles.forms)):
                    at = ((place + 1) * tiles.padded - _LANES) * _BF16
                    b.store(zero, b.ptr(self.codes, row.i * tiles.a_row + at))
        with b.loop(rows * tiles.a_row, ROWS * tiles.a_row, _LANES * _BF16) as at:
            b.store(zero, b.ptr(self.codes, at.i))

    # ------------------------------------------------------------------------------------------------ weights

    def _split(self, x: Val) -> list[Val]:
        """The bits of three f32 that add up to x, each with eight significant ones in its first half."""
        b = self.b
        bits, found = vec(i32, _LANES), list[Val]()
        for _ in range(_PARTS - 1):
            high = b.bitcast(x, bits) & _HIGH
            found.append(high)
            x = x - b.bitcast(high, x.type)
        return [*found, b.bitcast(x, bits)]

    def _pair(self, even: Val, odd: Val) -> Val:
        """Neighbouring lines, whose second halves are zero but for what rounding left, in 32 bits."""
        return (even >> 16) | (odd & _HIGH)

    def _split_lines(self, panel: Val, first: Val, lines: int) -> None:
        """At most 32 lines of a panel, from `first` on, as tiles: [form][part][16 columns][pair of lines]."""
        b, tiles = self.b, self.tiles
        with b.loop(0, lines // 2) as pair:
            self._split_pair(panel, first, pair.i, both=True)
        if lines % 2:
            self._split_pair(panel, first, b.i64(lines // 2), both=False)
        zero = b.zero(vec(i32, _LANES))
        with b.loop(-(-lines // 2), _DEPTH // 2) as pair:
            for block in range(len(tiles.kinds) * _PARTS * 2):
                b.store(zero, b.ptr(self.weights, pair.i * _LINE + block * _TILE))

    def _split_pair(self, panel: Val, first: Val, pair: Val, both: bool) -> None:
        b, tiles = self.b, self.tiles
        type_ = vec(f32, _LANES)
        line = first + pair * 2
        for half in range(2):
            here = b.ptr(panel, line * (COLUMNS * _F32) + half * _LINE)
            lines = [b.load(here, type_), b.load(b.ptr(here, COLUMNS * _F32), type_) if both else b.zero(type_)]
            own = [self._pair(*parts) for parts in zip(*map(self._split, lines), strict=True)]
            forms = {"w": own}
            if "magnitude" in tiles.kinds:
                signs = self._pair(*(b.bitcast(x, vec(i32, _LANES)) & _SIGN for x in lines))
                forms["magnitude"] = [part ^ signs for part in own]
            if "profile" in tiles.kinds:
                scaled = [x * b.splat(profile(b, line + i, tiles.lines), _LANES) for i, x in enumerate(lines)]
                forms["profile"] = [self._pair(*parts) for parts in zip(*map(self._split, scaled), strict=True)]
            for place, kind in enumerate(tiles.kinds):
                for part, bits in enumerate(forms[kind]):
                    block = (place * _PARTS + part) * 2 + half
                    b.store(bits, b.ptr(self.weights, pair * _LINE + block * _TILE))

    # ------------------------------------------------------------------------------------------------ products

    def multiply(self, panel: Val, count: Val, finish: Callable[[Val, list[list[Val]]], None]) -> None:
        """All sums of a panel of weights.

        Weights are split 32 lines at a time, so that they are multiplied from the first-level cache, where sums wait.

        Args:
            panel: weights, f32 [lines][32].
            count: rows that there are.
            finish: called with a row's number and its sums, [vector][product], steps multiplied in.
        """
        b, tiles = self.b, self.tiles
        size, zero = ROWS * COLUMNS * _F32, b.zero(vec(f32, _LANES))
        with b.loop(0, len(tiles.products) * size, _LINE) as at:
            b.store(zero, b.ptr(self.sums, at.i))
        whole, rest = divmod(tiles.lines, _DEPTH)
        with b.loop(0, whole) as step:
            self._add_lines(panel, step.i, _DEPTH)
        if rest:
            self._add_lines(panel, b.i64(whole), rest)
        with b.loop(0, count) as row:
            here = b.ptr(self.sums, row.i * (COLUMNS * _F32))
            sums: list[list[Val]] = [[], []]
            for (half, values), (number, terms) in product(enumerate(sums), enumerate(tiles.products)):
                value = b.load(b.ptr(here, number * size + half * _LINE), vec(f32, _LANES)) * tiles.step
                values.append(value * tiles.step if terms[0][0] == "high" else value)
            finish(row.i, sums)

    def _add_lines(self, panel: Val, step: Val, lines: int) -> None:
        """Split `lines` lines of the panel, and add their share to all sums.

        Two tiles of sums at a time, five tiles in use: a core that renames tiles for two threads has few to spare.
        """
        b = self.b
        self._split_lines(panel, step * _DEPTH, lines)
        row = COLUMNS * _F32
        for number, terms in enumerate(self.tiles.products):
            for half in range(2):
                target = b.ptr(self.sums, number * ROWS * row + half * _LINE)
                places = [(i, b.ptr(target, i * _TILE_ROWS * row)) for i in range(2)]
                for tile, at in places:
                    self._tile("tileloadd64", tile, at, row)
                for form, kind, parts in terms:
                    self._add(step, half, form, kind, parts)
                for tile, at in places:
                    self._tile("tilestored64", tile, at, row)

    def _add(self, step: Val, half: int, form: str, kind: str, parts: int) -> None:
        """A form of the codes times parts of a form of the weights of 16 columns, over 32 lines."""
        b, tiles = self.b, self.tiles
        a = b.ptr(self.codes, step * (_DEPTH * _BF16) + tiles.forms.index(form) * tiles.padded * _BF16)
        for i in range(2):
            self._tile("tileloadd64", 2 + i, b.ptr(a, i * _TILE_ROWS * tiles.a_row), tiles.a_row)
        first = tiles.kinds.index(kind) * _PARTS * 2
        for part in range(parts):
            self._tile("tileloadd64", 4, b.ptr(self.weights, (first + part * 2 + half) * _TILE), _LINE)
            for i in range(2):
                b.intrinsic("llvm.x86.tdpbf16ps", None, [b.const(n, i8) for n in (i, 2 + i, 4)])

    def _tile(self, what: str, number: int, address: Val, stride: int) -> None:
        b = self.b
        b.intrinsic(f"llvm.x86.{what}", None, [b.const(number, i8), address, b.i64(stride)])


def profile(b: KernelBuilder, line: Val, lines: int) -> Val:
    """How much of a line's current the losses along output lines weigh: 1 - (1 - line / lines)², f32."""
    near = b.f32(1.0) - b.sitofp(line, f32) * b.f32(1.0 / lines)
    return b.f32(1.0) - near * near
