"""What `npu` kernels compute: the specification, one firing at a time, in plain integer numpy.

`runtime/npu/functions.py` computes the same faster and shares no code with this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from neuc.dialects.interp import npu_finish, npu_rows
from neuc.dialects.interp.npu_bf16 import bf16
from neuc.dialects.interp.npu_requantize import requantize
from neuc.dialects.interp.npu_residual import add_codes

Params: TypeAlias = dict[str, "int | float | str | list[int]"]
Tokens: TypeAlias = Sequence[Sequence[np.ndarray]]
State: TypeAlias = dict[str, np.ndarray]
Meaning: TypeAlias = Callable[[Params, int, Tokens, State], "list[list[np.ndarray]]"]


def threshold(p: Params, phase: int, t: Tokens, state: State) -> list[list[np.ndarray]]:
    """Kinds 0 … 4 of OpenCV: binary, binary inverted, truncated, to zero, to zero inverted."""
    x, limit, high = t[0][0].astype(int), int(p["threshold"]), int(p.get("max", 255))  # type: ignore[arg-type]
    kind = p.get("kind", 0)
    if kind == 0:
        y = (x > limit) * high
    elif kind == 1:
        y = (x <= limit) * high
    elif kind == 2:
        y = np.minimum(x, limit)
    elif kind == 3:
        y = x * (x > limit)
    else:
        y = x * (x <= limit)
    return [[y.astype(np.uint8)]]


def mix(p: Params, phase: int, t: Tokens, state: State) -> list[list[np.ndarray]]:
    """Token n of output j: (Σ of all tokens taken)·(j + 2) + salt + phase + n, in int32."""
    total = sum((token.astype(np.int64) for port in t for token in port), np.zeros(int(p["size"]), np.int64))  # type: ignore[arg-type]
    counts, phases, salt = list(p["produce"]), int(p["phases"]), int(p["salt"])  # type: ignore[arg-type]
    wrapped = total.astype(np.int32).astype(np.int64)
    outputs = range(int(p["outputs"]))  # type: ignore[arg-type]
    return [
        [(wrapped * (j + 2) + salt + phase + n).astype(np.int32) for n in range(counts[j * phases + phase])]
        for j in outputs
    ]


def gray(p: Params, phase: int, t: Tokens, state: State) -> list[list[np.ndarray]]:
    """(9798·R + 19235·G + 3735·B + 2^14) >> 15."""
    r, g, b = (t[0][0][..., i].astype(int) for i in range(3))
    return [[((9798 * r + 19235 * g + 3735 * b + 2**14) >> 15).astype(np.uint8)]]


def rgba(p: Params, phase: int, t: Tokens, state: State) -> list[list[np.ndarray]]:
    """Grey to R, G, B, 255."""
    return [[np.stack([t[0][0]] * 3 + [np.full_like(t[0][0], 255)], -1)]]


def hue(p: Params, phase: int, t: Tokens, state: State) -> list[list[np.ndarray]]:
    """43 a sextant from red; the floor of the quotient; grey is 0."""
    out = np.zeros(t[0][0].shape[:-1], np.uint8)
    for place in np.ndindex(*out.shape):
        r, g, b = (int(v) for v in t[0][0][place][:3])
        high, low = max(r, g, b), min(r, g, b)
        if high == low:
            continue
        if high == r:
            value = 43 * (g - b) // (high - low)
        elif high == g:
            value = 86 + 43 * (b - r) // (high - low)
        else:
            value = 171 + 43 * (r - g) // (high - low)
        out[place] = value % 256
    return [[out]]


def filter2d(p: Params, phase: int, t: Tokens, state: State) -> list[list[np.ndarray]]:
    """3 x 3 correlation of lines, edges replicated; phase 0 takes two lines, the last phase none."""
    w = np.array(p["weights"]).reshape(3, 3)
    lines = [line.astype(int) for line in t[0]]
    window = [lines[0], *lines] if phase == 0 else [state["a"], state["b"], lines[0] if lines else state["b"]]
    state["a"], state["b"] = window[1], window[2]
    image = np.pad(np.stack(window), ((0, 0), (1, 1)), mode="edge")
    width = image.shape[1] - 2
    y = sum(w[i, j] * image[i, j : j + width] for i in range(3) for j in range(3))
    return [[np.minimum(np.maximum(y, 0), 255).astype(np.uint8)]]


def add_weighted(p: Params, phase: int, t: Tokens, state: State) -> list[list[np.ndarray]]:
    """((a·alpha + b·beta) >> 14) + gamma, saturated to u8; a line b under pixels a is grey."""
    a, b = (port[0].astype(int) for port in t)
    if b.shape == a.shape[:-1]:
        b = np.repeat(b, a.shape[-1]).reshape(a.shape)
    alpha, beta, gamma = (int(p.get(name, 0)) for name in ("alpha", "beta", "gamma"))  # type: ignore[arg-type]
    y = ((a * alpha + b * beta) >> 14) + gamma
    return [[y.clip(0, 255).astype(np.uint8)]]


def mask(p: Params, phase: int, t: Tokens, state: State) -> list[list[np.ndarray]]:
    """The first token's pixels where one of the other tokens is not 0; black elsewhere."""
    out = np.zeros_like(t[0][0])
    for place in np.ndindex(*out.shape[:-1]):
        if any(port[0][place] for port in t[1:]):
            out[place] = t[0][0][place]
    return [[out]]


def gemm(p: Params, phase: int, t: Tokens, state: State) -> list[list[np.ndarray]]:
    """Acc += A·B over `steps` phases; the last gives acc, in int32."""
    product = t[0][0].astype(np.int64) @ t[1][0].astype(np.int64)
    state["acc"] = product if phase == 0 else state["acc"] + product
    return [[state["acc"].astype(np.int32)] if phase == p["steps"] - 1 else []]  # type: ignore[operator]


def ternary_gemm(p: Params, phase: int, t: Tokens, state: State) -> list[list[np.ndarray]]:
    """`gemm` with B as weight + 1 in 2 bits, four neighbours of a row a byte, the first in the lowest bits."""
    codes = t[1][0]
    weights = np.stack([codes >> shift & 3 for shift in (0, 2, 4, 6)], -1).reshape(len(codes), -1).astype(np.int8) - 1
    return gemm(p, phase, [t[0], [weights]], state)


def _finished(sums: Meaning) -> Meaning:
    """Sums, then either these in bytes, in four tokens of a quarter of the rows, or int8 codes.

    For codes, `parameters` further phases take a token of B each; together they are words of 32 bits: corrections a
    column, 1 if there is a table plus 2 if there are more of these words for the codes, the table's 256 bytes, then for
    all columns multipliers, low and high words of addends, limits (shift, zero, low, high, a byte each), and for every
    correction first sums, spans.

    With `residual` = R, these words stand behind 95 others: pairs P, 1 for a table, two multipliers, low and high word
    of an addend, limits, the table, and for P of 24 pairs bytes (code, other code, difference, 0). After them R phases
    take a token of A each, side by side another tensor's codes, of which columns from `part` times C's width on are
    added to C.
    """

    def call(p: Params, phase: int, t: Tokens, state: State) -> list[list[np.ndarray]]:
        steps, more = int(p["steps"]), int(p.get("parameters", 0))  # type: ignore[arg-type]
        if phase < steps:
            sums(p, phase, t, state)
            return [[]]
        acc = state["acc"].astype(np.int32)
        if not more:
            rows = np.split(acc, 4)[phase - steps]
            return [[np.frombuffer(rows.tobytes(), np.int8).reshape(acc.shape)]]
        residual = int(p.get("residual", 0))  # type: ignore[arg-type]
        if phase < steps + more:
            begun = b"" if phase == steps else state["block"].tobytes()
            state["block"] = np.frombuffer(begun + t[1][0].tobytes(), np.uint8)
            done = phase == steps + more - 1 and not residual
            return [[_codes(acc, state["block"])] if done else []]
        before = [] if phase == steps + more else [state["others"]]
        state["others"] = np.concatenate([*before, t[0][0]], 1)
        if phase < steps + more + residual - 1:
            return [[]]
        begin = int(p["part"]) * acc.shape[1]  # type: ignore[arg-type]
        other = state["others"][:, begin : begin + acc.shape[1]]
        return [[_added(_codes(acc, state["block"][380:]), other, state["block"][:380])]]

    return call


def _codes(acc: np.ndarray, block: np.ndarray) -> np.ndarray:
    n = acc.shape[1]
    words = np.frombuffer(block.tobytes()[: block.size // 4 * 4], np.int32)
    many, flags = (int(word) for word in words[:2])
    table = np.frombuffer(words[2:66].tobytes(), np.int8) if flags % 2 else None
    multiplier, low, high, limits = (words[66 + i * n : 66 + (i + 1) * n] for i in range(4))
    addend = np.array([int(h) * 2**32 + int(w) % 2**32 for h, w in zip(high, low)], np.int64)
    pairs = words[66 + 4 * n : 66 + (4 + 2 * many) * n].reshape(many, 2, n)
    limit_bytes = np.frombuffer(limits.tobytes(), np.int8).reshape(n, 4)
    codes = requantize(acc, multiplier, addend, limit_bytes, pairs.transpose(2, 0, 1), table)
    rest = block[4 * (66 + (4 + 2 * many) * n) :]
    return _codes(codes.astype(np.int32), rest) if flags >= 2 else codes


def _added(codes: np.ndarray, other: np.ndarray, block: np.ndarray) -> np.ndarray:
    words = np.frombuffer(block.tobytes(), np.int32)
    pairs = np.frombuffer(words[71 : 71 + words[0]].tobytes(), np.int8).reshape(-1, 4)[:, :3]
    addend = np.array([int(words[5]) * 2**32 + int(words[4]) % 2**32])
    limits, table = (np.frombuffer(words[begin:end].tobytes(), np.int8) for begin, end in ((6, 7), (7, 71)))
    return add_codes(codes, other, words[2:4], addend, limits, pairs, table if words[1] else None)


def bf16_gemm(p: Params, phase: int, t: Tokens, state: State) -> list[list[np.ndarray]]:
    """`gemm` of bf16 operands with a float32 sum: an element adds its products one by one, k ascending.

    A product of two bf16 values is exact in float32, so that the order of additions is all there is to define.
    """
    a, b = ((port[0].astype(np.uint32) * 65536).view(np.float32) for port in t)
    acc = state["acc"] if phase else np.zeros((len(a), b.shape[1]), np.float32)
    for column, row in zip(a.T, b):
        acc = (acc + np.multiply.outer(column, row)).astype(np.float32)
    state["acc"] = acc
    return [[acc] if phase == p["steps"] - 1 else []]  # type: ignore[operator]


def finished_bf16_gemm(p: Params, phase: int, t: Tokens, state: State) -> list[list[np.ndarray]]:
    """`bf16_gemm`, then the parameters' stages, and the results in one token as bf16, or as f32 bits in several.

    `parameters` phases take a token of B each, which together are words of 32 bits (`npu_finish.finished`); `pieces`
    phases then give a token each.
    """
    steps, more, pieces = (int(p[name]) for name in ("steps", "parameters", "pieces"))  # type: ignore[arg-type]
    if phase < steps:
        bf16_gemm(p, phase, t, state)
        state["words"] = np.zeros(0, np.uint16)
        return [[]]
    if phase < steps + more:
        state["words"] = np.append(state["words"], t[1][0])
        if phase == steps + more - 1:
            state["acc"] = npu_finish.finished(state["acc"], state["words"].tobytes(), p.get("tables"))
        return [[]]
    y = state["acc"].astype(np.float32)
    if pieces == 1:
        return [[(np.ascontiguousarray(bf16(y)).view(np.uint32) // 65536).astype(np.uint16)]]
    part = np.split(y, pieces)[phase - steps - more]
    return [[np.frombuffer(part.tobytes(), np.uint16).reshape(y.shape)]]


def _each(call: Callable[..., np.ndarray]) -> Meaning:
    """A function of one token of each input."""
    return lambda p, phase, t, state: [[call(*(port[0] for port in t))]]


def _rows(name: str) -> Meaning:
    """A kernel on lines of bf16 numbers."""
    return lambda p, phase, t, state: [[npu_rows.kernel(name, p, t[0][0])]]


MEANINGS: dict[str, Meaning] = {
    "copy": _each(lambda x: x.copy()),
    "invert": _each(lambda x: ~x),
    "add": _each(lambda a, b: (a + b).astype(a.dtype)),
    "or": _each(lambda a, b: a | b),
    "and": _each(lambda a, b: a & b),
    "in_range": lambda p, phase, t, state: [
        [(((t[0][0] >= p["low"]) & (t[0][0] <= p["high"])) * 255).astype(np.uint8)]
    ],
    "threshold": threshold,
    "mix": mix,
    "rgba2gray": gray,
    "gray2rgba": rgba,
    "rgba2hue": hue,
    "filter2d": filter2d,
    "add_weighted": add_weighted,
    "mask": mask,
    "gemm": gemm,
    "ternary_gemm": ternary_gemm,
    "finished_gemm": _finished(gemm),
    "finished_ternary_gemm": _finished(ternary_gemm),
    "bf16_gemm": bf16_gemm,
    "finished_bf16_gemm": finished_bf16_gemm,
    **{name: _rows(name) for name in ("bf16_chain", "bf16_softmax", "bf16_layer_norm")},
}
