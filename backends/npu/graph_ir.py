"""A design as an `npu.graph` and back: the same facts as IR, for text and passes, and as plain data, for algorithms.

Both ways are exact: `design_of(graph_of(design)) == design`. No decision is taken here.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    SymbolRefAttr,
    UnitAttr,
    f64,
    i64,
)
from xdsl.ir import Attribute, Block, Operation, Region
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import npu
from neuc.dialects.npu_attrs import CircuitAttr, DmaAttr, NumbersAttr, PoolAttr, ints, names, numbers, symbols
from neuc.errors import Error, InternalError
from neuc.runtime.npu.machine import Tile
from neuc.runtime.npu.program import (
    Channel,
    Connection,
    Design,
    DmaEnd,
    HostBuffer,
    Kernel,
    Link,
    Param,
    ParamValue,
    Pool,
    Port,
    Route,
    SetParam,
    Step,
    Transfer,
    Wait,
    pool_name,
)


def checked(design: Design) -> Design:
    """`design`, if its parts agree with each other.

    Raises:
        Error: NEUC-E672, naming the parts: a dangling port, impossible rates, a transfer outside its buffer …
    """
    try:
        graph_of(design).verify()
    except VerifyException as error:
        first = str(error).strip().splitlines()
        why = next((line for line in reversed(first) if line.strip()), "")
        message = why if "verification" not in why.lower() else str(error)
        raise Error("NEUC-E672", f"graph {design.name}: {message.strip()}", hint="correct the graph") from error
    return design


# -- to IR ----------------------------------------------------------------------------------------------


def graph_of(design: Design) -> npu.GraphOp:
    """The graph of a design."""
    ops: list[Operation] = [_buffer(buffer) for buffer in design.buffers]
    ops += [_kernel(kernel) for kernel in design.kernels]
    ops += [_link(link, design) for link in design.links]
    ops += [_port(port) for port in design.ports]
    ops += [_channel(channel, design) for channel in design.channels]
    ops += [
        npu.ParamOp.create(
            properties={
                "sym_name": _text(p.name),
                "kernel": SymbolRefAttr(p.kernel),
                "value": IntegerAttr(p.value, i64),
            }
        )
        for p in design.params
    ]
    if design.sequence:
        steps = [_step(step) for step in design.sequence]
        ops.append(npu.SequenceOp.create(regions=[Region(Block(steps))]))
    properties = {"sym_name": _text(design.name), "machine": _text(design.machine)}
    return npu.GraphOp.create(properties=properties, regions=[Region(Block(ops))])


def _text(value: str) -> StringAttr:
    return StringAttr(value)


def _placing(tile: Tile | None, pinned: bool) -> dict[str, Attribute]:
    placing: dict[str, Attribute] = {} if tile is None else {"tile": ints(tile)}
    return {**placing, "pinned": UnitAttr()} if pinned else placing


def _value(value: ParamValue) -> Attribute:
    if isinstance(value, int):
        return IntegerAttr(value, i64)
    if isinstance(value, float):
        return FloatAttr(value, f64)
    if isinstance(value, str):
        return StringAttr(value)
    return ArrayAttr([IntegerAttr(item, i64) for item in value])


def _kernel(kernel: Kernel) -> Operation:
    return npu.KernelOp.create(
        properties={
            "sym_name": _text(kernel.name),
            "function": _text(kernel.function),
            "inputs": symbols(kernel.inputs),
            "outputs": symbols(kernel.outputs),
            "consume": ArrayAttr([ints(rate) for rate in kernel.consume]),
            "produce": ArrayAttr([ints(rate) for rate in kernel.produce]),
            "cycles": ints(kernel.cycles),
            "params": DictionaryAttr({key: _value(value) for key, value in kernel.params.items()}),
            "state_bytes": IntegerAttr(kernel.state_bytes, i64),
            "program_bytes": IntegerAttr(kernel.program_bytes, i64),
            **_placing(kernel.tile, kernel.pinned),
        }
    )


def _pools(pools: Sequence[Pool]) -> ArrayAttr[PoolAttr]:
    return ArrayAttr(
        [
            PoolAttr(_text(p.name), ints(p.tile), IntegerAttr(p.nbytes, i64), ints(p.addresses), ints(p.locks))
            for p in pools
        ]
    )


def _link(link: Link, design: Design) -> Operation:
    properties: dict[str, Attribute] = {
        "sym_name": _text(link.name),
        "mode": _text(link.mode),
        "inputs": symbols(link.inputs),
        "outputs": symbols(link.outputs),
        "offsets": ints(link.offsets),
        "repeat": IntegerAttr(link.repeat, i64),
        "depth": IntegerAttr(link.depth, i64),
        **_placing(link.tile, link.pinned),
    }
    own = [pool for pool in design.pools if pool.name == link.name]
    if own:
        properties["pools"] = _pools(own)
    return npu.LinkOp.create(properties=properties)


def _port(port: Port) -> Operation:
    properties: dict[str, Attribute] = {"sym_name": _text(port.name), "direction": _text(port.direction)}
    return npu.PortOp.create(
        properties={**properties, "channel": SymbolRefAttr(port.channel), **_placing(port.tile, port.pinned)}
    )


def _buffer(buffer: HostBuffer) -> Operation:
    return npu.BufferOp.create(
        properties={
            "sym_name": _text(buffer.name),
            "role": _text(buffer.role),
            "type": _text(buffer.dtype),
            "shape": ints(buffer.shape),
        }
    )


def _channel(channel: Channel, design: Design) -> Operation:
    properties: dict[str, Attribute] = {
        "sym_name": _text(channel.name),
        "producer": SymbolRefAttr(channel.producer),
        "consumers": symbols(channel.consumers),
        "depth": IntegerAttr(channel.depth, i64),
        "type": _text(channel.dtype),
        "shape": ints(channel.shape),
    }
    if channel.layout:
        properties["layout"] = ArrayAttr([ints(pair) for pair in channel.layout])
    if channel.name in design.shared:
        properties["shared"] = ints(design.shared[channel.name])
    own = {channel.name, *(pool_name(channel.name, end) for end in (channel.producer, *channel.consumers))}
    own -= {link.name for link in design.links}
    pools = [pool for pool in design.pools if pool.name in own]
    if pools:
        properties["pools"] = _pools(pools)
    ends = [end for end in design.dmas if end.channel == channel.name]
    if ends:
        properties["dmas"] = ArrayAttr(
            [
                DmaAttr(_text(e.node), ints(e.tile), _text(e.direction), IntegerAttr(e.index, i64), ints(e.bds))
                for e in ends
            ]
        )
    route = next((route for route in design.routes if route.channel == channel.name), None)
    if route is not None:
        properties["route"] = ArrayAttr([_circuit(connection) for connection in route.connections])
    return npu.ChannelOp.create(properties=properties)


def _circuit(c: Connection) -> CircuitAttr:
    source, target = IntegerAttr(c.source[1], i64), IntegerAttr(c.target[1], i64)
    return CircuitAttr(ints(c.tile), _text(c.source[0]), source, _text(c.target[0]), target)


def _step(step: Step) -> Operation:
    if isinstance(step, Wait):
        return npu.WaitOp.create(properties={"port": SymbolRefAttr(step.port)})
    if isinstance(step, SetParam):
        return npu.SetParamOp.create(
            properties={"param": SymbolRefAttr(step.param), "value": IntegerAttr(step.value, i64)}
        )
    return npu.TransferOp.create(
        properties={
            "port": SymbolRefAttr(step.port),
            "buffer": SymbolRefAttr(step.buffer),
            "offset": IntegerAttr(step.offset, i64),
            "sizes": ints(step.sizes),
            "strides": ints(step.strides),
        }
    )


# -- from IR --------------------------------------------------------------------------------------------


def design_of(graph: npu.GraphOp) -> Design:
    """The design of a verified graph."""
    channels = graph.parts(npu.ChannelOp)
    pools = [pool for op in (*channels, *graph.parts(npu.LinkOp)) for pool in op.pools or ()]
    return Design(
        name=graph.sym_name.data,
        machine=graph.machine.data,
        kernels=tuple(_kernel_of(op) for op in graph.parts(npu.KernelOp)),
        channels=tuple(_channel_of(op) for op in channels),
        links=tuple(_link_of(op) for op in graph.parts(npu.LinkOp)),
        ports=tuple(
            Port(
                op.sym_name.data,
                op.channel.root_reference.data,
                op.direction.data,
                _tile(op.tile),
                op.pinned is not None,
            )
            for op in graph.parts(npu.PortOp)
        ),
        buffers=tuple(
            HostBuffer(op.sym_name.data, op.type.data, numbers(op.shape), op.role.data)
            for op in graph.parts(npu.BufferOp)
        ),
        params=tuple(
            Param(op.sym_name.data, op.kernel.root_reference.data, op.value.value.data)
            for op in graph.parts(npu.ParamOp)
        ),
        sequence=tuple(_step_of(op) for sequence in graph.parts(npu.SequenceOp) for op in sequence.body.block.ops),
        shared={op.sym_name.data: _sure(_tile(op.shared)) for op in channels if op.shared is not None},
        pools=tuple(
            Pool(p.pool.data, _sure(_tile(p.tile)), p.nbytes.value.data, numbers(p.addresses), numbers(p.locks))
            for p in sorted(pools, key=lambda p: p.pool.data)
        ),
        dmas=tuple(_dma_of(op.sym_name.data, end) for op in channels for end in op.dmas or ()),
        routes=tuple(
            Route(op.sym_name.data, tuple(_connection_of(c) for c in op.route))
            for op in channels
            if op.route is not None
        ),
    )


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return (values[0], values[1])


def _tile(attr: Attribute | None) -> Tile | None:
    return None if not isinstance(attr, NumbersAttr) else _pair(numbers(attr))


def _sure(tile: Tile | None) -> Tile:
    if tile is None:
        raise InternalError("a tile is missing")
    return tile


def _param_value(attr: Attribute) -> ParamValue:
    if isinstance(attr, IntegerAttr):
        return attr.value.data
    if isinstance(attr, FloatAttr):
        return attr.value.data
    if isinstance(attr, StringAttr):
        return attr.data
    if isinstance(attr, ArrayAttr):
        return [item.value.data for item in attr if isinstance(item, IntegerAttr)]
    raise InternalError(f"a kernel parameter is {attr}")


def _kernel_of(op: npu.KernelOp) -> Kernel:
    return Kernel(
        name=op.sym_name.data,
        function=op.function.data,
        inputs=names(op.inputs),
        outputs=names(op.outputs),
        consume=tuple(numbers(rate) for rate in op.consume),
        produce=tuple(numbers(rate) for rate in op.produce),
        cycles=numbers(op.cycles),
        params={key: _param_value(value) for key, value in op.params.data.items()},
        state_bytes=op.state_bytes.value.data,
        program_bytes=op.program_bytes.value.data,
        tile=_tile(op.tile),
        pinned=op.pinned is not None,
    )


def _channel_of(op: npu.ChannelOp) -> Channel:
    layout = () if op.layout is None else tuple(_pair(numbers(pair)) for pair in op.layout)
    producer, depth = op.producer.root_reference.data, op.depth.value.data
    return Channel(op.sym_name.data, producer, names(op.consumers), op.type.data, numbers(op.shape), depth, layout)


def _link_of(op: npu.LinkOp) -> Link:
    return Link(
        name=op.sym_name.data,
        mode=op.mode.data,
        inputs=names(op.inputs),
        outputs=names(op.outputs),
        offsets=numbers(op.offsets),
        repeat=op.repeat.value.data,
        depth=op.depth.value.data,
        tile=_tile(op.tile),
        pinned=op.pinned is not None,
    )


def _dma_of(channel: str, end: DmaAttr) -> DmaEnd:
    tile = _sure(_tile(end.tile))
    return DmaEnd(channel, end.node.data, tile, end.direction.data, end.index.value.data, numbers(end.bds))


def _connection_of(c: CircuitAttr) -> Connection:
    source, target = (c.source.data, c.source_index.value.data), (c.target.data, c.target_index.value.data)
    return Connection(_sure(_tile(c.tile)), source, target)


def _step_of(op: Operation) -> Step:
    if isinstance(op, npu.WaitOp):
        return Wait(op.port.root_reference.data)
    if isinstance(op, npu.SetParamOp):
        return SetParam(op.param.root_reference.data, op.value.value.data)
    assert isinstance(op, npu.TransferOp)
    port, buffer = op.port.root_reference.data, op.buffer.root_reference.data
    return Transfer(port, buffer, op.offset.value.data, numbers(op.sizes), numbers(op.strides))
