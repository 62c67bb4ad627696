"""Weights that aihwkit learnt by ten pulsed updates, and what it means that ours are the same up to chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np

_GOLDEN = Path(__file__).parents[1] / "data" / "analog" / "aihwkit_pulses.npz"


def aihwkit_weights(name: str) -> np.ndarray:
    """Weights [runs, lines, lines] of device `name` after ten updates."""
    with np.load(_GOLDEN) as golden:
        return golden[name].astype(float)


def assert_same_up_to_chance(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Means and spreads over runs agree: arrays [runs, lines, lines] of as many runs."""
    error = np.sqrt((ours.var(axis=0) + theirs.var(axis=0)) / len(ours))
    z = (ours.mean(axis=0) - theirs.mean(axis=0)) / error
    # Lines share their pulses, so z is no sample of independent normals: its spread is looked at, and its mean.
    assert np.sqrt(np.mean(z**2)) < 1.3
    assert abs(ours.mean() - theirs.mean()) < 0.005
    np.testing.assert_allclose(ours.std(axis=0).mean(), theirs.std(axis=0).mean(), rtol=0.05)
