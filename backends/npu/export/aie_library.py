"""Kernels of mlir-aie's own library that a core may call: what they are called with, and which tokens they take.

A kernel stands here only if it gives our functions' bits. These do not: rgba2gray (its weight of blue is 3736, ours is
3735), rgba2hue (85 a sextant, halved, and a table of reciprocals), addWeighted (which rounds); filter2d's gave wrong
pixels at every 32nd column until it was mended in 2026, mm.cc takes few tiles (`aie_products.py`). Their cores have
bodies. Arguments are those of the C functions; a compiler of IR cannot see that one is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from neuc.runtime.npu.program import Channel, Kernel

_MLIR: Mapping[str, str] = {"int32_t": "i32", "int16_t": "i16", "uint8_t": "i8"}


@dataclass(frozen=True)
class LibraryKernel:
    """A C function of mlir-aie's `aie_kernels`.

    Args:
        symbol: its name.
        object: the object file that mlir-aie's makefiles build, `source` compiled with `flags`.
        source: its file in mlir-aie.
        flags: of the compiler.
        arguments: (C type, name) in order; those whose type is a pointer are inputs, then outputs, `lineWidth` is the
            number of pixels, others are parameters of our function.
        step: pixels an iteration takes; lines are whole iterations.
        iterations: at least so many, as its loops are compiled for.
        defaults: of parameters.
    """

    symbol: str
    object: str
    source: str
    flags: str
    arguments: tuple[tuple[str, str], ...]
    step: int
    iterations: int
    defaults: Mapping[str, int]

    def scalars(self) -> list[tuple[str, str]]:
        """Arguments that are no tokens: MLIR type and name."""
        return [(_MLIR[kind], name) for kind, name in self.arguments if not kind.endswith("*")]

    def takes(self, kernel: Kernel, channels: Mapping[str, Channel]) -> bool:
        """Whether the function computes these tokens rightly: u8, and lines of whole iterations."""
        ends = [channels[name] for name in (*kernel.inputs, *kernel.outputs)]
        tokens = sum(kind.endswith("*") for kind, _ in self.arguments)
        width = line_width(kernel, channels)
        whole = width % self.step == 0 and width >= self.step * self.iterations
        return len(ends) == tokens and whole and all(end.dtype == "u8" for end in ends)


def line_width(kernel: Kernel, channels: Mapping[str, Channel]) -> int:
    """Pixels of the first input's token."""
    return prod(channels[kernel.inputs[0]].shape)


_LINE = (("uint8_t *", "in"), ("uint8_t *", "out"), ("int32_t", "lineWidth"))
LIBRARY: Mapping[str, LibraryKernel] = {
    "threshold": LibraryKernel(
        "thresholdLine",
        "threshold.cc.o",
        "aie_kernels/aie2/threshold.cc",
        "-DBIT_WIDTH=8",
        (*_LINE, ("uint8_t", "threshold"), ("uint8_t", "max"), ("uint8_t", "kind")),
        step=64,
        iterations=14,
        defaults={"max": 255, "kind": 0},
    ),
    "gray2rgba": LibraryKernel(
        "gray2rgbaLine",
        "gray2rgba.cc.o",
        "aie_kernels/aie2/gray2rgba.cc",
        "",
        _LINE,
        step=32,
        iterations=14,
        defaults={},
    ),
}
"""Function to library kernel."""
