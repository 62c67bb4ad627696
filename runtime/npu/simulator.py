"""Simulating an NPU program: one run gives the outputs' values, bit for bit, and the cycles they took.

Discrete events at the granularity of buffers: values travel in the same tokens that cost time, and outputs are
assembled from nothing but tokens that leave through shim DMAs. A run that stops before the host's sequence is over is a
deadlock, and says who waits for whom. The processes are in `processes.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from neuc.errors import Error
from neuc.runtime.npu.clockwork import Clock, PoolState, Process
from neuc.runtime.npu.functions import FUNCTIONS, Array, Function, State, Tokens
from neuc.runtime.npu.host_process import HostProcess
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.processes import FlowProcess, KernelProcess, PortState, Task
from neuc.runtime.npu.program import DTYPES, Channel, Design, ParamValue, SetParam, Transfer, pool_name, pools_of
from neuc.runtime.npu.trace import DmaLane, Trace
from neuc.runtime.npu.world import Counts, World

MAX_EVENTS = 50_000_000
_WORD = 4


@dataclass(frozen=True)
class Deadlock:
    """Who waits for whom, in a circle: (waiting, for what, on whom); names of nodes, channels and ``host``."""

    cycle: tuple[tuple[str, str, str], ...]

    def __str__(self) -> str:
        return "; ".join(f"{who} waits for {what} from {whom}" for who, what, whom in self.cycle)


@dataclass(frozen=True)
class Run:
    """What a simulation gave.

    ``outputs`` are the arrays of role output; ``cycles`` is when the host's sequence was over; ``deadlock`` is None
    when it was.
    """

    outputs: Mapping[str, Array]
    cycles: float
    seconds: float
    counts: Counts
    deadlock: Deadlock | None
    trace: Trace | None
    events: int


def simulate(
    design: Design,
    machine: Machine,
    inputs: Mapping[str, Array],
    *,
    functions: Mapping[str, Function] | None = None,
    values: bool = True,
    trace: bool = False,
) -> Run:
    """Run `design` on `machine`.

    Args:
        design: at any stage; before placement, hops cost nothing.
        machine: whose costs count.
        inputs: an array for every host buffer of role input or weight.
        functions: behavioural functions beside those of `functions.FUNCTIONS`.
        values: without, only tokens and time are simulated.
        trace: keep a timeline.

    Raises:
        Error: NEUC-E680, a kernel's function is unknown or gives something else than it says; NEUC-E686, inputs do not
            fit; NEUC-E681, a transfer of the sequence does not fit its buffer or channel.
    """
    arrays = _host_arrays(design, inputs, values=values)
    world = World(Clock(), machine, Counts(), Trace() if trace else None, values)
    host = _build(design, machine, world, arrays, {**FUNCTIONS, **(functions or {})})
    while not host.done:
        if not world.clock.step():
            break
        if world.clock.events > MAX_EVENTS:
            raise Error("NEUC-E686", f"{design.name}: more than {MAX_EVENTS} events", hint="simulate a smaller input")
    outputs = {b.name: arrays[b.name] for b in design.buffers if b.role == "output"}
    seconds = world.clock.now / machine.clock_hz
    stuck = None if host.done else diagnose(host)
    return Run(outputs, world.clock.now, seconds, world.counts, stuck, world.trace, world.clock.events)


def _silent(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    """Stands for a function whose values nobody asks for."""
    return []


def _host_arrays(design: Design, inputs: Mapping[str, Array], *, values: bool) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for buffer in design.buffers:
        dtype = DTYPES[buffer.dtype]
        if buffer.role == "output" or not values:
            arrays[buffer.name] = np.zeros(buffer.shape, dtype)
            continue
        given = inputs.get(buffer.name)
        if given is None or given.shape != buffer.shape or given.dtype != dtype:
            got = "nothing" if given is None else f"{given.dtype} {list(given.shape)}"
            raise Error(
                "NEUC-E686",
                f"{design.name}: buffer {buffer.name} is {buffer.dtype} {list(buffer.shape)}, got {got}",
                hint="pass one array for each input and weight of the design",
            )
        arrays[buffer.name] = np.ascontiguousarray(given)
    return arrays


def _build(
    design: Design, machine: Machine, world: World, arrays: Mapping[str, Array], known: Mapping[str, Function]
) -> HostProcess:
    """Make all processes and connect them; returns the host's, which is the first to act."""
    channels = {channel.name: channel for channel in design.channels}
    pools = {plan.name: PoolState(plan.name, plan.depth, plan.nbytes) for plan in pools_of(design)}
    kernels: dict[str, KernelProcess] = {}
    for kernel in design.kernels:
        if kernel.function not in known and world.values:
            hint = "use a library function, or pass functions={name: callable}"
            raise Error("NEUC-E680", f"kernel {kernel.name}: no function {kernel.function!r}", hint=hint)
        kernels[kernel.name] = KernelProcess(kernel, known.get(kernel.function, _silent), channels, world)
    links = {link.name: link for link in design.links}
    ports: dict[str, PortState] = {}
    for port in design.ports:
        dma = machine.classes["shim"].dma if "shim" in machine.classes else None
        ports[port.name] = PortState(port, dma.queue_depth if dma is not None else 4)

    def end_pool(channel: str, node: str) -> PoolState:
        if node in links:
            return pools[node]
        return pools[channel if channel in design.shared else pool_name(channel, node)]

    hops = {route.channel: len({c.tile for c in route.connections}) - 1 for route in design.routes}
    flows: list[FlowProcess] = []
    for channel in design.channels:
        if channel.name in design.shared:
            continue
        flow = FlowProcess(channel, world, max(hops.get(channel.name, 0), 0), _width(design, machine, channel.name))
        flows.append(flow)
        if channel.producer in ports:
            flow.port_in = ports[channel.producer]
            ports[channel.producer].flow = flow
        else:
            pool = end_pool(channel.name, channel.producer)
            link = links.get(channel.producer)
            offset = link.offsets[link.outputs.index(channel.name)] if link is not None and link.mode == "split" else 0
            flow.source = (pool, pool.add_reader(flow), offset, link.repeat if link is not None else 1)
        for consumer in channel.consumers:
            if consumer in ports:
                flow.port_out = ports[consumer]
                ports[consumer].flow = flow
                continue
            pool = end_pool(channel.name, consumer)
            link = links.get(consumer)
            offset = link.offsets[link.inputs.index(channel.name)] if link is not None and link.mode == "join" else 0
            flow.sinks.append((pool, pool.add_writer(flow), offset))
        if world.trace is not None:
            flow.lanes += _lanes(design, machine, channel)
    for process in kernels.values():
        for name in process.kernel.inputs:
            pool = end_pool(name, process.name)
            process.inputs.append((pool, pool.add_reader(process)))
        for name in process.kernel.outputs:
            pool = end_pool(name, process.name)
            process.outputs.append((pool, pool.add_writer(process)))
    return _host(design, world, arrays, ports, kernels, flows)


def _lanes(design: Design, machine: Machine, channel: Channel) -> list[DmaLane]:
    """The DMA channels at both ends, as timelines name them; of unplaced designs the first of each tile."""
    found: list[DmaLane] = []
    ports, links = {port.name for port in design.ports}, {link.name for link in design.links}
    numbers = {(end.node, end.direction): end.index for end in design.dmas if end.channel == channel.name}
    for node in (channel.producer, *channel.consumers):
        kind = "shim" if node in ports else "mem" if node in links else "dma"
        direction = "S2MM" if found else "MM2S"
        dma = machine.classes["core" if kind == "dma" else kind].dma
        index = numbers.get((node, direction), 0)
        port = index + (dma.s2mm if dma is not None and direction == "MM2S" else 0)
        found.append(DmaLane(kind, design.node(node).tile, direction, index, port))
    return found


def _host(
    design: Design,
    world: World,
    arrays: Mapping[str, Array],
    ports: Mapping[str, PortState],
    kernels: Mapping[str, KernelProcess],
    flows: list[FlowProcess],
) -> HostProcess:
    owners = {param.name: param for param in design.params}
    sizes = {port.name: design.channel(port.channel).nbytes for port in design.ports}
    host = HostProcess(design.sequence, world, lambda step: _task(step, design, arrays, sizes[step.port]))

    def set_param(step: SetParam) -> None:
        kernels[owners[step.param].kernel].params[step.param] = step.value

    host.ports.update(ports)
    host.set_param = set_param
    for param in design.params:
        kernels[param.kernel].params[param.name] = param.value
    for port in ports.values():
        port.host = host
    for process in (*kernels.values(), *flows, host):
        world.clock.after(0.0, process.poke)
    return host


def _width(design: Design, machine: Machine, channel: str) -> int:
    """Bytes a cycle between the ends of a channel."""
    found = [dma.bytes_per_cycle for cls in machine.classes.values() if (dma := cls.dma) is not None]
    return min(found) if found else _WORD


def _task(step: Transfer, design: Design, arrays: Mapping[str, Array], token: int) -> Task:
    buffer, array = design.buffer(step.buffer), arrays[step.buffer]
    places = np.array([step.offset], np.int64)
    for size, stride in zip(step.sizes, step.strides):
        places = (places[:, None] + np.arange(size, dtype=np.int64) * stride).reshape(-1)
    itemsize = array.dtype.itemsize
    problem = ""
    if places.size == 0 or places.min() < 0 or places.max() >= array.size:
        problem = f"reaches outside {step.buffer} of {array.size} elements"
    elif places.size * itemsize % token:
        problem = f"moves {places.size * itemsize} bytes, no whole number of tokens of {token} bytes"
    if problem:
        raise Error(
            "NEUC-E681", f"{design.name}: a transfer on {step.port} {problem}", hint="correct sizes and strides"
        )
    run = 1
    for size, stride in zip(reversed(step.sizes), reversed(step.strides)):
        if stride != run and size > 1:
            break
        run *= size
    return Task(buffer, array, places, 0, run * itemsize)


def diagnose(host: HostProcess) -> Deadlock:
    """The circle of waiting that keeps `host` from going on; a chain that ends nowhere is given as it is."""
    chain: list[tuple[Process, str, Process]] = []
    seen: dict[int, int] = {}
    process: Process = host
    while id(process) not in seen:
        seen[id(process)] = len(chain)
        waits = process.blocked_on()
        if not waits:
            return Deadlock(tuple((a.name, why, b.name) for a, why, b in chain))
        back = next((wait for wait in waits if id(wait[1]) in seen), waits[0])
        chain.append((process, back[0], back[1]))
        process = back[1]
    return Deadlock(tuple((a.name, why, b.name) for a, why, b in chain[seen[id(process)] :]))


def with_depths(design: Design, depths: Mapping[str, int]) -> Design:
    """The same design with other depths of some channels and links."""
    return replace(
        design,
        channels=tuple(replace(c, depth=depths.get(c.name, c.depth)) for c in design.channels),
        links=tuple(replace(link, depth=depths.get(link.name, link.depth)) for link in design.links),
        pools=(),
        dmas=(),
        routes=(),
    )
