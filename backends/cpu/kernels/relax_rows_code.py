"""The instructions of `RelaxRowsKernel`: sums of products with what follows them fused, softmax, sums over rows, noise.

An instruction is plain data; its `emit` writes code for one group of chains. Rows are numbered through scratch memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i64
from neuc.backends.cpu.kernels import relax_normals
from neuc.backends.cpu.kernels.relax_rows_products import MOST_ACCUMULATORS, UNROLLED, Frame, Product, tree
from neuc.dialects.interp.energy_random import NORMAL


class Code(ABC):
    """An instruction."""

    @abstractmethod
    def emit(self, f: Frame) -> None:
        """Write its code."""


@dataclass(frozen=True)
class Then:
    """What happens to a sum, row i of a `Rows`; `row` and `parameter` say where its operands lie.

    add: += scale·row. parameter: += scale·p. weighted: += scale·p·row. scaled: ·= scale. by_parameter: ·= p.
    times: ·= row. times_first: ·= row 0 of the operand, the same for all i. load, load_first: = row. equals: 1 where
    it is p, else 0. log: = ln max(low, it). store: row = it. clip: to [low, high]. sign: ±1 as it is, or row where it
    is 0. noise: += √(scale/β)·row. pump: += (−scale·(1 − t/steps))·row. wall: beyond ±1 it becomes ±1 and row 0.
    rho_F: = F of it. slope_F: ·= F'(row).

    Attributes:
        stride: of the parameter; 0 where one number serves all rows.
    """

    kind: str
    row: int = 0
    parameter: int = 0
    stride: int = 1
    scale: float = 1.0
    low: float = 0.0
    high: float = 0.0

    def apply(self, f: Frame, x: Val, at: Val) -> Val:
        """The new sum."""
        b, name = f.b, self.kind.partition("_")
        if self.kind.startswith("rho_"):
            return activation(b, name[2], x)
        if self.kind.startswith("slope_"):
            return x * slope(b, name[2], f.load(at + self.row))
        if self.kind == "wall":
            return self._wall(f, x, at)
        if self.kind == "clip":
            return clipped(b, x, self.low, self.high)
        if self.kind == "store":
            f.store(x, at + self.row)
            return x
        if self.kind == "scaled":
            return x * self.scale
        if self.kind == "log":
            return vecmath.log(b, b.max(x, self.low))
        if self.kind in ("parameter", "weighted", "by_parameter", "equals"):
            p = f.number(self.parameter, at * self.stride)
            if self.kind == "equals":
                return b.select(b.fcmp("oeq", x, p), f.constant(1.0), f.constant(0.0))
            if self.kind == "by_parameter":
                return x * p
            if self.kind == "parameter":
                return x + p * self.scale
            return b.fma(p * self.scale, f.load(at + self.row), x)
        y = f.load(self.row if self.kind.endswith("_first") else at + self.row)
        match self.kind:
            case "load" | "load_first":
                return y
            case "times" | "times_first":
                return x * y
            case "sign":
                sign = b.select(b.fcmp("olt", x, 0.0), f.constant(-1.0), f.constant(1.0))
                return b.select(b.fcmp("oeq", x, 0.0), y, sign)
            case "noise":
                return b.fma(b.sqrt(f.constant(self.scale) / f.beta), y, x)
            case "pump":
                past = b.sitofp(f.step, f32) / b.sitofp(f.steps, f32)
                return b.fma(b.splat((1.0 - past) * -self.scale, b.lanes), y, x)
            case _:
                return b.fma(f.constant(self.scale), y, x)

    def _wall(self, f: Frame, x: Val, at: Val) -> Val:
        b = f.b
        outside = b.fcmp("ogt", b.abs(x), 1.0)
        momentum = f.load(at + self.row)
        f.store(b.select(outside, 0.0, momentum), at + self.row)
        return b.select(outside, b.copysign(f.constant(1.0), x), x)


@dataclass(frozen=True)
class Rows(Code):
    """`size` sums from 0: all products, then what follows, in registers."""

    size: int
    products: tuple[Product, ...]
    then: tuple[Then, ...]

    def emit(self, f: Frame) -> None:
        """Blocks of as many rows as there are registers for sums; what follows is a loop over their rows."""
        if not self.products:
            with f.b.loop(0, self.size) as row:
                self._follow(f, f.constant(0.0), row.i)
            return
        block = accumulators(f.b)
        whole = self.size - self.size % block
        if whole:
            with f.b.loop(0, whole, block) as first:
                self._block(f, first.i, block)
        if self.size > whole:
            self._block(f, f.b.i64(whole), self.size - whole)

    def _block(self, f: Frame, first: Val, count: int) -> None:
        sums = [f.constant(0.0)] * count
        for product in self.products:
            sums = product.add(f, sums, first)
        for number, total in enumerate(sums):
            f.store(total, number)
        with f.b.loop(0, count) as row:
            self._follow(f, f.load(row.i), first + row.i)

    def _follow(self, f: Frame, total: Val, row: Val) -> None:
        for then in self.then:
            total = then.apply(f, total, row)


@dataclass(frozen=True)
class Softmax(Code):
    """Each `levels` rows of `groups` become their softmax."""

    source: int
    target: int
    groups: int
    levels: int

    def emit(self, f: Frame) -> None:
        """Largest, exponentials, their sum, the quotient."""
        b, levels = f.b, self.levels
        with b.loop(0, self.groups) as group:
            source, target = group.i * levels + self.source, group.i * levels + self.target
            with b.loop(1, levels, init=[f.load(source)]) as k:
                k.yield_([b.max(k.carried[0], f.load(source + k.i))])
            top = k.results[0]
            with b.loop(0, levels, init=[f.constant(0.0)]) as k:
                power = vecmath.exp(b, f.load(source + k.i) - top)
                f.store(power, target + k.i)
                k.yield_([k.carried[0] + power])
            scale = 1.0 / k.results[0]
            with b.loop(0, levels) as k:
                f.store(f.load(target + k.i) * scale, target + k.i)


@dataclass(frozen=True)
class Outer(Code):
    """row[target + i·columns + j] = row[a + i] · row[b + j], i < rows, j < columns."""

    target: int
    a: int
    rows: int
    b: int
    columns: int

    def emit(self, f: Frame) -> None:
        """All pairs."""
        with f.b.loop(0, self.rows) as i:
            x = f.load(i.i + self.a)
            with f.b.loop(0, self.columns) as j:
                f.store(x * f.load(j.i + self.b), i.i * self.columns + (j.i + self.target))


@dataclass(frozen=True)
class Total(Code):
    """row[target] (+)= scale · Σ_i row[a + i]·row[b + i], or without b: Σ_i row[a + i]."""

    target: int
    a: int
    size: int
    b: int | None = None
    scale: float = 1.0
    added: bool = False

    def emit(self, f: Frame) -> None:
        """One sum a lane."""
        b = f.b
        with b.loop(0, self.size, init=[f.constant(0.0)]) as k:
            x = f.load(k.i + self.a)
            k.yield_([k.carried[0] + x if self.b is None else b.fma(x, f.load(k.i + self.b), k.carried[0])])
        total = k.results[0] * self.scale
        f.store(total + f.load(self.target) if self.added else total, self.target)


@dataclass(frozen=True)
class PairSums(Code):
    """row[target + k] = Σ row[x + i[e]]·row[y + j[e]], start[k] ≤ e < start[k + 1], a multiple of `UNROLLED`."""

    target: int
    size: int
    start: int
    i: int
    j: int
    x: int
    y: int

    def emit(self, f: Frame) -> None:
        """One weight after another."""
        b = f.b
        with b.loop(0, self.size) as row:
            ends = [f.integer(self.start, row.i + k) for k in range(2)]
            with b.loop(ends[0], ends[1], UNROLLED, [f.constant(0.0)] * UNROLLED) as edge:
                parts: list[Val] = []
                for k, part in enumerate(edge.carried):
                    places = ((self.i, self.x), (self.j, self.y))
                    x, y = (f.load(f.integer(slot, edge.i + k) + at) for slot, at in places)
                    parts.append(b.fma(x, y, part))
                edge.yield_(parts)
            f.store(tree(edge.results), row.i + self.target)


@dataclass(frozen=True)
class Noise(Code):
    """Standard normal rows of this step, two from each counter (position pair, step, chain)."""

    target: int
    pairs: int

    def emit(self, f: Frame) -> None:
        """Box and Muller."""
        b = f.b
        half = f.philox.lanes
        chains = [
            b.splat(f.first_chain + start, half) + b.vec_const(list(range(half)), i64)
            for start in range(0, b.lanes, half)
        ]
        with b.loop(0, self.pairs) as pair:
            rest = [b.splat(v, half) for v in (pair.i, f.step)]
            purpose = b.splat(b.i64(NORMAL), half)
            words = zip(*(f.philox.block([*rest, chain, purpose])[:2] for chain in chains))
            first, second = (f.philox.narrow(list(parts))[0] for parts in words)
            for index, value in enumerate(relax_normals.pair(b, first, second)):
                f.store(value, pair.i * 2 + self.target + index)


def accumulators(b: KernelBuilder) -> int:
    """Sums that registers hold."""
    return min(MOST_ACCUMULATORS, b.isa.registers - 4)


def clipped(b: KernelBuilder, x: Val, low: float, high: float) -> Val:
    """Within the bounds; those that are infinite cost nothing."""
    if low > -float("inf"):
        x = b.max(x, b.const(low, x.type))
    return x if high == float("inf") else b.min(x, b.const(high, x.type))


def activation(b: KernelBuilder, name: str, x: Val) -> Val:
    """The functions of `energy.rho`."""
    match name:
        case "hardsigmoid":
            return clipped(b, x, 0.0, 1.0)
        case "tanh":
            return vecmath.tanh(b, x)
        case "sigmoid":
            return vecmath.sigmoid(b, x)
        case "relu":
            return b.max(x, 0.0)
        case "cos":
            return relax_normals.sine_cosine(b, x)[1]
        case _:
            return relax_normals.sine_cosine(b, x)[0]


def slope(b: KernelBuilder, name: str, x: Val) -> Val:
    """Their derivatives; one-sided where they have kinks."""
    one, zero = b.const(1.0, x.type), b.zero(x.type)
    match name:
        case "hardsigmoid":
            return b.select(b.fcmp("oge", x, 0.0), b.select(b.fcmp("ole", x, 1.0), one, zero), zero)
        case "tanh":
            y = vecmath.tanh(b, x)
            return 1.0 - y * y
        case "sigmoid":
            y = vecmath.sigmoid(b, x)
            return y * (1.0 - y)
        case "relu":
            return b.select(b.fcmp("ogt", x, 0.0), one, zero)
        case "cos":
            return -relax_normals.sine_cosine(b, x)[0]
        case _:
            return relax_normals.sine_cosine(b, x)[1]
