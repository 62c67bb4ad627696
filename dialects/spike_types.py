"""The element type of spikes: `!spike.event<binary>`, `<signed>` or `<graded, n>`.

Tensors of it hold spikes and nothing else, which is what lets verifiers prove that a network is a spiking one.
Operations are in the sibling files `spike_*.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import IntAttr, StringAttr, TensorType
from xdsl.ir import Attribute, Operation, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import irdl_attr_definition, param_def
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import OpTrait
from xdsl.utils.exceptions import VerifyException

MOST_LEVELS = 7
"""2^6 is the largest power of two an int8 holds with both signs."""


@irdl_attr_definition
class EventType(ParametrizedAttribute, TypeAttribute):
    """One neuron's output in one step, an int8 in memory.

    binary: 0 or 1; signed: -1, 0, 1; graded n: 0 or ±2^k for k = 0 … n-1, in units of the neuron's smallest level.
    """

    name = "spike.event"
    kind: StringAttr = param_def()
    levels: IntAttr = param_def()

    @staticmethod
    def of(kind: str, levels: int = 1) -> EventType:
        """The type of `kind`; `levels` matters for graded events alone."""
        return EventType(StringAttr(kind), IntAttr(levels))

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            kind, levels = parser.parse_keyword_in(("binary", "signed", "graded")), 1
            if kind == "graded":
                parser.parse_punctuation(",")
                levels = parser.parse_integer(allow_boolean=False)
        return [StringAttr(kind), IntAttr(levels)]

    def print_parameters(self, printer: Printer) -> None:
        levels = f", {self.level_count}" if self.kind.data == "graded" else ""
        printer.print_string(f"<{self.kind.data}{levels}>")

    def verify(self) -> None:
        if self.kind.data not in ("binary", "signed", "graded"):
            raise VerifyException(f"events are binary, signed or graded, not {self.kind.data}")
        if not 1 <= self.level_count <= MOST_LEVELS:
            raise VerifyException(f"graded events have 1 to {MOST_LEVELS} levels, not {self.level_count}")
        if self.kind.data != "graded" and self.level_count != 1:
            raise VerifyException(f"{self.kind.data} events have one level, not {self.level_count}")

    @property
    def level_count(self) -> int:
        """How many magnitudes a spike can have."""
        return self.levels.data

    @property
    def is_binary(self) -> bool:
        """Whether a spike is there or not, and nothing more."""
        return self.kind.data == "binary"

    @property
    def values(self) -> tuple[int, ...]:
        """Every value an event can have, ascending."""
        if self.is_binary:
            return (0, 1)
        powers = [1 << k for k in range(self.level_count)]
        return (*(-p for p in reversed(powers)), 0, *powers)

    def holds(self, array: np.ndarray) -> bool:
        """Whether `array` is int8 and all of it are such events."""
        return array.dtype == np.int8 and bool(np.isin(array, self.values).all())


BINARY = EventType.of("binary")
SIGNED = EventType.of("signed")


def graded(levels: int) -> EventType:
    """Signed events with `levels` powers of two."""
    return EventType.of("graded", levels)


def event_of(value: Attribute | SSAValue) -> EventType | None:
    """The event type of a tensor type or of a value that has one; None where it holds no events."""
    type_ = value.type if isinstance(value, SSAValue) else value
    element = type_.get_element_type() if isinstance(type_, TensorType) else None
    return element if isinstance(element, EventType) else None


class Numeric(OpTrait):
    """Of operations that compute with numbers and take no spikes: spikes become numbers in synapses and decoders."""

    def verify(self, op: Operation) -> None:
        for i, operand in enumerate(op.operands):
            if (event := event_of(operand)) is not None:
                raise VerifyException(f"operand {i} holds {event}: only synapses and decoders take spikes")
