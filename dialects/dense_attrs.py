"""Attributes of the `dense` dialect and the one textual form all its operations share.

The form is ``dense.op(%operands) {property = value, …} : (types) -> types {region}``: integers, integer lists, floats,
keywords and flags are written bare. The operations themselves live in `dense.py`.
"""

from __future__ import annotations

import math
import struct
from abc import ABC
from collections.abc import Iterable, Sequence
from typing import ClassVar, Self

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    Float32Type,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    StringAttr,
    UnitAttr,
    f32,
    i32,
    i64,
)
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Attribute, ParametrizedAttribute, SpacedOpaqueSyntaxAttribute
from xdsl.irdl import AttrSizedOperandSegments, IRDLOperation, irdl_attr_definition, param_def
from xdsl.parser import AttrParser, Parser
from xdsl.printer import Printer
from xdsl.utils.str_enum import StrEnum

from neuc.dialects.dims import Dim, DimLike


class ReduceKind(StrEnum):
    """What `dense.reduce` and `dense.arg_reduce` compute over the reduced axes."""

    SUM = "sum"
    MEAN = "mean"
    MAX = "max"
    MIN = "min"
    PROD = "prod"


class PoolKind(StrEnum):
    """What `dense.pool` computes over a window."""

    MAX = "max"
    AVG = "avg"


class PadMode(StrEnum):
    """What `dense.pad` fills the border with."""

    CONSTANT = "constant"
    REFLECT = "reflect"
    EDGE = "edge"


class Direction(StrEnum):
    """The order in which `dense.lstm` reads its time axis; bidirectional does both."""

    FORWARD = "forward"
    REVERSE = "reverse"
    BIDIRECTIONAL = "bidirectional"


class ActivationKind(StrEnum):
    """Unary functions an arithmetic operation applies to its result; `ACTIVATION_ARITY` counts their parameters."""

    NONE = "none"
    RELU = "relu"
    CLIP = "clip"
    LEAKY_RELU = "leaky_relu"
    SIGMOID = "sigmoid"
    TANH = "tanh"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    SILU = "silu"
    HARDSIGMOID = "hardsigmoid"
    HARDSWISH = "hardswish"


ACTIVATION_ARITY = {ActivationKind.CLIP: 2, ActivationKind.HARDSIGMOID: 2, ActivationKind.LEAKY_RELU: 1}


@irdl_attr_definition
class ReduceKindAttr(EnumAttribute[ReduceKind], SpacedOpaqueSyntaxAttribute):
    """`#dense<reduce_kind sum>`."""

    name = "dense.reduce_kind"


@irdl_attr_definition
class PoolKindAttr(EnumAttribute[PoolKind], SpacedOpaqueSyntaxAttribute):
    """`#dense<pool_kind max>`."""

    name = "dense.pool_kind"


@irdl_attr_definition
class PadModeAttr(EnumAttribute[PadMode], SpacedOpaqueSyntaxAttribute):
    """`#dense<pad_mode reflect>`."""

    name = "dense.pad_mode"


@irdl_attr_definition
class DirectionAttr(EnumAttribute[Direction], SpacedOpaqueSyntaxAttribute):
    """`#dense<direction forward>`."""

    name = "dense.direction"


@irdl_attr_definition
class ActivationAttr(ParametrizedAttribute):
    """`#dense.activation<kind, alpha, beta>`; parameters a kind does not have are 0 and not written.

    relu max(x, 0); clip(alpha, beta) min(max(x, alpha), beta); leaky_relu x < 0 ? alpha·x : x; sigmoid; tanh;
    gelu x·(1 + erf(x/√2))/2; gelu_tanh its tanh form; silu x·sigmoid(x); hardsigmoid max(0, min(1, alpha·x + beta));
    hardswish x·max(0, min(1, x/6 + 1/2)).
    """

    name = "dense.activation"
    kind_name: StringAttr = param_def()
    alpha_value: FloatAttr[Float32Type] = param_def()
    beta_value: FloatAttr[Float32Type] = param_def()

    @staticmethod
    def of(kind: ActivationKind | str, alpha: float = 0.0, beta: float = 0.0) -> ActivationAttr:
        """The activation `kind` with its parameters."""
        name = StringAttr(ActivationKind(kind).value)
        return ActivationAttr(name, FloatAttr(alpha, f32), FloatAttr(beta, f32))

    @property
    def kind(self) -> ActivationKind:
        """Which function."""
        return ActivationKind(self.kind_name.data)

    @property
    def alpha(self) -> float:
        """First parameter: lower bound, slope."""
        return self.alpha_value.value.data

    @property
    def beta(self) -> float:
        """Second parameter: upper bound, offset."""
        return self.beta_value.value.data

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            kind = parser.parse_str_enum(ActivationKind)
            values: list[float] = []
            while parser.parse_optional_punctuation(",") is not None:
                values.append(parse_float(parser))
        arity = ACTIVATION_ARITY.get(kind, 0)
        if len(values) != arity:
            parser.raise_error(f"activation {kind} takes {arity} parameters, got {len(values)}")
        return ActivationAttr.of(kind, *values).parameters

    def print_parameters(self, printer: Printer) -> None:
        values = (self.alpha, self.beta)[: ACTIVATION_ARITY.get(self.kind, 0)]
        with printer.in_angle_brackets():
            printer.print_string(", ".join([self.kind.value, *map(float_text, values)]))


NO_ACTIVATION = ActivationAttr.of(ActivationKind.NONE)


def ints(values: Iterable[int]) -> DenseArrayBase[IntegerType]:
    """An i64 array property."""
    return DenseArrayBase.from_list(i64, [int(v) for v in values])


def int_attr(value: int) -> IntegerAttr[IntegerType]:
    """An i64 property."""
    return IntegerAttr(int(value), i64)


def texts(values: Iterable[DimLike]) -> ArrayAttr[StringAttr]:
    """A list of Dim expressions."""
    return ArrayAttr([StringAttr(str(Dim.of(v))) for v in values])


def dim_list(attr: ArrayAttr[StringAttr]) -> tuple[Dim, ...]:
    """The Dim expressions of a property written by `texts`."""
    return tuple(Dim.parse(text.data) for text in attr.data)


def flag(present: bool) -> UnitAttr | None:
    """A flag property: there or not."""
    return UnitAttr() if present else None


def float_text(value: float) -> str:
    """The shortest text that reads back as the same f32."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = next(t for t in (f"{value:.{p}g}" for p in range(1, 18)) if _as_f32(float(t)) == _as_f32(value))
    mantissa, _, exponent = text.partition("e")
    if "." not in mantissa:
        mantissa += ".0"
    return f"{mantissa}e{exponent}" if exponent else mantissa


def _as_f32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


def parse_float(parser: AttrParser) -> float:
    """Read what `float_text` writes, or an integer."""
    sign = -1.0 if parser.parse_optional_characters("-") is not None else 1.0
    if parser.parse_optional_keyword("inf") is not None:
        return sign * math.inf
    if parser.parse_optional_keyword("nan") is not None:
        return math.nan
    return sign * parser.parse_number()


_FLOATS = frozenset({"eps", "alpha", "fire_at", "scale", "value"})
_TEXTS = frozenset({"starts", "exprs"})
_FLAGS = frozenset(
    {"interleaved", "keepdims", "select_last", "log", "relu", "rms", "transpose_a", "transpose_b", "count_include_pad"}
)
_SEGMENTS = "operandSegmentSizes"


class DenseOp(IRDLOperation, ABC):
    """What all `dense` operations share: the textual form described at the top of this file.

    Optional operands fill up from the left, so the number of operands says which are there.
    """

    ENUMS: ClassVar[dict[str, type[EnumAttribute]]] = {}
    """Enum properties by name."""
    HAS_REGION: ClassVar[bool] = False

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        operands = parser.parse_comma_separated_list(parser.Delimiter.PAREN, parser.parse_unresolved_operand)
        properties: dict[str, Attribute] = {}
        if parser.parse_optional_punctuation("{") is not None:
            while parser.parse_optional_punctuation("}") is None:
                name = parser.parse_identifier("property name")
                properties[name] = cls._parse_property(name, parser)
                if parser.parse_optional_punctuation(",") is None:
                    parser.parse_punctuation("}")
                    break
        attributes = parser.parse_optional_attr_dict_with_keyword()
        position = parser.pos
        parser.parse_punctuation(":")
        types = parser.parse_function_type()
        resolved = parser.resolve_operands(operands, types.inputs.data, position)
        regions = [parser.parse_region()] if cls.HAS_REGION else []
        if (sizes := cls.segment_sizes(len(operands))) is not None:
            properties[_SEGMENTS] = sizes
        return cls.create(
            operands=resolved,
            result_types=types.outputs.data,
            properties=properties,
            attributes=attributes.data if attributes is not None else {},
            regions=regions,
        )

    @classmethod
    def segment_sizes(cls, count: int) -> DenseArrayBase[IntegerType] | None:
        """Which of the optional operands `count` operands are, for ops that need to be told."""
        definition = cls.get_irdl_definition()
        if not any(isinstance(option, AttrSizedOperandSegments) for option in definition.options):
            return None
        return DenseArrayBase.from_list(i32, [int(i < count) for i in range(len(definition.operands))])

    @classmethod
    def _parse_property(cls, name: str, parser: Parser) -> Attribute:
        if name in _FLAGS:
            return UnitAttr()
        parser.parse_punctuation("=")
        if (enum := cls.ENUMS.get(name)) is not None:
            return enum(parser.parse_str_enum(enum.enum_type))
        if name in _FLOATS:
            return FloatAttr(parse_float(parser), f32)
        if name in _TEXTS:
            strings = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_str_literal)
            return ArrayAttr([StringAttr(s) for s in strings])
        values = parser.parse_optional_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer)
        if values is not None:
            return ints(values)
        if (value := parser.parse_optional_integer(allow_boolean=False)) is not None:
            return int_attr(value)
        return parser.parse_attribute()

    def print(self, printer: Printer) -> None:
        with printer.in_parens():
            printer.print_list(self.operands, printer.print_operand)
        defaults = {name: d.default_value for name, d in self.get_irdl_definition().properties.items()}
        written = {
            name: attr for name, attr in self.properties.items() if name != _SEGMENTS and attr != defaults.get(name)
        }
        if written:
            printer.print_string(" {")
            printer.print_list(written.items(), lambda item: _print_property(printer, *item))
            printer.print_string("}")
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" : ")
        printer.print_function_type(self.operand_types, self.result_types)
        for region in self.regions:
            printer.print_string(" ")
            printer.print_region(region, print_empty_block=False)


def _print_property(printer: Printer, name: str, attr: Attribute) -> None:
    printer.print_string(name)
    if isinstance(attr, UnitAttr):
        return
    printer.print_string(" = ")
    match attr:
        case EnumAttribute():
            printer.print_string(attr.data.value)
        case FloatAttr():
            printer.print_string(float_text(attr.value.data))
        case IntegerAttr():
            printer.print_string(str(attr.value.data))
        case DenseArrayBase():
            printer.print_string(f"[{', '.join(str(v) for v in attr.elt_type.iter_unpack(attr.data.data))}]")
        case _:
            printer.print_attribute(attr)
