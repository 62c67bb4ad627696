"""Types of the `energy` dialect (variables, terms, models, states, trajectories) and the textual form its ops share.

The operations are in `energy_terms.py` (what an energy is made of) and `energy_run.py` (what is done with it).
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import ArrayAttr, Float32Type, FloatAttr, IntAttr, StringAttr, UnitAttr, f32, f64, i8, i32
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Attribute, ParametrizedAttribute, SpacedOpaqueSyntaxAttribute, SSAValue, TypeAttribute
from xdsl.irdl import irdl_attr_definition, param_def
from xdsl.parser import AttrParser, Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.str_enum import StrEnum

from neuc.dialects.dense_attrs import DenseOp, float_text, parse_float

MAX_CATEGORIES = 256


class Space(StrEnum):
    """What one site of a variable ranges over."""

    SPIN = "spin"
    CAT = "cat"
    REAL = "real"
    SIMPLEX = "simplex"
    PHASE = "phase"
    COMPLEX = "complex"


_WITH_LEVELS = (Space.CAT, Space.SIMPLEX)


class Role(StrEnum):
    """Whether dynamics change a variable."""

    FREE = "free"
    CLAMPED = "clamped"


class RhoKind(StrEnum):
    """Functions of `energy.rho`."""

    HARDSIGMOID = "hardsigmoid"
    TANH = "tanh"
    SIGMOID = "sigmoid"
    RELU = "relu"
    COS = "cos"
    SIN = "sin"


class CostKind(StrEnum):
    """Costs of `energy.cost`."""

    MSE = "mse"
    CE = "ce"


class Rule(StrEnum):
    """How `energy.sample` changes a site."""

    GIBBS = "gibbs"
    METROPOLIS = "metropolis"
    LANGEVIN = "langevin"
    OU_EXACT = "ou_exact"


class Method(StrEnum):
    """How `energy.relax` lowers an energy."""

    FLOW = "flow"
    BLOCK_MIN = "block_min"
    MEAN_FIELD = "mean_field"
    MESSAGES = "messages"
    BIFURCATION = "bifurcation"


class Observable(StrEnum):
    """What `energy.observe` accumulates."""

    SUM = "sum"
    PAIRS = "pairs"
    HISTOGRAM = "histogram"
    ENERGY = "energy"


class Ramp(StrEnum):
    """How `energy.schedule` goes from its first to its last value."""

    LINEAR = "linear"
    GEOMETRIC = "geometric"


@irdl_attr_definition
class RoleAttr(EnumAttribute[Role], SpacedOpaqueSyntaxAttribute):
    """`#energy<role free>`."""

    name = "energy.role"


@irdl_attr_definition
class RhoAttr(EnumAttribute[RhoKind], SpacedOpaqueSyntaxAttribute):
    """`#energy<rho tanh>`."""

    name = "energy.rho_kind"


@irdl_attr_definition
class CostAttr(EnumAttribute[CostKind], SpacedOpaqueSyntaxAttribute):
    """`#energy<cost mse>`."""

    name = "energy.cost_kind"


@irdl_attr_definition
class RuleAttr(EnumAttribute[Rule], SpacedOpaqueSyntaxAttribute):
    """`#energy<rule gibbs>`."""

    name = "energy.rule"


@irdl_attr_definition
class MethodAttr(EnumAttribute[Method], SpacedOpaqueSyntaxAttribute):
    """`#energy<method flow>`."""

    name = "energy.method"


@irdl_attr_definition
class ObservableAttr(EnumAttribute[Observable], SpacedOpaqueSyntaxAttribute):
    """`#energy<observable sum>`."""

    name = "energy.observable"


@irdl_attr_definition
class RampAttr(EnumAttribute[Ramp], SpacedOpaqueSyntaxAttribute):
    """`#energy<ramp linear>`."""

    name = "energy.ramp"


@irdl_attr_definition
class VarType(ParametrizedAttribute, TypeAttribute):
    """An array of sites: `!energy.var<spin, [4, 4]>`; spin, cat<3>, real, real[0.0, 1.0], simplex<5>, phase, complex.

    A state holds it as a tensor with the chains in front: spins i8 (-1, 1), categories i32, reals f32 or f64, beliefs
    f32 or f64 with a last axis of K, phases in radians, complex numbers with a last axis (real, imaginary).
    """

    name = "energy.var"
    space_name: StringAttr = param_def()
    levels_attr: IntAttr = param_def()
    low: FloatAttr[Float32Type] = param_def()
    high: FloatAttr[Float32Type] = param_def()
    shape_attr: ArrayAttr[IntAttr] = param_def()

    @staticmethod
    def of(
        space: Space | str, shape: Sequence[int], levels: int = 0, box: tuple[float, float] = (-math.inf, math.inf)
    ) -> VarType:
        """The type of `shape` sites; `levels` is K of categories and beliefs, `box` the bounds of reals."""
        low, high = (FloatAttr(bound, f32) for bound in box)
        sizes = ArrayAttr([IntAttr(size) for size in shape])
        return VarType(StringAttr(Space(space).value), IntAttr(levels), low, high, sizes)

    @property
    def space(self) -> Space:
        return Space(self.space_name.data)

    @property
    def levels(self) -> int:
        """K of categories and beliefs."""
        return self.levels_attr.data

    @property
    def box(self) -> tuple[float, float]:
        return self.low.value.data, self.high.value.data

    @property
    def shape(self) -> tuple[int, ...]:
        """How the sites lie, without the chains."""
        return tuple(size.data for size in self.shape_attr.data)

    @property
    def sites(self) -> int:
        return math.prod(self.shape)

    @property
    def discrete(self) -> bool:
        return self.space in (Space.SPIN, Space.CAT)

    @property
    def value_shape(self) -> tuple[int, ...]:
        """The shape of one chain's values."""
        last = {Space.SIMPLEX: (self.levels,), Space.COMPLEX: (2,)}.get(self.space, ())
        return (*self.shape, *last)

    @property
    def elements(self) -> tuple[Attribute, ...]:
        """The element types its values may have."""
        return {Space.SPIN: (i8,), Space.CAT: (i32,)}.get(self.space, (f32, f64))

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            space = parser.parse_str_enum(Space)
            levels, box = 0, (-math.inf, math.inf)
            if space in _WITH_LEVELS:
                parser.parse_punctuation("<")
                levels = parser.parse_integer(allow_boolean=False)
                parser.parse_punctuation(">")
            bounds = parser.parse_optional_comma_separated_list(parser.Delimiter.SQUARE, lambda: parse_float(parser))
            if bounds is not None:
                if space is not Space.REAL or len(bounds) != 2:
                    parser.raise_error("bounds are real[low, high]")
                box = (bounds[0], bounds[1])
            shape: list[int] = []
            if parser.parse_optional_punctuation(",") is not None:
                with parser.in_square_brackets():
                    shape.append(parser.parse_integer(allow_boolean=False))
                    while parser.parse_optional_punctuation(",") is not None:
                        shape.append(parser.parse_integer(allow_boolean=False))
        return VarType.of(space, shape, levels, box).parameters

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(self.space.value)
            if self.space in _WITH_LEVELS:
                printer.print_string(f"<{self.levels}>")
            if self.box != (-math.inf, math.inf):
                printer.print_string(f"[{float_text(self.box[0])}, {float_text(self.box[1])}]")
            if self.shape:
                printer.print_string(f", [{', '.join(map(str, self.shape))}]")

    def verify(self) -> None:
        if any(size < 1 for size in self.shape):
            raise VerifyException(f"a variable of shape {list(self.shape)} has no sites")
        if self.space in _WITH_LEVELS and not 1 <= self.levels <= MAX_CATEGORIES:
            raise VerifyException(f"{self.space.value}<{self.levels}>: 1 to {MAX_CATEGORIES} levels")
        if not self.box[0] < self.box[1]:
            raise VerifyException(f"the box [{self.box[0]}, {self.box[1]}] is empty")


@irdl_attr_definition
class TermType(ParametrizedAttribute, TypeAttribute):
    """One summand of an energy."""

    name = "energy.term"


@irdl_attr_definition
class ModelType(ParametrizedAttribute, TypeAttribute):
    """Variables and the sum of terms over them."""

    name = "energy.model"


@irdl_attr_definition
class StateType(ParametrizedAttribute, TypeAttribute):
    """A value of every variable of a model, for a number of chains."""

    name = "energy.state"


@irdl_attr_definition
class TrajectoryType(ParametrizedAttribute, TypeAttribute):
    """The states of the kept sweeps; only `energy.observe` reads it, so that backends need not store it."""

    name = "energy.trajectory"


class EnergyOp(DenseOp, ABC):
    """An operation in the textual form of `dense`, with f32 properties and flags of its own."""

    FLOATS: ClassVar[frozenset[str]] = frozenset()
    FLAGS: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def _parse_property(cls, name: str, parser: Parser) -> Attribute:
        if name in cls.FLAGS:
            return UnitAttr()
        if name in cls.FLOATS:
            parser.parse_punctuation("=")
            return FloatAttr(parse_float(parser), f32)
        return super()._parse_property(name, parser)


def var_type(value: SSAValue) -> VarType:
    """The type of a variable.

    Raises:
        VerifyException: it is none.
    """
    if not isinstance(value.type, VarType):
        raise VerifyException(f"{value.type} is no variable")
    return value.type
