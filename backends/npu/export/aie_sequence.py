"""What the host does, as mlir-aie's runtime sequence: run-time parameters, transfers, and waits for them.

A port never has more tasks than its queue takes and its share of the tile's descriptors: before one more, the host
waits for the oldest, as the simulator's does. Each wait is for one task; only tasks that are waited for issue a token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from neuc.backends.npu.export.aie_cores import Core
from neuc.backends.npu.export.aie_types import MLIR_TYPES
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import Design, HostBuffer, SetParam, Transfer, Wait


@dataclass
class _Task:
    """A transfer with its number, its buffer descriptor on the tile, and whether the host waits for it."""

    step: Transfer
    number: int
    descriptor: int
    awaited: bool = False


@dataclass(frozen=True)
class _Await:
    """The host waits for a task."""

    task: _Task


def _planned(design: Design, machine: Machine) -> list[SetParam | _Task | _Await]:
    """Steps in order, with waits for single tasks."""
    sharing = Counter(port.tile for port in design.ports)
    limits: dict[str, int] = {}
    first: dict[str, int] = {}
    begun: Counter[object] = Counter()
    for port in design.ports:
        assert port.tile is not None
        dma = machine.tile_class(port.tile).dma
        assert dma is not None
        limits[port.name] = max(1, min(dma.queue_depth, dma.bds // sharing[port.tile]))
        first[port.name] = begun[port.tile]
        begun[port.tile] += limits[port.name]
    queues: dict[str, list[_Task]] = {port.name: [] for port in design.ports}
    queued: Counter[str] = Counter()
    plan: list[SetParam | _Task | _Await] = [SetParam(param.name, param.value) for param in design.params]

    def wait(port: str) -> None:
        task = queues[port].pop(0)
        task.awaited = True
        plan.append(_Await(task))

    for step in design.sequence:
        if isinstance(step, SetParam):
            plan.append(step)
        elif isinstance(step, Wait):
            while queues[step.port]:
                wait(step.port)
        else:
            if len(queues[step.port]) == limits[step.port]:
                wait(step.port)
            place = queued[step.port] % limits[step.port]
            task = _Task(step, queued.total(), first[step.port] + place)
            queued[step.port] += 1
            queues[step.port].append(task)
            plan.append(task)
    return plan


def sequence_lines(design: Design, machine: Machine, cores: Sequence[Core], version: str) -> list[str]:
    """The sequence; first it writes the run-time parameters, which cores read with each firing's tokens."""
    arguments = ", ".join(f"%{b.name}: {_host_type(b)}" for b in design.buffers)
    lines = [f"aie.runtime_sequence @sequence({arguments}) {{"]
    fifo = {port.name: port.channel for port in design.ports}
    owners = {param.name: core for param in design.params for core in cores if core.kernel.name == param.kernel}
    plan = _planned(design, machine)
    for number, step in enumerate(plan):
        if isinstance(step, SetParam):
            made = _write_parameter(owners[step.param], step, number, version)
        elif isinstance(step, _Await):
            symbol = fifo[step.task.step.port]
            old = f"aiex.npu.dma_wait {{symbol = @{symbol}}}"
            made = [old if version == "1.3" else f"aiex.dma_await_task(%t{step.task.number})"]
        else:
            made = _transfer(step, design, fifo[step.step.port], version)
        lines += [f"  {line}" for line in made]
    if version == "1.4":
        rest = [step for step in plan if isinstance(step, _Task) and not step.awaited]
        lines += [f"  aiex.dma_free_task(%t{task.number})" for task in rest]
    return [*lines, "}"]


def _write_parameter(core: Core, step: SetParam, number: int, version: str) -> list[str]:
    """A word into a core's buffer; its value became an operand after 1.3."""
    place = f"@rtp_{core.kernel.name}, {core.rtp.index(step.param)}"
    if version == "1.3":
        return [f"aiex.npu.rtp_write({place}, {step.value})"]
    return [f"%v{number} = arith.constant {step.value} : i32", f"aiex.npu.rtp_write({place}, %v{number}) : i32"]


def _host_type(buffer: HostBuffer) -> str:
    return f"memref<{prod(buffer.shape)}x{MLIR_TYPES[buffer.dtype]}>"


def _transfer(task: _Task, design: Design, fifo: str, version: str) -> list[str]:
    step, buffer = task.step, design.buffer(task.step.buffer)
    kind = _host_type(buffer)
    sizes, strides = [1] * (4 - len(step.sizes)) + [*step.sizes], [0] * (4 - len(step.strides)) + [*step.strides]
    token = str(task.awaited).lower()
    if version == "1.3":
        lists = f"[0, 0, 0, {step.offset}][{', '.join(map(str, sizes))}][{', '.join(map(str, strides))}]"
        attributes = f"{{id = {task.descriptor} : i64, issue_token = {token}, metadata = @{fifo}}}"
        return [f"aiex.npu.dma_memcpy_nd(%{step.buffer}{lists}) {attributes} : {kind}"]
    bd = (
        f"aie.dma_bd(%{step.buffer} : {kind} offset = {step.offset} len = {prod(step.sizes)} "
        f"sizes=[{', '.join(map(str, sizes))}] strides=[{', '.join(map(str, strides))}])"
    )
    name = f"%t{task.number}"
    head = f"{name} = aiex.dma_configure_task_for @{fifo} {{"
    return [head, f"  {bd}", "  aie.end", f"}} {{issue_token = {token}}}", f"aiex.dma_start_task({name})"]
