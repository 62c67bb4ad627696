"""Layers that a machine has in forms of its own, for the compile report: synapses of spiking networks, crossbar tiles.

Dense and ternary layers are `passes/analysis/ternary_layers.py`'s.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from neuc.compiler.report import LayerRow
from neuc.dialects.crossbar import AccumulateOp, AdcOp, MvmOp
from neuc.dialects.crossbar_tiles import ProgramOp
from neuc.dialects.crossbar_types import tile_of
from neuc.dialects.dims import product
from neuc.dialects.spike_synapses import ConvOp, LinearOp, SynapseOp
from neuc.dialects.store import ConstantOp, dims_of, element_of
from neuc.dialects.ternary_weights import defining_weight
from neuc.passes.analysis.ternary_layers import layers, ternary_bytes, ulp_of

_SYNAPSES = (LinearOp, ConvOp)


def with_synapses(module: ModuleOp, rows: list[LayerRow]) -> list[LayerRow]:
    """The rows and those of layers whose weights meet spikes, in program order."""
    named = list(layers(module, *_SYNAPSES))
    place = {name: i for i, (name, _) in enumerate(named)}
    synapses = [_synapse(name, op) for name, op in named if isinstance(op, SynapseOp)]
    together = [*rows, *(row for row in synapses if row is not None)]
    return sorted(together, key=lambda row: place.get(row.node, len(place)))


def on_tiles(module: ModuleOp, rows: list[LayerRow]) -> list[LayerRow]:
    """The rows, with what those that are on crossbars are there: devices, tiles and cells, in `LayerRow.tiles`."""
    placed = {name: _tiles(op) for name, op in layers(module, AccumulateOp) if isinstance(op, AccumulateOp)}
    return [replace(row, tiles=placed[row.node]) if placed.get(row.node) else row for row in rows]


def _synapse(name: str, op: SynapseOp) -> LayerRow | None:
    """The row of a layer whose inputs are spikes; None if its weights are no constants."""
    if op.trits is not None:
        type_, weight = op.trits, defining_weight(op.weight)
        n, k, ulp = type_.rows, type_.columns, ulp_of(weight)
        sqnr = None if weight.sqnr is None else weight.sqnr.value.data
        return LayerRow(
            node=name,
            op=op.name,
            shape=(n, k),
            ternary=True,
            encoding="f32",
            planes=type_.plane_count,
            scale=str(type_.scale),
            bytes_before=4 * n * k,
            bytes_after=ternary_bytes(type_),
            sqnr_db=sqnr,
            source="fitted" if ulp is None else "recognised",
            levels=type_.level_set,
            ulp=ulp,
        )
    if not isinstance(op.weight.owner, ConstantOp):
        return None
    dims = dims_of(op.weight)
    n, k = dims[0].value, product(dims[1:]).value
    int8 = str(element_of(op.weight)) == "i8"
    size = n * k if int8 else 4 * n * k
    return LayerRow(name, op.name, (n, k), False, "i8" if int8 else "f32", 0, "", size, size, None)


def _tiles(op: AccumulateOp) -> str:
    """``pcm crossbar, 2 tiles, 4096 pairs of devices``; empty if no part comes from a tile."""
    tiles = [tile for part in op.parts if isinstance(tile := _programmed(part.owner), ProgramOp)]
    if not tiles:
        return ""
    many = f"{len(tiles)} tile{'' if len(tiles) == 1 else 's'}"
    if tiles[0].device.data == "mesh":
        return f"photonic mesh, {many}"
    count = Counter[str]()
    for tile in tiles:
        type_ = tile_of(tile.result)
        count[type_.cells.data] += type_.rows.data * type_.columns.data
    cells = ", ".join(f"{n} {'pairs of devices' if kind == 'differential' else 'devices'}" for kind, n in count.items())
    return f"{tiles[0].device.data} crossbar, {many}, {cells}"


def _programmed(op: object) -> Operation | None:
    """The tile that a converter's currents come from."""
    currents = op.currents.owner if isinstance(op, AdcOp) else None
    found = currents.tile.owner if isinstance(currents, MvmOp) else None
    while isinstance(found, Operation) and not isinstance(found, ProgramOp) and found.operands:
        found = found.operands[0].owner
    return found if isinstance(found, Operation) else None
