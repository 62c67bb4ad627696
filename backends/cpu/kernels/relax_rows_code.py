"""The instructions of `RelaxRowsKernel`: sums of products with what follows them fused, softmax, sums over rows, noise.

An instruction is plain data; its `emit` writes code for one group of chains. Rows are numbered through scratch memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i32, i64, vec
from neuc.backends.cpu.kernels import relax_normals
from neuc.backends.cpu.kernels.relax_random import Philox
from neuc.dialects.interp.energy_random import NORMAL

UNROLLED = 4
"""Edges that are added up side by side."""
MOST_ACCUMULATORS = 16
"""Sums of a block at most; rows 0 to 15 of scratch memory are theirs between their products and what follows."""


@dataclass
class Frame:
    """What instructions see: the builder, addresses of parameters, and where time and chains stand."""

    b: KernelBuilder
    parameters: Sequence[Val]
    first_chain: Val = field(init=False)
    step: Val = field(init=False)
    steps: Val = field(init=False)
    beta: Val = field(init=False)
    philox: Philox = field(init=False)

    def seeded(self, seed: Val) -> None:
        """Make the generator."""
        self.philox = Philox(self.b, seed)

    def row(self, index: Val | int) -> Val:
        """The address of a row."""
        b = self.b
        return b.elem(b.scratch, index * b.lanes, f32)

    def load(self, index: Val | int) -> Val:
        """A row."""
        return self.b.load(self.row(index), vec(f32, self.b.lanes), align=4 * self.b.lanes)

    def store(self, value: Val, index: Val | int) -> None:
        """Write a row."""
        self.b.store(value, self.row(index), align=4 * self.b.lanes)

    def number(self, parameter: int, index: Val | int) -> Val:
        """A number of a parameter in every lane."""
        b = self.b
        return b.splat(b.load(b.elem(self.parameters[parameter], index, f32), f32), b.lanes)

    def integer(self, parameter: int, index: Val | int) -> Val:
        """An i32 of a parameter, as i64."""
        b = self.b
        return b.sext(b.load(b.elem(self.parameters[parameter], index, i32), i32), i64)

    def constant(self, value: float) -> Val:
        """A number in every lane."""
        return self.b.const(value, vec(f32, self.b.lanes))


class Code(ABC):
    """An instruction."""

    @abstractmethod
    def emit(self, f: Frame) -> None:
        """Write its code."""


class Product(ABC):
    """Something that adds up over other rows."""

    @abstractmethod
    def add(self, f: Frame, sums: list[Val], first: Val | int) -> list[Val]:
        """The sums of rows `first` and on, with this product added."""


@dataclass(frozen=True)
class Dense(Product):
    """sum[i] += scale · Σ_k W[i·row_step + k·step] · row[source + k], k < count."""

    weights: int
    source: int
    count: int
    row_step: int
    step: int
    scale: float = 1.0

    def add(self, f: Frame, sums: list[Val], first: Val | int) -> list[Val]:
        """A vector of chains is read once for all sums; weights are broadcast from memory."""
        b = f.b
        base = b.elem(f.parameters[self.weights], first * self.row_step, f32)
        with b.loop(0, self.count, init=sums) as k:
            x = f.load(k.i + self.source)
            if self.scale != 1.0:
                x = x * self.scale
            at = b.elem(base, k.i * self.step, f32)
            new: list[Val] = []
            for number, total in enumerate(k.carried):
                w = b.load(b.elem(at, number * self.row_step, f32), f32)
                new.append(b.fma(b.splat(w, b.lanes), x, total))
            k.yield_(new)
        return k.results


@dataclass(frozen=True)
class Sparse(Product):
    """sum[i] += scale · Σ w[k[e]] · row[source + near[e]], start[i] ≤ e < start[i + 1]; integers are i32.

    Every row has a multiple of `UNROLLED` edges; those that fill up read a row of zeros.

    Attributes:
        shared: slot of k; None where each edge has a weight of its own, in order.
    """

    start: int
    near: int
    weights: int
    source: int
    scale: float = 1.0
    shared: int | None = None

    def add(self, f: Frame, sums: list[Val], first: Val | int) -> list[Val]:
        """Row by row, with several partial sums."""
        b = f.b
        for number, total in enumerate(sums):
            f.store(total, number)
        with b.loop(0, len(sums)) as row:
            at = b.as_val(first, i64) + row.i
            ends = [f.integer(self.start, at + k) for k in range(2)]
            with b.loop(ends[0], ends[1], UNROLLED, [f.constant(0.0)] * UNROLLED) as edge:
                parts: list[Val] = []
                for k, part in enumerate(edge.carried):
                    other = f.integer(self.near, edge.i + k) + self.source
                    index = edge.i + k if self.shared is None else f.integer(self.shared, edge.i + k)
                    parts.append(b.fma(f.number(self.weights, index), f.load(other), part))
                edge.yield_(parts)
            f.store(b.fma(f.constant(self.scale), _tree(edge.results), f.load(row.i)), row.i)
        return [f.load(number) for number in range(len(sums))]


def _tree(parts: list[Val]) -> Val:
    while len(parts) > 1:
        parts = [a + b for a, b in zip(parts[::2], parts[1::2])]
    return parts[0]


@dataclass(frozen=True)
class Then:
    """What happens to a sum, row i of a `Rows`; `row` and `parameter` say where its operands lie.

    add: += scale·row. parameter: += scale·p. weighted: += scale·p·row. scaled: ·= scale. by_parameter: ·= p.
    times: ·= row. times_first: ·= row 0 of the operand, the same for all i. load: = row. store: row = it. clip: to
    [low, high]. sign: ±1 as it is, or row where it is 0. noise: += √(scale/β)·row. pump: += (−scale·(1 − t/steps))·row.
    wall: beyond ±1 it becomes ±1 and row 0. rho_F: = F of it. slope_F: ·= F'(row).

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
        if self.kind in ("parameter", "weighted", "by_parameter"):
            p = f.number(self.parameter, at * self.stride)
            if self.kind == "by_parameter":
                return x * p
            if self.kind == "parameter":
                return x + p * self.scale
            return b.fma(p * self.scale, f.load(at + self.row), x)
        y = f.load(self.row if self.kind == "times_first" else at + self.row)
        match self.kind:
            case "load":
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
            f.store(_tree(edge.results), row.i + self.target)


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
