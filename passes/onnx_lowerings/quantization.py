"""Quantised tensors of ONNX and onnxruntime: QuantizeLinear, DequantizeLinear and MatMulNBits.

On constants the result is a constant, which holds exactly code times scale: what the model says about its weights stays
readable in the numbers. QONNX's operators are in `qonnx.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import IntegerType, Signedness, f32, i8, i32
from xdsl.ir import Attribute, Operation, SSAValue

from neuc.dialects.dims import Dim
from neuc.dialects.onnx import OnnxOp
from neuc.dialects.onnx_types import ELEMENT_OF_ONNX, small_integers
from neuc.dialects.store import ConstantOp, element_of, numpy_dtype, u8
from neuc.passes import scalar_builder as sb
from neuc.passes.onnx_lowerings.builder import Builder, Rule, Unsupported
from neuc.passes.scalar_builder import Scalar

Array = np.ndarray
Results = Sequence[SSAValue | None]
_CODES = (i8, u8, i32, f32)
"""What is dequantised at run time; f32 stands for integers that `dense.map` cannot hold."""
_MAX_BITS = 16
"""Widest codes of QuantizeLinear: f32 holds all of them."""
_NBITS = (2, 4, 8)
MICROSOFT = "com.microsoft"


def lower_dequantize(node: OnnxOp, build: Builder) -> Results:
    """DequantizeLinear: (x - zero point) · scale, for a tensor, an axis or, of constants, blocks of an axis."""
    x, scale, zero = build.operand(0), build.operand(1), node.operand_at(2)
    build.require_float(scale)
    codes, factors, offsets = _integers(build, x), build.array(scale), _integers(build, zero)
    if codes is not None and factors is not None and (zero is None or offsets is not None):
        shifted = codes.astype(np.float64)
        shifted = shifted if offsets is None else shifted - _spread(node, offsets, codes)
        return [build.constant(shifted.astype(np.float32) * _spread(node, factors, codes), "dequantized")]
    if offsets is not None:
        zero = build.constant(offsets.astype(np.float32), "zero_point")
    build.require(_CODES, x, zero)
    given = [x, *(_along_axis(node, build, x, v) for v in (scale, zero) if v is not None)]

    def body(code: Scalar, step: Scalar, *offset: Scalar) -> Scalar:
        value = _as_float(code)
        return (value - _as_float(offset[0]) if offset else value) * step

    return [build.map(given, body, build.dims(x))]


def lower_quantize(node: OnnxOp, build: Builder) -> Results:
    """QuantizeLinear: round(x / scale) + zero point, saturated.

    Results of other types than int8 are f32, and only for those who ask for no more than their numbers.
    """
    x, scale, zero = build.operand(0), build.operand(1), node.operand_at(2)
    build.require_float(x, scale)
    element = _code_type(node, zero)
    low, high = _limits(element)
    values, factors, offsets = build.array(x), build.array(scale), _integers(build, zero)
    constant = values is not None and factors is not None and (zero is None or offsets is not None)
    if element != i8 and not (constant and element == u8):
        if not all(_reads_numbers(use.operation) for use in node.results[0].uses):
            raise Unsupported(f"quantisation to {element} for others than DequantizeLinear")
    if values is not None and factors is not None and constant:
        codes = np.round(values / _spread(node, factors, values))
        codes = codes if offsets is None else codes + _spread(node, offsets, values)
        held = numpy_dtype(element) if element in (i8, u8) else np.float32
        return [build.constant(np.clip(codes, low, high).astype(held), "quantized")]
    if offsets is not None:
        zero = build.constant(offsets.astype(np.float32), "zero_point")
    given = [x, *(_along_axis(node, build, x, v) for v in (scale, zero) if v is not None)]

    def body(value: Scalar, step: Scalar, *offset: Scalar) -> Scalar:
        code = sb.round_even(value / step)
        code = code + _as_float(offset[0]) if offset else code
        return sb.minimum(sb.maximum(code, low), high)

    codes = build.map(given, body, build.dims(x))
    return [build.cast(codes, i8) if element == i8 else codes]


def _code_type(node: OnnxOp, zero: SSAValue | None) -> Attribute:
    if zero is not None:
        return element_of(zero)
    number = node.int_attribute("output_dtype", 0)
    return ELEMENT_OF_ONNX.get(number, u8) if number else u8


def _limits(element: Attribute) -> tuple[int, int]:
    """The least and the largest code."""
    if not isinstance(element, IntegerType) or element.width.data > _MAX_BITS:
        raise Unsupported(f"quantisation to {element}")
    bits = element.width.data
    if element.signedness.data is Signedness.UNSIGNED:
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def _reads_numbers(reader: Operation) -> bool:
    """Whether a node that reads codes is lowered to something that takes them as f32."""
    if not isinstance(reader, OnnxOp) or reader.domain not in ("", MICROSOFT):
        return False
    if reader.op_type == "Clip":  # between QuantizeLinear and DequantizeLinear
        bounds = all(isinstance(value.owner, ConstantOp) for value in reader.operands[1:])
        return bounds and all(_reads_numbers(use.operation) for use in reader.results[0].uses)
    known = reader.op_type == "DequantizeLinear" and not reader.int_attribute("block_size", 0)
    return known and element_of(reader.operands[1]) == f32


def _as_float(code: Scalar) -> Scalar:
    value = sb.cast(code, f32)
    assert value is not None, code.type
    return value


def _integers(build: Builder, value: SSAValue | None) -> Array | None:
    """The elements of an integer constant, also of types numpy lacks."""
    if value is None:
        return None
    owner = value.owner
    if isinstance(owner, OnnxOp) and owner.op_type == "Constant" and "value" in owner.attributes:
        return small_integers(owner.attributes["value"], build.store)
    return build.array(value)


def _axis(node: OnnxOp, build: Builder, rank: int) -> int:
    return build.axis(node.int_attribute("axis", 1), rank)


def _spread(node: OnnxOp, parameter: Array, like: Array) -> Array:
    """Scales or zero points in a shape that broadcasts to `like`: one for all, one per index or block of the axis."""
    if parameter.size == 1 and parameter.ndim < 2:
        return parameter.reshape(())
    axis, block = node.int_attribute("axis", 1), node.int_attribute("block_size", 0)
    if not -like.ndim <= axis < like.ndim:
        raise Unsupported(f"axis {axis} of a tensor of rank {like.ndim}")
    axis %= like.ndim
    if block == 0:
        if parameter.shape != (like.shape[axis],):
            raise Unsupported(f"{parameter.size} scales or zero points for {like.shape[axis]} indices of axis {axis}")
        return parameter.reshape([-1 if i == axis else 1 for i in range(like.ndim)])
    blocks = [-(-size // block) if i == axis else size for i, size in enumerate(like.shape)]
    if list(parameter.shape) != blocks:
        raise Unsupported(f"scales or zero points of shape {list(parameter.shape)}, not {blocks}")
    return np.take(parameter, np.arange(like.shape[axis]) // block, axis=axis)


def _along_axis(node: OnnxOp, build: Builder, x: SSAValue, parameter: SSAValue) -> SSAValue:
    """Scales or zero points of `x` at run time, as `_spread` does it."""
    if node.int_attribute("block_size", 0):
        raise Unsupported("blocks of a tensor that is computed")
    dims, given = build.dims(x), build.dims(parameter)
    if not given or given == (Dim.of(1),):
        return build.reshape(parameter, ())
    axis = _axis(node, build, len(dims))
    if len(given) != 1:
        raise Unsupported("scales that are no vector")
    return build.reshape(parameter, [given[0] if i == axis else 1 for i in range(len(dims))])


def lower_matmul_nbits(node: OnnxOp, build: Builder) -> Results:
    """MatMulNBits: x[…, K] times W[N, K], constant codes of 2, 4 or 8 bits with a scale for each block of columns."""
    x, packed, scales = build.operand(0), build.array(build.operand(1)), build.array(build.operand(2))
    zero, bias = node.operand_at(3), node.operand_at(5)
    build.require_float(x, bias)
    if node.operand_at(4) is not None:
        raise Unsupported("g_idx")
    if packed is None or scales is None or (zero is not None and build.array(zero) is None):
        raise Unsupported("weights that are computed")
    if packed.dtype != np.uint8 or scales.dtype != np.float32:
        raise Unsupported(f"{packed.dtype} codes with {scales.dtype} scales")
    n, k, block = (node.int_attribute(name, 0) for name in ("N", "K", "block_size"))
    bits = node.int_attribute("bits", 4)
    if bits not in _NBITS or min(n, k, block) < 1 or block * bits % 8:
        raise Unsupported(f"bits = {bits}, N = {n}, K = {k}, block_size = {block}")
    if not build.dims(x) or build.dims(x)[-1] != Dim.of(k):
        raise Unsupported(f"input 0 has {build.dims(x)[-1] if build.dims(x) else 'no'} columns, not {k}")
    blocks = -(-k // block)
    if packed.size != n * blocks * block * bits // 8 or scales.size != n * blocks:
        raise Unsupported(f"{packed.size} bytes of codes and {scales.size} scales for N = {n}, K = {k}")
    offsets = _block_offsets(build.array(zero), bits, n, blocks)
    codes = _unpacked(packed.reshape(n, blocks, -1), bits).astype(np.float32)
    weights = ((codes - offsets) * scales.reshape(n, blocks, 1)).reshape(n, -1)[:, :k]
    w = build.constant(np.ascontiguousarray(weights, np.float32), "dequantized")
    vector = len(build.dims(x)) == 1
    y = build.matmul(build.reshape(x, (1, k)) if vector else x, w, bias, transpose_b=True)
    return [build.reshape(y, (n,)) if vector else y]


def _block_offsets(zero: Array | None, bits: int, n: int, blocks: int) -> Array:
    """Zero points as f32 [n, blocks, 1]: the middle by default, packed like codes, or plain numbers."""
    if zero is None:
        return np.full((n, blocks, 1), 2 ** (bits - 1), np.float32)
    if zero.dtype == np.float32 and zero.size == n * blocks:
        return zero.reshape(n, blocks, 1)
    row = math.ceil(blocks * bits / 8)
    if zero.dtype != np.uint8 or zero.size != n * row:
        raise Unsupported(f"{zero.size} zero points of type {zero.dtype} for {n} rows of {blocks} blocks")
    return _unpacked(zero.reshape(n, row), bits)[:, :blocks, None].astype(np.float32)


def _unpacked(packed: Array, bits: int) -> Array:
    """The codes of bytes, from the low bits on; the last axis grows by 8 / bits."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return codes.reshape(*packed.shape[:-1], -1)


RULES: dict[str, Rule] = {"QuantizeLinear": lower_quantize, "DequantizeLinear": lower_dequantize}
CONTRIB_RULES: dict[str, Rule] = {**RULES, "MatMulNBits": lower_matmul_nbits}
"""onnxruntime's own QuantizeLinear and DequantizeLinear mean the same."""
