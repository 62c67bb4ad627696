"""A placed design as mlir-aie text, in the spelling of a named version (1.3 or 1.4), and what such text says read back.

1.3 has subviews of object FIFOs and `dma_memcpy_nd`; 1.4 acquires elements directly and configures tasks. Routes, locks
and descriptors are mlir-aie's own business there: its passes assign them again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from neuc.backends.npu.export.aie_cores import (
    Core,
    core_lines,
    cores_of,
    declarations,
    endless,
    has_loops,
    tile_buffers,
)
from neuc.backends.npu.export.aie_names import legal_names
from neuc.backends.npu.export.aie_places import placed
from neuc.backends.npu.export.aie_sequence import sequence_lines
from neuc.backends.npu.export.aie_types import memref
from neuc.errors import Error, Exit
from neuc.runtime.npu.machine import Machine, Tile
from neuc.runtime.npu.program import Channel, Design

VERSIONS = ("1.3", "1.4")


def device_of(machine: Machine) -> str:
    """mlir-aie's name of a device: npu1, npu2, or a partition of some columns.

    Raises:
        Error: NEUC-E683, the machine is no XDNA array.
    """
    whole = {1: ("npu1", 4), 2: ("npu2", 8)}.get(machine.generation) if machine.family == "xdna" else None
    if whole is None:
        raise Error("NEUC-E683", f"mlir-aie knows no device like {machine.name}", hint="export JSON, DOT or SVG")
    return whole[0] if machine.cols == whole[1] else f"{whole[0]}_{machine.cols}col"


def to_mlir_aie(design: Design, machine: Machine, version: str) -> str:
    """The design as text of this version.

    Raises:
        Error: NEUC-E683: another version, an unplaced design, or kernels that mlir-aie has no code for.
    """
    if version not in VERSIONS:
        raise Error(
            "NEUC-E683",
            f"no export for mlir-aie {version}",
            hint=f"versions: {', '.join(VERSIONS)}",
            exit_code=Exit.USAGE,
        )
    design = legal_names(placed(design, machine))
    channels = {channel.name: channel for channel in design.channels}
    cores = cores_of(design, calls=True)
    declared = dict.fromkeys(line for core in cores for line in declarations(core))
    lines = [
        f"// mlir-aie {version}; written by neuc for {machine.name}",
        "module {",
        f"  aie.device({device_of(machine)}) @main {{",
    ]
    tiles = sorted({node.tile for node in design.nodes if node.tile is not None})
    lines += [f"    {_tile(tile)} = aie.tile({tile[0]}, {tile[1]})" for tile in tiles]
    lines += [f"    {line}" for line in declared]
    lines += [f"    {_fifo(channel, design)}" for channel in design.channels]
    for link in design.links:
        ins, outs = ", ".join(f"@{c}" for c in link.inputs), ", ".join(f"@{c}" for c in link.outputs)
        offsets = [str(o // channels[link.inputs[0]].element_bytes) for o in link.offsets]
        src = ", ".join(offsets) if link.mode == "join" else ""
        dst = ", ".join(offsets) if link.mode == "split" else ""
        lines.append(f"    aie.objectfifo.link [{ins}] -> [{outs}] ([{src}] [{dst}])")
    for core in cores:
        tile = _tile(core.kernel.tile)
        lines += [f"    %{b.name} = aie.buffer({tile}) {b.attributes} : {b.kind}" for b in tile_buffers(core)]
        lines += [f"    {line}" for line in _core(core, version)]
    lines += [f"    {line}" for line in sequence_lines(design, machine, cores, version)]
    return "\n".join([*lines, "  }", "}", ""])


def _tile(tile: Tile | None) -> str:
    assert tile is not None
    return f"%tile_{tile[0]}_{tile[1]}"


def _fifo(channel: Channel, design: Design) -> str:
    producer = _tile(design.node(channel.producer).tile)
    consumers = ", ".join(_tile(design.node(c).tile) for c in channel.consumers)
    layout = ", ".join(f"<size = {size}, stride = {stride}>" for size, stride in channel.layout)
    layout = f" dimensionsToStream [{layout}]" if layout else ""
    links = {link.name: link for link in design.links}
    repeat = links[channel.producer].repeat if channel.producer in links else 1
    extra = f" {{repeat_count = {repeat} : i32}}" if repeat > 1 else ""
    return (
        f"aie.objectfifo @{channel.name}({producer}{layout}, {{{consumers}}}, {channel.depth} : i32){extra} : "
        f"!aie.objectfifo<{memref(channel)}>"
    )


def _core(core: Core, version: str) -> list[str]:
    """An endless loop over the kernel's firings: acquire, compute, release."""

    def acquire(name: str, port: str, element: str) -> list[str]:
        kind = memref(core.channels[name])
        if version == "1.4":
            return [f"{element} = aie.objectfifo.acquire @{name} ({port}, 1) : {kind}"]
        subview = f"%sub{element.removeprefix('%e')}"
        access = f"aie.objectfifo.subview.access {subview}[0] : !aie.objectfifosubview<{kind}> -> {kind}"
        return [
            f"{subview} = aie.objectfifo.acquire @{name}({port}, 1) : !aie.objectfifosubview<{kind}>",
            f"{element} = {access}",
        ]

    inside = core_lines(core, acquire, lambda name, port: f"aie.objectfifo.release @{name}({port}, 1)")
    return [
        f"aie.core({_tile(core.kernel.tile)}) {{",
        *(f"  {line}" for line in endless(inside)),
        "  aie.end",
        "} {dynamic_objfifo_lowering = true}" if has_loops(core) else "}",
    ]


@dataclass(frozen=True)
class AieText:
    """What mlir-aie text of ours says, read back: names, tiles, depths, types, links, cores and transfers."""

    version: str
    device: str
    fifos: Mapping[str, tuple[str, tuple[str, ...], int, str]]
    links: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    cores: Mapping[str, tuple[str, ...]]
    transfers: tuple[tuple[str, str, int, tuple[int, ...], tuple[int, ...]], ...]


def read_mlir_aie(text: str) -> AieText:
    """Read text that `to_mlir_aie` wrote.

    Raises:
        Error: NEUC-E683, it names no version and device.
    """
    head = re.search(r"// mlir-aie (\S+);.*?aie\.device\((\w+)\)", text, re.S)
    if head is None:
        raise Error("NEUC-E683", "this is no mlir-aie text of neuc", hint="the first line names a version")
    fifos = {
        m[1]: (m[2], tuple(re.findall(r"%(\w+)", m[3])), int(m[4]), m[5])
        for m in re.finditer(r"aie\.objectfifo @(\w+)\(%(\w+).*?, \{([^}]*)\}, (\d+) : i32\).*?<(memref<[^>]*>)>", text)
    }
    links = tuple(
        (tuple(re.findall(r"@(\w+)", m[1])), tuple(re.findall(r"@(\w+)", m[2])))
        for m in re.finditer(r"objectfifo\.link \[(.*?)\] -> \[(.*?)\]", text)
    )
    cores = {
        m[1]: tuple(re.findall(r"acquire @(\w+)", m[2]))
        for m in re.finditer(r"aie\.core\(%(\w+)\) \{(.*?)\n {6}aie\.end", text, re.S)
    }
    old = re.finditer(r"dma_memcpy_nd\(%(\w+)\[0, 0, 0, (\d+)\]\[(.*?)\]\[(.*?)\]\).*?metadata = @(\w+)", text)
    transfers = [(m[5], m[1], int(m[2]), _list(m[3]), _list(m[4])) for m in old]
    new = re.finditer(
        r"task_for @(\w+) \{\s*aie\.dma_bd\(%(\w+) .*?offset = (\d+).*?sizes=\[(.*?)\] strides=\[(.*?)\]", text
    )
    transfers += [(m[1], m[2], int(m[3]), _list(m[4]), _list(m[5])) for m in new]
    return AieText(head[1], head[2], fifos, links, cores, tuple(transfers))


def _list(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))
