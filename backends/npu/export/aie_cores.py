"""What a core of an mlir-aie file runs: a body in `arith`, `scf` and `memref`, or a named kernel of mlir-aie's library.

Nothing else is exported: a call into an object file that nobody has is no program. Which library kernels there are, and
on what tokens they may be called, says `aie_library.py`; elsewhere a core has a body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from neuc.backends.npu.export.aie_filter import FILTER, Filter, filter_buffer
from neuc.backends.npu.export.aie_finish import (
    PREFIX,
    buffers,
    give_sums,
    parameter_phases,
    requantize,
    sum_pieces,
    take_parameters,
    with_sums,
)
from neuc.backends.npu.export.aie_float_finish import (
    FLOATS,
    finish_floats,
    float_tables,
    give_floats,
    parameter_tokens,
    result_tokens,
    take_floats,
)
from neuc.backends.npu.export.aie_library import LIBRARY, LibraryKernel, line_width
from neuc.backends.npu.export.aie_pixels import PIXELS, RTP_WORDS, Pixels
from neuc.backends.npu.export.aie_products import PRODUCTS, step, zero
from neuc.backends.npu.export.aie_residual import add_codes, residual_tokens
from neuc.backends.npu.export.aie_rows import ROWS, row_body, row_tables
from neuc.backends.npu.export.aie_types import memref
from neuc.errors import Error
from neuc.runtime.npu.functions import FUNCTIONS
from neuc.runtime.npu.program import Channel, Design, Kernel

Acquire: TypeAlias = Callable[[str, str, str], list[str]]
Release: TypeAlias = Callable[[str, str], str]
_LOOPS = 0xFFFFFFFF


@dataclass(frozen=True)
class Core:
    """A kernel with what its text needs.

    Args:
        kernel: what the core runs.
        channels: by name.
        rtp: names of its run-time parameters, in the order of their words.
        calls: whether it may call a library kernel.
    """

    kernel: Kernel
    channels: Mapping[str, Channel]
    rtp: tuple[str, ...] = ()
    calls: bool = False

    @property
    def library(self) -> LibraryKernel | None:
        """The library kernel it calls, None if it has a body."""
        found = LIBRARY.get(self.kernel.function) if self.calls else None
        return found if found is not None and found.takes(self.kernel, self.channels) else None


def cores_of(design: Design, *, calls: bool) -> list[Core]:
    """A design's cores.

    Raises:
        Error: NEUC-E683, a function without a body, or a run-time parameter that no body reads.
    """
    channels = {channel.name: channel for channel in design.channels}
    found: list[Core] = []
    for kernel in design.kernels:
        rtp = tuple(param.name for param in design.params if param.kernel == kernel.name)
        _check(kernel, rtp)
        found.append(Core(kernel, channels, rtp, calls))
    return found


def _check(kernel: Kernel, rtp: tuple[str, ...]) -> None:
    if kernel.function not in {*PIXELS, FILTER, *PRODUCTS, *ROWS}:
        known = ", ".join(sorted({*PIXELS, FILTER, *PRODUCTS, *ROWS}))
        why = "has no mlir-aie body and is in no library of mlir-aie"
        if kernel.function not in FUNCTIONS:
            why = "is a Python function, whose behaviour a graph does not hold: it has no mlir-aie body"
        raise Error(
            "NEUC-E683",
            f"kernel {kernel.name}: {kernel.function!r} {why}",
            hint=f"make it of functions that have one ({known}); or export JSON, which holds any",
        )
    if rtp and kernel.function not in PIXELS:
        raise Error(
            "NEUC-E683",
            f"kernel {kernel.name}: {kernel.function!r} reads no run-time parameter {rtp[0]!r} in mlir-aie text",
            hint="fix its value in the graph",
        )
    if len(rtp) > RTP_WORDS:
        why = f"kernel {kernel.name} has {len(rtp)} run-time parameters, its buffer {RTP_WORDS} words"
        raise Error("NEUC-E683", why, hint="fix some of their values in the graph")


def declarations(core: Core) -> list[str]:
    """The library kernel a core calls; its object is part of mlir-aie, built by its makefiles."""
    library = core.library
    if library is None:
        return []
    types = ", ".join(_types(core, library))
    return [f'func.func private @{library.symbol}({types}) attributes {{link_with = "{library.object}"}}']


def _types(core: Core, library: LibraryKernel) -> list[str]:
    ends = [core.channels[name] for name in (*core.kernel.inputs, *core.kernel.outputs)]
    return [*map(memref, ends), *(kind for kind, _ in library.scalars())]


@dataclass(frozen=True)
class TileBuffer:
    """A buffer on the core's tile: its name, its type, and what it begins as, if that matters."""

    name: str
    kind: str
    words: tuple[int, ...] = ()

    @property
    def attributes(self) -> str:
        """Its attributes in MLIR."""
        if not self.words:
            return f'{{sym_name = "{self.name}"}}'
        begin = f"dense<[{', '.join(map(str, self.words))}]> : tensor<{len(self.words)}xi32>"
        return f'{{sym_name = "{self.name}", initial_value = {begin}}}'


def tile_buffers(core: Core) -> list[TileBuffer]:
    """What stands in the tile's memory beside object FIFOs: sums, lines, tables, run-time parameters."""
    kernel, channels = core.kernel, core.channels
    found = [TileBuffer(name, kind) for name, kind in buffers(kernel, channels).items()]
    if kernel.function == FILTER:
        lines = filter_buffer(kernel, channels[kernel.outputs[0]].shape[-1])
        found += [TileBuffer(name, kind) for name, kind in lines.items()]
    tables = {FLOATS: float_tables, **dict.fromkeys(ROWS, row_tables)}.get(kernel.function)
    if tables is not None:
        found += [TileBuffer(n, f"memref<{len(w)}xi32>", tuple(w)) for n, w in tables(kernel).items()]
    if core.rtp:
        found.append(TileBuffer(f"rtp_{kernel.name}", f"memref<{RTP_WORDS}xi32>"))
    return found


def _call(core: Core, library: LibraryKernel, operands: list[str]) -> list[str]:
    body = Pixels(core.kernel, core.channels, operands, core.rtp)
    values: list[str] = []
    for kind, name in library.scalars():
        if name == "lineWidth":
            values.append(body.word(line_width(core.kernel, core.channels)))
            continue
        word = body.parameter(name, library.defaults.get(name, 0))
        values.append(word if kind == "i32" else body.let(f"arith.trunci {word} : i32 to {kind}"))
    types = ", ".join(_types(core, library))
    body.do(f"func.call @{library.symbol}({', '.join([*operands, *values])}) : ({types}) -> ()")
    return body.lines


def statements(core: Core, operands: list[str]) -> list[str]:
    """What a firing does with its elements, `operands` being inputs, then outputs."""
    library = core.library
    if library is not None:
        return _call(core, library, operands)
    if core.kernel.function in ROWS:
        return row_body(core.kernel, core.channels)
    body = Pixels(core.kernel, core.channels, operands, core.rtp)
    PIXELS[core.kernel.function](body)
    return body.lines


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


def has_loops(core: Core) -> bool:
    """Whether a core acquires tokens in loops of its own: mlir-aie then has to count its buffers at run time."""
    return core.kernel.function in PRODUCTS or core.kernel.function == FILTER


def core_lines(core: Core, acquire: Acquire, release: Release) -> list[str]:
    """The endless loop's inside: acquire, compute, release; a product keeps its tile of C for all its steps.

    Args:
        core: what the core runs.
        acquire: (channel, port, name of the element) to the lines that acquire one.
        release: (channel, port) to the line that releases one.

    Raises:
        Error: NEUC-E683, a kernel that takes or gives other than one token a phase and is neither product nor filter.
    """
    kernel = core.kernel
    if kernel.function in PRODUCTS:
        return _product_lines(kernel, core.channels, acquire, release)
    if kernel.function == FILTER:
        only = {"Consume": kernel.inputs[0], "Produce": kernel.outputs[0]}
        body = Filter(kernel, core.channels)
        body.acquire = lambda port, element: acquire(only[port], port, element)
        body.release = lambda port: release(only[port], port)
        body.frame()
        return body.lines
    ends = [(name, "Consume", rates) for name, rates in zip(kernel.inputs, kernel.consume)]
    ends += [(name, "Produce", rates) for name, rates in zip(kernel.outputs, kernel.produce)]
    if any(rate != 1 for _, _, rates in ends for rate in rates):
        raise Error(
            "NEUC-E683",
            f"kernel {kernel.name} takes or gives other than one token a phase; such loops are not exported",
            hint="export JSON, which holds any rates",
        )
    lines = [line for i, (name, port, _) in enumerate(ends) for line in acquire(name, port, f"%e{i}")]
    lines += statements(core, [f"%e{i}" for i in range(len(ends))])
    return [*lines, *(release(name, port) for name, port, _ in ends)]


def _product_lines(kernel: Kernel, channels: Mapping[str, Channel], acquire: Acquire, release: Release) -> list[str]:
    (a, b), c = kernel.inputs, kernel.outputs[0]
    finishes = kernel.function.startswith(PREFIX)
    sums, held = (f"%sums_{kernel.name}", with_sums(kernel, channels)) if finishes else ("%e2", channels)
    inside = [*acquire(a, "Consume", "%e0"), *acquire(b, "Consume", "%e1")]
    inside += step(kernel, held, "%e0", "%e1", sums)
    inside += [release(a, "Consume"), release(b, "Consume")]
    product = [
        *zero(kernel, held, sums),
        f"%steps = arith.constant {sum(kernel.consume[0]) - residual_tokens(kernel)} : index",
        "scf.for %step = %c0 to %steps step %c1 {",
        *(f"  {line}" for line in inside),
        "}",
    ]
    if not finishes:
        return [*acquire(c, "Produce", "%e2"), *product, release(c, "Produce")]
    finish = _float_lines if kernel.function == FLOATS else _finish_lines
    return [*product, *finish(kernel, channels, acquire, release)]


def _float_lines(kernel: Kernel, channels: Mapping[str, Channel], acquire: Acquire, release: Release) -> list[str]:
    """Parameters in and what they say, if there are any; then results out."""
    b, c, more = kernel.inputs[1], kernel.outputs[0], parameter_tokens(kernel)
    taking = [*acquire(b, "Consume", "%e3"), *take_floats(kernel, channels, "%e3"), release(b, "Consume")]
    giving = [*acquire(c, "Produce", "%e2"), *give_floats(kernel, channels, "%e2"), release(c, "Produce")]
    lines = [*_repeated("token", more, taking), *_apart(finish_floats(kernel, channels))] if more else []
    return [*lines, *_repeated("piece", result_tokens(kernel), giving)]


def _repeated(name: str, count: int, each: list[str]) -> list[str]:
    """A loop whose number is %token inside."""
    return [
        f"%{name}s = arith.constant {count} : index",
        f"scf.for %token = %c0 to %{name}s step %c1 {{",
        *(f"  {line}" for line in each),
        "}",
    ]


def _apart(lines: list[str]) -> list[str]:
    """Lines in a block of their own, as names of others are used in them again."""
    return ["scf.for %once = %c0 to %c1 step %c1 {", *(f"  {line}" for line in lines), "}"]


def _finish_lines(kernel: Kernel, channels: Mapping[str, Channel], acquire: Acquire, release: Release) -> list[str]:
    """Parameters in, another tensor's codes in if they are added, and codes out, or sums out."""
    (a, b), c, more = kernel.inputs, kernel.outputs[0], parameter_phases(kernel)
    if more:
        each = [*acquire(b, "Consume", "%e3"), *take_parameters(kernel, channels, "%e3"), release(b, "Consume")]
        after = [*acquire(c, "Produce", "%e2"), *requantize(kernel, channels, "%e2")]
        if others := residual_tokens(kernel):
            added = [*acquire(a, "Consume", "%e4"), *add_codes(kernel, channels, "%e4", "%e2"), release(a, "Consume")]
            after += [
                f"%others = arith.constant {others} : index",
                "scf.for %other = %c0 to %others step %c1 {",
                *(f"  {line}" for line in added),
                "}",
            ]
        after.append(release(c, "Produce"))
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
