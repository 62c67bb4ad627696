"""`dense.pool` lowered and run, against the interpreter, on every instruction set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from xdsl.dialects.builtin import f32

from kernel_harness import runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.dialects import dense
from neuc.dialects.dense_shapes import window_dim
from neuc.dialects.dims import Dim
from neuc.dialects.store import tensor_type
from neuc.dialects.weight_store import WeightStore
from segment_harness import expected_of, function_of, run_segment

GEOMETRIES: list[dict[str, Sequence[int]]] = [
    {"kernel": [2, 2], "strides": [2, 2]},
    {"kernel": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1]},
    {"kernel": [3, 2], "strides": [2, 3], "pads": [1, 0, 2, 1], "dilations": [2, 3]},
    {"kernel": [5], "strides": [1], "pads": [2, 2]},
    {"kernel": [3], "strides": [7]},
    {"kernel": [2, 3, 2], "strides": [2, 1, 2], "pads": [0, 1, 1, 1, 1, 0]},
    # One window more than fits, as ceil_mode has it.
    {"kernel": [3, 3], "strides": [2, 2], "extra": [1, 1]},
]

# The instruction sets differ in lanes and masks, not in geometry: all geometries run where those differ most.
CASES = [
    pytest.param(geometry, isa, id=f"{number}-{isa.name}")
    for isa in runnable_isas()
    for number, geometry in enumerate(GEOMETRIES)
    if isa.name in ("avx512", "avx2") or number % 3 == 2
]
ISAS = pytest.mark.parametrize("isa", runnable_isas(), ids=lambda isa: isa.name)
UNIT = 2.0**-24
"""Rounding to f32 moves a number by at most this fraction."""


def pool(kind: str, x: np.ndarray, geometry: dict[str, Sequence[int]], include_pad: bool = False):
    n = x.ndim - 2
    strides, kernel = geometry["strides"], geometry["kernel"]
    pads, dilations = geometry.get("pads", [0] * 2 * n), geometry.get("dilations", [1] * n)
    sizes = [Dim.of(f"S{i}") for i in range(n)]
    extra = geometry.get("extra", [0] * n)
    out = [window_dim(sizes[i], kernel[i], strides[i], pads[i], pads[i + n], dilations[i]) + extra[i] for i in range(n)]

    def build(args):
        result = tensor_type(f32, ["N", x.shape[1], *out])
        return [
            dense.PoolOp(
                args[0], kind, result,
                kernel=kernel, strides=strides, pads=pads, dilations=dilations, count_include_pad=include_pad,
            )
        ]  # fmt: skip

    return function_of([tensor_type(f32, ["N", x.shape[1], *sizes])], build)


def image(rank: int, seed: int = 0) -> np.ndarray:
    shape = (2, 3, *(14, 40, 6)[:rank]) if rank != 2 else (2, 3, 10, 40)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("geometry", "isa"), CASES)
def test_max_is_exact(geometry: dict[str, Sequence[int]], isa: Isa) -> None:
    x, store = image(len(geometry["kernel"])), WeightStore()
    function = pool("max", x, geometry)
    np.testing.assert_array_equal(run_segment(function, [x], isa, store)[0], expected_of(function, [x], store)[0])


@pytest.mark.parametrize("include_pad", [False, True])
@pytest.mark.parametrize(("geometry", "isa"), CASES)
def test_average(geometry: dict[str, Sequence[int]], include_pad: bool, isa: Isa) -> None:
    x, store = image(len(geometry["kernel"])), WeightStore()
    function = pool("avg", x, geometry, include_pad)
    (got,), (want,) = run_segment(function, [x], isa, store), expected_of(function, [x], store)
    # The sum rounds once for each term, the division once more; the mean of magnitudes bounds both.
    (magnitude,) = expected_of(function, [np.abs(x)], store)
    assert (np.abs(got - want) <= 1.01 * (math.prod(geometry["kernel"]) + 2) * UNIT * magnitude).all()


@ISAS
def test_nan_wins_a_max(isa: Isa) -> None:
    x = image(2)
    x[0, 0, 3, 5] = np.nan
    function = pool("max", x, GEOMETRIES[1])
    (got,) = run_segment(function, [x], isa, WeightStore())
    assert np.isnan(got[0, 0, 2:5, 4:7]).all()
    assert np.isnan(got).sum() == 9


def test_empty_batch() -> None:
    x = image(2)[:0]
    assert run_segment(pool("max", x, GEOMETRIES[0]), [x], runnable_isas()[0], WeightStore())[0].shape == (0, 3, 5, 20)
