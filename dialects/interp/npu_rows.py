"""What chains, softmax and norms of the `npu` dialect compute, and the kernels that compute them: the specification.

`runtime/npu/row_functions.py` computes the same for the simulator and shares no code with this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from neuc.dialects.interp.core import Env, implements
from neuc.dialects.interp.npu_bf16 import bf16
from neuc.dialects.npu_rows import OCTAVES, ChainOp, ChainStep, LayerNormOp, SoftmaxOp

_LANES = 16
_MANTISSA = 7


@implements(ChainOp)
def _chain(op: ChainOp, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    shape = env.shape_of(op.result)
    count = len(op.inputs)
    values = [np.broadcast_to(bf16(x), shape) for x in args[:count]]
    return [chain(values, op.chain, args[count:])]


@implements(SoftmaxOp)
def _softmax(op: SoftmaxOp, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    return [softmax(bf16(args[0]), args[1])]


@implements(LayerNormOp)
def _layer_norm(op: LayerNormOp, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    rest = iter(args[1:])
    columns = args[0].shape[-1]
    scale = next(rest) if op.scale is not None else np.ones(columns, np.float32)
    bias = next(rest) if op.bias is not None else np.zeros(columns, np.float32)
    return [layer_norm(bf16(args[0]), bf16(scale), bf16(bias), op.eps.value.data, op.rms is not None)]


def chain(values: Sequence[np.ndarray], steps: Sequence[ChainStep], tables: Sequence[np.ndarray]) -> np.ndarray:
    """The last value of a chain on bf16 numbers."""
    known = list(values)
    functions = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "max": np.maximum, "min": np.minimum}
    for step in steps:
        if step.kind == "constant":
            made = np.full_like(known[0], step.number)
        elif step.kind == "curve":
            made = curve(known[step.values[0]], tables[step.table])
        else:
            a, b = (known[value] for value in step.values)
            with np.errstate(all="ignore"):
                made = bf16(functions[step.kind](a, b).astype(np.float32))
        known.append(made)
    return known[-1]


def curve(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """A function of bf16 numbers by its table (see `npu.chain`)."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32) // 65536
    octave, mantissa = bits // 2**_MANTISSA, bits % 2**_MANTISSA
    words = table[octave].astype(np.int64)
    first, segment = words % 65536, 2 ** (words // 65536)
    place = OCTAVES + 2 * (first + mantissa // segment)
    lines = np.ascontiguousarray(table, np.int32).view(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        return bf16(lines[place] + (mantissa % segment).astype(np.float32) * lines[place + 1])


def total(x: np.ndarray) -> np.ndarray:
    """Sums along the last axis, kept: 16 partial ones of columns 16 apart, ascending, then by halves; all f32."""
    lanes = [np.zeros(x.shape[:-1], np.float32) for _ in range(_LANES)]
    for column in range(x.shape[-1]):
        lanes[column % _LANES] = lanes[column % _LANES] + x[..., column]
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [a + b for a, b in zip(lanes[:half], lanes[half:])]
    return lanes[0][..., None]


def softmax(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Of bf16 numbers, along the last axis."""
    if not x.size:
        return x
    with np.errstate(all="ignore"):
        e = curve(bf16(x - x.max(axis=-1, keepdims=True)), table)
        return bf16(e * bf16(np.float32(1) / total(e)))


def layer_norm(x: np.ndarray, scale: np.ndarray, bias: np.ndarray, eps: float, rms: bool) -> np.ndarray:
    """Of bf16 numbers, along the last axis."""
    if not x.size:
        return x
    share = np.float32(1 / x.shape[-1])
    with np.errstate(all="ignore"):
        d = x if rms else bf16(x - total(x) * share)
        r = bf16(np.float32(1) / np.sqrt(total(d * d) * share + np.float32(eps)))
        return bf16(bf16(bf16(d * r) * scale) + bias)


def kernel(name: str, params: Mapping[str, object], token: np.ndarray) -> np.ndarray:
    """What a core gives for a token of bf16 bits [lines, width]: bits [rows, width], 0 beyond ``columns``.

    A chain's token has `rows` lines of each operand in turn; that of a norm ends in a line of scales and one of biases.
    """
    rows, columns = int(str(params["rows"])), int(str(params["columns"]))
    x = (token[:, :columns].astype(np.uint32) * 65536).view(np.float32)
    tables = [np.array(params[key], np.int32) for key in sorted(params) if key.startswith("curve")]
    if name == "bf16_chain":
        operands = list(x.reshape(-1, rows, columns))
        y = chain(operands, [ChainStep.read(step) for step in str(params["steps"]).split("; ")], tables)
    elif name == "bf16_softmax":
        y = softmax(x, tables[0])
    else:
        y = layer_norm(x[:rows], x[-2], x[-1], float(str(params["eps"])), params["rms"] == 1)
    made = np.zeros((rows, token.shape[1]), np.uint16)
    made[:, :columns] = np.ascontiguousarray(y).view(np.uint32) // 65536
    return made
