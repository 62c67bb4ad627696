"""Narrowing of CPU features, and counting of CPUs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from neuc.errors import Error, Exit
from neuc.runtime import cpu_features
from neuc.runtime.native.pool import resolve_threads

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
        # v2: the group itself, and those around it
        ({"own": "0::/a/b", "a/b/cpu.max": "200000 100000"}, 2),
        ({"own": "0::/a/b", "a/cpu.max": "200000 100000", "a/b/cpu.max": "400000 100000"}, 2),
        ({"own": "0::/a/b", "a/b/cpu.max": "max 100000", "c/cpu.max": "100000 100000"}, None),
        ({"own": "0::/", "cpu.max": "300000 100000"}, 3),
        # v1, in either place it is mounted, and from inside a container, where the host's path does not exist
        ({"own": "4:memory:/x\n3:cpu,cpuacct:/a", "cpu,cpuacct/a/cpu.cfs_quota_us": "200000"}, 2),
        ({"own": "1:cpu:/a/b\n0::/", "cpu/a/cpu.cfs_quota_us": "250000", "cpu/a/b/cpu.cfs_quota_us": "-1"}, 2),
        ({"own": "1:cpu:/docker/1f", "cpu/cpu.cfs_quota_us": "500000"}, 5),
        ({"own": "3:cpuset:/a", "cpuset/a/cpu.cfs_quota_us": "200000"}, None),
        # v2 beside v1
        ({"own": "0::/a", "unified/a/cpu.max": "200000 100000"}, 2),
        ({"own": "damaged", "cpu.max": "200000 100000"}, 2),
    ],
)
def test_cgroup_quota(tmp_path: Path, files: dict[str, str], want: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_features._cgroup_quota(tmp_path, tmp_path / "own") == want


def test_threads_follow_the_quota_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_features.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(cpu_features, "_cgroup_quota", lambda: 3)
    assert resolve_threads(None) == 3
    assert resolve_threads(8) == 8


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")
def test_affinity_counts() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cpu_features.available_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert 1 <= cpu_features.available_cpus() <= len(allowed)
