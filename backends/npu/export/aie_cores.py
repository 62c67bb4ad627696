"""What a core of an mlir-aie file runs: a body in `arith` and `scf`, or a kernel of mlir-aie's own library, named.

Nothing else is exported: a call into an object file that nobody has is no program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from neuc.backends.npu.export.aie_finish import (
    PREFIX,
    give_sums,
    parameter_phases,
    requantize,
    sum_pieces,
    take_parameters,
    with_sums,
)
from neuc.backends.npu.export.aie_products import PRODUCTS, ZERO, step, zero
from neuc.backends.npu.export.aie_rows import ROWS, row_body, row_globals
from neuc.backends.npu.export.aie_types import MLIR_TYPES, memref
from neuc.errors import Error
from neuc.runtime.npu.program import Channel, Kernel

Acquire: TypeAlias = Callable[[str, str, str], list[str]]
Release: TypeAlias = Callable[[str, str], str]
_LOOPS = 0xFFFFFFFF
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
    "finished_gemm": LibraryKernel("matmul_i8_i32", "mm.o"),
}


def library_of(kernel: Kernel) -> LibraryKernel | None:
    """The library kernel of a function, None if it has a body.

    Raises:
        Error: NEUC-E683, it has neither.
    """
    if (
        kernel.function in _BODIES
        or kernel.function in ROWS
        or (kernel.function in PRODUCTS and kernel.function not in LIBRARY)
    ):
        return None
    if kernel.function not in LIBRARY:
        known = ", ".join(sorted({*LIBRARY, *_BODIES, *PRODUCTS, *ROWS}))
        raise Error(
            "NEUC-E683",
            f"kernel {kernel.name}: {kernel.function!r} has no mlir-aie body and is in no library of mlir-aie",
            hint=f"functions with one: {known}; or export JSON, which holds any",
        )
    return LIBRARY[kernel.function]


def declarations(kernel: Kernel, channels: Mapping[str, Channel]) -> list[str]:
    """Tables of a core, or the library kernels it calls; their objects are part of mlir-aie, built by its makefiles."""
    library = library_of(kernel)
    if library is None:
        return row_globals(kernel) if kernel.function in ROWS else []
    channels = with_sums(kernel, channels) if kernel.function.startswith(PREFIX) else channels
    types = [memref(channels[name]) for name in (*kernel.inputs, *kernel.outputs)] + ["i32"] * len(
        _scalars(kernel, library)
    )
    found = [(library.symbol, library.object, types)]
    if kernel.function in PRODUCTS:
        found.append((*ZERO, types[-1:]))
    return [
        f'func.func private @{symbol}({", ".join(operands)}) attributes {{link_with = "{code}"}}'
        for symbol, code, operands in found
    ]


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
    return row_body(kernel, channels) if kernel.function in ROWS else _loops(kernel, ends, operands)


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


def endless(inside: list[str]) -> list[str]:
    """A loop around what a core does; %c0 and %c1 are there for what is inside."""
    return [
        "%c0 = arith.constant 0 : index",
        "%c1 = arith.constant 1 : index",
        f"%max = arith.constant {_LOOPS} : index",
        "scf.for %arg0 = %c0 to %max step %c1 {",
        *(f"  {line}" for line in inside),
        "}",
    ]


def core_lines(kernel: Kernel, channels: Mapping[str, Channel], acquire: Acquire, release: Release) -> list[str]:
    """The endless loop's inside: acquire, compute, release; a product keeps its tile of C for all its steps.

    Args:
        kernel: what the core runs.
        channels: by name.
        acquire: (channel, port, name of the element) to the lines that acquire one.
        release: (channel, port) to the line that releases one.

    Raises:
        Error: NEUC-E683, a kernel that takes or gives other than one token a phase and is no product.
    """
    if kernel.function in PRODUCTS:
        return _product_lines(kernel, channels, acquire, release)
    ends = [(name, "Consume", rates) for name, rates in zip(kernel.inputs, kernel.consume)]
    ends += [(name, "Produce", rates) for name, rates in zip(kernel.outputs, kernel.produce)]
    if any(rate != 1 for _, _, rates in ends for rate in rates):
        raise Error(
            "NEUC-E683",
            f"kernel {kernel.name} takes or gives other than one token a phase; such loops are not exported",
            hint="export JSON, which holds any rates",
        )
    lines = [line for i, (name, port, _) in enumerate(ends) for line in acquire(name, port, f"%e{i}")]
    lines += statements(kernel, channels, [f"%e{i}" for i in range(len(ends))])
    return [*lines, *(release(name, port) for name, port, _ in ends)]


def _product_lines(kernel: Kernel, channels: Mapping[str, Channel], acquire: Acquire, release: Release) -> list[str]:
    (a, b), c = kernel.inputs, kernel.outputs[0]
    finishes = kernel.function.startswith(PREFIX)
    sums, held = (f"%sums_{kernel.name}", with_sums(kernel, channels)) if finishes else ("%e2", channels)
    inside = [*acquire(a, "Consume", "%e0"), *acquire(b, "Consume", "%e1")]
    if library_of(kernel) is not None:
        inside += statements(kernel, held, ["%e0", "%e1", sums])
    else:
        inside += step(kernel, held, "%e0", "%e1", sums)
    inside += [release(a, "Consume"), release(b, "Consume")]
    product = [
        *zero(kernel, held, sums),
        f"%steps = arith.constant {sum(kernel.consume[0])} : index",
        "scf.for %step = %c0 to %steps step %c1 {",
        *(f"  {line}" for line in inside),
        "}",
    ]
    if not finishes:
        return [*acquire(c, "Produce", "%e2"), *product, release(c, "Produce")]
    return [*product, *_finish_lines(kernel, channels, acquire, release)]


def _finish_lines(kernel: Kernel, channels: Mapping[str, Channel], acquire: Acquire, release: Release) -> list[str]:
    """Parameters in and codes out, or sums out."""
    b, c, more = kernel.inputs[1], kernel.outputs[0], parameter_phases(kernel)
    if more:
        each = [*acquire(b, "Consume", "%e3"), *take_parameters(kernel, channels, "%e3"), release(b, "Consume")]
        after = [*acquire(c, "Produce", "%e2"), *requantize(kernel, channels, "%e2"), release(c, "Produce")]
    else:
        each = [*acquire(c, "Produce", "%e2"), *give_sums(kernel, channels, "%e2"), release(c, "Produce")]
        after = []
    return [
        f"%tokens = arith.constant {more or sum_pieces(kernel)} : index",
        "scf.for %token = %c0 to %tokens step %c1 {",
        *(f"  {line}" for line in each),
        "}",
        *after,
    ]
