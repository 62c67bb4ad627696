"""What the parts of an `npu.graph` have to agree on: names, ends, sizes, rates, and each stage's attributes.

Called by `GraphOp.verify_`. Whether a machine can hold the graph is checked elsewhere, against its model.
"""

from __future__ import annotations

from math import prod

from xdsl.ir import Operation
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.npu import (
    BufferOp,
    ChannelOp,
    GraphOp,
    KernelOp,
    LinkOp,
    ParamOp,
    PortOp,
    SequenceOp,
    SetParamOp,
    TransferOp,
    WaitOp,
)
from neuc.dialects.npu_attrs import names, numbers
from neuc.dialects.npu_rates import Edge, Unbalanced, repetitions

ELEMENT_BYTES = {"i8": 1, "u8": 1, "i16": 2, "u16": 2, "bf16": 2, "i32": 4, "u32": 4, "f32": 4}


def token_bytes(channel: ChannelOp | BufferOp) -> int:
    """Bytes of a channel's token, or of a host buffer."""
    if channel.type.data not in ELEMENT_BYTES:
        raise VerifyException(
            f"{channel.sym_name.data}: element type {channel.type.data!r} is none of {', '.join(ELEMENT_BYTES)}"
        )
    return prod(numbers(channel.shape)) * ELEMENT_BYTES[channel.type.data]


def verify_graph(graph: GraphOp) -> None:
    """Check everything that more than one part is concerned in."""
    channels = {op.sym_name.data: op for op in graph.parts(ChannelOp)}
    nodes: dict[str, KernelOp | LinkOp | PortOp] = {}
    for kind in (KernelOp, LinkOp, PortOp):
        nodes |= {op.sym_name.data: op for op in graph.parts(kind)}
    _unique_names(graph)
    for node in nodes.values():
        for channel, role in _ends(node):
            _check_end(node.sym_name.data, channel, role, channels)
    for channel in channels.values():
        token_bytes(channel)
        _check_nodes(channel, nodes)
    for link in graph.parts(LinkOp):
        _check_sizes(link, channels)
    _check_rates(nodes, channels)
    _check_host(graph, nodes, channels)
    _check_stage(graph, nodes)


def _unique_names(graph: GraphOp) -> None:
    seen: set[str] = set()
    for op in graph.body.block.ops:
        name = getattr(op, "sym_name", None)
        if name is not None and name.data in seen:
            raise VerifyException(f"two parts are called @{name.data}")
        if name is not None:
            seen.add(name.data)
    if len(graph.parts(SequenceOp)) > 1:
        raise VerifyException("a graph has one npu.sequence at most")


def _ends(node: KernelOp | LinkOp | PortOp) -> list[tuple[str, str]]:
    """The channels at a node, each as producer or consumer."""
    if isinstance(node, PortOp):
        return [(node.channel.root_reference.data, "producer" if node.direction.data == "in" else "consumer")]
    return [(c, "consumer") for c in names(node.inputs)] + [(c, "producer") for c in names(node.outputs)]


def _check_end(node: str, channel: str, role: str, channels: dict[str, ChannelOp]) -> None:
    if channel not in channels:
        raise VerifyException(f"dangling port: {node} names channel @{channel}, which does not exist")
    op = channels[channel]
    found = (op.producer.root_reference.data,) if role == "producer" else names(op.consumers)
    if node not in found:
        raise VerifyException(f"dangling port: {node} is {role} of @{channel}, whose {role} is {', '.join(found)}")


def _check_nodes(channel: ChannelOp, nodes: dict[str, KernelOp | LinkOp | PortOp]) -> None:
    name = channel.sym_name.data
    ends = [(channel.producer.root_reference.data, "producer")] + [(c, "consumer") for c in names(channel.consumers)]
    for end, role in ends:
        if end not in nodes or (name, role) not in _ends(nodes[end]):
            raise VerifyException(f"dangling port: channel @{name} has {role} {end}, which does not name the channel")
    consumers = names(channel.consumers)
    if len(set(consumers)) != len(consumers):
        raise VerifyException(f"channel @{name} names a consumer twice; use a link of mode broadcast")
    if len(consumers) > 1 and any(isinstance(nodes[c], PortOp) for c in consumers):
        raise VerifyException(f"channel @{name}: a port to the host is a channel's only consumer")


def _check_sizes(link: LinkOp, channels: dict[str, ChannelOp]) -> None:
    ins = [token_bytes(channels[c]) for c in names(link.inputs)]
    outs = [token_bytes(channels[c]) for c in names(link.outputs)]
    name, offsets = link.sym_name.data, numbers(link.offsets)
    if link.mode.data in ("forward", "broadcast"):
        if any(size != ins[0] for size in outs):
            raise VerifyException(f"link {name}: {ins[0]} bytes come in, {outs} go out")
        return
    parts, whole = (outs, ins[0]) if link.mode.data == "split" else (ins, outs[0])
    if sum(parts) > whole or any(o < 0 or o + size > whole for o, size in zip(offsets, parts)):
        raise VerifyException(f"link {name}: parts of {parts} bytes at {list(offsets)} do not fit {whole} bytes")
    if link.mode.data == "join" and sum(parts) != whole:
        raise VerifyException(f"link {name}: parts of {parts} bytes leave gaps in {whole} bytes")


def rate_edges(nodes: dict[str, KernelOp | LinkOp | PortOp], channels: dict[str, ChannelOp]) -> list[Edge]:
    """Rates of every channel between kernels and links; ports follow whatever is asked of them."""

    def rate(node: KernelOp | LinkOp, channel: str, *, out: bool) -> int:
        if isinstance(node, LinkOp):
            return node.repeat.value.data if out else 1
        ends, rates = (node.outputs, node.produce) if out else (node.inputs, node.consume)
        return sum(numbers(rates.data[names(ends).index(channel)]))

    edges: list[Edge] = []
    for name, channel in channels.items():
        producer = nodes[channel.producer.root_reference.data]
        for consumer in (nodes[c] for c in names(channel.consumers)):
            if isinstance(producer, PortOp) or isinstance(consumer, PortOp):
                continue
            given, taken = rate(producer, name, out=True), rate(consumer, name, out=False)
            edges.append(Edge(name, producer.sym_name.data, consumer.sym_name.data, given, taken))
    return edges


def _check_rates(nodes: dict[str, KernelOp | LinkOp | PortOp], channels: dict[str, ChannelOp]) -> None:
    inner = [name for name, node in nodes.items() if not isinstance(node, PortOp)]
    try:
        repetitions(inner, rate_edges(nodes, channels))
    except Unbalanced as error:
        raise VerifyException(f"impossible rates: {error}") from error


def _check_host(graph: GraphOp, nodes: dict[str, KernelOp | LinkOp | PortOp], channels: dict[str, ChannelOp]) -> None:
    buffers = {op.sym_name.data: op for op in graph.parts(BufferOp)}
    params = {op.sym_name.data for op in graph.parts(ParamOp)}
    for buffer in buffers.values():
        token_bytes(buffer)
    for param in graph.parts(ParamOp):
        if not isinstance(nodes.get(param.kernel.root_reference.data), KernelOp):
            raise VerifyException(f"param {param.sym_name.data} names no kernel of the graph")
    for sequence in graph.parts(SequenceOp):
        for step in sequence.body.block.ops:
            _check_step(step, buffers, params, nodes, channels)


def _check_step(
    step: Operation,
    buffers: dict[str, BufferOp],
    params: set[str],
    nodes: dict[str, KernelOp | LinkOp | PortOp],
    channels: dict[str, ChannelOp],
) -> None:
    if isinstance(step, SetParamOp):
        if step.param.root_reference.data not in params:
            raise VerifyException(f"the sequence sets @{step.param.root_reference.data}, which is no npu.param")
        return
    assert isinstance(step, TransferOp | WaitOp)
    port = nodes.get(step.port.root_reference.data)
    if not isinstance(port, PortOp):
        raise VerifyException(f"the sequence names @{step.port.root_reference.data}, which is no npu.port")
    if isinstance(step, WaitOp):
        return
    buffer = buffers.get(step.buffer.root_reference.data)
    if buffer is None:
        raise VerifyException(f"a transfer names @{step.buffer.root_reference.data}, which is no npu.buffer")
    if (buffer.role.data == "output") != (port.direction.data == "out"):
        raise VerifyException(
            f"a transfer joins port {port.sym_name.data} with buffer {buffer.sym_name.data} of role {buffer.role.data}"
        )
    reach = [(size - 1) * stride for size, stride in zip(numbers(step.sizes), numbers(step.strides))]
    low = step.offset.value.data + sum(r for r in reach if r < 0)
    high = step.offset.value.data + sum(r for r in reach if r > 0)
    if low < 0 or high >= prod(numbers(buffer.shape)):
        raise VerifyException(
            f"a transfer on {port.sym_name.data} reaches outside {buffer.sym_name.data}: {low} to {high}"
        )
    moved = prod(numbers(step.sizes)) * ELEMENT_BYTES[buffer.type.data]
    token = token_bytes(channels[port.channel.root_reference.data])
    if moved % token:
        raise VerifyException(
            f"a transfer on {port.sym_name.data} moves {moved} bytes, no whole number of tokens of {token}"
        )


def _check_stage(graph: GraphOp, nodes: dict[str, KernelOp | LinkOp | PortOp]) -> None:
    """Attributes of a later stage stand on all parts they belong to, or on none."""
    placed = [name for name, node in nodes.items() if node.tile is not None]
    channels = graph.parts(ChannelOp)
    if any(op.pools is not None or op.dmas is not None or op.route is not None for op in channels) and len(
        placed
    ) < len(nodes):
        missing = next(name for name in nodes if name not in placed)
        raise VerifyException(f"channels have resources, but {missing} has no tile")
    for node in nodes.values():
        if node.tile is not None and len(numbers(node.tile)) != 2:
            raise VerifyException(f"{node.sym_name.data}: a tile is [column, row]")
        if node.pinned is not None and node.tile is None:
            raise VerifyException(f"{node.sym_name.data} is pinned to no tile")
    for op in channels:
        if op.route is not None and op.dmas is None:
            raise VerifyException(f"channel @{op.sym_name.data} has a route but no DMA ends")
