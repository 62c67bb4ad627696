"""Designs as JSON and back, checked: the form in artifacts and exports. What the fields mean stands in `program.py`."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import cast

from neuc.runtime.checked_json import Node
from neuc.runtime.npu.machine import Tile
from neuc.runtime.npu.program import (
    DTYPES,
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
)

FORMAT = 1
CODE = "NEUC-E687"
CURE = "the file is damaged or was made by something else; compile again"
_STEPS = {"transfer": Transfer, "wait": Wait, "set_param": SetParam}


def design_to_json(design: Design) -> dict[str, object]:
    """Plain JSON data; `design_from_json` gives the same design back."""
    data = cast("dict[str, object]", asdict(design))
    names = {cls: name for name, cls in _STEPS.items()}
    data["sequence"] = [{"step": names[type(step)], **asdict(step)} for step in design.sequence]
    return cast("dict[str, object]", _plain({"format": FORMAT, "stage": design.stage, **data}))


def _plain(value: object) -> object:
    """Tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in cast("dict[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in cast("list[object]", value)]
    return value


def design_from_json(data: object, where: str) -> Design:
    """Read what `design_to_json` wrote.

    Raises:
        Error: NEUC-E687, with the field that is wrong.
    """
    node = Node(data, where, CODE, CURE)
    node.only(["format", "stage", *(field.name for field in fields(Design))])
    node.get("format").integer(FORMAT, FORMAT)
    design = Design(
        name=_name(node.get("name")),
        machine=_name(node.get("machine")),
        kernels=node.get("kernels").list_of(_kernel),
        channels=node.get("channels").list_of(_channel),
        links=node.get("links").list_of(_link),
        ports=node.get("ports").list_of(
            lambda n: Port(
                _name(n.get("name")),
                _name(n.get("channel")),
                _name(n.get("direction")),
                _maybe_tile(n.get("tile")),
                n.get("pinned").boolean(),
            )
        ),
        buffers=node.get("buffers").list_of(
            lambda n: HostBuffer(
                _name(n.get("name")), _dtype(n.get("dtype")), _ints(n.get("shape")), _name(n.get("role"))
            )
        ),
        params=node.get("params").list_of(
            lambda n: Param(_name(n.get("name")), _name(n.get("kernel")), _int(n.get("value")))
        ),
        sequence=node.get("sequence").list_of(_step),
        shared={name: _tile(entry) for name, entry in node.get("shared").fields()},
        pools=node.get("pools").list_of(
            lambda n: Pool(
                _name(n.get("name")),
                _tile(n.get("tile")),
                n.get("nbytes").integer(),
                _ints(n.get("addresses")),
                _ints(n.get("locks")),
            )
        ),
        dmas=node.get("dmas").list_of(
            lambda n: DmaEnd(
                _name(n.get("channel")),
                _name(n.get("node")),
                _tile(n.get("tile")),
                _name(n.get("direction")),
                n.get("index").integer(0, 64),
                _ints(n.get("bds")),
            )
        ),
        routes=node.get("routes").list_of(
            lambda n: Route(_name(n.get("channel")), n.get("connections").list_of(_connection))
        ),
    )
    _check_ends(design, node)
    return design


def _check_ends(design: Design, node: Node) -> None:
    """Every end of a channel is a node, every input and output of a link a channel."""
    nodes = {entry.name for entry in design.nodes}
    channels = {channel.name for channel in design.channels}
    for channel in design.channels:
        for end in (channel.producer, *channel.consumers):
            if end not in nodes:
                raise node.get("channels").refuse(f"{channel.name!r} ends at {end!r}, which there is not")
    for link in design.links:
        for name in (*link.inputs, *link.outputs):
            if name not in channels:
                raise node.get("links").refuse(f"{link.name!r} names the channel {name!r}, which there is not")


def _name(node: Node) -> str:
    return node.string(200)


def _int(node: Node) -> int:
    return node.integer(-(2**62), 2**62)


def _ints(node: Node) -> tuple[int, ...]:
    return node.list_of(_int)


def _dtype(node: Node) -> str:
    if node.string() not in DTYPES:
        raise node.refuse(f"{node.string()!r} is none of {', '.join(DTYPES)}")
    return node.string()


def _tile(node: Node) -> Tile:
    values = node.list_of(lambda n: n.integer(0, 255), 2)
    if len(values) != 2:
        raise node.refuse("a tile is [column, row]")
    return (values[0], values[1])


def _maybe_tile(node: Node) -> Tile | None:
    return None if node.value is None else _tile(node)


def _value(node: Node) -> ParamValue:
    if isinstance(node.value, str):
        return node.string()
    if isinstance(node.value, float):
        return node.number()
    return list(_ints(node)) if isinstance(node.value, list | tuple) else _int(node)


def _kernel(n: Node) -> Kernel:
    return Kernel(
        name=_name(n.get("name")),
        function=_name(n.get("function")),
        inputs=n.get("inputs").list_of(_name),
        outputs=n.get("outputs").list_of(_name),
        consume=n.get("consume").list_of(_ints),
        produce=n.get("produce").list_of(_ints),
        cycles=_ints(n.get("cycles")),
        params={key: _value(entry) for key, entry in n.get("params").fields(1000)},
        state_bytes=n.get("state_bytes").integer(),
        program_bytes=n.get("program_bytes").integer(),
        tile=_maybe_tile(n.get("tile")),
        pinned=n.get("pinned").boolean(),
    )


def _channel(n: Node) -> Channel:
    return Channel(
        name=_name(n.get("name")),
        producer=_name(n.get("producer")),
        consumers=n.get("consumers").list_of(_name),
        dtype=_dtype(n.get("dtype")),
        shape=_ints(n.get("shape")),
        depth=n.get("depth").integer(1, 1 << 16),
        layout=n.get("layout").list_of(_pair),
    )


def _pair(node: Node) -> tuple[int, int]:
    values = _ints(node)
    if len(values) != 2:
        raise node.refuse("expected a pair")
    return (values[0], values[1])


def _link(n: Node) -> Link:
    return Link(
        name=_name(n.get("name")),
        mode=_name(n.get("mode")),
        inputs=n.get("inputs").list_of(_name),
        outputs=n.get("outputs").list_of(_name),
        offsets=_ints(n.get("offsets")),
        repeat=n.get("repeat").integer(1, 1 << 16),
        depth=n.get("depth").integer(1, 1 << 16),
        tile=_maybe_tile(n.get("tile")),
        pinned=n.get("pinned").boolean(),
    )


def _connection(n: Node) -> Connection:
    ports: list[tuple[str, int]] = []
    for key in ("source", "target"):
        items = n.get(key).items(2)
        if len(items) != 2:
            raise n.get(key).refuse("expected [bundle, number]")
        ports.append((_name(items[0]), items[1].integer(0, 64)))
    return Connection(_tile(n.get("tile")), ports[0], ports[1])


def _step(n: Node) -> Step:
    kind = n.get("step").string(32)
    if kind == "wait":
        return Wait(_name(n.get("port")))
    if kind == "set_param":
        return SetParam(_name(n.get("param")), _int(n.get("value")))
    if kind != "transfer":
        raise n.get("step").refuse(f"{kind!r} is none of {', '.join(_STEPS)}")
    port, buffer = _name(n.get("port")), _name(n.get("buffer"))
    return Transfer(port, buffer, _int(n.get("offset")), _ints(n.get("sizes")), _ints(n.get("strides")))
