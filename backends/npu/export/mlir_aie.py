"""A placed design as mlir-aie text, in the spelling of a named version (1.3 or 1.4), and what such text says read back.

1.3 has subviews of object FIFOs and `dma_memcpy_nd`; 1.4 acquires elements directly and configures tasks. Routes, locks
and descriptors are mlir-aie's own business there: its passes assign them again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

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
from neuc.backends.npu.export.aie_types import MLIR_TYPES, memref
from neuc.errors import Error, Exit
from neuc.runtime.npu.machine import Machine, Tile
from neuc.runtime.npu.program import Channel, Design, HostBuffer, SetParam, Transfer, Wait

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
    lines += [f"    {line}" for line in _sequence(design, cores, version)]
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


def _write_parameter(core: Core, name: str, value: int, number: int, version: str) -> list[str]:
    """A word into a core's buffer; its value became an operand after 1.3."""
    place = f"@rtp_{core.kernel.name}, {core.rtp.index(name)}"
    if version == "1.3":
        return [f"aiex.npu.rtp_write({place}, {value})"]
    return [f"%v{number} = arith.constant {value} : i32", f"aiex.npu.rtp_write({place}, %v{number}) : i32"]


def _sequence(design: Design, cores: Sequence[Core], version: str) -> list[str]:
    """What the host does; first it writes the run-time parameters, which cores read with each firing's tokens."""
    arguments = ", ".join(f"%{b.name}: {_host_type(b)}" for b in design.buffers)
    lines = [f"aie.runtime_sequence @sequence({arguments}) {{"]
    fifo = {port.name: port.channel for port in design.ports}
    tasks: dict[str, list[str]] = {}
    owners = {param.name: core for param in design.params for core in cores if core.kernel.name == param.kernel}
    first = [SetParam(param.name, param.value) for param in design.params]
    for number, step in enumerate([*first, *design.sequence], -len(first)):
        if isinstance(step, SetParam):
            word = _write_parameter(owners[step.param], step.param, step.value, number + len(first), version)
            lines += [f"  {line}" for line in word]
            continue
        if isinstance(step, Wait):
            if version == "1.3":
                lines.append(f"  aiex.npu.dma_wait {{symbol = @{fifo[step.port]}}}")
            else:
                lines += [f"  aiex.dma_await_task({task})" for task in tasks.pop(step.port, [])]
            continue
        lines += [f"  {line}" for line in _transfer(step, design, fifo[step.port], number, version)]
        tasks.setdefault(step.port, []).append(f"%t{number}")
    if version == "1.4":
        lines += [f"  aiex.dma_free_task({task})" for waiting in tasks.values() for task in waiting]
    return [*lines, "}"]


def _host_type(buffer: HostBuffer) -> str:
    return f"memref<{prod(buffer.shape)}x{MLIR_TYPES[buffer.dtype]}>"


def _transfer(step: Transfer, design: Design, fifo: str, number: int, version: str) -> list[str]:
    buffer = design.buffer(step.buffer)
    kind = _host_type(buffer)
    sizes, strides = [1] * (4 - len(step.sizes)) + [*step.sizes], [0] * (4 - len(step.strides)) + [*step.strides]
    if version == "1.3":
        lists = f"[0, 0, 0, {step.offset}][{', '.join(map(str, sizes))}][{', '.join(map(str, strides))}]"
        attributes = f"{{id = {number} : i64, issue_token = true, metadata = @{fifo}}}"
        return [f"aiex.npu.dma_memcpy_nd(%{step.buffer}{lists}) {attributes} : {kind}"]
    bd = (
        f"aie.dma_bd(%{step.buffer} : {kind} offset = {step.offset} len = {prod(step.sizes)} "
        f"sizes=[{', '.join(map(str, sizes))}] strides=[{', '.join(map(str, strides))}])"
    )
    task = f"%t{number}"
    head = f"{task} = aiex.dma_configure_task_for @{fifo} {{"
    return [head, f"  {bd}", "  aie.end", "} {issue_token = true}", f"aiex.dma_start_task({task})"]


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
