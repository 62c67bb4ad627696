"""Buffers and launches of the `cpu` dialect: what a program runs, over which bytes.

Programs, their conditions and calls of them stand in `cpu.py`; how kernels look inside is not this file's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    SymbolRefAttr,
    UnitAttr,
    f32,
    i64,
)
from xdsl.ir import Attribute, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import (
    IRDLOperation,
    irdl_attr_definition,
    irdl_op_definition,
    opt_prop_def,
    param_def,
    prop_def,
    result_def,
    var_operand_def,
)
from xdsl.parser import AttrParser, Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.dims import Dim, DimLike

BUFFER_KINDS = ("arena", "weight", "input", "output")


@irdl_attr_definition
class BufferType(ParametrizedAttribute, TypeAttribute):
    """Bytes at a 64-byte aligned address (inputs: aligned to their element)."""

    name = "cpu.buffer_type"


@irdl_attr_definition
class BufferArgAttr(ParametrizedAttribute):
    """A launch slot that takes the next buffer operand, `offset` bytes in."""

    name = "cpu.at"
    offset: StringAttr = param_def()

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            return [StringAttr(parser.parse_str_literal())]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_attribute(self.offset)


def check_expr(text: str, what: str) -> None:
    """Refuse what is no dim expression.

    Raises:
        VerifyException: `text` of `what` cannot be parsed.
    """
    try:
        Dim.parse(text)
    except (ValueError, ZeroDivisionError) as error:
        raise VerifyException(f"{what}: {error}") from error


@irdl_op_definition
class BufferOp(IRDLOperation):
    """`nbytes` bytes: an arena range, a weight-store entry, an input or an output of the program.

    An output `over` an input may be the same memory as that input: the program writes it only where the input is not
    read any more.
    """

    name = "cpu.buffer"
    kind = prop_def(StringAttr)
    nbytes = prop_def(StringAttr)
    offset = opt_prop_def(StringAttr)
    entry = opt_prop_def(StringAttr)
    index = opt_prop_def(IntegerAttr.constr(i64))
    over = opt_prop_def(IntegerAttr.constr(i64))
    result = result_def(BufferType)

    assembly_format = (
        "$kind (`entry` $entry^)? (`index` $index^)? (`over` $over^)? `bytes` $nbytes (`offset` $offset^)? "
        "attr-dict `:` type($result)"
    )

    def __init__(
        self,
        kind: str,
        nbytes: DimLike,
        *,
        offset: DimLike | None = None,
        entry: str | None = None,
        index: int | None = None,
    ) -> None:
        properties: dict[str, Attribute] = {"kind": StringAttr(kind), "nbytes": StringAttr(str(Dim.of(nbytes)))}
        if offset is not None:
            properties["offset"] = StringAttr(str(Dim.of(offset)))
        if entry is not None:
            properties["entry"] = StringAttr(entry)
        if index is not None:
            properties["index"] = IntegerAttr(index, i64)
        super().__init__(result_types=[BufferType()], properties=properties)

    def verify_(self) -> None:
        kind = self.kind.data
        if kind not in BUFFER_KINDS:
            raise VerifyException(f"buffer kind {kind!r} is not one of {', '.join(BUFFER_KINDS)}")
        check_expr(self.nbytes.data, "bytes")
        if (kind == "weight") != (self.entry is not None):
            raise VerifyException("a weight buffer, and no other, names an entry")
        if (kind in ("input", "output")) != (self.index is not None):
            raise VerifyException("an input or output buffer, and no other, has an index")
        if self.over is not None and kind != "output":
            raise VerifyException("only output buffers are over an input")
        if self.offset is not None:
            if kind != "arena":
                raise VerifyException("only arena buffers have offsets")
            check_expr(self.offset.data, "offset")


LaunchArg: TypeAlias = "SSAValue | tuple[SSAValue, DimLike] | DimLike | float"


@irdl_op_definition
class LaunchOp(IRDLOperation):
    """Run `kernel` over `work` units of about `effort` operations, split among threads in multiples of `grain`.

    All threads meet before it, unless it is `concurrent` with the launches before it, back to the last that is not.
    Slots of the kernel's argument array, in order: a buffer's address (`%b`, or `%b at "bytes"`), an integer (a string
    with a dim expression) or the bits of an f32. `out` stands before buffers that the kernel writes; where it stands
    nowhere, the kernel may write any of them but weights.

    Neighbours that are `for "t" below "T"` are the body of one loop, run T times with t = 0, 1, …; their expressions
    may hold t.
    """

    name = "cpu.launch"
    kernel = prop_def(SymbolRefAttr)
    buffers = var_operand_def(BufferType)
    slots = prop_def(ArrayAttr)
    work = prop_def(StringAttr)
    grain = prop_def(IntegerAttr)
    effort = opt_prop_def(StringAttr)
    scratch = prop_def(StringAttr)
    writes = opt_prop_def(DenseArrayBase.constr(i64))
    concurrent = opt_prop_def(UnitAttr)
    step = opt_prop_def(StringAttr)
    steps = opt_prop_def(StringAttr)

    def __init__(
        self,
        kernel: str,
        args: Sequence[LaunchArg],
        *,
        work: DimLike,
        grain: int = 1,
        effort: DimLike | None = None,
        scratch: DimLike = 0,
        writes: Sequence[int] | None = None,
        loop: tuple[str, Dim] | None = None,
    ) -> None:
        buffers: list[SSAValue] = []
        slots: list[Attribute] = []
        for arg in args:
            if isinstance(arg, SSAValue):
                buffers.append(arg)
                slots.append(BufferArgAttr(StringAttr("0")))
            elif isinstance(arg, tuple):
                buffers.append(arg[0])
                slots.append(BufferArgAttr(StringAttr(str(Dim.of(arg[1])))))
            elif isinstance(arg, float):
                slots.append(FloatAttr(arg, f32))
            else:
                slots.append(StringAttr(str(Dim.of(arg))))
        properties: dict[str, Attribute] = {
            "kernel": SymbolRefAttr(kernel),
            "slots": ArrayAttr(slots),
            "work": StringAttr(str(Dim.of(work))),
            "grain": IntegerAttr(grain, i64),
            "scratch": StringAttr(str(Dim.of(scratch))),
        }
        if effort is not None:
            properties["effort"] = StringAttr(str(Dim.of(effort)))
        if writes is not None:
            named = [place for place in writes if isinstance(slots[place], BufferArgAttr)]
            properties["writes"] = DenseArrayBase.from_list(i64, named)
        if loop is not None:
            properties |= {"step": StringAttr(loop[0]), "steps": StringAttr(str(loop[1]))}
        super().__init__(operands=[buffers], properties=properties)

    @property
    def loop(self) -> tuple[str, str] | None:
        """The symbol and the number of steps of the loop it is in; equal for neighbours of one loop."""
        return None if self.step is None or self.steps is None else (self.step.data, self.steps.data)

    def written(self) -> set[SSAValue]:
        """Buffers that the kernel writes, or may write if that is not known."""
        if self.writes is None:
            return {b for b in self.buffers if not (isinstance(b.owner, BufferOp) and b.owner.entry is not None)}
        slots = set(self.writes.get_values())
        places = [i for i, slot in enumerate(self.slots) if isinstance(slot, BufferArgAttr)]
        return {buffer for place, buffer in zip(places, self.buffers, strict=True) if place in slots}

    def verify_(self) -> None:
        taken = sum(isinstance(slot, BufferArgAttr) for slot in self.slots)
        if taken != len(self.buffers):
            raise VerifyException(f"{len(self.buffers)} buffers for {taken} buffer slots")
        for slot in self.slots:
            match slot:
                case BufferArgAttr():
                    check_expr(slot.offset.data, "buffer offset")
                case StringAttr():
                    check_expr(slot.data, "integer argument")
                case FloatAttr():
                    pass
                case _:
                    raise VerifyException(f"{slot} is neither a buffer, an integer expression nor an f32")
        check_expr(self.work.data, "work")
        check_expr(self.scratch.data, "scratch")
        if self.effort is not None:
            check_expr(self.effort.data, "effort")
        if self.grain.value.data < 1:
            raise VerifyException("grain is less than 1")
        if (self.step is None) != (self.steps is None):
            raise VerifyException("a loop has a symbol and a number of steps")
        if self.step is not None and self.steps is not None:
            check_expr(self.steps.data, "steps")
            if not self.step.data.isidentifier():
                raise VerifyException(f"{self.step.data!r} is no symbol")
        for place in () if self.writes is None else self.writes.get_values():
            if not (0 <= place < len(self.slots) and isinstance(self.slots.data[place], BufferArgAttr)):
                raise VerifyException(f"slot {place} is said to be written, but is no buffer")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_attribute(self.kernel)
        operands = iter(self.buffers)
        written = set(self.writes.get_values()) if self.writes is not None else set[int]()
        with printer.in_parens():
            for i, slot in enumerate(self.slots):
                if i:
                    printer.print_string(", ")
                if isinstance(slot, BufferArgAttr):
                    if i in written:
                        printer.print_string("out ")
                    printer.print_ssa_value(next(operands))
                    if slot.offset.data != "0":
                        printer.print_string(" at ")
                        printer.print_attribute(slot.offset)
                else:
                    printer.print_attribute(slot)
        printer.print_string(" work ")
        printer.print_attribute(self.work)
        if self.grain.value.data != 1:
            printer.print_string(f" grain {self.grain.value.data}")
        if self.effort is not None:
            printer.print_string(" effort ")
            printer.print_attribute(self.effort)
        if self.scratch.data != "0":
            printer.print_string(" scratch ")
            printer.print_attribute(self.scratch)
        if self.loop is not None:
            printer.print_string(f' for "{self.loop[0]}" below "{self.loop[1]}"')
        if self.concurrent is not None:
            printer.print_string(" concurrent")
        printer.print_op_attributes(self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> LaunchOp:
        kernel = parser.parse_symbol_name()
        operands: list[SSAValue] = []
        slots: list[Attribute] = []
        written: list[int] = []

        def slot() -> None:
            if parser.parse_optional_keyword("out"):
                written.append(len(slots))
            operand = parser.parse_optional_unresolved_operand()
            if operand is None:
                slots.append(parser.parse_attribute())
                return
            operands.append(parser.resolve_operand(operand, BufferType()))
            offset = parser.parse_str_literal() if parser.parse_optional_keyword("at") else "0"
            slots.append(BufferArgAttr(StringAttr(offset)))

        parser.parse_comma_separated_list(parser.Delimiter.PAREN, slot)
        parser.parse_keyword("work")
        work = parser.parse_str_literal()
        grain = parser.parse_integer() if parser.parse_optional_keyword("grain") else 1
        effort = parser.parse_str_literal() if parser.parse_optional_keyword("effort") else None
        scratch = parser.parse_str_literal() if parser.parse_optional_keyword("scratch") else "0"
        properties: dict[str, Attribute] = {
            "kernel": SymbolRefAttr(kernel),
            "slots": ArrayAttr(slots),
            "work": StringAttr(work),
            "grain": IntegerAttr(grain, i64),
            "scratch": StringAttr(scratch),
        }
        if effort is not None:
            properties["effort"] = StringAttr(effort)
        if written:
            properties["writes"] = DenseArrayBase.from_list(i64, written)
        if parser.parse_optional_keyword("for"):
            properties["step"] = StringAttr(parser.parse_str_literal())
            parser.parse_keyword("below")
            properties["steps"] = StringAttr(parser.parse_str_literal())
        if parser.parse_optional_keyword("concurrent"):
            properties["concurrent"] = UnitAttr()
        return cls.create(operands=operands, properties=properties, attributes=parser.parse_optional_attr_dict())
