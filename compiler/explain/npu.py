"""What the codes E670 to E699 mean: NPU dataflow."""

from __future__ import annotations

EXPLANATIONS: dict[str, str] = {}
