"""The language models of `examples/analog`: text, committed parameters, ONNX models; PyTorch gives the same."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import neuc

EXAMPLES = Path(__file__).parents[2] / "examples" / "analog"
sys.path.append(str(EXAMPLES))

from manual_text import CHARACTERS, manual, windows  # noqa: E402
from onnx_language_model import KINDS, PARAMETERS, language_model  # noqa: E402

LENGTH, WINDOWS = 64, 12
MOST_BYTES = 1_000_000
MOST_PERPLEXITY = 12.0
"""Of some held-out text; manuals of other versions of Python differ a little. A guess among all characters has 96."""
SAME = 1e-4
"""Relative; f32 sums in other orders."""


def surprise(logits: np.ndarray, targets: np.ndarray) -> float:
    logits = logits - logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    return float((np.log(np.exp(logits).sum(axis=-1)) - chosen).mean())


def held_out() -> tuple[np.ndarray, np.ndarray]:
    tokens, targets = windows(manual().held_out, LENGTH)
    return tokens[:WINDOWS], targets[:WINDOWS]


def test_the_text_is_split_and_repeats_nothing() -> None:
    text = manual()
    assert len(text.train) > 10 * len(text.held_out) > 100_000
    paragraphs = ["".join(CHARACTERS[t] for t in part).split("\n\n") for part in (text.train, text.held_out)]
    shared = set(paragraphs[0]) & set(paragraphs[1])
    assert sum(map(len, shared)) < 0.01 * len(text.held_out)  # but for the paragraph that is cut, and odd characters
    tokens, targets = windows(np.arange(10, dtype=np.uint8), 4)
    np.testing.assert_array_equal(tokens, [[0, 1, 2, 3], [4, 5, 6, 7]])
    np.testing.assert_array_equal(targets, tokens + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_committed_models_read_and_weigh_little(kind: str) -> None:
    assert (PARAMETERS / f"language_{kind}.npz").stat().st_size < MOST_BYTES
    model = language_model(kind)
    levels = [
        np.unique(np.abs(onnx.numpy_helper.to_array(t))) for t in model.graph.initializer if ".up.weight" in t.name
    ]
    assert all((len(found) == 2) == (kind == "ternary") for found in levels)
    tokens, targets = held_out()
    logits = neuc.compile(model, "cpu").session().run(None, {"tokens": tokens})[0]
    assert np.exp(surprise(logits, targets)) < MOST_PERPLEXITY


@pytest.mark.slow
def test_the_ternary_model_is_recognised_and_runs_on_crossbars() -> None:
    tokens, targets = held_out()
    model = language_model("ternary")
    plain = neuc.compile(model, "cpu")
    assert {row.source for row in plain.report.layers} >= {"recognised"}
    wanted = surprise(plain.session().run(None, {"tokens": tokens})[0], targets)
    found = surprise(neuc.compile(model, "xbar-pcm").session().run(None, {"tokens": tokens})[0], targets)
    assert wanted < found < wanted + 0.2


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
def test_the_onnx_model_is_the_torch_module(kind: str) -> None:
    torch = pytest.importorskip("torch")
    from language_model import LanguageModel

    with np.load(PARAMETERS / f"language_{kind}.npz") as arrays:
        state = {}
        for name in arrays.files:
            if name.endswith(".levels"):
                layer = name.removesuffix(".levels")
                state[layer] = arrays[name].astype(np.float32) * arrays[f"{layer}.scale"]
            elif not name.endswith(".scale") and arrays[name].ndim:
                state[name] = arrays[name].astype(np.float32)
    # Ternary weights are given as they are used, so nothing is left to round but activations.
    module = LanguageModel(bits=False)
    module.load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in state.items()})
    tokens, _ = held_out()
    logits = neuc.compile(language_model(kind), "cpu").session().run(None, {"tokens": tokens})[0]
    with torch.no_grad():
        wanted = module.eval()(torch.from_numpy(tokens)).numpy()
    limit = SAME if kind == "float" else 0.05  # codes of 8 bits, block after block
    assert np.linalg.norm(logits - wanted) < limit * np.linalg.norm(wanted)
