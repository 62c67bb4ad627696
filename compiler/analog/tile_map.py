"""A picture of which tile is where on the arrays of a chip."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from neuc.errors import Error, Exit
from neuc.runtime.analog.program import CrossbarProgram

_MOST_ARRAYS = 400
_PER_ROW = 8


def draw_tile_map(program: CrossbarProgram, path: Path) -> None:
    """Write the picture, in the format of the suffix (``.png``, ``.svg``, ``.pdf``).

    Raises:
        Error: NEUC-E657, matplotlib is missing, or the chip is too large to draw.
    """
    try:
        figure_module: Any = import_module("matplotlib.figure")
        patches: Any = import_module("matplotlib.patches")
    except ImportError as error:
        raise Error("NEUC-E657", "pictures need matplotlib", hint="pip install 'neuc[analog]'") from error
    arrays = 1 + max((tile.core for tile in program.tiles), default=-1)
    if not 1 <= arrays <= _MOST_ARRAYS:
        hint = f"between 1 and {_MOST_ARRAYS} arrays are drawn; give larger tiles"
        raise Error("NEUC-E657", f"a map of {arrays} arrays cannot be drawn", hint=hint, exit_code=Exit.USAGE)
    layers = list(dict.fromkeys(tile.layer for tile in program.tiles))
    colours = {layer: f"C{index % 10}" for index, layer in enumerate(layers)}
    per_row = min(_PER_ROW, arrays)
    figure = figure_module.Figure(figsize=(1.6 * per_row + 2.5, 1.7 * -(-arrays // per_row) + 0.6))
    axes = figure.subplots(-(-arrays // per_row), per_row, squeeze=False).reshape(-1)
    for array, axis in enumerate(axes):
        axis.set_axis_off()
        if array >= arrays:
            continue
        axis.set_xlim(0, program.tile_columns)
        axis.set_ylim(program.tile_rows, 0)
        axis.set_title(str(array), fontsize=7)
        axis.add_patch(patches.Rectangle((0, 0), program.tile_columns, program.tile_rows, fill=False, lw=0.8))
        for tile in program.tiles:
            if tile.core == array:
                place = (tile.column, tile.row)
                colour = colours[tile.layer]
                axis.add_patch(patches.Rectangle(place, tile.columns, tile.rows, fc=colour, ec="white", lw=0.5))
    handles = [patches.Patch(color=colours[layer], label=layer[:40]) for layer in layers[:30]]
    figure.legend(handles=handles, loc="center right", fontsize=6)
    figure.subplots_adjust(left=0.02, right=0.78, top=0.92, bottom=0.03)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise Error("NEUC-E005", f"cannot write {path}: {error}", hint="use .png, .svg or .pdf") from error
