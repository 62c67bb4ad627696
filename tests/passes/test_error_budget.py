"""Planes per layer within an error budget, on models whose error is a known sum over layers."""

from __future__ import annotations

from collections.abc import Mapping
from math import log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuc.errors import Error
from neuc.passes.analysis.error_budget import GROUPS, Layer, choose_planes

NOISE = {0: 0.0, 1: 0.2, 2: 0.03, 3: 0.005, 4: 0.001}


class Model:
    """Additive errors: a layer's sensitivity times the noise of its planes."""

    def __init__(self, sensitivities: list[float]) -> None:
        self.layers = [Layer(f"layer{i}", 100 * (i % 3 + 1)) for i in range(len(sensitivities))]
        self.sensitivities = sensitivities
        self.calls: list[Mapping[str, int]] = []

    def __call__(self, planes: Mapping[str, int]) -> float:
        self.calls.append(planes)
        return sum(s * NOISE[planes[layer.name]] for s, layer in zip(self.sensitivities, self.layers, strict=True))


MODELS = st.lists(st.floats(0, 10), min_size=1, max_size=60)


@given(MODELS, st.floats(0, 5), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_budget_is_met_by_what_was_measured(sensitivities: list[float], budget: float, most: int) -> None:
    model = Model(sensitivities)
    found = choose_planes(model.layers, model, budget, max_planes=most)
    assert list(found.planes) == [layer.name for layer in model.layers]
    assert all(0 <= p <= most for p in found.planes.values())
    assert found.evaluations == len(model.calls) <= most + GROUPS + log2(len(sensitivities)) + 3
    assert found.met  # all float has no error here
    assert model(found.planes) == found.error <= budget


def test_a_generous_budget_needs_one_plane() -> None:
    model = Model([1.0] * 5)
    assert set(choose_planes(model.layers, model, 10.0).planes.values()) == {1}


def test_only_the_sensitive_layers_are_raised() -> None:
    sensitivities = [0.1] * 16
    sensitivities[4] = sensitivities[5] = 8.0  # 2 planes everywhere: 0.52; 3 in these two: 0.12
    model = Model(sensitivities)
    found = choose_planes(model.layers, model, 0.15)
    assert {name for name, planes in found.planes.items() if planes == 3} == {"layer4", "layer5"}
    assert {planes for name, planes in found.planes.items() if name not in ("layer4", "layer5")} == {2}


def test_layers_that_cannot_make_it_become_float() -> None:
    sensitivities = [0.1] * 8
    sensitivities[2] = 1000.0
    model = Model(sensitivities)
    found = choose_planes(model.layers, model, 0.01)
    assert [name for name, planes in found.planes.items() if planes == 0] == ["layer2"]
    assert found.planes["layer0"] == 4


def test_an_impossible_budget_is_reported() -> None:
    found = choose_planes([Layer("a", 1)], lambda planes: 0.5, 0.1)
    assert not found.met
    assert found.planes == {"a": 0}
    assert found.error == 0.5


def test_not_a_number_is_no_success() -> None:
    found = choose_planes([Layer("a", 1)], lambda planes: 0.0 if planes["a"] == 3 else float("nan"), 0.1)
    assert found.planes == {"a": 3}


def test_a_model_without_layers() -> None:
    assert choose_planes([], lambda planes: 0.0, 0.1).met
    assert not choose_planes([], lambda planes: 0.5, 0.1).met


@pytest.mark.parametrize(("budget", "planes"), [(-0.1, 2), (float("nan"), 2), (0.1, 0), (0.1, 5)])
def test_bad_arguments(budget: float, planes: int) -> None:
    with pytest.raises(Error) as caught:
        choose_planes([Layer("a", 1)], lambda planes: 0.0, budget, max_planes=planes)
    assert caught.value.code == "NEUC-E220"
