"""What a segment of a product in bf16 is told of what follows it on the cores: parameters behind B, tables, counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import BlockArgument, SSAValue

from neuc.backends.npu.finish_constants import (
    constant_of,
    content,
    ends_of,
    finish_of,
    float_stages,
    is_rounding,
    tables_in,
)
from neuc.dialects.npu_finish import FinishOp
from neuc.dialects.npu_products import MatmulOp
from neuc.dialects.store import ConstantOp, dims_of
from neuc.dialects.weight_store import WeightStore
from neuc.runtime.npu.float_finish import FloatFinish, FloatStage
from neuc.runtime.npu.gemm_plan import GemmPlan, finished_float_weights

NONE, STORED = -2, -1
"""Where a stage's scale or shift comes from, if from no argument of the function."""


@dataclass(frozen=True)
class Ends:
    """What follows a product on its core.

    Attributes:
        finish: how much it is; None for sums as they are.
        stages: with parameters of all columns, where these are constants.
        data: of the segment.
        weights: of the segment: the program's tables.
        open_weights: and those of a product of two activations, whose parameters are laid out at run time.
    """

    finish: FloatFinish | None
    stages: Sequence[FloatStage] = ()
    data: Mapping[str, object] = field(default_factory=dict[str, object])
    weights: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    open_weights: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])

    def behind(self, plan: GemmPlan, tiles: np.ndarray, begin: int, columns: int) -> np.ndarray:
        """Tiles of B of some columns, with their parameters."""
        if self.finish is None:
            return tiles
        part = slice(begin, begin + columns)
        own = [
            replace(
                stage,
                scale=None if stage.scale is None else stage.scale[part],
                shift=None if stage.shift is None else stage.shift[part],
            )
            for stage in self.stages
        ]
        return np.asarray(finished_float_weights(plan, tiles, own, self.finish))


def float_ends(products: Sequence[MatmulOp], plan: GemmPlan, module: ModuleOp, store: WeightStore) -> Ends:
    """What follows products of the same floats, in a module whose products are all placed."""
    known = tables_in(module, store) if plan.resident else {}
    begins = dict(zip(known, accumulate([0, *map(len, known.values())])))
    weights = {"tables": np.concatenate(list(known.values()))} if known else {}
    data: dict[str, object] = {"tables": [len(words) for words in known.values()], "room": plan.tables}
    ends, finish = [ends_of(product) for product in products], finish_of(products[0])
    if finish is None:
        return Ends(None, (), data, weights)
    counts = {name: getattr(finish, name) for name in ("stages", "vectors", "passes", "narrow")}
    data["floats"] = {**counts, "tables": list(finish.tables), "sources": []}
    places = begins if plan.resident else None
    if isinstance(products[0].b.owner, ConstantOp):
        columns = [dims_of(product.result)[-1].value for product in products]
        return Ends(finish, float_stages(ends, columns, store, places), data, weights)
    data["floats"] = {**counts, "tables": list(finish.tables), "sources": [_sources(op) for op in _stages(ends[0])]}
    return Ends(finish, (), data, weights, _open_weights(_stages(ends[0]), store, places))


def _stages(ends: Sequence[FinishOp]) -> list[FinishOp]:
    return [op for op in ends if not is_rounding(op)]


def _sources(op: FinishOp) -> list[int]:
    """Where a stage's scale and shift come from: which argument of the function, or one of `NONE` and `STORED`."""
    return [_source(value) for value in (op.scale, op.shift)]


def _source(value: SSAValue | None) -> int:
    if value is None:
        return NONE
    return value.index if isinstance(value, BlockArgument) else STORED


def _open_weights(
    ends: Sequence[FinishOp], store: WeightStore, places: Mapping[str, int] | None
) -> dict[str, np.ndarray]:
    """What stages know before a run: scales and shifts as they are, tables that travel, and numbers f32 [stages, 3].

    The numbers are slope, lowest and highest result, not-a-number where there is none; ``places`` i32 [stages] is where
    tables begin.
    """
    found: dict[str, np.ndarray] = {}
    numbers = np.full((len(ends), 3), np.nan, np.float32)
    begins = np.full(len(ends), -1, np.int32)
    for i, op in enumerate(ends):
        for name, value in (("scale", op.scale), ("shift", op.shift)):
            if value is not None and _source(value) == STORED:
                found[f"{name}{i}"] = np.atleast_1d(constant_of(value, store)).astype(np.float32)
        if op.table is not None and places is not None:
            begins[i] = places[content(op.table)]
        elif op.table is not None:
            found[f"table{i}"] = constant_of(op.table, store)
        slope = np.nan if op.slope is None else op.slope.value.data
        numbers[i] = (slope, *(op.limits or (np.nan, np.nan)))
    return {**found, "numbers": numbers, "places": begins} if ends else {}
