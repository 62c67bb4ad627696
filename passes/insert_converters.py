"""The pass `insert-converters`: finite resolution, noise and input modes for tiles that have ideal converters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter

from neuc.dialects.crossbar import (
    ADC_KINDS,
    MAX_BITS,
    WHOLE,
    AccumulateOp,
    AdcOp,
    DacOp,
    MvmOp,
    chain_of,
    levels_of,
)
from neuc.dialects.crossbar_tiles import number
from neuc.dialects.dense_attrs import int_attr
from neuc.errors import Error, Exit

MODES = ("one-pass", "pos-neg", "bit-serial", "pwm")
MODE = "crossbar.mode"
"""Attribute of a `crossbar.dac`: how its voltages are applied, which decides time and energy."""


@dataclass(frozen=True)
class InsertConverters(ModulePass):
    """Give tiles their converters, noise and way of applying inputs.

    Modes: ``one-pass`` applies signed voltages; ``pos-neg`` positive and negative inputs one after the other, each
    converted and then subtracted; ``bit-serial`` the bits of the magnitudes one after the other, added up with powers
    of two; ``pwm`` codes inputs as lengths of one pulse, which computes what one-pass does and takes longer.

    Options:
        dac_bits: bits of input converters; 0 for ideal ones.
        adc_bits: bits of output converters; 0 for ideal ones.
        adc_bound: range of output converters, in units of the largest weight times the largest input.
        adc_kind: uniform, sar or ramp.
        mode: how inputs are applied.
        input_range: what inputs are scaled by; 0 for the largest magnitude of each sample. Tiles that were calibrated
            keep their range.
        out_noise: standard deviation at output converters, in the units of adc_bound.
        cycle_noise: noise of a product relative to sqrt(Σ |w| v²).
        doublings: times a sample is converted again at half the input because an output was out of range.
        wire_drop: factor on the closed form of losses along output lines; 0 for none.
        r_wire: resistance of a wire segment, for the closed form.
        g_max: largest conductance, µS, for the closed form.
        curvature: nonlinearity of devices; 0 for none.
    """

    name = "insert-converters"
    dac_bits: int = 8
    adc_bits: int = 8
    adc_bound: float = 10.0
    adc_kind: str = "uniform"
    mode: str = "one-pass"
    input_range: float = 0.0
    out_noise: float = 0.0
    cycle_noise: float = 0.0
    doublings: int = 0
    wire_drop: float = 0.0
    r_wire: float = 0.35
    g_max: float = 25.0
    curvature: float = 0.0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        self.check()
        for inner in list(op.walk()):
            if isinstance(inner, AdcOp):
                self._set(inner)
        if self.mode in ("pos-neg", "bit-serial"):
            for inner in list(op.walk()):
                if isinstance(inner, AccumulateOp):
                    _apply_parts(inner, self._parts())

    def check(self) -> None:
        """Refuse options that make no sense.

        Raises:
            Error: NEUC-E652.
        """
        for option in ("dac_bits", "adc_bits"):
            bits = getattr(self, option)
            if bits != 0 and not 2 <= bits <= MAX_BITS:
                raise _bad(f"{option} = {bits}", f"converters have 2 to {MAX_BITS} bits; 'none' is an ideal one")
        floats = ("adc_bound", "input_range", "out_noise", "cycle_noise", "wire_drop", "r_wire", "g_max", "curvature")
        for option in floats:
            value = getattr(self, option)
            if not 0 <= value < math.inf:
                raise _bad(f"{option} = {value:g}", "use 0 or a positive number")
        if (self.adc_bits or self.doublings) and not self.adc_bound:
            raise _bad("an output converter without a range", "give adc_bound")
        if self.adc_kind not in ADC_KINDS:
            raise _bad(f"adc_kind = {self.adc_kind!r}", f"choose {', '.join(ADC_KINDS)}")
        if self.mode not in MODES:
            raise _bad(f"mode = {self.mode!r}", f"choose {', '.join(MODES)}")
        if self.mode == "bit-serial" and not self.dac_bits:
            raise _bad("mode = 'bit-serial' without bits", "give dac_bits")
        if not 0 <= self.doublings <= 20 or not self.curvature <= 20:
            raise _bad(f"doublings = {self.doublings}, curvature = {self.curvature:g}", "use 0 to 20")

    def _set(self, adc: AdcOp) -> None:
        mvm, dac = chain_of(adc.currents)
        dac.levels = int_attr(levels_of(self.dac_bits))
        dac.bound = number(1.0 if self.dac_bits else 0.0)
        dac.curvature = number(self.curvature)
        if not dac.range.value.data:
            dac.range = number(self.input_range)
        dac.attributes[MODE] = StringAttr(self.mode)
        ratio = dac.rows * self.r_wire * self.g_max * 1e-6 if self.wire_drop else 0.0
        mvm.wire_drop, mvm.wire_ratio, mvm.noise = number(self.wire_drop), number(ratio), number(self.cycle_noise)
        adc.levels = int_attr(levels_of(self.adc_bits))
        adc.bound = number(self.adc_bound if self.adc_bits or self.doublings else 0.0)
        adc.noise, adc.kind, adc.doublings = number(self.out_noise), StringAttr(self.adc_kind), int_attr(self.doublings)

    def _parts(self) -> Mapping[str, float]:
        """Parts of the input code and the factors that put their results together."""
        if self.mode == "pos-neg":
            return {"positive": 1.0, "negative": -1.0}
        levels = levels_of(self.dac_bits)
        return {f"bit{i}": 2.0**i * 2.0 / levels for i in range(self.dac_bits - 1)}


def _apply_parts(total: AccumulateOp, parts: Mapping[str, float]) -> None:
    """Convert each tile's inputs part by part, and add up the results."""
    rewriter = PatternRewriter(total)
    values: list[SSAValue] = []
    starts: list[int] = []
    factors: list[float] = []
    old: list[AdcOp] = []
    for value, start, factor in zip(total.parts, total.starts.get_values(), total.factors.get_values()):
        adc = value.owner
        assert isinstance(adc, AdcOp)
        mvm, dac = chain_of(adc.currents)
        if dac.part.data != WHOLE:
            continue
        old.append(adc)
        for part, weight in parts.items():
            values.append(_converted(adc, mvm, dac, part, rewriter))
            starts.append(start)
            factors.append(factor * weight)
    if not old:
        return
    columns = total.result.type.get_shape()[-1]  # pyright: ignore[reportAttributeAccessIssue] - a tensor
    new = AccumulateOp(values, starts, factors, columns, total.bias, total.activation)
    new.location = total.location
    rewriter.replace(total, new)
    for adc in old:
        mvm, dac = chain_of(adc.currents)
        for op in (adc, mvm, dac):
            op.detach()
            op.erase()


def _converted(adc: AdcOp, mvm: MvmOp, dac: DacOp, part: str, rewriter: PatternRewriter) -> SSAValue:
    driven = dac.clone()
    driven.part = StringAttr(part)
    voltages = rewriter.insert(driven).result
    currents = rewriter.insert(mvm.clone({mvm.voltages: voltages})).result
    return rewriter.insert(adc.clone({adc.currents: currents})).result


def _bad(what: str, hint: str) -> Error:
    return Error("NEUC-E652", f"insert-converters: {what} makes no sense", hint=hint, exit_code=Exit.USAGE)
