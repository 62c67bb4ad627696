"""Time in the `spike` dialect: `spike.loop`, whose region is one step, and `spike.expectation` over past steps.

Meaning: `interp/spike_time.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from xdsl.dialects.builtin import DenseArrayBase, IntegerType, StringAttr, TensorType, f32, i32, i64
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Attribute, Block, Region, SpacedOpaqueSyntaxAttribute, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    AttrSizedResultSegments,
    IRDLOperation,
    irdl_attr_definition,
    irdl_op_definition,
    lazy_traits_def,
    operand_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser, UnresolvedOperand
from xdsl.printer import Printer
from xdsl.traits import HasParent, IsTerminator, Pure
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.str_enum import StrEnum

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dense_attrs import DenseOp
from neuc.dialects.dims import Dim, DimLike
from neuc.dialects.spike_types import event_of
from neuc.dialects.store import dims_of, element_of, tensor_type

STEP_TYPE = TensorType(i64, [])
"""What a loop's step number is."""


class Form(StrEnum):
    """What the inputs of a `spike.expectation` are: shares of a sum, or changes of a mean."""

    RATE = "rate"
    DIFFERENTIAL = "differential"


@irdl_attr_definition
class FormAttr(EnumAttribute[Form], SpacedOpaqueSyntaxAttribute):
    """`#spike<form rate>`."""

    name = "spike.form"


@irdl_op_definition
class YieldOp(IRDLOperation):
    """What a step gives: outputs, which the loop stacks over time, and the next states."""

    name = "spike.yield"
    outputs = var_operand_def(TensorType)
    states = var_operand_def(TensorType)
    traits = lazy_traits_def(lambda: (IsTerminator(), HasParent(LoopOp, ExpectationOp)))
    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    def __init__(self, outputs: Sequence[SSAValue], states: Sequence[SSAValue] = ()) -> None:
        super().__init__(operands=[outputs, states])

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        groups = _parse_groups(parser, ("outputs", "states"))
        return cls(*groups)

    def print(self, printer: Printer) -> None:
        _print_groups(printer, (("outputs", self.outputs), ("states", self.states)))


@irdl_op_definition
class LoopOp(IRDLOperation):
    """`steps` steps of the region, whose arguments are the step number (i64, from 0), one slice along the first axis of
    each scanned operand, and the states; results are the outputs stacked over time, then the states at the end.

    Values from outside can be used inside; what does not depend on the region's arguments is the same in each step.
    `steps` is the most steps there are: a program may run fewer.
    """

    name = "spike.loop"
    scanned = var_operand_def(TensorType)
    initial = var_operand_def(TensorType)
    steps = prop_def(StringAttr)
    outputs = var_result_def(TensorType)
    final = var_result_def(TensorType)
    body = region_def("single_block")
    traits = traits_def(Pure())
    irdl_options = (
        AttrSizedOperandSegments(as_property=True),
        AttrSizedResultSegments(as_property=True),
    )

    def __init__(
        self,
        scanned: Sequence[SSAValue],
        initial: Sequence[SSAValue],
        steps: DimLike,
        outputs: Sequence[Attribute],
        body: Region | None = None,
    ) -> None:
        """`outputs`: the types of one step's outputs. Without a body: one with an empty block of its arguments."""
        count = Dim.of(steps)
        if body is None:
            slices = [slice_type(value) for value in scanned]
            body = Region(Block(arg_types=[STEP_TYPE, *slices, *(value.type for value in initial)]))
        super().__init__(
            operands=[scanned, initial],
            result_types=[[stacked_type(t, count) for t in outputs], [value.type for value in initial]],
            properties={"steps": StringAttr(str(count))},
            regions=[body],
        )

    @property
    def step_count(self) -> Dim:
        """The most steps."""
        return Dim.parse(self.steps.data)

    @property
    def step(self) -> SSAValue:
        """The step number inside the region."""
        return self.body.block.args[0]

    @property
    def slices(self) -> tuple[SSAValue, ...]:
        """The scanned operands' slices inside the region."""
        return tuple(self.body.block.args[1 : 1 + len(self.scanned)])

    @property
    def states(self) -> tuple[SSAValue, ...]:
        """The states inside the region, as a step finds them."""
        return tuple(self.body.block.args[1 + len(self.scanned) :])

    @property
    def terminator(self) -> YieldOp:
        """The end of a step."""
        last = self.body.block.last_op
        assert isinstance(last, YieldOp)
        return last

    def verify_(self) -> None:
        try:
            steps = self.step_count
        except (ValueError, ZeroDivisionError) as error:
            raise VerifyException(str(error)) from error
        if steps.is_static and steps.value < 1:
            raise VerifyException(f"steps = {steps}, should be at least 1")
        for i, value in enumerate(self.scanned):
            dims = shapes.dims(value)
            if not dims or shapes.differ(dims[0], steps):
                raise VerifyException(
                    f"scanned operand {i} has shape {shapes.shape_text(dims)}, should have {steps} steps first"
                )
        expected = [STEP_TYPE, *map(slice_type, self.scanned), *(value.type for value in self.initial)]
        _check_types("region argument", list(self.body.block.arg_types), expected)
        last = self.body.block.last_op
        if not isinstance(last, YieldOp):
            raise VerifyException("region must end with spike.yield")
        states = [value.type for value in self.initial]
        _check_types("yielded state", [value.type for value in last.states], states)
        _check_types("final state", [value.type for value in self.final], states)
        _check_types("output", [v.type for v in self.outputs], [stacked_type(v.type, steps) for v in last.outputs])

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        groups = _parse_groups(parser, ("scan", "init"))
        parser.parse_keyword("steps")
        steps = parser.parse_optional_integer(allow_boolean=False)
        text = parser.parse_str_literal() if steps is None else str(steps)
        parser.parse_punctuation("->")
        outputs = parser.parse_comma_separated_list(parser.Delimiter.PAREN, parser.parse_type)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        body = parser.parse_region()
        loop = cls.create(
            operands=[*groups[0], *groups[1]],
            result_types=[*outputs, *(value.type for value in groups[1])],
            properties={
                "steps": StringAttr(text),
                "operandSegmentSizes": _sizes(len(groups[0]), len(groups[1])),
                "resultSegmentSizes": _sizes(len(outputs), len(groups[1])),
            },
            attributes=attributes.data if attributes is not None else {},
            regions=[body],
        )
        return loop

    def print(self, printer: Printer) -> None:
        _print_groups(printer, (("scan", self.scanned), ("init", self.initial)))
        steps = self.step_count
        printer.print_string(f" steps {steps}" if steps.is_static else f' steps "{steps}"')
        printer.print_string(" -> ")
        _print_types(printer, [value.type for value in self.outputs])
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_empty_block=False)


@irdl_op_definition
class ExpectationOp(DenseOp):
    """A function of means over the steps so far, sent as what its answer changes by.

    With n = step + 1 and f the region: `form = rate`: totals' = totals + x, now = f(totals'/n); `form = differential`:
    totals' = totals + x/n, now = f(totals'). result = n·now − step·last (rate) or n·(now − last) (differential), and
    next last = now. So the mean of the results (rate) or Σ result/n (differential) is f of the mean input, exactly, for
    any f: layer norms, GELU, softmax, products of two activations. Means of events are f32 in units of the events.
    """

    name = "spike.expectation"
    xs = var_operand_def(TensorType)
    totals = var_operand_def(TensorType)
    last = operand_def(TensorType)
    step = operand_def(TensorType)
    form = prop_def(FormAttr, default_value=FormAttr(Form.RATE))
    result = result_def(TensorType)
    next_totals = var_result_def(TensorType)
    next_last = result_def(TensorType)
    body = region_def("single_block")
    traits = traits_def(Pure())
    irdl_options = (AttrSizedOperandSegments(as_property=True),)
    ENUMS: ClassVar = {"form": FormAttr}
    HAS_REGION: ClassVar = True

    def __init__(
        self,
        xs: Sequence[SSAValue],
        totals: Sequence[SSAValue],
        last: SSAValue,
        step: SSAValue,
        *,
        form: Form | str = Form.RATE,
        body: Region | None = None,
    ) -> None:
        """Without a body: one with an empty block that takes the means."""
        if body is None:
            body = Region(Block(arg_types=[total.type for total in totals]))
        super().__init__(
            operands=[xs, totals, last, step],
            result_types=[last.type, [total.type for total in totals], last.type],
            properties={"form": FormAttr(Form(form))},
            regions=[body],
        )

    @classmethod
    def segment_sizes(cls, count: int) -> DenseArrayBase[IntegerType]:
        inputs = max(0, count - 2) // 2
        return DenseArrayBase.from_list(i32, [inputs, inputs, 1, 1])

    def verify_(self) -> None:
        shapes.check("step", self.step, (), i64)
        shapes.check_element("last", self.last, f32)
        if not self.xs:
            raise VerifyException("needs at least one input")
        for i, (x, total) in enumerate(zip(self.xs, self.totals, strict=True)):
            if event_of(x) is None:
                shapes.check_element(f"input {i}", x, f32)
            shapes.check(f"total {i}", total, shapes.dims(x), f32)
        totals = [total.type for total in self.totals]
        _check_types("next total", [value.type for value in self.next_totals], totals)
        _check_types("region argument", list(self.body.block.arg_types), totals)
        _check_types("result", [self.result.type, self.next_last.type], [self.last.type] * 2)
        end = self.body.block.last_op
        if not isinstance(end, YieldOp) or end.states or len(end.outputs) != 1:
            raise VerifyException("region must end with spike.yield of one output")
        _check_types("yielded value", [end.outputs[0].type], [self.last.type])


def _parse_groups(parser: Parser, keywords: Sequence[str]) -> list[list[SSAValue]]:
    """``scan(%a, %b) init(%c) : (types), (types)``."""
    names: list[list[UnresolvedOperand]] = []
    for keyword in keywords:
        parser.parse_keyword(keyword)
        names.append(parser.parse_comma_separated_list(parser.Delimiter.PAREN, parser.parse_unresolved_operand))
    groups: list[list[SSAValue]] = []
    for i, group in enumerate(names):
        position = parser.pos
        parser.parse_punctuation("," if i else ":")
        types = parser.parse_comma_separated_list(parser.Delimiter.PAREN, parser.parse_type)
        groups.append(list(parser.resolve_operands(group, types, position)))
    return groups


def _print_groups(printer: Printer, groups: Sequence[tuple[str, Sequence[SSAValue]]]) -> None:
    for keyword, values in groups:
        printer.print_string(f" {keyword}")
        with printer.in_parens():
            printer.print_list(values, printer.print_operand)
    for i, (_, values) in enumerate(groups):
        printer.print_string(", " if i else " : ")
        _print_types(printer, [value.type for value in values])


def _sizes(*sizes: int) -> Attribute:
    return DenseArrayBase.from_list(i32, sizes)


def _print_types(printer: Printer, types: Sequence[Attribute]) -> None:
    with printer.in_parens():
        printer.print_list(types, printer.print_attribute)


def _check_types(name: str, found: Sequence[Attribute], expected: Sequence[Attribute]) -> None:
    if len(found) != len(expected):
        raise VerifyException(f"there are {len(found)} {name}s, should be {len(expected)}")
    for i, (a, b) in enumerate(zip(found, expected)):
        if a != b:
            raise VerifyException(f"{name} {i} is {a}, should be {b}")


def slice_type(value: SSAValue | Attribute) -> TensorType[Attribute]:
    """What one step sees of a scanned operand."""
    return tensor_type(element_of(value), dims_of(value)[1:])


def stacked_type(step: Attribute, steps: DimLike) -> TensorType[Attribute]:
    """An output of all steps, from the type of one step's."""
    return tensor_type(element_of(step), [Dim.of(steps), *dims_of(step)])
