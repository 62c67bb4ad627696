"""The structure of a design in MLIR's generic form of the aie dialect: what a plain mlir-opt parses and can check.

Device, tiles, object FIFOs, links, and cores with their bodies; no runtime sequence. `aie.irdl.mlir` beside this file
describes the operations, written from mlir-aie's documentation, so that ``mlir-opt --irdl-file`` verifies `checkable`
text. The device integers are those of mlir-aie of 2026 (npu1 = 4, npu2 = 8), which changed in 2025: the file says so.
"""

from __future__ import annotations

import re
from importlib.resources import files

from neuc.backends.npu.export.aie_cores import core_lines, cores_of, endless, tile_buffers
from neuc.backends.npu.export.aie_names import legal_names
from neuc.backends.npu.export.aie_places import placed
from neuc.backends.npu.export.aie_types import memref
from neuc.backends.npu.export.mlir_aie import device_of
from neuc.runtime.npu.machine import Machine, Tile
from neuc.runtime.npu.program import Channel, Design

_DEVICES = {"npu1": 4, "npu2": 8}
_PORTS = {"Produce": 0, "Consume": 1}
_STACK = 1024


def irdl_text() -> str:
    """The IRDL description of the operations written here."""
    return (files("neuc.backends.npu.export") / "aie.irdl.mlir").read_text(encoding="utf-8")


def device_integer(machine: Machine) -> int:
    """The AIEDevice integer: npu1 4, its partitions 5 to 7; npu2 8, its partitions 9 to 15."""
    name = device_of(machine)
    base = _DEVICES[name[:4]]
    return base if name in _DEVICES else base + machine.cols


def to_generic(design: Design, machine: Machine) -> str:
    """Generic-form text in mlir-aie's own spelling.

    Every core has a body: a plain mlir-opt looks for no function from inside an operation it does not know.

    Raises:
        Error: NEUC-E683, a design without places, or a kernel without a body.
    """
    design = legal_names(placed(design, machine))
    tiles = sorted({node.tile for node in design.nodes if node.tile is not None})
    channels = {channel.name: channel for channel in design.channels}
    lines = [
        f"// generic form, AIEDevice integers of mlir-aie 2026; written by neuc for {machine.name}",
        '"builtin.module"() ({',
    ]
    lines.append('  "aie.device"() ({')
    for tile in tiles:
        lines.append(f'    {_name(tile)} = "aie.tile"() {{col = {tile[0]} : i32, row = {tile[1]} : i32}} : () -> index')
    lines += [f"    {_fifo(channel, design)}" for channel in design.channels]
    for link in design.links:
        ins, outs = ", ".join(f"@{c}" for c in link.inputs), ", ".join(f"@{c}" for c in link.outputs)
        element = channels[link.inputs[0]]
        offsets = ", ".join(str(offset // element.element_bytes) for offset in link.offsets)
        src, dst = (offsets, "") if link.mode == "join" else ("", offsets)
        attributes = f"fifoIns = [{ins}], fifoOuts = [{outs}], src_offsets = [{src}], dst_offsets = [{dst}]"
        lines.append(f'    "aie.objectfifo.link"() {{{attributes}}} : () -> ()')
    for core in cores_of(design, calls=False):
        tile = _name(core.kernel.tile)
        for buffer in tile_buffers(core):
            lines.append(f'    %{buffer.name} = "aie.buffer"({tile}) {buffer.attributes} : (index) -> {buffer.kind}')
        lines.append(f'    %core_{core.kernel.name} = "aie.core"({tile}) ({{')
        inside = core_lines(core, lambda name, port, to: [_acquire(channels[name], port, to)], _release)
        lines += [f"      {line}" for line in endless(inside)]
        lines += ['      "aie.end"() : () -> ()', f"    }}) {{stack_size = {_STACK} : i32}} : (index) -> index"]
    lines.append('    "aie.end"() : () -> ()')
    return "\n".join([*lines, f"  }}) {{device = {device_integer(machine)} : i32}} : () -> ()", "}) : () -> ()", ""])


def checkable(text: str) -> str:
    """The same with what IRDL has no words for spelled otherwise: terminators, points in names, types and attributes.

    For ``mlir-opt --allow-unregistered-dialect --irdl-file=aie.irdl.mlir``.
    """
    text = text.replace('"aie.end"', '"neuc.end"').replace('"aie.objectfifo.', '"aie.objectfifo_')
    text = re.sub(r"!aie\.objectfifo<(memref<[^>]*>)>", r"\1", text)
    text = re.sub(r"#aie<bd_dim_layout_array(\[[^\]]*\])>", r"\1", text)
    return re.sub(r"<size = (\d+), stride = (\d+)>", r"[\1, \2]", text)


def _name(tile: Tile | None) -> str:
    assert tile is not None
    return f"%tile_{tile[0]}_{tile[1]}"


def _fifo(channel: Channel, design: Design) -> str:
    ends = [design.node(name).tile for name in (channel.producer, *channel.consumers)]
    operands = ", ".join(_name(tile) for tile in ends)
    types = ", ".join(["index"] * len(ends))
    attributes = f'sym_name = "{channel.name}", elemNumber = {channel.depth} : i32'
    layout = ", ".join(f"<size = {size}, stride = {stride}>" for size, stride in channel.layout)
    attributes += f", elemType = !aie.objectfifo<{memref(channel)}>"
    attributes += f", dimensionsToStream = #aie<bd_dim_layout_array[{layout}]>"
    return f'"aie.objectfifo"({operands}) {{{attributes}}} : ({types}) -> ()'


def _fifo_port(name: str, port: str) -> str:
    return f"{{objFifo_name = @{name}, port = {_PORTS[port]} : i32, size = 1 : i32}}"


def _acquire(channel: Channel, port: str, element: str) -> str:
    return f'{element} = "aie.objectfifo.acquire"() {_fifo_port(channel.name, port)} : () -> {memref(channel)}'


def _release(name: str, port: str) -> str:
    return f'"aie.objectfifo.release"() {_fifo_port(name, port)} : () -> ()'
