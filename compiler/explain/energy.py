"""What the codes E600 to E639 mean: energy models and relaxation."""

from __future__ import annotations

EXPLANATIONS: dict[str, str] = {}
