"""From kernels in xDSL's llvm dialect to LLVM IR text.

Covers the ops that `neuc.backends.cpu.builder` emits, its ``llvm.neuc.*`` spellings included, and refuses others by
name. Text is written directly: building llvmlite's objects first took four times as long.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from functools import cache

from xdsl.dialects import llvm
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, FloatAttr, IntegerAttr
from xdsl.ir import Attribute, Block, Operation, SSAValue

from neuc.backends.cpu.irtypes import bits_of, elem_of, is_float, lanes_of
from neuc.backends.cpu.isa import Isa
from neuc.errors import InternalError

PSEUDO = "llvm.neuc."

# Kernels must not turn into calls of memset or memcpy: objects stay free of outside symbols.
_ATTRIBUTES = 'attributes #0 = { nounwind "no-builtins" }'

_BINARY: dict[type[Operation], str] = {
    llvm.AddOp: "add",
    llvm.SubOp: "sub",
    llvm.MulOp: "mul",
    llvm.ShlOp: "shl",
    llvm.LShrOp: "lshr",
    llvm.AShrOp: "ashr",
    llvm.AndOp: "and",
    llvm.OrOp: "or",
    llvm.XOrOp: "xor",
    llvm.UDivOp: "udiv",
    llvm.SDivOp: "sdiv",
    llvm.URemOp: "urem",
    llvm.SRemOp: "srem",
    llvm.FAddOp: "fadd",
    llvm.FSubOp: "fsub",
    llvm.FMulOp: "fmul",
    llvm.FDivOp: "fdiv",
}
_CASTS: dict[type[Operation], str] = {
    llvm.TruncOp: "trunc",
    llvm.ZExtOp: "zext",
    llvm.SExtOp: "sext",
    llvm.BitcastOp: "bitcast",
    llvm.FPExtOp: "fpext",
    llvm.FPTruncOp: "fptrunc",
    llvm.SIToFPOp: "sitofp",
    llvm.PtrToIntOp: "ptrtoint",
    llvm.IntToPtrOp: "inttoptr",
}
_NAMED = frozenset((llvm.ConstantOp, llvm.UndefOp, llvm.ZeroOp))
"""Operations that are no instructions, but names."""
_PSEUDO_CASTS = ("uitofp", "fptosi", "fptoui")
_FLOAT_TYPES = {16: "half", 32: "float", 64: "double"}


def to_llvm_ir(functions: Sequence[llvm.FuncOp], isa: Isa) -> str:
    """The text of one LLVM module that holds these functions.

    Raises:
        InternalError: an op, a type or an attribute has no translation.
    """
    declarations: dict[str, str] = {}
    parts = [f'target triple = "{isa.triple}"', ""]
    parts += [_Function(function, declarations).text() for function in functions]
    return "\n".join([*parts, *declarations.values(), _ATTRIBUTES, ""])


@cache
def type_text(type_: Attribute) -> str:
    """A type as LLVM writes it."""
    if lanes_of(type_) > 1:
        return f"<{lanes_of(type_)} x {type_text(elem_of(type_))}>"
    match type_:
        case llvm.LLVMPointerType():
            return "ptr"
        case llvm.LLVMVoidType():
            return "void"
        case _ if is_float(type_):
            return _FLOAT_TYPES[bits_of(type_)]
        case _:
            return f"i{bits_of(type_)}"


class _Function:
    """Writes one function: first every name and constant, then block by block."""

    def __init__(self, function: llvm.FuncOp, declarations: dict[str, str]) -> None:
        self._function = function
        self._declarations = declarations
        self._names: dict[SSAValue, str] = {}
        self._labels: dict[Block, str] = {}
        self._arrivals: dict[Block, list[tuple[Block, Sequence[SSAValue]]]] = {}
        self._lines: list[str] = []
        # By identity: hashing a type costs more than writing the rest of an instruction.
        self._types: dict[int, str] = {}

    def text(self) -> str:
        name = self._function.sym_name.data
        blocks = list(self._function.body.blocks)
        for number, block in enumerate(blocks):
            self._labels[block] = f"b{number}"
            for argument in block.args:
                self._names[argument] = f"%v{len(self._names)}"
            for op in block.ops:
                if type(op) not in _NAMED:
                    for result in op.results:
                        self._names[result] = f"%v{len(self._names)}"
                elif isinstance(op, llvm.ConstantOp):
                    self._names[op.result] = _literal(op.value, op.result.type)
                elif isinstance(op, llvm.UndefOp):
                    self._names[op.res] = "undef"
                elif isinstance(op, llvm.ZeroOp):
                    self._names[op.res] = "zeroinitializer"
            self._note_arrivals(block)
        arguments = ", ".join(self._typed(argument) for argument in blocks[0].args)
        self._lines.append(f'define void @"{name}"({arguments}) #0 {{')
        for number, block in enumerate(blocks):
            self._lines.append(f"{self._labels[block]}:")
            if number:
                self._phis(block)
            for op in block.ops:
                if type(op) not in _NAMED:
                    self._write(op, name)
        self._lines.append("}\n")
        return "\n".join(self._lines)

    def _note_arrivals(self, block: Block) -> None:
        match block.last_op:
            case llvm.BrOp() as op:
                self._arrivals.setdefault(op.successor, []).append((block, op.arguments))
            case llvm.CondBrOp() as op:
                self._arrivals.setdefault(op.then_block, []).append((block, op.then_arguments))
                self._arrivals.setdefault(op.else_block, []).append((block, op.else_arguments))
            case _:
                pass

    def _phis(self, block: Block) -> None:
        arrivals = self._arrivals.get(block, [])
        for index, argument in enumerate(block.args):
            values = ", ".join(f"[ {self._names[given[index]]}, %{self._labels[come]} ]" for come, given in arrivals)
            self._lines.append(f"  {self._names[argument]} = phi {self._type(argument)} {values}")

    def _type(self, value: SSAValue) -> str:
        found = self._types.get(id(value.type))
        if found is None:
            found = self._types[id(value.type)] = type_text(value.type)
        return found

    def _typed(self, value: SSAValue) -> str:
        return f"{self._type(value)} {self._names[value]}"

    def _pair(self, op: Operation) -> str:
        x, y = op.operands
        return f"{self._type(x)} {self._names[x]}, {self._names[y]}"

    def _write(self, op: Operation, kernel: str) -> None:
        if (kind := type(op)) in _BINARY:
            line = f"{_BINARY[kind]}{_flags(op)} {self._pair(op)}"
        elif kind in _CASTS:
            line = f"{_CASTS[kind]}{_flags(op)} {self._typed(op.operands[0])} to {self._type(op.results[0])}"
        elif (write := _WRITERS.get(kind)) is not None:
            line = write(self, op)
        else:
            raise InternalError(f"kernel {kernel}: {op.name} has no translation to LLVM IR")
        result = f"{self._names[op.results[0]]} = " if op.results else ""
        self._lines.append(f"  {result}{line}")

    def address(self, op: llvm.GEPOp) -> str:
        dynamic = iter(op.ssa_indices)
        indices = [
            self._typed(next(dynamic)) if index == llvm.GEP_USE_SSA_VAL else f"i32 {index}"
            for index in op.rawConstantIndices.iter_values()
        ]
        inbounds = " inbounds" if op.inbounds is not None else ""
        elements = ", ".join([type_text(op.elem_type), self._typed(op.ptr), *indices])
        return f"getelementptr{inbounds} {elements}"

    def load(self, op: llvm.LoadOp) -> str:
        _refuse_atomic(op)
        return f"load {self._type(op.dereferenced_value)}, {self._typed(op.ptr)}{_alignment(op)}"

    def store(self, op: llvm.StoreOp) -> str:
        _refuse_atomic(op)
        return f"store {self._typed(op.value)}, {self._typed(op.ptr)}{_alignment(op)}"

    def icmp(self, op: llvm.ICmpOp) -> str:
        return f"icmp {llvm.ICmpPredicateFlag.from_int(op.predicate.value.data).value} {self._pair(op)}"

    def fcmp(self, op: llvm.FCmpOp) -> str:
        return f"fcmp {llvm.FCmpPredicateFlag.from_int(op.predicate.value.data).value.lstrip('_')} {self._pair(op)}"

    def fneg(self, op: llvm.FNegOp) -> str:
        return f"fneg {self._typed(op.arg)}"

    def select(self, op: llvm.SelectOp) -> str:
        return "select " + ", ".join(self._typed(v) for v in op.operands)

    def insert(self, op: llvm.InsertElementOp) -> str:
        return "insertelement " + ", ".join(self._typed(v) for v in op.operands)

    def shuffle(self, op: llvm.ShuffleVectorOp) -> str:
        lanes = ", ".join(f"i32 {lane}" for lane in op.mask.iter_values())
        count = len(op.mask)
        return f"shufflevector {self._typed(op.v1)}, {self._typed(op.v2)}, <{count} x i32> <{lanes}>"

    def branch(self, op: llvm.BrOp) -> str:
        return f"br label %{self._labels[op.successor]}"

    def cond_branch(self, op: llvm.CondBrOp) -> str:
        return f"br {self._typed(op.cond)}, label %{self._labels[op.then_block]}, label %{self._labels[op.else_block]}"

    def done(self, op: llvm.ReturnOp) -> str:
        return "ret void"

    def intrinsic(self, op: llvm.CallIntrinsicOp) -> str:
        name = op.intrin.data
        arguments = ", ".join(self._typed(v) for v in op.args)
        result = "void" if op.ress is None else self._type(op.ress)
        if name.startswith(PSEUDO):
            kind, _, detail = name.removeprefix(PSEUDO).partition(".")
            match kind:
                case "fcmp":
                    return f"fcmp {detail} {self._pair(op)}"
                case "select" | "extractelement":
                    return f"{kind} {arguments}"
                case _ if kind in _PSEUDO_CASTS:
                    return f"{kind} {arguments} to {result}"
                case _:
                    raise InternalError(f"no instruction {name}")
        types = ", ".join(self._type(v) for v in op.args)
        self._declarations.setdefault(name, f"declare {result} @{name}({types})")
        return f"call {result} @{name}({arguments})"


_WRITERS: dict[type[Operation], Callable[[_Function, Operation], str]] = {
    llvm.GEPOp: _Function.address,
    llvm.LoadOp: _Function.load,
    llvm.StoreOp: _Function.store,
    llvm.ICmpOp: _Function.icmp,
    llvm.FCmpOp: _Function.fcmp,
    llvm.FNegOp: _Function.fneg,
    llvm.SelectOp: _Function.select,
    llvm.InsertElementOp: _Function.insert,
    llvm.ShuffleVectorOp: _Function.shuffle,
    llvm.BrOp: _Function.branch,
    llvm.CondBrOp: _Function.cond_branch,
    llvm.ReturnOp: _Function.done,
    llvm.CallIntrinsicOp: _Function.intrinsic,
}  # pyright: ignore[reportAssignmentType]  # each writer takes the op class it is listed under


def _flags(op: Operation) -> str:
    """Wrapping and fast-math flags, each after a blank."""
    match op:
        case llvm.ArithmeticBinOpOverflow() if op.overflowFlags is not None:
            value = op.overflowFlags.value.data
            return f"{' nsw' if value & 1 else ''}{' nuw' if value & 2 else ''}"
        case llvm.AbstractFloatArithOp() if op.fastmathFlags.data:
            return "".join(f" {flag.value}" for flag in op.fastmathFlags.data)
        case _:
            return ""


def _alignment(op: llvm.LoadOp | llvm.StoreOp) -> str:
    return f", align {op.alignment.value.data}" if op.alignment is not None else ""


def _refuse_atomic(op: llvm.LoadOp | llvm.StoreOp) -> None:
    if op.ordering is not None and op.ordering.value.data != 0:
        raise InternalError(f"atomic {op.name} has no translation to LLVM IR")


def _literal(value: Attribute, type_: Attribute) -> str:
    match value:
        case IntegerAttr() | FloatAttr():
            return _number(value.value.data, type_)
        case DenseIntOrFPElementsAttr():
            numbers = value.get_values()
            elem = elem_of(type_)
            spread = list(numbers) * (lanes_of(type_) // len(numbers))
            return "<" + ", ".join(f"{type_text(elem)} {_number(v, elem)}" for v in spread) + ">"
        case _:
            raise InternalError(f"constant {value} has no translation to LLVM IR")


def _number(value: object, type_: Attribute) -> str:
    if isinstance(value, int):
        return str(value)
    assert isinstance(value, float)
    bits = bits_of(type_)
    if bits == 16:
        return f"0xH{struct.unpack('<H', struct.pack('<e', value))[0]:04X}"
    if bits == 32 and math.isfinite(value):
        # LLVM writes an f32 as the f64 of the same value.
        value = struct.unpack("<f", struct.pack("<f", value))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
