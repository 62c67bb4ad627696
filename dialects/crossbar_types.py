"""Types of the `crossbar` dialect: a programmed tile, and the analog values on its lines.

Analog values are types of their own, so that nothing digital can read one: only `crossbar.mvm` takes voltages, only
`crossbar.adc` takes currents, and each is used once, as a wire is.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import IntAttr, StringAttr
from xdsl.ir import Attribute, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import irdl_attr_definition, param_def
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

MAX_LINES = 65536
"""More lines than any array has; a bound on what is read from text."""
CELLS = ("differential", "offset")


@irdl_attr_definition
class TileType(ParametrizedAttribute, TypeAttribute):
    """A programmed array, input by output lines, and its kind of cell: `!crossbar.tile<256 x 64, differential>`."""

    name = "crossbar.tile"
    rows: IntAttr = param_def()
    columns: IntAttr = param_def()
    cells: StringAttr = param_def()

    @staticmethod
    def of(rows: int, columns: int, cells: str = "differential") -> TileType:
        return TileType(IntAttr(rows), IntAttr(columns), StringAttr(cells))

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            rows = parser.parse_integer(allow_boolean=False)
            parser.parse_characters("x")
            columns = parser.parse_integer(allow_boolean=False)
            parser.parse_punctuation(",")
            return [IntAttr(rows), IntAttr(columns), StringAttr(parser.parse_identifier("kind of cell"))]

    def print_parameters(self, printer: Printer) -> None:
        printer.print_string(f"<{self.rows.data} x {self.columns.data}, {self.cells.data}>")

    def verify(self) -> None:
        for what, count in (("rows", self.rows.data), ("columns", self.columns.data)):
            if not 1 <= count <= MAX_LINES:
                raise VerifyException(f"a tile of {count} {what}: expected 1 to {MAX_LINES}")
        if self.cells.data not in CELLS:
            raise VerifyException(f"cells {self.cells.data!r}: expected {' or '.join(CELLS)}")


class _LineType(ParametrizedAttribute, TypeAttribute):
    """Analog values on parallel lines."""

    count: IntAttr

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            return [IntAttr(parser.parse_integer(allow_boolean=False))]

    def print_parameters(self, printer: Printer) -> None:
        printer.print_string(f"<{self.count.data}>")

    def verify(self) -> None:
        if not 1 <= self.count.data <= MAX_LINES:
            raise VerifyException(f"{self.count.data} lines: expected 1 to {MAX_LINES}")


@irdl_attr_definition
class VoltagesType(_LineType):
    """What drives input lines, for each sample: `!crossbar.voltages<256>`."""

    name = "crossbar.voltages"
    count: IntAttr = param_def()

    @staticmethod
    def of(count: int) -> VoltagesType:
        return VoltagesType(IntAttr(count))


@irdl_attr_definition
class CurrentsType(_LineType):
    """What output lines carry, for each sample: `!crossbar.currents<64>`."""

    name = "crossbar.currents"
    count: IntAttr = param_def()

    @staticmethod
    def of(count: int) -> CurrentsType:
        return CurrentsType(IntAttr(count))


def tile_of(value: SSAValue) -> TileType:
    """The type of a tile operand."""
    assert isinstance(value.type, TileType)
    return value.type


def verify_wire(value: SSAValue, what: str) -> None:
    """An analog value has exactly one reader; raise VerifyException if not."""
    uses = sum(1 for _ in value.uses)
    if uses != 1:
        raise VerifyException(f"{what} are read {uses} times; an analog value goes into one place")
