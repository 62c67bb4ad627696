"""Meaning of the `crossbar` operations, for a tile whose devices are what they were told to be.

An analog value is a function here, from a factor on each sample's input to what the lines carry: a converter that finds
an output out of range has the sample driven again with half the input. Each is a 0-d array of that function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from neuc.dialects import crossbar
from neuc.dialects.crossbar_tiles import program_of
from neuc.dialects.interp.core import Env, implements
from neuc.dialects.interp.crossbar_random import normals
from neuc.dialects.interp.dense import activate

Array = np.ndarray


@dataclass(frozen=True)
class Analog:
    """What lines carry.

    Attributes:
        at: from f32 factors [samples, 1] to f32 values [samples, lines].
        alpha: what a value of 1 at the inputs stands for, f32 [samples, 1].
        leading: the shape of the samples.
        squares: for noise: Σ |w| v², f32 [samples, lines].
    """

    at: Callable[[Array], Array]
    alpha: Array
    leading: tuple[int, ...]
    squares: Callable[[Array], Array] | None = None


def _boxed(value: Analog) -> Array:
    box = np.empty((), object)
    box[()] = value
    return box


def _unboxed(box: Array) -> Analog:
    value = box[()]
    assert isinstance(value, Analog)
    return value


@implements(crossbar.ProgramOp)
def _program(op: crossbar.ProgramOp, args: list[Array], env: Env) -> list[Array]:
    return [env.store.get(op.weights.data)]


@implements(crossbar.VerifyOp)
def _verify(op: crossbar.VerifyOp, args: list[Array], env: Env) -> list[Array]:
    return args


@implements(crossbar.CompensateOp)
def _compensate(op: crossbar.CompensateOp, args: list[Array], env: Env) -> list[Array]:
    return [env.store.get(op.scales.data)]


def rounded(x: Array, levels: int, bound: float) -> Array:
    """X on the steps of a converter, not clipped; as it is if there are no levels."""
    if not levels:
        return x
    step = 2 * bound / levels
    return np.rint(x / np.float32(step)) * np.float32(step)


def with_errors(x: Array, errors: Array | None, levels: int, bound: float) -> Array:
    """X less what the steps of a real converter are off at its code."""
    if errors is None:
        return x
    step = np.float32(2 * bound / levels)
    code = np.clip(np.rint(x / step) + levels // 2, 0, levels).astype(np.int64)
    return x - errors[code] * step


def clipped(x: Array, bound: float) -> Array:
    """X within ±bound; as it is if there is no bound."""
    return np.maximum(np.minimum(x, np.float32(bound)), np.float32(-bound)) if bound else x


def line_values(scaled: Array, op: crossbar.DacOp) -> Array:
    """What the converter applies for inputs that are divided by alpha already."""
    levels, bound, part = op.levels.value.data, op.bound.value.data, op.part.data
    if part.startswith("bit"):
        step = 2 * bound / levels
        codes = clipped(np.rint(scaled / np.float32(step)), bound / step)
        on = (np.abs(codes).astype(np.int32) >> int(part[3:])) & 1
        return np.copysign(on.astype(np.float32) * np.float32(bound), codes)
    v = clipped(rounded(scaled, levels, bound), bound)
    if part != crossbar.WHOLE:
        v = np.maximum(v if part == "positive" else -v, np.float32(0))
    curvature = op.curvature.value.data
    return np.sinh(np.float32(curvature) * v) / np.float32(np.sinh(curvature)) if curvature else v


@implements(crossbar.DacOp)
def _dac(op: crossbar.DacOp, args: list[Array], env: Env) -> list[Array]:
    first = op.first.value.data
    x = args[0][..., first : first + op.rows]
    leading, flat = x.shape[:-1], x.reshape(-1, op.rows)
    largest = np.max(np.abs(flat), axis=1, keepdims=True, initial=0)
    alpha = np.full_like(largest, op.range.value.data) if op.range.value.data else largest
    inverse = np.where(alpha > 0, np.float32(1) / alpha, np.float32(0))
    return [_boxed(Analog(lambda factor: line_values(flat * (inverse * factor), op), alpha, leading))]


@implements(crossbar.MvmOp)
def _mvm(op: crossbar.MvmOp, args: list[Array], env: Env) -> list[Array]:
    voltages, w = _unboxed(args[0]), args[1]
    near = np.float32(1) - np.arange(len(w), dtype=np.float32) * np.float32(1 / len(w))
    profile = np.float32(1) - near * near

    def currents(factor: Array) -> Array:
        v = voltages.at(factor)
        y = v @ w
        if op.wire_drop.value.data:
            a = (np.abs(v) @ np.abs(w)) * np.float32(op.wire_ratio.value.data)
            c = a * (a * (a * np.float32(0.05) - np.float32(0.2)) + np.float32(0.5))
            y = y - c * ((v * profile) @ w) * np.float32(op.wire_drop.value.data)
        return y

    def squares(factor: Array) -> Array:
        v = voltages.at(factor)
        return (v * v) @ np.abs(w) * np.float32(op.noise.value.data**2)

    return [_boxed(Analog(currents, voltages.alpha, voltages.leading, squares if op.noise.value.data else None))]


@implements(crossbar.AdcOp)
def _adc(op: crossbar.AdcOp, args: list[Array], env: Env) -> list[Array]:
    analog, gains = _unboxed(args[0]), args[1]
    turn = op.turn.value.data + (0 if op.step is None else int(args[2]))
    mvm, dac = crossbar.chain_of(op.currents)
    use = crossbar.use_number(dac.part.data, turn)
    tile = program_of(mvm.tile).number.value.data
    levels, bound, noise = op.levels.value.data, op.bound.value.data, op.noise.value.data
    errors = None if op.errors is None else env.store.get(op.errors.data)
    factor = np.ones_like(analog.alpha)
    y = np.zeros((len(factor), len(gains)), np.float32)
    for attempt in range(op.doublings.value.data + 1):
        y = analog.at(factor)
        if noise or analog.squares is not None:
            variance = np.float32(noise**2) + (0 if analog.squares is None else analog.squares(factor))
            y = y + np.sqrt(variance) * normals(*y.shape, tile, use)
        y = rounded(with_errors(y, errors, levels, bound), levels, bound)
        over = np.any(np.abs(y) > np.float32(bound), axis=1, keepdims=True)
        if attempt < op.doublings.value.data:
            factor = np.where(over, factor * np.float32(0.5), factor)
        if not over.any():
            break
    y = clipped(y, bound) * (analog.alpha / factor) * gains
    return [y.reshape(*analog.leading, -1)]


@implements(crossbar.AccumulateOp)
def _accumulate(op: crossbar.AccumulateOp, args: list[Array], env: Env) -> list[Array]:
    parts = args[: len(op.parts)]
    y = np.zeros(env.shape_of(op.result), np.float32)
    for part, start, factor in zip(parts, op.starts.get_values(), op.factors.get_values()):
        y[..., start : start + part.shape[-1]] += part * np.float32(factor)
    return [activate(y if op.bias is None else y + args[-1], op.activation)]
