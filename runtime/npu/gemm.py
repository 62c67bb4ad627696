"""The whole-array product: C = A·B on every core, as a dataflow graph for one plan and the host's sequence for sizes.

Each core keeps one tile of C while tiles of A and B pass; how they reach it is the plan's spread; a memory tile joins a
column's results. The graph is the same for every size: what differs is the host's sequence and how many steps make a
sum, so that one program serves many layers. B may be packed ternary codes, decoded on the core. Values and time come
from `simulator.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from neuc.runtime.npu.gemm_plan import (
    SPREADS,
    AnyFinish,
    GemmPlan,
    adds,
    emitted_tokens,
    kernel_cycles,
    result_type,
    weight_shape,
)
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import (
    DTYPES,
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
from neuc.runtime.npu.requantize import Finish
from neuc.runtime.npu.windows import Image, Padded

_KERNEL_BYTES = 8192


@dataclass(frozen=True)
class _Stream:
    """One operand's way from host memory: its shim's column, the first of the parts it carries, and who reads it."""

    name: str
    column: int
    part: int
    cores: tuple[tuple[int, int], ...]
    split: bool


def _streams(plan: GemmPlan, operand: str) -> list[_Stream]:
    kind = SPREADS[plan.spread]["ab".index(operand)]
    rows, cols = range(plan.rows), range(plan.cols)
    if kind == "one":
        return [_Stream(f"{operand}0", plan.cols // 2, 0, tuple((c, r) for c in cols for r in rows), False)]
    if kind == "row":
        return [
            _Stream(f"{operand}{r}", r * plan.cols // plan.rows, r, tuple((c, r) for c in cols), False) for r in rows
        ]
    split = kind == "each"
    return [
        _Stream(f"{operand}{c}", c, c * (plan.rows if split else 1), tuple((c, r) for r in rows), split) for c in cols
    ]


def gemm_graph(plan: GemmPlan, machine: Machine, steps: int) -> Design:
    """The graph, pinned to the array: core (c, r) makes tile `plan.place(c, r)` of C. It has no sequence yet."""
    first = machine.tiles("core")[0][1]
    kind = plan.kind
    channels: list[Channel] = []
    links: list[Link] = []
    ports: list[Port] = []
    inputs: dict[tuple[int, int], list[str]] = {(c, r): [] for c in range(plan.cols) for r in range(plan.rows)}
    shapes = {"a": (kind.a, (plan.m, plan.k)), "b": (kind.b, (plan.k, plan.width))}
    for operand, (dtype, shape) in shapes.items():
        for stream in _streams(plan, operand):
            name, tile = stream.name, (stream.column, 1)
            whole = (len(stream.cores) * shape[0], shape[1]) if stream.split else shape
            channels.append(Channel(f"{name}_host", f"{name}_in", (f"{name}_tile",), dtype, whole))
            ports.append(Port(f"{name}_in", f"{name}_host", "in", (stream.column, 0), pinned=True))
            if not stream.split:
                consumers = tuple(f"core{c}_{r}" for c, r in stream.cores)
                channels.append(Channel(name, f"{name}_tile", consumers, dtype, shape))
                links.append(Link(f"{name}_tile", "forward", (f"{name}_host",), (name,), tile=tile, pinned=True))
                for core in stream.cores:
                    inputs[core].append(name)
                continue
            own = tuple(f"{name}_{r}" for _, r in stream.cores)
            part = prod(shape) * DTYPES[dtype].itemsize
            for core, channel in zip(stream.cores, own):
                channels.append(Channel(channel, f"{name}_tile", (f"core{core[0]}_{core[1]}",), dtype, shape))
                inputs[core].append(channel)
            offsets = tuple(i * part for i in range(len(own)))
            links.append(Link(f"{name}_tile", "split", (f"{name}_host",), own, offsets, tile=tile, pinned=True))
    kernels: list[Kernel] = []
    tile_bytes = plan.m * plan.n * DTYPES[plan.token_c].itemsize
    sums = plan.m * plan.n * DTYPES[kind.c].itemsize + plan.room
    for c in range(plan.cols):
        for r in range(plan.rows):
            # The sum stays in the core's memory; only a finished tile takes the output's buffer.
            kernels.append(
                Kernel(
                    name=f"core{c}_{r}",
                    function=plan.function,
                    inputs=tuple(inputs[c, r]),
                    outputs=(f"c{c}_{r}",),
                    consume=(),
                    produce=(),
                    cycles=(),
                    state_bytes=sums,
                    program_bytes=_KERNEL_BYTES,
                    tile=(c, first + r),
                    pinned=True,
                )
            )
            channels.append(
                Channel(f"c{c}_{r}", f"core{c}_{r}", (f"c{c}_tile",), plan.token_c, (plan.m, plan.n), depth=1)
            )
        parts = tuple(f"c{c}_{r}" for r in range(plan.rows))
        offsets = tuple(r * tile_bytes for r in range(plan.rows))
        links.append(Link(f"c{c}_tile", "join", parts, (f"c{c}",), offsets, tile=(c, 1), pinned=True))
        channels.append(Channel(f"c{c}", f"c{c}_tile", (f"c{c}_out",), plan.token_c, (plan.rows * plan.m, plan.n)))
        ports.append(Port(f"c{c}_out", f"c{c}", "out", (c, 0), pinned=True))
    graph = Design("gemm", machine.name, tuple(kernels), tuple(channels), tuple(links), tuple(ports))
    return _with_steps(graph, plan, machine, steps)


def _with_steps(graph: Design, plan: GemmPlan, machine: Machine, steps: int, finish: AnyFinish | None = None) -> Design:
    """The graph with sums of so many steps, what comes after them included."""
    given, more = emitted_tokens(plan, finish), plan.parameter_tokens(finish)
    residual = plan.residual_tokens if adds(finish) else 0
    phases = len(kernel_cycles(plan, machine, steps, finish))
    a = tuple(int(i < steps or i >= phases - residual) for i in range(phases))
    b, c = tuple(int(i < steps + more) for i in range(phases)), tuple(int(i >= phases - given) for i in range(phases))
    params: dict[str, ParamValue] = {"steps": steps}
    if isinstance(finish, Finish):
        params |= {"parameters": more, "stages": finish.stages}
    elif plan.finish and plan.operands == "bf16":
        params |= {"parameters": more, "pieces": given}
    kernels: list[Kernel] = []
    for number, kernel in enumerate(graph.kernels):
        part = plan.place(*divmod(number, plan.rows))[1] if residual else 0
        own: dict[str, ParamValue] = {**params, "residual": residual, "part": part} if residual else params
        cycles = kernel_cycles(plan, machine, steps, finish, part)
        kernels.append(replace(kernel, consume=(a, b), produce=(c,), cycles=cycles, params=own))
    return replace(graph, kernels=tuple(kernels))


def with_sizes(
    graph: Design,
    plan: GemmPlan,
    machine: Machine,
    size: tuple[int, int, int],
    groups: int = 1,
    finish: AnyFinish | None = None,
    image: Image | None = None,
    into: Padded | None = None,
) -> Design:
    """The graph's program for A [M, groups·K] · B[g] [K, N] -> C [groups, M, N], sizes in whole blocks.

    With `finish`, C is int8 codes, or finished floats, and B holds their parameters (`gemm_plan.py:finished_weights`);
    tables of floats that are the program's are put into its kernels by `with_tables`. With `image`, A is windows that
    transfers cut out of images (`windows.py`), M and K being `image.rows` and `image.columns`, filled up, and groups
    the parts of their pixels. With `into`, its results are written into padded images. What is added on the cores is a
    buffer R of codes, for whose shape see `residual_shape`.
    """
    big_m, big_k, big_n = size
    steps, across, down = big_k // plan.k, big_n // plan.block_n, big_m // plan.block_m
    kind, shape = plan.kind, weight_shape(plan, big_k, big_n, finish)
    buffers = (
        HostBuffer("a", kind.a, (big_m, groups * big_k) if image is None else (image.size(plan.k),), "input"),
        HostBuffer("b", kind.b, (groups, *shape), "weight"),
        HostBuffer("c", result_type(plan.operands, finish), (groups, big_m, big_n), "output"),
    )
    if into is not None and image is not None:
        buffers = (*buffers[:2], replace(buffers[2], shape=(into.size(image.batch),)))
    if adds(finish):
        buffers += (HostBuffer("r", "i8", residual_shape(plan, big_m, big_n, groups, image), "input"),)
    sequence: list[Step] = []
    for g in range(groups):
        for i in range(down):
            for j in range(across):
                sequence += _block(plan, size, groups, (g, i, j), shape[1], finish, image, into)
    sequence += [Wait(f"c{c}_out") for c in range(plan.cols)]
    return replace(_with_steps(graph, plan, machine, steps, finish), buffers=buffers, sequence=tuple(sequence))


def with_tables(design: Design, words: Sequence[int]) -> Design:
    """The program with the words of its tables in its cores."""
    if not len(words):
        return design
    own: ParamValue = [int(word) for word in words]
    kernels = tuple(replace(kernel, params={**kernel.params, "tables": own}) for kernel in design.kernels)
    return replace(design, kernels=kernels)


def residual_shape(plan: GemmPlan, m: int, n: int, groups: int, image: Image | None) -> tuple[int, int, int]:
    """Shape of R [groups, rows, columns] in host memory, for sizes in whole blocks.

    Rows are C's, or, with `image`, the pixels of images filled up to whole rectangles; columns are filled up so that
    tokens behind the last column read what is there.
    """
    rows = m if image is None else image.batch * prod(image.filled_size)
    return groups, rows, n - plan.block_n + plan.residual_tokens * plan.k


def _residual(
    plan: GemmPlan, stream: _Stream, size: tuple[int, int, int], block: tuple[int, int, int], image: Image | None
) -> Transfer:
    """What brings the rows of a stream and the columns of a block out of R, behind A."""
    (big_m, _, big_n), (g, i, j) = size, block
    _, rows, width = residual_shape(plan, big_m, big_n, 1, image)
    column, port = j * plan.block_n, f"{stream.name}_in"
    if image is not None:
        tile = (i * plan.parts[0] + stream.part) // plan.tiles_of_a
        own = (g * rows * width + column, width)
        return image.same_pixels(port, "r", tile, own, (plan.residual_tokens, plan.k))
    start = (g * rows + i * plan.block_m + stream.part * plan.m) * width + column
    many = len(stream.cores) * plan.m if stream.split else plan.m
    return Transfer(port, "r", start, (plan.residual_tokens, many, plan.k), (plan.k, width, 1))


def _block(
    plan: GemmPlan,
    size: tuple[int, int, int],
    groups: int,
    block: tuple[int, int, int],
    tokens_b: int,
    finish: AnyFinish | None,
    image: Image | None,
    into: Padded | None,
) -> list[Step]:
    """The transfers of one block of C: of A, of B, of its own columns.

    A stream's windows are more tasks than its queue holds. As cores wait for all their operands, B goes first, and
    streams of A take turns: else the host would wait for room in one's queue before it gave the others anything.
    """
    big_m, big_k, big_n = size
    g, i, j = block
    made: list[Step] = []
    stride, token = groups * big_k, plan.taken_at_once * plan.k * plan.width
    for stream in _streams(plan, "b"):
        column = (j * plan.parts[1] + stream.part) // plan.taken_at_once
        start = (g * (big_n // plan.n) // plan.taken_at_once + column) * tokens_b * token
        made.append(Transfer(f"{stream.name}_in", "b", start, (tokens_b * token,), (1,)))
    of_a: list[list[Transfer]] = []
    for stream in _streams(plan, "a"):
        if image is not None:
            tile = (i * plan.parts[0] + stream.part) // plan.tiles_of_a
            of_a.append(image.transfers(f"{stream.name}_in", tile, plan.k, g))
        else:
            rows = len(stream.cores) * plan.m if stream.split else plan.m
            start, sizes = (i * plan.block_m + stream.part * plan.m) * stride + g * big_k, (rows, plan.k)
            of_a.append([Transfer(f"{stream.name}_in", "a", start, (big_k // plan.k, *sizes), (plan.k, stride, 1))])
        if adds(finish):
            of_a[-1].append(_residual(plan, stream, size, block, image))
    made += [task for turn in zip(*of_a) for task in turn]
    pieces = emitted_tokens(plan, finish)
    for c in range(plan.cols):
        row, column = plan.place(c, 0)
        if image is not None and into is not None:
            tile = (i * plan.parts[0] + row) // plan.tiles_of_a
            made.append(into.transfer(f"c{c}_out", image, plan, tile, j * plan.block_n + column * plan.n))
            continue
        start = (g * big_m + i * plan.block_m + row * plan.m) * big_n + j * plan.block_n + column * plan.n
        below = plan.rows == 1 or plan.place(c, 1)[1] == column  # the column's tiles lie below each other
        next_tile = plan.m * big_n if below else plan.n
        sizes, strides = (pieces, plan.rows, plan.m // pieces, plan.n), (plan.m // pieces * big_n, next_tile, big_n, 1)
        if pieces == 1:
            sizes, strides = sizes[1:], strides[1:]
        if pieces == 1 and below:
            sizes, strides = (plan.rows * plan.m, plan.n), (big_n, 1)
        made.append(Transfer(f"c{c}_out", "c", start, sizes, strides))
    return made
