"""The im2col kernel gives numpy's windows."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from kernel_harness import assert_guards, guarded, run_kernel, runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.im2col import RUN, Im2ColKernel

# Shape of q, kernel, strides, pads (begins then ends), dilations.
CASES = [
    ((2, 3, 9), (3,), (1,), (1, 1), (1,)),
    ((1, 4, 10, 13), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    ((2, 2, 8, 150), (1, 5), (1, 3), (0, 4, 0, 2), (1, 2)),
    ((1, 2, 5, 6, 7), (2, 3, 2), (1, 2, 1), (1, 0, 1, 0, 1, 1), (2, 1, 3)),
    ((1, 3, 4, 4), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((1, 1, 2, 2), (3, 3), (1, 1), (3, 3, 3, 3), (1, 1)),
]


def windows(
    q: np.ndarray, kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...], dilations: tuple[int, ...]
) -> np.ndarray:
    """[N, …output, C, …kernel]."""
    rank = len(kernel)
    padded = np.pad(q, [(0, 0), (0, 0), *((pads[i], pads[rank + i]) for i in range(rank))])
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    view = sliding_window_view(padded, spans, axis=tuple(range(2, 2 + rank)))
    steps = [slice(None), slice(None), *(slice(None, None, step) for step in (*strides, *dilations))]
    return view[tuple(steps)].transpose((0, *range(2, 2 + rank), 1, *range(2 + rank, 2 + 2 * rank)))


@pytest.mark.parametrize("isa", runnable_isas(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_numpy(
    case: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]], isa: Isa
) -> None:
    shape, kernel, strides, pads, dilations = case
    q = np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8)
    expected, rank = windows(q, kernel, strides, pads, dilations), len(kernel)
    sizes = expected.shape[1 : 1 + rank]
    rows, whole = guarded(np.full((shape[0], prod(sizes), shape[1] * prod(kernel)), 77, np.int8))
    spec = Im2ColKernel(shape[1], kernel, strides, pads[:rank], dilations)
    work = shape[0] * prod(sizes[:-1]) * -(-sizes[-1] // RUN)
    run_kernel(spec, isa, [q, rows, 0, shape[1], *shape[2:], *sizes], work, threads_split=3)
    assert_guards(whole)
    assert np.array_equal(rows, expected.reshape(rows.shape))


def test_some_of_the_channels() -> None:
    q = np.random.default_rng(1).integers(-127, 128, (2, 6, 5, 5)).astype(np.int8)
    window = ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
    rows = np.zeros((2, 25, 18), np.int8)
    isa = runnable_isas()[0]
    run_kernel(Im2ColKernel(2, (3, 3), (1, 1), (1, 1), (1, 1)), isa, [q, rows, 3, 6, 5, 5, 5, 5], 10)
    assert np.array_equal(rows, windows(q[:, 3:5], *window).reshape(rows.shape))
