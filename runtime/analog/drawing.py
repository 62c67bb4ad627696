"""What simulated tiles multiply with: arrays that a session's kernels read, filled for a draw and a time."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error, Exit
from neuc.runtime.analog.devices import Floats
from neuc.runtime.analog.program import STATE, CrossbarProgram, TileEntry
from neuc.runtime.analog.streams import Purpose, stream
from neuc.runtime.analog.tiles import check_time
from neuc.runtime.cpu_features import available_cpus
from neuc.runtime.native.pool import aligned_bytes

Arrays = Mapping[str, NDArray[np.generic]]


class Programmed(Protocol):
    """A tile that was programmed: memory devices, or photonic meshes."""

    def weights(self, time: float) -> Floats:
        """The weights it multiplies with `time` seconds later, [rows, columns]."""
        ...


_KEPT_WEIGHTS = 4_000_000
"""Programs up to so many weights keep their programmed devices between times."""
_LEAST_READING = 1e-4
"""Least mean output that drift is measured by."""


class AnalogState:
    """The conductances that a session computes with: one draw of the chip at one time after programming.

    Kernels read the arrays in place, so `set` must not be called while a run is going on.

    Attributes:
        program: the crossbar program.
        arrays: what kernels read, by name.
        time: seconds after programming.
        seed: the draw.
    """

    def __init__(self, program: CrossbarProgram, asked: Arrays, time: float = 0.0, seed: int = 0) -> None:
        """Take what tiles were asked for from `asked`, the artifact's weights.

        Raises:
            Error: NEUC-E645, arrays are missing or have another shape.
        """
        self.program = program
        self._asked = {tile.number: _asked_of(tile, asked) for tile in program.tiles}
        self._gains = {tile.number: np.asarray(asked[tile.gains], np.float32) for tile in program.tiles}
        names = [name for tile in program.tiles for name in (tile.weights, tile.gains)]
        self.arrays: dict[str, NDArray[np.generic]] = {name: _room_for(asked[name]) for name in names}
        if STATE in asked:
            self.arrays[STATE] = _room_for(asked[STATE])
        self._programmed: dict[int, Programmed] = {}
        self._readings: dict[int, Floats] = {}
        self.time, self.seed = time, -1
        self.set(time, seed)

    def set(self, time: float = 0.0, seed: int | None = None) -> None:
        """Go to another time, or to another draw.

        Args:
            time: seconds after programming.
            seed: which draw, 0 … 2^32 - 1; the present one if not given.

        Raises:
            Error: NEUC-E644, the time makes no sense; NEUC-E648, the seed does not.
        """
        check_time(time)
        chosen = self.seed if seed is None else seed
        if not 0 <= chosen < 2**32:
            raise Error("NEUC-E648", f"seed {chosen} makes no sense", hint="use 0 … 2^32 - 1", exit_code=Exit.USAGE)
        if chosen != self.seed:
            self._programmed, self._readings = {}, {}
        self.time, self.seed = time, chosen
        with ThreadPoolExecutor(available_cpus()) as pool:
            list(pool.map(self._fill, self.program.tiles))
        if STATE in self.arrays:
            self.arrays[STATE][...] = np.array([chosen, 0], np.int64)

    def begin_run(self) -> None:
        """Let the noise of the next run be another one."""
        if STATE in self.arrays:
            self.arrays[STATE][1] += 1  # pyright: ignore[reportCallIssue, reportArgumentType] - it is i64

    def programmed(self, tile: TileEntry) -> Programmed:
        """The tile as programmed in this draw."""
        found = self._programmed.get(tile.number)
        if found is None:
            found = self.program.chip.program(self._asked[tile.number], tile.number, self.seed)
            if sum(t.rows * t.columns for t in self.program.tiles) <= _KEPT_WEIGHTS:
                self._programmed[tile.number] = found
        return found

    def _fill(self, tile: TileEntry) -> None:
        devices = self.programmed(tile)
        held = devices.weights(self.time)
        panels = self.arrays[tile.weights]
        width = panels.shape[-1]
        padded = np.zeros((tile.rows, len(panels) * width), np.float32)
        padded[:, : tile.columns] = held
        panels[...] = np.moveaxis(padded.reshape(tile.rows, -1, width), 1, 0)
        gains = self.arrays[tile.gains]
        gains[...] = self._gains[tile.number]
        gains[: tile.columns] *= self._compensation(tile, devices, held)  # pyright: ignore[reportOperatorIssue]

    def _compensation(self, tile: TileEntry, devices: Programmed, held: Floats) -> Floats:
        """Factors that undo the drift of the outputs' mean, found by reading all weights through the converters."""
        if tile.compensation == "none":
            return np.ones(1)
        before = self._readings.get(tile.number)
        if before is None:
            before = self._readings[tile.number] = self._reading(tile, devices.weights(0.0), 0.0)
        return before / np.maximum(self._reading(tile, held, self.time), _LEAST_READING)

    def _reading(self, tile: TileEntry, held: Floats, time: float) -> Floats:
        """Mean output for one-hot inputs, of the tile or of each column."""
        rng = stream(self.seed, tile.number, Purpose.CALIBRATION, time)
        y = held
        if tile.out_noise or tile.read_noise:
            std = np.sqrt(tile.out_noise**2 + tile.read_noise**2 * np.abs(held))
            y = held + std * rng.standard_normal(held.shape)
        if tile.adc_levels:
            step = 2 * tile.adc_bound / tile.adc_levels
            y = np.clip(np.rint(y / step) * step, -tile.adc_bound, tile.adc_bound)
        return np.mean(np.abs(y), axis=0 if tile.compensation == "column" else None)


def _asked_of(tile: TileEntry, asked: Arrays) -> Floats:
    """The weights a tile was asked for, [rows, columns], out of the kernels' panels."""
    for name in (tile.weights, tile.gains):
        if name not in asked:
            raise _damaged(f"weight {name!r} is missing")
    panels = np.asarray(asked[tile.weights])
    width = panels.shape[-1] if panels.ndim == 3 else 0
    if panels.ndim != 3 or panels.shape[1] != tile.rows or panels.shape[0] * width < tile.columns or tile.columns < 1:
        raise _damaged(f"weight {tile.weights!r} has shape {list(panels.shape)}")
    if np.shape(asked[tile.gains]) != (panels.shape[0] * width,):
        raise _damaged(f"weight {tile.gains!r} has shape {list(np.shape(asked[tile.gains]))}")
    flat = np.moveaxis(panels, 0, 1).reshape(tile.rows, -1)
    return flat[:, : tile.columns].astype(np.float64)


def _damaged(why: str) -> Error:
    return Error("NEUC-E645", f"crossbar program: {why}", hint="the artifact is damaged; compile the model again")


def _room_for(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Aligned, writable memory of the same shape and type."""
    return aligned_bytes(array.nbytes).view(array.dtype).reshape(array.shape)
