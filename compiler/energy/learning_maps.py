"""What a layer's weights do to the values below: a matrix, or a convolution; in numpy, and as edges for the dialect.

Values are flat, [B, sites]; weights of a convolution are flat, too, [out·in·k·k].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray


@dataclass(frozen=True)
class Conv:
    """A convolutional layer of a network that `train` is given.

    Attributes:
        channels: outputs.
        kernel: height and width of the filters.
        stride: of both axes.
        pad: zeros around the image.
    """

    channels: int
    kernel: int = 3
    stride: int = 1
    pad: int = 0


class Map(Protocol):
    """A linear map from values [B, inputs] to [B, outputs]; a bias has one number an output."""

    @property
    def inputs(self) -> int:
        """Sites below."""
        ...

    @property
    def outputs(self) -> int:
        """Sites above."""
        ...

    @property
    def fans(self) -> tuple[int, int]:
        """Inputs of an output and outputs of an input, for the range of first weights."""
        ...

    @property
    def weights(self) -> tuple[int, ...]:
        """The shape of the weights."""
        ...

    def forward(self, w: Array, a: Array) -> Array:
        """Values above."""
        ...

    def back(self, w: Array, error: Array) -> Array:
        """The transposed map of values above."""
        ...

    def slope(self, a: Array, error: Array) -> Array:
        """Σ over the batch of error times d(values above)/dw."""
        ...


@dataclass(frozen=True)
class DenseMap:
    """a W, W [in, out]."""

    inputs: int
    outputs: int

    @property
    def fans(self) -> tuple[int, int]:
        """Both sizes."""
        return self.inputs, self.outputs

    @property
    def weights(self) -> tuple[int, ...]:
        """W's shape."""
        return self.inputs, self.outputs

    def forward(self, w: Array, a: Array) -> Array:
        """Values times W."""
        return a @ w

    def back(self, w: Array, error: Array) -> Array:
        """Errors times Wᵀ."""
        return error @ w.T

    def slope(self, a: Array, error: Array) -> Array:
        """Valuesᵀ times errors."""
        return a.T @ error


@dataclass(frozen=True)
class ConvMap:
    """A correlation of images [channels, height, width] with filters."""

    shape: tuple[int, int, int]
    layer: Conv

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what comes out."""
        layer = self.layer
        first, second = ((n + 2 * layer.pad - layer.kernel) // layer.stride + 1 for n in self.shape[1:])
        return first, second

    @property
    def inputs(self) -> int:
        """Pixels below."""
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:
        """Pixels above."""
        return self.layer.channels * math.prod(self.size)

    @property
    def fans(self) -> tuple[int, int]:
        """Weights that meet in an output, and in an input."""
        area = self.layer.kernel**2
        return self.shape[0] * area, max(self.layer.channels * area // self.layer.stride**2, 1)

    @property
    def filters(self) -> tuple[int, int, int, int]:
        """Out, in, height and width."""
        return self.layer.channels, self.shape[0], self.layer.kernel, self.layer.kernel

    @property
    def weights(self) -> tuple[int, ...]:
        """All filters in a row."""
        return (math.prod(self.filters),)

    @cached_property
    def patches(self) -> Array:
        """The site below of each output position and filter entry, [positions, in·k·k]; −1 in the rim of zeros."""
        layer, (channels, height, width) = self.layer, self.shape
        rows, columns = (np.arange(n)[:, None] * layer.stride - layer.pad + np.arange(layer.kernel) for n in self.size)
        y, x = rows[:, None, None, :, None], columns[None, :, None, None, :]
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        found = np.where(inside, (np.arange(channels)[:, None, None] * height + y) * width + x, -1)
        return found.reshape(math.prod(self.size), -1)

    @cached_property
    def landings(self) -> Array:
        """Where in `patches`, flat, each site below is, [sites, most]; −1 where it is in fewer than others."""
        flat = self.patches.reshape(-1)
        places = np.argsort(flat, kind="stable")
        places = places[np.count_nonzero(flat < 0) :]
        counts = np.bincount(flat[places], minlength=self.inputs)
        rank = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
        found = np.full((self.inputs, max(int(counts.max()), 1)), -1)
        found[flat[places], rank] = places
        return found

    def edges(self) -> tuple[Array, Array, Array]:
        """Site above, site below and number of the weight of each edge."""
        positions, taps = self.patches.shape
        inside = self.patches >= 0
        channel = np.arange(self.layer.channels)[:, None, None]
        shape = (self.layer.channels, positions, taps)
        above = np.broadcast_to(channel * positions + np.arange(positions)[:, None], shape)
        weight = np.broadcast_to(channel * taps + np.arange(taps), shape)
        below = np.broadcast_to(self.patches, shape)
        chosen = np.broadcast_to(inside, shape)
        return above[chosen], below[chosen], weight[chosen]

    def _columns(self, a: Array) -> Array:
        """The patches of images, [B, positions, taps]."""
        padded = np.concatenate([a, np.zeros((len(a), 1), a.dtype)], 1)  # −1 is the zero at the end
        return padded[:, self.patches]

    def forward(self, w: Array, a: Array) -> Array:
        """Patches times filters."""
        out = self._columns(a) @ w.reshape(self.layer.channels, -1).T
        return np.ascontiguousarray(out.swapaxes(1, 2)).reshape(len(a), -1)

    def back(self, w: Array, error: Array) -> Array:
        """Each patch's share added up where it came from, one tap of the filters at a time."""
        channels, height, width = self.shape
        layer, (rows, columns) = self.layer, self.size
        errors = error.reshape(len(error), layer.channels, -1).swapaxes(1, 2)
        shares = (errors @ w.reshape(layer.channels, -1)).reshape(
            len(error), rows, columns, channels, layer.kernel, layer.kernel
        )
        total = np.zeros((len(error), channels, height + 2 * layer.pad, width + 2 * layer.pad), shares.dtype)
        for y in range(layer.kernel):
            for x in range(layer.kernel):
                part = shares[..., y, x].transpose(0, 3, 1, 2)
                ends = y + layer.stride * rows, x + layer.stride * columns
                total[:, :, y : ends[0] : layer.stride, x : ends[1] : layer.stride] += part
        inner = total[:, :, layer.pad : layer.pad + height, layer.pad : layer.pad + width]
        return np.ascontiguousarray(inner).reshape(len(error), -1)

    def slope(self, a: Array, error: Array) -> Array:
        """Errorsᵀ times patches."""
        errors = error.reshape(len(error), self.layer.channels, -1)
        return np.einsum("bop,bpt->ot", errors, self._columns(a), optimize=True).reshape(-1)


Sizes: TypeAlias = Sequence[int | tuple[int, int, int] | Conv]
"""A network: ``(64, 128, 10)``, or ``((1, 28, 28), Conv(16, 5, 2), Conv(32, 3, 2), 10)``."""


def maps_of(sizes: Sizes) -> tuple[Map, ...]:
    """The maps of a network."""
    found, below = list[Map](), sizes[0]
    for layer in sizes[1:]:
        if isinstance(layer, Conv):
            assert isinstance(below, tuple)
            made = ConvMap(below, layer)
            found.append(made)
            below = (layer.channels, *made.size)
        else:
            assert isinstance(layer, int)
            found.append(DenseMap(below if isinstance(below, int) else math.prod(below), layer))  # type: ignore[arg-type]
            below = layer
    return tuple(found)
