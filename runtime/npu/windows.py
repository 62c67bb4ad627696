"""Windows of an image as tiles of A, cut by transfers from host memory: what would be im2col, without its matrix.

The image lies in host memory pixel by pixel, channels of a pixel together, with the convolution's pads. A token of A is
a rectangle of output pixels (whose lines a memory tile may share out among cores). For each line of the kernel its rows
are runs of kernel width x channels, which overlap; steps of k bytes of such runs are one task of a shim's DMA: (step,
line, pixel, byte), as many dimensions as it has. Bytes behind a run's end meet weights of zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from neuc.runtime.npu.gemm_plan import GemmPlan
from neuc.runtime.npu.program import Transfer

_WORD = 4


@dataclass(frozen=True)
class Window:
    """A 2-D convolution's window: channels of the image, kernel, strides, pads (begins, then ends)."""

    channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]

    @property
    def pixel(self) -> int:
        """Bytes of a pixel in host memory: channels, filled up to whole words."""
        return _up(self.channels, _WORD)

    def run(self, k: int) -> int:
        """Bytes of a line of the kernel, filled up to whole steps of k."""
        return _up(self.kernel[1] * self.pixel, k)

    def weights(self, rows: NDArray[np.int8], k: int) -> NDArray[np.int8]:
        """Weights [N, channels · kernel] in the order of the steps: [N, kernel lines · run]."""
        (lines, across), count = self.kernel, len(rows)
        by_pixel = np.zeros((count, lines, across, self.pixel), np.int8)
        by_pixel[..., : self.channels] = rows.reshape(count, self.channels, lines, across).transpose(0, 2, 3, 1)
        runs = np.zeros((count, lines, self.run(k)), np.int8)
        runs[..., : across * self.pixel] = by_pixel.reshape(count, lines, -1)
        return runs.reshape(count, -1)


@dataclass(frozen=True)
class Image:
    """A window's images of one size, and the rectangle of output pixels, ``tile``, that a token of A is."""

    window: Window
    batch: int
    out: tuple[int, int]
    tile: tuple[int, int]

    @staticmethod
    def of(window: Window, shape: tuple[int, ...], plan: GemmPlan) -> Image:
        """Images [batch, channels, height, width], a token's rectangle being that which leaves the least over."""
        (lines, across), (down, right) = window.kernel, window.strides
        top, left, bottom, end = window.pads
        out = ((shape[2] + top + bottom - lines) // down + 1, (shape[3] + left + end - across) // right + 1)
        return Image(window, shape[0], out, _rectangle(out, plan.m, plan.tiles_of_a))

    @property
    def tiles(self) -> tuple[int, int]:
        """Rectangles of one image, down and across."""
        return -(-self.out[0] // self.tile[0]), -(-self.out[1] // self.tile[1])

    @property
    def rows(self) -> int:
        """Rows of A: pixels of all rectangles."""
        return self.batch * self.tiles[0] * self.tiles[1] * self.tile[0] * self.tile[1]

    @property
    def extent(self) -> tuple[int, int]:
        """Lines and pixels of a line of one image in host memory: what the rectangles' windows reach."""
        return (
            (self.tiles[0] * self.tile[0] - 1) * self.window.strides[0] + self.window.kernel[0],
            (self.tiles[1] * self.tile[1] - 1) * self.window.strides[1] + self.window.kernel[1],
        )

    def columns(self, k: int) -> int:
        """Columns of A: the kernel's lines, each in whole steps of k."""
        return self.window.kernel[0] * self.window.run(k)

    def nbytes(self, k: int) -> int:
        """Bytes of the images in host memory, with what steps may read behind the last pixel."""
        lines, pixels = self.extent
        return self.batch * lines * pixels * self.window.pixel + self.window.run(k)

    def laid_out(self, q: NDArray[np.int8], k: int) -> NDArray[np.int8]:
        """Codes [batch, channels, height, width] as they lie in host memory."""
        (lines, pixels), window = self.extent, self.window
        top, left = window.pads[:2]
        whole = np.zeros((self.batch, lines, pixels, window.pixel), np.int8)
        part = q.transpose(0, 2, 3, 1)[:, : lines - top, : pixels - left]
        whole[:, top : top + part.shape[1], left : left + part.shape[2], : window.channels] = part
        return np.concatenate([whole.reshape(-1), np.zeros(window.run(k), np.int8)])

    def pixels(self, rows: NDArray[np.generic]) -> NDArray[np.generic]:
        """Results [rows, N] as [batch, output pixels, N]."""
        (down, across), (height, width) = self.tiles, self.tile
        parts = rows[: self.rows].reshape(self.batch, down, across, height, width, rows.shape[-1])
        whole = parts.transpose(0, 1, 3, 2, 4, 5).reshape(self.batch, down * height, across * width, -1)
        return whole[:, : self.out[0], : self.out[1]].reshape(self.batch, -1, rows.shape[-1])

    def transfers(self, port: str, tile: int, k: int) -> list[Transfer]:
        """The tasks that bring rectangle number `tile`, a kernel line each; those beyond the last bring the first."""
        (down, across), (height, width) = self.tiles, self.tile
        (lines, pixels), window = self.extent, self.window
        image, inside = divmod(tile if tile < self.batch * down * across else 0, down * across)
        y, x = inside // across * height * window.strides[0], inside % across * width * window.strides[1]
        line = pixels * window.pixel
        start = (image * lines + y) * line + x * window.pixel
        sizes = (window.run(k) // k, height, width, k)
        strides = (k, window.strides[0] * line, window.strides[1] * window.pixel, 1)
        if height == 1:
            sizes, strides = (sizes[0], *sizes[2:]), (strides[0], *strides[2:])
        return [Transfer(port, "a", start + ky * line, sizes, strides) for ky in range(window.kernel[0])]


@lru_cache(maxsize=4096)
def _rectangle(out: tuple[int, int], m: int, parts: int) -> tuple[int, int]:
    """Lines and pixels of `parts` tiles of m pixels below each other that leave the least of an image over."""
    rectangles = [(parts * m // width, width) for width in range(m, 0, -1) if m % width == 0]
    return min(rectangles, key=lambda t: _up(out[0], t[0]) * _up(out[1], t[1]))


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
