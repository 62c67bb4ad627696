"""The page of single layers beside ggml's: what it makes of samples. Nothing is timed."""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

import peer_kernels


def test_ratios_are_of_the_fastest_layer_within_rounds() -> None:
    samples: dict[tuple[str, str, int, int], list[float]] = {}
    for rows, columns in peer_kernels.SHAPES:
        for tokens in (1, 64):
            shape = f"{rows}x{columns}"
            for name in peer_kernels.layers_of(tokens):
                samples[f"neuc {name}", shape, tokens, 1] = [200.0, 100.0, 300.0] if name == "t5" else [10.0] * 3
            samples["peer", shape, tokens, 1] = [100.0, 50.0, 300.0]
            samples["read", shape, tokens, 1] = [7.0, 8.0, 9.0]
    engine: Any = SimpleNamespace(spec=SimpleNamespace(name="peer"), system="AVX2 = 1")
    text = peer_kernels.page(
        samples, [engine], argparse.Namespace(rounds=3, tokens=64, shapes=peer_kernels.SHAPES, threads=[1]), 0.5
    )
    assert text.count("| peer | 100 (60..260) [2.00] |") == 2
    assert text.count("| neuc t5 | 200 (120..280) [1.00] |") == 2
    assert "| *read, GB/s* | 8.0 | 8.0 | 8.0 |" in text
    assert "- peer: AVX2 = 1" in text
    assert "measured elsewhere" in text
