"""`npu.finish` operations behind a product, read back: what they are in turn, and their parameters for cores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from neuc.dialects.npu_finish import FinishOp
from neuc.dialects.npu_products import MatmulOp
from neuc.dialects.store import ConstantOp, constant_value, dims_of
from neuc.dialects.weight_store import WeightStore
from neuc.errors import InternalError
from neuc.runtime.npu.float_finish import FloatFinish, FloatStage

_MULTIPLY = 3
"""Passes that an f32 product takes: cores multiply bf16, in three parts for f32."""


def ends_of(product: MatmulOp) -> list[FinishOp]:
    """What follows a product on its core, in turn."""
    found: list[FinishOp] = []
    value = product.result
    while (user := value.get_user_of_unique_use()) is not None and isinstance(user, FinishOp) and user.sum is value:
        found.append(user)
        value = user.result
    return found


def finish_of(product: MatmulOp) -> FloatFinish | None:
    """How much that is; None if sums leave as they are."""
    ends = ends_of(product)
    if not ends:
        return None
    parts = [Part(*_has(op), *_table(op.table)) for op in ends if not is_rounding(op)]
    return tally(parts, narrow=ends[-1].narrow is not None)


@dataclass(frozen=True)
class Part:
    """What one stage has: a scale, a shift, a slope, limits; its table's words, 0 for none, and what tells it apart."""

    scale: bool
    shift: bool
    slope: bool
    limits: bool
    words: int = 0
    content: str = ""


def tally(parts: Sequence[Part], *, narrow: bool) -> FloatFinish:
    """How much stages are."""
    return FloatFinish(
        len(parts),
        sum(part.scale + part.shift for part in parts),
        sum(_MULTIPLY * (part.scale + part.slope) + part.shift + 2 * part.limits for part in parts),
        tuple(part.words for part in parts if part.words),
        narrow,
        tuple(part.content for part in parts if part.words),
    )


def _has(op: FinishOp) -> tuple[bool, bool, bool, bool]:
    return op.scale is not None, op.shift is not None, op.slope is not None, op.limits is not None


def _table(value: SSAValue | None) -> tuple[int, str]:
    return (0, "") if value is None else (dims_of(value)[0].value, content(value))


def is_rounding(op: FinishOp) -> bool:
    """Whether it does nothing but round."""
    return not any(_has(op)) and op.table is None


def content(value: SSAValue) -> str:
    """What tells a constant from others: its hash, or its value."""
    owner = value.owner
    assert isinstance(owner, Operation)
    return str(owner.properties.get("sha", owner.properties.get("value")))


def likeness(product: MatmulOp) -> tuple[object, ...]:
    """What products must share to be finished together, columns of one product: all but their scales and shifts."""
    return tuple(
        (
            op.scale is not None,
            op.shift is not None,
            op.slope,
            op.low,
            op.high,
            None if op.table is None else content(op.table),
            op.narrow is not None,
        )
        for op in ends_of(product)
    )


def tables_in(module: ModuleOp, store: WeightStore) -> dict[str, np.ndarray]:
    """The words of all tables behind products of a module, by `content`, in an order that placing does not change."""
    found: dict[str, np.ndarray] = {}
    for function in (f for f in module.ops if isinstance(f, func.FuncOp)):
        for op in function.walk():
            if isinstance(op, FinishOp) and op.table is not None:
                found[content(op.table)] = constant_of(op.table, store)
    return {key: found[key] for key in sorted(found)}


def float_stages(
    products: Sequence[Sequence[FinishOp]], columns: Sequence[int], store: WeightStore, places: Mapping[str, int] | None
) -> list[FloatStage]:
    """The stages of products side by side, which are alike.

    Args:
        products: what follows each.
        columns: how many each has.
        store: of their constants.
        places: the word at which each of the program's tables begins; None if tables travel.
    """
    made: list[FloatStage] = []
    for alike in zip(*([op for op in ends if not is_rounding(op)] for ends in products), strict=True):
        vectors: list[np.ndarray | None] = []
        for name in ("scale", "shift"):
            given = [getattr(op, name) for op in alike]
            parts = [vector_of(v, n, store) for v, n in zip(given, columns) if v is not None]
            vectors.append(np.concatenate(parts) if parts else None)
        first = alike[0]
        table = None if first.table is None else constant_of(first.table, store)
        place = -1 if first.table is None or places is None else places[content(first.table)]
        slope = None if first.slope is None else first.slope.value.data
        made.append(FloatStage(vectors[0], vectors[1], slope, first.limits, table, place))
    return made


def vector_of(value: SSAValue, columns: int, store: WeightStore) -> np.ndarray:
    """A constant's f32 number for each column."""
    array = constant_of(value, store).reshape(-1)
    return np.ascontiguousarray(np.broadcast_to(array, (columns,)), np.float32)


def constant_of(value: SSAValue, store: WeightStore) -> np.ndarray:
    """A table, a scale or a shift."""
    array = constant_value(value, store) if isinstance(value.owner, ConstantOp) else None
    if array is None:
        raise InternalError("a table, a scale or a shift behind a product is no constant")
    return array
