"""The registries: every name is its object's own, and stock xDSL accepts them beside its own."""

from __future__ import annotations

import pytest
from xdsl.universe import Universe

from neuc.compiler import universe


@pytest.mark.parametrize("name", sorted(universe.DIALECTS))
def test_dialects_have_the_name_they_are_registered_under(name: str):
    assert universe.DIALECTS[name]().name == name


@pytest.mark.parametrize("name", sorted(universe.PASSES))
def test_passes_have_the_name_they_are_registered_under(name: str):
    cls = universe.PASSES[name]()
    assert cls.name == name
    assert cls.__doc__, "a pass says in its docstring what it does"
    assert cls().spec().name == name, "a pass has a default for every option"


def test_targets_have_the_name_they_are_registered_under():
    found = universe.targets()
    assert {"cpu", "cpu-tl2", "cpu-ref"} <= found.keys()
    assert all(target.name == name for name, target in found.items())


def test_xdsl_finds_them_and_no_name_clashes():
    multiverse = Universe.get_multiverse()
    assert universe.DIALECTS.keys() <= multiverse.all_dialects.keys()
    assert universe.PASSES.keys() <= multiverse.all_passes.keys()


def test_nearest_names():
    assert universe.nearest("tile-lot", universe.PASSES) == "did you mean tile-lut?"
    assert universe.nearest("zzz", ["a", "b"]) == "known: a, b"
