"""How `neuc bench` alternates between engines."""

from __future__ import annotations

import itertools
import time

import pytest

from neuc.compiler.cli.bench_command import time_in_turns


def test_engines_take_long_turns_after_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(time, "sleep", lambda seconds: order.append("pause"))
    engines = {name: lambda n=name: order.append(n) for name in "ab"}
    found = time_in_turns(engines, 0, 2)
    assert min(found["a"].runs, found["b"].runs) >= 10
    changes = [(one, other) for one, other in itertools.pairwise(order) if one != other]
    assert ("a", "b") in changes[:1]  # warm-ups, untimed
    assert ("a", "b") not in changes[1:]
    assert ("b", "a") not in changes
    assert order.count("pause") <= 10


def test_one_engine_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    assert time_in_turns({"a": lambda: None}, 0, 1)["a"].runs >= 10
    assert pauses == []
