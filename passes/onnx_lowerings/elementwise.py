"""Element-wise operators: each becomes one `dense.map`, whose body is written here as a Python expression."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from xdsl.dialects.builtin import f32, i1, i8, i32, i64
from xdsl.ir import SSAValue

from neuc.dialects.onnx import OnnxOp
from neuc.dialects.onnx_types import ELEMENT_OF_ONNX
from neuc.dialects.store import element_of, u8
from neuc.passes import scalar_builder as sb
from neuc.passes.onnx_lowerings.builder import ARITHMETIC, Builder, Rule, Unsupported
from neuc.passes.scalar_builder import Scalar

Results = Sequence[SSAValue | None]
SELU_ALPHA, SELU_GAMMA = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def _float_map(body: Callable[..., Scalar]) -> Rule:
    """A rule for operators that compute in f32 on all their inputs."""

    def rule(node: OnnxOp, build: Builder) -> Results:
        inputs = list(node.operands)
        build.require_float(*inputs)
        return [build.map(inputs, body)]

    return rule


def _typed_map(body: Callable[..., Scalar], *elements: object) -> Rule:
    """A rule for operators on any type `dense.map` computes with, or only on `elements`."""

    def rule(node: OnnxOp, build: Builder) -> Results:
        inputs = list(node.operands)
        build.require([e for e in ARITHMETIC if e in (elements or ARITHMETIC)], *inputs)
        return [build.map(inputs, body)]

    return rule


def _parametric(body: Callable[[Scalar, OnnxOp], Scalar]) -> Rule:
    """A rule for unary f32 operators with attributes."""

    def rule(node: OnnxOp, build: Builder) -> Results:
        x = build.operand(0)
        build.require_float(x)
        return [build.map([x], lambda s: body(s, node))]

    return rule


def _fold(combine: Callable[[Scalar, Scalar], Scalar], *, mean: bool = False) -> Rule:
    """A rule for variadic operators."""

    def body(first: Scalar, *rest: Scalar) -> Scalar:
        total = first
        for scalar in rest:
            total = combine(total, scalar)
        return total / float(1 + len(rest)) if mean else total

    return _float_map(body) if mean else _typed_map(body, f32, i64, i32)


def _sign(x: Scalar) -> Scalar:
    return sb.where(x > 0, 1, sb.where(x < 0, -1, x))


def _modulo(x: Scalar, y: Scalar) -> Scalar:
    """Remainder with the divisor's sign."""
    r = sb.remainder(x, y)
    wrong = r.differs(0) & ((r < 0) ^ (y < 0))
    return sb.where(wrong, r + y, r)


def lower_mod(node: OnnxOp, build: Builder) -> Results:
    """Mod: integers, with the sign of the divisor or (fmod) of the dividend."""
    build.require((i64, i32), *node.operands)
    return [build.map(list(node.operands), sb.remainder if node.int_attribute("fmod", 0) else _modulo)]


def lower_pow(node: OnnxOp, build: Builder) -> Results:
    """Pow: small constant exponents become products and roots."""
    x, y = build.operand(0), build.operand(1)
    build.require_float(x)
    exponent = build.array(y)
    if exponent is not None and exponent.size == 1 and exponent.ndim <= len(build.dims(x)):
        body = _POWERS.get(float(exponent.reshape(-1)[0]))
        if body is not None:
            return [build.map([x], body)]
    return [build.map([x, build.cast(y, f32)], sb.power)]


_POWERS: dict[float, Callable[[Scalar], Scalar]] = {
    0.5: sb.sqrt,
    1.0: lambda x: x,
    2.0: lambda x: x * x,
    3.0: lambda x: x * x * x,
    -0.5: lambda x: 1.0 / sb.sqrt(x),
    -1.0: lambda x: 1.0 / x,
    -2.0: lambda x: 1.0 / (x * x),
}


def lower_clip(node: OnnxOp, build: Builder) -> Results:
    """Clip: bounds are attributes before opset 11, inputs since."""
    x = build.operand(0)
    if element_of(x) in (i8, u8):  # between QuantizeLinear and DequantizeLinear
        return _clip_codes(node, build)
    build.require((f32, i64, i32), x)
    low, high = node.operand_at(1), node.operand_at(2)
    if node.opset < 11:
        low = build.scalar(node.float_attribute("min", -math.inf))
        high = build.scalar(node.float_attribute("max", math.inf))
    inputs = [x, *(build.cast(v, element_of(x)) for v in (low, high) if v is not None)]

    def body(value: Scalar, *bounds: Scalar) -> Scalar:
        rest = list(bounds)
        if low is not None:
            value = sb.maximum(value, rest.pop(0))
        return sb.minimum(value, rest.pop(0)) if high is not None else value

    return [build.map(inputs, body, build.dims(x)) if len(inputs) > 1 else x]


def _clip_codes(node: OnnxOp, build: Builder) -> Results:
    """Clip of 8-bit integers."""
    x, low, high = build.operand(0), node.operand_at(1), node.operand_at(2)
    arrays = [build.array(v) for v in (x, low, high)]
    values, least, most = arrays
    if values is not None and all(a is not None for a, v in zip(arrays, (x, low, high)) if v is not None):
        values = values if least is None else np.maximum(values, least)
        return [build.constant(values if most is None else np.minimum(values, most), "clipped")]
    wide = build.cast(x, i32)
    if low is not None:
        wide = build.map([wide, build.cast(low, i32)], sb.maximum, build.dims(x))
    if high is not None:
        wide = build.map([wide, build.cast(high, i32)], sb.minimum, build.dims(x))
    return [build.cast(wide, element_of(x))]


def lower_where(node: OnnxOp, build: Builder) -> Results:
    """Where."""
    build.require((i1,), build.operand(0))
    build.require(ARITHMETIC, *node.operands[1:])
    return [build.map(list(node.operands), sb.where)]


def lower_cast(node: OnnxOp, build: Builder) -> Results:
    """Cast and CastLike."""
    if node.op_type == "CastLike":
        element = element_of(build.operand(1))
    else:
        element = ELEMENT_OF_ONNX[node.int_attribute("to")]
    return [build.cast(build.operand(0), element)]


def lower_identity(node: OnnxOp, build: Builder) -> Results:
    """Identity."""
    build.dims(build.operand(0))
    return [build.operand(0)]


def lower_dropout(node: OnnxOp, build: Builder) -> Results:
    """Dropout of inference: nothing happens, the mask is all true."""
    mode = node.operand_at(2)
    training = None if mode is None else build.array(mode)
    if mode is not None and (training is None or training.reshape(-1)[0]):
        raise Unsupported("training_mode")
    x = build.operand(0)
    if len(node.results) == 1:
        return [x]
    if node.results[1].first_use is None:
        return [x, None]
    build.require((i1,), node.results[1])
    return [x, build.broadcast(build.constant(np.array(True), "mask"), build.dims(x))]


def lower_is_inf(node: OnnxOp, build: Builder) -> Results:
    """IsInf, of one sign or both."""
    build.require_float(build.operand(0))
    up, down = node.int_attribute("detect_positive", 1), node.int_attribute("detect_negative", 1)

    def body(x: Scalar) -> Scalar:
        if up and down:
            return sb.absolute(x).equals(math.inf)
        if up or down:
            return x.equals(math.inf if up else -math.inf)
        return x.constant(0, i1)

    return [build.map([build.operand(0)], body)]


def lower_gelu(node: OnnxOp, build: Builder) -> Results:
    """Gelu, exact or with tanh."""
    tanh = node.str_attribute("approximate", "none") == "tanh"
    build.require_float(build.operand(0))
    return [build.map([build.operand(0)], gelu_tanh if tanh else gelu)]


def gelu(x: Scalar) -> Scalar:
    """X · (1 + erf(x/√2)) / 2, in the order exporters write it."""
    return 0.5 * (x * (1.0 + sb.erf(x / math.sqrt(2))))


def gelu_tanh(x: Scalar) -> Scalar:
    """X · (1 + tanh(√(2/π)·(x + 0.044715·x³))) / 2."""
    return 0.5 * (x * (1.0 + sb.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x)))))


def silu(x: Scalar, alpha: float = 1.0) -> Scalar:
    """X · sigmoid(alpha · x)."""
    return x * sb.sigmoid(x if alpha == 1.0 else x * alpha)


def softplus(x: Scalar) -> Scalar:
    """log(1 + exp(x)), without overflow."""
    return sb.maximum(x, 0.0) + sb.log1p(sb.exp(-sb.absolute(x)))


def _hard_sigmoid(x: Scalar, alpha: float, beta: float) -> Scalar:
    return sb.minimum(sb.maximum(x * alpha + beta, 0.0), 1.0)


def _elu(x: Scalar, alpha: float, inner: float = 1.0) -> Scalar:
    return sb.where(x < 0.0, alpha * (sb.exp(x / inner if inner != 1.0 else x) - 1.0), x)


def _shrink(x: Scalar, node: OnnxOp) -> Scalar:
    bias, bound = node.float_attribute("bias", 0.0), node.float_attribute("lambd", 0.5)
    return sb.where(x < -bound, x + bias, sb.where(x > bound, x - bias, 0.0))


def _either(a: Scalar, b: Scalar) -> Scalar:
    return a | b


def lower_bit_shift(node: OnnxOp, build: Builder) -> Results:
    """BitShift is on unsigned integers, which `dense.map` does not have."""
    raise Unsupported("unsigned integer arithmetic")


def lower_logical(body: Callable[..., Scalar]) -> Rule:
    """Boolean operators."""
    return _typed_map(body, i1)


RULES: dict[str, Rule] = {
    "Add": _typed_map(lambda a, b: a + b, f32, i64, i32),
    "Sub": _typed_map(lambda a, b: a - b, f32, i64, i32),
    "Mul": _typed_map(lambda a, b: a * b, f32, i64, i32),
    "Div": _typed_map(lambda a, b: a / b, f32, i64, i32),
    "Neg": _typed_map(lambda x: -x, f32, i64, i32),
    "Abs": _typed_map(sb.absolute, f32, i64, i32),
    "Sign": _typed_map(_sign, f32, i64, i32),
    "Mod": lower_mod,
    "Pow": lower_pow,
    "Min": _fold(sb.minimum),
    "Max": _fold(sb.maximum),
    "Sum": _fold(lambda a, b: a + b),
    "Mean": _fold(lambda a, b: a + b, mean=True),
    "Equal": _typed_map(lambda a, b: a.equals(b)),
    "Greater": _typed_map(lambda a, b: a > b, f32, i64, i32),
    "GreaterOrEqual": _typed_map(lambda a, b: a >= b, f32, i64, i32),
    "Less": _typed_map(lambda a, b: a < b, f32, i64, i32),
    "LessOrEqual": _typed_map(lambda a, b: a <= b, f32, i64, i32),
    "And": lower_logical(lambda a, b: a & b),
    "Or": lower_logical(_either),
    "Xor": lower_logical(lambda a, b: a ^ b),
    "Not": lower_logical(sb.invert),
    "BitwiseAnd": _typed_map(lambda a, b: a & b, i64, i32),
    "BitwiseOr": _typed_map(_either, i64, i32),
    "BitwiseXor": _typed_map(lambda a, b: a ^ b, i64, i32),
    "BitwiseNot": _typed_map(sb.invert, i64, i32),
    "BitShift": lower_bit_shift,
    "Where": lower_where,
    "Clip": lower_clip,
    "Cast": lower_cast,
    "CastLike": lower_cast,
    "Identity": lower_identity,
    "Dropout": lower_dropout,
    "IsNaN": _float_map(sb.is_nan),
    "IsInf": lower_is_inf,
    "Sqrt": _float_map(sb.sqrt),
    "Reciprocal": _float_map(lambda x: 1.0 / x),
    "Exp": _float_map(sb.exp),
    "Log": _float_map(sb.log),
    "Erf": _float_map(sb.erf),
    "Tanh": _float_map(sb.tanh),
    "Sigmoid": _float_map(sb.sigmoid),
    "Relu": _typed_map(lambda x: sb.maximum(x, 0), f32, i64, i32),
    "Softplus": _float_map(softplus),
    "Softsign": _float_map(lambda x: x / (1.0 + sb.absolute(x))),
    "HardSwish": _float_map(lambda x: x * _hard_sigmoid(x, 1 / 6, 0.5)),
    "Mish": _float_map(lambda x: x * sb.tanh(softplus(x))),
    "Floor": _float_map(sb.floor),
    "Ceil": _float_map(sb.ceil),
    "Round": _float_map(sb.round_even),
    "Sin": _float_map(sb.sin),
    "Cos": _float_map(sb.cos),
    "Tan": _float_map(sb.tan),
    "Asin": _float_map(sb.asin),
    "Acos": _float_map(sb.acos),
    "Atan": _float_map(sb.atan),
    "Sinh": _float_map(sb.sinh),
    "Cosh": _float_map(sb.cosh),
    "Asinh": _float_map(sb.asinh),
    "Acosh": _float_map(sb.acosh),
    "Atanh": _float_map(sb.atanh),
    "PRelu": _float_map(lambda x, slope: sb.where(x < 0.0, x * slope, x)),
    "LeakyRelu": _parametric(lambda x, n: sb.where(x < 0.0, x * n.float_attribute("alpha", 0.01), x)),
    "ThresholdedRelu": _parametric(lambda x, n: sb.where(x > n.float_attribute("alpha", 1.0), x, 0.0)),
    "Elu": _parametric(lambda x, n: _elu(x, n.float_attribute("alpha", 1.0))),
    "Celu": _parametric(lambda x, n: _elu(x, n.float_attribute("alpha", 1.0), n.float_attribute("alpha", 1.0))),
    "Selu": _parametric(
        lambda x, n: n.float_attribute("gamma", SELU_GAMMA) * _elu(x, n.float_attribute("alpha", SELU_ALPHA))
    ),
    "HardSigmoid": _parametric(
        lambda x, n: _hard_sigmoid(x, n.float_attribute("alpha", 0.2), n.float_attribute("beta", 0.5))
    ),
    "Swish": _parametric(lambda x, n: silu(x, n.float_attribute("alpha", 1.0))),
    "Shrink": _parametric(_shrink),
    "Gelu": lower_gelu,
}
