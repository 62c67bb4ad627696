"""Files for and from a lab: conductances of tiles as CSV or HDF5, netlists of tiles, tables of measured devices."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from neuc.compiler.files import replacing
from neuc.errors import Error, Exit
from neuc.runtime.analog.device_table import COLUMNS
from neuc.runtime.analog.drawing import AnalogState
from neuc.runtime.analog.program import CrossbarProgram, TileEntry
from neuc.runtime.analog.spice import netlist
from neuc.runtime.analog.tiles import Chip, ProgrammedTile
from neuc.runtime.artifact import Artifact

_MICRO = 1e-6
_LEAST_SAMPLES = 8
"""Devices measured at one target and time, below which a standard deviation means little."""


def open_state(artifact: Path, time: float, seed: int) -> AnalogState:
    """What the tiles of an artifact hold at a time, in a draw.

    Raises:
        Error: NEUC-E655, it has no simulated devices; NEUC-E644 or E648, time or seed make no sense.
    """
    opened = Artifact.open(artifact)
    program = CrossbarProgram.from_manifest(opened.manifest)
    if program is None:
        hint = "compile for xbar-pcm or another crossbar target"
        raise Error("NEUC-E655", f"{artifact} has no simulated devices", hint=hint, exit_code=Exit.USAGE)
    return AnalogState(program, opened.weights, time, seed)


def write_conductances(state: AnalogState, path: Path) -> None:
    """Write G+ and G- (µS) of every tile: ``.csv`` with a line for each cell, or ``.h5`` with a group for each tile.

    Raises:
        Error: NEUC-E658, the suffix is neither, or h5py is missing.
    """
    if path.suffix == ".csv":
        with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["tile", "layer", "row", "column", *_half_names(state)])
            for tile, halves in _tiles(state):
                for row, column in np.ndindex(tile.rows, tile.columns):
                    values = [f"{half[row, column]:.6g}" for half in halves]
                    writer.writerow([tile.number, tile.layer, row, column, *values])
        return
    if path.suffix not in (".h5", ".hdf5"):
        raise Error("NEUC-E658", f"{path}: unknown suffix", hint="use .csv or .h5", exit_code=Exit.USAGE)
    try:
        h5py: Any = import_module("h5py")
    except ImportError as error:
        raise Error("NEUC-E658", "HDF5 files need h5py", hint="pip install 'neuc[analog]', or write .csv") from error
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        chip = _chip(state)
        file.attrs.update(device=chip.device.name, source=chip.device.source, time_s=state.time, seed=state.seed)
        for tile, halves in _tiles(state):
            group = file.create_group(f"tile{tile.number}")
            group.attrs.update(layer=tile.layer, core=tile.core, row=tile.row, column=tile.column, unit="uS")
            for name, half in zip(_half_names(state), halves, strict=True):
                group.create_dataset(name, data=half.astype(np.float32), compression="gzip")


def tile_netlist(state: AnalogState, number: int, half: int, r_word: float, r_bit: float, volts: float) -> str:
    """The netlist of the devices of one polarity of a tile, all inputs at `volts`.

    Raises:
        Error: NEUC-E658, there is no such tile or half; NEUC-E646, the network makes no sense.
    """
    tile = next((tile for tile in state.program.tiles if tile.number == number), None)
    if tile is None or not 0 <= half < _chip(state).halves:
        count = len(state.program.tiles)
        hint = f"tiles are 0 … {count - 1}, each has {_chip(state).halves} arrays of devices"
        raise Error("NEUC-E658", f"there is no array {half} of tile {number}", hint=hint, exit_code=Exit.USAGE)
    conductance = _halves(state, tile)[half] * _MICRO
    return netlist(conductance, r_word, r_bit, np.full(tile.rows, volts))


def fit_table(measurements: Path) -> list[dict[str, float]]:
    """Mean and standard deviation for each target and time of single measurements.

    Args:
        measurements: CSV with the columns ``target`` (µS), ``time`` (s) and ``conductance`` (µS), a line for each read.

    Returns:
        Rows of the table that `device=FILE.csv` of crossbar targets takes.

    Raises:
        Error: NEUC-E649, the file holds no such measurements, or too few of them.
    """
    reads: dict[tuple[float, float], list[float]] = {}
    names = ("target", "time", "conductance")
    try:
        with measurements.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in names if name not in (reader.fieldnames or ())]
            if missing:
                raise _bad(measurements, f"has no column {missing[0]!r}")
            for row in reader:
                target, time, conductance = (float(row[name]) for name in names)
                reads.setdefault((time, target), []).append(conductance)
    except (OSError, UnicodeDecodeError, csv.Error, TypeError, ValueError) as error:
        raise _bad(measurements, f"cannot be read ({error})") from error
    few = [key for key, values in reads.items() if len(values) < _LEAST_SAMPLES]
    if few or not reads:
        where = f" for {few[0][1]:g} µS at {few[0][0]:g} s" if few else ""
        raise _bad(measurements, f"holds fewer than {_LEAST_SAMPLES} measurements{where}")
    values = [value for found in reads.values() for value in found] + [n for key in reads for n in key]
    if not np.isfinite(values).all() or min(values) < 0:
        raise _bad(measurements, "holds a negative number, NaN or infinity")
    times, targets = ({key[i] for key in reads} for i in (0, 1))
    if len(targets) < 2 or len(reads) != len(times) * len(targets):
        raise _bad(measurements, "needs two targets or more, and each of them at each time")
    return [
        {"target": target, "time": time, "mean": float(np.mean(found)), "std": float(np.std(found, ddof=1))}
        for (time, target), found in sorted(reads.items())
    ]


def write_table(rows: list[dict[str, float]], path: Path) -> None:
    """Write a table that `neuc.runtime.analog.device_table.read_table` reads."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows({name: f"{row[name]:.9g}" for name in COLUMNS} for row in rows)


def _half_names(state: AnalogState) -> list[str]:
    return ["g_plus", "g_minus"] if _chip(state).halves == 2 else ["g"]


def _tiles(state: AnalogState) -> Iterator[tuple[TileEntry, list[np.ndarray]]]:
    for tile in state.program.tiles:
        yield tile, _halves(state, tile)


def _halves(state: AnalogState, tile: TileEntry) -> list[np.ndarray]:
    programmed = state.programmed(tile)
    assert isinstance(programmed, ProgrammedTile)
    return [np.asarray(half) for half in programmed.conductances(state.time)]


def _chip(state: AnalogState) -> Chip:
    chip = state.program.chip
    if not isinstance(chip, Chip):
        hint = "photonic meshes hold phases, not conductances"
        raise Error("NEUC-E658", "the program is for no memory devices", hint=hint, exit_code=Exit.USAGE)
    return chip


def _bad(path: Path, why: str) -> Error:
    hint = "write a line for each read, with the columns target (µS), time (s) and conductance (µS)"
    return Error("NEUC-E649", f"{path} {why}", hint=hint)
