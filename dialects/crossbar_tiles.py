"""The `crossbar` operations on tiles: programming, verifying, compensating drift. `crossbar.py` registers them."""

from __future__ import annotations

import math

from xdsl.dialects.builtin import FloatAttr, IntegerAttr, StringAttr, TensorType, f32, f64, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import IRDLOperation, irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.crossbar_types import TileType, tile_of
from neuc.dialects.dense_attrs import int_attr
from neuc.dialects.dims import Dim
from neuc.dialects.store import tensor_type

COMPENSATIONS = ("none", "global", "column")
_INT = IntegerAttr.constr(i64)
_FLOAT = FloatAttr.constr(f64)


def number(value: float) -> FloatAttr:
    """A float property."""
    return FloatAttr(float(value), f64)


@irdl_op_definition
class ProgramOp(IRDLOperation):
    """A tile programmed with weights in -1 … 1, f32 [rows, columns] in the weight store.

    A differential cell is a pair, weight = (G+ - G-) / (g_max - g_min); an offset cell one device around the middle of
    the range. `number` tells the tiles of a program apart: random numbers depend on it.
    """

    name = "crossbar.program"
    weights = prop_def(StringAttr)
    sha = prop_def(StringAttr)
    device = prop_def(StringAttr)
    number = prop_def(_INT)
    result = result_def(TileType)
    traits = traits_def(Pure())
    assembly_format = "$number `weights` $weights `sha` $sha `device` $device attr-dict `:` type($result)"

    def __init__(self, number: int, entry: tuple[str, str], device: str, type_: TileType) -> None:
        properties: dict[str, Attribute] = {
            "number": int_attr(number),
            "weights": StringAttr(entry[0]),
            "sha": StringAttr(entry[1][:12]),
            "device": StringAttr(device),
        }
        super().__init__(result_types=[type_], properties=properties)

    def verify_(self) -> None:
        if self.number.value.data < 0:
            raise VerifyException(f"tile number {self.number.value.data} is negative")


@irdl_op_definition
class VerifyOp(IRDLOperation):
    """Program-and-verify: devices more than `tolerance` µS off their targets are programmed again, `rounds` times."""

    name = "crossbar.verify"
    tile = operand_def(TileType)
    rounds = prop_def(_INT)
    tolerance = prop_def(_FLOAT)
    result = result_def(TileType)
    traits = traits_def(Pure())
    assembly_format = "$tile `rounds` $rounds `tolerance` $tolerance attr-dict `:` type($tile) `->` type($result)"

    def __init__(self, tile: SSAValue, rounds: int, tolerance: float) -> None:
        properties: dict[str, Attribute] = {"rounds": int_attr(rounds), "tolerance": number(tolerance)}
        super().__init__(operands=[tile], result_types=[tile.type], properties=properties)

    def verify_(self) -> None:
        if self.tile.type != self.result.type:
            raise VerifyException(f"a tile of type {self.tile.type} becomes {self.result.type}")
        if not 1 <= self.rounds.value.data <= 100:
            raise VerifyException(f"rounds = {self.rounds.value.data}: expected 1 to 100")
        if not 0 <= self.tolerance.value.data < math.inf:
            raise VerifyException(f"tolerance = {self.tolerance.value.data}: expected 0 or more µS")


@irdl_op_definition
class CompensateOp(IRDLOperation):
    """What outputs are multiplied with, f32 [columns]: the scales of the weights, and a correction for drift.

    `kind`: ``none``; ``global``, one factor for the tile; ``column``, one for each output. The correction is the mean
    magnitude of the outputs for one-hot inputs right after programming, divided by that at the time of use.
    """

    name = "crossbar.compensate"
    tile = operand_def(TileType)
    scales = prop_def(StringAttr)
    sha = prop_def(StringAttr)
    kind = prop_def(StringAttr)
    result = result_def(TensorType)
    traits = traits_def(Pure())
    assembly_format = "$tile `scales` $scales `sha` $sha `kind` $kind attr-dict `:` type($tile) `->` type($result)"

    def __init__(self, tile: SSAValue, entry: tuple[str, str], kind: str) -> None:
        properties: dict[str, Attribute] = {
            "scales": StringAttr(entry[0]),
            "sha": StringAttr(entry[1][:12]),
            "kind": StringAttr(kind),
        }
        result = tensor_type(f32, [tile_of(tile).columns.data])
        super().__init__(operands=[tile], result_types=[result], properties=properties)

    def verify_(self) -> None:
        if self.kind.data not in COMPENSATIONS:
            raise VerifyException(f"kind {self.kind.data!r}: expected {', '.join(COMPENSATIONS)}")
        shapes.check("result", self.result, [Dim.of(tile_of(self.tile).columns.data)], f32)


def program_of(tile: SSAValue) -> ProgramOp:
    """The `crossbar.program` behind a tile; raise VerifyException if there is none."""
    owner = tile.owner
    while isinstance(owner, VerifyOp):
        owner = owner.tile.owner
    if not isinstance(owner, ProgramOp):
        raise VerifyException("a tile that is not programmed in its function")
    return owner


def weights_name(tile: int) -> str:
    """Entry of the weight store with a tile's weights as kernels read them, f32 [panels, rows, panel]."""
    return f"crossbar.tile{tile}.weights"


def gains_name(tile: int) -> str:
    """Entry of the weight store with the gains of a tile's outputs, f32, whole panels."""
    return f"crossbar.tile{tile}.gains"
