"""Rates of direct products by instruction set, for the cost model of `choose-encoding`.

Multiply-adds per nanosecond on one core, for one row of activations and 2560x2560 ternary weights in cache: half the
GOPS that `benchmarks/performance_page.py` measures on an x86-64 server processor. Only their ratios to each other and
to the speed of memory decide anything; `neuc compile --tune` measures the machine at hand instead.
"""

from __future__ import annotations

from neuc.backends.cpu.isa import Isa

RATES: dict[str, dict[str, int]] = {
    "avx512 with vbmi": {"i2": 109, "t5": 98},
    "avx512": {"i2": 109, "t5": 32},
    "avx2": {"i2": 58, "t5": 32},
    "sse4": {"i2": 27, "t5": 16},
    "neon": {"i2": 27, "t5": 20},
    "portable": {"i2": 15, "t5": 15},
    "scalar": {"i2": 2},
}
"""By instruction set and encoding; look-ups are left out: their linear layers take more launches than direct ones."""


def rates_of(isa: Isa) -> dict[str, int]:
    """The rates of an instruction set."""
    decodes_in_registers = isa.name == "avx512" and "avx512vbmi" in isa.features
    return RATES["avx512 with vbmi" if decodes_in_registers else isa.name]
