"""Programs on lines of bf16 numbers: every core its own tokens, cut and joined in its column's memory tile.

One graph serves chains, softmax and norms: what a core computes, and how many lines a token has, is the plan's; how
many tokens there are is the host's sequence's business. Kernels are in `row_functions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import (
    Channel,
    Design,
    HostBuffer,
    Kernel,
    Link,
    ParamValue,
    Port,
    Step,
    Transfer,
    Wait,
)

FUNCTIONS: Mapping[str, str] = {"chain": "bf16_chain", "softmax": "bf16_softmax", "layer_norm": "bf16_layer_norm"}
"""Kernels by what they do."""
_KERNEL_BYTES = 8192
_BF16 = 2


@dataclass(frozen=True)
class RowPlan:
    """What a core does with a token: ``rows`` results of ``width`` numbers, of which ``columns`` count.

    A chain has `operands` times as many lines; a norm has two more, its scales and biases. ``steps`` is the chain's
    text, ``curves`` how many words each of its tables has, ``eps`` and ``rms`` are a norm's.
    """

    kind: str
    operands: int
    rows: int
    width: int
    columns: int
    steps: str = ""
    curves: tuple[int, ...] = ()
    eps: float = 0.0
    rms: bool = False

    @property
    def lines(self) -> int:
        """Lines of a token."""
        return self.rows * self.operands + 2 * (self.kind == "layer_norm")

    @property
    def state_bytes(self) -> int:
        """Bytes of a core's memory beside the tokens': tables, and a line of floats for what a row passes on."""
        return 4 * sum(self.curves) + 4 * self.width


def cores_of(machine: Machine) -> tuple[int, int]:
    """Columns and rows of cores in use: all."""
    return machine.cols, len({row for _, row in machine.tiles("core")})


def tokens_of(machine: Machine, results: int, rows: int) -> int:
    """Tokens of each core for so many rows of results."""
    columns, each = cores_of(machine)
    return -(-results // (columns * each * rows))


def row_graph(plan: RowPlan, machine: Machine, cycles: int) -> Design:
    """The graph, pinned to the array; it has no sequence and its kernels no tables yet."""
    first = machine.tiles("core")[0][1]
    columns, rows = cores_of(machine)
    params: dict[str, ParamValue] = {"rows": plan.rows, "columns": plan.columns}
    if plan.kind == "chain":
        params["steps"] = plan.steps
    if plan.kind == "layer_norm":
        params |= {"eps": plan.eps, "rms": int(plan.rms)}
    kernels: list[Kernel] = []
    channels: list[Channel] = []
    links: list[Link] = []
    ports: list[Port] = []
    for c in range(columns):
        ins, outs = tuple(f"x{c}_{r}" for r in range(rows)), tuple(f"y{c}_{r}" for r in range(rows))
        for r in range(rows):
            kernels.append(
                Kernel(
                    name=f"core{c}_{r}",
                    function=FUNCTIONS[plan.kind],
                    inputs=(ins[r],),
                    outputs=(outs[r],),
                    consume=((1,),),
                    produce=((1,),),
                    cycles=(cycles,),
                    params=params,
                    state_bytes=plan.state_bytes,
                    program_bytes=_KERNEL_BYTES,
                    tile=(c, first + r),
                    pinned=True,
                )
            )
            channels.append(Channel(ins[r], f"x{c}_tile", (f"core{c}_{r}",), "bf16", (plan.lines, plan.width)))
            channels.append(Channel(outs[r], f"core{c}_{r}", (f"y{c}_tile",), "bf16", (plan.rows, plan.width)))
        sizes = [plan.lines * plan.width * _BF16, plan.rows * plan.width * _BF16]
        cuts = [tuple(r * size for r in range(rows)) for size in sizes]
        channels.append(Channel(f"x{c}", f"x{c}_in", (f"x{c}_tile",), "bf16", (rows * plan.lines, plan.width)))
        channels.append(Channel(f"y{c}", f"y{c}_tile", (f"y{c}_out",), "bf16", (rows * plan.rows, plan.width)))
        links.append(Link(f"x{c}_tile", "split", (f"x{c}",), ins, cuts[0], tile=(c, 1), pinned=True))
        links.append(Link(f"y{c}_tile", "join", outs, (f"y{c}",), cuts[1], tile=(c, 1), pinned=True))
        ports.append(Port(f"x{c}_in", f"x{c}", "in", (c, 0), pinned=True))
        ports.append(Port(f"y{c}_out", f"y{c}", "out", (c, 0), pinned=True))
    return Design(plan.kind, machine.name, tuple(kernels), tuple(channels), tuple(links), tuple(ports))


def with_tokens(
    graph: Design, plan: RowPlan, machine: Machine, tokens: int, tables: Sequence[NDArray[np.int32]] = ()
) -> Design:
    """The graph's program for so many tokens of each core, and with the words of its curves in its kernels."""
    columns, rows = cores_of(machine)
    token, result = rows * plan.lines * plan.width, rows * plan.rows * plan.width
    buffers = (
        HostBuffer("x", "bf16", (columns, tokens, rows, plan.lines, plan.width), "input"),
        HostBuffer("y", "bf16", (columns, tokens, rows, plan.rows, plan.width), "output"),
    )
    sequence: list[Step] = []
    for c in range(columns):
        sequence.append(Transfer(f"x{c}_in", "x", c * tokens * token, (tokens * token,), (1,)))
        sequence.append(Transfer(f"y{c}_out", "y", c * tokens * result, (tokens * result,), (1,)))
    sequence += [Wait(f"y{c}_out") for c in range(columns)]
    words: dict[str, ParamValue] = {f"curve{i}": [int(word) for word in table] for i, table in enumerate(tables)}
    kernels = tuple(replace(kernel, params={**kernel.params, **words}) for kernel in graph.kernels)
    return replace(graph, kernels=kernels, buffers=buffers, sequence=tuple(sequence))


def laid_out(plan: RowPlan, machine: Machine, lines: Sequence[NDArray[np.uint16]]) -> tuple[NDArray[np.uint16], int]:
    """Bits in the order of buffer x, and how many rows of results are real.

    Args:
        plan: what a token holds.
        machine: the array.
        lines: a chain's operands, of one shape; or the rows [R, C] of softmax or a norm, then its scales and biases.
    """
    columns, each = cores_of(machine)
    whole = lines if plan.kind == "chain" else lines[:1]
    if plan.kind == "chain":
        count = -(-whole[0].size // plan.width)
    else:
        count = len(whole[0])
    tokens = tokens_of(machine, count, plan.rows)
    x = np.zeros((columns, tokens, each, plan.lines, plan.width), np.uint16)
    for i, operand in enumerate(whole):
        rows = np.zeros((columns * tokens * each * plan.rows, plan.width), np.uint16)
        if plan.kind == "chain":
            rows.reshape(-1)[: operand.size] = operand.reshape(-1)
        else:
            rows[:count, : plan.columns] = operand
        x[..., i * plan.rows : (i + 1) * plan.rows, :] = rows.reshape(columns, tokens, each, plan.rows, plan.width)
    for i, line in enumerate(lines[len(whole) :]):
        x[..., plan.rows * plan.operands + i, : plan.columns] = line
    return x, count


def row_cycles(plan: RowPlan, machine: Machine) -> float:
    """Cycles of a firing by the machine's figures: those of published kernels, but for steps of bf16 vectors."""
    timing, numbers = machine.timing, plan.rows * plan.width
    step = _BF16 / timing["elementwise_lanes_8bit"]
    if plan.kind == "chain":
        kinds = [words.split()[0] for words in plan.steps.split("; ")]
        steps = sum(kind not in ("constant", "curve") for kind in kinds)
        return numbers * (steps * step + kinds.count("curve") * timing["library_curve_cycles"])
    vectors, passes, curves = _WORK[plan.kind]
    each = vectors * step + passes * timing["library_pass_cycles"] + curves * timing["library_curve_cycles"]
    return numbers * each + _REDUCTIONS * plan.rows * timing["library_row_cycles"]


_WORK: Mapping[str, tuple[int, int, int]] = {"softmax": (2, 2, 1), "layer_norm": (4, 3, 0)}
"""Steps of bf16 vectors, passes in f32 and functions by tables: largest, difference, sum, product, exponential; or
difference and three products and sums, sum, squares and their sum."""
_REDUCTIONS = 2
"""Rows become one number so often: largest and sum, or two sums."""
