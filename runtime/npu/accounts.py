"""What a program moves, counted without running it, and what moving and multiplying costs in energy.

The simulator counts the same while it runs (tests/compiler/test_npu_figures.py); time is not asked for here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from neuc.errors import InternalError
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import DTYPES, Design, Kernel, Transfer

OPERAND_OF: Mapping[str, str] = {"a": "A", "x": "A", "b": "B", "c": "C", "y": "C"}
"""What host buffers hold: A what is read, B weights, with what finishes products, C results; others by name."""
SOURCES: Mapping[str, str] = {
    "multiply-adds": "mac",
    "tile memories": "sram_byte_pj",
    "streams": "stream_byte_hop_pj",
    "host memory": "ddr_byte_pj",
}
"""Sources of energy, and which figure of a machine prices each; of multiply-adds, how it begins."""


@dataclass(frozen=True)
class Account:
    """What one dispatch moves and multiplies: bytes of host memory by buffer, bytes x hops, bytes of tile memories.

    ``macs`` are multiply-adds that the cores do, padding included; 0 for work that is no product.
    """

    ddr: Mapping[str, int]
    stream_byte_hops: int
    sram_bytes: int
    macs: int


def account_of(design: Design, tile: tuple[int, int, int] | None = None) -> Account:
    """Count what a placed and routed program with its sequence moves.

    Args:
        design: acyclic, with routes.
        tile: m, k and n of one core's step, of products.
    """
    channels = {channel.name: channel for channel in design.channels}
    ports = {port.name: port for port in design.ports}
    kinds = {buffer.name: DTYPES[buffer.dtype].itemsize for buffer in design.buffers}
    ddr: dict[str, int] = dict.fromkeys(kinds, 0)
    entered: dict[str, int] = {port.channel: 0 for port in design.ports if port.direction == "in"}
    for step in design.sequence:
        if isinstance(step, Transfer):
            nbytes, port = prod(step.sizes) * kinds[step.buffer], ports[step.port]
            ddr[step.buffer] += nbytes
            if port.direction == "in":
                entered[port.channel] += nbytes
    tokens = {name: nbytes // channels[name].nbytes for name, nbytes in entered.items()}
    rounds = _propagate(design, tokens)
    hops = {route.channel: len({c.tile for c in route.connections}) - 1 for route in design.routes}
    streamed = sram = 0
    for channel in design.channels:
        moved = tokens[channel.name] * channel.nbytes
        if channel.name not in design.shared:
            inside = [node for node in (channel.producer, *channel.consumers) if node not in ports]
            streamed += moved * max(hops.get(channel.name, 0), 0)
            sram += moved * len(inside)
    macs = 0
    for kernel in design.kernels:
        read = (channels[name].nbytes * sum(rates) for name, rates in zip(kernel.inputs, kernel.consume))
        sram += rounds[kernel.name] * sum(read)
        if tile is not None:
            macs += rounds[kernel.name] * int(str(kernel.params["steps"])) * prod(tile)
    return Account(ddr, streamed, sram, macs)


def _propagate(design: Design, tokens: dict[str, int]) -> dict[str, int]:
    """Fill in how many tokens every channel carries; returns how often each kernel goes through its phases."""
    rounds: dict[str, int] = {}
    waiting = [*design.links, *design.kernels]
    while waiting:
        ready = [node for node in waiting if all(name in tokens for name in node.inputs)]
        if not ready:
            raise InternalError(f"{design.name}: a circle of channels has no count of tokens")
        for node in ready:
            if isinstance(node, Kernel):
                first = next((i for i, rates in enumerate(node.consume) if sum(rates)), None)
                turns = 0 if first is None else tokens[node.inputs[first]] // sum(node.consume[first])
                rounds[node.name] = turns
                tokens.update({name: turns * sum(rates) for name, rates in zip(node.outputs, node.produce)})
            else:
                tokens.update(dict.fromkeys(node.outputs, tokens[node.inputs[0]] * node.repeat))
        waiting = [node for node in waiting if node not in ready]
    return rounds


def by_operand(ddr: Mapping[str, int]) -> dict[str, int]:
    """Bytes of host memory by operand, of bytes by buffer."""
    found: dict[str, int] = {}
    for buffer, nbytes in ddr.items():
        name = OPERAND_OF.get(buffer, buffer.upper())
        found[name] = found.get(name, 0) + nbytes
    return found


def energy_of(machine: Machine, kind: str, macs: int, sram: int, byte_hops: int, ddr: int) -> dict[str, float]:
    """An estimate in picojoules by source, from the machine's figures; `kind` of multiply-adds is i8 or bf16."""
    counts = {"multiply-adds": macs, "tile memories": sram, "streams": byte_hops, "host memory": ddr}
    prices = {**SOURCES, "multiply-adds": f"mac_{kind}_pj"}
    return {name: count * machine.energy.get(prices[name], 0.0) for name, count in counts.items()}


def energy_marks(machine: Machine) -> dict[str, str]:
    """Where the machine's figures for each source come from: a mark of its provenance, or "no figure"."""
    found: dict[str, str] = {}
    for source, start in SOURCES.items():
        names = [name for name in machine.energy if name.startswith(start)]
        marks = sorted({machine.mark_of(f"energy.{name}")[0] for name in names})
        found[source] = " and ".join(marks) or "no figure"
    return found


def peak_seconds(machine: Machine, rate: str, macs: float) -> float:
    """Time that all cores of the array would take at the peak rate of their kernels for operands `rate`."""
    figures = machine.gemm.get(rate)
    if not macs or figures is None:
        return 0.0
    return macs / (figures.peak_macs_per_cycle * len(machine.tiles("core")) * machine.clock_hz)
