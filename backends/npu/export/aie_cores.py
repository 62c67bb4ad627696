"""What a core of an mlir-aie file runs: a body in `arith` and `scf`, or a kernel of mlir-aie's own library, named.

Nothing else is exported: a call into an object file that nobody has is no program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from neuc.errors import Error
from neuc.runtime.npu.program import Channel, Kernel

MLIR_TYPES: Mapping[str, str] = {
    "i8": "i8",
    "u8": "i8",
    "i16": "i16",
    "u16": "i16",
    "i32": "i32",
    "u32": "i32",
    "bf16": "bf16",
    "f32": "f32",
}
_BODIES: Mapping[str, str] = {"copy": "", "invert": "xori", "add": "addi", "and": "andi", "or": "ori"}


@dataclass(frozen=True)
class LibraryKernel:
    """A kernel of mlir-aie's `aie_kernels`: its symbol, its object file, and scalars it takes at the end."""

    symbol: str
    object: str
    scalars: tuple[str, ...] = ()


LIBRARY: Mapping[str, LibraryKernel] = {
    "threshold": LibraryKernel("thresholdLine", "threshold.cc.o", ("threshold", "max", "kind")),
    "rgba2gray": LibraryKernel("rgba2grayLine", "rgba2gray.cc.o"),
    "gray2rgba": LibraryKernel("gray2rgbaLine", "gray2rgba.cc.o"),
    "rgba2hue": LibraryKernel("rgba2hueLine", "rgba2hue.cc.o"),
    "add_weighted": LibraryKernel("addWeightedLine", "addWeighted.cc.o", ("alpha", "beta", "gamma")),
    "gemm": LibraryKernel("matmul_i8_i32", "mm.o"),
}


def memref(channel: Channel) -> str:
    """The memref type of a channel's token; MLIR's integers have no sign."""
    return f"memref<{'x'.join([*map(str, channel.shape), MLIR_TYPES[channel.dtype]])}>"


def library_of(kernel: Kernel) -> LibraryKernel | None:
    """The library kernel of a function, None if it has a body.

    Raises:
        Error: NEUC-E683, it has neither.
    """
    if kernel.function in _BODIES:
        return None
    if kernel.function not in LIBRARY:
        known = ", ".join(sorted([*LIBRARY, *_BODIES]))
        raise Error(
            "NEUC-E683",
            f"kernel {kernel.name}: {kernel.function!r} has no mlir-aie body and is in no library of mlir-aie",
            hint=f"functions with one: {known}; or export JSON, which holds any",
        )
    return LIBRARY[kernel.function]


def declaration(kernel: Kernel, channels: Mapping[str, Channel]) -> str:
    """The declaration of a library kernel; its object is part of mlir-aie, built by its makefiles."""
    library = library_of(kernel)
    assert library is not None
    types = [memref(channels[name]) for name in (*kernel.inputs, *kernel.outputs)] + ["i32"] * len(
        _scalars(kernel, library)
    )
    return f'func.func private @{library.symbol}({", ".join(types)}) attributes {{link_with = "{library.object}"}}'


def _scalars(kernel: Kernel, library: LibraryKernel) -> list[int]:
    return [int(value) for name in library.scalars if isinstance(value := kernel.params.get(name, 0), int)]


def statements(kernel: Kernel, channels: Mapping[str, Channel], operands: list[str]) -> list[str]:
    """What a firing does with its elements, `operands` being inputs, then outputs."""
    library = library_of(kernel)
    ends = [channels[name] for name in (*kernel.inputs, *kernel.outputs)]
    if library is not None:
        values = _scalars(kernel, library)
        lines = [f"%s{i} = arith.constant {value} : i32" for i, value in enumerate(values)]
        arguments = ", ".join([*operands, *(f"%s{i}" for i in range(len(values)))])
        types = ", ".join([*map(memref, ends), *["i32"] * len(values)])
        return [*lines, f"func.call @{library.symbol}({arguments}) : ({types}) -> ()"]
    return _loops(kernel, ends, operands)


def _loops(kernel: Kernel, ends: list[Channel], operands: list[str]) -> list[str]:
    """One loop a dimension around an element-wise operation."""
    shape, element = ends[-1].shape, MLIR_TYPES[ends[-1].dtype]
    lines = ["%lo = arith.constant 0 : index", "%st = arith.constant 1 : index"]
    for i, size in enumerate(shape):
        lines += [f"%n{i} = arith.constant {size} : index"]
    for i in range(len(shape)):
        lines.append("  " * i + f"scf.for %i{i} = %lo to %n{i} step %st {{")
    inside = "  " * len(shape)
    index = ", ".join(f"%i{i}" for i in range(len(shape)))
    for i, operand in enumerate(operands[:-1]):
        lines.append(f"{inside}%v{i} = memref.load {operand}[{index}] : {memref(ends[i])}")
    result = "%v0"
    operation = _BODIES[kernel.function]
    if operation:
        other = "%v1"
        if kernel.function == "invert":
            lines.append(f"{inside}%ones = arith.constant -1 : {element}")
            other = "%ones"
        lines.append(f"{inside}%r = arith.{operation} %v0, {other} : {element}")
        result = "%r"
    lines.append(f"{inside}memref.store {result}, {operands[-1]}[{index}] : {memref(ends[-1])}")
    lines += ["  " * i + "}" for i in reversed(range(len(shape)))]
    return lines
