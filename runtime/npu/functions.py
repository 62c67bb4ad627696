"""What kernels compute, by name: the closed library of functions a serialised NPU program may use.

A function is called once a firing with the tokens it takes and gives those it produces; `state` lives from firing to
firing on the core. Results are bit for bit those of `dialects/interp/npu_functions.py`, which is the specification and
shares no code with this file. How long they take is not said here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from neuc.runtime.npu.program import ParamValue
from neuc.runtime.npu.requantize import requantized
from neuc.runtime.npu.residual import RESIDUAL_WORDS, added, own_columns

Array: TypeAlias = NDArray[np.generic]
Tokens: TypeAlias = Sequence[Sequence[Array]]
State: TypeAlias = dict[str, Array]
Function: TypeAlias = Callable[[Mapping[str, ParamValue], int, Tokens, State], list[list[Array]]]

FUNCTIONS: dict[str, Function] = {}
SUM_TOKENS = 4
"""Tokens of a byte an element that carry int32 sums."""
_COLOUR_SHIFT = 15


def function(name: str) -> Callable[[Function], Function]:
    """Register a kernel function."""

    def register(call: Function) -> Function:
        FUNCTIONS[name] = call
        return call

    return register


def number(params: Mapping[str, ParamValue], name: str, default: int | None = None) -> int:
    """An integer parameter."""
    value = params.get(name, default)
    assert isinstance(value, int), f"parameter {name} is {value!r}"
    return value


@function("copy")
def _copy(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    return [[token.copy() for token in tokens[0]]]


@function("invert")
def _invert(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    return [[np.bitwise_not(token) for token in tokens[0]]]


@function("threshold")
def _threshold(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    """OpenCV's five kinds: binary, binary_inv, trunc, tozero, tozero_inv; u8."""
    x = np.asarray(tokens[0][0])
    limit, high = np.uint8(number(params, "threshold")), np.uint8(number(params, "max", 255))
    above, zero = x > limit, np.uint8(0)
    kinds = [(high, zero), (zero, high), (limit, x), (x, zero), (zero, x)]
    yes, no = kinds[number(params, "kind", 0)]
    return [[np.where(above, yes, no).astype(np.uint8)]]


@function("add")
def _add(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    a, b = tokens[0][0], tokens[1][0]
    return [[np.add(a, b, dtype=a.dtype)]]  # type: ignore[call-overload]


@function("mix")
def _mix(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    """Of i32 tokens: token t of output j is Σ of all tokens taken · (j + 2) + salt + phase + t."""
    shapes = params["produce"]
    assert isinstance(shapes, list)
    total = np.zeros(number(params, "size"), np.int32)
    for port in tokens:
        for token in port:
            total = total + np.asarray(token, np.int32)
    salt = number(params, "salt") + phase
    outputs, phases = number(params, "outputs"), number(params, "phases")
    given = [shapes[j * phases + phase] for j in range(outputs)]
    return [
        [(total * np.int32(j + 2) + np.int32(salt + t)).astype(np.int32) for t in range(n)] for j, n in enumerate(given)
    ]


@function("rgba2gray")
def _gray(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    """(9798·R + 19235·G + 3735·B + 2^14) >> 15 of u8 pixels [n, 4]: the ITU-R 601 weights in 15 bits."""
    x = np.asarray(tokens[0][0], np.int32)
    y = (x[..., 0] * 9798 + x[..., 1] * 19235 + x[..., 2] * 3735 + (1 << 14)) >> _COLOUR_SHIFT
    return [[y.astype(np.uint8)]]


@function("gray2rgba")
def _rgba(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    x = np.asarray(tokens[0][0], np.uint8)
    return [[np.stack([x, x, x, np.full_like(x, 255)], axis=-1)]]


@function("rgba2hue")
def _hue(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    """Hue in 0 … 255 as integers: 43 a sextant; 0 for grey pixels. Pixels [n, 4], u8."""
    x = np.asarray(tokens[0][0], np.int32)
    r, g, b = x[..., 0], x[..., 1], x[..., 2]
    high, low = np.maximum(np.maximum(r, g), b), np.minimum(np.minimum(r, g), b)
    span = np.maximum(high - low, 1)
    hue = np.where(
        high == r, 43 * (g - b) // span, np.where(high == g, 86 + 43 * (b - r) // span, 171 + 43 * (r - g) // span)
    )
    return [[np.where(high == low, 0, hue % 256).astype(np.uint8)]]


@function("in_range")
def _in_range(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    x = np.asarray(tokens[0][0], np.uint8)
    inside = (x >= number(params, "low")) & (x <= number(params, "high"))
    return [[np.where(inside, 255, 0).astype(np.uint8)]]


@function("or")
def _or(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    return [[np.bitwise_or(np.asarray(tokens[0][0], np.uint8), np.asarray(tokens[1][0], np.uint8))]]


@function("and")
def _and(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    return [[np.bitwise_and(np.asarray(tokens[0][0], np.uint8), np.asarray(tokens[1][0], np.uint8))]]


@function("filter2d")
def _filter2d(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    """A 3 x 3 filter of u8 lines, borders replicated: line t of a frame of `lines` is given when line t + 1 is there.

    Phase 0 takes the frame's first two lines and gives its first, the last phase takes none: the filter keeps two
    lines as its state. Sums of `weights` (row by row) times pixels, clipped to 0 … 255.
    """
    weights = params["weights"]
    assert isinstance(weights, list)
    w = np.array(weights, np.int32).reshape(3, 3)
    rows = [np.asarray(token, np.int32) for token in tokens[0]]
    if phase == 0:
        above, here, below = rows[0], rows[0], rows[1]
    else:
        above, here = np.asarray(state["above"], np.int32), np.asarray(state["here"], np.int32)
        below = rows[0] if rows else here
    state["above"], state["here"] = here, below
    total = np.zeros_like(here)
    for line, row in zip((above, here, below), w):
        padded = np.pad(line, 1, mode="edge")
        total = total + row[0] * padded[:-2] + row[1] * padded[1:-1] + row[2] * padded[2:]
    return [[np.clip(total, 0, 255).astype(np.uint8)]]


@function("add_weighted")
def _add_weighted(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    """clip((a·alpha + b·beta) >> 14 + gamma) of u8; alpha and beta are in units of 2^-14.

    Where a are pixels [n, 4] and b is a line [n], b goes to every channel.
    """
    a, b = np.asarray(tokens[0][0], np.int32), np.asarray(tokens[1][0], np.int32)
    b = b[..., None] if b.ndim < a.ndim else b
    total = ((a * number(params, "alpha") + b * number(params, "beta")) >> 14) + number(params, "gamma", 0)
    return [[np.clip(total, 0, 255).astype(np.uint8)]]


@function("mask")
def _mask(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    """Pixels [n, 4] where any of the masks [n] is not 0, else 0; u8."""
    pixels, *masks = (np.asarray(port[0], np.uint8) for port in tokens)
    seen = np.bitwise_or.reduce(np.stack(masks)) != 0
    return [[pixels * seen[..., None].astype(np.uint8)]]


def _accumulate(params: Mapping[str, ParamValue], phase: int, a: Array, b: Array, state: State) -> list[list[Array]]:
    """Acc += a·b in integers; the last phase gives it. Products in float64 are exact below 2^53."""
    product = np.asarray(a, np.float64) @ np.asarray(b, np.float64)
    acc = product if phase == 0 else np.asarray(state["acc"], np.float64) + product
    state["acc"] = acc
    if phase + 1 < number(params, "steps"):
        return [[]]
    return [[acc.astype(np.int64).astype(np.int32)]]


@function("gemm")
def _gemm(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    """C[m, n] = Σ over `steps` tokens of A[m, k]·B[k, n]; int8 operands, int32 sums (modulo 2^32)."""
    return _accumulate(params, phase, tokens[0][0], tokens[1][0], state)


_TRITS = np.array([[(byte >> (2 * i) & 3) - 1 for i in range(4)] for byte in range(256)], np.int8)
"""The four weights of a byte of 2-bit codes (weight + 1), lowest bits first."""


@function("ternary_gemm")
def _ternary_gemm(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    """`gemm` with B[k, n] as 2-bit codes, four neighbours of a row a byte: [k, n / 4] of u8."""
    codes = np.asarray(tokens[1][0], np.uint8)
    return _accumulate(params, phase, tokens[0][0], _TRITS[codes].reshape(codes.shape[0], -1), state)


def _finished(
    params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State, sums: Function
) -> list[list[Array]]:
    """A product's int32 sums in bytes, in four tokens, or, with parameters behind B, its int8 codes.

    With a residual, further phases take tokens of A that hold another tensor's codes, which are added.
    """
    steps, more, residual = (number(params, name, 0) for name in ("steps", "parameters", "residual"))
    if phase < steps:
        given = sums(params, phase, tokens, state)[0]
        if given:
            state["sums"], state["block"] = given[0], np.zeros(0, np.uint8)
        return [[]]
    sums_of = np.asarray(state["sums"], np.int32)
    if not more:
        quarter = len(sums_of) // SUM_TOKENS
        part = np.ascontiguousarray(sums_of[(phase - steps) * quarter : (phase - steps + 1) * quarter])
        return [[part.view(np.int8).reshape(sums_of.shape)]]
    if phase < steps + more:
        taken = np.ascontiguousarray(tokens[1][0]).reshape(-1).view(np.uint8)
        state["block"] = np.concatenate([state["block"], taken])
        if phase + 1 < steps + more:
            return [[]]
        before = 4 * RESIDUAL_WORDS if residual else 0
        state["codes"] = requantized(sums_of, np.asarray(state["block"][before:], np.uint8))
        return [[] if residual else [state["codes"]]]
    codes, token = np.asarray(state["codes"], np.int8), np.asarray(tokens[0][0], np.int8)
    words = np.ascontiguousarray(state["block"][: 4 * RESIDUAL_WORDS]).view("<i4")
    at = phase - steps - more
    first, place, count = own_columns(at, token.shape[1], number(params, "part"), codes.shape[1])
    mine = codes[:, first : first + count]
    mine[...] = added(mine, token[:, place : place + count], words)
    return [[codes] if at + 1 == residual else []]


@function("finished_gemm")
def _finished_gemm(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    """`gemm`, then int8 codes on the core where there are parameters (`requantize.py`)."""
    return _finished(params, phase, tokens, state, _gemm)


@function("finished_ternary_gemm")
def _finished_ternary_gemm(
    params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State
) -> list[list[Array]]:
    """`ternary_gemm`, then int8 codes on the core where there are parameters."""
    return _finished(params, phase, tokens, state, _ternary_gemm)


@function("bf16_gemm")
def _bf16_gemm(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    """C[m, n] = Σ over k of A[m, k]·B[k, n]: operands bf16, products exact, added in float32 from the lowest k up."""
    a, b = (from_bf16(port[0]) for port in tokens)
    sums = np.empty((a.shape[1] + 1, a.shape[0], b.shape[1]), np.float32)
    sums[0] = 0 if phase == 0 else state["acc"]
    np.multiply(a.T[:, :, None], b[:, None, :], out=sums[1:])
    acc = np.add.accumulate(sums, axis=0)[-1]  # one after the other, which a sum need not be
    state["acc"] = acc
    return [[acc] if phase + 1 == number(params, "steps") else []]


def to_bf16(x: NDArray[np.generic]) -> NDArray[np.uint16]:
    """The bits of the nearest bf16 numbers of f32 ones, ties to even; not-a-number stays one."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    near = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(x), bits >> 16 | 0x40, near).astype(np.uint16)


def from_bf16(bits: Array) -> NDArray[np.float32]:
    """The numbers that bf16 bits stand for."""
    return (np.asarray(bits, np.uint32) << 16).view(np.float32)
