"""What chains, softmax and norms take on the array and on the CPU, by the machine file's figures, and their tokens.

The array's time counts the slowest of cores, DMAs and host memory, a dispatch, and what the CPU writes and reads for
it; the simulator decides how good that is (tests/backends/test_npu_rows.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from neuc.errors import Error
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.rows import RowPlan, cores_of, row_cycles, tokens_of

_BF16, _F32 = 2, 4
_GRAIN = 16
"""Numbers of a token's line are a multiple of this: a vector, and whole words."""
_WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
_ROWS = (1, 2, 4, 8, 16, 32, 64)
_ROOM = 1024
_FIGURES = (
    ("timing", "library_pass_cycles"),
    ("timing", "library_curve_cycles"),
    ("timing", "library_row_cycles"),
    ("host", "cpu_bytes_per_second"),
    ("host", "cpu_functions_per_second"),
)


@dataclass(frozen=True)
class Work:
    """Operations on so many numbers: rows of results, and numbers of each; ``kind`` and the rest as `RowPlan` has them.

    ``functions`` are those of one number that a CPU computes: exponentials, say, one a result.
    """

    plan: RowPlan
    rows: int
    functions: int

    @property
    def numbers(self) -> int:
        """Numbers of the result."""
        return self.rows * (1 if self.plan.kind == "chain" else self.plan.columns)


@dataclass(frozen=True)
class RowCost:
    """Seconds on the array without a switch of program, the part of cycles alone, what limits them, bytes, padding."""

    seconds: float
    cycles: float
    limiter: str
    ddr_bytes: int
    padding: float


def check_figures(machine: Machine) -> None:
    """Raise where a machine file lacks what element-wise work is priced by.

    Raises:
        Error: NEUC-E688, with the figure.
    """
    for section, name in _FIGURES:
        if getattr(machine, section).get(name, 0.0) <= 0:
            hint = f"add {name} to the section {section} of its file, with a provenance, or leave elementwise= out"
            raise Error("NEUC-E688", f"{machine.name} has no figure {section}.{name} for element-wise work", hint=hint)


def planned(machine: Machine, work: Work) -> tuple[RowPlan, RowCost] | None:
    """The tokens with the least time for some work; None where no core holds a row."""
    found = [(plan, row_cost(plan, machine, work)) for plan in _plans(machine, work)]
    return min(found, key=lambda pair: pair[1].seconds) if found else None


def _plans(machine: Machine, work: Work) -> Iterable[RowPlan]:
    core = machine.classes["core"]
    limit = core.memory_bytes - core.reserved_bytes - _ROOM
    if work.plan.kind == "chain":
        plans = [replace(work.plan, width=width, columns=width) for width in _WIDTHS]
    else:
        width = -(-work.plan.columns // _GRAIN) * _GRAIN
        plans = [replace(work.plan, rows=rows, width=width) for rows in _ROWS]
    for plan in plans:
        if 2 * _BF16 * plan.width * (plan.lines + plan.rows) + plan.state_bytes <= limit:
            yield plan


def row_cost(plan: RowPlan, machine: Machine, work: Work) -> RowCost:
    """What `work` takes with these tokens."""
    columns, rows = cores_of(machine)
    results = -(-work.rows // plan.width) if plan.kind == "chain" else work.rows
    tokens = tokens_of(machine, results, plan.rows)
    timing = machine.timing
    shim, core = machine.classes["shim"].dma, machine.classes["core"].dma
    assert shim is not None
    assert core is not None
    width = min(shim.bytes_per_cycle, core.bytes_per_cycle)
    into, out = _BF16 * plan.lines * plan.width, _BF16 * plan.rows * plan.width
    moved = columns * rows * tokens * (into + out)
    firing = row_cycles(plan, machine) + timing["kernel_call"] + 4 * timing["lock"]
    each = {
        "cores": firing,
        "core DMA": into / width + timing["bd_setup"],
        "shim DMA": rows * into / width * timing["shim_mm2s_per_word"],
        "host memory": columns * rows * (into + out) / machine.ddr["bytes_per_second"] * machine.clock_hz,
    }
    limiter = max(each, key=lambda name: each[name])
    fill = timing["shim_mm2s_task"] + 2 * columns * timing["task_push"] + (rows + 1) * into / width + firing
    drain = (rows + 1) * out / width + timing["shim_s2mm_task"]
    cycles = tokens * each[limiter] + fill + drain
    written = moved / machine.host["cpu_bytes_per_second"]
    seconds = cycles / machine.clock_hz + machine.host.get("dispatch_us", 0.0) * 1e-6 + written
    padding = 1 - work.numbers * _BF16 / (columns * rows * tokens * out)
    return RowCost(seconds, cycles, limiter, moved, padding)


def cpu_seconds(machine: Machine, work: Work) -> float:
    """What the CPU takes for it: its bytes as floats, and its functions."""
    plan = work.plan
    moved = work.numbers * _F32 * (plan.operands + 1)
    functions = work.functions * work.numbers / machine.host["cpu_functions_per_second"]
    return max(moved / machine.host["cpu_bytes_per_second"], functions)
