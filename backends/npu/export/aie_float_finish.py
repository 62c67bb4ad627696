"""The core of a bf16 product that finishes its tile, in MLIR: parameters in, scales, shifts, activations, results out.

Sums, parameters and the program's tables stand in buffers of the core's tile. What words the parameters hold says
`runtime/npu/float_finish.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from neuc.backends.npu.export.aie_rows import RowBody, table_of
from neuc.backends.npu.export.aie_types import memref
from neuc.runtime.npu.float_finish import CLIP, HEAD, MORE, MOST_STAGES, SCALE, SHIFT, SLOPE, TABLE
from neuc.runtime.npu.program import Channel, Kernel

FLOATS = "finished_bf16_gemm"
"""The function of such kernels."""
_TABLES = "tables"


def float_sums(kernel: Kernel, channels: Mapping[str, Channel]) -> Channel:
    """C's tile as it is on the core."""
    return replace(channels[kernel.outputs[0]], dtype="f32")


def float_buffers(kernel: Kernel, channels: Mapping[str, Channel]) -> dict[str, str]:
    """Buffers on the core's tile by name, with their types."""
    found = {f"sums_{kernel.name}": memref(float_sums(kernel, channels))}
    if _count(kernel, "parameters"):
        found[f"block_{kernel.name}"] = _block(kernel, channels)
    return found


def float_tables(kernel: Kernel) -> dict[str, list[int]]:
    """Buffers on the core's tile that begin as the program's tables; none where these travel."""
    return {f"{_TABLES}_{kernel.name}": table_of(kernel, _TABLES)} if _TABLES in kernel.params else {}


def parameter_tokens(kernel: Kernel) -> int:
    """Tokens of B that carry parameters."""
    return _count(kernel, "parameters")


def result_tokens(kernel: Kernel) -> int:
    """Tokens in which a tile leaves: one of bf16 numbers, or two with the bits of f32 ones."""
    return _count(kernel, "pieces")


def _count(kernel: Kernel, name: str) -> int:
    value = kernel.params[name]
    assert isinstance(value, int)
    return value


def _words(kernel: Kernel, channels: Mapping[str, Channel]) -> int:
    """Words that a core has room for, beside its sums and the program's tables."""
    room = kernel.state_bytes - 4 * prod(channels[kernel.outputs[0]].shape)
    resident = kernel.params.get(_TABLES)
    return room // 4 - (len(resident) if isinstance(resident, list) else 0)


def _block(kernel: Kernel, channels: Mapping[str, Channel]) -> str:
    return f"memref<{_words(kernel, channels)}xi32>"


def take_floats(kernel: Kernel, channels: Mapping[str, Channel], element: str) -> list[str]:
    """Put the token `element`, number %token, into words behind those before it, as far as there is room."""
    body, channel = RowBody(kernel, channels), channels[kernel.inputs[1]]
    kind, block = _block(kernel, channels), f"%block_{kernel.name}"
    rows, width = channel.shape
    begin = body.let(f"arith.muli %token, {body.index(rows * width)} : index")
    room, two, bits = body.index(2 * _words(kernel, channels)), body.index(2), body.word(16)
    row = body.loop("%c0", body.index(rows))
    column = body.loop("%c0", body.index(width))
    line = body.let(f"arith.muli {row}, {body.index(width)} : index")
    place = body.let(f"arith.addi {begin}, {body.let(f'arith.addi {line}, {column} : index')} : index")
    body.open(f"scf.if {body.let(f'arith.cmpi ult, {place}, {room} : index')} {{")
    number = body.let(f"memref.load {element}[{row}, {column}] : {memref(channel)}")
    half = body.let(f"arith.extui {body.let(f'arith.bitcast {number} : bf16 to i16')} : i16 to i32")
    word = body.let(f"arith.divui {place}, {two} : index")
    upper = body.let(f"arith.cmpi ne, {body.let(f'arith.remui {place}, {two} : index')}, %c0 : index")
    body.open(f"scf.if {upper} {{")
    old = body.let(f"memref.load {block}[{word}] : {kind}")
    whole = body.let(f"arith.ori {old}, {body.let(f'arith.shli {half}, {bits} : i32')} : i32")
    body.do(f"memref.store {whole}, {block}[{word}] : {kind}")
    body.otherwise()
    body.do(f"memref.store {half}, {block}[{word}] : {kind}")
    for _ in range(4):
        body.end()
    return body.lines


def finish_floats(kernel: Kernel, channels: Mapping[str, Channel]) -> list[str]:
    """What the parameters say, for all sums in place."""
    body = RowBody(kernel, channels)
    sums, kind = f"%sums_{kernel.name}", memref(float_sums(kernel, channels))
    m, n = channels[kernel.outputs[0]].shape
    block = (f"%block_{kernel.name}", _block(kernel, channels))
    tables = body.table(_TABLES) if _TABLES in kernel.params else block
    columns, rows = body.index(n), body.index(m)
    row, column = body.loop("%c0", rows), body.loop("%c0", columns)
    y = body.let(f"memref.load {sums}[{row}, {column}] : {kind}")
    y, at, more = _stage(body, block, tables, columns, column, y, "%c0")
    for _ in range(MOST_STAGES - 1):
        y = body.either(more, "f32", lambda y=y, at=at: _stage(body, block, tables, columns, column, y, at)[0], y)
    body.do(f"memref.store {y}, {sums}[{row}, {column}] : {kind}")
    body.end()
    body.end()
    return body.lines


def _stage(
    body: RowBody, block: tuple[str, str], tables: tuple[str, str], columns: str, column: str, y: str, at: str
) -> tuple[str, str, str]:
    """A stage whose words begin at `at`: its result, where the next one's begin, and whether there is one."""

    def load(place: str) -> str:
        return body.let(f"memref.load {block[0]}[{place}] : {block[1]}")

    def head(number: int) -> str:
        return load(body.let(f"arith.addi {at}, {body.index(number)} : index"))

    def as_float(word: str) -> str:
        return body.let(f"arith.bitcast {word} : i32 to f32")

    flags, place = head(0), head(1)
    slope, low, high = (as_float(head(number)) for number in (2, 3, 4))

    def has(bit: int) -> str:
        found = body.let(f"arith.andi {flags}, {body.word(bit)} : i32")
        return body.let(f"arith.cmpi ne, {found}, {body.word(0)} : i32")

    end = body.let(f"arith.addi {at}, {body.index(HEAD)} : index")
    for bit, operation in ((SCALE, "arith.mulf"), (SHIFT, "arith.addf")):
        there = has(bit)

        def with_column(y: str = y, end: str = end, operation: str = operation) -> str:
            number = load(body.let(f"arith.addi {end}, {column} : index"))
            return body.on(operation, y, as_float(number))

        y = body.either(there, "f32", with_column, y)
        behind = body.let(f"arith.addi {end}, {columns} : index")
        end = body.let(f"arith.select {there}, {behind}, {end} : index")
    negative = body.let(f"arith.cmpf olt, {y}, {body.number(0.0)} : f32")
    sloped = body.let(f"arith.andi {negative}, {has(SLOPE)} : i1")
    y = body.let(f"arith.select {sloped}, {body.on('arith.mulf', y, slope)}, {y} : f32")
    limited = body.on("arith.minimumf", body.on("arith.maximumf", y, low), high)
    y = body.let(f"arith.select {has(CLIP)}, {limited}, {y} : f32")
    y = body.either(has(TABLE), "f32", lambda: body.curve(body.rounded(y), tables, place), y)
    return y, end, has(MORE)


def give_floats(kernel: Kernel, channels: Mapping[str, Channel], element: str) -> list[str]:
    """Results into the token `element`, number %token: rounded, or the halves of f32 bits, the lower one first."""
    body, out = RowBody(kernel, channels), channels[kernel.outputs[0]]
    sums, kind = f"%sums_{kernel.name}", memref(float_sums(kernel, channels))
    (m, n), pieces = out.shape, result_tokens(kernel)
    rows, columns = body.index(m // pieces), body.index(n)
    first = body.let(f"arith.muli %token, {rows} : index")
    row, column = body.loop("%c0", rows), body.loop("%c0", columns)
    place = body.let(f"arith.addi {first}, {row} : index")
    y = body.let(f"memref.load {sums}[{place}, {column}] : {kind}")
    if pieces == 1:
        number = body.let(f"arith.truncf {y} : f32 to bf16")
        body.do(f"memref.store {number}, {element}[{row}, {column}] : {memref(out)}")
    else:
        bits = body.let(f"arith.bitcast {y} : f32 to i32")
        line = body.let(f"arith.muli {row}, {columns} : index")
        number = body.let(f"arith.addi {line}, {column} : index")
        begin = body.let(f"arith.muli {number}, {body.index(2)} : index")
        for half in range(2):
            moved = body.let(f"arith.shrui {bits}, {body.word(16 * half)} : i32")
            short = body.let(f"arith.bitcast {body.let(f'arith.trunci {moved} : i32 to i16')} : i16 to bf16")
            at = body.let(f"arith.addi {begin}, {body.index(half)} : index")
            to = [body.let(f"arith.{name} {at}, {columns} : index") for name in ("divui", "remui")]
            body.do(f"memref.store {short}, {element}[{', '.join(to)}] : {memref(out)}")
    body.end()
    body.end()
    return body.lines
