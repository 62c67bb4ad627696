"""`make bench`: the example models against onnxruntime, float and ternary, on one and two threads."""

from __future__ import annotations

import subprocess
import sys

import models

TARGETS = {"speech": ("cpu", "cpu-tl2"), "minilm": ("cpu", "cpu-tl2"), "classifier": ("cpu",), "voice": ("cpu",)}


def main() -> None:
    """Print one table for each model and target."""
    for name in sys.argv[1:] or TARGETS:
        model = str(models.MODELS[name]())
        for target in TARGETS[name]:
            print(f"\n{name} on {target}", flush=True)
            command = ["bench", model, "--target", target, "--threads", "1,2", "--compare", "ort"]
            subprocess.run([sys.executable, "-m", "neuc", *command], check=True)


if __name__ == "__main__":
    main()
