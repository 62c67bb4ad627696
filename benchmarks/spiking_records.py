"""Records of the spiking benchmarks: one JSON object a line, never changed; the newest of each key is what pages show.

What is measured is the business of the scripts that add records.
"""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from neuc.runtime.cpu_features import host_cpu_name

HISTORY = Path(__file__).parent / "spiking_history.jsonl"
RESAMPLES = 2_000
"""Of a bootstrap interval."""

Record = dict[str, Any]


def add(key: str, record: Record, path: Path = HISTORY) -> None:
    """Append a record with the time, the machine and how busy it was."""
    where = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": f"{host_cpu_name()}, {platform.machine()}",
        "load": round(os.getloadavg()[1], 1),
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"key": key, **where, **record}, sort_keys=True) + "\n")


def newest(path: Path = HISTORY) -> dict[str, Record]:
    """The last record of each key."""
    if not path.exists():
        return {}
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return {record["key"]: record for record in records}


def interval(differences: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean of paired differences f64 [N], one for each image (B. Efron, 1979)."""
    rng, count = np.random.default_rng(seed), len(differences)
    means = [differences[rng.integers(0, count, count)].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
