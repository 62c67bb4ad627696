"""Putting a ternary layer in the place of a float one: what passes that make layers ternary share.

Where codes, scales and weights come from is those passes' business.
"""

from __future__ import annotations

from dataclasses import replace

from xdsl.dialects.arith import AddfOp
from xdsl.dialects.builtin import f32, i8
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter

from neuc.dialects.dense import ConvOp, MapOp, MatMulOp, PadOp, ReshapeOp, YieldOp
from neuc.dialects.store import ConstantOp, constant_value, dims_of, make_constant, tensor_type
from neuc.dialects.ternary import ConvOp as TernaryConvOp
from neuc.dialects.ternary import LinearOp, WeightOp
from neuc.dialects.ternary_types import TritsType, Window
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.ternary_layers import per_column


def replace_matmul(
    op: MatMulOp,
    codes: tuple[SSAValue, SSAValue],
    weight: WeightOp,
    store: WeightStore,
    rewriter: PatternRewriter,
    offset: int = 0,
) -> SSAValue:
    """Replace a matmul by a `ternary.linear`; its new result.

    Args:
        op: its constant weights are those of `weight`; the bias and the activation are carried over.
        codes: int8 codes […, K] of its activations and their scales […].
        weight: inserted before the layer.
        store: the constants.
        rewriter: at `op`.
        offset: what the activations are more than their codes.
    """
    trits = rewriter.insert(weight).result
    assert isinstance(trits.type, TritsType)
    bias, n, constant = op.bias, trits.type.rows, op.b
    if bias is None or per_column(bias, n):
        bias = _bias(bias, n, store, rewriter)
        new = LinearOp(*codes, trits, bias, op.activation, op.result.type, offset)
    else:
        new = _sum(rewriter.insert(LinearOp(*codes, trits, result_type=op.result.type, offset=offset)).result, bias)
    rewriter.replace(op, new)
    _drop_unused(constant, rewriter)
    return new.result


def replace_conv(
    op: ConvOp,
    codes: tuple[SSAValue, SSAValue],
    weight: WeightOp,
    store: WeightStore,
    rewriter: PatternRewriter,
    offset: int = 0,
) -> SSAValue:
    """Replace a convolution by a `ternary.conv`; arguments are as for `replace_matmul`, with a scale for each image.

    Returns: its new result.
    """
    kernel = tuple(d.value for d in dims_of(op.w)[2:])
    window = Window(kernel, op.strides.get_values(), op.pads.get_values(), op.dilations.get_values())
    trits, constant = rewriter.insert(weight).result, op.w
    bias = _bias(op.bias, dims_of(op.w)[0].value, store, rewriter)
    q, s = codes
    if offset and any(window.pads):
        q, window = rewriter.insert(_padded(q, window, -offset)).result, replace(window, pads=(0,) * len(window.pads))
    new = TernaryConvOp(q, s, trits, window, bias, op.group.value.data, op.activation, op.result.type, offset)
    rewriter.replace(op, new)
    _drop_unused(constant, rewriter)
    return new.result


def _padded(q: SSAValue, window: Window, code: int) -> PadOp:
    """Codes with the pads of a window around them."""
    dims, rank = dims_of(q), len(window.kernel)
    begins, ends = ((0, 0, *part) for part in (window.pads[:rank], window.pads[rank:]))
    padded = tensor_type(i8, [dim + before + after for dim, before, after in zip(dims, begins, ends, strict=True)])
    return PadOp(q, (*begins, *ends), padded, value=float(code))


def _bias(bias: SSAValue | None, n: int, store: WeightStore, rewriter: PatternRewriter) -> SSAValue | None:
    """A bias of shape [N] or [1, …, N] as [N]."""
    if bias is None or len(dims_of(bias)) == 1:
        return bias
    array = constant_value(bias, store)
    if array is None:
        return rewriter.insert(ReshapeOp(bias, tensor_type(f32, [n]))).result
    constant = bias.owner
    name = constant.entry.data if isinstance(constant, ConstantOp) and constant.entry is not None else "bias"
    return rewriter.insert(make_constant(name, array.reshape(n), store)).result


def _sum(x: SSAValue, y: SSAValue) -> MapOp:
    """Sum of two values, in the shape of x."""
    result = MapOp([x, y], x.type)
    block = result.body.block
    total = AddfOp(block.args[0], block.args[1])
    block.add_ops([total, YieldOp(total.result)])
    return result


def _drop_unused(constant: SSAValue, rewriter: PatternRewriter) -> None:
    """Erase the float weights when the last layer that read them is gone."""
    if not any(constant.uses) and isinstance(constant.owner, Operation):
        rewriter.erase(constant.owner)
