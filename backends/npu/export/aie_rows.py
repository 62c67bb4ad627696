"""The core of a chain, a softmax or a norm in MLIR: loops over a token's numbers, tables in buffers of the core's tile.

They round where the simulator does, and add in its order, so that a body gives the specification's bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from neuc.backends.npu.export.aie_body import Body
from neuc.backends.npu.export.aie_types import memref
from neuc.errors import Error
from neuc.runtime.npu.program import Channel, Kernel
from neuc.runtime.npu.row_functions import LANES, OCTAVES, chain_steps
from neuc.runtime.npu.rows import FUNCTIONS

ROWS = frozenset(FUNCTIONS.values())
"""Functions of kernels on lines."""
_OPERATIONS = {"add": "addf", "sub": "subf", "mul": "mulf", "max": "maximumf", "min": "minimumf"}


class RowBody(Body):
    """A body on lines of bf16 numbers."""

    def __init__(self, kernel: Kernel, channels: Mapping[str, Channel]) -> None:
        super().__init__()
        self.kernel = kernel
        self.taken, self.given = channels[kernel.inputs[0]], channels[kernel.outputs[0]]

    def number(self, value: float) -> str:
        """A constant f32, by its bits, which spell infinities, too."""
        return self.let(f"arith.constant 0x{int(np.float32(value).view(np.uint32)):08X} : f32")

    def on(self, operation: str, *values: str) -> str:
        """An operation on f32."""
        return self.let(f"{operation} {', '.join(values)} : f32")

    def rounded(self, value: str) -> str:
        """An f32 rounded to bf16."""
        return self._wide(self._narrow(value))

    def taken_at(self, line: str, column: str) -> str:
        """A number of the token, as f32."""
        return self._wide(self.let(f"memref.load %e0[{line}, {column}] : {memref(self.taken)}"))

    def given_at(self, line: str, column: str) -> str:
        """A number of the result, as f32."""
        return self._wide(self.let(f"memref.load %e1[{line}, {column}] : {memref(self.given)}"))

    def give(self, value: str, line: str, column: str) -> None:
        """Round and store."""
        self.do(f"memref.store {self._narrow(value)}, %e1[{line}, {column}] : {memref(self.given)}")

    def _wide(self, value: str) -> str:
        return self.let(f"arith.extf {value} : bf16 to f32")

    def _narrow(self, value: str) -> str:
        return self.let(f"arith.truncf {value} : f32 to bf16")

    def table(self, key: str) -> tuple[str, str]:
        """A table's buffer and its type."""
        return f"%{key}_{self.kernel.name}", f"memref<{len(table_of(self.kernel, key))}xi32>"

    def curve(self, value: str, table: tuple[str, str], begin: str = "") -> str:
        """A function by its table, which begins at word `begin`; `value` is a bf16 number as f32."""
        words = self.words

        def loaded(place: str) -> str:
            place = words("addi", place, begin) if begin else place
            at = self.let(f"arith.index_cast {place} : i32 to index")
            return self.let(f"memref.load {table[0]}[{at}] : {table[1]}")

        short = self.let(f"arith.bitcast {self._narrow(value)} : bf16 to i16")
        bits = self.let(f"arith.extui {short} : i16 to i32")
        octave = loaded(words("shrui", bits, self.word(7)))
        shift, first = words("shrui", octave, self.word(16)), words("andi", octave, self.word(0xFFFF))
        mantissa, one = words("andi", bits, self.word(127)), self.word(1)
        segment = words("addi", first, words("shrui", mantissa, shift))
        place = words("addi", words("shli", segment, one), self.word(OCTAVES))
        mask = words("subi", words("shli", one, shift), one)
        along = self.let(f"arith.uitofp {words('andi', mantissa, mask)} : i32 to f32")
        level = self.let(f"arith.bitcast {loaded(place)} : i32 to f32")
        slope = self.let(f"arith.bitcast {loaded(words('addi', place, one))} : i32 to f32")
        return self.rounded(self.on("arith.addf", level, self.on("arith.mulf", along, slope)))

    def clear_lanes(self) -> None:
        """Partial sums of a row to 0."""
        zero = self.number(0.0)
        lane = self.loop("%c0", self.index(LANES))
        self.do(f"memref.store {zero}, %lanes_{self.kernel.name}[{lane}] : memref<{LANES}xf32>")
        self.end()

    def add_to_lane(self, value: str, column: str) -> None:
        """Add a column's number to its partial sum."""
        lanes, kind = f"%lanes_{self.kernel.name}", f"memref<{LANES}xf32>"
        lane = self.let(f"arith.remui {column}, {self.index(LANES)} : index")
        total = self.on("arith.addf", self.let(f"memref.load {lanes}[{lane}] : {kind}"), value)
        self.do(f"memref.store {total}, {lanes}[{lane}] : {kind}")

    def lanes_total(self) -> str:
        """Partial sums, added by halves."""
        lanes, kind = f"%lanes_{self.kernel.name}", f"memref<{LANES}xf32>"
        half = LANES // 2
        while half:
            distance = self.index(half)
            lane = self.loop("%c0", distance)
            other = self.let(f"arith.addi {lane}, {distance} : index")
            low, high = (self.let(f"memref.load {lanes}[{at}] : {kind}") for at in (lane, other))
            self.do(f"memref.store {self.on('arith.addf', low, high)}, {lanes}[{lane}] : {kind}")
            self.end()
            half //= 2
        return self.let(f"memref.load {lanes}[%c0] : {kind}")


def table_of(kernel: Kernel, key: str) -> list[int]:
    """The words of a table.

    Raises:
        Error: NEUC-E683, the kernel has none yet.
    """
    words = kernel.params.get(key)
    if not isinstance(words, list):
        raise Error("NEUC-E683", f"kernel {kernel.name} has no table {key}", hint="export it from an artifact")
    return words


def row_tables(kernel: Kernel) -> dict[str, list[int]]:
    """Buffers on the core's tile that begin as tables."""
    return {f"{key}_{kernel.name}": table_of(kernel, key) for key in _keys(kernel)}


def _keys(kernel: Kernel) -> Sequence[str]:
    if kernel.function == FUNCTIONS["softmax"]:
        return ["curve0"]
    steps = chain_steps(str(kernel.params.get("steps", ""))) if kernel.function == FUNCTIONS["chain"] else []
    return sorted({f"curve{words[2]}" for words in steps if words[0] == "curve"})


def row_buffers(kernel: Kernel) -> dict[str, str]:
    """Buffers on the core's tile: partial sums of a row."""
    return {} if kernel.function == FUNCTIONS["chain"] else {f"lanes_{kernel.name}": f"memref<{LANES}xf32>"}


def row_body(kernel: Kernel, channels: Mapping[str, Channel]) -> list[str]:
    """What a firing does with the token %e0 for the result %e1; %c0 and %c1 are there."""
    body = RowBody(kernel, channels)
    rows, columns = (int(str(kernel.params[key])) for key in ("rows", "columns"))
    if kernel.function == FUNCTIONS["chain"]:
        _chain(body, rows, columns)
        return body.lines
    count, zero = body.index(columns), body.number(0.0)
    tables = {key: body.table(key) for key in _keys(kernel)}
    line = body.loop("%c0", body.index(rows))
    if kernel.function == FUNCTIONS["softmax"]:
        _softmax(body, line, count, tables["curve0"])
    else:
        _layer_norm(body, line, count, columns)
    rest = body.loop(count, body.index(body.given.shape[1]))
    body.give(zero, line, rest)
    body.end()
    body.end()
    return body.lines


def _chain(body: RowBody, rows: int, columns: int) -> None:
    steps = chain_steps(str(body.kernel.params["steps"]))
    operands = body.taken.shape[0] // rows
    tables = {key: body.table(key) for key in _keys(body.kernel)}
    offsets = [body.index(i * rows) for i in range(operands)]
    line = body.loop("%c0", body.index(rows))
    column = body.loop("%c0", body.index(columns))
    values = [body.taken_at(body.let(f"arith.addi {line}, {offset} : index"), column) for offset in offsets]
    for kind, *words in steps:
        if kind == "constant":
            values.append(body.number(float(words[0])))
        elif kind == "curve":
            values.append(body.curve(values[int(words[0])], tables[f"curve{words[1]}"]))
        else:
            a, b = (values[int(word)] for word in words)
            values.append(body.rounded(body.on(f"arith.{_OPERATIONS[kind]}", a, b)))
    body.give(values[-1], line, column)
    body.end()
    body.end()


def _softmax(body: RowBody, line: str, count: str, table: tuple[str, str]) -> None:
    lanes, kind = f"%lanes_{body.kernel.name}", f"memref<{LANES}xf32>"
    body.do(f"memref.store {body.taken_at(line, '%c0')}, {lanes}[%c0] : {kind}")
    column = body.loop("%c1", count)
    largest = body.on("arith.maximumf", body.let(f"memref.load {lanes}[%c0] : {kind}"), body.taken_at(line, column))
    body.do(f"memref.store {largest}, {lanes}[%c0] : {kind}")
    body.end()
    largest = body.let(f"memref.load {lanes}[%c0] : {kind}")
    body.clear_lanes()
    column = body.loop("%c0", count)
    e = body.curve(body.rounded(body.on("arith.subf", body.taken_at(line, column), largest)), table)
    body.give(e, line, column)
    body.add_to_lane(e, column)
    body.end()
    share = body.rounded(body.on("arith.divf", body.number(1.0), body.lanes_total()))
    column = body.loop("%c0", count)
    body.give(body.on("arith.mulf", body.given_at(line, column), share), line, column)
    body.end()


def _layer_norm(body: RowBody, line: str, count: str, columns: int) -> None:
    rows, part = int(str(body.kernel.params["rows"])), float(np.float32(1 / columns))
    share, scales, biases = body.number(part), body.index(rows), body.index(rows + 1)
    mean = body.number(0.0)
    if not body.kernel.params["rms"]:
        body.clear_lanes()
        column = body.loop("%c0", count)
        body.add_to_lane(body.taken_at(line, column), column)
        body.end()
        mean = body.on("arith.mulf", body.lanes_total(), share)
    body.clear_lanes()
    column = body.loop("%c0", count)
    d = body.rounded(body.on("arith.subf", body.taken_at(line, column), mean))
    body.give(d, line, column)
    body.add_to_lane(body.on("arith.mulf", d, d), column)
    body.end()
    variance = body.on("arith.mulf", body.lanes_total(), share)
    root = body.on("math.sqrt", body.on("arith.addf", variance, body.number(float(str(body.kernel.params["eps"])))))
    r = body.rounded(body.on("arith.divf", body.number(1.0), root))
    column = body.loop("%c0", count)
    y = body.rounded(body.on("arith.mulf", body.given_at(line, column), r))
    y = body.rounded(body.on("arith.mulf", y, body.taken_at(scales, column)))
    body.give(body.on("arith.addf", y, body.taken_at(biases, column)), line, column)
    body.end()
