"""The limit kernels: what they read and multiply is checked by what their figures must not be."""

from __future__ import annotations

import ctypes

import limits
import numpy as np
import pytest

from neuc.runtime.cpu_features import host_features


@pytest.mark.parametrize("streams", limits.READ_STREAMS)
def test_every_byte_of_every_stream_is_read(streams: int) -> None:
    code = limits.compiled(limits._read_ir(streams), "read", limits._widest_features())
    read = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_int64)(code.addresses["read"])
    steps = 3
    raw = np.zeros(steps * limits._STEP + 64, np.uint8)
    start = -raw.ctypes.data % 64
    assert read(raw.ctypes.data + start, steps) == 0
    for at in range(0, steps * limits._STEP, 64):
        raw[start + at + 5] = 1
        assert read(raw.ctypes.data + start, steps) == 1 << 40, at
        raw[start + at + 5] = 0


@pytest.mark.parametrize("isa", limits.DOT_PRODUCTS)
def test_peaks_run(isa: str) -> None:
    if not host_features() >= set(limits.DOT_PRODUCTS[isa].features):
        pytest.skip(f"this processor has no {isa}")
    assert limits.DotProductPeak(1, isa).burst() > 0


def test_bursts_walk_through_the_pool() -> None:
    pool = limits.ReadBandwidth(1, pool_bytes=1 << 22)
    assert all(pool.burst(streams) > 0 for streams in limits.READ_STREAMS)


def test_spreads_are_percentiles() -> None:
    assert limits.Spread.of([float(value) for value in range(11)]) == limits.Spread(5.0, 1.0, 9.0)
