"""The byte copy behind outputs that are inputs or constants."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import assert_guards, guarded, run_kernel, runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.copy_bytes import BYTES_PER_UNIT, CopyBytesKernel


@pytest.mark.parametrize("isa", runnable_isas(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("size", [0, 1, 63, BYTES_PER_UNIT, 3 * BYTES_PER_UNIT + 5])
@pytest.mark.parametrize("split", [1, 3])
def test_copies_exactly_the_bytes(isa: Isa, size: int, split: int) -> None:
    source = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    target, whole = guarded(np.zeros(size, np.uint8))
    work = -(-size // BYTES_PER_UNIT)
    run_kernel(CopyBytesKernel(), isa, [source, target, size], work, threads_split=split)
    assert (target == source).all()
    assert_guards(whole)
