"""What a form that shows tiles needs of a design: every node on a tile of its kind, one kernel a core."""

from __future__ import annotations

from neuc.errors import Error
from neuc.runtime.npu.machine import Machine, Tile
from neuc.runtime.npu.program import Design, Kernel, Link, Node


def placed(design: Design, machine: Machine) -> Design:
    """The design, if it has a place on this machine.

    Raises:
        Error: NEUC-E683, naming nodes without a tile; NEUC-E678, a node's tile does not exist, is of another kind, or
            runs another kernel.
    """
    missing = [node.name for node in design.nodes if node.tile is None]
    if missing:
        some = ", ".join(missing[:4]) + ", …" * (len(missing) > 4)
        hint = "give them one (tile = #npu.numbers<column, row>), or let `neuc opt -p place-dataflow` place the graph"
        raise Error("NEUC-E683", f"{design.name} is not placed: {some} on no tile", hint=hint)
    taken: dict[Tile, str] = {}
    for node in design.nodes:
        tile = node.tile
        assert tile is not None
        why = _wrong(node, tile, machine)
        if isinstance(node, Kernel) and why is None:
            other = taken.setdefault(tile, node.name)
            why = None if other == node.name else f"which runs {other}"
        if why is not None:
            hint = "correct its tile, or let `neuc opt -p place-dataflow` place the graph"
            raise Error("NEUC-E678", f"{design.name}: {node.name} is on tile {tile}, {why}", hint=hint)
    return design


def _wrong(node: Node, tile: Tile, machine: Machine) -> str | None:
    """Why a node cannot be there."""
    column, row = tile
    if not (0 <= column < machine.cols and 0 <= row < machine.rows):
        return f"outside {machine.name} of {machine.cols} x {machine.rows}"
    wanted = "core" if isinstance(node, Kernel) else "mem" if isinstance(node, Link) else "shim"
    kind = machine.tile_class(tile).kind
    return None if kind == wanted else f"a {kind} tile, not a {wanted} tile"
