"""The pass `draw-converters`: output converters as they were built, whose steps are not all of one size.

How the kinds err is `runtime/analog/converters.py`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass

from neuc.dialects.context import store_of
from neuc.dialects.crossbar import AdcOp, chain_of
from neuc.dialects.crossbar_tiles import program_of
from neuc.errors import Error, Exit
from neuc.runtime.analog.converters import step_errors
from neuc.runtime.analog.streams import Purpose, stream


@dataclass(frozen=True)
class DrawConverters(ModulePass):
    """Give each `crossbar.adc` with levels the errors of its steps, one table for the columns of a tile.

    Converters are built once: a chip has the same ones whatever is programmed, at any time. Those of kind uniform have
    no errors.

    ``crossbar.adc %i, %g {kind = "sar", levels = 254}`` gets ``errors`` and ``errors_sha``: a table in the weight
    store.

    Options:
        mismatch: relative standard deviation of unit elements: capacitors of sar, steps of ramp converters.
        chip: which chip.
    """

    name = "draw-converters"
    mismatch: float = 0.0
    chip: int = 0

    def check(self) -> None:
        """Refuse a mismatch that makes no sense.

        Raises:
            Error: NEUC-E652.
        """
        if not 0 <= self.mismatch < 1:
            hint = "use 0 to below 1, such as 0.02"
            raise Error("NEUC-E652", f"adc_mismatch = {self.mismatch:g}", hint=hint, exit_code=Exit.USAGE)

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        self.check()
        store = store_of(ctx)
        for inner in list(op.walk()):
            if not isinstance(inner, AdcOp) or inner.kind.data == "uniform":
                continue
            levels = inner.levels.value.data
            if not levels or not self.mismatch:
                continue
            mvm, _ = chain_of(inner.currents)
            number = program_of(mvm.tile).number.value.data
            errors = step_errors(
                inner.kind.data, levels, self.mismatch, stream(self.chip, number, Purpose.CONVERTERS)
            ).astype(np.float32)
            name = store.add(f"crossbar.errors{number}", errors)
            inner.errors, inner.errors_sha = StringAttr(name), StringAttr(store.sha(name)[:12])
