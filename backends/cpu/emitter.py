"""The core of the kernel builder: values, constants, arguments, core instructions and blocks.

Loops and conditionals are in `emitter_flow.py`; `neuc.backends.cpu.builder` adds the instruction set on top and is what
kernels import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypeVar

from xdsl.dialects import llvm
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from neuc.backends.cpu.irtypes import (
    FLOAT_OPS,
    FLOAT_PROPS,
    INT_OPS,
    NO_GEP_FLAGS,
    NOT_ATOMIC,
    NSW_PROPS,
    Number,
    constant_ops,
    f32,
    i1,
    i32,
    i32_array,
    i64,
    i64_attr,
    is_float,
    lanes_of,
    ptr,
    vec,
    with_elem,
)
from neuc.backends.cpu.isa import Isa
from neuc.errors import InternalError

_Op = TypeVar("_Op", bound=Operation)


class Val:
    """A value in a kernel under construction; operators emit code where the builder stands.

    A Python number on either side becomes a constant of this value's type. ``>>`` is the logical shift,
    ``/`` is for floats; integer division is ``builder.udiv`` and friends, so that its signedness is seen.
    """

    __slots__ = ("builder", "ssa", "type")

    def __init__(self, builder: Emitter, ssa: SSAValue, type_: Attribute) -> None:
        self.builder = builder
        self.ssa = ssa
        self.type = type_

    def __add__(self, other: Operand) -> Val:
        return self.builder.binary("add", self, other)

    def __sub__(self, other: Operand) -> Val:
        return self.builder.binary("sub", self, other)

    def __mul__(self, other: Operand) -> Val:
        return self.builder.binary("mul", self, other)

    def __truediv__(self, other: Operand) -> Val:
        return self.builder.binary("div", self, other)

    def __and__(self, other: Operand) -> Val:
        return self.builder.binary("and", self, other)

    def __or__(self, other: Operand) -> Val:
        return self.builder.binary("or", self, other)

    def __xor__(self, other: Operand) -> Val:
        return self.builder.binary("xor", self, other)

    def __lshift__(self, other: Operand) -> Val:
        return self.builder.binary("shl", self, other)

    def __rshift__(self, other: Operand) -> Val:
        return self.builder.binary("lshr", self, other)

    def ashr(self, other: Operand) -> Val:
        """Arithmetic (sign-extending) right shift."""
        return self.builder.binary("ashr", self, other)

    def __radd__(self, other: Operand) -> Val:
        return self.builder.binary("add", other, self)

    def __rsub__(self, other: Operand) -> Val:
        return self.builder.binary("sub", other, self)

    def __rmul__(self, other: Operand) -> Val:
        return self.builder.binary("mul", other, self)

    def __rtruediv__(self, other: Operand) -> Val:
        return self.builder.binary("div", other, self)

    def __neg__(self) -> Val:
        return self.builder.neg(self)

    @property
    def lanes(self) -> int:
        """How many lanes; 1 for a scalar."""
        return lanes_of(self.type)

    def __repr__(self) -> str:
        return f"Val({self.type})"


Operand: TypeAlias = Val | int | float


class Emitter:
    """The function under construction and the place where the next operation goes."""

    def __init__(self, name: str, isa: Isa) -> None:
        self.name = name
        self.isa = isa
        self.lanes = isa.f32_lanes
        entry = Block(arg_types=[ptr, i64, i64, ptr])
        self._blocks = [entry]
        self._prologue: list[Operation] = []
        self._constants: dict[tuple[object, Attribute], Val] = {}
        self._arguments: dict[tuple[int, Attribute], Val] = {}
        self.block = entry
        args, begin, end, scratch = (Val(self, arg, arg.type) for arg in entry.args)
        self.args = args
        self.begin = begin
        self.end = end
        self.scratch = scratch

    # ---------------------------------------------------------------- arguments and constants

    def arg_ptr(self, index: int) -> Val:
        """Argument slot ``index`` as the address of a buffer."""
        return self._argument(index, ptr)

    def arg_int(self, index: int) -> Val:
        """Argument slot ``index`` as an i64."""
        return self._argument(index, i64)

    def arg_f32(self, index: int) -> Val:
        """Argument slot ``index`` as an f32."""
        return self._argument(index, f32)

    def const(self, value: Number | Sequence[Number], type_: Attribute) -> Val:
        """A constant; a number fills every lane, a sequence gives one number a lane."""
        spread = isinstance(value, int | float)
        # repr tells 0.0 from -0.0 and nan from nan, which == does not.
        key = (repr(value) if spread else tuple(map(repr, value)), type_)
        found = self._constants.get(key)
        if found is None:
            values = [value] * lanes_of(type_) if spread else list(value)
            ops = constant_ops(values, type_)
            self._prologue += ops
            found = self._constants[key] = Val(self, ops[-1].results[0], type_)
        return found

    def i64(self, value: int) -> Val:
        """An i64 constant."""
        return self.const(value, i64)

    def i32(self, value: int) -> Val:
        """An i32 constant."""
        return self.const(value, i32)

    def f32(self, value: float) -> Val:
        """An f32 constant."""
        return self.const(float(value), f32)

    def vec_const(self, values: Sequence[Number], elem: Attribute) -> Val:
        """A vector constant, one number a lane."""
        return self.const(values if len(values) > 1 else values[0], vec(elem, len(values)))

    def zero(self, type_: Attribute) -> Val:
        """Zero of any number type."""
        return self.const(0.0 if is_float(type_) else 0, type_)

    def undef(self, type_: Attribute) -> Val:
        """An arbitrary value, to be overwritten lane by lane."""
        key = ("undef", type_)
        if key not in self._constants:
            op = llvm.UndefOp(type_)
            self._prologue.append(op)
            self._constants[key] = Val(self, op.results[0], type_)
        return self._constants[key]

    def as_val(self, value: Operand, type_: Attribute) -> Val:
        """A Python number as a constant of this type; a value as it is."""
        return value if isinstance(value, Val) else self.const(value, type_)

    def vtype(self, elem: Attribute | None = None) -> Attribute:
        """The vector of ``elem`` with as many lanes as this instruction set has for f32."""
        return vec(elem or f32, self.lanes)

    # ---------------------------------------------------------------- core instructions

    def binary(self, kind: str, x: Operand, y: Operand) -> Val:
        """``add sub mul div`` on floats; those but div, ``and or xor shl lshr ashr [us]div [us]rem`` on ints."""
        x, y = self._pair(x, y)
        if is_float(x.type):
            if kind not in FLOAT_OPS:
                raise InternalError(f"no {kind} of floats")
            return self.emit(FLOAT_OPS[kind], (x.ssa, y.ssa), x.type, FLOAT_PROPS)
        if kind not in INT_OPS:
            raise InternalError(f"no {kind} of integers: say udiv or sdiv")
        op, props = INT_OPS[kind]
        return self.emit(op, (x.ssa, y.ssa), x.type, props)

    def add_nsw(self, x: Val, y: Val) -> Val:
        """Integer sum that is known not to overflow."""
        return self.emit(llvm.AddOp, (x.ssa, y.ssa), x.type, NSW_PROPS)

    def neg(self, x: Val) -> Val:
        """``-x``."""
        if is_float(x.type):
            return self.emit(llvm.FNegOp, (x.ssa,), x.type, FLOAT_PROPS)
        return self.binary("sub", 0, x)

    def icmp(self, predicate: str, x: Operand, y: Operand) -> Val:
        """Compare integers: eq ne slt sle sgt sge ult ule ugt uge."""
        x, y = self._pair(x, y)
        props: dict[str, Attribute] = {"predicate": i64_attr(llvm.ICmpPredicateFlag(predicate).to_int())}
        return self.emit(llvm.ICmpOp, (x.ssa, y.ssa), with_elem(x.type, i1), props)

    def elem(self, base: Val, index: Operand, elem_type: Attribute) -> Val:
        """The address of element ``index`` of an array of ``elem_type`` at ``base``."""
        static = not isinstance(index, Val) and -(1 << 31) < index < (1 << 31)
        dynamic = () if static else (self.as_val(index, i64).ssa,)
        raw = int(index) if static and not isinstance(index, Val) else llvm.GEP_USE_SSA_VAL
        props: dict[str, Attribute] = {
            "rawConstantIndices": i32_array((raw,)),
            "elem_type": elem_type,
            "noWrapFlags": NO_GEP_FLAGS,
        }
        return self.emit(llvm.GEPOp, (base.ssa, *dynamic), ptr, props)

    def load(self, address: Val, type_: Attribute, align: int = 1) -> Val:
        """Load a scalar or vector."""
        props: dict[str, Attribute] = {"ordering": NOT_ATOMIC, "alignment": i64_attr(align)}
        return self.emit(llvm.LoadOp, (address.ssa,), type_, props)

    def finish(self) -> llvm.FuncOp:
        """End the function and hand it over; the builder is used up."""
        self.block.add_op(llvm.ReturnOp())
        entry = self._blocks[0]
        first = entry.first_op
        assert first is not None
        entry.insert_ops_before(self._prologue, first)
        function_type = llvm.LLVMFunctionType([ptr, i64, i64, ptr], llvm.LLVMVoidType())
        return llvm.FuncOp(
            self.name,
            function_type,
            linkage=llvm.LinkageAttr("external"),
            body=Region(self._blocks),
        )

    # ---------------------------------------------------------------- blocks

    def enter(self, block: Block) -> None:
        """Go on in this block, placed after all others."""
        self._blocks.append(block)
        self.block = block

    def leave(self) -> None:
        """Take the current, still empty block out again."""
        self._blocks.pop()

    def branch(self, to: Block, values: Sequence[SSAValue]) -> None:
        """Jump."""
        self.block.add_op(llvm.BrOp(to, *values))

    def cond_branch(
        self, cond: Val, then: Block, values: Sequence[SSAValue], other: Block, others: Sequence[SSAValue]
    ) -> None:
        """Jump one way or the other."""
        self.block.add_op(llvm.CondBrOp(cond.ssa, then, values, other, others))

    def cond_branch_at(self, block: Block, cond: Val, then: Block, other: Block) -> None:
        """End another block with a two-way jump."""
        block.add_op(llvm.CondBrOp(cond.ssa, then, (), other, ()))

    # ---------------------------------------------------------------- inside

    def emit(self, op: type[_Op], operands: Sequence[SSAValue], type_: Attribute, props: dict[str, Attribute]) -> Val:
        """Append one operation with one result."""
        new = op.create(operands=operands, result_types=(type_,), properties=props)
        self.block.add_op(new)
        return Val(self, new.results[0], type_)

    def _argument(self, index: int, type_: Attribute) -> Val:
        key = (index, type_)
        if key not in self._arguments:
            inside, self.block = self.block, Block()
            self._arguments[key] = self.load(self.elem(self.args, index, i64), type_, align=8)
            ops = list(self.block.ops)
            for op in ops:
                op.detach()
            self._prologue += ops
            self.block = inside
        return self._arguments[key]

    def _pair(self, x: Operand, y: Operand) -> tuple[Val, Val]:
        if isinstance(x, Val):
            y = y if isinstance(y, Val) else self.const(y, x.type)
        elif isinstance(y, Val):
            x = self.const(x, y.type)
        else:
            raise InternalError("an operation needs at least one kernel value")
        if x.type is not y.type and x.type != y.type:
            raise InternalError(f"{self.name}: operands of types {x.type} and {y.type}")
        return x, y
