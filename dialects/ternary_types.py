"""Types, attributes and the convolution window of the `ternary` dialect: matrices with few levels, kernel layouts.

The arrays are in the weight store; the operations are in `ternary.py`, `ternary_rows.py` and `ternary_packed.py`.
"""

# ruff: noqa: RUF009 -- xDSL's parameters are declared by calls
from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import ArrayAttr, IntAttr, StringAttr
from xdsl.ir import Attribute, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import irdl_attr_definition, param_def
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.dense_attrs import ints
from neuc.dialects.dense_shapes import window_dim
from neuc.dialects.dims import Dim
from neuc.dialects.ternary_encodings import ENCODINGS, LEVELS, EncodingRule


@irdl_attr_definition
class ScaleAttr(ParametrizedAttribute):
    """Scales of a plane: one per `row`, per `tensor` (stored as equal rows), or per `group<n>` columns of a row."""

    name = "ternary.scale"
    kind: StringAttr = param_def()
    size: IntAttr = param_def()

    @staticmethod
    def of(kind: str, size: int = 0) -> ScaleAttr:
        return ScaleAttr(StringAttr(kind), IntAttr(size))

    @staticmethod
    def parse_bare(parser: AttrParser) -> ScaleAttr:
        kind = parser.parse_keyword_in(("row", "tensor", "group"))
        size = 0
        if kind == "group":
            with parser.in_angle_brackets():
                size = parser.parse_integer(allow_boolean=False)
        return ScaleAttr.of(kind, size)

    def __str__(self) -> str:
        return f"group<{self.size.data}>" if self.kind.data == "group" else self.kind.data

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            return ScaleAttr.parse_bare(parser).parameters

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(str(self))

    def verify(self) -> None:
        if self.kind.data not in ("row", "tensor", "group"):
            raise VerifyException(f"scale is row, tensor or group<n>, not {self.kind.data}")
        if (self.kind.data == "group") != (self.size.data > 0):
            raise VerifyException(f"scale group<{self.size.data}>: a group has at least one column")

    def groups(self, k: int) -> int:
        """Scales per row and plane of a matrix with k columns."""
        return -(-k // self.size.data) if self.kind.data == "group" else 1

    def group_size(self, k: int) -> int:
        """Columns that share one scale."""
        return self.size.data if self.kind.data == "group" else k


@irdl_attr_definition
class EncodingAttr(ParametrizedAttribute):
    """A kernel layout, one of `ternary_encodings.ENCODINGS`, and for look-ups the weights g that an index covers."""

    name = "ternary.encoding"
    kind: StringAttr = param_def()
    g: IntAttr = param_def()

    @staticmethod
    def of(kind: str, g: int = 1) -> EncodingAttr:
        return EncodingAttr(StringAttr(kind), IntAttr(g))

    @property
    def rule(self) -> EncodingRule:
        """What this layout can do."""
        return ENCODINGS[self.kind.data]

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            kind, g = parser.parse_identifier(), 1
            if parser.parse_optional_punctuation(",") is not None:
                parser.parse_keyword("g")
                parser.parse_punctuation("=")
                g = parser.parse_integer(allow_boolean=False)
        return [StringAttr(kind), IntAttr(g)]

    def print_parameters(self, printer: Printer) -> None:
        group = f", g = {self.g.data}" if self.rule.lookup or self.g.data != 1 else ""
        printer.print_string(f"<{self.kind.data}{group}>")

    def verify(self) -> None:
        kind, g = self.kind.data, self.g.data
        if kind not in ENCODINGS:
            raise VerifyException(f"unknown encoding {kind}: {', '.join(ENCODINGS)} exist")
        groups = self.rule.groups
        if not self.rule.lookup and g != 1:
            raise VerifyException(f"encoding {kind} has no look-up group, but g = {g}")
        if g not in groups:
            raise VerifyException(
                f"encoding {kind} with g = {g}: a table holds 16 entries; g is {groups[0]} to {groups[-1]}"
            )


@dataclass(frozen=True, init=False, kw_only=True)
class MatrixType(ParametrizedAttribute, TypeAttribute, ABC):
    """What trits and packed weights share: P planes of N rows by K columns, with small integer entries."""

    # A dataclass itself, or equality of the types below would leave these parameters out.

    n: IntAttr = param_def()
    k: IntAttr = param_def()
    scale: ScaleAttr = param_def()
    planes: IntAttr = param_def()
    levels: ArrayAttr[IntAttr] = param_def()

    @property
    def level_set(self) -> tuple[int, ...]:
        """The integers that entries are, ascending."""
        return tuple(level.data for level in self.levels.data)

    @property
    def rows(self) -> int:
        """N, the out-features."""
        return self.n.data

    @property
    def columns(self) -> int:
        """K, the in-features."""
        return self.k.data

    @property
    def plane_count(self) -> int:
        return self.planes.data

    @property
    def groups(self) -> int:
        """G, the scales of one row of one plane."""
        return self.scale.groups(self.columns)

    @property
    def group_size(self) -> int:
        """Columns that share a scale."""
        return self.scale.group_size(self.columns)

    def _verify_matrix(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise VerifyException(f"a {self.rows}x{self.columns} matrix has no weights")
        if self.plane_count < 1:
            raise VerifyException(f"planes = {self.plane_count}: at least one plane is needed")
        levels = self.level_set
        if len(levels) < 2 or list(levels) != sorted(set(levels)) or levels[0] < -127 or levels[-1] > 127:
            raise VerifyException(f"levels {list(levels)}: two or more ascending integers in -127..127")

    def _print_matrix(self, printer: Printer) -> None:
        printer.print_string(f"{self.rows}x{self.columns}, scale = {self.scale}, planes = {self.plane_count}")
        if self.level_set != LEVELS:
            printer.print_string(f", levels = [{', '.join(map(str, self.level_set))}]")

    @staticmethod
    def _parse_matrix(parser: AttrParser) -> list[Attribute]:
        n = parser.parse_shape_dimension(allow_dynamic=False)
        parser.parse_shape_delimiter()
        k = parser.parse_shape_dimension(allow_dynamic=False)
        for text in (",", "scale", "="):
            parser.parse_characters(text)
        scale = ScaleAttr.parse_bare(parser)
        for text in (",", "planes", "="):
            parser.parse_characters(text)
        planes, levels = parser.parse_integer(allow_boolean=False), LEVELS
        if parser.parse_optional_punctuation(",") is not None:
            parser.parse_keyword("levels")
            parser.parse_punctuation("=")
            levels = tuple(parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer))
        return [IntAttr(n), IntAttr(k), scale, IntAttr(planes), ArrayAttr([IntAttr(v) for v in levels])]


@irdl_attr_definition
class TritsType(MatrixType):
    """P planes of an N x K weight matrix with small integer entries: -1, 0 and 1 unless `levels` says other."""

    name = "ternary.trits"

    @staticmethod
    def of(n: int, k: int, scale: ScaleAttr, planes: int, levels: Sequence[int] = LEVELS) -> TritsType:
        level_set = ArrayAttr([IntAttr(v) for v in levels])
        return TritsType.new([IntAttr(n), IntAttr(k), scale, IntAttr(planes), level_set])

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            return cls._parse_matrix(parser)

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            self._print_matrix(printer)

    def verify(self) -> None:
        self._verify_matrix()


@irdl_attr_definition
class PackedType(MatrixType):
    """Trits in a kernel's layout: the P·N rows (row p·N + n) of one matrix."""

    name = "ternary.packed"
    encoding: EncodingAttr = param_def()

    @staticmethod
    def of(trits: TritsType, encoding: EncodingAttr) -> PackedType:
        return PackedType.new([trits.n, trits.k, trits.scale, trits.planes, trits.levels, encoding])

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            encoding = parser.parse_attribute()
            parser.parse_punctuation(",")
            return [*cls._parse_matrix(parser), encoding]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_attribute(self.encoding)
            printer.print_string(", ")
            self._print_matrix(printer)

    def verify(self) -> None:
        self._verify_matrix()
        g = self.encoding.g.data
        if reason := self.encoding.rule.reason_against(self.level_set, g):
            raise VerifyException(reason)
        if self.scale.kind.data == "group" and self.group_size % g:
            raise VerifyException(
                f"g = {g} does not divide the {self.group_size} columns of a scale group; choose another g or scale"
            )


@dataclass(frozen=True)
class Window:
    """A convolution window: one entry per spatial axis, `pads` begins then ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    def output_dims(self, spatial: Sequence[Dim]) -> list[Dim]:
        """Spatial output dims."""
        n = len(self.kernel)
        return [
            window_dim(dim, self.kernel[i], self.strides[i], self.pads[i], self.pads[n + i], self.dilations[i])
            for i, dim in enumerate(spatial)
        ]

    def properties(self) -> dict[str, Attribute]:
        """The window as properties of an operation."""
        return {name: ints(getattr(self, name)) for name in ("kernel", "strides", "pads", "dilations")}


def trits_type(value: SSAValue) -> TritsType:
    """The type of an operand that is a few-level matrix."""
    assert isinstance(value.type, TritsType)
    return value.type


def packed_type(value: SSAValue) -> PackedType:
    """The type of a packed operand."""
    assert isinstance(value.type, PackedType)
    return value.type
