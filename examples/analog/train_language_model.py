"""Trains the two language models on the manual of this Python and writes their parameters: needs torch.

    python train_language_model.py ternary         # language_ternary.npz, under 20 minutes of one CPU
    python train_language_model.py float           # language_float.npz

Seed, order of batches and the number of threads are fixed; another CPU may still differ in last bits.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from language_model import CONTEXT, LanguageModel, Product, ternary
from manual_text import manual, windows
from torch import nn

HERE = Path(__file__).parent
STEPS, BATCH, WARM_UP, WEIGHT_DECAY = 1200, 32, 100, 0.05
KINDS, RATE = ("ternary", "float"), 4e-3


def train(kind: str, tokens: np.ndarray, *, steps: int, seed: int) -> LanguageModel:
    """A model trained on random windows of a text u8 [N]."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = LanguageModel(bits=kind == "ternary")
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY, fused=True)
    started, total = time.process_time(), 0.0
    for step in range(steps):
        progress = step / steps
        share = min(1.0, (step + 1) / WARM_UP) * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = RATE * share
        starts = rng.integers(0, len(tokens) - CONTEXT - 1, BATCH)
        batch = torch.from_numpy(np.stack([tokens[s : s + CONTEXT + 1] for s in starts]).astype(np.int64))
        loss = nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.item()
        if (step + 1) % 100 == 0:
            print(f"{kind} {step + 1}: loss {total / 100:.3f}, {time.process_time() - started:.0f} CPU s", flush=True)
            total = 0.0
    return model.eval()


def perplexity(model: nn.Module, tokens: np.ndarray) -> float:
    """Exp of the mean cross-entropy of a text u8 [N], window by window."""
    inputs, targets = (torch.from_numpy(part) for part in windows(tokens, CONTEXT))
    with torch.no_grad():
        losses = [
            nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
            for x, y in zip(inputs.split(32), targets.split(32))
        ]
    return float(torch.exp(torch.stack(losses).mean()))


def parameters(model: LanguageModel) -> dict[str, np.ndarray]:
    """Parameters by name as files hold them: ternary weights as int8 `….levels` and `….scale`, the others as f16."""
    arrays: dict[str, np.ndarray] = {}
    for name, value in model.state_dict().items():
        layer = model.get_submodule(name.rpartition(".")[0])
        if isinstance(layer, Product) and layer.bits:
            levels, scale = ternary(value)
            arrays[f"{name}.levels"] = levels.to(torch.int8).numpy()
            arrays[f"{name}.scale"] = scale.numpy()
        else:
            arrays[name] = value.to(torch.float16).numpy()
    return arrays


def main() -> None:
    """Train and write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("kind", choices=KINDS)
    options.add_argument("--steps", type=int, default=STEPS)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--to", type=Path, default=HERE)
    given = options.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    text = manual()
    print(f"{len(text.train)} characters to train on, {len(text.held_out)} held out, text {text.digest}", flush=True)
    started = time.process_time()
    model = train(given.kind, text.train, steps=given.steps, seed=given.seed)
    seconds = time.process_time() - started
    print(f"{given.kind}: held-out perplexity {perplexity(model, text.held_out):.3f}, {seconds:.0f} CPU s", flush=True)
    about = {"text": np.array(text.digest), "train_seconds": np.float32(seconds)}
    path = given.to / f"language_{given.kind}.npz"
    np.savez_compressed(path, **parameters(model), **about)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main()
