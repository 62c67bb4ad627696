"""Steps of converters that were built: ends are calibrated, sizes are those of the formulas, and what kinds cost."""

from __future__ import annotations

import numpy as np
import pytest

from neuc.errors import Error
from neuc.runtime.analog.converters import step_errors
from neuc.runtime.analog.costs import estimate
from neuc.runtime.analog.models import make_model
from neuc.runtime.analog.program import CrossbarProgram, TileEntry
from neuc.runtime.analog.tiles import Chip

LEVELS, MISMATCH, DRAWS = 254, 0.02, 4000
WITHIN = 0.05
"""Of a standard deviation of 4000 draws: 1.1 % is one of its own."""


def drawn(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([step_errors(kind, LEVELS, MISMATCH, rng) for _ in range(DRAWS)])


def test_uniform_converters_are_ideal_and_all_are_calibrated_at_both_ends() -> None:
    assert not step_errors("uniform", LEVELS, 0.5, np.random.default_rng(0)).any()
    for kind in ("sar", "ramp"):
        errors = step_errors(kind, LEVELS, MISMATCH, np.random.default_rng(0))
        np.testing.assert_allclose(errors[[0, -1]], 0, atol=1e-12)
        assert np.abs(errors).max() > 0
        assert not step_errors(kind, LEVELS, 0.0, np.random.default_rng(0)).any()


def test_a_ramp_is_a_random_walk_between_its_ends() -> None:
    found = drawn("ramp").std(axis=0)
    codes = np.arange(LEVELS + 1)
    np.testing.assert_allclose(
        found[10:-10], (MISMATCH * np.sqrt(codes * (LEVELS - codes) / LEVELS))[10:-10], rtol=WITHIN
    )


def test_a_capacitor_array_jumps_where_its_largest_one_comes_in() -> None:
    jumps = np.diff(drawn("sar"), axis=1).std(axis=0)
    # From 127 to 128, seven capacitors go and one comes: 127 + 128 units change.
    assert jumps.argmax() == 127
    assert jumps[127] == pytest.approx(MISMATCH * np.sqrt(255), rel=WITHIN)
    assert jumps[0] == pytest.approx(MISMATCH, rel=WITHIN)


@pytest.mark.parametrize(("kind", "levels", "mismatch"), [("flash", 254, 0.0), ("sar", 0, 0.0), ("ramp", 254, -0.1)])
def test_converters_that_make_no_sense(kind: str, levels: int, mismatch: float) -> None:
    with pytest.raises(Error) as caught:
        step_errors(kind, levels, mismatch, np.random.default_rng(0))
    assert caught.value.code == "NEUC-E652"


def test_a_ramp_takes_longer_and_its_price_is_its_steps() -> None:
    costs = {}
    for kind in ("sar", "ramp"):
        tile = TileEntry(0, "fc", 100, 64, "w", "g", adc_levels=LEVELS, dac_levels=LEVELS, adc_kind=kind)
        costs[kind] = estimate(CrossbarProgram(Chip(make_model("pcm")), (tile,), 128, 128, 1))
    assert costs["ramp"].latency == pytest.approx(254e-9)
    assert costs["sar"].latency == pytest.approx(100e-9)
    assert costs["ramp"].energy["adc"] == pytest.approx(64 * 254 * 1e-14)
    assert costs["ramp"].area != costs["sar"].area
