"""Parameters of `npu.requantize` operations, read back from their constants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuc.dialects.npu_products import RequantizeOp
from neuc.dialects.store import constant_value
from neuc.dialects.weight_store import WeightStore
from neuc.runtime.npu.requantize import Requantize


def stages_of(op: RequantizeOp) -> list[RequantizeOp]:
    """A requantisation and those of its codes, in turn."""
    found = [op]
    while (user := found[-1].result.get_user_of_unique_use()) is not None and isinstance(user, RequantizeOp):
        found.append(user)
    return found


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
