"""What the results of a program are: noted when it is made, so that whoever runs the artifact can draw them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from neuc.dialects import energy as e
from neuc.dialects.energy_types import Observable, Space, var_type
from neuc.dialects.store import constant_value
from neuc.dialects.weight_store import WeightStore

if TYPE_CHECKING:
    from xdsl.ir import SSAValue

_NOTED_PAIRS = 4096
"""More pairs are drawn as a histogram, which needs no site numbers."""


def result_facts(results: Mapping[str, SSAValue], store: WeightStore) -> dict[str, dict[str, object]]:
    """By name: energy, sum, pairs, histogram, evaluated or values, and of which variable; others are left out."""
    found: dict[str, dict[str, object]] = {}
    for name, value in results.items():
        match value.owner:
            case e.ObserveOp() as op:
                sample = op.args[0].owner
                assert isinstance(sample, e.SampleOp)
                fact: dict[str, object] = {"kind": op.what.data.value}
                fact |= {"warmup": sample.warmup.value.data, "thin": sample.thin.value.data}
                if op.what.data is not Observable.ENERGY:
                    fact |= _variable(op.args[1])
                if op.what.data is Observable.PAIRS:
                    i, j = (constant_value(operand, store) for operand in op.args[2:4])
                    if i is not None and j is not None and len(i) <= _NOTED_PAIRS:
                        fact |= {"i": np.asarray(i).tolist(), "j": np.asarray(j).tolist()}
                found[name] = fact
            case e.ReadOp() as op:
                found[name] = {"kind": "values", **_variable(op.variable)}
            case e.EvaluateOp():
                found[name] = {"kind": "evaluated"}
            case _:
                pass
    return found


def _variable(value: SSAValue) -> dict[str, object]:
    type_ = var_type(e.variable_of(value))
    levels = type_.levels if type_.space in (Space.CAT, Space.SIMPLEX) else 0
    return {"space": type_.space.value, "shape": list(type_.shape), "levels": levels}
