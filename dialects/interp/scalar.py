"""Meaning of the `arith` and `math` operations that scalar bodies use, applied to whole arrays at once.

f32 is computed in f32, `erf` in f64 and rounded once. Integer division truncates as arith's does.
"""

from __future__ import annotations

import math as pymath
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from xdsl.dialects import arith, math
from xdsl.dialects.builtin import FloatAttr, IntegerAttr
from xdsl.ir import Attribute, Block, Operation, SSAValue

from neuc.dialects.interp.core import Env, implementation_of, implements
from neuc.dialects.store import numpy_dtype
from neuc.errors import InternalError

_ERF_END = 4.0
"""erf(4) = 1 − 1.5e-8, which f32 rounds to 1."""
_ERF_DEGREE = 18
_BLOCK = 1 << 15


@lru_cache
def _erf_series() -> np.polynomial.Chebyshev:
    """erf(√t)/√t over [0, 16]: an entire function, so interpolation converges geometrically (4e-10 at degree 18)."""
    return np.polynomial.Chebyshev.interpolate(
        lambda t: np.array([pymath.erf(pymath.sqrt(v)) / pymath.sqrt(v) for v in t]), _ERF_DEGREE, (0.0, _ERF_END**2)
    )


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, within 1 unit in the last place of f32."""
    x = np.asarray(x)
    flat, out = x.reshape(-1), np.empty(x.size, x.dtype)
    series = _erf_series()
    for begin in range(0, x.size, _BLOCK):
        part = np.clip(flat[begin : begin + _BLOCK].astype(np.float64), -_ERF_END, _ERF_END)
        out[begin : begin + _BLOCK] = part * series(part * part)
    return out.reshape(x.shape)


def _round_half_away(x: np.ndarray) -> np.ndarray:
    return np.copysign(np.floor(np.abs(x) + x.dtype.type(0.5)), x)


def _divide_truncating(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    quotient = a // b
    return quotient + ((a % b != 0) & ((a < 0) != (b < 0)))


def _divide_ceiling(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return -((-a) // b)


Elementwise = Callable[..., np.ndarray]
_FUNCTIONS: dict[type[Operation], Elementwise] = {
    arith.AddfOp: np.add,
    arith.SubfOp: np.subtract,
    arith.MulfOp: np.multiply,
    arith.DivfOp: np.divide,
    arith.NegfOp: np.negative,
    arith.MaximumfOp: np.maximum,
    arith.MinimumfOp: np.minimum,
    arith.MaxnumfOp: np.fmax,
    arith.MinnumfOp: np.fmin,
    arith.AddiOp: np.add,
    arith.SubiOp: np.subtract,
    arith.MuliOp: np.multiply,
    arith.DivSIOp: _divide_truncating,
    arith.FloorDivSIOp: np.floor_divide,
    arith.CeilDivSIOp: _divide_ceiling,
    arith.RemSIOp: np.fmod,
    arith.MaxSIOp: np.maximum,
    arith.MinSIOp: np.minimum,
    arith.AndIOp: np.bitwise_and,
    arith.OrIOp: np.bitwise_or,
    arith.XOrIOp: np.bitwise_xor,
    arith.ShLIOp: np.left_shift,
    arith.ShRSIOp: np.right_shift,
    arith.SelectOp: np.where,
    math.AbsFOp: np.abs,
    math.AbsIOp: np.abs,
    math.ExpOp: np.exp,
    math.Exp2Op: np.exp2,
    math.ExpM1Op: np.expm1,
    math.LogOp: np.log,
    math.Log2Op: np.log2,
    math.Log10Op: np.log10,
    math.Log1pOp: np.log1p,
    math.SqrtOp: np.sqrt,
    math.RsqrtOp: lambda x: np.reciprocal(np.sqrt(x)),
    math.CbrtOp: np.cbrt,
    math.ErfOp: erf,
    math.TanhOp: np.tanh,
    math.SinhOp: np.sinh,
    math.CoshOp: np.cosh,
    math.AsinhOp: np.arcsinh,
    math.AcoshOp: np.arccosh,
    math.AtanhOp: np.arctanh,
    math.SinOp: np.sin,
    math.CosOp: np.cos,
    math.TanOp: np.tan,
    math.AsinOp: np.arcsin,
    math.AcosOp: np.arccos,
    math.AtanOp: np.arctan,
    math.Atan2Op: np.arctan2,
    math.FloorOp: np.floor,
    math.CeilOp: np.ceil,
    math.TruncOp: np.trunc,
    math.RoundOp: _round_half_away,
    math.RoundEvenOp: np.rint,
    math.CopySignOp: np.copysign,
    math.PowFOp: np.power,
    math.FmaOp: lambda a, b, c: a * b + c,
}
_CASTS = (
    arith.ExtFOp,
    arith.TruncFOp,
    arith.ExtSIOp,
    arith.ExtUIOp,
    arith.TruncIOp,
    arith.SIToFPOp,
    arith.UIToFPOp,
    arith.FPToSIOp,
)


def _unordered(ordered: Elementwise) -> Elementwise:
    """`ordered`, or true where an operand is NaN."""
    return lambda a, b: ordered(a, b) | np.isnan(a) | np.isnan(b)


def _one(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a < b) | (a > b)


_COMPARE_F: tuple[Elementwise, ...] = (
    lambda a, b: np.zeros(np.broadcast(a, b).shape, bool),
    np.equal,
    np.greater,
    np.greater_equal,
    np.less,
    np.less_equal,
    _one,
    lambda a, b: ~(np.isnan(a) | np.isnan(b)),
    _unordered(np.equal),
    _unordered(np.greater),
    _unordered(np.greater_equal),
    _unordered(np.less),
    _unordered(np.less_equal),
    np.not_equal,
    lambda a, b: np.isnan(a) | np.isnan(b),
    lambda a, b: np.ones(np.broadcast(a, b).shape, bool),
)
"""By arith.cmpf's predicate number: false oeq ogt oge olt ole one ord ueq ugt uge ult ule une uno true."""
_COMPARE_I: tuple[Elementwise, ...] = (
    np.equal,
    np.not_equal,
    np.less,
    np.less_equal,
    np.greater,
    np.greater_equal,
)
"""By arith.cmpi's predicate number: eq ne slt sle sgt sge."""


def _dtype(type_: Attribute) -> np.dtype:
    dtype = numpy_dtype(type_)
    if dtype is None:
        raise InternalError(f"no numpy type for scalar {type_}")
    return dtype


def _register(op_class: type[Operation], function: Elementwise) -> None:
    @implements(op_class)
    def _run(op: Operation, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
        return [function(*args)]


for _op_class, _function in _FUNCTIONS.items():
    _register(_op_class, _function)


@implements(arith.ConstantOp)
def _constant(op: arith.ConstantOp, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    assert isinstance(op.value, IntegerAttr | FloatAttr)
    return [np.asarray(op.value.value.data, dtype=_dtype(op.result.type))]


@implements(arith.CmpfOp)
def _cmpf(op: arith.CmpfOp, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    return [_COMPARE_F[op.predicate.value.data](*args)]


@implements(arith.CmpiOp)
def _cmpi(op: arith.CmpiOp, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    number = op.predicate.value.data
    if number >= len(_COMPARE_I):
        raise InternalError(f"no interpreter for unsigned arith.cmpi predicate {number}")
    return [_COMPARE_I[number](*args)]


def _cast(op: Operation, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    result = args[0].astype(_dtype(op.results[0].type))
    signed = isinstance(op, arith.ExtSIOp | arith.SIToFPOp)
    # A set i1 is −1 where the sign counts.
    return [-result if signed and args[0].dtype == np.bool_ else result]


for _op_class in _CASTS:
    implements(_op_class)(_cast)


def run_body(body: Block, args: list[np.ndarray], env: Env) -> np.ndarray:
    """The value a scalar body yields, for all elements at once; arguments broadcast as they meet."""
    values: dict[SSAValue, np.ndarray] = dict(zip(body.args, args))
    for op in body.ops:
        operands = [values[v] for v in op.operands]
        if op is body.last_op:
            return operands[0]
        run = implementation_of(op)
        if run is None:
            raise InternalError(f"no interpreter for scalar {op.name}")
        values[op.results[0]] = np.asarray(run(op, operands, env)[0])
    raise InternalError("scalar body without a terminator")
