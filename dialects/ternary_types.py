"""Types, attributes and the convolution window of the `ternary` dialect: matrices with few levels, kernel layouts.

The arrays are in the weight store; the operations are in `dialects/ternary.py`.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import ArrayAttr, IntAttr, StringAttr
from xdsl.ir import Attribute, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition, param_def
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.dense_attrs import ints
from neuc.dialects.dense_shapes import window_dim
from neuc.dialects.dims import Dim

LEVELS = (-1, 0, 1)
SHUFFLE_ENTRIES = 16
MAX_GROUP = 3


def mirrored_entries(g: int) -> int:
    """Entries of a table of all signed sums of g activations when negated sums share one entry: (3^g + 1) / 2."""
    return (3**g + 1) // 2


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
    """A kernel layout: `tl2` (index and sign per g trits), `i2` (two bits a trit), `i8` (one byte a trit)."""

    name = "ternary.encoding"
    kind: StringAttr = param_def()
    g: IntAttr = param_def()

    @staticmethod
    def of(kind: str, g: int = 1) -> EncodingAttr:
        return EncodingAttr(StringAttr(kind), IntAttr(g))

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
        group = f", g = {self.g.data}" if self.kind.data == "tl2" or self.g.data != 1 else ""
        printer.print_string(f"<{self.kind.data}{group}>")

    def verify(self) -> None:
        kind, g = self.kind.data, self.g.data
        if kind not in ("tl2", "i2", "i8"):
            raise VerifyException(f"unknown encoding {kind}: tl2, i2 and i8 exist")
        if kind != "tl2" and g != 1:
            raise VerifyException(f"encoding {kind} has no look-up group, but g = {g}")
        if g < 1 or mirrored_entries(g) > SHUFFLE_ENTRIES:
            entries = f" has {mirrored_entries(g)} entries, a byte shuffle holds {SHUFFLE_ENTRIES}" if g > 0 else ""
            raise VerifyException(f"a mirrored table of g = {g}{entries}; g is 1, 2 or {MAX_GROUP}")


class MatrixType(ParametrizedAttribute, TypeAttribute, ABC):
    """What trits and packed weights share: P planes of N rows by K columns."""

    n: IntAttr = param_def()
    k: IntAttr = param_def()
    scale: ScaleAttr = param_def()
    planes: IntAttr = param_def()

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

    def _print_matrix(self, printer: Printer) -> None:
        printer.print_string(f"{self.rows}x{self.columns}, scale = {self.scale}, planes = {self.plane_count}")

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
        return [IntAttr(n), IntAttr(k), scale, IntAttr(parser.parse_integer(allow_boolean=False))]


@irdl_attr_definition
class TritsType(MatrixType):
    """P planes of an N x K weight matrix with small integer entries: -1, 0 and 1 unless `levels` says other."""

    name = "ternary.trits"
    levels: ArrayAttr[IntAttr] = param_def()

    @staticmethod
    def of(n: int, k: int, scale: ScaleAttr, planes: int, levels: Sequence[int] = LEVELS) -> TritsType:
        level_set = ArrayAttr([IntAttr(v) for v in levels])
        return TritsType.new([IntAttr(n), IntAttr(k), scale, IntAttr(planes), level_set])

    @property
    def level_set(self) -> tuple[int, ...]:
        return tuple(level.data for level in self.levels.data)

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            matrix, levels = cls._parse_matrix(parser), LEVELS
            if parser.parse_optional_punctuation(",") is not None:
                parser.parse_keyword("levels")
                parser.parse_punctuation("=")
                levels = tuple(parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer))
        return [*matrix, ArrayAttr([IntAttr(v) for v in levels])]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            self._print_matrix(printer)
            if self.level_set != LEVELS:
                printer.print_string(f", levels = [{', '.join(map(str, self.level_set))}]")

    def verify(self) -> None:
        self._verify_matrix()
        levels = self.level_set
        if len(levels) < 2 or list(levels) != sorted(set(levels)) or levels[0] < -127 or levels[-1] > 127:
            raise VerifyException(f"levels {list(levels)}: two or more ascending integers in -127..127")


@irdl_attr_definition
class PackedType(MatrixType):
    """Trits in a kernel's layout: the P·N rows (row p·N + n) of one matrix."""

    name = "ternary.packed"
    encoding: EncodingAttr = param_def()

    @staticmethod
    def of(trits: TritsType, encoding: EncodingAttr) -> PackedType:
        return PackedType.new([trits.n, trits.k, trits.scale, trits.planes, encoding])

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
