"""The pass `remap-stuck`: weights are turned over where devices are stuck on the wrong side.

A column of a tile may hold the negated weights, with its scale negated; which of the two errs less is known once it is
known which devices of the chip are stuck. Source of the idea: sign flips of ReTern, arXiv:2506.01140.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass

from neuc.dialects.context import store_of
from neuc.dialects.crossbar_tiles import CompensateOp, program_of
from neuc.dialects.weight_store import WeightStore
from neuc.passes.module_facts import add_notes
from neuc.runtime.analog.tiles import Chip


@dataclass(frozen=True)
class RemapStuck(ModulePass):
    """Negate columns of tiles, and their scales, where that brings what stuck devices make of them nearer.

    Results do not change on a chip without faults.
    """

    name = "remap-stuck"
    chip: Chip | None = field(default=None, init=False, compare=False, repr=False)

    def on(self, chip: Chip) -> Self:
        """The chip whose faults count; returns this pass."""
        object.__setattr__(self, "chip", chip)
        return self

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        if self.chip is None or not (self.chip.stuck_low or self.chip.stuck_high):
            return
        store, turned, total = store_of(ctx), 0, 0
        for inner in op.walk():
            if isinstance(inner, CompensateOp):
                flips = _turn(inner, self.chip, store)
                turned, total = turned + int(flips.sum()), total + len(flips)
        add_notes(op, f"stuck devices: {turned} of {total} columns of crossbar tiles hold negated weights")


def _turn(op: CompensateOp, chip: Chip, store: WeightStore) -> np.ndarray:
    """Turn over the columns of a tile for which that is better; which ones."""
    program = program_of(op.tile)
    weights, scales = store.get(program.weights.data), store.get(op.scales.data)
    flips = better_negated(weights, chip, program.number.value.data)
    signs = np.where(flips, np.float32(-1), np.float32(1))
    if flips.any():
        name = store.add(f"{program.weights.data}.turned", weights * signs)
        program.weights, program.sha = StringAttr(name), StringAttr(store.sha(name)[:12])
        name = store.add(f"{op.scales.data}.turned", scales * signs)
        op.scales, op.sha = StringAttr(name), StringAttr(store.sha(name)[:12])
    return flips


def better_negated(weights: np.ndarray, chip: Chip, tile: int) -> np.ndarray:
    """Columns of `weights` [rows, columns] that tile number `tile` holds better with the other sign, bool [columns]."""
    stuck = chip.stuck(tile, weights.shape)

    def error(wanted: np.ndarray) -> np.ndarray:
        held = [np.where(np.isnan(s), g, s) for g, s in zip(chip.targets(wanted), stuck, strict=True)]
        return np.sum((chip.weights(held) - wanted) ** 2, axis=0)

    wide = weights.astype(np.float64)
    return error(-wide) < error(wide)
