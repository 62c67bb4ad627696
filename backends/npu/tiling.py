"""Which tiles, spread and program each product gets: a cost model of whole products, and the cheapest choice by it.

The model counts, for each block of C, what its slowest part takes: cores (padding included), their DMAs, shim DMAs,
host memory, or the host's queueing of tasks; then a dispatch, and a switch where the program changes.
All figures are the machine's. The simulator decides how good the model is (tests/backends/test_npu_tiling.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error
from neuc.runtime.npu.float_finish import FloatFinish
from neuc.runtime.npu.gemm_plan import OPERANDS, SPREADS, AnyFinish, GemmPlan, adds, blocks, kernel_cycles, result_type
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import DTYPES
from neuc.runtime.npu.windows import Image, Window

GRAIN = {1: (4, 8, 8), 2: (8, 8, 8)}
"""Multiples that tiles' m, k and n are, by generation: the shapes of one int8 matrix instruction (spec: AIE API)."""
MERGED_COLUMNS = 64
"""Groups of a grouped convolution are merged, their weights along a diagonal, up to so many columns of a product: a
core multiplies the zeros in less time than its DMA brings the activations, and there are fewer blocks."""
_CODES_GRAIN = 16
"""n of a ternary tile is a multiple of this: a row of codes is whole words."""
_KEPT = 12
"""Plans kept a product, of the best, when programs are chosen for all of them."""
_CHOICES = 32
"""Choices kept: passes ask for the same ones again, which takes seconds for a network of fifty products."""
_ROOM = 1024
"""Bytes of a core's memory left free: buffers begin at multiples of 32 and do not fill their banks."""
_ROWS = 1023
"""Most rows of a token that a shim's descriptor describes."""
_WORD = 4
_RUN = _WORD * _ROWS
"""And most bytes of a row of A."""


@dataclass(frozen=True)
class Product:
    """A [m, groups·k] · B [k, n] for each group; ``operands`` as its weights and activations allow.

    With ``finish`` it leaves as int8 codes, or as floats with what follows done to them, made on the cores. With
    ``window``, A is windows of images ``shape`` [batch, channels, height, width], which DMAs may cut out
    (`runtime/npu/windows.py`); ``by_pixel``: these lie pixel by pixel before anybody cuts them.
    """

    m: int
    k: int
    n: int
    groups: int = 1
    operands: str = "int8"
    finish: AnyFinish | None = None
    window: Window | None = None
    shape: tuple[int, ...] = ()
    by_pixel: bool = False

    @property
    def depths(self) -> tuple[int, ...]:
        """Sizes that steps of a sum divide best: all of it, or a line of the kernel."""
        return (self.k,) if self.window is None else (self.k, self.window.line)


@dataclass(frozen=True)
class Cost:
    """Cycles of a product on the array, what limits it, bytes of host memory, and the share of work that is padding.

    ``cut``: its windows are cut by DMAs. ``written``: cycles the CPU takes at least to write them as a matrix, and
    before that the planes it makes them of, or to write the images they are cut from.
    """

    cycles: float
    limiter: str
    ddr_bytes: int
    padding: float
    cut: bool = False
    written: float = 0.0


def merged(groups: int, columns: int) -> int:
    """How many groups of so many columns each become one product."""
    return max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * columns <= MERGED_COLUMNS))


def product_cost(plan: GemmPlan, machine: Machine, product: Product) -> Cost:
    """What `product` takes by the model, without dispatch and switch.

    DMAs cut windows where the array then takes no longer than with a matrix of them and the CPU's writing it together:
    they fill rectangles of pixels and lines of the kernel up, and each line is a task.
    """
    rows = _rows_cost(plan, machine, product, (product.m, product.k))
    window = product.window
    if window is None:
        return rows
    values = product.m * product.k * product.groups + (prod(product.shape) if product.by_pixel else 0)
    rows = replace(rows, written=_written(machine, values * window.width))
    image, dma = Image.of(window, product.shape, plan), machine.classes["shim"].dma
    width = product.n + plan.block_n + plan.k if adds(product.finish) else 0
    if dma is None or not image.fits(plan.k, dma, width):
        return rows
    cut = _rows_cost(plan, machine, product, (image.rows, image.columns(plan.k)), window)
    cut = replace(cut, cut=True, written=_written(machine, image.size(plan.k) * window.width))
    return cut if cut.cycles + cut.written <= rows.cycles + rows.written else rows


def _written(machine: Machine, size: int) -> float:
    """Cycles it takes to write so many bytes of host memory."""
    return size / machine.ddr["bytes_per_second"] * machine.clock_hz


def _rows_cost(
    plan: GemmPlan, machine: Machine, product: Product, rows_columns: tuple[int, int], window: Window | None = None
) -> Cost:
    """What it takes with A of this size, or with windows of which each run is a task."""
    m, k, n = blocks(plan, *rows_columns, product.n)
    steps, finish = k // plan.k, product.finish
    parameters = plan.parameter_tokens(finish)
    count = (m // plan.block_m) * (n // plan.block_n) * product.groups
    timing, kind = machine.timing, plan.kind
    core_dma, shim_dma = machine.classes["core"].dma, machine.classes["shim"].dma
    assert core_dma is not None
    assert shim_dma is not None
    width = min(core_dma.bytes_per_cycle, shim_dma.bytes_per_cycle)
    sizes = (plan.m * plan.k * DTYPES[kind.a].itemsize, plan.k * plan.width * DTYPES[kind.b].itemsize)
    wide_c = DTYPES[result_type(plan.operands, finish)].itemsize
    tile_c = plan.m * plan.n * wide_c
    runs_a, runs_c = plan.k * DTYPES[kind.a].itemsize, plan.n * wide_c
    # Codes of another tensor follow A's in its stream.
    others = plan.residual_tokens if adds(finish) else 0
    if window is not None:
        runs_a = window.contiguous(plan.k)
    elif steps == product.groups == 1:  # rows of A follow each other
        runs_a = sizes[0] * (plan.rows if SPREADS[plan.spread][0] == "each" else 1)
    if n == plan.n:
        runs_c = plan.rows * tile_c
    moved = 0
    load = queued = 0.0
    shim = core = 0.0
    tokens = (steps + others, steps + parameters)
    tasks_of = ((1 if window is None else window.runs(plan.k)) + (others > 0), 1)
    for size, how, run, many, tasks, last in zip(
        sizes, SPREADS[plan.spread], (runs_a, sizes[1] * plan.taken_at_once), tokens, tasks_of, (others, 0)
    ):
        ports = {"one": 1, "row": plan.rows}.get(how, plan.cols)
        token = size * (plan.rows if how == "each" else 1)
        moved += ports * token * many
        load += ports * token * (many - last) / _efficiency(machine, run)
        load += ports * token * last / _efficiency(machine, plan.k)
        queued += ports * tasks
        shim = max(shim, many * (token / width * timing["shim_mm2s_per_word"]) + tasks * timing["shim_mm2s_task"])
        core = max(core, many * (size / width + timing["bd_setup"]))
    out = plan.rows * plan.cols * tile_c
    load += out / _efficiency(machine, runs_c)
    each = kernel_cycles(plan, machine, steps, finish)
    overhead = timing["kernel_call"] + 6 * timing["lock"]
    times = {
        "cores": sum(each) + len(each) * overhead,
        "core DMA": core,
        "shim DMA": max(shim, plan.rows * tile_c / width + timing["shim_s2mm_task"]),
        "host memory": load / machine.ddr["bytes_per_second"] * machine.clock_hz,
        "tasks": (queued + plan.cols) * timing["task_push"],
    }
    # While a core finishes a tile, nothing but its free buffers, two of each operand, is filled.
    behind = sum(each[steps:]) + (len(each) - steps) * overhead
    stream = max(times["core DMA"], times["shim DMA"], times["host memory"])
    times["finishing"] = behind + stream * max(0.0, 1 - 2 / tokens[1])
    limiter = max(times, key=lambda name: times[name])
    fill = timing["shim_mm2s_task"] + 2 * sum(sizes) / width + each[0]
    fill += timing["first_task_mm2s"] if count > 1 else 0.0
    drain = plan.rows * tile_c / width + timing["shim_s2mm_task"] + tile_c / width
    padding = 1 - product.m * product.k * product.n / (m * k * n)
    return Cost(count * times[limiter] + fill + drain, limiter, count * (moved + out), padding)


def _efficiency(machine: Machine, run_bytes: float) -> float:
    """Share of host memory's rate that contiguous runs of so many bytes get."""
    return run_bytes / (run_bytes + machine.ddr.get("burst_half_bytes", 0.0))


def candidates(
    machine: Machine, operands: str, products: Sequence[Product], finish: bool = False
) -> Iterator[GemmPlan]:
    """Plans that fit a core: powers of two and one and a half times them, and even cuts of the products' own sizes."""
    grain = GRAIN.get(machine.generation, (8, 8, 8))
    grain_n = max(grain[2], _CODES_GRAIN) if operands == "ternary" else grain[2]
    cls = machine.classes["core"]
    limit = cls.memory_bytes - cls.reserved_bytes - _ROOM
    rooms = _table_rooms(products) if finish else [(0, False)]
    for spread in SPREADS:
        parts = GemmPlan.on(machine, (1, 1, 1), operands, spread).parts
        for m in _sizes(grain[0], 256, {-(-p.m // parts[0]) for p in products}):
            for n in _sizes(grain_n, 256, {-(-p.n // parts[1]) for p in products}):
                if 2 * m * n * 4 >= limit:
                    continue
                for k in _sizes(grain[1], 2048, {depth for p in products for depth in p.depths}):
                    for room in rooms:
                        plan = GemmPlan.on(machine, (m, k, n), operands, spread, finish, *room)
                        if _fits(plan, limit):
                            yield plan


def _table_rooms(products: Sequence[Product]) -> list[tuple[int, bool]]:
    """Words of tables a core may have room for: all that there are, in the program, or a product's, from its stream.

    Tables in the program cost no transfer; where there are several, those that travel take less of a core's memory.
    """
    floats = [p.finish for p in products if isinstance(p.finish, FloatFinish) and p.finish.tables]
    if not floats:
        return [(0, False)]
    known = {content: size for finish in floats for content, size in zip(finish.contents, finish.tables)}
    return [(sum(known.values()), True), (max(sum(finish.tables) for finish in floats), False)]


def _sizes(grain: int, most: int, wanted: set[int]) -> list[int]:
    """Multiples of `grain` worth trying up to `most`: round ones, and those that cut a wanted size into equal parts."""
    most = min(most, _up(max(wanted), grain))
    found = {size for power in range(12) for size in (1 << power, 3 << power >> 1) if size % grain == 0}
    found |= {_up(-(-size // cuts), grain) for size in wanted for cuts in range(1, 4)}
    return sorted(size for size in found if size <= most)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _fits(plan: GemmPlan, limit: int) -> bool:
    """Double buffers of A and B, the finished tile and the sum in a core; runs and rows of A within a descriptor.

    A plan that finishes has room for parameters, too.
    """
    kind = plan.kind
    a, b = plan.m * plan.k * DTYPES[kind.a].itemsize, plan.k * plan.width * DTYPES[kind.b].itemsize
    sums, c = (plan.m * plan.n * DTYPES[name].itemsize for name in (kind.c, plan.token_c))
    own = sums + c + plan.room
    rows = plan.m * (plan.rows if SPREADS[plan.spread][0] == "each" else 1)
    return (
        2 * (a + b) + own <= limit
        and plan.k * DTYPES[kind.a].itemsize <= _RUN
        and max(rows, plan.rows * plan.m) <= _ROWS
    )


@dataclass(frozen=True)
class Choice:
    """A plan for each product, in the products' order, and what they cost.

    ``seconds`` counts dispatches and switches, ``seconds_of_dispatches`` nothing else; ``one_program`` and
    ``own_programs`` are what a single program, or one for each product whatever switches cost, would have taken.
    """

    products: tuple[Product, ...]
    plans: tuple[GemmPlan, ...]
    costs: tuple[Cost, ...]
    seconds: float
    seconds_of_dispatches: float
    switches: int
    one_program: float
    own_programs: float


@lru_cache(maxsize=_CHOICES)
def choose_plans(machine: Machine, products: tuple[Product, ...], avoid: frozenset[GemmPlan] = frozenset()) -> Choice:
    """The plans with the least time for all products, one after the other and then again from the first.

    A shortest path over the products in order: a step's length is the product's time, and a switch of programs where
    the plan changes. Exact for the plans it looks at: the best ones of each product and of all products together.

    Args:
        machine: the array.
        products: in the order they run.
        avoid: plans that turned out not to fit.

    Raises:
        Error: NEUC-E677, a core holds no tile of a product; NEUC-E688, the machine has no rate for its operands.
    """
    kinds = sorted({(p.operands, p.finish is not None) for p in products})
    distinct = list(dict.fromkeys(products))
    table: dict[GemmPlan, dict[Product, float]] = {}
    for kind, finish in kinds:
        if OPERANDS[kind].rate not in machine.gemm:
            hint = f'add a line "{OPERANDS[kind].rate}" to the section gemm of its file'
            raise Error("NEUC-E688", f"{machine.name} has no rate for products of {kind}", hint=hint)
        served = [p for p in distinct if _serves(kind, finish, p)]
        for plan in candidates(machine, kind, served, finish):
            if plan not in avoid:
                costs = {p: product_cost(plan, machine, p) for p in served}
                table[plan] = {p: (cost.cycles + cost.written) / machine.clock_hz for p, cost in costs.items()}
    kept: dict[GemmPlan, None] = {}
    for product in distinct:
        able = [plan for plan, times in table.items() if product in times]
        if not able:
            what = f"{product.m} x {product.k} x {product.n} of {product.operands}"
            hint = "a machine file with more memory a core, or let the layer stay on the CPU"
            raise Error("NEUC-E677", f"a core of {machine.name} holds no tile of the product {what}", hint=hint)
        kept.update(dict.fromkeys(sorted(able, key=lambda plan: table[plan][product])[:_KEPT]))
    total = {
        plan: sum(times[p] for p in products) for plan, times in table.items() if all(p in times for p in distinct)
    }
    kept.update(dict.fromkeys(sorted(total, key=lambda plan: total[plan])[:_KEPT]))
    for kind in kinds:  # the best for all products of one kind, where no program serves every kind
        own = {
            plan: sum(times[p] for p in products if p in times)
            for plan, times in table.items()
            if (plan.operands, plan.finish) == kind
        }
        kept.update(dict.fromkeys(sorted(own, key=lambda plan: own[plan])[:_KEPT]))
    switch = machine.host.get("program_switch_us", 0.0) * 1e-6
    path = _shortest([*kept], [{plan: table[plan][p] for plan in kept if p in table[plan]} for p in products], switch)
    dispatches = len(products) * machine.host.get("dispatch_us", 0.0) * 1e-6

    def seconds(plans: Sequence[GemmPlan], changes: int) -> float:
        """On the array alone: what the CPU writes for it counted when plans were compared."""
        cycles = sum(product_cost(plan, machine, p).cycles for plan, p in zip(plans, products))
        return cycles / machine.clock_hz + changes * switch + dispatches

    def changes(plans: Sequence[GemmPlan]) -> int:
        return sum(a != b for a, b in zip(plans, (*plans[1:], plans[0])))

    best = [min((plan for plan in table if p in table[plan]), key=lambda plan, p=p: table[plan][p]) for p in products]
    single = min(total, key=lambda plan: total[plan]) if total else None
    switches = changes(path)
    return Choice(
        products,
        tuple(path),
        tuple(product_cost(plan, machine, p) for plan, p in zip(path, products)),
        seconds(path, switches),
        switches * switch + dispatches,
        switches,
        float("inf") if single is None else seconds([single] * len(products), 0),
        seconds(best, changes(best)),
    )


def _serves(operands: str, finish: bool, product: Product) -> bool:
    """Whether a program of this kind computes a product: trits are int8 values, too, and who can finish need not."""
    same = operands == product.operands or (operands == "int8" and product.operands == "ternary")
    return same and (finish or product.finish is None)


def _shortest(plans: Sequence[GemmPlan], stages: Sequence[Mapping[GemmPlan, float]], switch: float) -> list[GemmPlan]:
    """The cheapest plan for each stage; changing between neighbours costs `switch`, and so does ending elsewhere.

    All starts at once: a row of `reached` for each, a column for each plan.
    """
    times = np.array([[stage.get(plan, np.inf) for plan in plans] for stage in stages])
    starts, everyone = np.flatnonzero(np.isfinite(times[0])), np.arange(len(plans))
    reached = np.where(everyone == starts[:, None], times[0], np.inf)
    came: list[NDArray[np.intp]] = []
    for time in times[1:]:
        cheapest = reached.argmin(axis=1)[:, None]
        move = np.take_along_axis(reached, cheapest, axis=1) + switch
        came.append(np.where(reached <= move, everyone, cheapest))
        reached = np.minimum(reached, move) + time
    lengths = reached + np.where(everyone == starts[:, None], 0.0, switch)
    row = int(lengths.min(axis=1).argmin())
    path = [int(lengths[row].argmin())]
    for sources in reversed(came):
        path.append(int(sources[row, path[-1]]))
    return [plans[index] for index in reversed(path)]
