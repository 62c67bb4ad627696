"""How often an iteration of a graph can begin: its tokens, and the cycles each core and DMA is busy with them.

Depths, values and routes are not asked for here; the simulator has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from neuc.backends.npu.graph_ir import graph_of
from neuc.dialects import npu
from neuc.dialects.npu_rates import repetitions
from neuc.dialects.npu_verify import rate_edges
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import Design


@dataclass(frozen=True)
class Loads:
    """Cycles of one iteration: ``fixed`` by what is busy wherever nodes stand (a kernel's core, the host's memory),
    ``dma`` by channel, which a channel in shared memory does not cost.
    """

    fixed: Mapping[str, float]
    dma: Mapping[str, float]


def iteration(design: Design) -> dict[str, int]:
    """Tokens each channel carries in one iteration of the graph: the periods of its producer, or of its consumer."""
    graph = graph_of(design)
    channels = {op.sym_name.data: op for op in graph.parts(npu.ChannelOp)}
    nodes = {op.sym_name.data: op for kind in (npu.KernelOp, npu.LinkOp, npu.PortOp) for op in graph.parts(kind)}
    inner = [name for name, node in nodes.items() if not isinstance(node, npu.PortOp)]
    periods = repetitions(inner, rate_edges(nodes, channels))
    kernels = {kernel.name: kernel for kernel in design.kernels}
    links = {link.name: link for link in design.links}
    tokens: dict[str, int] = {}
    for channel in design.channels:
        for end in (channel.producer, *channel.consumers):
            if end in kernels:
                kernel = kernels[end]
                out = end == channel.producer
                ends, rates = (kernel.outputs, kernel.produce) if out else (kernel.inputs, kernel.consume)
                tokens[channel.name] = periods[end] * sum(rates[ends.index(channel.name)])
            elif end in links:
                repeat = links[end].repeat if end == channel.producer else 1
                tokens[channel.name] = periods[end] * repeat
            else:
                continue
            break
        else:
            tokens[channel.name] = 1
    return tokens


def loads_of(design: Design, machine: Machine, tokens: Mapping[str, int]) -> Loads:
    """What is busy for how long in an iteration of `tokens` (`iteration`)."""
    channels = {channel.name: channel for channel in design.channels}
    fixed: dict[str, float] = {}
    for kernel in design.kernels:
        periods = next(
            (
                tokens[c] / sum(rate)
                for c, rate in zip((*kernel.inputs, *kernel.outputs), (*kernel.consume, *kernel.produce))
            ),
            1.0,
        )
        call = machine.timing.get("kernel_call", 0.0)
        fixed[f"core of {kernel.name}"] = periods * sum(cycles + call for cycles in kernel.cycles)
    outside = sum(tokens[port.channel] * channels[port.channel].nbytes for port in design.ports)
    rate = machine.ddr.get("bytes_per_second", 0.0)
    if rate:
        fixed["host memory"] = outside / rate * machine.clock_hz
    width = min((cls.dma.bytes_per_cycle for cls in machine.classes.values() if cls.dma is not None), default=4)
    return Loads(fixed, {c.name: tokens[c.name] * c.nbytes / width for c in design.channels})


def initiation_interval(design: Design, machine: Machine) -> tuple[float, str]:
    """Cycles between iterations at most busy core, DMA or host memory, and which of them it is."""
    found = loads_of(design, machine, iteration(design))
    dmas = {f"DMA of {name}": load for name, load in found.dma.items() if name not in design.shared}
    loads = {**found.fixed, **dmas}
    if not loads:
        return 0.0, "nothing"
    limiter = max(sorted(loads), key=lambda name: loads[name])
    return loads[limiter], limiter
