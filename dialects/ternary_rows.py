"""The `ternary` operations before any product: `ternary.weight` names a matrix, `ternary.lookup` reads rows of one.

Registered by `ternary.py`; the products are there.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import FloatAttr, StringAttr, TensorType, f32, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import IRDLOperation, irdl_op_definition, operand_def, opt_prop_def, prop_def, result_def, traits_def
from xdsl.traits import Pure

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dims import Dim
from neuc.dialects.store import dims_of, tensor_type
from neuc.dialects.ternary_types import TritsType


@irdl_op_definition
class WeightOp(IRDLOperation):
    """W ≈ Σ_p scales[p]·trits[p], both named in the weight store: int8 [P, N, K] and f32 [P, N, G]."""

    name = "ternary.weight"
    trits = prop_def(StringAttr)
    trits_sha = prop_def(StringAttr)
    scales = prop_def(StringAttr)
    scales_sha = prop_def(StringAttr)
    sqnr = opt_prop_def(FloatAttr.constr(f32))
    result = result_def(TritsType)

    traits = traits_def(Pure())
    assembly_format = (
        "`trits` $trits `sha` $trits_sha `scales` $scales `sha` $scales_sha (`sqnr` $sqnr^)? "
        "attr-dict `:` type($result)"
    )

    def __init__(
        self,
        type_: TritsType,
        trits: tuple[str, str],
        scales: tuple[str, str],
        sqnr: float | None = None,
    ) -> None:
        properties: dict[str, Attribute | None] = {
            "trits": StringAttr(trits[0]),
            "trits_sha": StringAttr(trits[1][:12]),
            "scales": StringAttr(scales[0]),
            "scales_sha": StringAttr(scales[1][:12]),
            "sqnr": None if sqnr is None else FloatAttr(sqnr, f32),
        }
        super().__init__(result_types=[type_], properties=properties)


@irdl_op_definition
class LookupOp(IRDLOperation):
    """rows[…, k] = Σ_p trits[p, id, k]·scales[p, id, group of k]: an embedding; ids i64 […], rows f32 […, K].

    Ids below 0 read row 0, those past the end the last row.
    """

    name = "ternary.lookup"
    ids = operand_def(TensorType)
    weight = operand_def(TritsType)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    assembly_format = "$ids `,` $weight attr-dict `:` functional-type(operands, results)"

    def __init__(self, ids: SSAValue, weight: SSAValue) -> None:
        assert isinstance(weight.type, TritsType)
        super().__init__(operands=[ids, weight], result_types=[tensor_type(f32, [*dims_of(ids), weight.type.columns])])

    @property
    def trits(self) -> TritsType:
        assert isinstance(self.weight.type, TritsType)
        return self.weight.type

    def verify_(self) -> None:
        shapes.check_element("ids", self.ids, i64)
        expected: Sequence[Dim] = [*shapes.dims(self.ids), Dim.of(self.trits.columns)]
        shapes.check("result", self.result, expected, f32)
