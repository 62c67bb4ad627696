"""Windows of an image as tiles of A, cut by transfers from host memory: what would be im2col, without its matrix.

The image lies in host memory pixel by pixel, channels of a pixel together, with the convolution's pads; its values are
codes or numbers of bf16. A token of A is a rectangle of output pixels (whose lines a memory tile may share out among
cores). For each line of the kernel its rows are runs of kernel width x channels, which overlap; steps of k values of
such runs are one task of a shim's DMA: (step, line, pixel, value), as many dimensions as it has. Where something lies
between the pixels of a line, by dilation or because each product takes a part of every pixel, a run is a part of one
pixel, or, if a step is a line of the kernel, a line is gathered: (line, pixel, pixel of the kernel, value). Values
behind a run's end meet weights of zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from neuc.runtime.npu.gemm_plan import GemmPlan
from neuc.runtime.npu.machine import Dma
from neuc.runtime.npu.program import DTYPES, Transfer

_WORD = 4
_EVEN = 8
"""Parts of pixels are whole so many values, so that a line of them is a step of some tile."""


@dataclass(frozen=True)
class Window:
    """A convolution's window: channels of the image, kernel, strides, pads (begins, then ends), dilations.

    ``parts``: groups of channels, each of which is a product's own. ``dtype``: of a value, i8 or bf16. Those of a 1-D
    convolution have one line.
    """

    channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int] = (1, 1)
    parts: int = 1
    dtype: str = "i8"

    @property
    def width(self) -> int:
        """Bytes of a value."""
        return DTYPES[self.dtype].itemsize

    @property
    def is_pixel(self) -> bool:
        """Whether windows are pixels, one after the other: there is nothing to cut."""
        return (self.kernel, self.strides, any(self.pads), self.parts) == ((1, 1), (1, 1), False, 1)

    @property
    def _in_lines(self) -> bool:
        """Whether all that lies between the first and last value of a line of the kernel is the window's."""
        return self.kernel[1] == 1 or self.parts == self.dilations[1] == 1

    @property
    def part(self) -> int:
        """Values of a pixel that a product reads: channels, filled up to whole words."""
        whole = _WORD // self.width if self._in_lines and self.parts == 1 else _EVEN
        return _up(self.channels // self.parts, whole)

    @property
    def pixel(self) -> int:
        """Values of a pixel in host memory."""
        return self.parts * self.part

    @property
    def line(self) -> int:
        """Values of a line of the kernel."""
        return self.kernel[1] * self.part

    def gathered(self, k: int) -> bool:
        """Whether steps of k values are lines of the kernel, put together from several places."""
        return not self._in_lines and k == self.line

    def runs(self, k: int) -> int:
        """Runs of a window, each of which is a task."""
        return self.kernel[0] * (1 if self._in_lines or self.gathered(k) else self.kernel[1])

    def run(self, k: int) -> int:
        """Values of a run, filled up to whole steps of k."""
        return _up(self.kernel[0] * self.line // self.runs(k), k)

    def contiguous(self, k: int) -> int:
        """Bytes that lie together of a step of k values."""
        return (self.part if self.gathered(k) else k) * self.width

    def weights(self, places: NDArray[np.generic], k: int) -> NDArray[np.generic]:
        """Weights [N, kernel lines, kernel width, channels of a part] in the order of the steps: [N, runs · run]."""
        count, lines, across, channels = places.shape
        by_pixel = np.zeros((count, lines, across, self.part), places.dtype)
        by_pixel[..., :channels] = places
        in_runs = by_pixel.reshape(count, self.runs(k), -1)
        runs = np.zeros((count, self.runs(k), self.run(k)), places.dtype)
        runs[..., : in_runs.shape[-1]] = in_runs
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
        high, wide = (lines - 1) * window.dilations[0] + 1, (across - 1) * window.dilations[1] + 1
        out = ((shape[2] + top + bottom - high) // down + 1, (shape[3] + left + end - wide) // right + 1)
        return Image(window, shape[0], out, _rectangle(out, plan.m * plan.tiles_of_a))

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
        window = self.window
        return (
            (max(self.out[0], self.tile[0]) - 1) * window.strides[0] + (window.kernel[0] - 1) * window.dilations[0] + 1,
            (max(self.out[1], self.tile[1]) - 1) * window.strides[1] + (window.kernel[1] - 1) * window.dilations[1] + 1,
        )

    def at(self, tile: int) -> tuple[int, int, int]:
        """Image, line and pixel at which rectangle number `tile` begins.

        The last ones across and down end where the image does, so they overlap others if that is no whole number of
        them. Those beyond the last are the first again.
        """
        (down, across), (height, width) = self.tiles, self.tile
        image, inside = divmod(tile if tile < self.batch * down * across else 0, down * across)
        y, x = inside // across * height, inside % across * width
        return image, min(y, max(0, self.out[0] - height)), min(x, max(0, self.out[1] - width))

    def columns(self, k: int) -> int:
        """Columns of A: the window's runs, each in whole steps of k."""
        return self.window.runs(k) * self.window.run(k)

    def size(self, k: int) -> int:
        """Values of the images in host memory, with what steps may read behind the last pixel."""
        lines, pixels = self.extent
        return self.batch * lines * pixels * self.window.pixel + self.window.run(k)

    def fits(self, k: int, dma: Dma, columns: int = 0) -> bool:
        """Whether a shim's descriptors have room for its strides and repetitions, and for those of codes to add."""
        window = self.window
        line = window.strides[0] * self.extent[1] * window.pixel * window.width
        repeated = self.tile[0] if window.gathered(k) else window.run(k) // k
        other = self.filled_size[1] * columns
        return repeated <= dma.max_repeat and max(line, other) <= dma.max_stride * _WORD

    def laid_out(self, q: NDArray[np.generic]) -> NDArray[np.generic]:
        """Values [batch, channels, height, width] as they lie in host memory."""
        (lines, pixels), window = self.extent, self.window
        top, left = window.pads[:2]
        each = window.channels // window.parts
        whole = np.zeros((self.batch, lines, pixels, window.parts, window.part), q.dtype)
        given = q.transpose(0, 2, 3, 1)[:, : lines - top, : pixels - left]
        high, wide = given.shape[1:3]
        given = given.reshape(self.batch, high, wide, window.parts, each)
        whole[:, top : top + high, left : left + wide, :, :each] = given
        return whole.reshape(-1)

    def pixels(self, rows: NDArray[np.generic]) -> NDArray[np.generic]:
        """Results [rows, N] as [batch, output pixels, N]."""
        (down, across), (height, width) = self.tiles, self.tile
        size = (self.batch, max(self.out[0], height), max(self.out[1], width), rows.shape[-1])
        whole, parts = np.zeros(size, rows.dtype), rows[: self.rows].reshape(-1, height, width, rows.shape[-1])
        for tile in range(self.batch * down * across):
            image, y, x = self.at(tile)
            whole[image, y : y + height, x : x + width] = parts[tile]
        return whole[:, : self.out[0], : self.out[1]].reshape(self.batch, -1, rows.shape[-1])

    def transfers(self, port: str, tile: int, k: int, part: int = 0) -> list[Transfer]:
        """The tasks that bring rectangle number `tile` of a part of the pixels, a run each."""
        (height, width), (lines, pixels), window = self.tile, self.extent, self.window
        image, y, x = self.at(tile)
        line, beside = pixels * window.pixel, window.dilations[1] * window.pixel
        start = (image * lines + y * window.strides[0]) * line + x * window.strides[1] * window.pixel
        start += part * window.part
        turns = [(height, window.strides[0] * line), (width, window.strides[1] * window.pixel)]
        if height == 1:
            turns = turns[1:]
        if window.gathered(k):
            turns += [(window.kernel[1], beside), (window.part, 1)]
        else:
            turns = [(window.run(k) // k, k), *turns, (k, 1)]
        sizes, strides = tuple(size for size, _ in turns), tuple(stride for _, stride in turns)
        places = window.runs(k) // window.kernel[0]
        starts = [
            start + ky * window.dilations[0] * line + kx * beside
            for ky in range(window.kernel[0])
            for kx in range(places)
        ]
        return [Transfer(port, "a", begin, sizes, strides) for begin in starts]

    def filled(self, rows: NDArray[np.int8], width: int) -> NDArray[np.int8]:
        """Codes [batch, output pixels, N] with lines and pixels of whole rectangles, and `width` columns."""
        whole = np.zeros((self.batch, *self.filled_size, width), np.int8)
        whole[:, : self.out[0], : self.out[1], : rows.shape[-1]] = rows.reshape(self.batch, *self.out, -1)
        return whole.reshape(-1, width)

    def same_pixels(
        self, port: str, buffer: str, tile: int, columns: tuple[int, int], tokens: tuple[int, int]
    ) -> Transfer:
        """The task that brings of rectangle number `tile` the codes that `filled` laid out.

        ``columns``: where the first one lies, and how many there are in host memory; ``tokens``: how many, how wide.
        """
        (height, width), (lines, pixels) = self.tile, self.filled_size
        image, y, x = self.at(tile)
        start = ((image * lines + y) * pixels + x) * columns[1] + columns[0]
        sizes, strides = (tokens[0], height, width, tokens[1]), (tokens[1], pixels * columns[1], columns[1], 1)
        if height == 1:
            sizes, strides = (sizes[0], *sizes[2:]), (strides[0], *strides[2:])
        return Transfer(port, buffer, start, sizes, strides)

    @property
    def filled_size(self) -> tuple[int, int]:
        """Lines and pixels of a line of the results, in whole rectangles."""
        return max(self.out[0], self.tile[0]), max(self.out[1], self.tile[1])


@dataclass(frozen=True)
class Padded:
    """Images of lines x pixels x values of a pixel that results are written into, from line and pixel `top`, `left` on.

    What is around them is zero before, and stays so: it is written by nobody.
    """

    lines: int
    pixels: int
    pixel: int
    top: int
    left: int

    def size(self, batch: int) -> int:
        """Values of so many images."""
        return batch * self.lines * self.pixels * self.pixel

    def start(self, image: Image, tile: int) -> int:
        """Where rectangle number `tile` of the results of `image` begins."""
        number, y, x = image.at(tile)
        return ((number * self.lines + self.top + y) * self.pixels + self.left + x) * self.pixel

    def takes(self, image: Image, plan: GemmPlan) -> bool:
        """Whether tokens of C are rectangles inside an image, at equal distances where they are several."""
        if any(tile > out for tile, out in zip(image.tile, image.out)):
            return False
        several = plan.rows if plan.spread == "grid" else 1
        starts = [self.start(image, tile) for tile in range(image.tiles[0] * image.tiles[1])]
        tokens = [starts[first : first + several] for first in range(0, len(starts), several)]
        steps = [{b - a for a, b in pairwise(token)} for token in tokens]
        return len(starts) % several == 0 and all(len(found) <= 1 for found in steps)

    def transfer(self, port: str, image: Image, plan: GemmPlan, tile: int, column: int) -> Transfer:
        """The task that writes a column of cores' tiles from rectangle number `tile` and column `column` of C on."""
        (height, width), start = image.tile, self.start(image, tile)
        turns = [(height, self.pixels * self.pixel), (width, self.pixel), (plan.n, 1)][height == 1 :]
        if plan.rows > 1 and plan.spread != "down":
            apart = self.start(image, tile + 1) - start if plan.spread == "grid" else plan.n
            turns = [(plan.rows, apart), *turns]
        return Transfer(port, "c", start + column, tuple(size for size, _ in turns), tuple(step for _, step in turns))


@lru_cache(maxsize=4096)
def _rectangle(out: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Lines and pixels of a line of so many pixels that leave the least of an image over, the widest of the best.

    Of equal ones those inside the image come first: only these are written into images (`Padded`).
    """
    rectangles = [(pixels // width, width) for width in range(pixels, 0, -1) if pixels % width == 0]
    return min(
        rectangles,
        key=lambda t: (_up(out[0], t[0]) * _up(out[1], t[1]), t[0] > out[0] or t[1] > out[1]),
    )


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
