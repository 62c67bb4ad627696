"""What products of the `npu` dialect compute."""

from __future__ import annotations

import numpy as np

from neuc.dialects.interp import npu_finish as _finish  # noqa: F401 - registers what follows products
from neuc.dialects.interp.core import Env, implements
from neuc.dialects.interp.dense import pad_spatial, windows
from neuc.dialects.interp.npu_bf16 import bf16
from neuc.dialects.interp.npu_requantize import requantize
from neuc.dialects.npu_products import GroupedAccumulateOp, MatmulOp, RequantizeOp
from neuc.dialects.npu_windows import WindowsOp
from neuc.dialects.ternary_types import PackedType


@implements(MatmulOp)
def _matmul(op: MatmulOp, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    a, b = (bf16(x) for x in args)
    if op.transpose_b is not None:
        b = np.swapaxes(b, -1, -2)
    if op.group_count:
        each = np.split(a, op.group_count, axis=-1)
        return [np.concatenate([_product(left, right) for left, right in zip(each, b)], axis=-1)]
    return [_product(a, b)]


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products in f32, added one after the other."""
    total = np.zeros((*a.shape[:-1], b.shape[-1]), np.float32)
    for k in range(a.shape[-1]):
        total = total + a[..., :, k, None] * b[..., None, k, :]
    return total


@implements(GroupedAccumulateOp)
def _grouped(op: GroupedAccumulateOp, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    q, rows = args
    assert isinstance(op.packed.type, PackedType)
    outputs, columns = op.packed.type.rows, op.packed.type.columns
    acc = np.empty((*q.shape[:-1], 1, len(rows)), np.int32)
    for row in range(len(rows)):
        begin = row % outputs * op.group_count // outputs * columns
        acc[..., 0, row] = q[..., begin : begin + columns].astype(np.int64) @ rows[row].astype(np.int64)
    return [acc]


@implements(RequantizeOp)
def _requantize(op: RequantizeOp, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    acc, multiplier, addend, limits, corrections = args[:5]
    sums = acc if acc.dtype == np.int8 else acc[..., 0, :]
    return [requantize(sums, multiplier, addend, limits, corrections, args[5] if args[5:] else None)]


@implements(WindowsOp)
def _windows(op: WindowsOp, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    view = windows(pad_spatial(args[0], op.pads.get_values()), op.kernel.get_values(), op.strides, op.dilations)
    (batch, channels), rank, groups = view.shape[:2], args[0].ndim - 2, op.group_count
    pixels, places = int(np.prod(view.shape[2 : 2 + rank])), int(np.prod(view.shape[2 + rank :]))
    by_group = view.reshape(batch, groups, channels // groups, pixels, places)
    return [by_group.transpose(0, 3, 1, 4, 2).reshape(batch, pixels, channels * places)]
