"""Machines without a simulator: their predictions follow from their files, and say what is assumed."""

from __future__ import annotations

import pytest

from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.predictions import dimc_product, loihi_step, northpole_token
from neuc.errors import Error

PUBLISHED_TOKENS = 28_356  # tokens a second of a 3B model on 16 NorthPole cards
FACTOR = 2.0  # specifications alone, one link latency assumed: no better is claimed


def test_northpole_predicts_its_published_throughput_within_a_factor():
    token = northpole_token(find_machine("npu-northpole"), parameters=3e9, bits=4, cards=16, hidden=2560)
    rate = 1 / token.seconds
    assert PUBLISHED_TOKENS / FACTOR < rate < PUBLISHED_TOKENS * FACTOR
    assert 16 * token.seconds < 1e-3, "published: below a millisecond a token"
    assert token.limiter == "the link between cards"
    assert "card_link_latency_us" in token.assumed
    assert "memory_bytes_per_second" not in token.assumed


def test_weights_that_do_not_fit_a_card_are_refused():
    with pytest.raises(Error, match="1500 MB of weights a card"):
        northpole_token(find_machine("npu-northpole"), parameters=3e9, bits=4, cards=1, hidden=2560)


def test_in_memory_tiles_take_a_cycle_a_bit():
    machine = find_machine("npu-dimc")
    one = dimc_product(machine, 100, 256, 64)
    assert one.seconds == pytest.approx(100 * 8 / machine.clock_hz)
    assert dimc_product(machine, 100, 2048, 512).seconds == one.seconds, "64 tiles work side by side"
    more = dimc_product(machine, 100, 2048, 513)
    assert more.seconds == pytest.approx((2 * 800 + 2 * 256) / machine.clock_hz)
    assert set(one.assumed) >= {"array_rows", "mac_pj"}
    assert one.joules > 0


def test_a_step_of_loihi_is_its_slowest_core_and_a_barrier():
    machine = find_machine("npu-loihi2")
    quiet = loihi_step(machine, [(1000, 100_000, 0.0)])
    assert quiet.limiter == "the busiest core"
    assert quiet.seconds == pytest.approx(1000 * 8 / machine.clock_hz + 1e-6)
    busy = loihi_step(machine, [(1000, 100_000, 50_000.0)])
    assert busy.seconds > quiet.seconds
    assert busy.joules == pytest.approx(50_000 * 8e-12)
    with pytest.raises(Error, match="neuro-cores are wanted"):
        loihi_step(machine, [(10**7, 10**6, 0.0)])


def test_predictions_are_for_their_own_family():
    with pytest.raises(Error, match="is wanted") as caught:
        loihi_step(find_machine("npu-dimc"), [])
    assert caught.value.code == "NEUC-E688"
