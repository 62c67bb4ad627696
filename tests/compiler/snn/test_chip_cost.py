"""Estimates for a chip: sums of counts times constants, each with its source."""

from __future__ import annotations

import json

import pytest

from neuc.compiler.snn.chip_cost import LOIHI_2_LIKE, chip_cost
from neuc.compiler.snn.simulate import Activity
from neuc.errors import Error
from spike_counts import activity


def test_energy_is_counts_times_constants() -> None:
    cost = chip_cost(activity(), 2)
    assert (cost.spikes, cost.operations, cost.updates) == (15, 600, 18_020)
    assert cost.analog_operations == 25
    chip = LOIHI_2_LIKE
    expected = 600 * chip.synaptic_energy.value + 18_020 * chip.update_energy.value + 15 * chip.spike_energy.value
    assert cost.total_energy == pytest.approx(expected)
    assert cost.used_cores == 3


def test_latency_counts_the_busiest_way() -> None:
    chip = LOIHI_2_LIKE
    # 9000 neurons are on two cores, the sums that are read out on one.
    updates, operations = (10 + 9000 / 2) * 2, 500 / 2 + 100
    expected = updates * chip.update_time.value + operations * chip.synaptic_time.value + 2 * chip.barrier_time.value
    assert chip_cost(activity(), 2).latency == pytest.approx(expected)


def test_every_constant_is_shown_with_its_source() -> None:
    cost = chip_cost(activity(), 3)
    text = "\n".join(cost.lines())
    for name, constant in LOIHI_2_LIKE.constants().items():
        assert constant.status in ("published", "assumed")
        assert f"{name.replace('_', ' ')}: " in text
        assert constant.source in text
    assert "not measured" in text
    json.dumps(cost.to_json())


@pytest.mark.parametrize("steps", [0, 4])
def test_costs_need_counts(steps: int) -> None:
    with pytest.raises(Error, match="E542"):
        chip_cost(activity(), steps)
    with pytest.raises(Error, match="E542"):
        chip_cost(Activity(), 1)
