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
from neuc.runtime.npu.gemm import GemmPlan, blocks, with_sizes
from neuc.runtime.npu.machine import Machine, machine_of
from neuc.runtime.npu.program import Design
from neuc.runtime.npu.program_json import CODE, CURE, design_from_json
from neuc.runtime.npu.simulator import simulate
from neuc.runtime.profile import Event, Profile
from neuc.runtime.program import OtherSegment, Segment

CATEGORY = "npu"
"""Category of the profile's events that say what the array would have taken."""
MOST = 1 << 24
"""Rows, columns and depth of a product, at most."""


@dataclass
class Usage:
    """What the array did in all calls: runs of a program, cycles, seconds with dispatch, bytes of host memory."""

    dispatches: int = 0
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
    """Runs one placed product: ``q`` int8 [..., K] to ``acc`` int32 [..., G, R]."""

    def __init__(self, name: str, segment: Segment, setting: Setting) -> None:
        if not isinstance(segment, OtherSegment):
            raise InternalError(f"segment {name} is no segment of an NPU")
        node = Node(segment.data, f"segment {name}", CODE, CURE)
        node.only(["machine", "program", "tile", "ternary", "columns", "outputs", "group"])
        self.machine: Machine = machine_of(node.get("machine").value, f"segment {name}: machine")
        self._graph: Design = design_from_json(node.get("program").value, f"segment {name}: program")
        tile = node.get("tile").list_of(lambda n: n.integer(4, 4096), 3)
        if len(tile) != 3 or tile[2] % 4:
            raise node.get("tile").refuse("expected m, k and n, the last a multiple of 4")
        self._plan = GemmPlan.on(self.machine, (tile[0], tile[1], tile[2]), ternary=node.get("ternary").boolean())
        self._columns, self._outputs = (node.get(key).integer(1, MOST) for key in ("columns", "outputs"))
        self._group = node.get("group").integer(1, MOST)
        self._weights = [setting.weights[f"{name}.b{g}"] for g in range(-(-self._columns // self._group))]
        for g, weight in enumerate(self._weights):
            _, k, n = blocks(self._plan, 1, self._width(g), self._outputs)
            wanted = k * n // (4 if self._plan.ternary else 1)
            if weight.size != wanted or weight.dtype != (np.uint8 if self._plan.ternary else np.int8):
                raise Error(CODE, f"segment {name}: weights {g} have {weight.size} bytes, not {wanted}", hint=CURE)
        self.usage = Usage()
        self._name, self._profile = name, setting.profile

    def _width(self, group: int) -> int:
        return min(self._group, self._columns - group * self._group)

    def run(self, inputs: Sequence[Array], symbols: Mapping[str, int], outputs: Sequence[Array | None]) -> list[Array]:
        """Simulate the product for these activations."""
        q, before, began = inputs[0], replace(self.usage), time.monotonic_ns()
        rows = prod(q.shape[:-1])
        flat = q.reshape(rows, self._columns)
        acc = np.zeros((rows, len(self._weights), self._outputs), np.int32)
        for g in range(len(self._weights) if rows else 0):
            begin = g * self._group
            acc[:, g] = self._product(flat[:, begin : begin + self._width(g)], g)
        if self._profile is not None:
            self._record(self._profile, before, began)
        result = acc.reshape(*q.shape[:-1], len(self._weights), self._outputs)
        if outputs[0] is None:
            return [result]
        outputs[0][...] = result
        return [outputs[0]]

    def _record(self, profile: Profile, before: Usage, began: int) -> None:
        """What this call would have taken on the array, as an event of the profile (whose own times are the host's)."""
        now = self.usage
        details: dict[str, object] = {
            "machine": self.machine.name,
            "dispatches": now.dispatches - before.dispatches,
            "cycles": now.cycles - before.cycles,
            "seconds": now.seconds - before.seconds,
            "ddr_bytes": now.ddr_bytes - before.ddr_bytes,
            "macs": now.macs - before.macs,
            "padded_macs": now.padded_macs - before.padded_macs,
            "energy_pj": sum(now.energy_pj.values()) - sum(before.energy_pj.values()),
        }
        profile.add([Event(self._name, CATEGORY, began, time.monotonic_ns(), 0, details)])

    def _product(self, q: Array, group: int) -> NDArray[np.int32]:
        m, k, n = blocks(self._plan, q.shape[0], q.shape[1], self._outputs)
        design = with_sizes(self._graph, self._plan, self.machine, (m, k, n))
        a = np.zeros((m, k), np.int8)
        a[: q.shape[0], : q.shape[1]] = q
        weight = np.asarray(self._weights[group]).reshape(design.buffer("b").shape)
        run = simulate(design, self.machine, {"a": a, "b": weight})
        if run.deadlock is not None:
            raise Error("NEUC-E679", f"{design.name} deadlocks: {run.deadlock}", hint="please report this program")
        usage = self.usage
        usage.dispatches += 1
        usage.cycles += run.cycles
        usage.seconds += run.seconds + self.machine.host.get("dispatch_us", 0.0) * 1e-6
        usage.ddr_bytes += run.counts.ddr_bytes
        usage.macs += q.shape[0] * q.shape[1] * self._outputs
        usage.padded_macs += m * k * n
        usage.add_energy(
            self.machine, m * k * n, run.counts.sram_bytes, run.counts.stream_byte_hops, run.counts.ddr_bytes
        )
        return np.asarray(run.outputs["c"][: q.shape[0], : self._outputs], np.int32)


def array_usage(profile: Profile) -> dict[str, float]:
    """What the array would have taken in all profiled calls: sums of the figures of its events."""
    sums: dict[str, float] = {}
    for event in profile.events:
        if event.category == CATEGORY:
            for name, value in event.details.items():
                if isinstance(value, int | float):
                    sums[name] = sums.get(name, 0.0) + value
    return sums
