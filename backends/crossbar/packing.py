"""Packing tiles into arrays: rectangles on shelves, the highest first. Tiles on one array take turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Place:
    """Where a tile is.

    Attributes:
        array: which array.
        row: its first input line there.
        column: its first output line there.
    """

    array: int
    row: int
    column: int


@dataclass
class _Shelf:
    """Tiles side by side; the first is the highest."""

    array: int
    row: int
    height: int
    used: int = 0


@dataclass
class _Arrays:
    rows: int
    columns: int
    shelves: list[_Shelf] = field(default_factory=list[_Shelf])
    heights: list[int] = field(default_factory=list[int])

    def place(self, rows: int, columns: int) -> Place:
        """The first shelf with room, else a new shelf, else a new array."""
        for shelf in self.shelves:
            if rows <= shelf.height and shelf.used + columns <= self.columns:
                return self._on(shelf, columns)
        for array, height in enumerate(self.heights):
            if height + rows <= self.rows:
                return self._on(self._shelf(array, rows), columns)
        self.heights.append(0)
        return self._on(self._shelf(len(self.heights) - 1, rows), columns)

    def _shelf(self, array: int, rows: int) -> _Shelf:
        made = _Shelf(array, self.heights[array], rows)
        self.heights[array] += rows
        self.shelves.append(made)
        return made

    def _on(self, shelf: _Shelf, columns: int) -> Place:
        place = Place(shelf.array, shelf.row, shelf.used)
        shelf.used += columns
        return place


def pack(tiles: Sequence[tuple[int, int]], rows: int, columns: int) -> list[Place]:
    """Where each of `tiles` (rows, columns) goes on arrays of rows x columns; first fit, by falling height."""
    arrays = _Arrays(rows, columns)
    places: dict[int, Place] = {}
    for index in sorted(range(len(tiles)), key=lambda i: (-tiles[i][0], -tiles[i][1], i)):
        places[index] = arrays.place(*tiles[index])
    return [places[index] for index in range(len(tiles))]
