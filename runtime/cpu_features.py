"""What this machine's processor can do, and how many of its CPUs this process may use.

``NEUC_CPU_FEATURES="-avx512f,-avx2"`` takes features away (with all that depend on them), so that code for smaller
machines can be tested here. Nothing adds a feature the processor lacks.
"""

from __future__ import annotations

import difflib
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from neuc.errors import Error, Exit
from neuc.runtime.native import amx, llvm

FEATURES_VARIABLE = "NEUC_CPU_FEATURES"

_REQUIRES: dict[str, tuple[str, ...]] = {
    "sse3": ("sse2",),
    "ssse3": ("sse3",),
    "sse4.1": ("ssse3",),
    "sse4.2": ("sse4.1",),
    "avx": ("sse4.2",),
    "avx2": ("avx",),
    "fma": ("avx",),
    "f16c": ("avx",),
    "xop": ("avx",),
    "fma4": ("avx",),
    "vaes": ("avx2", "aes"),
    "vpclmulqdq": ("avx", "pclmul"),
    "avx512f": ("avx2", "fma", "f16c"),
    "avx512vbmi": ("avx512bw",),
    "avx512vbmi2": ("avx512bw",),
    "avx512bitalg": ("avx512bw",),
    "avx512bf16": ("avx512bw",),
    "avx512fp16": ("avx512bw", "avx512dq", "avx512vl"),
    "amx-int8": ("amx-tile",),
    "amx-bf16": ("amx-tile",),
    "amx-fp16": ("amx-tile",),
    "amx-complex": ("amx-tile",),
    "dotprod": ("neon",),
    "i8mm": ("neon",),
    "sve": ("fullfp16",),
    "sve2": ("sve",),
}
_PREFIX_REQUIRES = (("avx512", "avx512f"), ("avx10", "avx512f"), ("avxvnni", "avx2"), ("avxifma", "avx2"))


@lru_cache(maxsize=1)
def _detected() -> Mapping[str, bool]:
    found = llvm.host_cpu_features()
    if any(found.get(name) for name in amx.FEATURES) and not amx.tiles_supported():
        return {name: here and name not in amx.FEATURES for name, here in found.items()}
    return found


def host_cpu_name() -> str:
    """LLVM's name of this processor, such as ``znver4``."""
    return llvm.host_cpu_name()


def host_architecture() -> str:
    """``x86_64``, ``aarch64``, …: one spelling for each architecture on every system."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def host_features() -> frozenset[str]:
    """Features the code that runs here may use, in LLVM's spelling, after narrowing by the environment."""
    present = frozenset(name for name, here in _detected().items() if here)
    return present - _closure(_removed(os.environ.get(FEATURES_VARIABLE, "")), present)


def missing_features(required: Iterable[str]) -> list[str]:
    """Those of ``required`` that may not be used here, sorted."""
    return sorted(set(required) - host_features())


def _removed(text: str) -> frozenset[str]:
    names: set[str] = set()
    for item in filter(None, (part.strip() for part in text.split(","))):
        name = item.removeprefix("-")
        if name == item or name not in _detected():
            near = difflib.get_close_matches(name, _detected(), 1)
            raise Error(
                "NEUC-E403",
                f"{FEATURES_VARIABLE}: '{item}' does not take away a feature known here",
                hint=f"write '-{near[0]}'" if near else "write names as in '-avx512f,-avx2'",
                exit_code=Exit.USAGE,
            )
        names.add(name)
    return frozenset(names)


def _needs(feature: str) -> tuple[str, ...]:
    by_prefix = tuple(base for prefix, base in _PREFIX_REQUIRES if feature.startswith(prefix) and feature != base)
    return _REQUIRES.get(feature, ()) + by_prefix


def _closure(removed: frozenset[str], present: frozenset[str]) -> frozenset[str]:
    """``removed`` and every present feature that needs one of them."""
    gone = set(removed)
    while True:
        more = {name for name in present - gone if gone.intersection(_needs(name))}
        if not more:
            return frozenset(gone)
        gone |= more


def available_cpus() -> int:
    """CPUs this process may keep busy: the affinity mask, cut by a cgroup quota if there is one."""
    if sys.platform == "linux":
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, count if quota is None else min(count, quota))


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Whole CPUs allowed by this process's control group and those around it (v2 and v1), or None without a limit."""
    quotas: list[int] = []
    for folder in _cgroup_folders(root, own):
        limit, period = _words(folder / "cpu.max", 2) or (
            (_words(folder / "cpu.cfs_quota_us", 1) or ("-1",))[0],
            (_words(folder / "cpu.cfs_period_us", 1) or ("100000",))[0],
        )
        if limit.isdigit() and period.isdigit() and int(period):
            quotas.append(max(1, int(limit) // int(period)))
    return min(quotas, default=None)


def _cgroup_folders(root: Path, own: Path) -> list[Path]:
    """Where limits may be: the groups the process is in, as ``own`` says, all around them, and a container's root."""
    try:
        lines = own.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    found = [root, root / "cpu"]
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers:
            hierarchies = [root / "cpu", root / controllers] if "cpu" in controllers.split(",") else []
        else:  # v2, alone or beside v1
            hierarchies = [root, root / "unified"]
        for hierarchy in hierarchies:
            inside = hierarchy / path.strip("/")
            found += [folder for folder in (inside, *inside.parents) if folder.is_relative_to(hierarchy)]
    return list(dict.fromkeys(found))


def _words(path: Path, count: int) -> tuple[str, ...] | None:
    try:
        words = tuple(path.read_text().split())
    except (OSError, UnicodeDecodeError):
        return None
    return words if len(words) == count else None
