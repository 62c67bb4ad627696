"""Simulated tiles on every instruction set against the interpreter: converters, wires, noise, nonlinear devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from xdsl.dialects.builtin import StringAttr, TensorType, f32
from xdsl.ir import Operation, SSAValue

from kernel_harness import runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.dialects import crossbar
from neuc.dialects.crossbar_tiles import CompensateOp, ProgramOp
from neuc.dialects.crossbar_types import TileType
from neuc.dialects.dense_attrs import ActivationAttr
from neuc.dialects.store import make_constant
from neuc.dialects.weight_store import WeightStore
from segment_harness import expected_of, function_of, run_segment

RELATIVE = 2e-5
"""f32 sums of some hundred products in another order."""
SHARE_AT_TIES = 1e-3
"""Outputs that may fall on the other side of a converter's rounding, because sums differ in the last bit."""


def tile_function(
    samples: int,
    rows: int,
    columns: int,
    store: WeightStore,
    dac: dict[str, Any],
    mvm: dict[str, Any],
    adc: dict[str, Any],
) -> Any:
    rng = np.random.default_rng(3)
    weights = np.clip(rng.standard_normal((rows, columns)) * 0.3, -1, 1).astype(np.float32)
    scales = rng.uniform(0.5, 2, columns).astype(np.float32)
    entry = store.add("w", weights)
    gain_entry = store.add("g", scales)
    errors = store.add("e", rng.uniform(-0.7, 0.7, adc.get("levels", 0) + 1).astype(np.float32))

    def build(args: Sequence[SSAValue]) -> Sequence[Operation]:
        tile = ProgramOp(7, (entry, store.sha(entry)), "ideal", TileType.of(rows, columns))
        gains = CompensateOp(tile.result, (gain_entry, store.sha(gain_entry)), "none")
        voltages = crossbar.DacOp(args[0], rows, first=2, **dac)
        currents = crossbar.MvmOp(voltages.result, tile.result, **mvm)
        settings = {key: value for key, value in adc.items() if key != "errors"}
        out = crossbar.AdcOp(currents.result, gains.result, **settings)
        if "errors" in adc:
            out.errors, out.errors_sha = StringAttr(errors), StringAttr(store.sha(errors)[:12])
        return [tile, gains, voltages, currents, out]

    return function_of([TensorType(f32, [samples, rows + 5])], build)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "ideal": ({}, {}, {}),
    "converters": ({"levels": 254, "bound": 1.0}, {}, {"levels": 510, "bound": 12.0}),
    "fixed range": ({"levels": 126, "bound": 1.0, "range_": 1.5}, {}, {"levels": 254, "bound": 10.0}),
    "wires": ({"levels": 126, "bound": 1.0}, {"wire_drop": 1.0, "wire_ratio": 0.004}, {}),
    "fine codes": ({"levels": 1022, "bound": 1.0}, {"noise": 0.02}, {}),
    "positive": ({"levels": 126, "bound": 1.0, "part": "positive"}, {}, {}),
    "negative": ({"levels": 126, "bound": 1.0, "part": "negative"}, {}, {}),
    "bit": ({"levels": 126, "bound": 1.0, "part": "bit3"}, {}, {}),
    "curved": ({"levels": 126, "bound": 1.0, "curvature": 2.0}, {}, {}),
    "noise": ({"levels": 254, "bound": 1.0}, {"noise": 0.02}, {"noise": 0.04}),
    "output noise": ({}, {}, {"noise": 0.04, "bound": 3.0}),
    "overflow": ({"levels": 254, "bound": 1.0}, {}, {"levels": 254, "bound": 2.0, "doublings": 6}),
    "real steps": ({"levels": 254, "bound": 1.0}, {}, {"levels": 254, "bound": 6.0, "errors": True}),
    "everything": (
        {"levels": 254, "bound": 1.0},
        {"noise": 0.02, "wire_drop": 1.0, "wire_ratio": 0.004},
        {"levels": 1022, "bound": 3.0, "noise": 0.04, "doublings": 4, "errors": True},
    ),
}


def cases() -> list[Any]:
    """Each case on the widest instruction set; on the others what has the most in it."""
    widest, *others = runnable_isas()
    sizes = ((37, 50, 45), (1, 3, 1))
    few = [(case, isa, sizes[0]) for isa in others for case in ("bit", "curved", "everything")]
    every = [(case, widest, size) for case in CASES for size in sizes]
    every += [(case, widest, (17, 67, 33)) for case in ("negative", "everything")]  # odd, and just enough for AMX
    return [pytest.param(case, isa, *size, id=f"{case}-{isa.name}-{size[0]}") for case, isa, size in (*every, *few)]


@pytest.mark.parametrize(("case", "isa", "samples", "rows", "columns"), cases())
def test_a_tile_is_what_the_interpreter_says(case: str, isa: Isa, samples: int, rows: int, columns: int) -> None:
    store = WeightStore()
    dac, mvm, adc = CASES[case]
    function = tile_function(samples, rows, columns, store, dac, mvm, adc)
    x = np.random.default_rng(1).standard_normal((samples, rows + 5)).astype(np.float32)
    x[0] = 0
    (expected,) = expected_of(function, [x], store)
    (got,) = run_segment(function, [x], isa, store)
    error = np.abs(got - expected)
    step = 2 * adc["bound"] / adc["levels"] if adc.get("levels") else 0.0
    wrong = error > RELATIVE * max(1.0, float(np.abs(expected).max()))
    assert wrong.mean() <= (SHARE_AT_TIES if step else 0.0)
    # One step of the converter, in units of the output: alpha is at most 4 here, gains at most 2, and inputs may be
    # driven at 1/2**doublings.
    assert error.max() <= max(step * 4 * 2 * 2 ** adc.get("doublings", 0), RELATIVE * np.abs(expected).max())


@pytest.mark.parametrize("isa", runnable_isas(), ids=lambda isa: isa.name)
def test_partial_sums_are_added(isa: Isa) -> None:
    store = WeightStore()
    bias = np.random.default_rng(0).standard_normal(40).astype(np.float32)

    def build(args: Sequence[SSAValue]) -> Sequence[Operation]:
        constant = make_constant("bias", bias, store)
        total = crossbar.AccumulateOp(
            args, [0, 0, 23], [1.0, -0.5, 2.0], 40, constant.result, ActivationAttr.of("relu")
        )
        return [constant, total]

    function = function_of([TensorType(f32, [5, n]) for n in (23, 23, 17)], build)
    arrays = [np.random.default_rng(n).standard_normal((5, n)).astype(np.float32) for n in (23, 24, 17)]
    arrays[1] = arrays[1][:, :23].copy()
    (expected,) = expected_of(function, arrays, store)
    (got,) = run_segment(function, arrays, isa, store)
    np.testing.assert_allclose(got, expected, rtol=RELATIVE, atol=RELATIVE)
