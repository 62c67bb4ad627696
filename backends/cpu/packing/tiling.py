"""How a matrix of R rows and K columns is cut into blocks, chunks and steps: what all packed layouts share.

The layouts (`lut.py`, `i2.py`) say what the bytes of one step are; the order of steps in memory is said here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuc.errors import InternalError


@dataclass(frozen=True)
class Tiling:
    """A matrix in memory order: row blocks, then scale segments, then column blocks, then chunks, then steps.

    A *step* is what one pass of a kernel's inner loop reads: `step_bytes` bytes for `chunk_rows` rows by
    `step_columns` columns. A *chunk* is the rows of one step; `block_rows` (BM) rows are cut into chunks, and
    `block_steps` steps make a column block (BK). A *segment* is the columns that share a scale; each is padded to
    whole steps with zero weights, which may overlap the next segment's activations.

    Attributes:
        rows: R, the rows of all planes.
        columns: K.
        segment: columns per scale; K for one scale a row.
        block_rows: rows per block.
        chunk_rows: rows per step.
        block_steps: steps per column block; the last block of a segment may have fewer.
        step_columns: columns per step.
        step_bytes: bytes per step.
    """

    rows: int
    columns: int
    segment: int
    block_rows: int
    chunk_rows: int
    block_steps: int
    step_columns: int
    step_bytes: int

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.segment, self.block_rows, self.block_steps) < 1:
            raise InternalError(f"a tiling needs positive sizes: {self}")

    @property
    def row_blocks(self) -> int:
        """Blocks of rows: the work units of one block of activations."""
        return -(-self.rows // self.block_rows)

    @property
    def segments(self) -> int:
        """G, the scales per row."""
        return -(-self.columns // self.segment)

    @property
    def segment_steps(self) -> int:
        """Steps per segment, the same for all."""
        return -(-self.segment // self.step_columns)

    @property
    def chunks(self) -> int:
        """Chunks per row block."""
        return -(-self.block_rows // self.chunk_rows)

    @property
    def padded_block_rows(self) -> int:
        """Rows per block with those that fill up the last chunk."""
        return self.chunks * self.chunk_rows

    @property
    def padded_columns(self) -> int:
        """Columns that kernels read, K and what fills up the last step."""
        return (self.segments - 1) * self.segment + self.segment_steps * self.step_columns

    @property
    def segment_bytes(self) -> int:
        """Bytes of one segment of one row block."""
        return self.chunks * self.segment_steps * self.step_bytes

    @property
    def row_block_bytes(self) -> int:
        """Bytes of one row block."""
        return self.segments * self.segment_bytes

    @property
    def nbytes(self) -> int:
        """Bytes of the packed matrix."""
        return self.row_blocks * self.row_block_bytes

    def cut(self, matrix: np.ndarray) -> np.ndarray:
        """R x K values as [row block, segment, chunk, step, row in chunk, column in step], filled up with zeros."""
        rows, columns = matrix.shape
        if (rows, columns) != (self.rows, self.columns):
            raise InternalError(f"{rows}x{columns} values for a tiling of {self.rows}x{self.columns}")
        by_block = np.zeros((self.row_blocks * self.block_rows, self.segments * self.segment), matrix.dtype)
        by_block[:rows, :columns] = matrix
        by_block = by_block.reshape(self.row_blocks, self.block_rows, self.segments, self.segment)
        steps = self.segment_steps * self.step_columns
        padded = np.zeros((self.row_blocks, self.padded_block_rows, self.segments, steps), matrix.dtype)
        padded[:, : self.block_rows, :, : self.segment] = by_block
        split = padded.reshape(
            self.row_blocks, self.chunks, self.chunk_rows, self.segments, self.segment_steps, self.step_columns
        )
        return split.transpose(0, 3, 1, 4, 2, 5)

    def uncut(self, pieces: np.ndarray) -> np.ndarray:
        """The inverse of `cut`."""
        steps = self.segment_steps * self.step_columns
        whole = pieces.transpose(0, 2, 4, 1, 3, 5).reshape(self.row_blocks, -1, self.segments, steps)
        kept = whole[:, : self.block_rows, :, : self.segment]
        return np.ascontiguousarray(kept.reshape(-1, self.segments * self.segment)[: self.rows, : self.columns])

    def arrange(self, steps: np.ndarray) -> np.ndarray:
        """Bytes [row block, segment, chunk, step, byte] in memory order, flat."""
        blocks = [
            steps[:, :, :, first : first + self.block_steps].reshape(self.row_blocks, self.segments, -1)
            for first in range(0, self.segment_steps, self.block_steps)
        ]
        return (np.concatenate(blocks, axis=2) if len(blocks) > 1 else blocks[0]).reshape(-1)

    def disarrange(self, data: np.ndarray) -> np.ndarray:
        """The inverse of `arrange`."""
        whole = data.reshape(self.row_blocks, self.segments, -1)
        blocks: list[np.ndarray] = []
        at = 0
        for first in range(0, self.segment_steps, self.block_steps):
            count = min(self.block_steps, self.segment_steps - first)
            size = self.chunks * count * self.step_bytes
            block = whole[:, :, at : at + size]
            blocks.append(block.reshape(self.row_blocks, self.segments, self.chunks, count, self.step_bytes))
            at += size
        return np.concatenate(blocks, axis=3)


def tiles_per_chunk(block_rows: int) -> int:
    """How many tiles of 16 rows a kernel takes at a time: 4, 2 or 1, the most that divide a block."""
    return next(tiles for tiles in (4, 2, 1) if block_rows % (16 * tiles) == 0 or tiles == 1)
