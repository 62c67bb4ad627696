"""The scalar program a map kernel applies to every element, and the code of each of its instructions.

The instructions are `arith` and `math` operations by name. Reading them out of a `dense.map` region is the lowering's
business; what they mean is said in `dialects/interp/scalar.py`, and where C leaves a case undefined (division by zero,
a float too large for its integer) the code here has numpy's value or a saturated one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdsl.ir import Attribute

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, elem_of, f16, f32, f64, i1, i8, i16, i32, i64, vec, with_elem
from neuc.backends.cpu.irtypes import bits_of, is_float
from neuc.backends.cpu.kernels import map_precise
from neuc.backends.cpu.kernels.map_half import float_to_half, half_to_float

VALUE_TYPES: dict[str, Attribute] = {
    "f32": f32,
    "f64": f64,
    "f16": f16,
    "i64": i64,
    "i32": i32,
    "i16": i16,
    "i8": i8,
    "u8": i8,
    "i1": i1,
}
"""The type each dtype has inside a body."""

CMPF = "false oeq ogt oge olt ole one ord ueq ugt uge ult ule une uno true".split()
CMPI = "eq ne slt sle sgt sge ult ule ugt uge".split()


@dataclass(frozen=True)
class Instr:
    """One operation of a body.

    Attributes:
        op: its name, ``arith.addf``.
        args: the values it reads: 0 … n−1 are the map's operands, n + i is what instruction i computed.
        type: dtype of its result.
        detail: a comparison's predicate, a constant's value.
    """

    op: str
    args: tuple[int, ...]
    type: str
    detail: str = ""


Emit = Callable[[KernelBuilder, Sequence[Val]], Val]
EmitTo = Callable[[KernelBuilder, Val, Attribute], Val]


def maximum(b: KernelBuilder, x: Val, y: Val) -> Val:
    """The larger of two floats; NaN if either is."""
    return b.select(b.fcmp("uno", x, y), x + y, b.max(x, y))


def minimum(b: KernelBuilder, x: Val, y: Val) -> Val:
    """The smaller of two floats; NaN if either is."""
    return b.select(b.fcmp("uno", x, y), x + y, b.min(x, y))


def _maxnum(b: KernelBuilder, x: Val, y: Val) -> Val:
    # b.max gives its second operand when either is NaN.
    return b.select(b.fcmp("uno", y, y), x, b.max(x, y))


def _minnum(b: KernelBuilder, x: Val, y: Val) -> Val:
    return b.select(b.fcmp("uno", y, y), x, b.min(x, y))


def _divide(b: KernelBuilder, x: Val, y: Val, op: str) -> Val:
    """Signed division that never traps: x / 0 is 0, and the smallest integer divided by −1 is itself."""
    smallest = -(1 << (bits_of(x.type) - 1))
    by_zero = b.icmp("eq", y, 0)
    overflow = b.icmp("eq", x, smallest) & b.icmp("eq", y, -1)
    safe = b.select(by_zero | overflow, b.const(1, y.type), y)
    result = b.binary(op, x, safe)
    return b.select(by_zero, b.zero(x.type), result)


def _floor_divide(b: KernelBuilder, x: Val, y: Val) -> Val:
    quotient = _divide(b, x, y, "sdiv")
    inexact = b.icmp("ne", quotient * y, x) & b.icmp("ne", y, 0)
    signs_differ = b.icmp("slt", x ^ y, 0)
    return b.select(inexact & signs_differ, quotient - 1, quotient)


def _shift(op: str) -> Emit:
    """Shifts by the width or more, which LLVM leaves open, move everything out."""

    def emit(b: KernelBuilder, v: Sequence[Val]) -> Val:
        x, count = v
        width = bits_of(x.type)
        inside = b.icmp("ult", count, width)
        shifted = b.binary(op, x, b.select(inside, count, b.zero(count.type)))
        beyond = x.ashr(width - 1) if op == "ashr" else b.zero(x.type)
        return b.select(inside, shifted, beyond)

    return emit


EMITTERS: dict[str, Emit] = {
    "arith.addf": lambda b, v: v[0] + v[1],
    "arith.subf": lambda b, v: v[0] - v[1],
    "arith.mulf": lambda b, v: v[0] * v[1],
    "arith.divf": lambda b, v: v[0] / v[1],
    "arith.negf": lambda b, v: -v[0],
    "arith.maximumf": lambda b, v: maximum(b, v[0], v[1]),
    "arith.minimumf": lambda b, v: minimum(b, v[0], v[1]),
    "arith.maxnumf": lambda b, v: _maxnum(b, v[0], v[1]),
    "arith.minnumf": lambda b, v: _minnum(b, v[0], v[1]),
    "arith.addi": lambda b, v: v[0] + v[1],
    "arith.subi": lambda b, v: v[0] - v[1],
    "arith.muli": lambda b, v: v[0] * v[1],
    "arith.divsi": lambda b, v: _divide(b, v[0], v[1], "sdiv"),
    "arith.remsi": lambda b, v: _divide(b, v[0], v[1], "srem"),
    "arith.floordivsi": lambda b, v: _floor_divide(b, v[0], v[1]),
    "arith.maxsi": lambda b, v: b.max(v[0], v[1]),
    "arith.minsi": lambda b, v: b.min(v[0], v[1]),
    "arith.andi": lambda b, v: v[0] & v[1],
    "arith.ori": lambda b, v: v[0] | v[1],
    "arith.xori": lambda b, v: v[0] ^ v[1],
    "arith.shli": _shift("shl"),
    "arith.shrsi": _shift("ashr"),
    "arith.shrui": _shift("lshr"),
    "arith.select": lambda b, v: b.select(v[0], v[1], v[2]),
    "math.absf": lambda b, v: b.abs(v[0]),
    "math.absi": lambda b, v: b.select(b.icmp("slt", v[0], 0), -v[0], v[0]),
    "math.sqrt": lambda b, v: b.sqrt(v[0]),
    "math.rsqrt": lambda b, v: 1.0 / b.sqrt(v[0]),
    "math.copysign": lambda b, v: b.copysign(v[0], v[1]),
    "math.fma": lambda b, v: b.fma(v[0], v[1], v[2]),
}
"""Instructions on every type they make sense for."""

F32_EMITTERS: dict[str, Emit] = {
    "math.exp": lambda b, v: vecmath.exp(b, v[0]),
    "math.expm1": lambda b, v: vecmath.expm1(b, v[0]),
    "math.exp2": lambda b, v: map_precise.exp2(b, v[0]),
    "math.log": lambda b, v: vecmath.log(b, v[0]),
    "math.log1p": lambda b, v: vecmath.log1p(b, v[0]),
    "math.log2": lambda b, v: map_precise.log2(b, v[0]),
    "math.log10": lambda b, v: map_precise.log10(b, v[0]),
    "math.erf": lambda b, v: vecmath.erf(b, v[0]),
    "math.tanh": lambda b, v: vecmath.tanh(b, v[0]),
    "math.sinh": lambda b, v: map_precise.sinh(b, v[0]),
    "math.cosh": lambda b, v: map_precise.cosh(b, v[0]),
    "math.sin": lambda b, v: map_precise.sin(b, v[0]),
    "math.cos": lambda b, v: map_precise.cos(b, v[0]),
    "math.tan": lambda b, v: map_precise.tan(b, v[0]),
    "math.asin": lambda b, v: map_precise.asin(b, v[0]),
    "math.acos": lambda b, v: map_precise.acos(b, v[0]),
    "math.atan": lambda b, v: map_precise.atan(b, v[0]),
    "math.asinh": lambda b, v: map_precise.asinh(b, v[0]),
    "math.acosh": lambda b, v: map_precise.acosh(b, v[0]),
    "math.atanh": lambda b, v: map_precise.atanh(b, v[0]),
    "math.powf": lambda b, v: map_precise.pow(b, v[0], v[1]),
    "math.floor": lambda b, v: vecmath.floor(b, v[0]),
    "math.ceil": lambda b, v: vecmath.ceil(b, v[0]),
    "math.trunc": lambda b, v: vecmath.trunc(b, v[0]),
    "math.roundeven": lambda b, v: vecmath.round_even(b, v[0]),
    "math.round": lambda b, v: b.copysign(vecmath.floor(b, b.abs(v[0]) + 0.5), v[0]),
}
"""Instructions that exist for f32 only."""


def _widen_float(b: KernelBuilder, x: Val, to: Attribute) -> Val:
    return half_to_float(b, x, to) if elem_of(x.type) == f16 else b.fpext(x, to)


def _narrow_float(b: KernelBuilder, x: Val, to: Attribute) -> Val:
    return float_to_half(b, x) if to == f16 else b.fptrunc(x, to)


def _to_int(b: KernelBuilder, x: Val, to: Attribute) -> Val:
    if bits_of(to) >= 32:
        return b.fptosi_sat(x, to)
    # Narrow integers wrap, as numpy's do.
    return b.trunc(b.fptosi_sat(x, i32), to)


def _from_unsigned(b: KernelBuilder, x: Val, to: Attribute) -> Val:
    # Through a wider signed integer: one instruction on every machine, unlike the unsigned conversion.
    if bits_of(x.type) < 32:
        return b.sitofp(b.zext(x, i32), to)
    return b.uitofp(x, to)


CASTS: dict[str, EmitTo] = {
    "arith.extf": _widen_float,
    "arith.truncf": _narrow_float,
    "arith.sitofp": lambda b, x, to: b.sitofp(x, to),
    "arith.uitofp": _from_unsigned,
    "arith.fptosi": _to_int,
    "arith.extsi": lambda b, x, to: b.sext(x, to),
    "arith.extui": lambda b, x, to: b.zext(x, to),
    "arith.trunci": lambda b, x, to: b.trunc(x, to),
    "arith.bitcast": lambda b, x, to: b.bitcast(x, with_elem(x.type, to)),
}

HALF_OPS = frozenset({"arith.extf", "arith.truncf", "arith.constant", "arith.select"})
"""What a body may do with f16: it is a format of memory, not of arithmetic."""


def unsupported(instr: Instr, operand_types: Sequence[str]) -> str | None:
    """Why no kernel can have this instruction; None if it can.

    Args:
        instr: the instruction.
        operand_types: the dtypes it reads.
    """
    types = {instr.type, *operand_types}
    if "f16" in types and instr.op not in HALF_OPS:
        return f"{instr.op} on f16 has no CPU kernel"
    if instr.op in ("arith.extf", "arith.truncf") and {"f16", "f64"} <= types:
        return f"{instr.op} between f16 and f64 has no CPU kernel"
    if instr.op in ("arith.constant", "arith.cmpf", "arith.cmpi") or instr.op in EMITTERS or instr.op in CASTS:
        return None
    if instr.op in F32_EMITTERS:
        return None if types == {"f32"} else f"{instr.op} has a CPU kernel for f32 only"
    return f"{instr.op} has no CPU kernel"


def emit_body(b: KernelBuilder, body: Sequence[Instr], result: int, operands: Sequence[Val], lanes: int) -> Val:
    """The code of `body` on vectors of `lanes` elements; the value numbered `result`."""
    values = list(operands)
    for instr in body:
        type_ = VALUE_TYPES[instr.type]
        args = [values[i] for i in instr.args]
        if instr.op == "arith.constant":
            number = float.fromhex(instr.detail) if is_float(type_) else int(instr.detail)
            values.append(b.const(number, vec(type_, lanes)))
        elif instr.op == "arith.cmpf":
            values.append(_compare_floats(b, instr.detail, args))
        elif instr.op == "arith.cmpi":
            values.append(b.icmp(instr.detail, args[0], args[1]))
        elif instr.op in CASTS:
            values.append(CASTS[instr.op](b, args[0], type_))
        else:
            emit = EMITTERS.get(instr.op) or F32_EMITTERS[instr.op]
            values.append(emit(b, args))
    return values[result]


def _compare_floats(b: KernelBuilder, predicate: str, args: Sequence[Val]) -> Val:
    if predicate in ("true", "false"):
        return b.const(int(predicate == "true"), with_elem(args[0].type, i1))
    return b.fcmp(predicate, args[0], args[1])
