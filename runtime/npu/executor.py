"""The executor of segments of kind ``npu``: integer products on the simulated array, from tokens alone.

A segment holds the machine, the placed and routed program of one block, and the layer's weights in tiles; sizes of a
call fill the sequence in. What the array would have taken is added up in `NpuExecutor.usage`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error, InternalError
from neuc.runtime.checked_json import Node
from neuc.runtime.executors.base import Array, Setting
from neuc.runtime.npu.gemm import with_sizes
from neuc.runtime.npu.gemm_plan import OPERANDS, SPREADS, GemmPlan, blocks, weight_shape
from neuc.runtime.npu.machine import Machine, machine_of
from neuc.runtime.npu.program import DTYPES, Design
from neuc.runtime.npu.program_json import CODE, CURE, design_from_json
from neuc.runtime.npu.simulator import simulate
from neuc.runtime.profile import Event, Profile
from neuc.runtime.program import OtherSegment, Segment

CATEGORY = "npu"
"""Category of the profile's events that say what the array would have taken."""
MOST = 1 << 24
"""Rows, columns and depth of a product, at most."""
MOST_PARTS = 64
"""Weights that read the same activations, at most."""


@dataclass
class Usage:
    """What the array did in all calls: runs of a program, switches of program, cycles, seconds with both, bytes."""

    dispatches: int = 0
    switches: int = 0
    cycles: float = 0.0
    seconds: float = 0.0
    ddr_bytes: int = 0
    macs: int = 0
    padded_macs: int = 0
    energy_pj: dict[str, float] = field(default_factory=dict[str, float])

    def add_energy(self, machine: Machine, macs: int, sram: int, hops: int, ddr: int) -> None:
        """Add an estimate by source, from the machine model's figures."""
        figures = {
            "multiply-adds": macs * machine.energy.get("mac_i8_pj", 0.0),
            "tile memories": sram * machine.energy.get("sram_byte_pj", 0.0),
            "streams": hops * machine.energy.get("stream_byte_hop_pj", 0.0),
            "host memory": ddr * machine.energy.get("ddr_byte_pj", 0.0),
        }
        for name, value in figures.items():
            self.energy_pj = {**self.energy_pj, name: self.energy_pj.get(name, 0.0) + value}


class NpuExecutor:
    """Runs a placed product: ``q`` int8 [..., K] to ``acc`` int32 [..., G, R] for each of the weights that read it."""

    def __init__(self, name: str, segment: Segment, setting: Setting) -> None:
        if not isinstance(segment, OtherSegment):
            raise InternalError(f"segment {name} is no segment of an NPU")
        node = Node(segment.data, f"segment {name}", CODE, CURE)
        node.only(["machine", "program", "tile", "spread", "operands", "columns", "outputs", "group", "switch"])
        self.machine: Machine = machine_of(node.get("machine").value, f"segment {name}: machine")
        self._graph: Design = design_from_json(node.get("program").value, f"segment {name}: program")
        tile = node.get("tile").list_of(lambda n: n.integer(4, 4096), 3)
        if len(tile) != 3 or tile[2] % 4:
            raise node.get("tile").refuse("expected m, k and n, the last a multiple of 4")
        operands, spread = _name(node.get("operands"), OPERANDS), _name(node.get("spread"), SPREADS)
        self._plan = GemmPlan.on(self.machine, (tile[0], tile[1], tile[2]), operands, spread)
        self._columns, self._group = (node.get(key).integer(1, MOST) for key in ("columns", "group"))
        self._outputs = node.get("outputs").list_of(lambda n: n.integer(1, MOST), MOST_PARTS)
        if not self._outputs:
            raise node.get("outputs").refuse("expected the sizes of one product or more")
        self._groups = -(-self._columns // self._group)
        weight = setting.weights[f"{name}.b"]
        _, k, n = blocks(self._plan, 1, self._group, sum(self._outputs))
        shape = (self._groups, *weight_shape(self._plan, k, n))
        dtype = DTYPES[self._plan.kind.b]
        if weight.shape != shape or weight.dtype != dtype:
            raise Error(
                CODE,
                f"segment {name}: weights are {weight.dtype} {list(weight.shape)}, not {dtype} {list(shape)}",
                hint=CURE,
            )
        self._weights = weight
        self._switch = node.get("switch").boolean()
        self.usage = Usage()
        self._name, self._profile = name, setting.profile

    def run(self, inputs: Sequence[Array], symbols: Mapping[str, int], outputs: Sequence[Array | None]) -> list[Array]:
        """Simulate the product for these activations."""
        q, before, began = inputs[0], replace(self.usage), time.monotonic_ns()
        rows = prod(q.shape[:-1])
        whole = np.zeros((rows, self._groups, sum(self._outputs)), np.int32)
        if rows:
            whole[...] = self._product(q.reshape(rows, self._columns)).transpose(1, 0, 2)
        if self._profile is not None:
            self._record(self._profile, before, began)
        made: list[Array] = []
        begin = 0
        for width, given in zip(self._outputs, outputs):
            part = whole[..., begin : begin + width].reshape(*q.shape[:-1], self._groups, width)
            begin += width
            if given is None:
                made.append(np.ascontiguousarray(part))
            else:
                given[...] = part
                made.append(given)
        return made

    def _record(self, profile: Profile, before: Usage, began: int) -> None:
        """What this call would have taken on the array, as an event of the profile (whose own times are the host's)."""
        now = self.usage
        names = ("dispatches", "switches", "cycles", "seconds", "ddr_bytes", "macs", "padded_macs")
        details: dict[str, object] = {name: getattr(now, name) - getattr(before, name) for name in names}
        details["machine"] = self.machine.name
        details["energy_pj"] = sum(now.energy_pj.values()) - sum(before.energy_pj.values())
        profile.add([Event(self._name, CATEGORY, began, time.monotonic_ns(), 0, details)])

    def _product(self, q: Array) -> NDArray[np.int32]:
        """Sums [groups, rows, outputs] of codes [rows, K], in one dispatch."""
        rows, outputs, groups = q.shape[0], sum(self._outputs), self._groups
        m, k, n = blocks(self._plan, rows, self._group, outputs)
        design = with_sizes(self._graph, self._plan, self.machine, (m, k, n), groups)
        a = np.zeros((m, groups, k), np.int8)
        for g in range(groups):
            part = q[:, g * self._group : (g + 1) * self._group]
            a[:rows, g, : part.shape[1]] = part
        run = simulate(design, self.machine, {"a": a.reshape(m, -1), "b": self._weights})
        if run.deadlock is not None:
            raise Error("NEUC-E679", f"{design.name} deadlocks: {run.deadlock}", hint="please report this program")
        usage, host = self.usage, self.machine.host
        usage.dispatches += 1
        usage.switches += self._switch
        usage.cycles += run.cycles
        waits = host.get("dispatch_us", 0.0) + self._switch * host.get("program_switch_us", 0.0)
        usage.seconds += run.seconds + waits * 1e-6
        usage.ddr_bytes += run.counts.ddr_bytes
        usage.macs += rows * self._columns * outputs
        usage.padded_macs += groups * m * k * n
        counts = run.counts
        usage.add_energy(self.machine, groups * m * k * n, counts.sram_bytes, counts.stream_byte_hops, counts.ddr_bytes)
        return np.asarray(run.outputs["c"][:, :rows, :outputs], np.int32)


def _name(node: Node, known: Mapping[str, object]) -> str:
    """A string that is a key of `known`."""
    name = node.string()
    if name not in known:
        raise node.refuse(f"{name!r} is none of {', '.join(known)}")
    return name


def array_usage(profile: Profile) -> dict[str, float]:
    """What the array would have taken in all profiled calls: sums of the figures of its events."""
    sums: dict[str, float] = {}
    for event in profile.events:
        if event.category == CATEGORY:
            for name, value in event.details.items():
                if isinstance(value, int | float):
                    sums[name] = sums.get(name, 0.0) + value
    return sums
