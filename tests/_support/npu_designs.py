"""Dataflow designs that several NPU tests need: random graphs, published hang cases, and a fully built small one."""

from __future__ import annotations

import random
from dataclasses import replace

from neuc.backends.npu.assign import assign_resources
from neuc.backends.npu.place.placer import place_design
from neuc.backends.npu.route.router import route_design
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import (
    Channel,
    Design,
    HostBuffer,
    Kernel,
    Link,
    Param,
    ParamValue,
    Port,
    Transfer,
    Wait,
)

TOKEN = 4


def kernel(
    name: str,
    inputs: dict[str, tuple[int, ...]],
    outputs: dict[str, tuple[int, ...]],
    cycles: tuple[int, ...] = (10,),
    salt: int = 0,
) -> Kernel:
    """A kernel of function ``mix`` with these rates."""
    produce = [n for rates in outputs.values() for n in rates]
    params = {"size": TOKEN, "salt": salt, "outputs": len(outputs), "phases": len(cycles), "produce": produce}
    return Kernel(
        name, "mix", tuple(inputs), tuple(outputs), tuple(inputs.values()), tuple(outputs.values()), cycles, params
    )


def one_kernel(
    function: str,
    inputs: list[tuple[int, ...]],
    output: tuple[int, ...],
    dtype: str = "u8",
    params: dict[str, ParamValue] | None = None,
    consume: tuple[int, ...] = (1,),
    rtp: tuple[str, ...] = (),
) -> Design:
    """A placed design of one kernel, its inputs a, b, …, its output y."""
    names = [chr(ord("a") + i) for i in range(len(inputs))]
    phases = len(consume)
    kernel = Kernel(
        "k", function, tuple(names), ("y",), (consume,) * len(names), ((1,) * phases,), (9,) * phases, params or {}
    )
    channels = [Channel(name, f"{name}_in", ("k",), dtype, shape) for name, shape in zip(names, inputs)]
    channels.append(Channel("y", "k", ("y_out",), dtype, output))
    ports = [Port(f"{name}_in", name, "in", (0, 0)) for name in names] + [Port("y_out", "y", "out", (0, 0))]
    found = [Param(name, "k", int(str((params or {})[name]))) for name in rtp]
    kernels = (replace(kernel, tile=(0, 2)),)
    return Design("one", "npu-xdna1-1col", kernels, tuple(channels), (), tuple(ports), (), tuple(found))


def random_kernels(count: int, seed: int, machine: str) -> Design:
    """A random acyclic graph of kernels with at most two inputs and outputs each, for placement."""
    rng = random.Random(seed)
    channels: list[Channel] = []
    ins: dict[int, list[str]] = {i: [] for i in range(count)}
    outs: dict[int, list[str]] = {i: [] for i in range(count)}
    for i in range(1, count):
        free = [j for j in range(i) if len(outs[j]) < 2]
        for j in rng.sample(free, min(len(free), rng.choice([1, 1, 2]))):
            channels.append(Channel(f"c{j}_{i}", f"k{j}", (f"k{i}",), "i32", (rng.choice([16, 32, 64, 128, 256]),)))
            ins[i].append(channels[-1].name)
            outs[j].append(channels[-1].name)
    kernels = [kernel(f"k{i}", dict.fromkeys(ins[i], (1,)), dict.fromkeys(outs[i], (1,))) for i in range(count)]
    return Design(f"random{seed}", machine, tuple(k for k in kernels if k.inputs or k.outputs), tuple(channels))


def random_dataflow(seed: int, tokens: int = 3) -> Design:
    """A random graph with cyclo-static rates, links and small depths, which may deadlock; i32 tokens of 4.

    Chains from one input are forked, delayed by kernels that collect several tokens, and joined again.
    """
    rng = random.Random(seed)
    channels = [Channel("x0", "pin", ("k0",), "i32", (TOKEN,), rng.choice([1, 2]))]
    burst = rng.choice([1, 1, 2, 3])
    fork = {"a0": (1,) * burst, "b0": (1,) * burst}
    kernels = [kernel("k0", {"x0": (1,) * burst}, fork, tuple(rng.randrange(1, 40) for _ in range(burst)), seed)]
    links: list[Link] = []
    ends: dict[str, str] = {}
    for branch in "ab":
        name, owner = f"{branch}0", "k0"
        for i in range(rng.randrange(0, 3)):
            node, made = f"{branch}n{i}", f"{branch}{i + 1}"
            channels.append(Channel(name, owner, (node,), "i32", (TOKEN,), rng.choice([1, 2, 2, 3])))
            if rng.random() < 0.35:
                links.append(Link(node, "forward", (name,), (made,), (), 1, rng.choice([1, 2, 4])))
            else:
                window = rng.choice([1, 1, 2, 3])
                # Collects a window, then gives it token by token.
                consume = (window, *[0] * (window - 1)) if rng.random() < 0.5 else (1,) * window
                cycles = tuple(rng.randrange(1, 60) for _ in range(window))
                kernels.append(kernel(node, {name: consume}, {made: (1,) * window}, cycles, seed + i))
            name, owner = made, node
        ends[branch] = name
        channels.append(Channel(name, owner, ("last",), "i32", (TOKEN,), rng.choice([1, 2, 2, 3])))
    window = rng.choice([1, 2, 3])
    taken = {ends["a"]: (window, *[0] * window), ends["b"]: (0, *[1] * window)}
    cycles = tuple(rng.randrange(1, 30) for _ in range(window + 1))
    kernels.append(kernel("last", taken, {"y": (0, *[1] * window)}, cycles, seed))
    channels.append(Channel("y", "last", ("pout",), "i32", (TOKEN,), 2))
    total = TOKEN * tokens * 6  # whole periods of every window
    return Design(
        f"flow{seed}",
        "npu-xdna1",
        tuple(kernels),
        tuple(channels),
        tuple(links),
        (Port("pin", "x0", "in"), Port("pout", "y", "out")),
        (HostBuffer("x", "i32", (total,), "input"), HostBuffer("out", "i32", (total,), "output")),
        (),
        (Transfer("pin", "x", 0, (total,), (1,)), Transfer("pout", "out", 0, (total,), (1,)), Wait("pout")),
    )


def replayed_broadcast(halves: int, fan_out: int, trips: int, depth: int) -> Design:
    """mlir-aie #3257: weights split over memory tiles, each broadcast to cores whose outputs a memory tile replays."""
    kernels: list[Kernel] = []
    channels = [Channel("w", "pw", ("split",), "i32", (TOKEN * halves,), depth)]
    links = [
        Link("split", "split", ("w",), tuple(f"half{h}" for h in range(halves)), tuple(16 * h for h in range(halves)))
        if halves > 1
        else Link("split", "forward", ("w",), ("half0",))
    ]
    ports = [Port("pw", "w", "in")]
    size = 8 * TOKEN * halves
    buffers = [HostBuffer("weights", "i32", (size,), "weight")]
    steps: list[Transfer | Wait] = [Transfer("pw", "weights", 0, (size,), (1,))]
    for h in range(halves):
        cores = [f"core{h}_{i}" for i in range(fan_out)]
        channels.append(Channel(f"half{h}", "split", (f"tile{h}",), "i32", (TOKEN,), depth))
        links.append(Link(f"tile{h}", "broadcast", (f"half{h}",), (f"bcast{h}",), (), 1, depth))
        channels.append(Channel(f"bcast{h}", f"tile{h}", tuple(cores), "i32", (TOKEN,), depth))
        for i, core in enumerate(cores):
            kernels.append(kernel(core, {f"bcast{h}": (1,)}, {f"o{h}_{i}": (1,)}, salt=i))
            channels.append(Channel(f"o{h}_{i}", core, (f"back{h}",), "i32", (TOKEN,), depth))
        outs = tuple(f"o{h}_{i}" for i in range(fan_out))
        links.append(Link(f"back{h}", "join", outs, (f"y{h}",), tuple(16 * i for i in range(fan_out)), trips, depth))
        channels.append(Channel(f"y{h}", f"back{h}", (f"py{h}",), "i32", (TOKEN * fan_out,), depth))
        ports.append(Port(f"py{h}", f"y{h}", "out"))
        amount = 8 * TOKEN * fan_out * trips
        buffers.append(HostBuffer(f"out{h}", "i32", (amount,), "output"))
        steps.append(Transfer(f"py{h}", f"out{h}", 0, (amount,), (1,)))
    steps += [Wait(f"py{h}") for h in range(halves)]
    return Design(
        "replay",
        "npu-xdna2",
        tuple(kernels),
        tuple(channels),
        tuple(links),
        tuple(ports),
        tuple(buffers),
        (),
        tuple(steps),
    )


def tiled_through_memory(k_l2: int, *, k: int = 512, k_l1: int = 32, fan_out: int = 4, depth: int = 4) -> Design:
    """mlir-air #1822 as its four settings can be read: a memory tile holds `k_l2` of the `k` products to be summed up.

    It is filled k / k_l2 times, and each filling goes to a row of cores in k_l2 / k_l1 trips. Only how many tokens move
    is modelled, not what is in them. k, fan-out and depth are assumed; k_l1 is the default of mlir-air's examples.
    """
    cores = [f"core{i}" for i in range(fan_out)]
    fillings, trips = k // k_l2, k_l2 // k_l1
    channels = [
        Channel("a", "pa", ("l2",), "i32", (TOKEN,), 2),
        Channel("bcast", "l2", tuple(cores), "i32", (TOKEN,), depth),
        *(Channel(f"c{i}", core, ("join",), "i32", (TOKEN,)) for i, core in enumerate(cores)),
        Channel("y", "join", ("py",), "i32", (TOKEN * fan_out,)),
    ]
    sums = fillings * trips
    gathers = {"bcast": (1,) * sums}
    kernels = tuple(
        kernel(core, gathers, {f"c{i}": (0,) * (sums - 1) + (1,)}, (10,) * sums, i) for i, core in enumerate(cores)
    )
    parts = tuple(f"c{i}" for i in range(fan_out))
    links = (
        Link("l2", "broadcast", ("a",), ("bcast",), (), trips, 2),
        Link("join", "join", parts, ("y",), tuple(16 * i for i in range(fan_out))),
    )
    inward, outward = fillings * TOKEN, TOKEN * fan_out
    return Design(
        f"l2_{k_l2}",
        "npu-xdna2",
        kernels,
        tuple(channels),
        links,
        (Port("pa", "a", "in"), Port("py", "y", "out")),
        (HostBuffer("x", "i32", (inward,), "input"), HostBuffer("out", "i32", (outward,), "output")),
        (),
        (Transfer("pa", "x", 0, (inward,), (1,)), Transfer("py", "out", 0, (outward,), (1,)), Wait("py")),
    )


def routed_example(machine: Machine) -> Design:
    """Two chains through memory tiles with shared and DMA channels, split and joined, placed, assigned and routed."""
    kernels = (
        kernel("first", {"s0": (1,)}, {"mid": (1,)}),
        kernel("second", {"mid": (1,)}, {"j0": (1,)}),
        kernel("other", {"s1": (1,)}, {"j1": (1,)}),
    )
    channels = (
        Channel("x", "pin", ("cut",), "i32", (2 * TOKEN,)),
        Channel("s0", "cut", ("first",), "i32", (TOKEN,), 2, ((2, 2), (2, 1))),
        Channel("s1", "cut", ("other",), "i32", (TOKEN,)),
        Channel("mid", "first", ("second",), "i32", (TOKEN,)),
        Channel("j0", "second", ("glue",), "i32", (TOKEN,)),
        Channel("j1", "other", ("glue",), "i32", (TOKEN,)),
        Channel("y", "glue", ("pout",), "i32", (2 * TOKEN,)),
    )
    links = (Link("cut", "split", ("x",), ("s0", "s1"), (0, 16)), Link("glue", "join", ("j0", "j1"), ("y",), (0, 16)))
    ports = (Port("pin", "x", "in"), Port("pout", "y", "out"))
    total = 2 * TOKEN * 8
    design = Design(
        "example",
        machine.name,
        kernels,
        channels,
        links,
        ports,
        (HostBuffer("a", "i32", (total,), "input"), HostBuffer("b", "i32", (total,), "output")),
        (),
        (Transfer("pin", "a", 0, (8, 8), (8, 1)), Transfer("pout", "b", 0, (total,), (1,)), Wait("pout")),
    )
    placed = place_design(design, machine, prove=False).design
    return route_design(assign_resources(placed, machine), machine)
