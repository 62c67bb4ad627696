"""Kernels on lines of bf16 numbers, in the closed library by name: chains of element-wise steps, softmax, norms.

A token is bits [lines, width]; `rows.py` says what its lines are. Results are bit for bit those of
`dialects/interp/npu_rows.py`, the specification, which shares no code with this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error
from neuc.runtime.npu.functions import Array, State, Tokens, from_bf16, function, number, to_bf16
from neuc.runtime.npu.program import ParamValue
from neuc.runtime.npu.program_json import CODE, CURE

OCTAVES = 512
"""Words at the front of a curve."""
LANES = 16
"""Partial sums of a row."""
_Floats: TypeAlias = NDArray[np.float32]
BINARY: Mapping[str, Callable[[_Floats, _Floats], _Floats]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}
"""Steps of a chain on two values; the others are ``constant`` and ``curve``."""


def chain_steps(text: str) -> list[list[str]]:
    """The words of each step of a chain: ``mul 0 1; constant 0.5; curve 2 0``."""
    return [step.split() for step in text.split("; ")]


def _rounded(x: NDArray[np.floating]) -> _Floats:
    return from_bf16(to_bf16(x))


def curve_of(x: _Floats, words: NDArray[np.int32]) -> _Floats:
    """A function of bf16 numbers by its table, a line on each segment of an octave (`backends/npu/curves.py`)."""
    bits = to_bf16(x)
    octave = words[bits >> 7]
    shift = (octave >> 16).astype(np.uint16)
    place = OCTAVES + 2 * ((octave & 0xFFFF) + ((bits & 127) >> shift))
    lines = words.view(np.float32)
    along = (bits & ((np.uint16(1) << shift) - np.uint16(1))).astype(np.float32)
    return _rounded(lines[place] + along * lines[place + 1])


def checked_curve(words: Array, size: int, where: str) -> NDArray[np.int32]:
    """A table whose octaves point into it.

    Raises:
        Error: NEUC-E687, they do not, or the table has another size.
    """
    sound = words.dtype == np.int32 and words.shape == (size,) and size % 2 == 0
    if sound:
        octaves = np.asarray(words[:OCTAVES], np.int64)
        shift, first = octaves >> 16, octaves & 0xFFFF
        sound = bool((shift >= 0).all() and (shift <= 7).all())
        sound = sound and int((first + (128 >> np.clip(shift, 0, 7))).max()) <= (size - OCTAVES) // 2
    if not sound:
        raise Error(CODE, f"segment {where}: a table is damaged", hint=CURE)
    return np.asarray(words, np.int32)


def _total(x: _Floats) -> _Floats:
    """Sums of rows [R, C] in f32, [R, 1]: lane after lane of 16 columns, then the lanes by halves."""
    chunks = -(-x.shape[1] // LANES)
    padded = np.zeros((x.shape[0], chunks * LANES), np.float32)
    padded[:, : x.shape[1]] = x
    lanes = np.zeros((x.shape[0], LANES), np.float32)
    for chunk in range(chunks):
        lanes += padded[:, chunk * LANES : (chunk + 1) * LANES]
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes


def _lines(params: Mapping[str, ParamValue], tokens: Tokens) -> tuple[int, _Floats]:
    """Rows of the result, and the token's lines as floats, without what fills them up."""
    token = np.asarray(tokens[0][0], np.uint16)
    return number(params, "rows"), from_bf16(token[:, : number(params, "columns")])


def _table(params: Mapping[str, ParamValue], name: str) -> NDArray[np.int32]:
    return np.array(params[name], np.int32)


def _given(y: _Floats, tokens: Tokens) -> list[list[Array]]:
    made = np.zeros((len(y), tokens[0][0].shape[1]), np.uint16)
    made[:, : y.shape[1]] = to_bf16(y)
    return [[made]]


@function("bf16_chain")
def _chain(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    """Steps on the operands' lines, element by element."""
    rows, x = _lines(params, tokens)
    known = [x[i * rows : (i + 1) * rows] for i in range(len(x) // rows)]
    with np.errstate(all="ignore"):
        for kind, first, *rest in chain_steps(str(params["steps"])):
            if kind == "constant":
                known.append(np.full_like(known[0], float(first)))
            elif kind == "curve":
                known.append(curve_of(known[int(first)], _table(params, f"curve{rest[0]}")))
            else:
                known.append(_rounded(BINARY[kind](known[int(first)], known[int(rest[0])])))
    return _given(known[-1], tokens)


@function("bf16_softmax")
def _softmax(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    """Softmax of each line."""
    _, x = _lines(params, tokens)
    with np.errstate(all="ignore"):
        e = curve_of(_rounded(x - x.max(axis=1, keepdims=True)), _table(params, "curve0"))
        return _given(_rounded(e * _rounded(np.float32(1) / _total(e))), tokens)


@function("bf16_layer_norm")
def _layer_norm(params: Mapping[str, ParamValue], phase: int, tokens: Tokens, state: State) -> list[list[Array]]:
    """Each line but the last two, which are scales and biases, normalised."""
    rows, x = _lines(params, tokens)
    eps = params["eps"]
    assert isinstance(eps, float)
    share, scale, bias = np.float32(1 / x.shape[1]), x[-2], x[-1]
    x = x[:rows]
    with np.errstate(all="ignore"):
        d = x if number(params, "rms") else _rounded(x - _total(x) * share)
        r = _rounded(np.float32(1) / np.sqrt(_total(d * d) * share + np.float32(eps)))
        return _given(_rounded(_rounded(_rounded(d * r) * scale) + bias), tokens)
