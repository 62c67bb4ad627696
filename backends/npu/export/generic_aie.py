"""The structure of a design in MLIR's generic form of the aie dialect: what a plain mlir-opt parses.

Device, tiles, object FIFOs, links and cores; no runtime sequence. What a core computes is a `neuc.fire`, since a plain
mlir-opt cannot look functions up through an aie.device it does not know. The device integers are those of
mlir-aie of 2026 (npu1 = 4, npu2 = 8), which changed in 2025: the file says so.
"""

from __future__ import annotations

from neuc.backends.npu.export.aie_cores import memref
from neuc.backends.npu.export.mlir_aie import device_of
from neuc.runtime.npu.machine import Machine, Tile
from neuc.runtime.npu.program import Channel, Design

_DEVICES = {"npu1": 4, "npu2": 8}


def device_integer(machine: Machine) -> int:
    """The AIEDevice integer: npu1 4, its partitions 5 to 7; npu2 8, its partitions 9 to 15."""
    name = device_of(machine)
    base = _DEVICES[name[:4]]
    return base if name in _DEVICES else base + machine.cols


def to_generic(design: Design, machine: Machine) -> str:
    """Generic-form text; parses with ``mlir-opt --allow-unregistered-dialect``."""
    tiles = sorted({node.tile for node in design.nodes if node.tile is not None})
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
        offsets = ", ".join(map(str, link.offsets))
        src, dst = (offsets, "") if link.mode == "join" else ("", offsets)
        attributes = f"fifoIns = [{ins}], fifoOuts = [{outs}], src_offsets = [{src}], dst_offsets = [{dst}]"
        lines.append(f'    "aie.objectfifo.link"() {{{attributes}}} : () -> ()')
    for kernel in design.kernels:
        call = f'"neuc.fire"() {{function = "{kernel.function}", kernel = "{kernel.name}"}} : () -> ()'
        lines.append(f'    %core_{kernel.name} = "aie.core"({_name(kernel.tile)}) ({{')
        lines += [f"      {call}", '      "aie.end"() : () -> ()', "    }) : (index) -> index"]
    lines.append('    "aie.end"() : () -> ()')
    return "\n".join([*lines, f"  }}) {{device = {device_integer(machine)} : i32}} : () -> ()", "}) : () -> ()", ""])


def _name(tile: Tile | None) -> str:
    assert tile is not None
    return f"%tile_{tile[0]}_{tile[1]}"


def _fifo(channel: Channel, design: Design) -> str:
    ends = [design.node(name).tile for name in (channel.producer, *channel.consumers)]
    operands = ", ".join(_name(tile) for tile in ends)
    types = ", ".join(["index"] * len(ends))
    attributes = f'sym_name = "{channel.name}", elemNumber = {channel.depth} : i32, elemType = {memref(channel)}'
    return f'"aie.objectfifo"({operands}) {{{attributes}}} : ({types}) -> ()'
