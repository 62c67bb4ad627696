"""Deterministic forward passes of aihwkit 1.2 (recorded by tests/data/analog/make_golden.py) and of our tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernel_harness import aligned, run_kernel, runnable_isas
from neuc.backends.cpu.kernels.crossbar_tile import BLOCK, CrossbarTileKernel, panel_columns
from neuc.backends.cpu.kernels.gemm import pack_panels

GOLDEN = Path(__file__).parents[1] / "data" / "analog" / "aihwkit_tiles.npz"
SHARE_DIFFERENT = 1e-4
"""Outputs that may be one step of the converter apart: sums in another order fall on the other side of a tie."""
EQUAL = 1e-5
"""Relative; two roundings of f32 lie between the same code and the same output."""

CASES: dict[str, dict[str, Any]] = {
    "converters": {"dac_levels": 126, "adc_levels": 510, "adc_bound": 12.0},
    "wires": {
        "dac_levels": 126,
        "adc_levels": 510,
        "adc_bound": 12.0,
        "wire_drop": 1.0,
        "wire_ratio": 96 * 0.35 * 1e-4,
    },
    "constant range": {"dac_levels": 254, "input_range": 1.5, "adc_levels": 510, "adc_bound": 10.0},
    "iterative bound management": {"dac_levels": 126, "adc_levels": 510, "adc_bound": 2.0, "doublings": 10},
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_aihwkits(case: str) -> None:
    with np.load(GOLDEN) as golden:
        weights, x, expected = golden["weights"].T.copy(), golden["x"], golden[case]
    isa = runnable_isas()[0]
    (rows, columns), samples = weights.shape, len(x)
    kernel = CrossbarTileKernel(rows, columns, **CASES[case])
    gains = np.ones(kernel.padded(isa), np.float32)
    out = aligned(samples * columns, np.float32).reshape(samples, columns)
    packed = pack_panels(weights, panel_columns(isa))
    args = [x, packed, gains, np.zeros(2, np.int64), out, samples, rows, 0, 0, 0]
    run_kernel(kernel, isa, args, -(-samples // BLOCK), scratch_bytes=kernel.scratch_bytes(isa))
    alpha = CASES[case].get("input_range") or np.abs(x).max(axis=1, keepdims=True)
    step = 2 * CASES[case]["adc_bound"] / CASES[case]["adc_levels"] * alpha * 2 ** CASES[case].get("doublings", 0)
    error = np.abs(out - expected)
    assert np.mean(error > EQUAL * np.abs(expected).max()) <= SHARE_DIFFERENT
    assert np.all(error <= 1.001 * step)
