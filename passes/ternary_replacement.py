"""Putting a ternary layer in the place of a float one: what passes that make layers ternary share.

Where codes, scales and weights come from is those passes' business.
"""

from __future__ import annotations

import numpy as np
from xdsl.dialects.arith import AddfOp
from xdsl.dialects.builtin import f32
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter

from neuc.dialects.dense import ConvOp, MapOp, MatMulOp, ReshapeOp, YieldOp
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
    shift: np.ndarray | None = None,
) -> SSAValue:
    """Replace a matmul by a `ternary.linear`; its new result.

    Args:
        op: its constant weights are those of `weight`; the bias and the activation are carried over.
        codes: int8 codes […, K] of its activations and their scales […].
        weight: inserted before the layer.
        store: the constants.
        rewriter: at `op`.
        shift: f32 [N] to add to the bias, which must then be a constant for each column or absent.
    """
    trits = rewriter.insert(weight).result
    assert isinstance(trits.type, TritsType)
    bias, n, constant = op.bias, trits.type.rows, op.b
    if bias is None or per_column(bias, n):
        bias = _bias(bias, n, store, rewriter, shift)
        new = LinearOp(*codes, trits, bias, op.activation, op.result.type)
    else:
        new = _sum(rewriter.insert(LinearOp(*codes, trits, result_type=op.result.type)).result, bias)
    rewriter.replace(op, new)
    _drop_unused(constant, rewriter)
    return new.result


def replace_conv(
    op: ConvOp,
    codes: tuple[SSAValue, SSAValue],
    weight: WeightOp,
    store: WeightStore,
    rewriter: PatternRewriter,
    shift: np.ndarray | None = None,
) -> SSAValue:
    """Replace a convolution by a `ternary.conv`; arguments are as for `replace_matmul`, with a scale for each image.

    Returns: its new result.
    """
    kernel = tuple(d.value for d in dims_of(op.w)[2:])
    window = Window(kernel, op.strides.get_values(), op.pads.get_values(), op.dilations.get_values())
    trits, constant = rewriter.insert(weight).result, op.w
    bias = _bias(op.bias, dims_of(op.w)[0].value, store, rewriter, shift)
    group = op.group.value.data
    new = TernaryConvOp(*codes, trits, window, bias, group=group, activation=op.activation, result_type=op.result.type)
    rewriter.replace(op, new)
    _drop_unused(constant, rewriter)
    return new.result


def _bias(
    bias: SSAValue | None, n: int, store: WeightStore, rewriter: PatternRewriter, shift: np.ndarray | None
) -> SSAValue | None:
    """A bias of shape [N] or [1, …, N] as [N], with `shift` added."""
    array = None if bias is None else constant_value(bias, store)
    constant = None if bias is None else bias.owner
    name = constant.entry.data if isinstance(constant, ConstantOp) and constant.entry is not None else "bias"
    if shift is not None:
        assert bias is None or array is not None
        total = shift if array is None else array.reshape(n) + shift
        return rewriter.insert(make_constant(f"{name}.shifted", total.astype(np.float32), store)).result
    if bias is None or len(dims_of(bias)) == 1:
        return bias
    if array is None:
        return rewriter.insert(ReshapeOp(bias, tensor_type(f32, [n]))).result
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
