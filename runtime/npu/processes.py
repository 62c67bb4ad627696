"""What happens on the array: kernels firing and DMAs moving tokens. The host is in `host_process.py`.

Each process starts when pools of buffers allow it and says, when it cannot, what it waits for. Costs are the machine
model's. How a design becomes processes is `simulator.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error
from neuc.runtime.npu.clockwork import Bytes, PoolState, Process
from neuc.runtime.npu.functions import Array, Function, State
from neuc.runtime.npu.program import DTYPES, Channel, HostBuffer, Kernel, ParamValue, Port
from neuc.runtime.npu.trace import PULSE, DmaLane, Trace
from neuc.runtime.npu.world import World

if TYPE_CHECKING:
    from neuc.runtime.npu.host_process import HostProcess


class KernelProcess:
    """One kernel on its core."""

    def __init__(self, kernel: Kernel, call: Function, channels: Mapping[str, Channel], world: World) -> None:
        self.kernel, self.world, self._call = kernel, world, call
        self.inputs: list[tuple[PoolState, int]] = []
        self.outputs: list[tuple[PoolState, int]] = []
        self.params: dict[str, ParamValue] = dict(kernel.params)
        self._in = [channels[name] for name in kernel.inputs]
        self._out = [channels[name] for name in kernel.outputs]
        self._state: State = {}
        self._fired = 0
        self._busy = False
        self._stalled_since = 0.0

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.kernel.name

    def poke(self) -> None:
        """Fire if every input has its tokens and every output its room."""
        if self._busy:
            return
        phase = self._fired % self.kernel.phases
        for (pool, reader), rates in zip(self.inputs, self.kernel.consume):
            if pool.filled(reader) < rates[phase]:
                return
        for (pool, writer), rates in zip(self.outputs, self.kernel.produce):
            if pool.room(writer) < rates[phase]:
                return
        self._busy = True
        for (pool, writer), rates in zip(self.outputs, self.kernel.produce):
            pool.begun[writer] += rates[phase]
        locks = 2 * (len(self.inputs) + len(self.outputs)) * self.world.timing("lock")
        cycles = self.kernel.cycles[phase] + self.world.timing("kernel_call") + locks
        began = self.world.clock.now
        self.world.clock.after(cycles, lambda: self._finish(phase, began))

    def _finish(self, phase: int, began: float) -> None:
        world, kernel = self.world, self.kernel
        if world.values:
            self._compute(phase)
        now = world.clock.now
        if world.trace is not None:
            for begin, end, event in (
                (self._stalled_since, began, "LOCK_STALL"),
                (began, began + PULSE, "INSTR_EVENT_0"),
                (began, now, "INSTR_VECTOR"),
                (now, now + PULSE, "INSTR_EVENT_1"),
            ):
                world.trace.span(begin, end, "core", kernel.tile, event)
            self._stalled_since = now
        world.counts.busy[kernel.name] = world.counts.busy.get(kernel.name, 0.0) + now - began
        world.counts.firings[kernel.name] = world.counts.firings.get(kernel.name, 0) + 1
        self._fired += 1
        self._busy = False
        for (pool, writer), rates in zip(self.outputs, kernel.produce):
            pool.finish(writer, rates[phase])
        for (pool, reader), rates in zip(self.inputs, kernel.consume):
            world.counts.sram_bytes += rates[phase] * pool.slots[0].nbytes
            pool.free(reader, rates[phase])
        self.poke()

    def _compute(self, phase: int) -> None:
        kernel = self.kernel
        tokens = [
            [_typed(pool.slot(pool.freed[reader] + i), channel) for i in range(rates[phase])]
            for (pool, reader), rates, channel in zip(self.inputs, kernel.consume, self._in)
        ]
        results = self._call(self.params, phase, tokens, self._state)
        for (pool, writer), rates, channel, given in zip(self.outputs, kernel.produce, self._out, results):
            if len(given) != rates[phase]:
                raise Error(
                    "NEUC-E680",
                    f"kernel {self.name} gave {len(given)} tokens on {channel.name}, phase {phase}: {rates[phase]} due",
                    hint="a behavioural function returns what its rates say",
                )
            for i, value in enumerate(given):
                pool.slot(pool.written[writer] + i)[:] = token_bytes(value, channel, self.name)

    def blocked_on(self) -> list[tuple[str, Process]]:
        """Inputs without tokens and outputs without room."""
        phase = self._fired % self.kernel.phases
        found: list[tuple[str, Process]] = []
        for (pool, reader), rates, channel in zip(self.inputs, self.kernel.consume, self.kernel.inputs):
            if pool.filled(reader) < rates[phase]:
                why = f"{rates[phase]} tokens of {channel} ({pool.filled(reader)} are there, depth {pool.depth})"
                found += [(why, process) for process in pool.missing_writers(reader, rates[phase])]
        for (pool, writer), rates, channel in zip(self.outputs, self.kernel.produce, self.kernel.outputs):
            if pool.room(writer) < rates[phase]:
                why = f"room for {rates[phase]} tokens of {channel} ({pool.room(writer)} of {pool.depth} free)"
                found += [(why, process) for process in pool.missing_readers(writer, rates[phase])]
        return found


def _typed(data: Bytes, channel: Channel) -> Array:
    return data.view(DTYPES[channel.dtype]).reshape(channel.shape)


def token_bytes(value: Array, channel: Channel, kernel: str) -> Bytes:
    """A token as bytes, after checking that it is what the channel carries."""
    array = np.asarray(value)
    if array.shape != channel.shape or array.dtype != DTYPES[channel.dtype]:
        raise Error(
            "NEUC-E680",
            f"kernel {kernel} gave {array.dtype} {list(array.shape)} on {channel.name}, "
            f"which carries {channel.dtype} {list(channel.shape)}",
            hint="make the behavioural function return arrays of the channel's type",
        )
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


@dataclass
class Task:
    """A transfer queued on a port: its bytes' places in the host array, how far it is, and its contiguous runs."""

    buffer: HostBuffer
    array: Array
    places: NDArray[np.int64]
    done: int
    run_bytes: int

    @property
    def nbytes(self) -> int:
        """Bytes of the whole task."""
        return self.places.size * self.array.dtype.itemsize


class PortState:
    """A shim DMA channel: its queue of tasks."""

    def __init__(self, port: Port, depth: int) -> None:
        self.port, self.depth = port, depth
        self.tasks: deque[Task] = deque()
        self.flow: FlowProcess | None = None
        self.host: HostProcess | None = None

    @property
    def name(self) -> str:
        """The port's name."""
        return self.port.name

    def advance(self, nbytes: int) -> None:
        """`nbytes` of the first task are done."""
        task = self.tasks[0]
        task.done += nbytes
        if task.done >= task.nbytes:
            self.tasks.popleft()
            if self.host is not None:
                self.host.poke()


class FlowProcess:
    """A channel's DMAs and circuit: a token moves when it is there and every consumer has room for it."""

    def __init__(self, channel: Channel, world: World, hops: int, width: int) -> None:
        self.channel, self.world, self._hops, self._width = channel, world, hops, width
        self.source: tuple[PoolState, int, int, int] | None = None
        """Pool, reader, byte offset in its buffers, times each is sent."""
        self.sinks: list[tuple[PoolState, int, int]] = []
        self.port_in: PortState | None = None
        self.port_out: PortState | None = None
        self.lanes: list[DmaLane] = []
        """The producer's end first, then one for each consumer."""
        self._waits: tuple[str, float] = ("", 0.0)
        """What the channel waits for, and since when."""
        self._order = _layout(channel)
        self._sent = 0
        self._busy = False
        self._idle = True

    @property
    def name(self) -> str:
        """The channel's name."""
        return self.channel.name

    def poke(self) -> None:
        """Start a token if it, and room for it, are there."""
        if self._busy:
            return
        missing = self._missing()
        if self.world.trace is not None:
            self._trace_wait(missing)
        if missing:
            return
        self._busy = True
        world, nbytes = self.world, self.channel.nbytes
        token = self._take() if world.values else None
        for pool, writer, _ in self.sinks:
            pool.begun[writer] += 1
        cycles = self._cycles(nbytes)
        began = world.clock.now
        latency = world.timing("memory_latency") + self._hops * world.timing("hop") + world.timing("switch_local")
        world.counts.stream_byte_hops += nbytes * self._hops
        world.counts.sram_bytes += nbytes * (len(self.sinks) + (self.source is not None))
        world.clock.after(cycles, lambda: self._left(began))
        world.clock.after(cycles + latency, lambda: self._arrived(token))

    def _missing(self) -> str:
        """What keeps the next token: nothing (""), itself ("token"), room for it ("room"), or the host ("task")."""
        if self.port_in is not None and not self.port_in.tasks:
            return "task"
        if self.port_out is not None and not self.port_out.tasks:
            return "task"
        if self.source is not None and self.source[0].filled(self.source[1]) < 1:
            return "token"
        return "" if all(pool.room(writer) >= 1 for pool, writer, _ in self.sinks) else "room"

    def _trace_wait(self, missing: str) -> None:
        """Write down what was waited for until now, if that is over: a lock at one end, the stream at the other."""
        waited, since = self._waits
        if waited == missing:
            return
        trace, now = self.world.trace, self.world.clock.now
        self._waits = (missing, now)
        names = {"token": ("STALLED_LOCK", "STREAM_STARVATION"), "room": ("STREAM_BACKPRESSURE", "STALLED_LOCK")}
        if trace is None or waited not in names:
            return
        for lane in self.lanes:
            trace.span(since, now, lane.kind, lane.tile, lane.event(names[waited][lane.direction == "S2MM"]))

    def _take(self) -> Bytes:
        if self.source is not None:
            pool, reader, offset, _ = self.source
            data = pool.slot(pool.freed[reader])[offset : offset + self.channel.nbytes]
        else:
            assert self.port_in is not None
            task = self.port_in.tasks[0]
            size = task.array.dtype.itemsize
            places = task.places[task.done // size : (task.done + self.channel.nbytes) // size]
            data = np.ascontiguousarray(task.array.reshape(-1)[places]).view(np.uint8)
        return data.copy() if self._order is None else data[self._order]

    def _cycles(self, nbytes: int) -> float:
        world = self.world
        stream = nbytes / self._width
        cycles = stream + world.timing("bd_chain")
        if self.source is not None:
            cycles = max(cycles, stream + world.timing("bd_setup"))
        for port, fixed, first in (
            (self.port_in, "shim_mm2s_task", "first_task_mm2s"),
            (self.port_out, "shim_s2mm_task", "first_task_s2mm"),
        ):
            if port is None:
                continue
            task = port.tasks[0]
            if port is self.port_in:
                cycles = max(cycles, stream * world.timing("shim_mm2s_per_word"))
            start = world.timing(fixed) if task.done == 0 else 0.0
            if task.done == 0 and self._idle and len(port.tasks) > 1:
                start += world.timing(first)
            self._idle = False
            ddr = world.ddr(nbytes, min(task.run_bytes, nbytes), task.buffer.name)
            cycles = max(cycles, ddr) + start
        return cycles

    def _left(self, began: float) -> None:
        self._busy = False
        if self.world.trace is not None:
            self._trace_move(self.world.trace, began)
        if self.source is not None:
            pool, reader, _, repeat = self.source
            self._sent += 1
            if self._sent == repeat:
                self._sent = 0
                pool.free(reader)
        if self.port_in is not None:
            self.port_in.advance(self.channel.nbytes)
            self._idle = not self.port_in.tasks
        self.poke()

    def _trace_move(self, trace: Trace, began: float) -> None:
        """A token went: a buffer descriptor each end, and a task where the host's begins or ends with it."""
        now = self.world.clock.now
        for lane in self.lanes:
            port = self.port_in if lane.direction == "MM2S" else self.port_out
            task = port.tasks[0] if port is not None and lane.kind == "shim" and port.tasks else None
            begins = task is None or task.done == 0
            ends = task is not None and task.done + self.channel.nbytes >= task.nbytes
            for begin, end, event in (
                (began, now, lane.running),
                (began, began + PULSE * begins, lane.event("START_TASK")),
                (now, now + PULSE, lane.event("FINISHED_BD")),
                (now, now + PULSE * ends, lane.event("FINISHED_TASK")),
            ):
                trace.span(begin, end, lane.kind, lane.tile, event)

    def _arrived(self, token: Bytes | None) -> None:
        for pool, writer, offset in self.sinks:
            if token is not None:
                pool.slot(pool.written[writer])[offset : offset + token.nbytes] = token
            pool.finish(writer)
        if self.port_out is not None:
            task = self.port_out.tasks[0]
            if token is not None:
                size = task.array.dtype.itemsize
                places = task.places[task.done // size : (task.done + token.nbytes) // size]
                task.array.reshape(-1)[places] = token.view(task.array.dtype)
            self.port_out.advance(self.channel.nbytes)
            self._idle = not self.port_out.tasks
        self.poke()

    def blocked_on(self) -> list[tuple[str, Process]]:
        """A token that is not there, a consumer without room, or a port without a task."""
        found: list[tuple[str, Process]] = []
        if self.source is not None and self.source[0].filled(self.source[1]) < 1:
            pool, reader = self.source[:2]
            found += [(f"a full buffer of {pool.name}", process) for process in pool.missing_writers(reader, 1)]
        for pool, writer, _ in self.sinks:
            if pool.room(writer) < 1:
                why = f"a free buffer of {pool.name} (depth {pool.depth})"
                found += [(why, process) for process in pool.missing_readers(writer, 1)]
        for port in (self.port_in, self.port_out):
            if port is not None and not port.tasks and port.host is not None and not port.host.done:
                found.append((f"a task on {port.name}", port.host))
        return found


def _layout(channel: Channel) -> NDArray[np.int64] | None:
    """For each byte of a token on the stream, its place in the producer's buffer; None for as it lies."""
    if not channel.layout:
        return None
    places = np.zeros(1, np.int64)
    for size, stride in channel.layout:
        places = (places[:, None] + np.arange(size) * stride).reshape(-1)
    width = DTYPES[channel.dtype].itemsize
    return (places[:, None] * width + np.arange(width)).reshape(-1)
