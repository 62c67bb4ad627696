"""The pass `schedule-tiles`: which array each tile is on, where in it, and when it is used; the program as data.

Layers form a pipeline: while one works on an input, the next works on the one before. Its pace is that of the layer
that takes longest, which copies of its tiles divide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr, i64
from xdsl.ir import Block, SSAValue
from xdsl.passes import ModulePass

from neuc.backends.crossbar.packing import Place, pack
from neuc.dialects.crossbar import AdcOp, chain_of
from neuc.dialects.crossbar_tiles import CompensateOp, gains_name, program_of, weights_name
from neuc.dialects.crossbar_types import tile_of
from neuc.dialects.dims import product
from neuc.dialects.locations import node_names
from neuc.dialects.spike_time import LoopOp, YieldOp
from neuc.dialects.store import dims_of
from neuc.errors import Error, Exit
from neuc.passes.insert_converters import MODE
from neuc.passes.module_facts import add_notes, set_fact
from neuc.runtime.analog.photonic import PhotonicChip
from neuc.runtime.analog.program import MANIFEST_KEY, CrossbarProgram, TileEntry
from neuc.runtime.analog.tiles import Chip

_UNMEASURED = (
    "errors of the devices show only when asked for: --verify right after programming, "
    "`neuc run FILE --eval DATA.npz:LABELS --time 0,1d` accuracy at any age"
)


@dataclass(frozen=True)
class ScheduleTiles(ModulePass):
    """Place tiles on arrays and say when each is used.

    Rules:
        1. Tiles get an array of their own, or, with ``share``, rectangles of one: lines that rest add nothing.
        2. The step of a tile is the longest chain of layers before it.
        3. With ``cores`` arrays to spend, those left over hold copies of the tiles of the layer that takes longest, one
           layer after another (attribute `crossbar.copies` of its `crossbar.mvm`). Simulation computes with one copy.

    `crossbar.mvm` gets its `core` and `step`; the program as data becomes a fact of the module.

    Options:
        rows: input lines of an array.
        columns: output lines of an array.
        cores: arrays of the chip; 0 for as many as it takes.
        share: put several tiles on one array.
    """

    name = "schedule-tiles"
    rows: int = 256
    columns: int = 256
    cores: int = 0
    share: bool = True
    chip: Chip | PhotonicChip | None = field(default=None, init=False, compare=False, repr=False)

    def on(self, chip: Chip | PhotonicChip) -> Self:
        """Write the program as data for `chip`, too; returns this pass."""
        object.__setattr__(self, "chip", chip)
        return self

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        steps = _steps(op)
        conversions: dict[int, list[AdcOp]] = {}
        for inner in op.walk():
            if isinstance(inner, AdcOp):
                mvm, _ = chain_of(inner.currents)
                conversions.setdefault(program_of(mvm.tile).number.value.data, []).append(inner)
        entries = [_entry(number, adcs) for number, adcs in sorted(conversions.items())]
        places = self._places(entries)
        used = 1 + max((place.array for place in places), default=-1)
        copies = self._copies(entries, used)
        placed: list[TileEntry] = []
        for entry, place in zip(entries, places, strict=True):
            step = max(steps[adc] for adc in conversions[entry.number])
            placed.append(replace(entry, core=place.array, step=step, row=place.row, column=place.column))
            for adc in conversions[entry.number]:
                mvm, _ = chain_of(adc.currents)
                mvm.core, mvm.step = (IntegerAttr(value, i64) for value in (place.array, step))
                mvm.attributes["crossbar.copies"] = IntegerAttr(copies[entry.layer], i64)
        extra = sum((copies[entry.layer] - 1) for entry in entries)
        placed = [replace(entry, copies=copies[entry.layer]) for entry in placed]
        add_notes(op, *self._notes(placed, used, extra))
        if self.chip is not None:
            program = CrossbarProgram(self.chip, tuple(placed), self.rows, self.columns, used + extra)
            set_fact(op, MANIFEST_KEY, program.to_json())

    def _places(self, entries: Sequence[TileEntry]) -> list[Place]:
        if self.share:
            places = pack([(entry.rows, entry.columns) for entry in entries], self.rows, self.columns)
        else:
            places = [Place(index, 0, 0) for index in range(len(entries))]
        used = 1 + max((place.array for place in places), default=-1)
        if self.cores and used > self.cores:
            raise Error(
                "NEUC-E653",
                f"the layers need {used} arrays of {self.rows} x {self.columns}, the chip has {self.cores}",
                hint="give more cores or larger tiles, or keep layers on the CPU",
                exit_code=Exit.UNSUPPORTED,
            )
        return places

    def _copies(self, entries: Sequence[TileEntry], used: int) -> dict[str, int]:
        """How often each layer is there: spare arrays go to whatever is slowest."""
        layers: dict[str, list[TileEntry]] = {}
        for entry in entries:
            layers.setdefault(entry.layer, []).append(entry)
        copies = dict.fromkeys(layers, 1)
        spare = self.cores - used if self.cores else 0

        def time(layer: str) -> float:
            return max(entry.conversions * entry.passes for entry in layers[layer]) / copies[layer]

        while layers:
            slowest = max(layers, key=time)
            if len(layers[slowest]) > spare or time(slowest) <= 1:
                break
            spare -= len(layers[slowest])
            copies[slowest] += 1
        return copies

    def _notes(self, entries: Sequence[TileEntry], used: int, extra: int) -> list[str]:
        if not entries:
            return ["no layer of this model is on a crossbar: all of it computes as with --target cpu"]
        return [self._summary(entries, used, extra), *([_UNMEASURED] if _has_errors(self.chip) else [])]

    def _summary(self, entries: Sequence[TileEntry], used: int, extra: int) -> str:
        devices = sum(entry.rows * entry.columns for entry in entries)
        share = devices / (used * self.rows * self.columns)
        copies = f", {extra} more for copies" if extra else ""
        tiles = f"{len(entries)} crossbar tile{'s' if len(entries) > 1 else ''}"
        arrays = f"{used} array{'s' if used > 1 else ''}"
        return f"{tiles} on {arrays} of {self.rows} x {self.columns}{copies}, {share:.0%} used"


def _has_errors(chip: Chip | PhotonicChip | None) -> bool:
    """Whether results differ from the model's by more than rounding."""
    return chip is not None and not (isinstance(chip, Chip) and chip.device.name == "ideal")


def _entry(number: int, adcs: Sequence[AdcOp]) -> TileEntry:
    """A tile as data, before it is placed."""
    adc = adcs[0]
    mvm, dac = chain_of(adc.currents)
    tile, gains, mode = tile_of(mvm.tile), adc.gains.owner, dac.attributes.get(MODE)
    assert isinstance(gains, CompensateOp)
    dims = dims_of(dac.x)
    # A first axis that is not known is the batch; so are all others that are not known, for want of better.
    samples = [dim.value for dim in dims[(1 if len(dims) > 1 else 0) : -1] if dim.is_static]
    loop = adc.parent_op()
    if isinstance(loop, LoopOp) and loop.step_count.is_static:
        samples.append(loop.step_count.value)
    return TileEntry(
        number=number,
        layer=next(iter(node_names(adc)), f"tile{number}"),
        rows=tile.rows.data,
        columns=tile.columns.data,
        weights=weights_name(number),
        gains=gains_name(number),
        compensation=gains.kind.data,
        dac_levels=dac.levels.value.data,
        adc_levels=adc.levels.value.data,
        adc_bound=adc.bound.value.data,
        adc_kind=adc.kind.data,
        mode=mode.data if isinstance(mode, StringAttr) else "one-pass",
        out_noise=adc.noise.value.data,
        read_noise=mvm.noise.value.data,
        passes=len(adcs),
        conversions=float(product(samples).value) if samples else 1.0,
    )


def _steps(module: ModuleOp) -> dict[AdcOp, int]:
    """For each conversion the longest chain of conversions before it; in loops over time, within one step."""
    depth: dict[SSAValue, int] = {}
    found: dict[AdcOp, int] = {}
    for op in module.walk():
        before = max((depth.get(value, 0) for value in op.operands), default=0)
        if isinstance(op, LoopOp):
            depth.update(dict.fromkeys(op.body.block.args, before))
        elif isinstance(op, YieldOp) and isinstance(loop := op.parent_op(), LoopOp):
            depth.update(dict.fromkeys(loop.results, before))
        elif isinstance(op.parent, Block) and op.results:
            if isinstance(op, AdcOp):
                found[op] = before
                before += 1
            depth.update(dict.fromkeys(op.results, before))
    return found
