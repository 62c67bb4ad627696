"""Evaluates models with QONNX nodes, which onnxruntime does not know: onnx's reference evaluator with three operators.

Written from their definition: q = round(clip(x / scale + zero)), result (q - zero) · scale; one bit with a sign is ±1.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Array = np.ndarray


class Quant(OpRun):
    """Uniform quantisation to integers of `bits` bits and back."""

    op_domain = "qonnx.custom_op.general"

    def _run(  # pyright: ignore[reportIncompatibleMethodOverride] - attributes are keywords
        self,
        x: Array,
        scale: Array,
        zero: Array,
        bits: Array,
        signed: int = 1,
        narrow: int = 1,
        rounding_mode: str = "ROUND",
    ) -> tuple[Array]:
        width = int(bits)
        q = x / scale + zero
        if width == 1 and signed:
            q = np.where(q >= 0, 1.0, -1.0)
        else:
            low = -(2 ** (width - 1)) + narrow if signed else 0
            high = 2 ** (width - 1) - 1 if signed else 2**width - 1 - narrow
            q = _rounded(np.clip(q, low, high), rounding_mode.upper())
        return (((q - zero) * scale).astype(x.dtype),)


def _rounded(q: Array, mode: str) -> Array:
    match mode:
        case "ROUND" | "HALF_EVEN":
            return np.rint(q)
        case "FLOOR":
            return np.floor(q)
        case "CEIL":
            return np.ceil(q)
        case "DOWN" | "ROUND_TO_ZERO":
            return np.fix(q)
        case "UP":
            return np.where(q < 0, np.floor(q), np.ceil(q))
        case "HALF_UP":
            return np.where(q < 0, -np.floor(0.5 - q), np.floor(q + 0.5))
        case "HALF_DOWN":
            return np.where(q < 0, np.floor(q + 0.5), np.ceil(q - 0.5))
        case _:
            raise ValueError(f"rounding mode {mode}")


class IntQuant(Quant):
    """The newer name of `Quant`."""


class BipolarQuant(OpRun):
    """The scale with the sign of x."""

    op_domain = "qonnx.custom_op.general"

    def _run(self, x: Array, scale: Array) -> tuple[Array]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (np.where(x >= 0, scale, -scale).astype(x.dtype),)


def evaluate(model: ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """The outputs of a model with QONNX nodes, or without."""
    session = ReferenceEvaluator(model, new_ops=[Quant, IntQuant, BipolarQuant])
    return [np.asarray(result) for result in session.run(None, feeds)]
