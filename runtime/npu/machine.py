"""The machine model: what an array of tiles can do and how long it takes, as frozen data.

Placer, router, checker, simulator and pictures read nothing else. Every figure has a provenance; no figure stands in
code. How a machine is read and what is refused is in `machine_file.py`; searching or simulating is not this file's
business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from neuc.runtime.checked_json import dump_json

Tile: TypeAlias = tuple[int, int]
"""(column, row); row 0 is at the bottom, where the array meets the host's memory."""

SIDES: Mapping[str, Tile] = {"North": (0, 1), "South": (0, -1), "East": (1, 0), "West": (-1, 0)}
OPPOSITE: Mapping[str, str] = {"North": "South", "South": "North", "East": "West", "West": "East"}


@dataclass(frozen=True)
class Dma:
    """The DMA engine of a tile: channels each way, buffer descriptors and what one can hold.

    ``bytes_per_cycle`` is the stream width of one channel. With ``parity_pools`` the first half of the descriptors
    belongs to even channels and the second half to odd ones.
    """

    s2mm: int
    mm2s: int
    dims: int
    bds: int
    parity_pools: bool
    queue_depth: int
    max_wrap: int
    max_stride: int
    max_words: int
    max_repeat: int
    bytes_per_cycle: int


@dataclass(frozen=True)
class TileClass:
    """One kind of tile.

    ``ports`` gives for each bundle (masters, slaves): ways out of the switch, ways into it. ``straight_only`` switches
    join North and South at equal indices alone. ``shared_memory`` lists neighbours, as (columns, rows) away, whose data
    memory a core reads and writes; (0, 0), its own, is always among them.
    """

    kind: str
    memory_bytes: int
    banks: int
    reserved_bytes: int
    program_bytes: int
    locks: int
    lock_max: int
    dma: Dma | None
    ports: Mapping[str, tuple[int, int]]
    straight_only: bool
    shared_memory: tuple[Tile, ...]


@dataclass(frozen=True)
class GemmRate:
    """Cycles of a GEMM kernel on m x k x n: m·n·(k / peak + per_output); one dtype combination."""

    peak_macs_per_cycle: float
    cycles_per_output: float


@dataclass(frozen=True)
class Sku:
    """A product with this array: its clock in the mode measurements were made in, and its memory.

    Reads and writes together reach ``ddr_bytes_per_second``, reads alone no more than ``read_bytes_per_second``.
    """

    clock_hz: float
    ddr_bytes_per_second: float
    dispatch_us: float
    read_bytes_per_second: float


@dataclass(frozen=True)
class Machine:
    """An array of tiles and its host.

    ``timing``, ``host``, ``energy`` and ``ddr`` hold figures by name, units in the names (cycles unless said);
    ``extension`` holds what only machines of one family have. ``provenance`` maps a dotted field, or a prefix of
    fields, to (mark, source).
    """

    name: str
    summary: str
    family: str
    generation: int
    cols: int
    row_classes: tuple[str, ...]
    classes: Mapping[str, TileClass]
    clock_hz: float
    timing: Mapping[str, float]
    ddr: Mapping[str, float]
    host: Mapping[str, float]
    energy: Mapping[str, float]
    gemm: Mapping[str, GemmRate]
    libraries: Mapping[str, Mapping[str, GemmRate]]
    skus: Mapping[str, Sku]
    extension: Mapping[str, float]
    provenance: Mapping[str, tuple[str, str]]
    data: Mapping[str, object] = field(repr=False, compare=False)

    def __hash__(self) -> int:
        """Equal machines have one name."""
        return hash((self.name, self.cols, self.row_classes))

    @property
    def rows(self) -> int:
        """Rows of the array, the shim row included."""
        return len(self.row_classes)

    def contains(self, tile: Tile) -> bool:
        """Whether the array has such a tile."""
        return 0 <= tile[0] < self.cols and 0 <= tile[1] < self.rows

    def tile_class(self, tile: Tile) -> TileClass:
        """The class of a tile of the array."""
        return self.classes[self.row_classes[tile[1]]]

    def tiles(self, kind: str) -> list[Tile]:
        """All tiles of a kind, column by column from the bottom."""
        return [(c, r) for c in range(self.cols) for r in range(self.rows) if self.tile_class((c, r)).kind == kind]

    def lanes(self, tile: Tile, side: str) -> int:
        """Circuits that can leave `tile` towards `side`; 0 at the edge of the array."""
        step = SIDES[side]
        beyond = (tile[0] + step[0], tile[1] + step[1])
        if not self.contains(beyond):
            return 0
        out = self.tile_class(tile).ports.get(side, (0, 0))[0]
        into = self.tile_class(beyond).ports.get(OPPOSITE[side], (0, 0))[1]
        return min(out, into)

    def digest(self) -> str:
        """SHA-256 of the machine's data, for artifacts and predictions."""
        return hashlib.sha256(dump_json(self.data)).hexdigest()

    def mark_of(self, path: str) -> tuple[str, str]:
        """Provenance (mark, source) of a dotted field: its own entry, or that of the longest prefix."""
        parts = path.split(".")
        for length in range(len(parts), 0, -1):
            found = self.provenance.get(".".join(parts[:length]))
            if found is not None:
                return found
        raise KeyError(path)
