"""Kernels for AArch64, cross-compiled, linked and run under an emulator: exact there, too."""

from __future__ import annotations

import numpy as np
import pytest

from aarch64 import run_on_aarch64
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.direct import DirectKernel
from neuc.backends.cpu.packing.direct import DirectEncoding, DirectLayout, pack_direct

pytestmark = pytest.mark.slow

ISAS = [Isa.neon(), Isa.portable("aarch64")]


KINDS: list[tuple[DirectEncoding, tuple[int, ...]]] = [
    ("i2", (-1, 0, 1)),
    ("t5", (-1, 0, 1)),
    ("i4", tuple(range(-8, 8))),
    ("i8", (-127, 3, 127)),
]


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize(("encoding", "levels"), KINDS, ids=str)
def test_direct_products(encoding: DirectEncoding, levels: tuple[int, ...], isa: Isa) -> None:
    rng = np.random.default_rng(0)
    rows, columns, segment = 75, 293, 128
    weights = rng.choice(np.array(levels, np.int8), (rows, columns))
    layout = DirectLayout.of(encoding, isa, levels, rows, columns, segment, 64, 128)
    kernel = DirectKernel(layout)
    for tokens in (1, 3, 17):
        q = rng.integers(-128, 128, (tokens, columns), np.int8)
        q[0] = -128
        sums = np.zeros((tokens, layout.tiling.segments, rows), np.int32)
        work = -(-tokens // kernel.token_block) * layout.tiling.row_blocks
        args = [q, pack_direct(weights, layout), sums, tokens]
        run_on_aarch64(kernel, isa, args, work, threads_split=2, scratch_bytes=kernel.scratch_bytes(isa))
        parts = [slice(at, at + segment) for at in range(0, columns, segment)]
        expected = [q[:, part].astype(np.int32) @ weights[:, part].T.astype(np.int32) for part in parts]
        np.testing.assert_array_equal(sums, np.stack(expected, axis=1))
