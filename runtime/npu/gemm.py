"""The whole-array product: integer C = A·B on every core, A's tiles along rows of cores, B's along columns.

Each core keeps one tile of C while tiles of A and B pass; rows of cores share A by broadcast, columns share B, and a
memory tile joins a column's results. The graph is the same for every size; what differs is the host's sequence and how
many steps make a sum, so that one program serves all layers of a model. B may be packed ternary codes, decoded on the
core. Values and time come from `simulator.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import Channel, Design, HostBuffer, Kernel, Link, Port, Step, Transfer, Wait

CODES_A_BYTE = 4


@dataclass(frozen=True)
class GemmPlan:
    """Tiles m x k x n of one core, the array's rows and columns of cores, and whether B is packed ternary."""

    m: int
    k: int
    n: int
    rows: int
    cols: int
    ternary: bool

    @staticmethod
    def on(machine: Machine, tile: tuple[int, int, int], *, ternary: bool) -> GemmPlan:
        """The plan for a machine: all columns, and as many rows of cores as columns can feed (one row's A each)."""
        rows = len({row for _, row in machine.tiles("core")})
        return GemmPlan(*tile, min(rows, machine.cols), machine.cols, ternary)

    @property
    def block_m(self) -> int:
        """Rows of C the array makes at once."""
        return self.m * self.rows

    @property
    def block_n(self) -> int:
        """Columns of C the array makes at once."""
        return self.n * self.cols


def kernel_cycles(plan: GemmPlan, machine: Machine, steps: int) -> tuple[int, ...]:
    """Cycles of each step of a sum: multiply-adds, decoding of codes, and storing C after the last."""
    rate = machine.gemm["i8xternary->i32" if plan.ternary else "i8xi8->i32"]
    each = plan.m * plan.k * plan.n / rate.peak_macs_per_cycle
    if plan.ternary:
        each += plan.k * plan.n / machine.timing["ternary_decode_weights_per_cycle"]
    last = each + plan.m * plan.n * rate.cycles_per_output
    return (*[round(each)] * (steps - 1), round(last))


def gemm_graph(plan: GemmPlan, machine: Machine, steps: int) -> Design:
    """The graph, pinned to the array: core (c, r) makes tile (r, c) of C. It has no buffers and no sequence yet."""
    width = plan.n // CODES_A_BYTE if plan.ternary else plan.n
    b_type, function = ("u8", "ternary_gemm") if plan.ternary else ("i8", "gemm")
    first = machine.tiles("core")[0][1]
    kernels: list[Kernel] = []
    channels: list[Channel] = []
    links: list[Link] = []
    ports: list[Port] = []

    def pair(name: str, column: int, dtype: str, shape: tuple[int, ...], consumers: tuple[str, ...]) -> None:
        """Host, shim, memory tile, cores: one operand's stream."""
        channels.append(Channel(f"{name}_host", f"{name}_in", (f"{name}_tile",), dtype, shape))
        channels.append(Channel(name, f"{name}_tile", consumers, dtype, shape))
        links.append(Link(f"{name}_tile", "forward", (f"{name}_host",), (name,), tile=(column, 1), pinned=True))
        ports.append(Port(f"{name}_in", f"{name}_host", "in", (column, 0), pinned=True))

    for r in range(plan.rows):
        pair(
            f"a{r}", r * plan.cols // plan.rows, "i8", (plan.m, plan.k), tuple(f"core{c}_{r}" for c in range(plan.cols))
        )
    cycles = kernel_cycles(plan, machine, steps)
    ones, last = (1,) * steps, (*[0] * (steps - 1), 1)
    tile_bytes = plan.m * plan.n * 4
    for c in range(plan.cols):
        pair(f"b{c}", c, b_type, (plan.k, width), tuple(f"core{c}_{r}" for r in range(plan.rows)))
        for r in range(plan.rows):
            name = f"core{c}_{r}"
            inputs, outputs = (f"a{r}", f"b{c}"), (f"c{c}_{r}",)
            params = {"steps": steps}
            # The sum stays in the core's memory; only a finished tile takes the output's buffer.
            kernels.append(
                Kernel(
                    name,
                    function,
                    inputs,
                    outputs,
                    (ones, ones),
                    (last,),
                    cycles,
                    params,
                    tile_bytes,
                    8192,
                    (c, first + r),
                    True,
                )
            )
            channels.append(Channel(f"c{c}_{r}", name, (f"c{c}_tile",), "i32", (plan.m, plan.n), depth=1))
        parts = tuple(f"c{c}_{r}" for r in range(plan.rows))
        offsets = tuple(r * tile_bytes for r in range(plan.rows))
        links.append(Link(f"c{c}_tile", "join", parts, (f"c{c}",), offsets, tile=(c, 1), pinned=True))
        channels.append(Channel(f"c{c}", f"c{c}_tile", (f"c{c}_out",), "i32", (plan.block_m, plan.n)))
        ports.append(Port(f"c{c}_out", f"c{c}", "out", (c, 0), pinned=True))
    return Design("gemm", machine.name, tuple(kernels), tuple(channels), tuple(links), tuple(ports))


def with_sizes(graph: Design, plan: GemmPlan, machine: Machine, size: tuple[int, int, int]) -> Design:
    """The graph's program for A [M, K] · B [K, N], sizes in whole blocks: steps of each sum, buffers, the sequence."""
    big_m, big_k, big_n = size
    steps, across, down = big_k // plan.k, big_n // plan.block_n, big_m // plan.block_m
    cycles, ones = kernel_cycles(plan, machine, steps), (1,) * steps
    last = (*[0] * (steps - 1), 1)
    kernels = tuple(
        replace(kernel, consume=(ones, ones), produce=(last,), cycles=cycles, params={"steps": steps})
        for kernel in graph.kernels
    )
    width = plan.n // CODES_A_BYTE if plan.ternary else plan.n
    buffers = (
        HostBuffer("a", "i8", (big_m, big_k), "input"),
        HostBuffer("b", "u8" if plan.ternary else "i8", (big_n // plan.n, steps, plan.k, width), "weight"),
        HostBuffer("c", "i32", (big_m, big_n), "output"),
    )
    sequence: list[Step] = []
    for i in range(down):
        for j in range(across):
            for r in range(plan.rows):
                row = i * plan.block_m + r * plan.m
                sequence.append(Transfer(f"a{r}_in", "a", row * big_k, (steps, plan.m, plan.k), (plan.k, big_k, 1)))
            for c in range(plan.cols):
                column, size_b = j * plan.cols + c, steps * plan.k * width
                sequence.append(Transfer(f"b{c}_in", "b", column * size_b, (size_b,), (1,)))
                start = i * plan.block_m * big_n + column * plan.n
                sequence.append(Transfer(f"c{c}_out", "c", start, (plan.block_m, plan.n), (big_n, 1)))
    sequence += [Wait(f"c{c}_out") for c in range(plan.cols)]
    return replace(graph, kernels=kernels, buffers=buffers, sequence=tuple(sequence))


def blocks(plan: GemmPlan, m: int, k: int, n: int) -> tuple[int, int, int]:
    """Sizes filled up to whole blocks."""
    return (_up(m, plan.block_m), _up(k, plan.k), _up(n, plan.block_n))


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def tiled_weights(plan: GemmPlan, rows: NDArray[np.int8]) -> NDArray[np.generic]:
    """B for the host buffer, from weights [N, K]: tile columns, steps, then k x n; ternary ones four codes a byte."""
    big_n, big_k = rows.shape
    _, padded_k, padded_n = blocks(plan, 1, big_k, big_n)
    whole = np.zeros((padded_k, padded_n), np.int8)
    whole[:big_k, :big_n] = rows.T
    tiles = whole.reshape(padded_k // plan.k, plan.k, padded_n // plan.n, plan.n).transpose(2, 0, 1, 3)
    if not plan.ternary:
        return np.ascontiguousarray(tiles)
    codes = (tiles + 1).astype(np.uint8).reshape(*tiles.shape[:3], plan.n // CODES_A_BYTE, CODES_A_BYTE)
    packed = codes[..., 0] | codes[..., 1] << 2 | codes[..., 2] << 4 | codes[..., 3] << 6
    return np.ascontiguousarray(packed)
