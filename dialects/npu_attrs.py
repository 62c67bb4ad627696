"""Attributes of the `npu` dialect: lists of integers, references, and what passes assign to a graph's parts."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import ArrayAttr, IntAttr, IntegerAttr, StringAttr, SymbolRefAttr
from xdsl.ir import Attribute, ParametrizedAttribute
from xdsl.irdl import irdl_attr_definition, param_def
from xdsl.parser import AttrParser
from xdsl.printer import Printer


@irdl_attr_definition
class NumbersAttr(ParametrizedAttribute):
    """A list of integers: `#npu.numbers<1, 2, 3>`."""

    name = "npu.numbers"
    values: ArrayAttr[IntAttr] = param_def()

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        found = parser.parse_comma_separated_list(parser.Delimiter.ANGLE, lambda: IntAttr(parser.parse_integer()))
        return [ArrayAttr(found)]

    def print_parameters(self, printer: Printer) -> None:
        printer.print_string(f"<{', '.join(str(value.data) for value in self.values)}>")


def ints(values: Sequence[int]) -> NumbersAttr:
    """A list of integers as an attribute."""
    return NumbersAttr(ArrayAttr([IntAttr(value) for value in values]))


def numbers(attr: NumbersAttr) -> tuple[int, ...]:
    """The integers of such an attribute."""
    return tuple(value.data for value in attr.values)


def symbols(names: Sequence[str]) -> ArrayAttr[SymbolRefAttr]:
    """References to parts of the graph."""
    return ArrayAttr([SymbolRefAttr(name) for name in names])


def names(attr: ArrayAttr[SymbolRefAttr]) -> tuple[str, ...]:
    """The names such references hold."""
    return tuple(ref.root_reference.data for ref in attr)


@irdl_attr_definition
class PoolAttr(ParametrizedAttribute):
    """Buffers on a tile: name, [column, row], bytes of each, addresses, locks (free, full for each part)."""

    name = "npu.pool"
    pool: StringAttr = param_def()
    tile: NumbersAttr = param_def()
    nbytes: IntegerAttr = param_def()
    addresses: NumbersAttr = param_def()
    locks: NumbersAttr = param_def()


@irdl_attr_definition
class DmaAttr(ParametrizedAttribute):
    """A channel's end at a tile's DMA: node, [column, row], s2mm or mm2s, channel number, buffer descriptors."""

    name = "npu.dma"
    node: StringAttr = param_def()
    tile: NumbersAttr = param_def()
    direction: StringAttr = param_def()
    index: IntegerAttr = param_def()
    bds: NumbersAttr = param_def()


@irdl_attr_definition
class CircuitAttr(ParametrizedAttribute):
    """A connection in a tile's switch: [column, row], bundle and number it comes in on, and it goes out on."""

    name = "npu.circuit"
    tile: NumbersAttr = param_def()
    source: StringAttr = param_def()
    source_index: IntegerAttr = param_def()
    target: StringAttr = param_def()
    target_index: IntegerAttr = param_def()
