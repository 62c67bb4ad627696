"""What adding codes of two tensors means: the specification, in integers, one pair of codes after the other.

`runtime/npu/residual.py` computes the same faster and shares no code with this file.
"""

from __future__ import annotations

import numpy as np

from neuc.dialects.interp.core import Env, implements
from neuc.dialects.npu_residual import AddCodesOp

_CODES = range(-128, 128)


def sums_of_pairs(
    multipliers: np.ndarray, addend: np.ndarray, limits: np.ndarray, corrections: np.ndarray, table: np.ndarray | None
) -> np.ndarray:
    """The code int8 [256, 256] of every pair of codes, -128 first.

    Args:
        multipliers: int32 [2], of either code.
        addend: int64 [1].
        limits: int8 [4]: shift, zero, low, high.
        corrections: int32 [E, 3]: a pair, and what its code differs by.
        table: int8 [256], entry code + 128, or None.
    """
    made = np.zeros((256, 256), np.int8)
    (m, n), (offset,), (shift, zero, low, high) = ([int(v) for v in values] for values in (multipliers, addend, limits))
    for a in _CODES:
        for b in _CODES:
            quotient, rest = divmod(a * m + b * n + offset, 1 << shift)
            up = 2 * rest > 1 << shift or (2 * rest == 1 << shift and quotient % 2 == 1)
            made[a + 128, b + 128] = min(max(quotient + up + zero, low), high)
    for a, b, change in corrections.astype(int):
        made[a + 128, b + 128] += change
    return made if table is None else table[made.astype(int) + 128]


def add_codes(a: np.ndarray, b: np.ndarray, *parameters: np.ndarray | None) -> np.ndarray:
    """Codes int8 of the sums of codes int8 a and b, elementwise; parameters as `sums_of_pairs` has them."""
    multipliers, addend, limits, corrections, table = parameters
    assert multipliers is not None
    assert addend is not None
    assert limits is not None
    assert corrections is not None
    return sums_of_pairs(multipliers, addend, limits, corrections, table)[a.astype(int) + 128, b.astype(int) + 128]


@implements(AddCodesOp)
def _add_codes(op: AddCodesOp, args: list[np.ndarray], env: Env) -> list[np.ndarray]:
    a, b, *parameters = args
    return [add_codes(a, b, *parameters, *([] if op.table is not None else [None]))]
