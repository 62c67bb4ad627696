"""Machines without a simulator: their predictions follow from their files, and say what is assumed."""

from __future__ import annotations

import pytest

from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.predictions import (
    Decoder,
    Prediction,
    dimc_network,
    dimc_product,
    loihi_step,
    northpole_pipeline,
)
from neuc.errors import Error

PUBLISHED_TOKENS = 28_356  # tokens a second of a 3B model on 16 NorthPole cards
FACTOR = 1.25  # specifications, the link's latency from another model's published time, its rate assumed
GRANITE_3B = Decoder(layers=14, hidden=4096, feed_forward=14336, kv=1024, vocabulary=49152)


def _granite(**changes: int) -> Prediction:
    sizes = {"bits": 4, "output_cards": 2, "users": 28, "context": 2048, **changes}
    return northpole_pipeline(find_machine("npu-northpole"), GRANITE_3B, **sizes)


def test_northpole_predicts_its_published_throughput_within_a_factor():
    token = _granite()
    rate = 1 / token.seconds
    assert PUBLISHED_TOKENS / FACTOR < rate < PUBLISHED_TOKENS * FACTOR
    assert 16 * token.seconds < 1e-3, "published: below a millisecond a token"
    assert token.limiter == "the link between cards, of an output card"
    assert "card_link_bytes_per_second" in token.assumed
    assert "card_link_latency_us" not in token.assumed
    assert "memory_bytes_per_second" not in token.assumed


def test_a_pipeline_needs_users_and_sends_its_logits():
    assert _granite(users=1).limiter == "too few users for so long a pipeline"
    assert _granite(users=1).seconds > 10 * _granite().seconds
    assert _granite(output_cards=16).limiter == "the link between cards, of a layer's card"
    wider = _granite(logit_bytes=2).seconds - _granite().seconds
    assert wider == pytest.approx(49152 / 2 / 2.0e9), "a byte more for each logit of a card"


def test_the_latency_of_the_link_is_that_of_the_8b_model():
    """arXiv 2511.15950: 2.8 ms a token on a third of 288 cards; half a layer of 40 on a card, 4-bit weights."""
    machine = find_machine("npu-northpole")
    layer = Decoder(layers=40, hidden=4096, feed_forward=12800, kv=1024, vocabulary=49159).layer_parameters
    reading = layer / 2 * 0.5 / machine.extension["memory_bytes_per_second"]
    sending = 4096 / machine.extension["card_link_bytes_per_second"]
    left = 2.8e-3 / (288 / 3) - reading - sending
    assert machine.extension["card_link_latency_us"] == pytest.approx(left * 1e6, abs=0.5)


def test_caches_that_do_not_fit_a_card_are_refused():
    with pytest.raises(Error, match="MB of weights and caches a card"):
        _granite(users=60)


def test_in_memory_tiles_take_a_cycle_a_bit():
    machine = find_machine("npu-dimc")
    one = dimc_product(machine, 100, 256, 64)
    assert one.seconds == pytest.approx(100 * 8 / machine.clock_hz)
    assert dimc_product(machine, 100, 2048, 512).seconds == one.seconds, "64 tiles work side by side"
    more = dimc_product(machine, 100, 2048, 513)
    assert more.seconds == pytest.approx((2 * 800 + 2 * 256) / machine.clock_hz)
    assert set(one.assumed) >= {"array_rows", "mac_pj"}
    assert one.joules > 0


def test_layers_of_a_network_work_side_by_side():
    machine = find_machine("npu-dimc")
    digits = dimc_network(machine, [(1, 64, 96), (1, 96, 64), (1, 64, 10)])
    assert digits.tiles == 2 + 1 + 1
    assert digits.latency == pytest.approx(3 * 8 / machine.clock_hz)
    assert digits.interval == pytest.approx(8 / machine.clock_hz)
    assert digits.joules == pytest.approx((64 * 96 + 96 * 64 + 64 * 10) * machine.extension["mac_pj"] * 1e-12)
    with pytest.raises(Error, match="tiles are wanted"):
        dimc_network(machine, [(1, 256 * 65, 64)])


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
