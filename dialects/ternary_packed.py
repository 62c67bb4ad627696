"""The `ternary` operations on packed weights: `ternary.pack` lays them out, `ternary.accumulate` multiplies by them.

Registered by `ternary.py`; look-up sums over the same layouts are in `lut.py`, which shares the checks of tiles.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import IntegerAttr, TensorType, i8, i32, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import IRDLOperation, irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dense_attrs import int_attr
from neuc.dialects.dims import Dim
from neuc.dialects.store import dims_of, tensor_type
from neuc.dialects.ternary_encodings import ENCODINGS
from neuc.dialects.ternary_types import EncodingAttr, PackedType, TritsType, packed_type, trits_type

ROW_MULTIPLE = 16


@irdl_op_definition
class PackOp(IRDLOperation):
    """The P·N rows of the trits in a kernel's layout: tiles of BM rows by BK columns."""

    name = "ternary.pack"
    weight = operand_def(TritsType)
    BM = prop_def(IntegerAttr.constr(i64))
    BK = prop_def(IntegerAttr.constr(i64))
    result = result_def(PackedType)

    traits = traits_def(Pure())
    assembly_format = "$weight `BM` `=` $BM `BK` `=` $BK attr-dict `:` type($weight) `->` type($result)"

    def __init__(self, weight: SSAValue, encoding: EncodingAttr, bm: int, bk: int) -> None:
        super().__init__(
            operands=[weight],
            result_types=[PackedType.of(trits_type(weight), encoding)],
            properties={"BM": int_attr(bm), "BK": int_attr(bk)},
        )

    @property
    def packed(self) -> PackedType:
        return packed_type(self.result)

    def verify_(self) -> None:
        trits, packed = trits_type(self.weight), self.packed
        if packed != PackedType.of(trits, packed.encoding):
            raise VerifyException(f"packs {trits} into {packed}: size, scale, planes or levels differ")
        verify_tile(packed, self.BM.value.data, self.BK.value.data)


def verify_tile(packed: PackedType, bm: int, bk: int) -> None:
    """Check a tile of BM rows by BK columns against the layout; raise VerifyException naming the sizes."""
    quad = 4 * packed.encoding.g.data
    if bm < 1 or bm % ROW_MULTIPLE:
        raise VerifyException(f"BM = {bm} is not a positive multiple of {ROW_MULTIPLE} rows")
    if bk < 1 or bk % quad:
        raise VerifyException(f"BK = {bk} is not a positive multiple of 4·g = {quad} columns")
    size = packed.group_size
    if packed.scale.kind.data == "group" and size % bk and bk % size:
        raise VerifyException(f"BK = {bk} and the scale groups of {size} columns do not divide one another")


def verify_accumulator(acc: SSAValue, leading: Sequence[Dim] | None, packed: PackedType) -> None:
    """Check that `acc` is i32 […leading, G, P·N]; raise VerifyException naming the sizes."""
    dims = shapes.shape_of(acc, "accumulator", i32)
    tail = [Dim.of(packed.groups), Dim.of(packed.plane_count * packed.rows)]
    shapes.check_dims("accumulator", dims, [*(dims[:-2] if leading is None else leading), *tail])


def accumulator_type(leading: Sequence[Dim], packed: PackedType) -> TensorType[Attribute]:
    """i32 […leading, G, P·N]."""
    return tensor_type(i32, [*leading, packed.groups, packed.plane_count * packed.rows])


@irdl_op_definition
class AccumulateOp(IRDLOperation):
    """acc[…, g, p·N + n] = Σ_{k in group g} q[…,k]·trits[p,n,k], by multiplying (direct encodings)."""

    name = "ternary.accumulate"
    q = operand_def(TensorType)
    packed = operand_def(PackedType)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    assembly_format = "$q `,` $packed attr-dict `:` functional-type(operands, results)"

    def __init__(self, q: SSAValue, packed: SSAValue) -> None:
        result = accumulator_type(dims_of(q)[:-1], packed_type(packed))
        super().__init__(operands=[q, packed], result_types=[result])

    def verify_(self) -> None:
        packed, dims = packed_type(self.packed), shapes.shape_of(self.q, "q", i8)
        if packed.encoding.rule.lookup:
            direct = ", ".join(name for name, rule in ENCODINGS.items() if not rule.lookup)
            kind = packed.encoding.kind.data
            raise VerifyException(f"encoding {kind} is for lut.accumulate; ternary.accumulate takes {direct}")
        shapes.check_dims("q", dims, [*dims[:-1], Dim.of(packed.columns)])
        verify_accumulator(self.result, dims[:-1], packed)
