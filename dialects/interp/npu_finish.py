"""What finishing of bf16 products means: the specification of `npu.finish`, and of a core's parameters for it.

`runtime/npu/float_finish.py` computes the same for the simulator and shares no code with this file.
"""

from __future__ import annotations

import numpy as np

from neuc.dialects.interp.core import Env, implements
from neuc.dialects.interp.npu_bf16 import bf16
from neuc.dialects.interp.npu_rows import curve
from neuc.dialects.npu_finish import FinishOp

_HEAD = 5


@implements(FinishOp)
def _finish(op: FinishOp, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    rest = iter(args[1:])
    scale, shift, table = (next(rest) if value is not None else None for value in (op.scale, op.shift, op.table))
    slope = None if op.slope is None else op.slope.value.data
    y = stage(args[0], scale, shift, slope, op.limits, table)
    return [bf16(y) if op.narrow is not None else y]


def stage(
    y: np.ndarray,
    scale: np.ndarray | None,
    shift: np.ndarray | None,
    slope: float | None,
    limits: tuple[float, float] | None,
    table: np.ndarray | None,
) -> np.ndarray:
    """One stage on f32 numbers; scale and shift are broadcast."""
    with np.errstate(all="ignore"):
        if scale is not None:
            y = (y * scale).astype(np.float32)
        if shift is not None:
            y = (y + shift).astype(np.float32)
        if slope is not None:
            y = np.where(y < 0, (y * np.float32(slope)).astype(np.float32), y)
        if limits is not None:
            y = np.minimum(np.maximum(y, np.float32(limits[0])), np.float32(limits[1]))
        return y if table is None else curve(bf16(y), table)


def finished(y: np.ndarray, block: bytes, tables: object) -> np.ndarray:
    """A tile [m, n] of sums after the stages that its parameters say.

    A stage is words of 32 bits: what it has (1 scales, 2 shifts, 4 a slope, 8 limits, 16 a table, 32 a stage behind
    it), the word at which its table begins, f32 slope, lowest and highest number, then n f32 scales, n shifts. Tables
    are `tables`, words one behind the other, or stand in the parameters themselves.
    """
    words = np.frombuffer(block[: len(block) // 4 * 4], np.int32)
    memory = words if tables is None else np.array(tables, np.int32)
    n = y.shape[1]
    while True:
        has, place = (int(word) for word in words[:2])
        slope, low, high = np.frombuffer(words[2:_HEAD].tobytes(), np.float32)
        words = words[_HEAD:]
        scale = shift = None
        if has & 1:
            scale, words = np.frombuffer(words[:n].tobytes(), np.float32), words[n:]
        if has & 2:
            shift, words = np.frombuffer(words[:n].tobytes(), np.float32), words[n:]
        limits = (float(low), float(high)) if has & 8 else None
        y = stage(y, scale, shift, float(slope) if has & 4 else None, limits, memory[place:] if has & 16 else None)
        if not has & 32:
            return y
