"""`LazyArray`: an array that is made when it is read, part by part, and not kept.

A model of two billion weights is never in memory as one byte a weight: its weights are decoded from the mapped file,
packed and written a few rows at a time. What parts are made from is known to whoever makes a `LazyArray`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np

from neuc.errors import InternalError

PIECE_BYTES = 2**20
"""About so many bytes are made at a time."""


@dataclass(frozen=True, eq=False)
class LazyArray:
    """An array in C order that consists of `parts` equal runs of elements (rows of a matrix, say).

    Attributes:
        shape: its shape.
        dtype: of its elements.
        identity: SHA-256 (hex) of what it is made from and how: equal identities are equal arrays.
        parts: how many parts there are.
        read: the elements of parts `begin` to `end`, in any shape; called from several threads at once.
        cost: bytes that reading handles for each byte it gives, so that a piece stays small.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    identity: str
    parts: int
    read: Callable[[int, int], np.ndarray]
    cost: int = 1

    def __post_init__(self) -> None:
        if self.parts < 1 or math.prod(self.shape) % self.parts:
            raise InternalError(f"{self.parts} parts of an array {list(self.shape)}")

    @property
    def part_size(self) -> int:
        """Elements of a part."""
        return math.prod(self.shape) // self.parts

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def part(self, begin: int, end: int) -> np.ndarray:
        """Parts `begin` to `end`, [end - begin, part_size]."""
        found = self.read(begin, end)
        if found.dtype != self.dtype or found.size != (end - begin) * self.part_size:
            raise InternalError(f"parts {begin} to {end} of {list(self.shape)} are {found.dtype}{list(found.shape)}")
        return found.reshape(end - begin, self.part_size)

    def pieces(self) -> Sequence[tuple[int, Callable[[], np.ndarray]]]:
        """The whole array as consecutive pieces of some MiB: bytes of each, and what makes it."""
        _keep_freed_memory()
        row = self.part_size * self.dtype.itemsize
        step = max(1, PIECE_BYTES // (row * self.cost))
        cuts = [(begin, min(begin + step, self.parts)) for begin in range(0, self.parts, step)]
        return [((end - begin) * row, lambda b=begin, e=end: self.part(b, e)) for begin, end in cuts]

    def array(self) -> np.ndarray:
        """The whole array, read-only, made on all CPUs."""
        whole = np.empty((self.parts, self.part_size), self.dtype)
        flat, position = whole.reshape(-1), 0
        jobs: list[tuple[int, Callable[[], np.ndarray]]] = []
        for nbytes, make in self.pieces():
            jobs.append((position, make))
            position += nbytes // self.dtype.itemsize

        def fill(job: tuple[int, Callable[[], np.ndarray]]) -> None:
            start, make = job
            made = make().reshape(-1)
            flat[start : start + made.size] = made

        if len(jobs) == 1:
            fill(jobs[0])
        else:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(fill, jobs))
        result = whole.reshape(self.shape)
        result.flags.writeable = False
        return result


@cache
def _keep_freed_memory() -> None:
    """Have glibc's malloc use the memory of one piece for the next.

    It returns large blocks to the system when they are freed, and clearing fresh pages takes as long as packing. Once a
    block of nearly 32 MiB has been freed, blocks up to that size are kept; other allocators do what they do.
    """
    np.empty(31 * 2**20, np.uint8)
