"""What the codes E500 to E549 mean: spiking networks."""

from __future__ import annotations

EXPLANATIONS: dict[str, str] = {}
