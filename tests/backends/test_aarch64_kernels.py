"""Kernels for AArch64, cross-compiled, linked and run under an emulator: exact there, too."""

from __future__ import annotations

import numpy as np
import pytest

from aarch64 import run_on_aarch64
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.direct_i2 import DirectI2Kernel
from neuc.backends.cpu.packing.i2 import I2Layout, pack_i2

pytestmark = pytest.mark.slow

ISAS = [Isa.neon(), Isa.portable("aarch64")]


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("tokens", [1, 3, 17])
def test_i2_products(isa: Isa, tokens: int) -> None:
    rng = np.random.default_rng(tokens)
    rows, columns, segment = 75, 293, 128
    trits = rng.integers(-1, 2, (rows, columns), np.int8)
    q = rng.integers(-128, 128, (tokens, columns), np.int8)
    layout = I2Layout.of((-1, 0, 1), rows, columns, segment, 64, 128)
    kernel = DirectI2Kernel(layout)
    sums = np.zeros((tokens, layout.tiling.segments, rows), np.int32)
    work = -(-tokens // kernel.token_block) * layout.tiling.row_blocks
    args = [q, pack_i2(trits, layout), sums, tokens]
    run_on_aarch64(kernel, isa, args, work, threads_split=2, scratch_bytes=kernel.scratch)
    parts = [slice(at, at + segment) for at in range(0, columns, segment)]
    expected = [q[:, part].astype(np.int32) @ trits[:, part].T.astype(np.int32) for part in parts]
    np.testing.assert_array_equal(sums, np.stack(expected, axis=1))
