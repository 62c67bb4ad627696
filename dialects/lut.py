"""The `lut` dialect: look-up tables of activation sums, and the products read out of them.

A *mirrored* table holds, for each g neighbouring activations, every sum of them with factors -1, 0, 1 once up to sign:
g trits of a row are then an index and a sign. A *full* table holds the sums with all factors out of `levels`; g weights
(or g bits of a one-bit plane of them) are then an index. Meaning: `dialects/interp/lut.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import ArrayAttr, IntAttr, IntegerAttr, TensorType, i8, i64
from xdsl.ir import Attribute, Dialect, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import (
    IRDLOperation,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    param_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dense_attrs import int_attr
from neuc.dialects.dims import Dim
from neuc.dialects.store import dims_of
from neuc.dialects.ternary_encodings import ENCODINGS, MAX_GROUP, SHUFFLE_ENTRIES, mirrored_entries
from neuc.dialects.ternary_packed import PackOp, accumulator_type, verify_accumulator, verify_tile
from neuc.dialects.ternary_types import PackedType, packed_type


@irdl_attr_definition
class TableType(ParametrizedAttribute, TypeAttribute):
    """Tables for K activations, g at a time: `!lut.table<384, g = 3>` is 128 tables of 14 int16 entries a row of q.

    `!lut.table<384, g = 4, levels = [0, 1]>` is 96 full tables of 2^4 entries.
    """

    name = "lut.table"
    k: IntAttr = param_def()
    g: IntAttr = param_def()
    levels: ArrayAttr[IntAttr] = param_def()

    @staticmethod
    def of(k: int, g: int, levels: Sequence[int] = ()) -> TableType:
        return TableType(IntAttr(k), IntAttr(g), ArrayAttr([IntAttr(level) for level in levels]))

    @property
    def level_set(self) -> tuple[int, ...]:
        """What one place of an index stands for; () for a mirrored table."""
        return tuple(level.data for level in self.levels.data)

    @property
    def columns(self) -> int:
        """K, the activations a row of q has."""
        return self.k.data

    @property
    def group(self) -> int:
        """g, the activations one table covers."""
        return self.g.data

    @property
    def tables(self) -> int:
        """Tables per row of q; the last is filled up with zero activations."""
        return -(-self.columns // self.group)

    @property
    def entries(self) -> int:
        """Entries of one table."""
        return len(self.level_set) ** self.group if self.level_set else mirrored_entries(self.group)

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            k = parser.parse_integer(allow_boolean=False)
            for text in (",", "g", "="):
                parser.parse_characters(text)
            g, levels = parser.parse_integer(allow_boolean=False), list[int]()
            if parser.parse_optional_punctuation(",") is not None:
                parser.parse_keyword("levels")
                parser.parse_punctuation("=")
                levels = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer)
            return [IntAttr(k), IntAttr(g), ArrayAttr([IntAttr(level) for level in levels])]

    def print_parameters(self, printer: Printer) -> None:
        levels = f", levels = [{', '.join(map(str, self.level_set))}]" if self.level_set else ""
        printer.print_string(f"<{self.columns}, g = {self.group}{levels}>")

    def verify(self) -> None:
        if self.columns < 1:
            raise VerifyException(f"a table of {self.columns} activations is empty")
        if not 1 <= self.group <= MAX_GROUP or self.entries > SHUFFLE_ENTRIES:
            raise VerifyException(f"g = {self.group}: a table has at most {SHUFFLE_ENTRIES} entries")


@irdl_op_definition
class BuildOp(IRDLOperation):
    """table[…, j, i] = Σ_d digit_d(i)·q[…, g·j + d].

    Mirrored: digits of i in balanced ternary, i in 0..(3^g - 1)/2. Full, with C levels: i in 0..C^g - 1 in base C, the
    digit the level of that number. The most significant digit is the first activation's.
    """

    name = "lut.build"
    q = operand_def(TensorType)
    table = result_def(TableType)

    traits = traits_def(Pure())
    assembly_format = "$q attr-dict `:` type($q) `->` type($table)"

    def __init__(self, q: SSAValue, g: int, levels: Sequence[int] = ()) -> None:
        super().__init__(operands=[q], result_types=[TableType.of(dims_of(q)[-1].value, g, levels)])

    def verify_(self) -> None:
        dims = shapes.shape_of(self.q, "q", i8)
        table = table_type(self.table)
        if not dims or shapes.differ(dims[-1], Dim.of(table.columns)):
            raise VerifyException(f"q has {dims[-1] if dims else 'no'} columns, its table {table.columns}")


@irdl_op_definition
class AccumulateOp(IRDLOperation):
    """acc[…, g, p·N + n] = Σ_j ±table[…, j, index(p, n, j)]: the exact product, BM rows by BK columns at a time.

    `bitserial` weights are low + step·code; their sum is low·Σ_j table[…, j, all ones] plus, over the one-bit planes b
    of the codes, step·2^b·Σ_j table[…, j, index_b(p, n, j)].
    """

    name = "lut.accumulate"
    table = operand_def(TableType)
    packed = operand_def(PackedType)
    g = prop_def(IntegerAttr.constr(i64))
    BM = prop_def(IntegerAttr.constr(i64))
    BK = prop_def(IntegerAttr.constr(i64))
    result = result_def(TensorType)

    traits = traits_def(Pure())
    assembly_format = (
        "$table `,` $packed `g` `=` $g `BM` `=` $BM `BK` `=` $BK attr-dict `:` functional-type(operands, results)"
    )

    def __init__(self, table: SSAValue, packed: SSAValue, leading: Sequence[Dim], bm: int, bk: int) -> None:
        properties = {name: int_attr(value) for name, value in (("g", table_type(table).group), ("BM", bm), ("BK", bk))}
        result = accumulator_type(leading, packed_type(packed))
        super().__init__(operands=[table, packed], result_types=[result], properties=properties)

    def verify_(self) -> None:
        table, packed = table_type(self.table), packed_type(self.packed)
        g, bm, bk = (attr.value.data for attr in (self.g, self.BM, self.BK))
        encoding = packed.encoding
        if not encoding.rule.lookup:
            takes = ", ".join(name for name, rule in ENCODINGS.items() if rule.lookup)
            raise VerifyException(f"takes encodings {takes}; {encoding.kind.data} is for ternary.accumulate")
        if table.level_set != encoding.rule.table_levels(packed.level_set):
            raise VerifyException(f"{packed} cannot be read out of {table}: their levels differ")
        if not g == encoding.g.data == table.group:
            raise VerifyException(
                f"g = {g}, but the table has g = {table.group} and the weights g = {encoding.g.data}: they must agree"
            )
        if table.columns != packed.columns:
            raise VerifyException(f"the table has {table.columns} columns, the weights {packed.columns}")
        verify_tile(packed, bm, bk)
        pack = self.packed.owner
        if isinstance(pack, PackOp) and (pack.BM.value.data, pack.BK.value.data) != (bm, bk):
            raise VerifyException(
                f"BM = {bm}, BK = {bk}, but its weights are packed with "
                f"BM = {pack.BM.value.data}, BK = {pack.BK.value.data}: change both"
            )
        build = self.table.owner
        leading = dims_of(build.q)[:-1] if isinstance(build, BuildOp) else None
        verify_accumulator(self.result, leading, packed)


def table_type(value: SSAValue) -> TableType:
    """The type of a table operand."""
    assert isinstance(value.type, TableType)
    return value.type


Lut = Dialect("lut", [BuildOp, AccumulateOp], [TableType])
