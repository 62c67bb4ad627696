"""Continuous relaxations: steps of `Rows` over variables that lie in scratch memory, one chain a lane.

A variable of n sites is n rows of as many floats as a vector has; lanes are chains. So weights are broadcast, W and Wᵀ
are read from one array, and neither sites nor edges leave lanes empty. What is computed is a list of instructions
(`relax_rows_code.py`), which `lowerings/relax_plan.py` makes out of a model. The launch's work is groups of chains.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from xdsl.dialects import llvm
from xdsl.ir import Attribute

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, f64, i8, i32, i64, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.relax_rows_code import Code
from neuc.backends.cpu.kernels.relax_rows_products import Frame
from neuc.backends.cpu.kernels.strided import Args

_IN_MEMORY: dict[str, Attribute] = {"f32": f32, "i8": i8, "i32": i32, "f64": f64}


@dataclass(frozen=True)
class Port:
    """Rows that come from memory or go there: `size` from `row` on, of `dtype` f32, i8 or i32; out f64, too."""

    row: int
    size: int
    dtype: str = "f32"


@dataclass(frozen=True)
class RelaxRowsKernel(KernelSpec):
    """`before` once, `body` `steps` times, `after` once.

    Slots: of each input its address [C, stride] and its stride; of each output [C, size]; parameters; C; with
    `sampled`: β f32 [S, 1 or chains], chains a row of β has (0: one for all), seed i64, S, which takes the place of
    `steps`. Work: groups of chains, as many as a vector has lanes. Scratch: `scratch_bytes`.

    Attributes:
        rows: rows of scratch memory.
        parameters: how many there are.
        dt: the step of a sampled process, for its noise.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    parameters: int
    rows: int
    before: tuple[Code, ...] = ()
    body: tuple[Code, ...] = ()
    after: tuple[Code, ...] = ()
    steps: int = 0
    sampled: bool = False

    family = "relax_rows"
    written = None

    @property
    def name(self) -> str:
        """How much there is for the reader, and a hash of everything."""
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:16]
        return f"{self.family}_{len(self.body)}_codes_{self.rows}_rows_{digest}"

    def scratch_bytes(self, isa: Isa) -> int:
        """All rows of a group."""
        return 4 * isa.f32_lanes * self.rows

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Groups of chains: load, run, store."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        sources = [(args.ptr(), args.int()) for _ in self.inputs]
        targets = [args.ptr() for _ in self.outputs]
        parameters = [args.ptr() for _ in range(self.parameters)]
        chains = args.int()
        frame = Frame(b, parameters)
        steps = b.i64(self.steps)
        sampling: tuple[Val, Val] | None = None
        if self.sampled:
            sampling = args.ptr(), args.int()
            seed, steps = args.ptr(), args.int()
            frame.seeded(b.load(seed, i64))
        with b.loop(b.begin, b.end) as group:
            first = group.i * b.lanes
            frame.first_chain = first
            for port, (source, stride) in zip(self.inputs, sources):
                _fetch(b, port, source, stride, first, chains)
            for code in self.before:
                code.emit(frame)
            with b.loop(0, steps) as step:
                frame.step, frame.steps = step.i, steps
                if sampling is not None:
                    frame.beta = _betas(b, *sampling, step.i, first, chains)
                for code in self.body:
                    code.emit(frame)
            for code in self.after:
                code.emit(frame)
            for port, target in zip(self.outputs, targets):
                _write(b, port, target, first, chains)
        return b.finish()


def _lanes_of(b: KernelBuilder, first: Val, chains: Val) -> list[Val]:
    """The chain of each lane; lanes beyond the last chain repeat it."""
    return [b.min(first + lane, chains - 1) for lane in range(b.lanes)]


def _fetch(b: KernelBuilder, port: Port, source: Val, stride: Val, first: Val, chains: Val) -> None:
    memory = _IN_MEMORY[port.dtype]
    rows = [b.elem(source, chain * stride, memory) for chain in _lanes_of(b, first, chains)]
    with b.loop(0, port.size) as site:
        got = b.undef(vec(memory, b.lanes)) if b.lanes > 1 else None
        for lane, row in enumerate(rows):
            value = b.load(b.elem(row, site.i, memory), memory)
            got = value if got is None else b.insert(got, value, lane)
        assert got is not None
        if port.dtype == "i8":
            got = b.sext(got, i32)
        if port.dtype != "f32":
            got = b.sitofp(got, f32)
        b.store(got, b.elem(b.scratch, (site.i + port.row) * b.lanes, f32))


def _write(b: KernelBuilder, port: Port, target: Val, first: Val, chains: Val) -> None:
    memory = _IN_MEMORY[port.dtype]
    with b.loop(0, b.min(chains - first, b.lanes)) as lane:
        row = b.elem(target, (first + lane.i) * port.size, memory)
        with b.loop(0, port.size) as site:
            value = b.load(b.elem(b.scratch, (site.i + port.row) * b.lanes + lane.i, f32), f32)
            if port.dtype != "f32":
                value = b.fpext(value, f64) if port.dtype == "f64" else b.fptosi(value, memory)
            b.store(value, b.elem(row, site.i, memory))


def _betas(b: KernelBuilder, beta: Val, ladder: Val, step: Val, first: Val, chains: Val) -> Val:
    """β of each lane's chain at this step."""
    shared = b.icmp("eq", ladder, 0)
    values = b.undef(vec(f32, b.lanes)) if b.lanes > 1 else None
    for lane, chain in enumerate(_lanes_of(b, first, chains)):
        at = b.select(shared, step, step * ladder + chain)
        value = b.load(b.elem(beta, at, f32), f32)
        values = value if values is None else b.insert(values, value, lane)
    assert values is not None
    return values
