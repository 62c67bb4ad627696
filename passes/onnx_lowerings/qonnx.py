"""QONNX's operators, which quantise and dequantise at once: Quant, IntQuant and BipolarQuant.

On constants the result is a constant. Definition: github.com/fastmachinelearning/qonnx, docs/qonnx-custom-ops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from xdsl.ir import SSAValue

from neuc.dialects.onnx import OnnxOp
from neuc.passes import scalar_builder as sb
from neuc.passes.onnx_lowerings.builder import Builder, Rule, Unsupported
from neuc.passes.scalar_builder import Scalar

DOMAINS = ("qonnx.custom_op.general", "finn.custom_op.general", "onnx.brevitas")
"""Where exporters have put these operators over time."""

Array = np.ndarray
Results = Sequence[SSAValue | None]
MAX_BITS = 24
"""Integers of f32 are exact up to here."""


def _sign(x: Scalar) -> Scalar:
    return sb.where(x < 0, -1, sb.where(x > 0, 1, x))


_ROUNDINGS: dict[str, tuple[Callable[[Array], Array], Callable[[Scalar], Scalar]]] = {
    "ROUND": (np.round, sb.round_even),
    "HALF_EVEN": (np.round, sb.round_even),
    "FLOOR": (np.floor, sb.floor),
    "CEIL": (np.ceil, sb.ceil),
    "DOWN": (np.trunc, sb.truncate),
    "ROUND_TO_ZERO": (np.trunc, sb.truncate),
    "UP": (lambda x: np.sign(x) * np.ceil(np.abs(x)), lambda x: _sign(x) * sb.ceil(sb.absolute(x))),
    "HALF_UP": (
        lambda x: np.sign(x) * np.floor(np.abs(x) + np.float32(0.5)),
        lambda x: _sign(x) * sb.floor(sb.absolute(x) + 0.5),
    ),
    "HALF_DOWN": (
        lambda x: np.sign(x) * np.ceil(np.abs(x) - np.float32(0.5)),
        lambda x: _sign(x) * sb.ceil(sb.absolute(x) - 0.5),
    ),
}
"""Rounding modes on constants and in bodies."""


def lower_quant(node: OnnxOp, build: Builder) -> Results:
    """Quant, IntQuant: q = round(clip(x / scale + zero)), result (q - zero) · scale; one bit with a sign is ±1."""
    x, scale, zero = (build.operand(i) for i in range(3))
    build.require_float(x, scale, zero)
    mode = node.str_attribute("rounding_mode", "ROUND").upper()
    if mode not in _ROUNDINGS:
        raise Unsupported(f"rounding_mode {mode}")
    on_array, on_scalar = _ROUNDINGS[mode]
    bits = _bits(build)
    signed, narrow = bool(node.int_attribute("signed", 1)), bool(node.int_attribute("narrow", 1))
    low, high = _range(bits, signed, narrow)
    bipolar = bits == 1 and signed
    arrays = [build.array(v) for v in (x, scale, zero)]
    if all(a is not None for a in arrays):
        return [build.constant(_on_constants(arrays, bipolar, low, high, on_array), "quantized")]

    def body(value: Scalar, step: Scalar, offset: Scalar) -> Scalar:
        q = value / step + offset
        q = _bipolar(q) if bipolar else on_scalar(sb.minimum(sb.maximum(q, low), high))
        return (q - offset) * step

    return [build.map([x, scale, zero], body)]


def _on_constants(
    arrays: Sequence[Array | None], bipolar: bool, low: float, high: float, rounded: Callable[[Array], Array]
) -> Array:
    x, scale, zero = (a for a in arrays if a is not None)
    q = x / scale + zero
    q = np.where(q >= 0, np.float32(1), np.float32(-1)) if bipolar else rounded(np.clip(q, low, high))
    # Adding 0 turns the -0 of rounded small negatives into 0.
    return ((q - zero) * scale + np.float32(0)).astype(np.float32)


def _bits(build: Builder) -> int:
    array = build.array(build.operand(3))
    if array is None or array.size != 1:
        raise Unsupported("a bit width that is no constant number")
    bits = float(array.reshape(()))
    if not (bits.is_integer() and 1 <= bits <= MAX_BITS):
        raise Unsupported(f"{bits:g} bits")
    return int(bits)


def _range(bits: int, signed: bool, narrow: bool) -> tuple[float, float]:
    if signed:
        return float(-(2 ** (bits - 1)) + narrow), float(2 ** (bits - 1) - 1)
    return 0.0, float(2**bits - 1 - narrow)


def lower_bipolar_quant(node: OnnxOp, build: Builder) -> Results:
    """BipolarQuant: scale where x ≥ 0, else -scale."""
    x, scale = build.operand(0), build.operand(1)
    build.require_float(x, scale)
    values, factors = build.array(x), build.array(scale)
    if values is not None and factors is not None:
        signs = np.where(values >= 0, np.float32(1), np.float32(-1))
        return [build.constant((signs * factors).astype(np.float32), "quantized")]
    return [build.map([x, scale], lambda value, step: _bipolar(value) * step)]


def _bipolar(x: Scalar) -> Scalar:
    return sb.where(x >= 0, x.constant(1), -1)


RULES: dict[str, Rule] = {"Quant": lower_quant, "IntQuant": lower_quant, "BipolarQuant": lower_bipolar_quant}
