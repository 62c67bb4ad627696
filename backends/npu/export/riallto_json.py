"""A design in the shape of Riallto's application metadata, with everything Riallto has no field for beside it.

Key order is application, kernels, connections, sequence; `neuc` holds the whole design (`program_json.py`), so that the
file reads back exactly. Links become kernels of tile type MT, ports of type IT, as Riallto has them.
"""

from __future__ import annotations

from math import prod

from neuc.errors import Error
from neuc.runtime.npu.program import Channel, Design, Kernel, Link, Port, SetParam, Transfer
from neuc.runtime.npu.program_json import design_from_json, design_to_json

_MODES = {"forward": "passthrough", "broadcast": "passthrough", "split": "split", "join": "concat"}
_C_TYPES = {"i8": "int8_t", "u8": "uint8_t", "i16": "int16_t", "u16": "uint16_t", "i32": "int32_t", "u32": "uint32_t"}


def to_riallto(design: Design) -> dict[str, object]:
    """Riallto-shaped metadata, plain JSON data."""
    channels = {channel.name: channel for channel in design.channels}
    kernels = {kernel.name: _kernel(kernel, design, channels) for kernel in design.kernels}
    kernels |= {link.name: _buffer(link, channels) for link in design.links}
    kernels |= {port.name: _interface(port, channels) for port in design.ports}
    if design.params:
        kernels["user"] = _entry("user", None, "IT", "user", {"write": _port("write", "out", "i32", (1,), rtp=True)})
    connections: dict[str, object] = {}
    for channel in design.channels:
        for consumer in channel.consumers:
            one = _connection(channel.producer, f"{channel.name}", consumer, f"{channel.name}", channel.dtype)
            connections[str(one["name"])] = one
    for param in design.params:
        one = _connection("user", "write", param.kernel, param.name, "i32")
        connections[str(one["name"])] = {**one, "ctype": "rtp"}
    return {
        "application": design.name,
        "kernels": kernels,
        "connections": connections,
        "sequence": _sequence(design, channels),
        "neuc": design_to_json(design),
    }


def from_riallto(data: dict[str, object], where: str = "metadata") -> Design:
    """The design in metadata that `to_riallto` wrote.

    Raises:
        Error: NEUC-E683, it is Riallto's own, which says neither what its kernels compute nor how fast; NEUC-E687.
    """
    if "neuc" not in data:
        raise Error(
            "NEUC-E683",
            f"{where} has no part 'neuc': Riallto's metadata says nothing of what kernels compute",
            hint="write the application in neuc's dataflow API",
        )
    return design_from_json(data["neuc"], where)


def _port(name: str, direction: str, dtype: str, shape: tuple[int, ...], *, rtp: bool = False) -> dict[str, object]:
    c_type = _C_TYPES.get(dtype, dtype)
    kind = "rtp" if rtp else None
    c_dtype = c_type if rtp else f"{c_type}*"
    return {
        "c_dtype": c_dtype,
        "direction": direction,
        "name": name,
        "ctype": kind,
        "shape": list(shape),
        "dtype": dtype,
    }


def _entry(
    name: str, tile: tuple[int, int] | None, ttype: str, ktype: str, ports: dict[str, object]
) -> dict[str, object]:
    where = None if tile is None else list(tile)
    return {"name": name, "tloc": where, "ttype": ttype, "ktype": ktype, "type": ktype, "ports": ports}


def _kernel(kernel: Kernel, design: Design, channels: dict[str, Channel]) -> dict[str, object]:
    ports: dict[str, object] = {c: _port(c, "in", channels[c].dtype, channels[c].shape) for c in kernel.inputs}
    ports |= {c: _port(c, "out", channels[c].dtype, channels[c].shape) for c in kernel.outputs}
    for param in design.params:
        if param.kernel == kernel.name:
            ports[param.name] = {**_port(param.name, "in", "i32", (1,), rtp=True), "value": param.value}
    return _entry(kernel.name, kernel.tile, "CT", kernel.function, ports)


def _buffer(link: Link, channels: dict[str, Channel]) -> dict[str, object]:
    ports: dict[str, object] = {c: _port(c, "in", channels[c].dtype, channels[c].shape) for c in link.inputs}
    ports |= {c: _port(c, "out", channels[c].dtype, channels[c].shape) for c in link.outputs}
    whole = max((channels[c] for c in (*link.inputs, *link.outputs)), key=lambda channel: channel.nbytes)
    entry = _entry(link.name, link.tile, "MT", "MTBuffer", ports)
    return {**entry, "shape": list(whole.shape), "dtype": whole.dtype, "mtmode": _MODES[link.mode]}


def _interface(port: Port, channels: dict[str, Channel]) -> dict[str, object]:
    channel = channels[port.channel]
    direction = "out" if port.direction == "in" else "in"  # seen from the interface tile
    ports: dict[str, object] = {channel.name: _port(channel.name, direction, channel.dtype, channel.shape)}
    return {
        **_entry(port.name, port.tile, "IT", "ITBuffer", ports),
        "shape": list(channel.shape),
        "dtype": channel.dtype,
    }


def _connection(source: str, source_port: str, sink: str, sink_port: str, dtype: str) -> dict[str, object]:
    name = f"{source}___{source_port}___{sink}___{sink_port}"
    ends = {"srckernel": source, "srcport": source_port, "sinkkernel": sink, "sinkport": sink_port}
    return {"name": name, **ends, "dtype": dtype, "ctype": "objfifo,pingpong"}


def _sequence(design: Design, channels: dict[str, Channel]) -> list[dict[str, object]]:
    steps: list[dict[str, object]] = []
    ports = {port.name: port for port in design.ports}
    for step in design.sequence:
        if isinstance(step, SetParam):
            steps.append({"name": step.param, "seqtype": "rtp", "value": step.value})
        elif isinstance(step, Transfer):
            buffer, channel = design.buffer(step.buffer), channels[ports[step.port].channel]
            width = buffer.nbytes // max(1, prod(buffer.shape))
            outer = {"kernelname": step.buffer, "portname": step.buffer, "dtype": buffer.dtype}
            outer |= {"slices": [list(step.sizes), list(step.strides)], "offset": step.offset * width}
            outer |= {"nbytes": prod(step.sizes) * width, "shape": list(buffer.shape)}
            inner = {"kernelname": step.port, "portname": channel.name, "dtype": channel.dtype, "slices": None}
            inner |= {"offset": 0, "nbytes": channel.nbytes, "shape": list(channel.shape)}
            goes_in = ports[step.port].direction == "in"
            ends = {"src": outer, "snk": inner} if goes_in else {"src": inner, "snk": outer}
            name = f"{step.buffer}_{step.port}_{len(steps)}"
            head = {
                "name": name,
                "seqtype": "buffer",
                "offset": step.offset * width,
                "nbytes": prod(step.sizes) * width,
            }
            steps.append({**head, **ends})
    return steps
