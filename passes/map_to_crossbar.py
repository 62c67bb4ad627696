"""The pass `map-to-crossbar`: layers with constant weights become tiles of a crossbar, with ideal converters.

What a layer's matrix is stands in `crossbar_layers.py`; converters come with `insert-converters`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter
from xdsl.rewriter import InsertPoint

from neuc.dialects.context import store_of
from neuc.dialects.crossbar import AccumulateOp, AdcOp, DacOp, MvmOp
from neuc.dialects.crossbar_tiles import COMPENSATIONS, CompensateOp, ProgramOp, VerifyOp
from neuc.dialects.crossbar_types import CELLS, MAX_LINES, TileType, tile_of
from neuc.dialects.dense import MatMulOp, ReshapeOp
from neuc.dialects.locations import node_names
from neuc.dialects.spike_time import LoopOp
from neuc.dialects.store import ConstantOp, dims_of, tensor_type
from neuc.dialects.ternary import LookupOp, QuantizeOp, WeightOp
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error, Exit
from neuc.passes.analysis.ternary_layers import layers
from neuc.passes.crossbar_layers import (
    MAPPABLE,
    Mappable,
    MappedLayer,
    balanced,
    inputs_of,
    mapped_layer,
    outputs_of,
    reason_for_cpu,
    tile_count,
)
from neuc.passes.module_facts import add_notes

SCALINGS = ("column", "tile")
MAX_SLICES = 8
MOST_TILES = 10_000
"""Each is programmed and compiled by itself, at 10 ms or so."""


@dataclass(frozen=True)
class _Tile:
    """Weights of one array and where they are in the layer's matrix."""

    row: int
    column: int
    weights: np.ndarray
    scales: np.ndarray


@dataclass
class _Made:
    """Tiles so far: their number, and those of matrices that several layers read, such as an unrolled LSTM's."""

    count: int = 0
    shared: dict[tuple[str, str], list[_Programmed]] = field(default_factory=dict[tuple[str, str], "list[_Programmed]"])


@dataclass
class _Programmed:
    """A tile in the IR, and how often it is used."""

    row: int
    column: int
    tile: SSAValue
    gains: SSAValue
    uses: int = 0


@dataclass(frozen=True)
class MapToCrossbar(ModulePass):
    """Replace layers with constant weights by crossbar tiles.

    Rules:
        1. `dense.matmul`, `dense.conv` and ternary layers whose activations neuc rounds become, for each tile,
           `crossbar.program`, `compensate`, `dac`, `mvm` and `adc`, and one `crossbar.accumulate` with bias and
           activation.
        2. Matrices larger than an array are cut into equal parts; partial sums are added digitally.
        3. Each column of a tile is scaled so that its largest weight is 1 (or the whole tile, with ``scaling = tile``);
           ternary weights are then -1, 0 and 1, each one device pair at full scale, and planes are tiles of their own.
        4. As many groups of a grouped convolution as fit are one block-diagonal tile.
        5. With ``slices`` > 1, weights are cut into digits of ``slice_bits`` bits, each on tiles of its own.
        6. In a loop over time, tiles are programmed before it, and a conversion knows the step it is in.
        7. What stays on the CPU is noted, with the reason.

    Before and after::

        %y = dense.matmul(%x, %w, %b) : (tensor<2x300xf32>, tensor<300x8xf32>, tensor<8xf32>) -> tensor<2x8xf32>

        %t = crossbar.program 0 weights "w.0" sha … device "pcm" : !crossbar.tile<150 x 8, differential>
        %g = crossbar.compensate %t …
        %v = crossbar.dac %x : tensor<2x300xf32> -> !crossbar.voltages<150>
        %i = crossbar.mvm %v, %t : …
        %p = crossbar.adc %i, %g : …
        …
        %y = crossbar.accumulate(%p, %q : …) bias %b : tensor<8xf32> … -> tensor<2x8xf32>

    Options:
        rows: input lines of an array.
        columns: output lines of an array.
        device: name of the device model.
        cells: differential or offset.
        scaling: column or tile.
        compensation: correction for drift: none, global (one factor for a tile) or column.
        slices: digits that weights are cut into.
        slice_bits: bits of a digit.
        verify_rounds: rounds of program-and-verify; 0 for none.
        verify_tolerance: µS within which a device need not be programmed again.
    """

    name = "map-to-crossbar"
    rows: int = 256
    columns: int = 256
    device: str = "pcm"
    cells: str = "differential"
    scaling: str = "column"
    compensation: str = "global"
    slices: int = 1
    slice_bits: int = 3
    verify_rounds: int = 0
    verify_tolerance: float = 0.0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        self.check()
        store, kept = store_of(ctx), dict[str, list[str]]()
        mapped: list[Mappable] = []
        for name, layer in list(layers(op)):
            reason = reason_for_cpu(layer, store)
            if reason or not isinstance(layer, MAPPABLE):
                kept.setdefault(reason, []).append(name)
            else:
                mapped.append(layer)
        self._check_count(mapped)
        made = _Made()
        for layer in mapped:
            self._replace(layer, store, made)
        drop_unread(op)
        if kept:
            add_notes(op, *(_note(reason, names) for reason, names in kept.items()))

    def check(self) -> None:
        """Refuse options that make no sense.

        Raises:
            Error: NEUC-E651.
        """
        choices = (("cells", CELLS), ("scaling", SCALINGS), ("compensation", COMPENSATIONS))
        for option, known in choices:
            if getattr(self, option) not in known:
                raise _bad(f"{option} = {getattr(self, option)!r}", f"choose {', '.join(known)}")
        if not (1 <= self.rows <= MAX_LINES and 1 <= self.columns <= MAX_LINES):
            raise _bad(f"a tile of {self.rows} x {self.columns}", f"use 1 to {MAX_LINES} lines each way")
        if not (1 <= self.slices <= MAX_SLICES and 1 <= self.slice_bits <= MAX_SLICES):
            raise _bad(f"{self.slices} slices of {self.slice_bits} bits", f"use 1 to {MAX_SLICES} of each")

    def _check_count(self, mapped: list[Mappable]) -> None:
        """Refuse tiles without number before any is made."""
        once = {shared_name(layer) or layer: layer for layer in mapped}
        count = self.slices * sum(tile_count(layer, self.rows, self.columns) for layer in once.values())
        if count > MOST_TILES:
            raise Error(
                "NEUC-E663",
                f"the layers need {count} tiles of {self.rows} x {self.columns}, more than {MOST_TILES}",
                hint="give larger tiles, such as tile=256x256",
                exit_code=Exit.UNSUPPORTED,
            )

    def _replace(self, layer: Mappable, store: WeightStore, made: _Made) -> None:
        """Put tiles in the place of a layer; a matrix that was seen before is on tiles already."""
        rewriter = PatternRewriter(layer)
        inserted: list[Operation] = []
        rewriter.operation_insertion_handler.append(inserted.append)
        mapped = mapped_layer(layer, store, self.rows, self.columns)
        x = inputs_of(layer, rewriter)
        label = next(iter(node_names(layer)), layer.name)
        parts: list[SSAValue] = []
        starts: list[int] = []
        for tile in self._programmed(layer, mapped, label, store, made, rewriter):
            voltages = DacOp(x, tile_of(tile.tile).rows.data, first=tile.row)
            currents = MvmOp(rewriter.insert(voltages).result, tile.tile)
            read = rewriter.insert(currents).result
            parts.append(rewriter.insert(AdcOp(read, tile.gains, _step_around(layer), turn=tile.uses)).result)
            starts.append(tile.column)
            tile.uses += 1
        bias = mapped.bias
        if bias is not None and len(dims_of(bias)) != 1:
            bias = rewriter.insert(ReshapeOp(bias, tensor_type(f32, [mapped.columns]))).result
        total = AccumulateOp(parts, starts, [1.0] * len(parts), mapped.columns, bias, mapped.activation)
        result = outputs_of(layer, rewriter.insert(total).result, rewriter)
        for new in inserted:
            new.location = layer.location
        rewriter.replace(layer, [], [result])

    def _programmed(
        self,
        layer: Mappable,
        mapped: MappedLayer,
        label: str,
        store: WeightStore,
        made: _Made,
        rewriter: PatternRewriter,
    ) -> list[_Programmed]:
        """The tiles of a layer, programmed where they are read first."""
        key, parent = shared_name(layer), layer.parent_op()
        if key is not None and key in made.shared:
            return made.shared[key]
        if isinstance(parent, LoopOp):
            rewriter.insertion_point = InsertPoint.before(parent)
        found: list[_Programmed] = []
        for tile in (t for block in mapped.blocks for t in self._tiles(block.matrix, block.row, block.column)):
            found.append(self._tile(tile, f"{label}.tile{made.count}", made.count, store, rewriter))
            made.count += 1
        if key is not None:
            made.shared[key] = found
        rewriter.insertion_point = InsertPoint.before(layer)
        return found

    def _tiles(self, matrix: np.ndarray, row: int, column: int) -> Iterator[_Tile]:
        """The tiles of a block at (row, column), digit by digit."""
        rest = matrix
        for digit in range(self.slices):
            last = digit == self.slices - 1
            whole = rest if last else self._digit(rest)
            rest = rest - whole
            for first_row, rows in balanced(matrix.shape[0], self.rows):
                for first_column, columns in balanced(matrix.shape[1], self.columns):
                    part = whole[first_row : first_row + rows, first_column : first_column + columns]
                    largest = np.max(np.abs(part), axis=0 if self.scaling == "column" else None, initial=0)
                    scales = np.broadcast_to(largest, columns).astype(np.float32)
                    weights = np.divide(part, scales, out=np.zeros_like(part), where=scales > 0)
                    yield _Tile(row + first_row, column + first_column, weights, scales)

    def _digit(self, matrix: np.ndarray) -> np.ndarray:
        """The weights rounded to `slice_bits` bits and a sign, for each column."""
        steps = np.float32(2**self.slice_bits - 1)
        largest = np.max(np.abs(matrix), axis=0, initial=0)
        return (
            np.rint(np.divide(matrix, largest, out=np.zeros_like(matrix), where=largest > 0) * steps) / steps * largest
        )

    def _tile(self, tile: _Tile, name: str, number: int, store: WeightStore, rewriter: PatternRewriter) -> _Programmed:
        rows, columns = tile.weights.shape
        weights, scales = (store.add(f"{name}.{part}", getattr(tile, part)) for part in ("weights", "scales"))
        type_ = TileType.of(rows, columns, self.cells)
        program = rewriter.insert(ProgramOp(number, (weights, store.sha(weights)), self.device, type_)).result
        if self.verify_rounds:
            program = rewriter.insert(VerifyOp(program, self.verify_rounds, self.verify_tolerance)).result
        gains = rewriter.insert(CompensateOp(program, (scales, store.sha(scales)), self.compensation)).result
        return _Programmed(tile.row, tile.column, program, gains)


def shared_name(layer: Mappable) -> tuple[str, str] | None:
    """What layers with the same matrix have in common; None for layers that share none.

    A loop uses its tiles in every turn and leaves none to others.
    """
    if not isinstance(layer, MatMulOp) or not isinstance(layer.b.owner, ConstantOp) or _step_around(layer) is not None:
        return None
    constant, form = layer.b.owner, f"{layer.transpose_b is not None} {layer.alpha.value.data}"
    return None if constant.entry is None else (constant.entry.data, form)


def drop_unread(module: ModuleOp) -> None:
    """Erase constants, weights and codes that only replaced layers read."""
    for op in reversed(list(module.walk())):
        if isinstance(op, ConstantOp | WeightOp | QuantizeOp | LookupOp) and not any(r.first_use for r in op.results):
            op.detach()
            op.erase()


def _step_around(layer: Operation) -> SSAValue | None:
    """The number of the step of the loop that a layer is in, if it is in one."""
    parent = layer.parent_op()
    return parent.step if isinstance(parent, LoopOp) else None


def _note(reason: str, names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"on the CPU instead of a crossbar: {shown} ({reason})"


def _bad(what: str, hint: str) -> Error:
    return Error("NEUC-E651", f"map-to-crossbar: {what} makes no sense", hint=hint, exit_code=Exit.USAGE)
