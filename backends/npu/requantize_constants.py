"""Parameters of `npu.requantize` operations, read back from their constants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuc.dialects.npu_products import RequantizeOp
from neuc.dialects.npu_residual import AddCodesOp
from neuc.dialects.store import constant_value
from neuc.dialects.weight_store import WeightStore
from neuc.runtime.npu.requantize import Requantize
from neuc.runtime.npu.residual import Residual


def stages_of(op: RequantizeOp) -> list[RequantizeOp]:
    """A requantisation and those of its codes, in turn."""
    found = [op]
    while (user := found[-1].result.get_user_of_unique_use()) is not None and isinstance(user, RequantizeOp):
        found.append(user)
    return found


def residual_behind(op: RequantizeOp) -> AddCodesOp | None:
    """What adds another tensor's codes to those of a requantisation, on the same core."""
    codes = stages_of(op)[-1].result
    user = codes.get_user_of_unique_use()
    return user if isinstance(user, AddCodesOp) and user.codes is codes else None


def residual_of(op: AddCodesOp, store: WeightStore) -> Residual:
    """Constant operands as parameters; pairs that change nothing are left out."""
    values = [None if v is None else constant_value(v, store) for v in (*op.operands[2:6], op.table)]
    multipliers, addend, limits, corrections, table = values
    assert multipliers is not None
    assert addend is not None
    assert limits is not None
    assert corrections is not None
    return Residual(multipliers, addend, limits, corrections[corrections[:, 2] != 0], table)


def requantization(products: Sequence[RequantizeOp], store: WeightStore) -> list[Requantize]:
    """The stages of products side by side, which have as many stages and the same tables."""
    made: list[Requantize] = []
    for parts in zip(*([_parameters(op, store) for op in stages_of(first)] for first in products), strict=True):
        most = max(part.corrections.shape[1] for part in parts)
        wide = [np.pad(p.corrections, ((0, 0), (0, most - p.corrections.shape[1]), (0, 0))) for p in parts]
        multiplier, addend, limits = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("multiplier", "addend", "limits")
        )
        made.append(Requantize(multiplier, addend, limits, np.concatenate(wide), parts[0].table))
    return made


def _parameters(op: RequantizeOp, store: WeightStore) -> Requantize:
    """Constant operands as parameters; corrections of no sums are left out."""
    values = [None if v is None else constant_value(v, store) for v in (*op.operands[1:5], op.table)]
    multiplier, addend, limits, corrections, table = values
    assert multiplier is not None
    assert addend is not None
    assert limits is not None
    assert corrections is not None
    used = corrections if corrections[..., 1].any() else corrections[:, :0]
    return Requantize(multiplier, addend, limits, used, table)
