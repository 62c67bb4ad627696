"""Narrowing of CPU features, and counting of CPUs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from neuc.errors import Error, Exit
from neuc.runtime import cpu_features

ZEN = dict.fromkeys(
    (
        "sse2 sse3 ssse3 sse4.1 sse4.2 avx avx2 fma f16c avx512f avx512bw avx512vl avx512vnni avx512vbmi gfni aes"
    ).split(),
    True,
) | {"amx-int8": False, "avxvnni": False}


@pytest.fixture(autouse=True)
def _zen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_features, "_detected", lambda: ZEN)
    monkeypatch.delenv(cpu_features.FEATURES_VARIABLE, raising=False)


def narrowed(monkeypatch: pytest.MonkeyPatch, text: str) -> set[str]:
    """Features that ``text`` takes away."""
    before = cpu_features.host_features()
    monkeypatch.setenv(cpu_features.FEATURES_VARIABLE, text)
    return set(before - cpu_features.host_features())


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("", ""),
        ("-avx512vnni", "avx512vnni"),
        ("-avx512bw", "avx512bw avx512vbmi"),
        ("-avx512f", "avx512f avx512bw avx512vl avx512vnni avx512vbmi"),
        ("-fma", "fma avx512f avx512bw avx512vl avx512vnni avx512vbmi"),
        (" -avx2 , -gfni ", "avx2 avx512f avx512bw avx512vl avx512vnni avx512vbmi gfni"),
        ("-avx", "avx avx2 fma f16c avx512f avx512bw avx512vl avx512vnni avx512vbmi"),
        ("-amx-int8", ""),
    ],
)
def test_taking_away_takes_what_depends_on_it(monkeypatch: pytest.MonkeyPatch, text: str, gone: str) -> None:
    assert narrowed(monkeypatch, text) == set(gone.split())


@pytest.mark.parametrize("text", ["avx2", "+amx-int8", "-avx513f", "-", "-avx2;-fma"])
def test_refuses_what_is_no_removal(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(cpu_features.FEATURES_VARIABLE, text)
    with pytest.raises(Error) as caught:
        cpu_features.host_features()
    assert caught.value.code == "NEUC-E403"
    assert caught.value.exit_code == Exit.USAGE


def test_suggests_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu_features.FEATURES_VARIABLE, "-avx512vnn")
    with pytest.raises(Error, match="avx512vnni"):
        cpu_features.host_features()


def test_missing_features(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu_features.missing_features(["avx2", "amx-int8", "sve"]) == ["amx-int8", "sve"]
    monkeypatch.setenv(cpu_features.FEATURES_VARIABLE, "-avx2")
    assert cpu_features.missing_features(["avx2"]) == ["avx2"]


@pytest.mark.parametrize(
    ("files", "want"),
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "400000 100000"}, 4),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu.max": "1 0"}, None),
        ({}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
    ],
)
def test_cgroup_quota(tmp_path: Path, files: dict[str, str], want: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_features._cgroup_quota(tmp_path) == want


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")
def test_affinity_counts() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cpu_features.available_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert 1 <= cpu_features.available_cpus() <= len(allowed)
