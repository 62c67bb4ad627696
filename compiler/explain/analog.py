"""What the codes E640 to E669 mean: analog crossbars."""

from __future__ import annotations

EXPLANATIONS: dict[str, str] = {}
