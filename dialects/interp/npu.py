"""What an `npu.graph` computes: a Kahn process network, run without time and without bounds on its channels.

Order of firing makes no difference to what a Kahn network computes (Kahn 1974), so the simplest order serves as the
specification: every node fires whenever its tokens are there. Deadlocks by full buffers are a matter of the simulator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
from xdsl.dialects.builtin import ArrayAttr, FloatAttr, IntegerAttr, StringAttr
from xdsl.ir import Attribute

from neuc.dialects.interp import npu_products as _products  # noqa: F401 - registers the meanings of products
from neuc.dialects.interp.core import Env, implements
from neuc.dialects.interp.npu_functions import MEANINGS, Meaning, Params, State
from neuc.dialects.npu import (
    BufferOp,
    ChannelOp,
    GraphOp,
    KernelOp,
    LinkOp,
    ParamOp,
    PortOp,
    RunOp,
    SequenceOp,
    SetParamOp,
    TransferOp,
)
from neuc.dialects.npu_attrs import names, numbers
from neuc.errors import InternalError

DTYPES = {
    "i8": "int8",
    "u8": "uint8",
    "i16": "int16",
    "u16": "uint16",
    "bf16": "uint16",
    "i32": "int32",
    "u32": "uint32",
    "f32": "float32",
}


@implements(RunOp)
def _run(op: RunOp, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    name = op.graph.root_reference.data
    graph = next(g for g in env.module.walk() if isinstance(g, GraphOp) and g.sym_name.data == name)
    given = [b for b in graph.parts(BufferOp) if b.role.data != "output"]
    arrays = {b.sym_name.data: array for b, array in zip(given, args, strict=True)}
    results = run_graph(graph, arrays)
    return [results[b.sym_name.data] for b in graph.parts(BufferOp) if b.role.data == "output"]


def run_graph(
    graph: GraphOp, arrays: Mapping[str, np.ndarray], meanings: Mapping[str, Meaning] | None = None
) -> dict[str, np.ndarray]:
    """The output buffers of `graph`, given its other buffers; `meanings` are kernels beside the library's."""
    return _Network(graph, arrays, {**MEANINGS, **(meanings or {})}).run()


class _Network:
    """Unbounded queues, one for each consumer of a channel."""

    def __init__(self, graph: GraphOp, arrays: Mapping[str, np.ndarray], meanings: Mapping[str, Meaning]) -> None:
        self.graph, self.meanings = graph, meanings
        self.channels = {op.sym_name.data: op for op in graph.parts(ChannelOp)}
        self.queues: dict[tuple[str, str], deque[np.ndarray]] = {
            (name, consumer): deque() for name, op in self.channels.items() for consumer in names(op.consumers)
        }
        self.arrays = {
            op.sym_name.data: np.zeros(numbers(op.shape), DTYPES[op.type.data])
            if op.role.data == "output"
            else arrays[op.sym_name.data]
            for op in graph.parts(BufferOp)
        }
        self.ports = {op.sym_name.data: op for op in graph.parts(PortOp)}
        self.drains: dict[str, deque[tuple[str, np.ndarray]]] = {name: deque() for name in self.ports}
        self.params: dict[str, Params] = {
            op.sym_name.data: {key: _plain(value) for key, value in op.params.data.items()}
            for op in graph.parts(KernelOp)
        }
        self.fired = dict.fromkeys(self.params, 0)
        self.states: dict[str, State] = {name: {} for name in self.params}

    def run(self) -> dict[str, np.ndarray]:
        """Do the sequence, firing all that can fire after each step."""
        owners = {op.sym_name.data: op for op in self.graph.parts(ParamOp)}
        for param in owners.values():
            self.params[param.kernel.root_reference.data][param.sym_name.data] = param.value.value.data
        for sequence in self.graph.parts(SequenceOp):
            for step in sequence.body.block.ops:
                if isinstance(step, SetParamOp):
                    param = owners[step.param.root_reference.data]
                    self.params[param.kernel.root_reference.data][param.sym_name.data] = step.value.value.data
                elif isinstance(step, TransferOp):
                    self._transfer(step)
                self._settle()
        return {
            op.sym_name.data: self.arrays[op.sym_name.data]
            for op in self.graph.parts(BufferOp)
            if op.role.data == "output"
        }

    def _transfer(self, step: TransferOp) -> None:
        port = self.ports[step.port.root_reference.data]
        array = self.arrays[step.buffer.root_reference.data].reshape(-1)
        grid = np.ix_(*(np.arange(n) * s for n, s in zip(numbers(step.sizes), numbers(step.strides))))
        places = (step.offset.value.data + sum(grid, np.int64(0))).reshape(-1)
        channel = self.channels[port.channel.root_reference.data]
        if port.direction.data == "in":
            raw = array[places].tobytes()
            size = _token_bytes(channel)
            for begin in range(0, len(raw), size):
                self._put(channel, np.frombuffer(raw[begin : begin + size], DTYPES[channel.type.data]))
        else:
            self.drains[port.sym_name.data].append((step.buffer.root_reference.data, places))

    def _put(self, channel: ChannelOp, token: np.ndarray) -> None:
        if channel.layout is not None:
            order = np.ix_(*(np.arange(numbers(d)[0]) * numbers(d)[1] for d in channel.layout))
            token = token.reshape(-1)[sum(order, np.int64(0)).reshape(-1)]
        shaped = np.ascontiguousarray(token).view(DTYPES[channel.type.data]).reshape(numbers(channel.shape))
        for consumer in names(channel.consumers):
            self.queues[channel.sym_name.data, consumer].append(shaped)

    def _settle(self) -> None:
        moved = True
        while moved:
            moved = False
            for op in self.graph.body.block.ops:
                while self._fire(op):
                    moved = True

    def _fire(self, op: object) -> bool:
        if isinstance(op, KernelOp):
            return self._fire_kernel(op)
        if isinstance(op, LinkOp):
            return self._fire_link(op)
        return isinstance(op, PortOp) and op.direction.data == "out" and self._drain(op)

    def _fire_kernel(self, op: KernelOp) -> bool:
        name = op.sym_name.data
        phase = self.fired[name] % len(numbers(op.cycles))
        queues = [self.queues[channel, name] for channel in names(op.inputs)]
        wanted = [numbers(rate)[phase] for rate in op.consume]
        if not queues or any(len(queue) < n for queue, n in zip(queues, wanted)):
            return False
        tokens = [[queue.popleft() for _ in range(n)] for queue, n in zip(queues, wanted)]
        meaning = self.meanings.get(op.function.data)
        if meaning is None:
            raise InternalError(f"no meaning for kernel function {op.function.data!r}")
        results = meaning(self.params[name], phase, tokens, self.states[name])
        self.fired[name] += 1
        for channel, given in zip(names(op.outputs), results, strict=True):
            for token in given:
                self._put(self.channels[channel], token)
        return True

    def _fire_link(self, op: LinkOp) -> bool:
        queues = [self.queues[channel, op.sym_name.data] for channel in names(op.inputs)]
        if any(not queue for queue in queues):
            return False
        parts = [np.frombuffer(queue.popleft().tobytes(), np.uint8) for queue in queues]
        whole, offsets = parts[0], numbers(op.offsets)
        if op.mode.data == "join":
            whole = np.zeros(sum(part.size for part in parts), np.uint8)
            for part, offset in zip(parts, offsets):
                whole[offset : offset + part.size] = part
        for i, channel in enumerate(names(op.outputs)):
            begin = offsets[i] if op.mode.data == "split" else 0
            size = _token_bytes(self.channels[channel])
            token = np.frombuffer(whole[begin : begin + size].tobytes(), DTYPES[self.channels[channel].type.data])
            for _ in range(op.repeat.value.data):
                self._put(self.channels[channel], token)
        return True

    def _drain(self, op: PortOp) -> bool:
        queue, tasks = self.queues[op.channel.root_reference.data, op.sym_name.data], self.drains[op.sym_name.data]
        if not queue or not tasks:
            return False
        buffer, places = tasks[0]
        array = self.arrays[buffer].reshape(-1)
        data = np.frombuffer(queue.popleft().tobytes(), array.dtype)
        array[places[: data.size]] = data
        tasks[0] = (buffer, places[data.size :])
        if not tasks[0][1].size:
            tasks.popleft()
        return True


def _token_bytes(channel: ChannelOp) -> int:
    return int(np.prod(numbers(channel.shape), dtype=np.int64)) * np.dtype(DTYPES[channel.type.data]).itemsize


def _plain(value: Attribute) -> int | float | str | list[int]:
    if isinstance(value, IntegerAttr):
        return int(value.value.data)
    if isinstance(value, FloatAttr):
        return float(value.value.data)
    if isinstance(value, StringAttr):
        return value.data
    if isinstance(value, ArrayAttr):
        return [int(item.value.data) for item in value if isinstance(item, IntegerAttr)]
    raise InternalError(f"a kernel parameter is {value}")
