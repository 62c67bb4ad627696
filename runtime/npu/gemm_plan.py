"""How a product is cut up for an array: tiles of one core, which core makes what, and the weights in that order.

The dataflow graph of a plan is `gemm.py`; choosing plans is the compiler's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from neuc.runtime.npu.float_finish import FloatFinish, FloatStage, float_block, float_parameter_bytes, float_room
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import DTYPES
from neuc.runtime.npu.requantize import Finish, Requantize, in_turn, parameter_block, parameter_bytes
from neuc.runtime.npu.residual import Residual, own_columns

CODES_A_BYTE = 4
_F32 = 4

AnyFinish: TypeAlias = Finish | FloatFinish
"""What follows a product's sums on its core: requantisation of integers, or operations on floats."""


@dataclass(frozen=True)
class Operands:
    """Element types of a product: of A, of B as it travels, of C; the kernel's function; the machine file's rate."""

    a: str
    b: str
    c: str
    function: str
    rate: str


OPERANDS: Mapping[str, Operands] = {
    "ternary": Operands("i8", "u8", "i32", "ternary_gemm", "i8xternary->i32"),
    "int8": Operands("i8", "i8", "i32", "gemm", "i8xi8->i32"),
    "bf16": Operands("bf16", "bf16", "f32", "bf16_gemm", "bf16xbf16->bf16"),
}
"""``ternary`` weights are 2-bit codes, four a byte, decoded on the core."""

SPREADS: Mapping[str, tuple[str, str]] = {
    "grid": ("row", "column"),
    "turned": ("column", "row"),
    "down": ("each", "one"),
    "across": ("one", "each"),
}
"""How A and B reach the cores. ``row``, ``column``: one stream for each row or column of cores, by broadcast; ``one``:
one for all cores; ``each``: every core its own, cut out of its column's in the memory tile."""


@dataclass(frozen=True)
class GemmPlan:
    """Tiles m x k x n of one core, the rows and columns of cores in use, operands and spread (see `SPREADS`).

    Core (c, r) makes part `place(c, r)` of a block of C, which is `parts` tiles of m x n. With ``finish`` a tile of C
    leaves as m x n bytes: int8 codes, made on the core with parameters that follow B's last tile (`requantize.py`), or,
    without parameters, int32 sums in four tokens of m / 4 rows each. So one program serves both. Another tensor's codes
    that are added on the core follow A's last tile (`residual.py`). With bf16 operands it leaves as bf16 numbers, or as
    f32 ones in two tokens, after what parameters say (`float_finish.py`); ``tables`` is how many words of tables a core
    has room for, which with ``resident`` are the program's and otherwise parameters.
    """

    m: int
    k: int
    n: int
    rows: int
    cols: int
    operands: str = "int8"
    spread: str = "grid"
    finish: bool = False
    tables: int = 0
    resident: bool = False

    @staticmethod
    def on(
        machine: Machine,
        tile: tuple[int, int, int],
        operands: str,
        spread: str = "grid",
        finish: bool = False,
        tables: int = 0,
        resident: bool = False,
    ) -> GemmPlan:
        """The plan for a machine: all columns, and all rows of cores that columns can feed (one a row's stream)."""
        rows = len({row for _, row in machine.tiles("core")})
        if "row" in SPREADS[spread]:
            rows = min(rows, machine.cols)
        return GemmPlan(*tile, rows, machine.cols, operands, spread, finish, tables, resident)

    @property
    def kind(self) -> Operands:
        """Element types and kernel."""
        return OPERANDS[self.operands]

    @property
    def function(self) -> str:
        """What a core runs."""
        return f"finished_{self.kind.function}" if self.finish else self.kind.function

    @property
    def token_c(self) -> str:
        """Element type of the tokens that carry C."""
        return self.kind.a if self.finish else self.kind.c

    @property
    def room(self) -> int:
        """Bytes of a core's memory for parameters and tables."""
        if not self.finish:
            return 0
        return float_room(self.n, self.tables) if self.operands == "bf16" else parameter_bytes(self.n)

    @property
    def parts(self) -> tuple[int, int]:
        """Tiles of a block of C, down and across."""
        cores = self.rows * self.cols
        return {
            "grid": (self.rows, self.cols),
            "turned": (self.cols, self.rows),
            "down": (cores, 1),
            "across": (1, cores),
        }[self.spread]

    def place(self, column: int, row: int) -> tuple[int, int]:
        """Which tile of a block a core makes."""
        number = column * self.rows + row
        return {"grid": (row, column), "turned": (column, row), "down": (number, 0), "across": (0, number)}[self.spread]

    @property
    def block_m(self) -> int:
        """Rows of C the array makes at once."""
        return self.m * self.parts[0]

    @property
    def block_n(self) -> int:
        """Columns of C the array makes at once."""
        return self.n * self.parts[1]

    @property
    def width(self) -> int:
        """Elements of a row of B's tile as it travels."""
        return self.n // CODES_A_BYTE if self.operands == "ternary" else self.n

    @property
    def tiles_of_a(self) -> int:
        """Tiles of A that travel in one token from host memory."""
        return self.rows if SPREADS[self.spread][0] == "each" else 1

    @property
    def taken_at_once(self) -> int:
        """Tiles of B that travel in one token from host memory."""
        return self.rows if SPREADS[self.spread][1] == "each" else 1

    def parameter_tokens(self, finish: AnyFinish | None) -> int:
        """Tokens of B's size that carry the parameters of a tile's columns."""
        if finish is None:
            return 0
        if isinstance(finish, FloatFinish):
            needed = float_parameter_bytes(self.n, finish, resident=self.resident)
        else:
            needed = parameter_bytes(self.n, finish)
        return -(-needed // (self.k * self.width * DTYPES[self.kind.b].itemsize))

    @property
    def residual_tokens(self) -> int:
        """Tokens of A's size that carry another tensor's tiles: m rows, and all columns of a block."""
        return -(-self.block_n // self.k)


def result_type(operands: str, finish: AnyFinish | None) -> str:
    """Element type of C in host memory."""
    if isinstance(finish, FloatFinish):
        return "bf16" if finish.narrow else "f32"
    return OPERANDS[operands].c if finish is None else "i8"


def adds(finish: AnyFinish | None) -> bool:
    """Whether another tensor's codes are added behind a product."""
    return isinstance(finish, Finish) and finish.residual > 0


def emitted_tokens(plan: GemmPlan, finish: AnyFinish | None) -> int:
    """Tokens that carry one tile of C."""
    return DTYPES[result_type(plan.operands, finish)].itemsize // DTYPES[plan.token_c].itemsize


def blocks(plan: GemmPlan, m: int, k: int, n: int) -> tuple[int, int, int]:
    """Sizes filled up to whole blocks."""
    return (_up(m, plan.block_m), _up(k, plan.k), _up(n, plan.block_n))


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def weight_shape(plan: GemmPlan, k: int, n: int, finish: AnyFinish | None = None) -> tuple[int, ...]:
    """Shape of B in host memory, for sizes in whole blocks: tile columns, steps, tiles of a token, then k x n.

    Steps of a finished product are followed by its parameters.
    """
    at_once, more = plan.taken_at_once, plan.parameter_tokens(finish)
    return (n // plan.n // at_once, k // plan.k + more, at_once, plan.k, plan.width)


def tiled_weights(plan: GemmPlan, rows: NDArray[np.generic]) -> NDArray[np.generic]:
    """B for the host buffer (see `weight_shape`), from weights [N, K]; ternary ones four codes a byte."""
    big_n, big_k = rows.shape
    _, padded_k, padded_n = blocks(plan, 1, big_k, big_n)
    whole = np.zeros((padded_k, padded_n), rows.dtype)
    whole[:big_k, :big_n] = rows.T
    at_once = plan.taken_at_once
    tiles = whole.reshape(padded_k // plan.k, plan.k, padded_n // plan.n // at_once, at_once, plan.n)
    tiles = tiles.transpose(2, 0, 3, 1, 4)
    if plan.operands != "ternary":
        return np.ascontiguousarray(tiles)
    whole_codes = np.asarray(tiles.astype(np.int8) + np.int8(1), np.uint8)
    codes = whole_codes.reshape(*tiles.shape[:-1], plan.width, CODES_A_BYTE)
    packed = codes[..., 0] | codes[..., 1] << 2 | codes[..., 2] << 4 | codes[..., 3] << 6
    return np.ascontiguousarray(packed)


def finished_weights(
    plan: GemmPlan, tiles: NDArray[np.generic], stages: Sequence[Requantize], residual: Residual | None = None
) -> NDArray[np.generic]:
    """Tiles of B, as `tiled_weights` makes them, each column of tiles followed by its parameters."""
    more = plan.parameter_tokens(in_turn(stages, residual))
    return _with_parameters(plan, tiles, more, lambda begin: parameter_block(stages, begin, plan.n, residual))


def finished_float_weights(
    plan: GemmPlan, tiles: NDArray[np.generic], stages: Sequence[FloatStage], finish: FloatFinish
) -> NDArray[np.generic]:
    """Tiles of B in bf16, each column of tiles followed by its parameters, if there are any."""
    more = plan.parameter_tokens(finish)
    return _with_parameters(plan, tiles, more, lambda begin: float_block(stages, begin, plan.n)) if more else tiles


def _with_parameters(
    plan: GemmPlan, tiles: NDArray[np.generic], more: int, block_of: Callable[[int], NDArray[np.uint8]]
) -> NDArray[np.generic]:
    """Tiles of B with `more` tokens behind each column of them, which hold the bytes of its block."""
    at_once, dtype = plan.taken_at_once, tiles.dtype
    columns = tiles.shape[0] * at_once
    tokens = np.zeros((columns, more * plan.k * plan.width * dtype.itemsize), np.uint8)
    for j in range(columns):
        block = block_of(j * plan.n)
        tokens[j, : len(block)] = block
    parameters = tokens.view(dtype).reshape(-1, at_once, more, plan.k, plan.width).transpose(0, 2, 1, 3, 4)
    return np.concatenate([tiles, parameters], axis=1)


def kernel_cycles(
    plan: GemmPlan, machine: Machine, steps: int, finish: AnyFinish | None = None, part: int = 0
) -> tuple[int, ...]:
    """Cycles of each step of a sum: multiply-adds, decoding of codes, and storing C after the last.

    A finished product then takes its parameters in, token by token, and requantises with the last one, and adds what
    it needs of another tensor's tokens, as tile number `part` of a block's row; sums of a plan that could finish leave
    in four tokens. Floats are finished with the last token of parameters, and then leave.
    """
    rate = machine.gemm[plan.kind.rate]
    each = plan.m * plan.k * plan.n / rate.peak_macs_per_cycle
    if plan.operands == "ternary":
        each += plan.k * plan.n / machine.timing["ternary_decode_weights_per_cycle"]
    last = each + plan.m * plan.n * rate.cycles_per_output
    cycles = (*[round(each)] * (steps - 1), round(last))
    if not plan.finish:
        return cycles
    timing, pieces, more = machine.timing, emitted_tokens(plan, finish), plan.parameter_tokens(finish)
    taken = plan.k * plan.width * DTYPES[plan.kind.b].itemsize / timing["copy_bytes_per_cycle"]
    given = plan.m * plan.n * DTYPES[plan.kind.c].itemsize / pieces / timing["copy_bytes_per_cycle"]
    if finish is None:
        return (*cycles, *[round(given)] * pieces)
    if isinstance(finish, FloatFinish):
        output = finish.passes * _F32 / timing["elementwise_lanes_8bit"]
        output += len(finish.tables) * timing["library_curve_cycles"]
        taking = [round(taken)] * (more - 1) + [round(taken + plan.m * plan.n * output)] * (more > 0)
        return (*cycles, *taking, *[round(given)] * pieces)
    output = finish.stages / timing["requantize_outputs_per_cycle"]
    output += finish.corrections / timing["correction_outputs_per_cycle"]
    output += finish.tables / timing["table_lookups_per_cycle"]
    cycles = (*cycles, *[round(taken)] * (more - 1), round(taken + plan.m * plan.n * output))
    if not finish.residual:
        return cycles
    # Two products of codes with 32 bits, where a sum has one; its tables are counted with the columns'.
    adding = 2 / timing["requantize_outputs_per_cycle"] + finish.pairs / timing["correction_outputs_per_cycle"]
    counts = [own_columns(token, plan.k, part, plan.n)[2] for token in range(plan.residual_tokens)]
    return (*cycles, *(round(plan.m * count * adding) for count in counts))
