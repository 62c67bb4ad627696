"""What a core does with a tile of bf16 products' sums before it leaves: scales and shifts of columns, an activation.

All of it is f32 up to a table, which takes and gives bf16 numbers. Parameters travel behind B's last tile, as those of
`requantize.py` do: 32-bit words, little-endian, of each stage its head, its scales and its shifts, one a column; then
the tables, unless the program has them. `backends/npu/finish_floats.py` decides which stages follow a product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error
from neuc.runtime.npu.functions import FUNCTIONS, Array, State, Tokens, from_bf16, function, number, to_bf16
from neuc.runtime.npu.program import ParamValue
from neuc.runtime.npu.program_json import CODE, CURE
from neuc.runtime.npu.row_functions import curve_of

MOST_STAGES = 2
"""Stages one after the other, at most."""
MOST_VECTORS = 3
"""Scales and shifts of all stages, at most: room for them is kept in every core."""
HEAD = 5
"""Words in front of a stage: what it has, where its table begins, slope, lowest and highest number."""
SCALE, SHIFT, SLOPE, CLIP, TABLE, MORE = 1, 2, 4, 8, 16, 32
"""What a stage has; `MORE`: another one follows."""


@dataclass(frozen=True)
class FloatFinish:
    """What follows the sums of a product on its core.

    Attributes:
        stages: how many; 0 if sums are only rounded.
        vectors: scales and shifts of all stages.
        passes: operations on all numbers of a tile in f32.
        tables: words of each stage's table, in turn.
        narrow: the result leaves as bf16, otherwise as f32.
        contents: what tells one table from another, a string each.
    """

    stages: int = 0
    vectors: int = 0
    passes: int = 0
    tables: tuple[int, ...] = ()
    narrow: bool = False
    contents: tuple[str, ...] = ()


def float_parameter_bytes(columns: int, finish: FloatFinish, *, resident: bool) -> int:
    """Bytes of the parameters of so many columns; `resident`: tables are the program's."""
    words = finish.stages * HEAD + finish.vectors * columns
    return 4 * (words + (0 if resident else sum(finish.tables)))


def float_room(columns: int, table_words: int) -> int:
    """Bytes of a core's memory that parameters and tables take at most."""
    return 4 * (MOST_STAGES * HEAD + MOST_VECTORS * columns + table_words)


@dataclass(frozen=True)
class FloatStage:
    """One stage: y = activation(sum · scale + shift), column by column; what is None is left out.

    Attributes:
        scale: f32 [N].
        shift: f32 [N].
        slope: numbers below 0 are multiplied by it.
        limits: the lowest and the highest result.
        table: a curve as in `npu.chain`, i32 words.
        place: the word at which its table begins among the program's; -1 if it travels.
    """

    scale: NDArray[np.float32] | None = None
    shift: NDArray[np.float32] | None = None
    slope: float | None = None
    limits: tuple[float, float] | None = None
    table: NDArray[np.int32] | None = None
    place: int = -1


def float_block(stages: Sequence[FloatStage], begin: int, columns: int) -> NDArray[np.uint8]:
    """The parameters of `columns` columns from `begin` on; columns beyond the last have scale and shift 0."""
    vectors = [[_part(v, begin, columns) for v in (stage.scale, stage.shift) if v is not None] for stage in stages]
    end = len(stages) * HEAD + sum(map(len, vectors)) * columns
    words, tables = list[NDArray[np.int32]](), list[NDArray[np.int32]]()
    for stage, own in zip(stages, vectors):
        place = stage.place
        if stage.table is not None and place < 0:
            place = end + sum(map(len, tables))
            tables.append(stage.table)
        words += [_head(stage, place, more=stage is not stages[-1]), *own]
    return np.concatenate([*words, *tables]).astype("<i4").view(np.uint8)


def _head(stage: FloatStage, place: int, *, more: bool) -> NDArray[np.int32]:
    has = (stage.scale, stage.shift, stage.slope, stage.limits, stage.table)
    flags = sum(bit for bit, part in zip((SCALE, SHIFT, SLOPE, CLIP, TABLE), has) if part is not None) + MORE * more
    numbers = np.array([stage.slope or 0.0, *(stage.limits or (0.0, 0.0))], np.float32)
    return np.array([flags, max(place, 0), *numbers.view(np.int32)], np.int32)


def _part(vector: NDArray[np.float32], begin: int, columns: int) -> NDArray[np.int32]:
    part = np.zeros(columns, np.float32)
    given = vector[begin : begin + columns]
    part[: len(given)] = given
    return part.view(np.int32)


def finished_floats(
    sums: NDArray[np.float32], words: NDArray[np.int32], tables: NDArray[np.int32] | None = None
) -> NDArray[np.float32]:
    """What becomes of sums [m, n], given the parameters of n columns as words (with anything behind them).

    Args:
        sums: f32 [m, n].
        words: what `float_block` makes.
        tables: the program's; None if they travel.
    """
    n, y, at, more = sums.shape[1], sums, 0, True
    with np.errstate(all="ignore"):
        while more:
            flags, place = int(words[at]), int(words[at + 1])
            slope, low, high = words[at + 2 : at + HEAD].view(np.float32)
            at += HEAD
            if flags & SCALE:
                y, at = y * words[at : at + n].view(np.float32), at + n
            if flags & SHIFT:
                y, at = y + words[at : at + n].view(np.float32), at + n
            if flags & SLOPE:
                y = np.where(y < 0, y * slope, y)
            if flags & CLIP:
                y = np.minimum(np.maximum(y, low), high)
            if flags & TABLE:
                y = curve_of(from_bf16(to_bf16(y)), (words if tables is None else tables)[place:])
            more = bool(flags & MORE)
    return y


@function("finished_bf16_gemm")
def _finished(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    """`bf16_gemm`, then what its parameters say, if it has any; C leaves in ``pieces`` tokens of bf16 numbers.

    One token is the results rounded; two are the bits of f32 results, the lower half of each first.
    """
    steps, more, pieces = (number(params, name) for name in ("steps", "parameters", "pieces"))
    if phase < steps:
        given = FUNCTIONS["bf16_gemm"](params, phase, tokens, state)[0]
        if given:
            state["y"], state["block"] = given[0], np.zeros(0, np.uint16)
        return [[]]
    y = np.asarray(state["y"], np.float32)
    if phase < steps + more:
        block = np.concatenate([state["block"], np.asarray(tokens[1][0]).reshape(-1)])
        state["block"] = block
        if phase + 1 == steps + more:
            tables = params.get("tables")
            words = np.ascontiguousarray(block[: len(block) // 2 * 2], np.uint16).view("<i4")
            try:
                state["y"] = finished_floats(y, words, None if tables is None else np.array(tables, np.int32))
            except (IndexError, ValueError) as error:
                raise Error(CODE, "parameters of a product of floats are damaged", hint=CURE) from error
        return [[]]
    if pieces == 1:
        return [[to_bf16(y)]]
    rows = len(y) // pieces
    part = np.ascontiguousarray(y[(phase - steps - more) * rows :][:rows])
    return [[part.view(np.uint16).reshape(y.shape)]]
