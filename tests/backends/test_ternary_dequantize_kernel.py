"""Dequantisation kernels give the interpreter's values, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import assert_guards, guarded, run_kernel, runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.ternary_dequantize import (
    DequantizeTransposedKernel,
    Epilogue,
    TernaryDequantizeKernel,
)
from neuc.dialects.interp.ternary import dequantize

ISAS = runnable_isas()

# Batch, pixels, planes, rows, segments, bias, activation.
CASES = [
    (1, 1, 1, 1, 1, False, "none"),
    (2, 7, 2, 37, 3, True, "none"),
    (1, 33, 1, 16, 1, True, "relu"),
    (1, 5, 2, 20, 1, True, "none"),
    (2, 9, 1, 530, 1, False, "none"),
]


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_as_interpreted(case: tuple[int, int, int, int, int, bool, str], isa: Isa) -> None:
    batch, pixels, planes, rows, segments, has_bias, activation = case
    random = np.random.default_rng(rows)
    acc = random.integers(-(2**30), 2**30, (batch, pixels, segments, planes * rows)).astype(np.int32)
    s = random.random(batch).astype(np.float32)
    scales = random.standard_normal((planes, rows, segments)).astype(np.float32)
    bias = random.standard_normal(rows).astype(np.float32)
    expected = dequantize(acc, s, scales) + (bias if has_bias else np.float32(0))
    expected = np.maximum(expected, 0) if activation == "relu" else expected

    epilogue = Epilogue(rows, planes, segments, has_bias, activation)
    inputs = [acc, s, np.ascontiguousarray(scales.transpose(0, 2, 1)), bias if has_bias else 0]
    y, whole = guarded(np.full((batch, pixels, rows), 9, np.float32))
    kernel = TernaryDequantizeKernel(epilogue)
    run_kernel(kernel, isa, [*inputs, y, pixels], batch * pixels * kernel.units_per_token, threads_split=3)
    assert_guards(whole)
    assert np.array_equal(y, expected)

    # Into the middle of twice as many channels.
    first = rows // 2
    if has_bias:
        inputs[3] = np.pad(bias, (first, rows - first), constant_values=np.nan)
    y, whole = guarded(np.full((batch, 2 * rows, pixels), 9, np.float32))
    transposed, blocks = DequantizeTransposedKernel(epilogue), -(-pixels // isa.f32_lanes)
    run_kernel(transposed, isa, [*inputs, y, pixels, first, 2 * rows], batch * blocks, threads_split=3)
    assert_guards(whole)
    assert np.array_equal(y[:, first : first + rows], expected.transpose(0, 2, 1))
    assert (np.delete(y, slice(first, first + rows), axis=1) == 9).all()
