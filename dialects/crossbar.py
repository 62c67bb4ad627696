"""The `crossbar` dialect: products in memory arrays, with every conversion between digital and analog in sight.

    %tile = crossbar.program …                  weights as conductances
    %gain = crossbar.compensate %tile …         digital factors of its outputs
    %v = crossbar.dac %x …                      a slice of x as voltages
    %i = crossbar.mvm %v, %tile …               currents
    %y = crossbar.adc %i, %gain …               numbers again
    %z = crossbar.accumulate (%y, …) …          partial sums of tiles, bias, activation

Types are in `crossbar_types.py`, meanings in `interp/crossbar.py`. What devices make of a program, at which time and in
which draw, is no business of the IR: `runtime/analog` draws it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from xdsl.dialects.builtin import DenseArrayBase, FloatAttr, IntegerAttr, StringAttr, TensorType, f32, f64, i64
from xdsl.ir import Attribute, Dialect, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.crossbar_tiles import CompensateOp, ProgramOp, VerifyOp, number
from neuc.dialects.crossbar_types import CurrentsType, TileType, VoltagesType, tile_of, verify_wire
from neuc.dialects.dense_attrs import NO_ACTIVATION, ActivationAttr, int_attr, ints
from neuc.dialects.dims import Dim
from neuc.dialects.store import dims_of, tensor_type

MAX_BITS = 16
"""Bits of the finest converter; a step is then 2^-16 of the range, near what f32 sums resolve."""
_INT = IntegerAttr.constr(i64)
_FLOAT = FloatAttr.constr(f64)
ADC_KINDS = ("uniform", "sar", "ramp")
USES_OF_TURN = 32
WHOLE = "whole"


def use_number(part: str, turn: int) -> int:
    """Tells uses of a tile apart in random counters: 32 a turn, plus 0 whole, 1 positive, 2 negative, 3 … bits."""
    fixed = {WHOLE: 0, "positive": 1, "negative": 2}
    return USES_OF_TURN * turn + (fixed[part] if part in fixed else 3 + int(part.removeprefix("bit")))


def levels_of(bits: int) -> int:
    """Steps of a symmetric converter of `bits` bits over its range; 0 bits is no converter."""
    return 2**bits - 2 if bits else 0


@irdl_op_definition
class DacOp(IRDLOperation):
    """Columns first … first + rows - 1 of x[…, K] as voltages.

    alpha = `range`, or the sample's largest magnitude if that is 0; v = clip(round(x / alpha / step)·step, ±bound) with
    step = 2·bound / levels, ties to even; `levels` = 0 does not round, `bound` = 0 does not clip. `part` of the code:
    ``whole``; ``positive`` or ``negative`` magnitudes; ``bit<i>`` of the magnitude, at full voltage with the sign.
    Devices with a curved characteristic see sinh(curvature·v)/sinh(curvature).
    """

    name = "crossbar.dac"
    x = operand_def(TensorType)
    first = prop_def(_INT, default_value=int_attr(0))
    levels = prop_def(_INT, default_value=int_attr(0))
    bound = prop_def(_FLOAT, default_value=number(0))
    range = prop_def(_FLOAT, default_value=number(0))
    part = prop_def(StringAttr, default_value=StringAttr(WHOLE))
    curvature = prop_def(_FLOAT, default_value=number(0))
    result = result_def(VoltagesType)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x attr-dict `:` type($x) `->` type($result)"

    def __init__(
        self,
        x: SSAValue,
        rows: int,
        *,
        first: int = 0,
        levels: int = 0,
        bound: float = 0.0,
        range_: float = 0.0,
        part: str = WHOLE,
        curvature: float = 0.0,
    ) -> None:
        properties: dict[str, Attribute] = {
            "first": int_attr(first),
            "levels": int_attr(levels),
            "bound": number(bound),
            "range": number(range_),
            "part": StringAttr(part),
            "curvature": number(curvature),
        }
        super().__init__(operands=[x], result_types=[VoltagesType.of(rows)], properties=properties)

    @property
    def rows(self) -> int:
        """Lines that are driven."""
        assert isinstance(self.result.type, VoltagesType)
        return self.result.type.count.data

    def verify_(self) -> None:
        shapes.check_element("x", self.x, f32)
        dims = dims_of(self.x)
        if not dims or not dims[-1].is_static:
            raise VerifyException("x needs a last axis of known size")
        first, width = self.first.value.data, dims[-1].value
        if first < 0 or first + self.rows > width:
            raise VerifyException(f"lines {first} … {first + self.rows - 1} of inputs that have {width}")
        verify_converter(self.levels, self.bound, 0.0)
        if not 0 <= self.range.value.data < math.inf:
            raise VerifyException(f"range = {self.range.value.data}: expected 0 or a positive number")
        if not 0 <= self.curvature.value.data <= 20:
            raise VerifyException(f"curvature = {self.curvature.value.data}: expected 0 to 20")
        part = self.part.data
        if part not in (WHOLE, "positive", "negative"):
            digits = part.removeprefix("bit")
            if not (part.startswith("bit") and digits.isdecimal() and int(digits) < MAX_BITS):
                raise VerifyException(f"part {part!r}: expected whole, positive, negative or bit0 … bit{MAX_BITS - 1}")
            if not self.levels.value.data:
                raise VerifyException(f"part {part} of inputs that are not rounded to levels")
        verify_wire(self.result, "voltages")


@irdl_op_definition
class MvmOp(IRDLOperation):
    """i = v·W, with what is lost in wires and what reading adds.

    `wire_drop` > 0 subtracts, as aihwkit does, wire_drop·c·Σ_j w_j v_j (1 - (1 - j/rows)²) with
    a = `wire_ratio`·Σ|w||v| and c = a(a(0.05a - 0.2) + 0.5), inputs from the far end; `noise` is relative to
    sqrt(Σ|w|v²). `core` and `step` say where and when, once tiles are scheduled.
    """

    name = "crossbar.mvm"
    voltages = operand_def(VoltagesType)
    tile = operand_def(TileType)
    wire_drop = prop_def(_FLOAT, default_value=number(0))
    wire_ratio = prop_def(_FLOAT, default_value=number(0))
    noise = prop_def(_FLOAT, default_value=number(0))
    core = opt_prop_def(_INT)
    step = opt_prop_def(_INT)
    result = result_def(CurrentsType)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$voltages `,` $tile attr-dict `:` type($voltages) `,` type($tile) `->` type($result)"

    def __init__(
        self,
        voltages: SSAValue,
        tile: SSAValue,
        *,
        wire_drop: float = 0.0,
        wire_ratio: float = 0.0,
        noise: float = 0.0,
    ) -> None:
        properties: dict[str, Attribute] = {
            "wire_drop": number(wire_drop),
            "wire_ratio": number(wire_ratio),
            "noise": number(noise),
        }
        result = CurrentsType.of(tile_of(tile).columns.data)
        super().__init__(operands=[voltages, tile], result_types=[result], properties=properties)

    def verify_(self) -> None:
        tile = tile_of(self.tile)
        assert isinstance(self.voltages.type, VoltagesType)
        assert isinstance(self.result.type, CurrentsType)
        if self.voltages.type.count != tile.rows:
            raise VerifyException(f"{self.voltages.type.count.data} voltages drive a tile of {tile.rows.data} rows")
        if self.result.type.count != tile.columns:
            raise VerifyException(f"{self.result.type.count.data} currents from {tile.columns.data} columns")
        for name in ("wire_drop", "wire_ratio", "noise"):
            value = getattr(self, name).value.data
            if not 0 <= value < math.inf:
                raise VerifyException(f"{name} = {value}: expected 0 or a positive number")
        verify_wire(self.result, "currents")


@irdl_op_definition
class AdcOp(IRDLOperation):
    """y[…, c] = gain[c]·alpha·clip(round((i + noise) / step)·step, ±bound), step = 2·bound / levels, ties to even.

    alpha is that of the inputs. With `doublings`, a sample that has an output beyond `bound` is converted again with
    half the input, so many times at most (iterative bound management). `kind` decides time and energy, and what
    `draw-converters` writes into `errors`, an entry f32 [levels + 1] of the weight store: how many steps each code is
    off, so that round(q) is round(q - errors[round(q) + levels / 2]). `turn` tells apart the uses of one tile in a run,
    whose noise differs; in a loop, the number of its `step` is added to it.
    """

    name = "crossbar.adc"
    currents = operand_def(CurrentsType)
    gains = operand_def(TensorType)
    step = opt_operand_def(TensorType)
    levels = prop_def(_INT, default_value=int_attr(0))
    bound = prop_def(_FLOAT, default_value=number(0))
    noise = prop_def(_FLOAT, default_value=number(0))
    kind = prop_def(StringAttr, default_value=StringAttr("uniform"))
    doublings = prop_def(_INT, default_value=int_attr(0))
    turn = prop_def(_INT, default_value=int_attr(0))
    errors = opt_prop_def(StringAttr)
    errors_sha = opt_prop_def(StringAttr)
    result = result_def(TensorType)
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$currents `,` $gains (`step` $step^ `:` type($step))? attr-dict `:` type($currents) `,` type($gains) `->` "
        "type($result)"
    )

    def __init__(
        self,
        currents: SSAValue,
        gains: SSAValue,
        step: SSAValue | None = None,
        *,
        levels: int = 0,
        bound: float = 0.0,
        noise: float = 0.0,
        kind: str = "uniform",
        doublings: int = 0,
        turn: int = 0,
    ) -> None:
        properties: dict[str, Attribute] = {
            "levels": int_attr(levels),
            "bound": number(bound),
            "noise": number(noise),
            "kind": StringAttr(kind),
            "doublings": int_attr(doublings),
            "turn": int_attr(turn),
        }
        assert isinstance(currents.type, CurrentsType)
        x = chain_of(currents)[1].x
        result = tensor_type(f32, [*dims_of(x)[:-1], Dim.of(currents.type.count.data)])
        super().__init__(operands=[currents, gains, step], result_types=[result], properties=properties)

    def verify_(self) -> None:
        assert isinstance(self.currents.type, CurrentsType)
        if self.step is not None:
            shapes.check("step", self.step, [], i64)
        columns = Dim.of(self.currents.type.count.data)
        shapes.check("gains", self.gains, [columns], f32)
        verify_converter(self.levels, self.bound, self.noise.value.data)
        if self.kind.data not in ADC_KINDS:
            raise VerifyException(f"kind {self.kind.data!r}: expected {', '.join(ADC_KINDS)}")
        if not 0 <= self.doublings.value.data <= 20:
            raise VerifyException(f"doublings = {self.doublings.value.data}: expected 0 to 20")
        if self.doublings.value.data and not self.bound.value.data:
            raise VerifyException("doublings of inputs for outputs without a bound")
        without_levels = self.errors is not None and not self.levels.value.data
        if without_levels or (self.errors is None) != (self.errors_sha is None):
            raise VerifyException("errors are those of a converter's levels, and come with their errors_sha")
        _, dac = chain_of(self.currents)
        shapes.check("result", self.result, [*dims_of(dac.x)[:-1], columns], f32)


@irdl_op_definition
class AccumulateOp(IRDLOperation):
    """y[…, n] = activation(Σ_p factors[p]·parts[p][…, n - starts[p]] + bias[n]): partial sums, added digitally."""

    name = "crossbar.accumulate"
    parts = var_operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    starts = prop_def(DenseArrayBase.constr(i64))
    factors = prop_def(DenseArrayBase.constr(f64))
    activation = prop_def(ActivationAttr, default_value=NO_ACTIVATION)
    result = result_def(TensorType)
    traits = traits_def(Pure())
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    assembly_format = "`(` $parts `:` type($parts) `)` (`bias` $bias^ `:` type($bias))? attr-dict `->` type($result)"

    def __init__(
        self,
        parts: Sequence[SSAValue],
        starts: Sequence[int],
        factors: Sequence[float],
        columns: int,
        bias: SSAValue | None = None,
        activation: ActivationAttr = NO_ACTIVATION,
    ) -> None:
        properties: dict[str, Attribute] = {
            "starts": ints(starts),
            "factors": DenseArrayBase.from_list(f64, list(factors)),
            "activation": activation,
        }
        result = tensor_type(f32, [*dims_of(parts[0])[:-1], columns])
        super().__init__(operands=[list(parts), bias], result_types=[result], properties=properties)

    def verify_(self) -> None:
        starts, dims = self.starts.get_values(), dims_of(self.result)
        if not self.parts or len(starts) != len(self.parts) or len(self.factors.get_values()) != len(starts):
            raise VerifyException("each part needs a start and a factor, and there is at least one part")
        covered: set[int] = set()
        for part, start in zip(self.parts, starts):
            own = dims_of(part)
            shapes.check("part", part, [*dims[:-1], own[-1]], f32)
            if start < 0 or start + own[-1].value > dims[-1].value:
                raise VerifyException(f"a part of {own[-1]} columns at {start} of {dims[-1]}")
            covered.update(range(start, start + own[-1].value))
        if len(covered) != dims[-1].value:
            raise VerifyException(f"parts cover {len(covered)} of {dims[-1]} columns")
        if self.bias is not None:
            shapes.check("bias", self.bias, [dims[-1]], f32)


def verify_converter(levels: IntegerAttr, bound: FloatAttr, noise: float) -> None:
    """Check a converter's steps, range and noise; raise VerifyException naming what is wrong."""
    steps, largest = levels.value.data, bound.value.data
    if steps and not 2 <= steps < 2**MAX_BITS:
        raise VerifyException(f"levels = {steps}: a converter has 2 to {MAX_BITS} bits")
    if not 0 <= largest < math.inf or (steps and not largest):
        raise VerifyException(f"bound = {largest}: the range of a converter is a positive number")
    if not 0 <= noise < math.inf:
        raise VerifyException(f"noise = {noise}: expected 0 or a positive number")


def chain_of(currents: SSAValue) -> tuple[MvmOp, DacOp]:
    """The array and the converter that currents come from; raise VerifyException if they come from elsewhere."""
    mvm = currents.owner
    dac = mvm.voltages.owner if isinstance(mvm, MvmOp) else None
    if not isinstance(mvm, MvmOp) or not isinstance(dac, DacOp):
        raise VerifyException("currents that do not come from crossbar.dac and crossbar.mvm of the same function")
    return mvm, dac


Crossbar = Dialect(
    "crossbar",
    [ProgramOp, VerifyOp, CompensateOp, DacOp, MvmOp, AdcOp, AccumulateOp],
    [TileType, VoltagesType, CurrentsType],
)
