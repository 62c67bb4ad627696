"""The types and opcodes kernel code has, and questions about them. No code under construction.

Scalars and vectors are handled alike: ``vec(f32, 1)`` is ``f32``, so code written for n lanes also gives the
one-lane version.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeAlias, cast

from xdsl.dialects import llvm
from xdsl.dialects.builtin import (
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    Float16Type,
    Float32Type,
    Float64Type,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    StringAttr,
    VectorType,
)
from xdsl.ir import Attribute, Operation

from neuc.dialects.float_text import dense_reads_back, float_bits
from neuc.errors import InternalError

i1 = IntegerType(1)
i8 = IntegerType(8)
i16 = IntegerType(16)
i32 = IntegerType(32)
i64 = IntegerType(64)
f16 = Float16Type()
f32 = Float32Type()
f64 = Float64Type()
ptr = llvm.LLVMPointerType()

Number: TypeAlias = int | float

# Properties and ops are shared by thousands of operations: making them anew would double the emission time.
NO_FLAGS = llvm.FastMathAttr(None)
FLOAT_PROPS: dict[str, Attribute] = {"fastmathFlags": NO_FLAGS}
WRAP_PROPS: dict[str, Attribute] = {"overflowFlags": IntegerAttr(0, i32)}
NSW_PROPS: dict[str, Attribute] = {"overflowFlags": IntegerAttr(1, i32)}
NO_GEP_FLAGS = IntegerAttr(0, i32)
NOT_ATOMIC = IntegerAttr(0, i64)

INT_OPS: dict[str, tuple[type[Operation], dict[str, Attribute]]] = {
    "add": (llvm.AddOp, WRAP_PROPS),
    "sub": (llvm.SubOp, WRAP_PROPS),
    "mul": (llvm.MulOp, WRAP_PROPS),
    "shl": (llvm.ShlOp, WRAP_PROPS),
    "lshr": (llvm.LShrOp, {}),
    "ashr": (llvm.AShrOp, {}),
    "and": (llvm.AndOp, {}),
    "or": (llvm.OrOp, {}),
    "xor": (llvm.XOrOp, {}),
    "udiv": (llvm.UDivOp, {}),
    "sdiv": (llvm.SDivOp, {}),
    "urem": (llvm.URemOp, {}),
    "srem": (llvm.SRemOp, {}),
}
FLOAT_OPS: dict[str, type[Operation]] = {
    "add": llvm.FAddOp,
    "sub": llvm.FSubOp,
    "mul": llvm.FMulOp,
    "div": llvm.FDivOp,
}


@cache
def i32_array(values: tuple[int, ...]) -> DenseArrayBase[IntegerType]:
    """An array attribute of 32-bit integers."""
    return DenseArrayBase.from_list(i32, values)


@cache
def i64_attr(value: int) -> IntegerAttr[IntegerType]:
    """A 64-bit integer attribute."""
    return IntegerAttr(value, i64)


@cache
def text_attr(value: str) -> StringAttr:
    """A string attribute."""
    return StringAttr(value)


_FLOATS = frozenset((Float16Type, Float32Type, Float64Type))
_vectors: dict[tuple[Attribute, int], VectorType] = {}


def vec(elem: Attribute, lanes: int) -> Attribute:
    """The type of ``lanes`` elements; one lane is the element type itself."""
    if lanes == 1:
        return elem
    key = (elem, lanes)
    if key not in _vectors:
        _vectors[key] = VectorType(elem, [lanes])
    return _vectors[key]


def lanes_of(type_: Attribute) -> int:
    """How many lanes a type has; 1 for scalars."""
    return cast("VectorType", type_).get_shape()[0] if type(type_) is VectorType else 1


def elem_of(type_: Attribute) -> Attribute:
    """The element type of a vector, or the scalar type itself."""
    # Not isinstance: of an abstract class it is slow, and kernels ask millions of times.
    return cast(Attribute, cast("VectorType", type_).element_type) if type(type_) is VectorType else type_


def with_elem(type_: Attribute, elem: Attribute) -> Attribute:
    """A type of as many lanes, with other elements."""
    return vec(elem, lanes_of(type_))


def is_float(type_: Attribute) -> bool:
    """Whether the elements are floating-point numbers."""
    return type(elem_of(type_)) in _FLOATS


def bits_of(type_: Attribute) -> int:
    """Bits in one element."""
    match elem_of(type_):
        case IntegerType(width=width):
            return width.data
        case Float16Type():
            return 16
        case Float32Type():
            return 32
        case _:
            return 64


def mangle(type_: Attribute) -> str:
    """A type as LLVM spells it in the names of overloaded intrinsics: ``v16f32``, ``i64``, ``p0``."""
    if isinstance(type_, VectorType):
        return f"v{lanes_of(type_)}{mangle(elem_of(type_))}"
    if isinstance(type_, llvm.LLVMPointerType):
        return "p0"
    return f"{'f' if is_float(type_) else 'i'}{bits_of(type_)}"


def constant_attr(values: Sequence[Number], type_: Attribute) -> Attribute:
    """The attribute of a constant: one number for each lane."""
    elem = elem_of(type_)
    if is_float(elem):
        numbers: Sequence[Number] = [float(v) for v in values]
    else:
        half = 1 << (bits_of(elem) - 1)
        # Accept unsigned spellings (0x80000000): MLIR's signless integers print signed.
        numbers = [(int(v) + half) % (2 * half) - half if bits_of(elem) > 1 else int(v) & 1 for v in values]
    if isinstance(type_, VectorType):
        if len(numbers) != lanes_of(type_):
            raise InternalError(f"{len(numbers)} numbers for a constant of type {type_}")
        return DenseIntOrFPElementsAttr.from_list(type_, numbers)  # pyright: ignore[reportArgumentType,reportCallIssue]
    if is_float(elem):
        return FloatAttr(numbers[0], elem)  # pyright: ignore[reportArgumentType,reportCallIssue]
    return IntegerAttr(int(numbers[0]), elem, truncate_bits=True)  # pyright: ignore[reportArgumentType,reportCallIssue]


def constant_ops(values: Sequence[Number], type_: Attribute) -> list[Operation]:
    """The operations of a constant, one number for each lane; the last one's result is the constant.

    A float vector that text cannot hold is the integers of its bits and a bitcast.
    """
    if isinstance(type_, VectorType) and is_float(type_):
        bits = bits_of(elem_of(type_))
        if not dense_reads_back(values, bits):
            whole = with_elem(type_, IntegerType(bits))
            (raw,) = constant_ops([float_bits(float(v), bits) for v in values], whole)
            return [raw, llvm.BitcastOp.create(operands=(raw.results[0],), result_types=(type_,))]
    return [llvm.ConstantOp.create(result_types=(type_,), properties={"value": constant_attr(values, type_)})]
